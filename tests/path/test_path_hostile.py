"""A hostile wire and a lying peer: nothing raises, nothing grows, no third party is flooded, honesty heals it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshcall.core import Endpoint, endpoint, parse_endpoint
from meshcall.path.budget import BIRTHDAY_PACKETS_MAX, HOST_PACKETS_MAX, TOTAL_PACKETS_MAX, WINDOW_SECONDS, ProbeBudget
from meshcall.path.candidates import Trust
from meshcall.path.health import State
from meshcall.path.life import MappingLife
from meshcall.path.paths import Path, direct, endpoint_of, is_relayed, relayed
from meshcall.path.prober import Prober
from meshcall.path.table import NONCES_MAX, PATHS_MAX
from meshcall.wire.path import (
    KIND_ANSWER,
    KIND_PROBE,
    NO_PORTS,
    Candidate,
    Candidates,
    Kind,
    Mapping,
    Ports,
    Probe,
    encode_candidates,
    encode_probe,
)

RELAY = endpoint("203.0.113.8", 3478)
LEASE, FLOW = bytes(8), b"flow" * 2
HERE = (endpoint("192.0.2.1", 5000), endpoint("192.0.2.2", 5000))
BY_RELAY = (relayed(RELAY, LEASE), relayed(RELAY, FLOW))
VICTIM = endpoint("198.51.100.66", 4000)
STEP_SECONDS = 0.01


def prober(side: int, budget: ProbeBudget | None = None, ports: Ports = NO_PORTS, now: float = 0.0) -> Prober:
    candidates = (Candidate(Kind.HOST, HERE[side]),)
    return Prober(
        now, rng=Random(side), path=BY_RELAY[side], budget=budget or ProbeBudget(now), life=MappingLife(), rtt=0.09,
        trust=Trust.FULL, candidates=candidates, ports=ports,
    )  # fmt: skip


class Wire:
    """Two probers and what is under way between them; each frame takes three steps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ends = (prober(0), prober(1))
        self.flight: list[tuple[float, int, Path, int, bytes]] = []
        self.messages: list[tuple[float, int, bytes]] = []
        self.strays: Counter[bytes] = Counter()
        self.received: Counter[bytes] = Counter()
        self.is_direct_open = True
        self.collect()

    def collect(self) -> None:
        for side, each in enumerate(self.ends):
            for frame in each.outbox:
                self.post(side, frame.path, frame.kind, frame.payload)
            each.outbox.clear()
            self.messages += [(self.now + 0.05, 1 - side, message) for message in each.messages]
            each.messages.clear()
            each.events.clear()

    def post(self, side: int, path: Path, kind: int, payload: bytes) -> None:
        """One end sends by a path."""
        other = 1 - side
        if path == BY_RELAY[side]:
            self.flight.append((self.now + 0.045, other, BY_RELAY[other], kind, payload))
        elif path == direct(HERE[other]):
            if self.is_direct_open:
                self.flight.append((self.now + 0.04, other, direct(HERE[side]), kind, payload))
        else:
            self.strays[bytes(endpoint_of(path)[:-2])] += 1

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            wakes = [each.next_wake() for each in self.ends]
            times = [item[0] for item in self.flight] + [item[0] for item in self.messages]
            times += [wake for wake in wakes if wake is not None]
            due = min(times, default=end)
            if due > end:
                break
            self.now = max(self.now, due)
            for item in [item for item in self.flight if item[0] <= self.now]:
                self.flight.remove(item)
                self.deliver(*item[1:])
            for message in [item for item in self.messages if item[0] <= self.now]:
                self.messages.remove(message)
                self.ends[message[1]].take_message(self.now, message[2])
            for each in self.ends:
                wake = each.next_wake()
                if wake is not None and wake <= self.now:
                    each.wake(self.now)
                    after = each.next_wake()
                    assert after is None or after > self.now, "it spins"
            self.collect()
        self.now = end

    def deliver(self, side: int, path: Path, kind: int, payload: bytes) -> None:
        self.received[bytes(endpoint_of(path)[:-2])] += 1
        end = self.ends[side]
        if kind == 0:
            end.heard(self.now, path)
        else:
            end.receive(self.now, path, kind, payload)
        self.collect()

    def speak(self) -> None:
        for side, each in enumerate(self.ends):
            for path in each.duplicates(self.now):
                self.post(side, path, 0, b"")


sides = st.integers(0, 1)
hosts = st.sampled_from([VICTIM[:-2], bytes([198, 51, 100, 67]), HERE[0][:-2], HERE[1][:-2], bytes([127, 0, 0, 1])])
ports_of = st.integers(1, 65535).map(lambda port: port.to_bytes(2, "big"))
anywhere = st.builds(lambda host, port: Endpoint(host + port), hosts, ports_of)
lies = st.builds(
    Candidates,
    st.booleans(),
    st.one_of(
        st.just(NO_PORTS),
        st.builds(Ports, st.just(Mapping.INDEPENDENT)),
        st.builds(Ports, st.just(Mapping.RANDOM), hosts, low=st.just(1), high=st.just(65535)),
        st.builds(Ports, st.just(Mapping.SEQUENTIAL), hosts, next_port=st.integers(1, 65535), step=st.just(1)),
    ),
    st.lists(
        st.builds(Candidate, st.sampled_from([Kind.HOST, Kind.OBSERVED, Kind.MAPPED]), anywhere)
        | st.builds(Candidate, st.just(Kind.RELAY_UDP), anywhere, st.just(bytes(8))),
        max_size=16,
        unique=True,
    ).map(tuple),
)


class HostileWire(RuleBasedStateMachine):
    """Whatever happens between two probers."""

    @initialize()
    def begin(self) -> None:
        self.wire = Wire()

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.wire.step(seconds)

    @rule(frames=st.integers(1, 20))
    def talk(self, frames: int) -> None:
        for _ in range(frames):
            self.wire.speak()
            self.wire.step(0.02)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.wire.flight:
            self.wire.flight.pop(data.draw(st.integers(0, len(self.wire.flight) - 1)))

    @rule(data=st.data(), later=st.floats(0.0, 1.0))
    def delay_or_repeat(self, data: st.DataObject, later: float) -> None:
        if self.wire.flight:
            when, *rest = self.wire.flight[data.draw(st.integers(0, len(self.wire.flight) - 1))]
            self.wire.flight.append((when + later, *rest))  # type: ignore[arg-type]

    @rule(data=st.data(), source=anywhere)
    def from_elsewhere(self, data: st.DataObject, source: Endpoint) -> None:
        if self.wire.flight:
            number = data.draw(st.integers(0, len(self.wire.flight) - 1))
            when, side, _, kind, payload = self.wire.flight.pop(number)
            self.wire.flight.append((when, side, direct(source), kind, payload))

    @rule(side=sides, message=lies)
    def lie(self, side: int, message: Candidates) -> None:
        self.wire.ends[side].take_message(self.wire.now, encode_candidates(message))
        self.wire.collect()

    @rule(side=sides, data=st.binary(max_size=40), kind=st.sampled_from([KIND_PROBE, KIND_ANSWER, 18]), source=anywhere)
    def nonsense(self, side: int, data: bytes, kind: int, source: Endpoint) -> None:
        self.wire.ends[side].receive(self.wire.now, direct(source), kind, data)
        self.wire.ends[side].take_message(self.wire.now, data)
        self.wire.collect()

    @rule(side=sides)
    def network_changes(self, side: int) -> None:
        self.wire.ends[side].network_changed(self.wire.now)
        self.wire.collect()

    @rule(side=sides, trust=st.sampled_from(Trust))
    def trust_changes(self, side: int, trust: Trust) -> None:
        self.wire.ends[side].set_trust(self.wire.now, trust)
        self.wire.collect()

    @rule()
    def open_or_shut(self) -> None:
        self.wire.is_direct_open = not self.wire.is_direct_open

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "wire"):
            return
        windows = 2 * (1 + int(self.wire.now / WINDOW_SECONDS))  # two nodes
        for host, count in self.wire.strays.items():
            heard = self.wire.received[host]
            assert count <= windows * (HOST_PACKETS_MAX + BIRTHDAY_PACKETS_MAX) + 2 * heard
        for each in self.wire.ends:
            table = each._table
            assert len(table.paths) <= PATHS_MAX
            assert len(table._nonces) <= NONCES_MAX
            assert each.best is None or each.best in table.paths
            assert each.second is None or each.second in table.paths
            if not each._exchange.trust.tells:
                assert all(is_relayed(path) for path in table.paths)

    def teardown(self) -> None:
        """With an honest wire and an honest peer all is well again."""
        if not hasattr(self, "wire"):
            return
        wire = self.wire
        wire.is_direct_open = True
        for each in wire.ends:
            each.set_trust(wire.now, Trust.FULL)
        wire.step(61.0)  # what was too much of anything is forgotten
        for each in wire.ends:
            each.network_changed(wire.now)
        wire.collect()
        for _ in range(700):
            wire.speak()
            wire.step(0.02)
        for side, each in enumerate(wire.ends):
            assert each.best == direct(HERE[1 - side])
            assert each._table.paths[each.best].state(wire.now) is State.LIVE


TestHostileWire = HostileWire.TestCase
TestHostileWire.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


@settings(max_examples=20, deadline=None)
@given(st.lists(lies, min_size=1, max_size=40), st.sampled_from([Mapping.NONE, Mapping.INDEPENDENT, Mapping.RANDOM]))
def test_a_lying_peer_cannot_make_us_flood(messages: list[Candidates], mapping: Mapping) -> None:
    budget = ProbeBudget(0.0)
    mine = Ports(mapping, b"\xc0\x00\x02\x01", low=1, high=65535) if mapping is Mapping.RANDOM else Ports(mapping)
    ends = [prober(0, budget, mine) for _ in range(3)]  # three links of one node, all with liars
    sent: Counter[bytes] = Counter()
    now = 0.0
    for message in messages:
        for each in ends:
            each.take_message(now, encode_candidates(message))
        for _ in range(5):
            now += 0.25
            for each in ends:
                each.wake(now)
                sent.update(bytes(frame.path[1:5]) for frame in each.outbox)
                each.outbox.clear()
    sent.pop(bytes(RELAY[:-2]), None)
    assert now < WINDOW_SECONDS
    assert max(sent.values(), default=0) <= HOST_PACKETS_MAX + BIRTHDAY_PACKETS_MAX
    assert sum(sent.values()) <= TOTAL_PACKETS_MAX


def test_an_answer_that_did_not_come_from_there_proves_nothing() -> None:
    """A liar that sits elsewhere cannot make a victim's address our path: it never sees the nonce."""
    end = prober(0)
    end.outbox.clear()
    lie = Candidates(candidates=(Candidate(Kind.OBSERVED, VICTIM),))
    end.take_message(0.0, encode_candidates(lie))
    for n in range(300):
        now = n * 0.01
        end.wake(now)
        end.receive(now, direct(VICTIM), KIND_ANSWER, Random(1000 + n).randbytes(8))  # spoofed source, guessed nonce
    assert end.best != direct(VICTIM)
    assert not any(health.verified for path, health in end._table.paths.items() if not is_relayed(path))
    assert end.counters["answer to nothing"] == 300


def test_the_answer_must_take_the_way_of_the_probe() -> None:
    end = prober(0)
    end.outbox.clear()
    end.take_message(0.0, encode_candidates(Candidates(candidates=(Candidate(Kind.OBSERVED, VICTIM),))))
    end.wake(0.1)
    nonce = next(frame.payload[1:] for frame in end.outbox if frame.path == direct(VICTIM))
    elsewhere = direct(endpoint("198.51.100.67", 4000))
    end.receive(0.2, elsewhere, KIND_ANSWER, nonce)
    assert end.best == BY_RELAY[0]
    assert end.counters["answer by another way"] == 1
    assert not end._table.paths[elsewhere].verified


def test_frames_to_an_unproved_address_are_no_more_than_came_from_it() -> None:
    end = prober(0)
    end.outbox.clear()
    spoofed = direct(VICTIM)
    out = 0
    for n in range(500):
        now = n * 0.02
        if n < 20:
            end.heard(now, spoofed)  # genuine packets of the peer, their source rewritten on the way
        end.wake(now)
        out += sum(path == spoofed for path in end.duplicates(now))
        out += sum(frame.path == spoofed for frame in end.outbox)
        end.outbox.clear()
    assert out <= 20 + 8


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.RELAY_ONLY])
def test_before_acceptance_nobody_gets_a_packet_by_naming_an_address(trust: Trust) -> None:
    end = Prober(
        0.0, rng=Random(1), path=BY_RELAY[0], budget=ProbeBudget(0.0), life=MappingLife(), trust=trust,
        candidates=(Candidate(Kind.HOST, HERE[0]),),
    )  # fmt: skip
    lie = Candidates(True, NO_PORTS, (Candidate(Kind.OBSERVED, VICTIM), Candidate(Kind.RELAY_UDP, VICTIM, bytes(8))))
    for n in range(100):
        end.take_message(n * 0.05, encode_candidates(lie))
        end.receive(n * 0.05, direct(VICTIM), KIND_PROBE, encode_probe(Probe(bytes(8))))
        end.heard(n * 0.05, direct(VICTIM))
        end.wake(n * 0.05)
        assert end.duplicates(n * 0.05) == (BY_RELAY[0],)
    assert all(frame.path == BY_RELAY[0] for frame in end.outbox)
    assert not end.messages
    assert end.counters["before acceptance"] == 200


@pytest.mark.parametrize("where", ["255.255.255.255:6881", "224.0.0.1:6881", "192.0.2.9:53", "240.0.0.1:6881"])
def test_a_relay_that_the_peer_names_is_no_broadcast_and_nobody_elses_service(where: str) -> None:
    for kind in (Kind.RELAY_UDP, Kind.RELAY_TCP):
        one = prober(0)
        one.outbox.clear()
        named = (Candidate(kind, parse_endpoint(where), bytes(8)), Candidate(Kind.RELAY_UDP, VICTIM, bytes(8)))
        one.take_message(0.1, encode_candidates(Candidates(True, NO_PORTS, named)))
        for tick in range(40):
            one.wake(0.1 + tick * 0.05)
        sent = {endpoint_of(frame.path) for frame in one.outbox}
        assert parse_endpoint(where) not in sent
        assert VICTIM in sent, "one that can be a relay is asked"


def test_candidates_messages_are_bounded() -> None:
    end = prober(0)
    for _ in range(100):
        end.take_message(0.0, encode_candidates(Candidates(asks=True)))
    assert len(end.messages) <= 2
    assert end.counters["too many candidates messages"] == 84
