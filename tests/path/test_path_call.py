"""A call while the network misbehaves: rebinds, moves, dead and one-way paths, relays that die.

Gaps are those in a stream of 50 frames a second.
"""

from __future__ import annotations

from random import Random

import pytest

from meshcall.core import endpoint
from meshcall.path.budget import ProbeBudget
from meshcall.path.candidates import Trust
from meshcall.path.events import PathChosen, PathLost
from meshcall.path.paths import endpoint_of, is_relayed
from meshcall.path.punch import PROBE_SECONDS_CALL, SOCKET_SECONDS_CALL
from meshcall.path.punching import Punching
from meshcall.path.thrift import NARROW_PROBES_BURST, NARROW_PROBES_KEPT, NARROW_PROBES_PER_SECOND, Thrift
from meshcall.wire.path import Mapping, Ports
from tests.path.nat_box import KINDS
from tests.path.nat_world import Device, Relay, World, box, home, meet, pair

NEW_WAN = "192.0.2.77"


def call(kind_a: str, kind_b: str, seed: int = 1) -> tuple[World, Device, Device]:
    """Two devices that have talked for three seconds by the best path there is, and go on for long."""
    world, a, b = pair(kind_a, kind_b, seed)
    return talking(world, a, b)


def talking(world: World, a: Device, b: Device) -> tuple[World, Device, Device]:
    world.run(world.now + 4)
    for device in (a, b):
        device.talk(world.now + 60)
    world.run(world.now + 3)
    return world, a, b


def left_at(device: Device, since: float) -> float:
    """When its best path changed first after this moment."""
    return min(when for when, event in device.events if when >= since and isinstance(event, PathLost | PathChosen))


def test_a_quiet_call_sends_hardly_any_probes() -> None:
    world, a, _b = call("portrestricted", "linux")
    sent = a.packets_while(10.0)
    assert 500 <= sent <= 500 + 10 * 6  # frames, and at most six packets of the path layer a second
    assert a.prober is not None
    assert a.prober.counters["doubts"] == 0
    assert len(a.prober.duplicates(world.now)) == 1


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [
        ("portrestricted", "public"),
        ("portrestricted", "linux"),
        ("fullcone", "restricted"),
        ("symseq", "public"),
        ("symmetric", "portrestricted"),
        ("cgnat", "cgnat"),
        ("symmetric", "symmetric"),
        ("symmetric", "udpblocked"),
    ],
)
def test_a_nat_that_forgets_costs_300_ms_at_most(kind_a: str, kind_b: str, who: str) -> None:
    world, a, b = call(kind_a, kind_b)
    mover = a if who == "a" else b
    was_direct = mover.is_direct()
    start = world.now
    if mover.box is not None:
        mover.box.forget()
    world.run(start + 6)
    assert a.gap(start - 0.1) <= 0.3
    assert b.gap(start - 0.1) <= 0.3
    if was_direct and "symmetric" not in (kind_a, kind_b):
        assert a.is_direct() and b.is_direct()


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("to", ["portrestricted", "symmetric", "public"])
@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [("portrestricted", "public"), ("portrestricted", "linux"), ("public", "symmetric"), ("linux", "cgnat")],
)
def test_a_move_to_another_network_costs_a_second_at_most(kind_a: str, kind_b: str, to: str, who: str) -> None:
    world, a, b = call(kind_a, kind_b)
    start = world.now
    mover, other = (a, b) if who == "a" else (b, a)
    if to == "public":
        mover.move(NEW_WAN, None)
    else:
        mover.move("10.9.0.10", box(world, KINDS[to], endpoint(NEW_WAN, 1)[:4]))
    world.run(start + 8)
    assert a.gap(start - 0.1) <= 1.0
    assert b.gap(start - 0.1) <= 1.0
    hopeless = to == "symmetric" and (kind_a if other is a else kind_b) == "symmetric"
    assert (a.is_direct() and b.is_direct()) or hopeless


@pytest.mark.parametrize("noticed_after", [0.3, 5.0])
def test_a_move_that_the_system_tells_late(noticed_after: float) -> None:
    world, a, b = call("portrestricted", "linux")
    start = world.now
    a.move("10.9.0.10", box(world, KINDS["linux"], endpoint(NEW_WAN, 1)[:4]), noticed_after)
    world.run(start + 8)
    # whoever dialled reaches the relay from anywhere, and silence shows that it has to
    assert a.gap(start - 0.1) <= 1.0
    assert b.gap(start - 0.1) <= 1.0


@pytest.mark.parametrize("directions", ["both", "out", "in"])
def test_a_silent_path_is_left_within_400_ms(directions: str) -> None:
    world, a, b = call("public", "public")
    start = world.now
    if directions != "in":
        world.dead.add((bytes(a.address), bytes(b.address)))
    if directions != "out":
        world.dead.add((bytes(b.address), bytes(a.address)))
    world.run(start + 0.4)
    senders = {"both": (a, b), "out": (a,), "in": (b,)}[directions]
    for device in senders:
        assert device.prober is not None
        paths = device.prober.duplicates(world.now)
        assert any(is_relayed(path) for path in paths), device.name
    world.run(start + 3)
    assert a.gap(start - 0.1) <= 0.4
    assert b.gap(start - 0.1) <= 0.4
    for device in senders:
        assert not device.is_direct()


def test_a_path_that_comes_back_is_taken_again() -> None:
    world, a, b = call("public", "public")
    cut = {(bytes(a.address), bytes(b.address)), (bytes(b.address), bytes(a.address))}
    world.dead |= cut
    world.run(world.now + 1)
    assert not a.is_direct()
    world.dead -= cut
    world.run(world.now + 12)
    assert a.is_direct() and b.is_direct()


def test_a_relay_that_dies_is_replaced_by_another() -> None:
    world = World(4)
    first, second = Relay(world), Relay(world, endpoint("203.0.113.9", 443))
    a = home(world, first, "a", "symmetric", 1, 1)
    b = home(world, first, "b", "symmetric", 2, 2)
    for each in (a, b):
        each.relays[second.where] = second
    meet(world, a, b)
    talking(world, a, b)
    assert a.prober is not None and a.prober.best is not None and a.prober.second is not None
    used = endpoint_of(a.prober.best)
    assert endpoint_of(a.prober.second) != used, "the second path goes by another relay"
    start = world.now
    (first if used == first.where else second).alive = False
    world.run(start + 3)
    assert a.gap(start - 0.1) <= 0.4
    assert b.gap(start - 0.1) <= 0.4
    assert a.prober.best is not None and endpoint_of(a.prober.best) != used


def test_an_interface_that_is_gone_is_left_at_once() -> None:
    world, a, _b = call("public", "public")
    assert a.prober is not None and a.prober.best is not None
    a.prober.unsendable(world.now, a.prober.best)
    assert a.prober.best is not None
    assert is_relayed(a.prober.best)


def test_reported_loss_doubles_the_frames_and_passes() -> None:
    world, a, _b = call("public", "public")
    assert a.prober is not None and a.prober.best is not None
    a.prober.report_loss(world.now, a.prober.best, 0.08)
    assert len(a.prober.duplicates(world.now)) == 2
    world.run(world.now + 4)
    assert len(a.prober.duplicates(world.now)) == 1


def test_a_narrow_line_gets_one_copy_and_few_probes_whatever_is_lost() -> None:
    sent = []
    for is_narrow in (False, True):
        world, a, _b = call("public", "public")
        assert a.prober is not None and a.prober.best is not None
        a.is_narrow = is_narrow
        before, probes = a.voice_sent, a.prober.counters["probes"]
        packets = a.packets
        for _ in range(50):
            a.prober.report_loss(world.now, a.prober.best, 0.4)
            world.run(world.now + 0.2)
        sent.append((a.packets - packets) / (a.voice_sent - before))
        assert (a.prober.counters["probes"] - probes < 16) is is_narrow
    assert sent[0] > 2
    assert sent[1] < 1.1


def test_a_spray_of_ports_waits_until_the_line_is_known_to_be_wide_and_is_slow_beside_voice() -> None:
    """At full speed it takes 220 kbit/s for three seconds, on whatever line the call has."""
    world, a, b = pair("symmetric", "portrestricted")
    for each in (a, b):
        each.is_narrow = True
        each.talk(world.now + 60)
    world.run(world.now + 5)
    assert not a.is_direct() and not b.is_direct()
    assert a.prober is not None and b.prober is not None
    probes = [each.prober.counters["probes"] for each in (a, b) if each.prober is not None]
    assert max(probes) < 5 * NARROW_PROBES_PER_SECOND + NARROW_PROBES_BURST + 15
    for each in (a, b):
        each.is_narrow = False
    before = world.now
    world.run(before + 3)
    sprayed = sum(each.prober.counters["probes"] for each in (a, b) if each.prober is not None) - sum(probes)
    assert sprayed < 3 * (1 / PROBE_SECONDS_CALL + 1 / SOCKET_SECONDS_CALL) + 60
    world.run(before + 30)
    assert a.is_direct() and b.is_direct()


def test_birthday_probing_is_dropped_where_the_line_turns_out_narrow() -> None:
    target = endpoint("203.0.113.5", 4000)
    mine, theirs = Ports(Mapping.INDEPENDENT), Ports(Mapping.RANDOM, target[:4], low=1024, high=65535)
    thrift = Thrift(0.0)
    punching = Punching(Random(1), ProbeBudget(0.0), thrift)

    def sprayed(now: float) -> int:
        punching.begin(now, now, 0.1, (), mine, theirs, target)
        return sum(step.birthday for tick in range(100) for step in punching.due(now + tick / 10))

    assert sprayed(0.0) > 100
    assert not punching.is_held
    thrift.is_on = True
    assert sprayed(1000.0) == 0
    assert punching.is_held
    assert punching.next_at() is None


def test_on_a_narrow_line_punching_takes_its_time() -> None:
    thrift = Thrift(0.0)
    thrift.is_on = True
    punching = Punching(Random(1), ProbeBudget(0.0), thrift)
    endpoints = [endpoint(f"203.0.113.{n}", 4000) for n in range(1, 5)]
    punching.begin(0.0, 0.01, 0.1, endpoints, Ports(Mapping.INDEPENDENT), Ports(Mapping.INDEPENDENT), None)
    sent = []
    now: float | None = 0.0
    while now is not None and now < 5:
        sent += [(now, step.low_ttl) for step in punching.due(now)]
        now = punching.next_at()
    probes = [at for at, low_ttl in sent if not low_ttl]
    assert len([at for at in probes if at < 0.02]) == len(endpoints), "each is tried at once"
    assert len(probes) <= NARROW_PROBES_BURST + 5 * NARROW_PROBES_PER_SECOND
    assert len(sent) - len(probes) == len(endpoints), "what ends before the line counts for nothing"


def test_a_link_that_is_idle_after_a_call_on_a_narrow_line_sleeps() -> None:
    """What is due and may not be sent yet is no reason to wake at once, again and again."""
    world, a, b = pair("linux", "portrestricted")
    for each in (a, b):
        each.is_narrow = True
        each.talk(world.now + 8)
    world.run(world.now + 40)
    assert a.prober is not None
    prober = a.prober
    now, wakes = world.now, 0
    while now < world.now + 120:
        due = prober.next_wake()
        assert due is not None
        now = max(now, due)
        prober._thrift._left, prober._thrift._at = 0.0, now  # nothing is saved up
        prober.wake(now)
        prober.outbox.clear()
        wakes += 1
        assert wakes < 500


def test_probes_saved_up_are_kept_for_a_direct_path() -> None:
    thrift = Thrift(0.0)
    assert all(thrift.take(0.0) for _ in range(1000)), "a wide line is not counted"
    thrift.is_on = True
    assert sum(thrift.take(0.0, NARROW_PROBES_KEPT) for _ in range(20)) == NARROW_PROBES_BURST - NARROW_PROBES_KEPT
    assert sum(thrift.take(0.0) for _ in range(20)) == NARROW_PROBES_KEPT
    later = thrift.next_at(NARROW_PROBES_KEPT)
    assert later == pytest.approx((1 + NARROW_PROBES_KEPT) / NARROW_PROBES_PER_SECOND)
    due = thrift.next_at()
    assert due == pytest.approx(1 / NARROW_PROBES_PER_SECOND)
    assert thrift.take(due) and not thrift.take(due)


def test_one_who_only_listens_is_still_left_for_a_working_path() -> None:
    world, a, b = pair("public", "public")
    world.run(world.now + 4)
    a.talk(world.now + 60)  # b is silent
    world.run(world.now + 3)
    start = world.now
    world.dead.add((bytes(a.address), bytes(b.address)))
    world.run(start + 3)
    assert b.gap(start - 0.1) <= 0.5


def test_a_laptop_that_slept_is_back_without_a_new_handshake() -> None:
    world, a, b = call("portrestricted", "linux")
    established = a.established_at
    asleep = a.leave
    address, behind = ".".join(map(str, a.address)), a.box
    asleep()
    world.run(world.now + 30)
    assert a.box is None
    assert behind is not None
    behind.forget()
    a.join(address, behind)
    a.notice()
    back = world.now
    world.run(back + 6)
    frames = [when for when, _ in b.voice if when >= back]
    assert frames[0] - back <= 1.0
    assert a.established_at == established
    assert a.is_direct() and b.is_direct()


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.RELAY_ONLY])
def test_before_acceptance_no_address_is_told_and_none_shown(trust: Trust) -> None:
    world = World(6)
    relay = Relay(world)
    a = home(world, relay, "a", "portrestricted", 1, 1)
    b = home(world, relay, "b", "public", 2, 2)
    b.trust = trust
    meet(world, a, b)
    a.talk(world.now + 20)
    before = world.packets.get(b"\xcb\x00\x71\x14", 0)
    world.run(world.now + 5)
    assert a.prober is not None and b.prober is not None
    assert not a.is_direct() and not b.is_direct()
    assert not [each for each in a.prober._exchange.peer.candidates if each.kind < 4]
    told_to_relay = {path for path in b.prober._paths if not is_relayed(path)}
    assert not told_to_relay
    b.prober.set_trust(world.now, Trust.FULL)
    b.drain()
    accepted = world.now
    world.run(accepted + 1)
    assert a.is_direct() and b.is_direct()
    direct_at = a.direct_at()
    assert direct_at is not None and direct_at - accepted <= 0.4
    assert before >= 0


def test_trust_withdrawn_goes_back_to_the_relay() -> None:
    world, a, b = call("public", "public")
    assert a.prober is not None
    a.prober.set_trust(world.now, Trust.RELAY_ONLY)
    a.drain()
    assert a.prober.best is not None and is_relayed(a.prober.best)
    start = world.now
    world.run(start + 3)
    assert not a.is_direct() and not b.is_direct()
    assert b.gap(start) <= 0.4
