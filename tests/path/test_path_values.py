"""The pure parts: candidates and policy, ports of a NAT, the choice, the plans, the budget.  Tables."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint, parse_endpoint, port_of
from meshcall.endpoints import is_nonsense, is_private
from meshcall.path import rhythm
from meshcall.path.budget import BIRTHDAY_PACKETS_MAX, HOST_PACKETS_MAX, HOSTS_MAX, TOTAL_PACKETS_MAX, ProbeBudget
from meshcall.path.candidates import Trust, gather, may_connect, may_probe, path_to, tellable
from meshcall.path.choice import choose, doubles
from meshcall.path.health import Health, Measured, State
from meshcall.path.life import MappingLife
from meshcall.path.paths import Path, direct, relayed
from meshcall.path.ports import OBSERVERS_MAX, PortWatch, judge
from meshcall.path.punch import (
    BIRTHDAY_PROBES,
    BIRTHDAY_SOCKETS,
    GUESS_PORTS,
    PROBE_SECONDS,
    RETRY_SECONDS,
    Tactic,
    common_moment,
    guesses,
    hard_target,
    opened,
    ordinary,
    probeable,
    spray,
    tactic,
)
from meshcall.path.rhythm import Place, next_probe
from meshcall.wire.path import CANDIDATES_MAX, Candidate, Candidates, Kind, Mapping, Ports

UNKNOWN, NONE, EIM, SEQ, RANDOM = Mapping
LEASE = Candidate(Kind.RELAY_UDP, parse_endpoint("203.0.113.8:3478"), bytes(8))


def at(text: str) -> Endpoint:
    return parse_endpoint(text)


# Candidates


def test_gathered_in_the_order_of_preference_without_nonsense() -> None:
    found = gather(
        hosts=[at("10.0.0.2:5000"), at("[2001:db8::2]:5000"), at("0.0.0.0:5000"), at("[::ffff:10.0.0.2]:5000")],
        observed=[at("203.0.113.5:700"), at("[2001:db8::2]:5000"), at("224.0.0.1:5")],
        mapped=[at("203.0.113.5:5000")],
        leases=[Candidate(Kind.RELAY_TCP, at("203.0.113.8:443"), bytes(8)), LEASE, LEASE],
    )
    assert [(each.kind, port_of(each.endpoint), len(each.endpoint)) for each in found] == [
        (Kind.HOST, 5000, 18),
        (Kind.HOST, 5000, 6),
        (Kind.MAPPED, 5000, 6),
        (Kind.OBSERVED, 700, 6),
        (Kind.RELAY_UDP, 3478, 6),
        (Kind.RELAY_TCP, 443, 6),
    ]


def test_gathered_within_the_limit_and_never_without_relays() -> None:
    many = [endpoint(f"198.51.100.{n}", 1000 + n) for n in range(1, 40)]
    found = gather(hosts=many, observed=many[20:], mapped=many[10:], leases=[LEASE])
    assert len(found) <= CANDIDATES_MAX
    assert LEASE in found


@pytest.mark.parametrize(("trust", "kinds"), [
    (Trust.NONE, {Kind.RELAY_UDP}),
    (Trust.RELAY_ONLY, {Kind.RELAY_UDP}),
    (Trust.FULL, {Kind.HOST, Kind.OBSERVED, Kind.RELAY_UDP}),
])  # fmt: skip
def test_before_acceptance_only_relays_are_told(trust: Trust, kinds: set[Kind]) -> None:
    all_of_them = gather(hosts=[at("10.0.0.2:5000")], observed=[at("203.0.113.5:700")], leases=[LEASE])
    assert {each.kind for each in tellable(all_of_them, trust)} == kinds


@pytest.mark.parametrize(("target", "same", "allowed"), [
    ("203.0.113.9:5000", False, True),
    ("203.0.113.9:53", False, False),
    ("203.0.113.9:443", False, True),
    ("10.0.7.9:5000", False, True),  # the same /16 as ours
    ("10.9.0.9:5000", False, False),
    ("10.9.0.9:5000", True, True),
    ("192.168.1.1:5000", False, False),
    ("100.64.1.1:5000", False, False),
    ("169.254.1.1:5000", False, False),
    ("127.0.0.1:5000", True, False),
    ("224.0.0.1:5000", True, False),
    ("255.255.255.255:5000", True, False),
    ("0.1.2.3:5000", True, False),
    ("[2001:db8::9]:5000", False, True),
    ("[fe80::1]:5000", False, False),
    ("[fd00::1]:5000", False, False),
    ("[fd00::1]:5000", True, True),
    ("[ff02::1]:5000", True, False),
    ("[2002:a00:1::1]:5000", True, False),
])  # fmt: skip
def test_where_probes_may_go(target: str, same: bool, allowed: bool) -> None:
    local = [at("10.0.0.2:5000"), at("[2001:db8::2]:5000")]
    assert may_probe(at(target), local, same) == allowed


def test_without_ipv6_of_our_own_none_is_probed_and_loopback_only_on_loopback() -> None:
    assert not may_probe(at("[2001:db8::9]:5000"), [at("10.0.0.2:5000")], False)
    assert may_probe(at("127.0.0.1:5000"), [at("127.0.0.1:6000")], False)
    assert not may_probe(at("127.0.0.1:5000"), [at("127.0.0.1:6000"), at("10.0.0.2:6000")], True), (
        "nobody could mean it"
    )
    assert not may_probe(at("127.0.0.1:5000"), [], True)


@pytest.mark.parametrize(
    ("target", "local", "allowed"),
    [
        ("192.0.2.7:443", ["10.0.0.2:5000"], True), ("192.0.2.7:6881", [], True), ("192.0.2.7:80", [], False),
        ("255.255.255.255:5000", [], False), ("224.0.0.1:5000", [], False), ("0.0.0.0:5000", [], False),
        ("127.0.0.1:6379", ["10.0.0.2:5000", "127.0.0.1:5000"], False), ("[::1]:6379", ["10.0.0.2:5000"], False),
        ("127.0.0.1:6881", ["127.0.0.1:5000"], True), ("10.9.0.1:6881", ["10.0.0.2:5000"], True),
    ],
)  # fmt: skip
def test_where_a_connection_to_a_relay_may_go_that_a_peer_or_record_names(
    target: str, local: list[str], allowed: bool
) -> None:
    assert may_connect(at(target), list(map(at, local))) is allowed


@given(st.one_of(st.binary(min_size=6, max_size=6), st.binary(min_size=18, max_size=18)))
def test_any_endpoint_is_judged(data: bytes) -> None:
    where = Endpoint(data)
    assert is_nonsense(where) in (True, False)
    assert is_private(where) in (True, False)
    assert may_probe(where, [at("10.0.0.2:5000"), at("[2001:db8::2]:5000")], True) in (True, False)


def test_paths_to_candidates() -> None:
    assert path_to(Candidate(Kind.HOST, at("10.0.0.2:5"))) == direct(at("10.0.0.2:5"))
    assert path_to(LEASE) == relayed(LEASE.endpoint, bytes(8))
    over_tcp = Candidate(Kind.RELAY_TCP, LEASE.endpoint, bytes(8))
    assert path_to(over_tcp) == relayed(LEASE.endpoint, bytes(8), tcp=True)


# Ports


def seen(*found: int, host: str = "203.0.113.5") -> list[Endpoint]:
    return [endpoint(host, port) for port in found]


@pytest.mark.parametrize(("found", "mapping"), [
    ((), UNKNOWN),
    ((40000,), UNKNOWN),
    ((40000, 40000), EIM),
    ((40000, 40000, 41000, 41000), EIM),  # renewed
    ((40000, 41000), UNKNOWN),
    ((40000, 40001, 40002), SEQ),
    ((40004, 40002, 40000), SEQ),
    ((40000, 40001, 40030, 40031), SEQ),
    ((1025, 1024, 1026), SEQ),
    ((20000, 40001, 9000), RANDOM),
    ((40000, 40500, 41100, 42000), RANDOM),
])  # fmt: skip
def test_how_ports_are_given(found: tuple[int, ...], mapping: Mapping) -> None:
    assert judge(seen(*found)).mapping is mapping


def test_the_next_port() -> None:
    assert judge(seen(40000, 40001, 40002)).next_port == 40003
    assert judge(seen(40000, 40002, 40006)) == Ports(SEQ, b"\xcb\x00\x71\x05", next_port=40008, step=2)
    assert judge(seen(40006, 40004, 40000)) == Ports(SEQ, b"\xcb\x00\x71\x05", next_port=39998, step=-2)
    assert judge(seen(40001, 40000, 40002, 40003)).next_port == 40004, "answers overtake each other"
    assert judge(seen(50000, 20000, 40000, 40001, 40002)).next_port == 40003, "the newest run counts"
    assert judge(seen(65533, 65534, 65535)).mapping is RANDOM, "round the end nothing is foretold"


def test_a_block_of_ports_is_told() -> None:
    found = judge(seen(20000, 20900, 20300, 21900))
    assert (found.low, found.high) == (18100, 23800)
    wide = judge(seen(20000, 50900, 1300, 21900))
    assert (wide.low, wide.high) == (1024, 65535)


def test_no_nat_is_told_from_one() -> None:
    assert judge(seen(5000, 5000), [endpoint("203.0.113.5", 5000)]).mapping is NONE


def test_observers_are_bounded_and_forget() -> None:
    watch = PortWatch()
    for n in range(200):
        watch.note(0.0, endpoint(f"198.51.100.{n + 1}", 1), endpoint("203.0.113.5", 1024 + n))
    assert len(watch._seen) == OBSERVERS_MAX
    assert watch.ports(0.0).mapping is SEQ
    assert watch.ports(601.0) == Ports()
    assert watch.outside(601.0) is None
    watch.note(700.0, endpoint("2001:db8::1", 1), endpoint("2001:db8::2", 1))
    assert watch.outside(700.0) is None
    watch.forget()
    assert not watch._seen


# Choice

RELAY1 = relayed(at("203.0.113.8:1"), bytes(8))
RELAY2 = relayed(at("203.0.113.9:1"), bytes(8))
TCP = relayed(at("203.0.113.8:443"), bytes(8), tcp=True)
D1, D2 = direct(at("198.51.100.1:1")), direct(at("198.51.100.2:1"))


def m(path: Path, rtt: float | None = 0.08, state: State = State.LIVE, loss: float = 0.0) -> Measured:
    return Measured(path, state, rtt, loss, loss)


@pytest.mark.parametrize(("paths", "held", "best", "second"), [
    ([], None, None, None),
    ([m(D1, state=State.NEW)], None, None, None),
    ([m(RELAY1)], None, RELAY1, None),
    ([m(RELAY1), m(D1)], RELAY1, D1, RELAY1),
    ([m(RELAY1), m(D1, 0.2)], RELAY1, D1, RELAY1),  # direct may be somewhat slower
    ([m(RELAY1), m(D1, 0.5)], RELAY1, RELAY1, D1),  # but not much
    ([m(RELAY1), m(D1, loss=0.11)], RELAY1, RELAY1, D1),
    ([m(RELAY1), m(D1, state=State.SUSPECT)], D1, D1, RELAY1),  # doubt alone is no reason to leave ...
    ([m(RELAY1), m(D1, state=State.SUSPECT, loss=0.4)], D1, RELAY1, D1),  # ... loss is
    ([m(RELAY1), m(D1, state=State.SUSPECT)], RELAY1, RELAY1, D1),  # nor is a doubtful path taken
    ([m(RELAY1), m(D1, state=State.SILENT)], D1, RELAY1, None),
    ([m(D1, 0.080), m(D2, 0.072)], D1, D1, D2),  # sticky
    ([m(D1, 0.080), m(D2, 0.040)], D1, D2, D1),
    ([m(D1, 0.004), m(D2, 0.001)], D1, D1, D2),
    ([m(RELAY1, 0.2), m(RELAY2, 0.1)], RELAY1, RELAY2, RELAY1),
    ([m(RELAY1), m(TCP, 0.01)], None, RELAY1, TCP),
    ([m(TCP), m(RELAY1)], TCP, RELAY1, TCP),
    ([m(RELAY1), m(TCP, 0.08), m(RELAY2, 0.3)], RELAY1, RELAY1, RELAY2),  # another machine before another port
    ([m(D1), m(D2), m(RELAY1)], D1, D1, RELAY1),  # of another fate
    ([m(D1, None), m(RELAY1, 0.05)], RELAY1, RELAY1, D1),  # not measured is not better
])  # fmt: skip
def test_the_choice(paths: list[Measured], held: Path | None, best: Path | None, second: Path | None) -> None:
    for order in (paths, paths[::-1]):
        choice = choose(order, held)
        assert (choice.best, choice.second) == (best, second)
        assert choice.reason


def test_when_frames_go_by_both() -> None:
    assert not doubles(m(D1))
    assert doubles(m(D1, loss=0.03))
    assert doubles(m(D1, state=State.SUSPECT))
    assert doubles(m(D1, loss=0.4)), "whether there is room for it is the sender's to say"


def test_what_the_other_side_reports_of_frames_does_not_choose_the_path() -> None:
    """It is of the last two seconds, whichever paths were used; probes are measured on all alike."""
    lossy = Measured(D1, State.LIVE, 0.08, 0.0, 0.6)
    assert choose([lossy, m(RELAY1)], D1).best == D1
    assert choose([m(D1, loss=0.6), m(RELAY1)], D1).best == RELAY1
    assert doubles(Measured(D1, State.LIVE, 0.08, 0.0, 0.1))


states = st.sampled_from(State)
random_paths = st.lists(
    st.builds(m, st.sampled_from([D1, D2, RELAY1, RELAY2, TCP]), st.floats(0.001, 2), states, st.floats(0, 1)),
    max_size=5, unique_by=lambda each: each.path,
)  # fmt: skip


@given(random_paths, st.sampled_from([None, D1, RELAY1, TCP]))
def test_the_choice_is_stable_and_never_dead(paths: list[Measured], held: Path | None) -> None:
    choice = choose(paths, held)
    alive = {each.path for each in paths if each.state >= State.SUSPECT}
    assert (choice.best is None) == (not alive)
    assert choice.best is None or choice.best in alive
    assert choice.second is None or choice.second in alive - {choice.best}
    again = choose(paths, choice.best)
    assert again.best == choice.best, "it does not swing"


# Plans


@pytest.mark.parametrize(("mine", "theirs", "expected"), [
    (EIM, EIM, Tactic.NONE), (NONE, NONE, Tactic.NONE), (UNKNOWN, UNKNOWN, Tactic.NONE),
    (EIM, SEQ, Tactic.GUESS), (NONE, SEQ, Tactic.GUESS), (UNKNOWN, SEQ, Tactic.GUESS), (SEQ, EIM, Tactic.NONE),
    (EIM, RANDOM, Tactic.SPRAY), (NONE, RANDOM, Tactic.SPRAY), (RANDOM, EIM, Tactic.OPEN), (RANDOM, NONE, Tactic.OPEN),
    (UNKNOWN, RANDOM, Tactic.NONE), (RANDOM, UNKNOWN, Tactic.NONE),
    (RANDOM, RANDOM, Tactic.NONE), (SEQ, SEQ, Tactic.NONE), (SEQ, RANDOM, Tactic.NONE), (RANDOM, SEQ, Tactic.NONE),
])  # fmt: skip
def test_who_does_what(mine: Mapping, theirs: Mapping, expected: Tactic) -> None:
    assert tactic(mine, theirs) is expected
    assert (expected is Tactic.SPRAY) == (tactic(theirs, mine) is Tactic.OPEN)


def test_both_begin_at_the_same_moment() -> None:
    rtt = 0.09
    # the first told at 0, the second hears it at 0.045, tells, and is heard at 0.09
    assert common_moment(0.09, sent_at=0.0, rtt=rtt) == pytest.approx(common_moment(0.045, sent_at=0.045, rtt=rtt))
    # messages cross
    assert common_moment(0.055, sent_at=0.0, rtt=rtt) == pytest.approx(common_moment(0.045, sent_at=0.01, rtt=rtt))


def test_ordinary_probes() -> None:
    steps = ordinary(1.0, 1.05, [at("203.0.113.5:5000"), at("10.0.0.3:5000")])
    low = [step for step in steps if step.low_ttl]
    assert [(step.at, step.endpoint) for step in low] == [(1.0, at("203.0.113.5:5000"))]
    inner = [step.at for step in steps if step.endpoint == at("10.0.0.3:5000")]
    assert inner == [1.0 + pause for pause in RETRY_SECONDS], "no NAT in between, no waiting"
    assert steps == sorted(steps)
    assert not [step for step in ordinary(1.0, 1.0, [at("203.0.113.5:5000")]) if step.low_ttl]


def test_guesses_are_bounded_and_stay_in_range() -> None:
    ports = Ports(SEQ, bytes(4), next_port=40000, step=2)
    assert [port_of(step.endpoint) for step in guesses(0.0, ports)][:3] == [40000, 40002, 40004]
    assert len(guesses(0.0, ports)) == GUESS_PORTS
    again = [port_of(step.endpoint) for step in guesses(0.0, ports, is_again=True)]
    assert again[:2] == [39998, 39996]
    assert 40000 in again
    assert len(again) == GUESS_PORTS
    edge = guesses(0.0, Ports(SEQ, bytes(4), next_port=65530, step=1))
    assert [port_of(step.endpoint) for step in edge] == [65530, 65531, 65532, 65533, 65534, 65535]


def test_birthday_plans_are_bounded_in_packets_rate_and_time() -> None:
    target = at("203.0.113.5:5000")
    sockets = opened(5.0, target)
    assert len(sockets) == BIRTHDAY_SOCKETS
    assert {step.socket for step in sockets} == set(range(1, BIRTHDAY_SOCKETS + 1))
    assert all(step.low_ttl and step.birthday and step.endpoint == target for step in sockets)
    probes = spray(5.0, Ports(RANDOM, b"\xcb\x00\x71\x05", low=1, high=65535), Random(1))
    ports = [port_of(step.endpoint) for step in probes]
    assert len(set(ports)) == len(ports) == BIRTHDAY_PROBES
    assert min(ports) >= 1024
    assert probes[-1].at - probes[0].at == pytest.approx((BIRTHDAY_PROBES - 1) * PROBE_SECONDS)
    few = spray(5.0, Ports(RANDOM, bytes(4), low=2000, high=2099), Random(1))
    assert sorted(port_of(step.endpoint) for step in few) == list(range(2000, 2100))


def test_what_is_probed_and_guessed() -> None:
    peer = Candidates(
        ports=Ports(RANDOM, b"\xcb\x00\x71\x05", low=1024, high=65535),
        candidates=(
            Candidate(Kind.HOST, at("10.9.0.2:5000")),
            Candidate(Kind.OBSERVED, at("203.0.113.5:700")),
            Candidate(Kind.OBSERVED, at("203.0.113.5:7000")),
            LEASE,
        ),
    )
    mine = (Candidate(Kind.HOST, at("10.0.0.2:5000")), Candidate(Kind.OBSERVED, at("198.51.100.7:5000")))
    assert probeable(peer, mine, EIM) == [at("203.0.113.5:7000")]
    assert probeable(peer, mine, RANDOM) == []
    assert hard_target(peer, mine) == at("203.0.113.5:7000")
    nowhere = Candidates(ports=Ports(RANDOM, b"\xcb\x00\x71\x05", low=1024, high=60000))
    assert probeable(nowhere, mine, EIM) == [at("203.0.113.5:60000")], "any port opens our filter for the address"
    assert hard_target(nowhere, mine) == at("203.0.113.5:60000")
    local = Candidates(ports=Ports(RANDOM, b"\x0a\x09\x00\x01", low=1024, high=60000))
    assert probeable(local, mine, EIM) == []
    assert hard_target(local, mine) is None
    behind_the_same = (*mine, Candidate(Kind.OBSERVED, at("203.0.113.5:9000")))
    assert hard_target(peer, behind_the_same) is None
    assert at("10.9.0.2:5000") in probeable(peer, behind_the_same, EIM)


# Budget


def test_the_budget_for_one_address_and_for_all() -> None:
    budget = ProbeBudget(0.0)
    one = [endpoint("203.0.113.5", 1000 + n) for n in range(HOST_PACKETS_MAX + 5)]
    assert sum(budget.take(0.0, each) for each in one) == HOST_PACKETS_MAX
    assert sum(budget.take(0.0, one[0], birthday=True) for _ in range(BIRTHDAY_PACKETS_MAX + 5)) == BIRTHDAY_PACKETS_MAX
    assert budget.refused == 10
    others = [endpoint(f"198.51.{n // 200}.{n % 200 + 1}", 1) for n in range(HOSTS_MAX + 5)]
    assert sum(budget.take(1.0, each) for each in others) == HOSTS_MAX - 1
    left = TOTAL_PACKETS_MAX - HOST_PACKETS_MAX - BIRTHDAY_PACKETS_MAX - (HOSTS_MAX - 1)
    taken = sum(budget.take(2.0, each) for each in others[: HOSTS_MAX - 1] * 20)
    assert taken == left
    assert budget.take(60.0, one[0])


def test_on_a_full_line_probes_are_rare_and_patient() -> None:
    now = 100.0
    health = Health(now, direct(endpoint("203.0.113.9", 5000)))
    health.verified, health.probed_at = True, now
    health.doubt(now + 10)
    usual = next_probe(now, health, Place.BEST, is_active=True, is_doubt=True, life=MappingLife(), has_spare=True)
    full = next_probe(
        now, health, Place.BEST, is_active=True, is_doubt=True, life=MappingLife(), has_spare=True, is_narrow=True
    )
    assert usual is not None
    assert full is not None
    assert usual - now == pytest.approx(rhythm.DOUBT_PROBE_SECONDS)
    assert full - now == pytest.approx(rhythm.STREAM_PROBE_SECONDS), "its answer is late because the line is full"
    other = next_probe(
        now, health, Place.SECOND, is_active=True, is_doubt=True, life=MappingLife(), has_spare=True, is_narrow=True
    )
    assert other is not None
    assert other - now == pytest.approx(rhythm.NARROW_FACTOR * rhythm.DOUBT_PROBE_SECONDS)
    health.rtt = 0.05
    patience = health.timeout()
    health.slack = 0.4
    assert health.timeout() == pytest.approx(patience + 0.4)
