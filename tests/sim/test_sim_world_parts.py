"""Virtual time, hosts, geography, churn: the parts a world is made of."""

from __future__ import annotations

from random import Random
from statistics import fmean, median

import pytest

from meshcall.sim.churn import Lifetimes
from meshcall.sim.geography import ACCESS, CITIES, Flatland, Geography, great_circle_km, stretch
from meshcall.sim.scenario import Churn
from meshcall.sim.schedule import Schedule
from tests.sim.small_world import START, Lab, PingPong


def test_a_schedule_keeps_time_order_and_the_order_of_one_instant() -> None:
    schedule, seen = Schedule(0.0), []
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "later")):
        schedule.call(when, lambda now, name=name: seen.append((now, name)))
    schedule.run(2.0)
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert schedule.now == 2.0


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    schedule, seen = Schedule(10.0), []
    schedule.call(5.0, seen.append)
    schedule.run(10.0)
    assert seen == [10.0]


def test_a_host_sends_receives_and_hands_on_events() -> None:
    lab = Lab()
    one, two = PingPong(), PingPong()
    first, second = lab.host(one), lab.host(two)
    one.say(second.endpoint, b"ping 1")
    one.events.append("something")
    first.drain(START)
    assert one.outbox == [] and one.events == []
    assert lab.events == [(START, 1, "something")]
    lab.schedule.run(START + 1)
    assert two.heard == [(pytest.approx(START + 0.05), first.endpoint, b"ping 1")]
    assert one.heard == [(pytest.approx(START + 0.1), second.endpoint, b"pong 1")]


def test_a_host_has_one_live_wake_up_and_wakes_on_time() -> None:
    lab = Lab()
    target = lab.host(PingPong())
    core = PingPong(target.endpoint, every=10.0)
    lab.host(core)
    lab.schedule.run(START + 35)
    assert core.woken == [START + 10, START + 20, START + 30]
    assert len(lab.schedule.heap) == 1


def test_a_host_that_was_off_wakes_again_and_hears_nothing_meanwhile() -> None:
    lab = Lab()
    target = lab.host(PingPong())
    before = PingPong(target.endpoint, every=10.0)
    host = lab.host(before)
    lab.schedule.run(START + 1)
    host.switch(None)
    delivered = lab.network.delivered
    lab.schedule.run(START + 20)
    assert before.woken == [] and lab.network.delivered == delivered
    after = PingPong(target.endpoint, every=1.0, start=START + 20)
    host.switch(after)
    host.drain(START + 20)
    lab.schedule.run(START + 23.5)
    assert after.woken == [START + 21, START + 22, START + 23]


def test_a_core_that_is_never_content_cannot_stop_time() -> None:
    class Restless(PingPong):
        def next_wake(self) -> float:
            return 0.0

        def wake(self, now: float) -> None:
            self.woken.append(now)

    lab, core = Lab(), Restless()
    lab.host(core)
    lab.schedule.run(START + 1)
    assert lab.schedule.now == START + 1
    assert len(core.woken) <= 2001


def test_distances_and_ways_are_those_of_the_earth() -> None:
    by_name = {city.name: number for number, city in enumerate(CITIES)}
    london, york, sydney = (by_name[name] for name in ("London", "New York", "Sydney"))
    assert great_circle_km(CITIES[london], CITIES[york]) == pytest.approx(5570, rel=0.01)
    assert great_circle_km(CITIES[london], CITIES[sydney]) == pytest.approx(16990, rel=0.01)
    geography = Geography({"fibre": 1.0})
    assert 0.040 < geography.rows[london][york] < 0.070
    for a in range(len(CITIES)):
        assert geography.rows[a][a] < 0.002
        for b in range(a):
            assert geography.rows[a][b] == geography.rows[b][a]
            assert geography.rows[a][b] * 200_000 > great_circle_km(CITIES[a], CITIES[b])
            assert 1.5 <= stretch(CITIES[a], CITIES[b]) <= 2.3


def test_lines_follow_population_and_access() -> None:
    geography, rng = Geography({"fibre": 1.0, "mobile": 3.0}), Random(5)
    lines = [geography.line(rng) for _ in range(4000)]
    assert sum(line.kind == "mobile" for line in lines) / 4000 == pytest.approx(0.75, abs=0.03)
    for line in lines:
        access = ACCESS[line.kind]
        assert access.least_ms / 1000 <= line.lag <= access.most_ms / 1000
    share = sum(CITIES[line.site].region == "europe" for line in lines) / 4000
    total = sum(city.weight for city in CITIES)
    assert share == pytest.approx(sum(c.weight for c in CITIES if c.region == "europe") / total, abs=0.03)
    assert fmean(geography.spread) == pytest.approx(1.0, rel=0.01)


def test_flatland_draws_each_packet_evenly() -> None:
    lab = Lab(geography=Flatland(40.0, 80.0))
    core = PingPong()
    one, two = lab.host(PingPong()), lab.host(core)
    for _ in range(2000):
        one.core.say(two.endpoint, b"hello")
    one.drain(START)
    lab.schedule.run(START + 1)
    times = [when - START for when, _, _ in core.heard]
    assert 0.040 <= min(times) < 0.042 and 0.078 < max(times) <= 0.080
    assert fmean(times) == pytest.approx(0.060, abs=0.001)


@pytest.mark.parametrize(("law", "shape"), [("weibull", 0.5), ("weibull", 1.0), ("pareto", 3.0)])
def test_lives_have_their_mean_and_a_heavy_tail(law: str, shape: float) -> None:
    lifetimes, rng = Lifetimes(Churn(lifetime=law, shape=shape, mean_minutes=10)), Random(7)
    lives = [lifetimes.session(rng) for _ in range(40_000)]
    assert fmean(lives) == pytest.approx(600, rel=0.06)
    assert median(lives) < 0.75 * 600
    rest = [lifetimes.remainder(rng) for _ in range(40_000)]
    # A host met at a random moment has E[X^2] / 2 E[X] before it.
    assert median(rest) >= median(lives) * 0.95
    expected = fmean(life * life for life in lives) / (2 * fmean(lives))
    assert fmean(rest) == pytest.approx(expected, rel=0.25)


def test_nobody_leaves_without_churn() -> None:
    assert not Lifetimes(Churn()).active
    assert fmean(Lifetimes(Churn(away_mean_minutes=2)).away(Random(n)) for n in range(4000)) == pytest.approx(
        120, rel=0.06
    )
