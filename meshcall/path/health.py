"""What is known of one path: round trip, loss, when something was heard, whether it is alive.

Two clocks tell that a path is dead: probes without an answer, and silence where a stream was heard
before.  The first suspicion only makes frames go out twice; leaving needs more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from meshcall.path.paths import Path

CLOCK_GRAIN_SECONDS = 1e-6
"""Times nearer than this are the same: sums of floats do not come out even."""
RTT_UNKNOWN_SECONDS = 1.0
"""How long the first answer may take."""
RTT_MARGIN_LEAST_SECONDS = 0.03
RTT_TIMEOUT_MOST_SECONDS = 2.0
NARROW_SLACK_SECONDS = 0.8
"""On a line that is full an answer may take so much longer: it waits in the queue that our frames make."""
STREAM_FRAMES_LEAST = 5
"""Frames heard in a row before silence means something."""
STREAM_GAP_MOST_SECONDS = 0.12
"""A stream is what comes more often than this."""
SILENCE_LEAST_SECONDS = 0.08
SILENCE_MOST_SECONDS = 0.24
SILENCE_DEVIATIONS = 6
DEAF_SECONDS = 2.0
"""After so long the stream is taken to have ended."""
MISSED_SILENT = 2
"""Probes unanswered in a row, and nothing else heard meanwhile, before a path is silent ..."""
MISSED_ONE_WAY = 4
"""... and where something is still heard: what we send does not get through."""
OUTSTANDING_MAX = 16
LOSS_WEIGHT = 1 / 8
LOSS_HALF_LIFE_SECONDS = 2.0
"""One probe lost weighs 1/8, and half of it after so long: some seconds of frames sent twice, not more."""
REPORT_LIFE_SECONDS = 2.0


class State(IntEnum):
    """From bad to good."""

    SILENT = 0
    NEW = 1
    """Heard of, or from; not proved."""
    SUSPECT = 2
    LIVE = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One path as the choice sees it."""

    path: Path
    state: State
    rtt: float | None = None
    """Smoothed, seconds; None: not measured."""
    loss: float = 0.0
    """Of probes: what all paths are measured by alike."""
    frame_loss: float = 0.0
    """The worse of this and what the other side reports of frames."""


class Health:
    """The measurements of one path; `now` in monotonic seconds throughout."""

    __slots__ = (
        "_deviation", "_gap", "_loss", "_loss_at", "_missed", "_missed_since", "_outstanding", "_report", "_report_at",
        "_rttvar", "_silence", "_stream", "_suspect_until", "_trips", "credit", "frame_at", "heard_at", "is_lost",
        "observed", "path", "probed_at", "rtt", "sent_at", "since", "slack", "socket", "tries", "verified",
    )  # fmt: skip

    def __init__(self, now: float, path: Path, socket: int = 0) -> None:
        self.path = path
        self.socket = socket
        """Which of our sockets the NAT on our side let it in by; 0: the main one."""
        self.since = now
        self.verified = False
        """The other end has answered a nonce that was sent on this path."""
        self.is_lost = False
        self.slack = 0.0
        """Seconds more that an answer may take: what the line's own queue may grow by."""
        self.rtt: float | None = None
        """Smoothed, seconds (RFC 6298)."""
        self._trips: tuple[float, ...] = ()
        self._loss = 0.0
        self._loss_at = now
        self.heard_at: float | None = None
        self.frame_at: float | None = None
        self.sent_at = now
        self.probed_at: float | None = None
        self.tries = 0
        """Probes since it was last proved."""
        self.credit = 0
        """Frames that may be sent on it before it is proved: as many as came by it."""
        self.observed: bytes | None = None
        """Our own endpoint, as the other end saw it last on this path."""
        self._rttvar = 0.0
        self._missed = 0
        self._missed_since = now
        self._outstanding: dict[bytes, float] = {}
        self._gap = self._deviation = 0.0
        self._stream = 0
        self._silence: float | None = None
        self._suspect_until = 0.0
        self._report = 0.0
        self._report_at = -REPORT_LIFE_SECONDS

    # What happens

    def probed(self, now: float, nonce: bytes) -> None:
        """A probe was sent."""
        self.probed_at = self.sent_at = now
        self.tries += 1
        if len(self._outstanding) < OUTSTANDING_MAX:
            self._outstanding[nonce] = now

    def skipped(self, now: float) -> None:
        """A probe was due, but the budget did not allow it."""
        self.probed_at = now
        self.tries += 1

    def moved(self, until: float) -> None:
        """We are in another network: what was learnt of our side is void, and the path is doubted so long."""
        self.socket = 0
        self.tries = 0
        self.observed = None
        self.doubt(until)

    def postponed(self, now: float) -> None:
        """A probe was due, but the line has no room for it: it is as if it had been sent, and does not count."""
        self.probed_at = now

    def answered(self, now: float, nonce: bytes, rtt: float) -> None:
        """The answer to a probe came back by this path, `rtt` seconds after it was sent."""
        self.verified = True
        if self.is_lost:  # it is back, and what was lost before says nothing of it now
            self.is_lost = False
            self._loss = 0.0
        self.tries = self._missed = 0
        self._suspect_until = 0.0
        self.heard_at = now
        self._trips = (*self._trips[-1:], rtt)
        in_time = self._outstanding.pop(nonce, None) is not None
        self._lose(now, -self.loss(now) * in_time)
        # an answer means: whatever was asked before it and is still open is no sign of death
        for older in [each for each, sent in self._outstanding.items() if sent <= now - rtt]:
            del self._outstanding[older]
        if self.rtt is None:
            self.rtt, self._rttvar = rtt, rtt / 4
        else:
            self._rttvar += (abs(rtt - self.rtt) - self._rttvar) / 4
            self.rtt += (rtt - self.rtt) / 8
        if self._is_quiet(now):
            self._stream = 0  # it works, so the other side has stopped its stream or sends it elsewhere
            self._silence = None

    def heard(self, now: float, is_frame: bool) -> None:
        """Something authentic came by this path; `is_frame`: not the path layer's own."""
        self.heard_at = now
        if not is_frame:
            return
        if self.frame_at is not None:
            gap = now - self.frame_at
            if gap > STREAM_GAP_MOST_SECONDS:
                self._stream = 0
            elif self._stream:
                self._deviation += (abs(gap - self._gap) - self._deviation) / 8
                self._gap += (gap - self._gap) / 8
            else:
                self._gap, self._deviation = gap, gap / 4
        self._stream += 1
        self.frame_at = now
        self._silence = None
        if self._stream >= STREAM_FRAMES_LEAST:
            limit = self._gap + max(SILENCE_DEVIATIONS * self._deviation, 3 * self._gap)
            self._silence = min(max(limit, SILENCE_LEAST_SECONDS), SILENCE_MOST_SECONDS)

    def doubt(self, until: float) -> None:
        """The other side says that it hears nothing."""
        self._suspect_until = max(self._suspect_until, until)

    def report(self, now: float, loss: float) -> None:
        """The share of frames lost on the way out, 0 to 1, as the other side counted them."""
        self._report, self._report_at = loss, now

    def kill(self) -> None:
        """The system says that nothing can be sent there."""
        self.is_lost = True
        self._outstanding.clear()

    def check(self, now: float) -> None:
        """Count the probes whose time is up."""
        timeout = self.timeout()
        for nonce, sent in list(self._outstanding.items()):
            if now - sent < timeout - CLOCK_GRAIN_SECONDS:
                break
            del self._outstanding[nonce]
            if not self._missed:
                self._missed_since = sent
            self._missed += 1
            self._lose(now, 1 - self.loss(now))
        unheard = self.heard_at is None or self.heard_at < self._missed_since
        if self._missed >= (MISSED_SILENT if unheard else MISSED_ONE_WAY):
            self.is_lost = True

    # What follows

    def timeout(self) -> float:
        """How long an answer may take, in seconds."""
        if self.rtt is None:
            return RTT_UNKNOWN_SECONDS
        return min(self.rtt + max(4 * self._rttvar, RTT_MARGIN_LEAST_SECONDS) + self.slack, RTT_TIMEOUT_MOST_SECONDS)

    def patience(self) -> float | None:
        """After how many seconds a small message is said again: sooner than a path is doubted.  None: unknown."""
        return None if self.rtt is None else self.rtt + max(4 * self._rttvar, RTT_MARGIN_LEAST_SECONDS)

    def trip(self) -> float | None:
        """The lesser of the two newest round trips: a queue shows in both, a stall in one.  None: unknown."""
        return min(self._trips, default=None)

    def silence(self) -> float | None:
        """After how many seconds without a frame something is wrong; None: no stream is expected."""
        return self._silence

    def has_stream(self, now: float) -> bool:
        """Whether frames come steadily by this path."""
        return self._stream >= STREAM_FRAMES_LEAST and not self._is_quiet(now)

    def is_deaf(self, now: float) -> bool:
        """Whether a stream was heard here, and has stopped a moment ago."""
        return self._is_quiet(now) and self.frame_at is not None and now - self.frame_at < DEAF_SECONDS

    def state(self, now: float) -> State:
        """How good it is now."""
        if self.is_lost:
            return State.SILENT
        if not self.verified:
            return State.NEW
        if self._missed or now < self._suspect_until or self._is_quiet(now):
            return State.SUSPECT
        return State.LIVE

    def measured(self, now: float) -> Measured:
        """The snapshot that the choice is made from."""
        return Measured(self.path, self.state(now), self.rtt, self.loss(now), self.frame_loss(now))

    def frame_loss(self, now: float) -> float:
        """The worse of what probes and what the other side's reports say, 0 to 1."""
        loss = self.loss(now)
        return max(loss, self._report) if now - self._report_at < REPORT_LIFE_SECONDS else loss

    def loss(self, now: float) -> float:
        """Share of probes without an answer, smoothed, 0 to 1."""
        return self._loss * 0.5 ** ((now - self._loss_at) / LOSS_HALF_LIFE_SECONDS) if self._loss else 0.0

    def next_check(self, now: float) -> float | None:
        """When `check` or the silence has something new to say."""
        due = None
        if self._outstanding:
            due = next(iter(self._outstanding.values())) + self.timeout()
        silence = self._silence
        if silence is not None and self.frame_at is not None and not self._is_quiet(now):
            end = self.frame_at + silence
            due = end if due is None else min(due, end)
        return due

    def _lose(self, now: float, change: float) -> None:
        self._loss = self.loss(now) + LOSS_WEIGHT * change
        self._loss_at = now

    def _is_quiet(self, now: float) -> bool:
        silence = self._silence
        return (
            silence is not None and self.frame_at is not None and now - self.frame_at >= silence - CLOCK_GRAIN_SECONDS
        )
