"""Drives a scenario with calls: the network joins, volunteers and people come, they call, faults happen.

All times in a result count from when the calls began.  What is measured is in `calls`; this file makes
plain values of it.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from meshcall import __version__
from meshcall.sim.calls import Call, Callers
from meshcall.sim.run import COLLECT_AFTER, Progress
from meshcall.sim.scenario import PHASE_ALL, PHASE_BEFORE, Event, Scenario
from meshcall.sim.talkers import Talkers
from meshcall.sim.tally import curve, distribution
from meshcall.sim.voiceresult import voice_result
from meshcall.sim.world import BIRTH_SECONDS, World

if TYPE_CHECKING:
    from meshcall.sim.calls import Member
    from meshcall.sim.host import Host

STEPS = 120
RELAYS_SECONDS = 5.0
"""Relays are switched on over this, when the network has joined."""
OUTCOMES = ("direct", "relayed", "broken", "failed")
SENTENCES_MAX = 20


class CallRun:
    """One scenario with calls, with one seed."""

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        *,
        nodes: int | None = None,
        hours: float | None = None,
        seed: int | None = None,
    ) -> None:
        """`nodes`, `hours` and `seed` take the place of the scenario's own; `nodes` are those without people."""
        assert scenario.calls is not None, "a scenario with calls"
        self.name = name
        self.scenario = scenario
        self.nodes = scenario.nodes if nodes is None else nodes
        self.seed = scenario.seed if seed is None else seed
        self.world = World(scenario, self.nodes, self.seed)
        kind = Callers if scenario.voice is None else Talkers
        self.callers = kind(self.world, scenario.calls)
        hours = scenario.hours if hours is None else hours
        self.hours = min(hours, self.callers.seconds / 3600)
        join, settle = scenario.world.join_seconds, scenario.world.settle_seconds
        self.begin = BIRTH_SECONDS + 2 * join + RELAYS_SECONDS + settle
        self.end = self.begin + self.hours * 3600
        self._samples: list[dict[str, Any]] = []
        self._marks: list[tuple[float, str]] = []
        self._relay_bytes: list[int] = []

    def go(self, progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Run it all.  The result is plain values, ready for JSON; all but `speed` depends on the seed alone."""
        wall, cpu = time.perf_counter(), time.process_time()
        thresholds = gc.get_threshold()
        gc.set_threshold(COLLECT_AFTER, 20, 50)
        try:
            self._join()
            self._until(self.begin, "joining", progress)
            self._live()
            self._until(self.end, "calling", progress)
        finally:
            gc.set_threshold(*thresholds)
        result = self._result()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        messages = self.world.network.delivered
        result["speed"] = {
            "wall_seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "messages": messages,
            "messages_per_cpu_second": round(messages / cpu) if cpu else 0,
            "virtual_seconds": round(self.end - BIRTH_SECONDS, 1),
        }
        return result

    # The phases

    def _join(self) -> None:
        world, join = self.world, self.world.settings.join_seconds
        for number, host in enumerate(world.hosts):
            wait = join * max(0, number - world.settings.routers) / len(world.hosts)
            world.schedule.at(BIRTH_SECONDS + wait, self._host_on, host)
        for members, begins, seconds in (
            (self.callers.relays, BIRTH_SECONDS + join, RELAYS_SECONDS),
            (self.callers.people, BIRTH_SECONDS + join + RELAYS_SECONDS, join),
        ):
            for number, member in enumerate(members):
                world.schedule.at(begins + seconds * number / len(members), self._member_on, member)

    def _host_on(self, now: float, host: Host, _second: None, _third: None) -> None:
        self.world.switch_on(now, host)

    def _member_on(self, now: float, member: Member, _second: None, _third: None) -> None:
        self.callers.switch_on(now, member)

    def _live(self) -> None:
        events = self.scenario.event
        self.world.network.become(self.scenario.weather)
        self.callers.phase = PHASE_BEFORE if any(event.phase for event in events) else PHASE_ALL
        self._relay_bytes = [relay.device.sent_bytes for relay in self.callers.relays]
        self.callers.begin(self.begin, self.end)
        for event in events:
            self.world.schedule.at(self.begin + event.at * self.hours * 3600, self._happen, event)

    def _happen(self, now: float, event: Event, _second: None, _third: None) -> None:
        callers = self.callers
        if event.phase:
            callers.phase = event.phase
        if event.kind == "kill relays":
            what = f"{callers.kill_relays(now, event.share)} relays die"
        elif event.kind == "revive relays":
            what = f"{callers.revive_relays(now)} relays come back"
        elif event.kind == "move":
            what = f"{callers.move(now, event.share)} callers move to another network"
        elif event.kind == "rebind":
            what = f"the NATs of {callers.rebind(now, event.share)} callers restart"
        else:
            self.world.network.become(event.weather)
            what = "the weather changes"
        self._marks.append((now, what))

    def _until(self, end: float, phase: str, progress: Callable[[Progress], None] | None) -> None:
        schedule, total = self.world.schedule, self.end - BIRTH_SECONDS
        while schedule.now < end:
            schedule.run(min(end, schedule.now + total / STEPS))
            if schedule.now > self.begin:
                self._sample(schedule.now)
            if progress is not None:
                share = (schedule.now - BIRTH_SECONDS) / total
                messages, calls = self.world.network.delivered, len(self.callers.calls)
                progress(Progress(share, phase, schedule.now - self.begin, messages, calls))

    def _sample(self, now: float) -> None:
        """What relays do, and the calls under way."""
        relays = []
        for relay in self.callers.relays:
            node = relay.device.node
            status = None if node is None or node.people.relay is None else node.people.relay.status(now)
            relays.append(
                {
                    "bytes": relay.device.sent_bytes,
                    "leases": 0 if status is None else status.leases,
                    "flows": 0 if status is None else status.established,
                }
            )
        self._samples.append({"when": round(now - self.begin, 3), "relays": relays, **self.callers.open_now()})

    # The result

    def _result(self) -> dict[str, Any]:
        calls, network = self.callers.calls, self.world.network
        assert self.scenario.calls is not None
        bad = [call for call in calls if call.ended and call.outcome in ("failed", "broken")]
        violations = bad if self.scenario.calls.must_connect else []
        phases = dict.fromkeys(call.phase for call in calls)
        ended = [call for call in calls if call.ended]
        callers = self.callers
        voice = {"voice": voice_result(callers, self.begin)} if isinstance(callers, Talkers) else {}
        return {
            "meshcall": __version__,
            "scenario": self.name,
            "title": self.scenario.title,
            "description": self.scenario.description.strip(),
            "seed": self.seed,
            "nodes": self.nodes,
            "hours": round(self.hours, 4),
            "checksum": network.checksum(),
            "settings": msgspec.to_builtins(self.scenario),
            "calls": {phase: _summary([call for call in ended if call.phase == phase]) for phase in phases},
            **voice,
            "pairs": _pairs(ended),
            "people": self.callers.where(),
            "relays": self._relays(),
            "checks": {
                "violations": len(violations),
                "sentences": [self._sentence(call) for call in violations[:SENTENCES_MAX]],
            },
            "network": {"sent": network.sent, "bytes sent": network.sent_bytes, "delivered": network.delivered,
                        **network.counters},
            "devices": self.callers.totals(),
            "marks": [[round(when - self.begin, 3), what] for when, what in self._marks],
            "samples": self._samples,
        }  # fmt: skip

    def _sentence(self, call: Call) -> str:
        when = round(call.began - self.begin, 1)
        caller, callee = (member.line or member.kind for member in (call.caller, call.callee))
        return f"at {when} s: {caller} called {callee}: {call.outcome}: {call.reason or 'no echo'}"

    def _relays(self) -> list[dict[str, Any]]:
        assert self.scenario.calls is not None
        uplink = self.scenario.calls.relay_uplink_kbit * 125
        found = []
        for relay, before in zip(self.callers.relays, self._relay_bytes, strict=True):
            device = relay.device
            carried = device.sent_bytes - before
            core = None if device.node is None else device.node.people.relay
            calls = sum(device.endpoint in call.relays for call in self.callers.calls)
            found.append(
                {
                    "calls": calls,
                    "leases": 0 if core is None else core.status(self.end).leases,
                    "kbit_per_second": round(carried / 125 / (self.end - self.begin), 1),
                    "uplink_share": round(carried / uplink / (self.end - self.begin), 4),
                    "dropped": device.counters["dropped before the uplink"],
                    "counters": {} if core is None else dict(sorted(core.counters.items())),
                }
            )
        return found


def _summary(calls: list[Call]) -> dict[str, Any]:
    outcomes = Counter(call.outcome for call in calls)
    struck = [call for call in calls if call.struck is not None]
    first = _milliseconds((call.first, call.began) for call in calls)
    direct = _milliseconds((call.direct, call.found) for call in calls)
    gaps = [call.gap * 1000 for call in struck]
    sent, answered = sum(call.sent for call in calls), sum(call.answered for call in calls)
    return {
        "calls": len(calls),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "found_ms": distribution(_milliseconds((call.found, call.began) for call in calls), 1),
        "first_ms": distribution(first, 1),
        "dial_ms": distribution(_milliseconds((call.first, call.found) for call in calls), 1),
        "direct_ms": distribution(direct, 1),
        "struck": len(struck),
        "struck_outcomes": dict(sorted(Counter(call.outcome for call in struck).items())),
        "gap_ms": distribution(gaps, 1),
        "echoes": sent,
        "echoes_answered": round(answered / sent, 5) if sent else 0.0,
        "first_curve": curve(first, len(calls), 1),
        "direct_curve": curve(direct, len(calls), 1),
        "gap_curve": curve(gaps, len(gaps), 1),
        "reasons": dict(sorted(Counter(call.reason for call in calls if call.reason).items())),
    }


def _milliseconds(spans: Any) -> list[float]:
    return [(end - start) * 1000 for end, start in spans if end is not None and start is not None]


def _pairs(calls: list[Call]) -> list[dict[str, Any]]:
    """What became of calls from each kind of access to each."""
    pairs: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        pairs.setdefault((call.caller.kind, call.callee.kind), []).append(call)
    return [
        {
            "caller": caller,
            "callee": callee,
            "calls": len(group),
            **{name: sum(call.outcome == name for call in group) for name in OUTCOMES},
            "dial_ms": distribution(_milliseconds((call.first, call.found) for call in group), 1),
            "direct_ms": distribution(_milliseconds((call.direct, call.found) for call in group), 1),
        }
        for (caller, callee), group in pairs.items()
    ]
