"""Which path carries the frames and which one is kept warm: pure functions on measured values.

Tiers come first (direct, relay over UDP, relay over TCP), as a handicap in seconds; within them the
round trip and the loss decide.  A path in use is left only for one that is clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshcall.path.health import Measured, State
from meshcall.path.paths import Path, endpoint_of, is_relayed, is_tcp

RELAY_HANDICAP_SECONDS = 0.15
"""A direct path may be slower than a relayed one by so much and still be taken."""
TCP_HANDICAP_SECONDS = 0.3
"""A lost segment holds up all that follow it."""
LOSS_HANDICAP_SECONDS = 1.0
"""For a path that loses everything; in proportion below."""
LOSS_DIRECT_MAX = 0.1
"""A direct path that loses more than this share does not replace a relayed one."""
BETTER_SECONDS = 0.01
BETTER_SHARE = 0.2
"""Within a tier a path is left only for one that is better by both of these."""
DOUBLE_LOSS = 0.03
"""From this share of loss on, frames go out on both paths, where who sends them knows of room for that."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be used from now on."""

    best: Path | None
    second: Path | None
    """Kept warm, takes over at once; of another fate than `best` where there is one."""
    reason: str
    """Why the best one is the best one, as people read it."""


def score(measured: Measured) -> float:
    """Seconds, less is better: round trip, and handicaps for what is wrong with it."""
    rtt = measured.rtt if measured.rtt is not None else 0.5
    handicap = 0.0
    if is_relayed(measured.path):
        handicap = TCP_HANDICAP_SECONDS if is_tcp(measured.path) else RELAY_HANDICAP_SECONDS
    return rtt + handicap + LOSS_HANDICAP_SECONDS * measured.loss


def choose(paths: Sequence[Measured], best: Path | None) -> Choice:
    """The path to use and the one to keep warm, given the one in use."""
    usable = sorted((each for each in paths if each.state >= State.SUSPECT), key=_order)
    held = next((each for each in usable if each.path == best), None)
    if not usable:
        return Choice(None, None, "no path works")
    top, reason = usable[0], "the only one"
    if held is None:
        reason = "the first one that works" if best is None else "the one before fell silent"
    elif held is not top:
        reason = _why_leave(held, top)
        if not reason:
            top, reason = held, f"better than {len(usable) - 1} others, or not worse by enough to change"
    elif len(usable) > 1:
        reason = "direct" if not is_relayed(top.path) and is_relayed(usable[1].path) else "the shortest round trip"
    second = min((each for each in usable if each is not top), key=lambda each: _spare(each, top), default=None)
    return Choice(top.path, second.path if second else None, reason)


def doubles(best: Measured) -> bool:
    """Whether frames should go out on the second path too, for the state the best one is in."""
    return best.state < State.LIVE or best.frame_loss >= DOUBLE_LOSS


def _order(measured: Measured) -> tuple[bool, float, Path]:
    return measured.state < State.LIVE, score(measured), measured.path


def _why_leave(held: Measured, other: Measured) -> str:
    """The reason to change to `other`; empty: none."""
    if other.state < State.LIVE:
        return ""
    gain = score(held) - score(other)
    if is_relayed(held.path) and not is_relayed(other.path):
        return "direct" if other.loss < LOSS_DIRECT_MAX and gain > 0 else ""
    if gain >= BETTER_SECONDS and gain >= BETTER_SHARE * score(held):
        return "shorter round trip" if other.loss >= held.loss else "less loss"
    return ""


def _spare(other: Measured, best: Measured) -> tuple[bool, bool, bool, float, Path]:
    """The order of those that could be second: what does not fail for the same reason comes first."""
    same_kind = is_relayed(other.path) == is_relayed(best.path)
    same_place = endpoint_of(other.path)[:-2] == endpoint_of(best.path)[:-2]
    return other.state < State.LIVE, same_kind, same_place, score(other), other.path
