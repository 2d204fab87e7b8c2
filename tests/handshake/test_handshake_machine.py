"""Two devices and a hostile wire, in any order Hypothesis can think of."""

from __future__ import annotations

import heapq

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshcall.core import endpoint
from meshcall.handshake.events import Closed, Established, Frame, Message, Roamed
from meshcall.handshake.stream import LinkBusyError
from meshcall.path.paths import direct
from tests.handshake.two_links import Party, Wire

EVE = direct(endpoint("198.18.0.1", 6666))


class HostileWire(RuleBasedStateMachine):
    """What must hold whatever the wire does: see the invariants; and when it stops, all links still work."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire(paper=True, delay=0.03)
        self.people = [self.wire.party("alice"), self.wire.party("bob")]
        self.sent: dict[tuple[str, bytes], list[bytes]] = {}  # by sender and transcript
        self.got: dict[tuple[str, bytes], list[bytes]] = {}  # by receiver and transcript
        self.frames_sent: set[bytes] = set()
        self.frames_got: list[bytes] = []
        self.open: dict[tuple[str, int], bytes] = {}  # with the transcript
        self.gone: set[tuple[str, int]] = set()
        self.counter = 0
        self.wire.change = self.cross
        self.roughness = 0
        self.wire.dial(self.people[0], self.people[1])
        self.wire.run(1.0)
        self.listen()

    def cross(self, datagram: bytes) -> list[bytes]:
        rng = self.wire.rng
        if rng.randrange(100) >= self.roughness:
            return [datagram]
        what = rng.randrange(5)
        if what == 0:
            return []
        if what == 1:
            return [datagram, datagram]
        if what == 2:
            return [datagram[: rng.randrange(len(datagram))]]
        if what == 3:
            wound = bytearray(datagram)
            wound[rng.randrange(len(wound))] ^= 1 << rng.randrange(8)
            return [bytes(wound)]
        return [datagram, rng.randbytes(rng.randrange(1, 100))]

    def other(self, party: Party) -> Party:
        return self.people[self.people[0] is party]

    @rule(who=st.integers(0, 1))
    def dial(self, who: int) -> None:
        if len(self.people[who].links._dials) < 4:
            self.wire.dial(self.people[who], self.people[1 - who])
            self.wire.collect()

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.2, 1.0, 5.0, 40.0, 125.0]))
    def time_passes(self, seconds: float) -> None:
        self.wire.run(seconds)
        self.listen()

    @rule(percent=st.sampled_from([0, 5, 30, 100]))
    def weather(self, percent: int) -> None:
        self.roughness = percent

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=st.integers(0, 4000))
    def message(self, data: st.DataObject, size: int) -> None:
        name, number = data.draw(st.sampled_from(sorted(self.open)))
        party = next(party for party in self.people if party.name == name)
        self.counter += 1
        text = b"%d " % self.counter + bytes(size)
        try:
            party.links.send_message(self.wire.now, number, text)
        except LinkBusyError:
            return
        self.sent.setdefault((name, self.open[name, number]), []).append(text)
        self.wire.collect()
        self.listen()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), kind=st.integers(16, 63))
    def frame(self, data: st.DataObject, kind: int) -> None:
        name, number = data.draw(st.sampled_from(sorted(self.open)))
        party = next(party for party in self.people if party.name == name)
        self.counter += 1
        text = b"frame %d" % self.counter
        party.links.send_frame(self.wire.now, number, kind, text)
        self.frames_sent.add(text)
        self.wire.collect()
        self.listen()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name, number = data.draw(st.sampled_from(sorted(self.open)))
        party = next(party for party in self.people if party.name == name)
        party.links.close(self.wire.now, number)
        del self.open[name, number]
        self.gone.add((name, number))
        self.wire.collect()

    @precondition(lambda self: self.wire.sent)
    @rule(data=st.data(), source=st.integers(0, 2), victim=st.integers(0, 1))
    def replay(self, data: st.DataObject, source: int, victim: int) -> None:
        """Anything ever sent, to either side, from anywhere."""
        place = data.draw(st.integers(0, len(self.wire.sent) - 1))
        paths = [party.path for party in self.people] + [EVE]
        self.wire.throw(paths[source], paths[victim], self.wire.sent[place][2])

    @rule(datagram=st.binary(max_size=60), kind=st.sampled_from([0x10, 0x11, 0x12, 0x13]), victim=st.integers(0, 1))
    def inject(self, datagram: bytes, kind: int, victim: int) -> None:
        self.wire.throw(EVE, self.people[victim].path, bytes([kind]) + datagram)

    @precondition(lambda self: self.wire.flying)
    @rule(seed=st.integers(0, 100))
    def shuffle(self, seed: int) -> None:
        """What is on its way arrives in another order."""
        times = [one[0] for one in self.wire.flying]
        self.wire.rng.shuffle(times)
        self.wire.flying = [(when, *one[1:]) for when, one in zip(times, self.wire.flying, strict=True)]
        heapq.heapify(self.wire.flying)

    def listen(self) -> None:
        for party in self.people:
            for event in party.events:
                key = party.name, event.link
                assert key not in self.gone, "after the close nothing comes"
                if isinstance(event, Established):
                    assert key not in self.open, "once"
                    assert event.identity == self.other(party).identity.public
                    assert event.hybrid
                    self.open[key] = party.links.transcript(event.link) if event.link in party.links._links else b""
                elif isinstance(event, Closed):
                    self.open.pop(key, None)
                    self.gone.add(key)
                elif isinstance(event, Message):
                    assert key in self.open, "not before it is established"
                    self.got.setdefault((party.name, self.open[key]), []).append(event.data)
                elif isinstance(event, Frame):
                    assert key in self.open
                    self.frames_got.append(event.data)
                else:
                    assert isinstance(event, Roamed)
            party.events.clear()

    @invariant()
    def messages_arrive_in_order_and_once(self) -> None:
        for (name, transcript), got in self.got.items():
            if transcript:
                sender = "bob" if name == "alice" else "alice"
                assert got == self.sent.get((sender, transcript), [])[: len(got)]

    @invariant()
    def frames_are_true_and_come_once(self) -> None:
        assert len(self.frames_got) == len(set(self.frames_got))
        assert self.frames_sent.issuperset(self.frames_got)

    @invariant()
    def all_is_bounded(self) -> None:
        for party in self.people:
            assert party.links._responder.gate.unfinished <= 256
            assert len(party.links._indexes) <= 4 * (len(party.links._links) + len(party.links._dials))
            assert len(party.links._deadlines) < 5000

    def teardown(self) -> None:
        self.roughness = 0
        self.wire.run(80.0)
        self.listen()
        transcripts = [set(), set()]
        for (name, _), transcript in self.open.items():
            transcripts[name == "bob"].add(transcript)
        both = transcripts[0] & transcripts[1]
        for (name, number), transcript in list(self.open.items()):
            if transcript in both:
                party = next(party for party in self.people if party.name == name)
                party.links.send_message(self.wire.now, number, b"goodbye")
                self.sent.setdefault((name, transcript), []).append(b"goodbye")
        self.wire.run(20.0)
        self.listen()
        for transcript in both - {b""}:
            for name, sender in (("alice", "bob"), ("bob", "alice")):
                assert self.got.get((name, transcript)) == self.sent[sender, transcript]


TestHostileWire = HostileWire.TestCase
TestHostileWire.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
