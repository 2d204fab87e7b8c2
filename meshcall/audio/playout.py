"""What to play next: the decision as a table, and the line of sound that carries it out.

A decision is needed whenever fewer than 10 ms of sound are ready.  Three things are looked at: what the buffer has for
the place in the stream that is next, how the delay stands to its target, and what was done last.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import cache
from math import inf
from typing import Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, SLOT_SAMPLES, Decoder, Sound
from meshcall.audio.jitter import Frame
from meshcall.audio.noise import Background
from meshcall.audio.stretch import (
    CONTEXT,
    LAG_LEAST,
    LAG_MOST,
    LIKENESS,
    LIKENESS_HURRY,
    LIKENESS_LEAD,
    PERIOD_CONTEXT,
    cross_fade,
    last_period,
    lead_in,
    lengthen,
    shorten,
    to_sound,
)
from meshcall.errors import BadPacket


class Has(Enum):
    """What there is for the place in the stream that is to be played next."""

    NEXT = auto()
    """Its frame."""
    COPY = auto()
    """Not its frame, but the one right after, which carries a copy of it (Opus's in-band repair)."""
    LATER = auto()
    """Frames after it only."""
    HOPED = auto()
    """Frames after it only; but so many are missing, and may yet be repaired, that it is worth to wait."""
    COVERED = auto()
    """Frames after it only, and what is between has been bridged already while there was nothing."""
    NOTHING = auto()


class Delay(Enum):
    """How the delay of playing stands to its target."""

    SHORT = auto()
    """Frames will come too late: there should be more."""
    RIGHT = auto()
    LONG = auto()
    """More than it is worth."""
    FAR = auto()
    """So much more that scaling would take seconds; or the next frame lies that far ahead."""


class Do(Enum):
    """Operations; each yields sound, or moves the place in the stream."""

    WAIT = auto()
    """Nothing has been played yet: silence."""
    NORMAL = auto()
    ACCELERATE = auto()
    EXPAND = auto()
    MERGE = auto()
    """A frame after sound that was not the decoder's, or made up while the frame was late: cross-fade into it."""
    RECOVER = auto()
    """The copy in the frame that follows."""
    CONCEAL = auto()
    """Make up the frame, and go on to the next place: it is lost."""
    HOLD = auto()
    """Make up sound, and stay: the frame may yet come."""
    SKIP = auto()
    """Go on without a sound: what is missing was bridged by HOLD."""
    FLUSH = auto()
    """Drop frames, to the target, at once."""


_TABLE: Final[dict[Has, dict[Delay, Do]]] = {
    Has.NEXT: {Delay.SHORT: Do.EXPAND, Delay.RIGHT: Do.NORMAL, Delay.LONG: Do.ACCELERATE, Delay.FAR: Do.FLUSH},
    Has.COPY: {Delay.SHORT: Do.HOLD, Delay.RIGHT: Do.RECOVER, Delay.LONG: Do.RECOVER, Delay.FAR: Do.FLUSH},
    Has.LATER: {Delay.SHORT: Do.HOLD, Delay.RIGHT: Do.CONCEAL, Delay.LONG: Do.CONCEAL, Delay.FAR: Do.FLUSH},
    Has.HOPED: {Delay.SHORT: Do.HOLD, Delay.RIGHT: Do.HOLD, Delay.LONG: Do.HOLD, Delay.FAR: Do.FLUSH},
    Has.COVERED: {Delay.SHORT: Do.SKIP, Delay.RIGHT: Do.SKIP, Delay.LONG: Do.SKIP, Delay.FAR: Do.FLUSH},
    Has.NOTHING: {Delay.SHORT: Do.HOLD, Delay.RIGHT: Do.HOLD, Delay.LONG: Do.HOLD, Delay.FAR: Do.HOLD},
}
_BREAKS: Final = (Do.WAIT, Do.FLUSH, Do.HOLD)
"""After these the sound of the decoder does not go on from what was played: after HOLD because it is taken back to
before it, for nothing was lost."""


def decide(has: Has, delay: Delay, previous: Do, *, noise: bool) -> Do:
    """The operation.  `noise`: comfort noise was the last thing heard."""
    do = _TABLE[has][delay]
    if has is Has.NEXT and do is not Do.FLUSH and (noise or previous in _BREAKS):
        return Do.MERGE
    return do


NOISE_BEGINS: Final = RATE // 10
"""Made-up sound turns into comfort noise from 100 ms on ..."""
NOISE_ALONE: Final = RATE // 5
"""... to 200 ms."""
PERIOD_BEGINS: Final = RATE // 50
"""What is made up while a frame is late is the decoder's concealment for 20 ms, then the last pitch period ..."""
PERIOD_GAIN: Final = 0.95
"""... again and again, each 10 ms by so much softer: the decoder's falls by 20 dB in 40 ms."""
MERGE_SAMPLES: Final = RATE * 5 // 1000
REST: Final = RATE // 10
"""Nobody has spoken for 100 ms: not merely a pause between two words."""
REST_GAIN: Final = 5.0
"""Time is scaled while nobody speaks where that is worth so many milliseconds of delay (DelayHistogram.dearer) ..."""
SPOKEN_GAIN: Final = 40.0
"""... and while somebody speaks so many to expand: a change of delay inside a sentence is a little damage, too ..."""
PATIENCE: Final = RATE * 10
"""... but less and less until 10 s after the last time; from then on this much is enough:"""
PATIENT_GAIN: Final = 8.0
"""Nothing is accelerated while somebody speaks who has rested within these 10 s, except in a hurry: the next rest is
near, and costs nothing."""
SCALE_PAUSE: Final = RATE // 10
"""From one time scaling of speech to the next, unless the delay is off its target by more than ..."""
HURRY_SAMPLES: Final = {Do.EXPAND: RATE * 60 // 1000, Do.ACCELERATE: RATE * 300 // 1000}
"""... this: then every frame is scaled, and at places that are less alike."""


UNJUDGED_FRAMES: Final = 10
"""Frames that wait at most to be judged whether somebody speaks in them."""


@cache
def _warm_up() -> None:
    """What numpy does at its first FFT takes 20 ms: now, not when the loudspeaker waits."""
    sound = np.zeros(SLOT_SAMPLES + CONTEXT, np.int16)
    background = Background()
    background.listen(sound)
    background.make()
    for scale in (shorten, lengthen):
        scale(sound[:CONTEXT], sound[CONTEXT:], LAG_MOST, quiet=False)


class Line:
    """The line of sound: what is decoded but not yet handed out, and what was heard last."""

    def __init__(self, decoder: Decoder) -> None:
        _warm_up()
        self._decoder = decoder
        self._ready: Sound = np.zeros(0, np.int16)
        self._heard: Sound = np.zeros(PERIOD_CONTEXT, np.int16)
        self._background = Background()
        self._made_up = 0
        self._staying = False
        self._period: Sound | None = None
        """What is said again while nothing comes; None where there is no pitch."""
        self._since_scaled = 0
        self._unjudged: list[Sound] = []
        self._quiet = True
        self._quiet_for = 0
        self._since_rest = 0
        self.damaged = 0
        """Frames that the decoder refused."""
        self.accelerated = self.expanded = self.concealed = self.played = 0
        """Samples; `concealed` and `played` of those handed out."""

    @property
    def ready(self) -> int:
        """Samples decoded and not handed out."""
        return len(self._ready)

    @property
    def noise(self) -> bool:
        """Whether comfort noise or a repeated period, not the decoder, is what was heard last."""
        return self._made_up > (NOISE_BEGINS if self._period is None else PERIOD_BEGINS)

    def take(self) -> Sound:
        """The next 10 ms; there must be so much."""
        out, self._ready = self._ready[:PULL_SAMPLES], self._ready[PULL_SAMPLES:]
        self.played += PULL_SAMPLES
        return out

    def silence(self) -> None:
        self._add(np.zeros(PULL_SAMPLES, np.int16))

    def make_up(self, samples: int, *, staying: bool = False) -> None:
        """Conceal; more than 100 ms in a row fade to the background.  `samples`: a multiple of 10 ms.

        `staying`: nothing is lost yet.  If the next frame comes after all the decoder takes it as if it had never been
        late; else `pass_over` says that it is lost.
        """
        if staying and not self._staying:
            self._decoder.keep()
            if not self._made_up:
                self._period = last_period(self._heard, LIKENESS_LEAD)
        self._staying = staying
        for _ in range(samples // PULL_SAMPLES):
            sound = self._made(self._made_up)
            self._made_up += PULL_SAMPLES
            self.concealed += PULL_SAMPLES
            self._add(sound)

    def lead_in(self, samples: int, following: Frame) -> None:
        """Let the last so many samples, which are made up, turn into the frame that follows them."""
        self._decoder.keep()
        try:
            sound = self._decoder.decode(following.data, following.slots * SLOT_SAMPLES)
        except BadPacket:
            return
        finally:
            self._decoder.go_back()
        led = lead_in(self._ready[-samples:], sound)
        self._ready = np.concatenate([self._ready[:-samples], led])
        self._heard = np.concatenate([self._heard, led])[-PERIOD_CONTEXT:]

    def pass_over(self) -> None:
        """What was made up last stands for frames that are lost."""
        self._staying = False

    def frame(self, frame: Frame, do: Do, surplus: int, gain: float) -> bool:
        """Play a frame; False: the decoder refused it, and it was concealed.

        `surplus`: samples of delay above the target, below it where negative.  `gain`: what it would be worth to be
        at the target, in milliseconds of delay.
        """
        samples = frame.slots * SLOT_SAMPLES
        ahead = self._made(self._made_up)[:MERGE_SAMPLES] if do is Do.MERGE else None
        if self._staying:
            self._decoder.go_back()
            self._staying = False
        try:
            sound = self._decoder.decode(frame.data, samples)
        except BadPacket:
            self.damaged += 1
            self.make_up(samples)
            return False
        if ahead is not None:
            sound = np.concatenate([cross_fade(ahead, sound), sound[MERGE_SAMPLES:]])
        self._made_up = 0
        self._period = None
        self._unjudged.append(sound)
        if len(self._unjudged) >= UNJUDGED_FRAMES:
            self._judge()
        self._add(self._scaled(sound, do, surplus, gain))
        return True

    def _judge(self) -> None:
        """In which of the last frames somebody spoke; looked at when it is asked for, as that is cheaper together."""
        for sound in self._unjudged:
            self._quiet = self._background.listen(sound)
            self._quiet_for = self._quiet_for + len(sound) if self._quiet else 0
            self._since_rest = 0 if self._quiet_for >= REST else self._since_rest + len(sound)
        self._unjudged.clear()

    def recover(self, following: Frame) -> bool:
        """Play the in-band copy that `following` carries of the frame before it; False: it had none."""
        samples = following.slots * SLOT_SAMPLES
        self._staying = False
        try:
            sound = self._decoder.decode_inband(following.data, samples)
        except BadPacket:
            self.damaged += 1
            sound = None
        if sound is None:
            self.make_up(samples)
            return False
        self._made_up = 0
        self._period = None
        self._add(sound)
        return True

    def _made(self, before: int) -> Sound:
        """10 ms out of nothing, after so many samples of it."""
        if before >= NOISE_ALONE:
            self._judge()
            return self._background.make()
        sound = self._decoder.conceal(PULL_SAMPLES)  # whatever is heard: if the frame is lost it goes on from here
        if self._period is not None and before >= PERIOD_BEGINS:
            at = before + np.arange(PULL_SAMPLES)
            again = to_sound(self._period[at % len(self._period)] * PERIOD_GAIN ** (at / PULL_SAMPLES))
            sound = cross_fade(sound, again) if before == PERIOD_BEGINS else again
        if before < NOISE_BEGINS:
            return sound
        self._judge()
        share = (before + np.arange(PULL_SAMPLES) - NOISE_BEGINS) / (NOISE_ALONE - NOISE_BEGINS)
        mixed = np.sqrt(1 - share) * sound + np.sqrt(share) * self._background.make()
        return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)

    def _scaled(self, sound: Sound, do: Do, surplus: int, gain: float) -> Sound:
        self._since_scaled += len(sound)
        if do not in HURRY_SAMPLES:
            return sound
        self._judge()
        hurry = abs(surplus) >= HURRY_SAMPLES[do]
        if gain < self._gain_wanted(do, hurry=hurry):
            return sound
        quiet = self._quiet
        if not quiet and not hurry and self._since_scaled < SCALE_PAUSE:
            return sound
        before = len(sound)
        likeness = LIKENESS_HURRY if hurry else LIKENESS
        if do is Do.ACCELERATE:
            sound = shorten(self._heard, sound, surplus, quiet=quiet, likeness=likeness)
            self.accelerated += before - len(sound)
        else:
            most = max(LAG_LEAST, -surplus) if quiet else LAG_MOST
            sound = lengthen(self._heard, sound, most, quiet=quiet, likeness=likeness)
            self.expanded += len(sound) - before
        if len(sound) != before:
            self._since_scaled = 0
        return sound

    def _gain_wanted(self, do: Do, *, hurry: bool) -> float:
        """What time scaling must be worth now, in milliseconds of delay."""
        if self._quiet_for >= REST:
            return REST_GAIN
        if do is Do.ACCELERATE:
            return PATIENT_GAIN if hurry or self._since_rest >= PATIENCE else inf
        return max(PATIENT_GAIN, SPOKEN_GAIN * (1 - self._since_scaled / PATIENCE))

    def _add(self, sound: Sound) -> None:
        self._ready = np.concatenate([self._ready, sound])
        self._heard = np.concatenate([self._heard, sound])[-PERIOD_CONTEXT:]
