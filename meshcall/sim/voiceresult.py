"""Plain values of calls under study: each direction window by window, and figures of many by the kind of line.

A direction counts for the one kind of line at its ends that is worse than plain, `up` where that end speaks, `down`
where it listens; with two such ends it counts for neither, but for a group of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshcall.sim.scenario import LineKind
from meshcall.sim.tally import curve, distribution, quantile

if TYPE_CHECKING:
    from meshcall.sim.calls import Member
    from meshcall.sim.talkers import TalkCall, Talkers
    from meshcall.sim.voice import VoiceEnd

BOTH = "both ends bad"
ALL = "all"
WINDOW = ("seconds", "mos", "delay_ms", "lost", "missing", "made_up", "kbit")
"""What a window's list holds; a delay of None: nothing was heard."""


def voice_result(callers: Talkers, begin: float) -> dict[str, Any]:
    """What the calls of a world with voice were like; `begin`: when they began."""
    calls = callers.over
    studied = [call for call in calls if call.studied]
    lines = callers.world.scenario.line
    plain = {name for name, kind in lines.items() if kind == LineKind()}
    directions = []
    for call in studied:
        for speaker, listener, said, heard in (
            (call.caller, call.callee, call.voice, call.voice_there),
            (call.callee, call.caller, call.voice_there, call.voice),
        ):
            if said is not None and heard is not None and heard.windows:
                directions.append(_direction(call, speaker, listener, said, heard, begin, plain))
    ends = [end for call in studied for end in (call.voice, call.voice_there) if end is not None]
    order = [group for name in lines for group in ((name,) if name in plain else (f"{name} up", f"{name} down"))]
    return {
        "calls": len(calls),
        "studied": len(studied),
        "blocks": sum(end.ticks for end in ends),
        "lines": _count(member.line for member in callers.people),
        "setup": _setup(calls),
        "groups": {
            group: summary
            for group in (*order, BOTH, ALL)
            if (summary := _group([one for one in directions if group in (one["group"], ALL)])) is not None
        },
        "counters": dict(sorted(callers.counters.items())),
        "window": list(WINDOW),
        "directions": directions,
    }


def _count(names: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in sorted(names):
        found[name or "as the access is"] = found.get(name or "as the access is", 0) + 1
    return found


def _group_of(speaker: str, listener: str, plain: set[str]) -> str:
    bad = [name for name in (speaker, listener) if name and name not in plain]
    if not bad:
        return listener or ALL
    if len(bad) == 2:
        return BOTH
    return f"{bad[0]} up" if bad[0] == speaker else f"{bad[0]} down"


def _direction(
    call: TalkCall, speaker: Member, listener: Member, said: VoiceEnd, heard: VoiceEnd, begin: float, plain: set[str]
) -> dict[str, Any]:
    windows, stats = heard.windows, heard.stats
    count = len(windows)
    delays = [window.delay for window in windows if window.delay is not None]
    first = None
    if heard.first_voice is not None and said.opened is not None:
        first = round((heard.first_voice - said.opened) * 1000, 1)
    return {
        "at": round(call.began - begin, 3),
        "group": _group_of(speaker.line, listener.line, plain),
        "speaker": speaker.line or speaker.kind,
        "listener": listener.line or listener.kind,
        "by_caller": speaker is call.caller,
        "outcome": call.outcome,
        "mos": round(sum(window.mos for window in windows) / count, 3),
        "mos_least": round(min(window.mos for window in windows), 3),
        "delay_ms": round(sum(delay.total for delay in delays) / len(delays) * 1000, 1) if delays else None,
        "network_ms": round(sum(delay.network for delay in delays) / len(delays) * 1000, 1) if delays else None,
        "waiting_ms": round(sum(delay.waiting for delay in delays) / len(delays) * 1000, 1) if delays else None,
        "lost": round(sum(window.lost for window in windows) / count, 5),
        "missing": round(sum(window.missing for window in windows) / count, 5),
        "made_up": round(sum(window.made_up for window in windows) / count, 5),
        "kbit": round(sum(window.bits_per_second for window in windows) / count / 1000, 2),
        "kbit_at_the_end": round(windows[-1].bits_per_second / 1000, 2),
        "first_voice_ms": first,
        "path_changes": call.path_changes,
        "shape_changes": said.shape_changes,
        "repaired": stats.repaired + stats.inband,
        "late": stats.late,
        "damaged": stats.damaged,
        "refused": stats.refused,
        "windows": [
            [
                round(window.at, 2), round(window.mos, 3),
                None if window.delay is None else round(window.delay.total * 1000, 1),
                round(window.lost, 4), round(window.missing, 4), round(window.made_up, 4),
                round(window.bits_per_second / 1000, 2),
            ]
            for window in windows
        ],
    }  # fmt: skip


def _group(directions: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not directions:
        return None
    return {
        "directions": len(directions),
        **{name: _spread([one[name] for one in directions if one[name] is not None], digits)
           for name, digits in (("mos", 3), ("mos_least", 3), ("delay_ms", 1), ("waiting_ms", 1), ("kbit", 2),
                                ("kbit_at_the_end", 2))},
        **{name: round(sum(one[name] for one in directions) / len(directions), 5)
           for name in ("lost", "missing", "made_up")},
        "mos_curve": curve([one["mos"] for one in directions], len(directions), 3),
    }  # fmt: skip


def _spread(values: list[float], digits: int) -> dict[str, float] | None:
    """Least, quartiles, most."""
    if not values:
        return None
    ordered = sorted(values)
    middle = {name: round(quantile(ordered, share), digits) for name, share in _QUARTILES}
    return {"least": round(ordered[0], digits), **middle, "most": round(ordered[-1], digits)}


def _setup(calls: list[TalkCall]) -> dict[str, Any]:
    """From the dial to the ringing, from answering to the caller's knowing, and to the caller's hearing."""
    ringing = [(call.ringing - call.began) * 1000 for call in calls if call.ringing is not None]
    known = [(call.first - call.accepted) * 1000 for call in calls if call.first and call.accepted]
    heard = [
        (call.voice.first_voice - call.accepted) * 1000
        for call in calls
        if call.voice is not None and call.voice.first_voice is not None and call.accepted is not None
    ]
    named = {"ringing": ringing, "answered": known, "voice": heard}
    return {
        **{f"{name}_ms": distribution(values, 1) for name, values in named.items()},
        **{f"{name}_curve": curve(values, len(values), 1) for name, values in named.items()},
    }


_QUARTILES = (("p25", 0.25), ("median", 0.5), ("p75", 0.75))
