"""Drives one scenario from the first host to the verdict, and gathers the result.

First the hosts join; then people publish and look up for the scenario's hours while its faults and
events happen; at the end all faults cease, and after a calm everything published must be found.
All times in a result count from when the people began.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from meshcall import __version__
from meshcall.sim.checks import Checks
from meshcall.sim.host import CoreFactory, new_dht
from meshcall.sim.people import People
from meshcall.sim.scenario import PHASE_LAST, Event, Scenario, Weather
from meshcall.sim.tally import Sample, Tally, distribution, published, summary
from meshcall.sim.world import BIRTH_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshcall.sim.host import Host

STEPS = 240
"""Progress is told, and the world sampled, so many times."""
VERDICT_SECONDS = 60.0
"""The last look-ups are spread over half of this; all must have ended by its end."""
COLLECT_AFTER = 200_000
"""Objects made between two runs of the collector: a world is large and makes little circular waste."""


class Progress(NamedTuple):
    """How far a run has come."""

    share: float
    """Of all virtual time, 0 to 1."""
    phase: str
    virtual_seconds: float
    messages: int
    lookups: int


class Run:
    """One scenario with one seed."""

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        *,
        nodes: int | None = None,
        hours: float | None = None,
        seed: int | None = None,
        new_core: CoreFactory = new_dht,
    ) -> None:
        """`nodes`, `hours` and `seed` take the place of the scenario's own; people multiply with the nodes."""
        self.name = name
        self.scenario = scenario = scenario if nodes is None else scaled(scenario, nodes)
        self.nodes = scenario.nodes if nodes is None else nodes
        self.hours = scenario.hours if hours is None else hours
        self.seed = scenario.seed if seed is None else seed
        self._rss_before = resident_kib()
        self.world = World(scenario, self.nodes, self.seed, new_core)
        self.tally = Tally()
        self.checks = Checks()
        self.people = People(self.world, self.checks, self.tally)
        settings = scenario.world
        self.begin = BIRTH_SECONDS + settings.join_seconds + settings.settle_seconds
        self.end = self.begin + self.hours * 3600
        self.calm = self.end + scenario.ending.calm_minutes * 60
        self.last = self.calm + VERDICT_SECONDS
        self._rss_built: int | None = None
        self._received: dict[int, int] = {}

    def go(self, progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Run it all.  The result is plain values, ready for JSON; all but `speed` depends on the seed alone."""
        wall, cpu = time.perf_counter(), time.process_time()
        thresholds = gc.get_threshold()
        gc.set_threshold(COLLECT_AFTER, 20, 50)
        try:
            self._join()
            self._until(self.begin, "joining", progress)
            self._rss_built = resident_kib()
            gc.collect()
            gc.freeze()
            joined = time.process_time() - cpu, self.world.network.delivered
            self._live()
            self._until(self.end, "", progress)
            load = self._load()
            self._end()
            self._until(self.calm, "calm", progress)
            self._verdict()
            self._until(self.last, "verdict", progress)
        finally:
            gc.set_threshold(*thresholds)
            gc.unfreeze()
        result = self._result(load)
        result["speed"] = self._speed(time.perf_counter() - wall, time.process_time() - cpu, joined)
        return result

    # ---- the phases

    def _join(self) -> None:
        schedule, hosts = self.world.schedule, self.world.hosts
        first = self.world.settings.routers
        for number, host in enumerate(hosts):
            wait = self.world.settings.join_seconds * max(0, number - first) / len(hosts)
            schedule.at(BIRTH_SECONDS + wait, self._switch_on, host)

    def _switch_on(self, now: float, host: Host, _second: None, _third: None) -> None:
        self.world.switch_on(now, host)

    def _live(self) -> None:
        world, scenario = self.world, self.scenario
        self._received = {host.number: host.received for host in world.hosts}
        world.network.tap = self.checks
        world.network.become(scenario.weather)
        world.begin_churn(self.begin)
        self.people.calm = scenario.weather == Weather() and not world.churning
        self.people.begin(self.begin)
        for event in scenario.event:
            world.schedule.at(self.begin + event.at * self.hours * 3600, self._happen, event)

    def _happen(self, now: float, event: Event, _second: None, _third: None) -> None:
        world, people, what = self.world, self.people, ""
        if event.phase:
            people.phase = event.phase
        if event.kind in ("lookups", "cold lookups"):
            people.burst(now, event.count, event.seconds, cold=event.kind == "cold lookups")
            return
        people.calm = False
        if event.kind == "kill":
            what = f"{world.kill(now, event.share)} hosts die"
        elif event.kind == "revive":
            what = f"{world.revive(now, event.seconds)} hosts come back"
        elif event.kind == "partition":
            world.partition(event.share, event.regions)
            what = "the network splits"
        elif event.kind == "heal":
            world.heal()
            what = "the network heals"
        else:
            world.network.become(event.weather)
            what = "the weather changes"
        self.tally.marks.append((now, what))

    def _end(self) -> None:
        world, people, now = self.world, self.people, self.end
        self.tally.marks.append((now, "all faults end"))
        people.stop()
        world.end_churn()
        world.heal()
        world.network.become(Weather())
        if self.scenario.ending.revive:
            world.revive(now, (self.calm - now) / 4)
        if self.scenario.ending.republish:
            people.publish_all(now + (self.calm - now) / 2, (self.calm - now) / 4)

    def _verdict(self) -> None:
        self.people.phase = PHASE_LAST
        self.people.calm = True
        self.people.look_up_all(self.calm, VERDICT_SECONDS / 2)

    def _until(self, end: float, phase: str, progress: Callable[[Progress], None] | None) -> None:
        schedule, total = self.world.schedule, self.last - BIRTH_SECONDS
        while schedule.now < end:
            schedule.run(min(end, schedule.now + total / STEPS))
            if schedule.now >= self.begin:
                self._sample(schedule.now)
            if progress is not None:
                done = (schedule.now - BIRTH_SECONDS) / total
                name = phase or self.people.phase
                messages = self.world.network.delivered
                progress(Progress(done, name, schedule.now - self.begin, messages, len(self.tally.lookups)))

    # ---- the result

    def _sample(self, now: float) -> None:
        world = self.world
        network = world.network
        self.tally.samples.append(Sample(now, world.online, len(world.ready), network.sent, network.delivered))

    def _load(self) -> list[float]:
        """Messages a minute that each host received which was there from beginning to end."""
        minutes = self.hours * 60
        return [
            (host.received - self._received[host.number]) / minutes
            for host in self.world.hosts
            if host.core is not None and host.number in self._received
        ]

    def _result(self, load: list[float]) -> dict[str, Any]:
        world, tally, begin = self.world, self.tally, self.begin
        network = world.network
        phases = dict.fromkeys(lookup.phase for lookup in tally.lookups)
        groups = {}
        for phase in phases:
            for cold in (False, True):
                chosen = [lookup for lookup in tally.lookups if lookup.phase == phase and lookup.cold is cold]
                if chosen:
                    groups[f"{phase}, cold" if cold else phase] = summary(chosen)
        last = [lookup for lookup in tally.lookups if lookup.phase == PHASE_LAST]
        checks = dict(self.checks.counts)
        return {
            "meshcall": __version__,
            "scenario": self.name,
            "title": self.scenario.title,
            "description": self.scenario.description.strip(),
            "seed": self.seed,
            "nodes": self.nodes,
            "hours": self.hours,
            "checksum": network.checksum(),
            "settings": msgspec.to_builtins(self.scenario),
            "lookups": groups,
            "abandoned": tally.abandoned,
            "publications": published(tally.publications) if tally.publications else {},
            "checks": {
                **checks,
                "found_at_the_end": sum(1 for lookup in last if lookup.outcome in ("newest", "older")),
                "newest_at_the_end": sum(1 for lookup in last if lookup.outcome == "newest"),
                "looked_up_at_the_end": len(last),
                "sentences": self.checks.violations,
            },
            "network": {
                "sent": network.sent,
                "bytes sent": network.sent_bytes,
                "delivered": network.delivered,
                **network.counters,
                "refused by NAT": world.refused_by_nats(),
            },
            "hosts": dict(sorted(world.kinds.items())),
            "ready_at_the_end": len(world.ready),
            "online_at_the_end": world.online,
            "load_per_minute": distribution(load, 1),
            "load": [round(value, 1) for value in sorted(load)],
            "cores": dict(sorted(world.totals().items())),
            "marks": [[round(when - begin, 3), what] for when, what in tally.marks],
            "samples": [{**asdict(sample), "when": round(sample.when - begin, 3)} for sample in tally.samples],
            "timeline": _timeline(
                ((lookup.started - begin, lookup.outcome) for lookup in tally.lookups if not lookup.cold),
                self.last - begin,
            ),
        }

    def _speed(self, wall: float, cpu: float, joined: tuple[float, int]) -> dict[str, Any]:
        """How fast this machine was; nothing of it enters the result proper."""
        messages = self.world.network.delivered
        after_cpu, after_messages = cpu - joined[0], messages - joined[1]
        built = None
        if self._rss_before is not None and self._rss_built is not None:
            built = round((self._rss_built - self._rss_before) / self.nodes, 1)
        return {
            "wall_seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "messages": messages,
            "messages_per_cpu_second": round(messages / cpu) if cpu else 0,
            "messages_per_cpu_second_joining": round(joined[1] / joined[0]) if joined[0] else 0,
            "messages_per_cpu_second_after": round(after_messages / after_cpu) if after_cpu else 0,
            "virtual_seconds": round(self.last - BIRTH_SECONDS, 1),
            "kib_per_node": built,
        }


def _timeline(lookups: Iterable[tuple[float, str]], seconds: float) -> list[list[float]]:
    """Bins of [middle in seconds, look-ups, newest, older]."""
    width = seconds / 60
    bins: dict[int, list[float]] = {}
    for when, outcome in lookups:
        number = int(when / width)
        bin_ = bins.setdefault(number, [round((number + 0.5) * width, 1), 0, 0, 0])
        bin_[1] += 1
        if outcome in ("newest", "older"):
            bin_[2 if outcome == "newest" else 3] += 1
    return [bins[number] for number in sorted(bins)]


def scaled(scenario: Scenario, nodes: int) -> Scenario:
    """The scenario for so many nodes.  A larger world has more people in it; a smaller one keeps
    them, because figures need look-ups."""
    factor = max(1.0, nodes / scenario.nodes)
    people = msgspec.structs.replace(
        scenario.people,
        publishers=round(scenario.people.publishers * factor),
        lookups_per_minute=scenario.people.lookups_per_minute * factor,
    )
    return msgspec.structs.replace(scenario, nodes=nodes, people=people)


def resident_kib() -> int | None:
    """This process's resident memory; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), None)
