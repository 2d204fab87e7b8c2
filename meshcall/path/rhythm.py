"""When the next probe of a path is due: pure functions of its health and its place.

In a call the stream itself shows that the paths live, so probes are few; in doubt they are fast, and
on an idle link there are keep-alives only, as rare as the NAT allows.
"""

from __future__ import annotations

from enum import IntEnum

from meshcall.path.health import Health, State
from meshcall.path.life import MappingLife

STREAM_PROBE_SECONDS = 1.0
"""The best path, while a stream comes by it; and the second one in a call."""
LONELY_PROBE_SECONDS = 0.2
"""The best path, while frames go out and none come in: only probes tell whether it works."""
OTHER_PROBE_SECONDS = 5.0
"""Paths that are neither, in a call."""
DOUBT_PROBE_SECONDS = 0.05
DOUBT_PROBES = 6
DOUBT_SLOW_SECONDS = 0.25
"""A path in doubt: so many probes in fast order, then slower ones."""
WARM_PROBE_SECONDS = 0.1
"""The second path, while the best one is in doubt."""
NARROW_FACTOR = 6
"""While the line is full, all but the regular probe of the best path are so many times rarer."""
CHECK_PROBES = 4
CHECK_SECONDS = 0.1
"""A path that the peer was heard on, or named: so many probes, the pause tripled each time."""
SILENT_SECONDS = 0.5
SILENT_PROBES = 8
"""A path that fell silent, the pause doubled each time."""
RETRY_FIRST_SECONDS = 0.6
"""Guessing the ports of a sequential NAT is tried again this soon, with a new look at them ..."""
RETRY_GUESSES = 2
"""... so many times."""
RETRY_SECONDS = (10.0, 30.0, 60.0)
"""Punching anew while the best path is relayed and the link in use; the last pause is repeated ..."""
RETRY_IDLE_SECONDS = (30.0, 300.0, 1800.0)
"""... and while it is idle."""


class Place(IntEnum):
    """What a path is for."""

    OTHER = 0
    SECOND = 1
    BEST = 2


def next_probe(
    now: float, health: Health, place: Place, *, is_active: bool, is_doubt: bool, life: MappingLife, has_spare: bool,
    is_narrow: bool = False,
) -> float | None:  # fmt: skip
    """When the path wants its next probe; None: not of itself.

    `is_active`: frames of a call go out; `is_doubt`: the best path is in doubt; `has_spare`: another
    path works too, so that a mapping may be risked to learn its life; `is_narrow`: the line is full.
    """
    factor = NARROW_FACTOR if is_narrow else 1
    last = health.probed_at if health.probed_at is not None else health.since - 1e6
    state = health.state(now)
    if state is State.NEW:
        return check_back(health) if health.tries < CHECK_PROBES else None
    if state is State.SILENT:
        if health.tries >= SILENT_PROBES:
            return None
        return last + SILENT_SECONDS * 2.0 ** min(health.tries, SILENT_PROBES)
    if state is State.SUSPECT and place is Place.BEST and is_narrow:
        return last + STREAM_PROBE_SECONDS  # its answer is late because the line is full
    if state is State.SUSPECT:
        return last + factor * (DOUBT_PROBE_SECONDS if health.tries < DOUBT_PROBES else DOUBT_SLOW_SECONDS)
    if not is_active:
        if place is Place.OTHER:
            return None
        # gaps on a path that can be done without teach how long mappings live
        return health.sent_at + (life.trial() if has_spare else life.safe())
    if place is Place.BEST:
        return last + (STREAM_PROBE_SECONDS if health.has_stream(now) else factor * LONELY_PROBE_SECONDS)
    if place is Place.SECOND:
        return last + factor * (WARM_PROBE_SECONDS if is_doubt else STREAM_PROBE_SECONDS)
    return last + factor * OTHER_PROBE_SECONDS


def check_back(health: Health) -> float:
    """When a path on which the peer was heard may be probed (again)."""
    if health.probed_at is None:
        return health.since
    return health.probed_at + CHECK_SECONDS * 3.0 ** min(max(health.tries - 1, 0), CHECK_PROBES - 1)


def retry_pause(retries: int, *, is_active: bool, is_guess: bool) -> float:
    """Seconds until hole punching begins anew, after so many times."""
    if is_guess and retries < RETRY_GUESSES:
        return RETRY_FIRST_SECONDS
    pauses = RETRY_SECONDS if is_active else RETRY_IDLE_SECONDS
    return pauses[min(retries, len(pauses) - 1)]
