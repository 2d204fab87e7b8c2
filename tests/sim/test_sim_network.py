"""The network between the hosts: what it does to packets, and that it is the same each time."""

from __future__ import annotations

import itertools

import pytest

from meshcall.core import Endpoint
from meshcall.sim.host import Host
from meshcall.sim.network import Spell
from meshcall.sim.scenario import Weather
from tests.sim.small_world import START, Lab, PingPong


def _flood(lab: Lab, count: int, over: float = 0.0) -> tuple[Host, PingPong]:
    core = PingPong()
    one, two = lab.host(PingPong()), lab.host(core)

    def send(now: float, number: int, _second: None, _third: None) -> None:
        one.core.say(two.endpoint, b"%d" % number)
        one.drain(now)

    for number in range(count):
        lab.schedule.at(START + over * number / count, send, number)
    return two, core


def test_a_quiet_network_loses_nothing_and_keeps_order() -> None:
    lab = Lab()
    _, core = _flood(lab, 500, over=5.0)
    lab.schedule.run(START + 10)
    assert [data for _, _, data in core.heard] == [b"%d" % number for number in range(500)]
    assert not any(lab.network.counters.values())


@pytest.mark.parametrize("loss", [0.05, 0.3, 1.0])
def test_loss_is_the_share_that_was_asked_for(loss: float) -> None:
    lab = Lab()
    lab.network.become(Weather(loss=loss))
    _, core = _flood(lab, 4000)
    lab.schedule.run(START + 1)
    assert 1 - len(core.heard) / 4000 == pytest.approx(loss, abs=0.03)
    assert lab.network.counters["lost"] == 4000 - len(core.heard)


def test_packets_are_doubled_and_overtake() -> None:
    lab = Lab()
    lab.network.become(Weather(duplicate=0.2, reorder=0.3))
    _, core = _flood(lab, 2000, over=2.0)
    lab.schedule.run(START + 10)
    assert len(core.heard) == pytest.approx(2400, rel=0.05)
    numbers = [int(data) for _, _, data in core.heard]
    assert numbers != sorted(numbers) and set(numbers) == set(range(2000))


def test_bursts_come_in_runs_and_take_their_share_of_time() -> None:
    lab = Lab()
    lab.network.become(Weather(burst_every_seconds=20.0, burst_seconds=2.0))
    _, core = _flood(lab, 20_000, over=2000.0)
    lab.schedule.run(START + 2010)
    arrived = {int(data) for _, _, data in core.heard}
    lost = [number not in arrived for number in range(20_000)]
    share = 2 / 22
    assert sum(lost) / 20_000 == pytest.approx(1 - (1 - share) ** 2, abs=0.05)  # the lines of both ends
    runs = sum(now and not before for before, now in itertools.pairwise(lost))
    assert sum(lost) / runs > 5  # independent losses would come in runs of about 1.2


def test_a_clogged_line_holds_everything_back_and_loses_nothing() -> None:
    lab = Lab()
    lab.network.become(Weather(clog_every_seconds=10.0, clog_seconds=3.0))
    _, core = _flood(lab, 2000, over=200.0)
    lab.schedule.run(START + 260)
    assert len(core.heard) == 2000
    waits = [when - START - 0.1 * int(data) for when, _, data in core.heard]
    assert max(waits) > 1.0 and min(waits) >= 0.05 - 1e-9
    assert lab.network.counters["clogged"] > 100


def test_how_often_a_spell_is_asked_does_not_change_its_share() -> None:
    from random import Random

    for step in (0.1, 1.0, 17.0):
        rng = Random(3)
        spell = Spell(0.0, 9.0, 1.0, rng)
        ill = sum(bool(spell.until(step * number, rng)) for number in range(40_000))
        assert ill / 40_000 == pytest.approx(0.1, abs=0.02)


def test_a_split_network_carries_nothing_across_until_it_heals() -> None:
    lab = Lab()
    two, core = _flood(lab, 30, over=30.0)
    two.line.side = 1
    lab.schedule.call(START + 9.5, lambda _: lab.network.split(True))
    lab.schedule.call(START + 19.5, lambda _: lab.network.split(False))
    lab.schedule.run(START + 40)
    assert [int(data) for _, _, data in core.heard] == [*range(10), *range(20, 30)]
    assert lab.network.counters["split"] == 10


def test_what_goes_nowhere_is_counted() -> None:
    lab = Lab()
    core = PingPong()
    host = lab.host(core)
    core.say(Endpoint(b"\x01\x02\x03\x04\x05\x06"), b"hello")
    host.drain(START)
    assert lab.network.counters["no such address"] == 1


def test_the_checksum_tells_runs_apart() -> None:
    def checksum(seed: int, count: int) -> str:
        lab = Lab(seed)
        lab.network.become(Weather(loss=0.1, reorder=0.1))
        _flood(lab, count, over=1.0)
        lab.schedule.run(START + 5)
        return lab.network.checksum()

    assert checksum(1, 300) == checksum(1, 300)
    assert len({checksum(1, 300), checksum(2, 300), checksum(1, 301)}) == 3
