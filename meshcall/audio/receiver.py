"""The receiving half of voice: packets in, 10 ms of sound out whenever the loudspeaker asks; docs/voice.md.

Sans-IO.  `push` and `path_changed` may be called from another thread than `pull`: they only append to a bounded
queue, which `pull` empties.  `report`, `heard` and `stats` hand out what `pull` last made.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from meshcall.audio.codec import PULL_SAMPLES, RATE, SLOT_SAMPLES, Decoder, Sound
from meshcall.audio.jitter import (
    TICK_SECONDS,
    TICKS_PER_SLOT,
    DelayHistogram,
    Frame,
    FrameBuffer,
    SlotLine,
    tick_delay,
)
from meshcall.audio.playout import HURRY_SAMPLES, Delay, Do, Has, Line, decide
from meshcall.audio.reception import Reception
from meshcall.audio.repair import RepairDecoder
from meshcall.errors import BadPacket
from meshcall.wire.coded import Coded
from meshcall.wire.voice import PACKET_BYTES_MAX, TAGS, Report, decode_voice, told_by

INBOX_MAX: Final = 128
"""Packets between two pulls; the oldest are dropped beyond it."""
PACKETS_PER_PULL: Final = 6
"""New packets looked into per pull, so that no pull takes long; the rest wait for the next."""
INBOX_PER_PULL: Final = 32
"""Packets taken out of the queue per pull, copies and refused ones included."""
STEPS_PER_PULL: Final = 12
"""Decisions per pull; more never make sense, and then there is silence."""
MARGIN_SECONDS: Final = 0.0025
"""A packet that comes less than this before a pull counts as if it had missed it: the next one may."""
SURPLUS_LEAST: Final = RATE // 1000
"""Less surplus delay than 1 ms is none."""
FAR_SAMPLES: Final = RATE // 2
"""A surplus of 500 ms is not scaled away but dropped."""
HOPE_SLOTS: Final = 4
"""So many slots missing in a row are worth a hold, if they may yet be repaired: it is heard as much as two of them,
..."""
HOPE_SAMPLES: Final = RATE // 10
"""... for so long at most, ..."""
HOPE_SURPLUS: Final = RATE // 5
"""... and while the delay is not yet so much above its target."""
LITTLE_BITS_PER_SECOND: Final = 40_000
"""Of payload.  45,000 on the wire in frames of 40 ms leave 34,000; 58,000, in a storm with frames as long, 47,000."""
TARGET_TICKS: Final = 5
"""The target is asked for every 50 ms."""
CALM_TARGETS: Final = 20
"""The delay is brought down to the highest target of the last second."""
REPORT_TICKS: Final = 10
_COPIES: Final = 64
"""Slots of so many packets are remembered to tell copies before anything is computed."""


@dataclass(frozen=True, slots=True)
class ReceiverStats:
    """Over the whole call."""

    packets: int
    bytes: int
    refused: dict[str, int]
    """Packets and frames that were dropped, by the reason."""
    slots: int
    """That should have come by now."""
    loss: float
    """Share of their packets that did not come, before repair."""
    missing: float
    """Share of the slots that were played without their frame, after repair."""
    late: int
    """Frames known only after their time."""
    repaired: int
    """Frames played that were lost and repaired by symbols; `inband`: by the copy in the frame after."""
    inband: int
    concealed: float
    """Share of the sound that was made up."""
    accelerated: float
    """Share of the sound left out, or said twice, by time scaling."""
    expanded: float
    jitter_seconds: float
    """What the target is above the least delay: the network's part in waiting."""
    playout_seconds: float
    """Mean time from a frame's being known to its being played."""
    damaged: int
    restarts: int
    frame_bits_per_second: float
    """Of the codec alone, in the newest packet."""


class Receiver:
    """One direction of one call."""

    def __init__(self, now: float, decoder: Decoder, *, call: int) -> None:
        self._call = call % TAGS
        self._repair = RepairDecoder()
        self._inbox: deque[tuple[float, bytes]] = deque(maxlen=INBOX_MAX)
        self.is_deaf = False
        """It rings: packets are counted for the report; nothing is decoded, kept or played.  `open` ends it."""
        self._opens = False
        self._opened_at = now
        self._changed = False
        self._began_anew = False
        self._now = now
        self._tick = 0
        self._line = Line(decoder)
        self._slot_line = SlotLine()
        self._buffer = FrameBuffer()
        self._reception: Reception | None = None
        self._histogram: DelayHistogram | None = None
        self._next: int | None = None
        """The slot to be played next; None before the first."""
        self._newest = 0
        self._bits = self._frame_bits = 0.0
        self._slots = 1
        self._inband = False
        self._held = 0
        """Samples made up while staying at `_next`."""
        self._previous = Do.WAIT
        self._targets: deque[int] = deque(maxlen=CALM_TARGETS)
        self._copies: deque[int] = deque(maxlen=_COPIES)
        self._report = Report()
        self._told = Report()
        """What the other side told of our packets, field by field."""
        self._heard: Report | None = None
        self.heard_late: float | None = None
        """Seconds by which the packet that told the queue came later than the fastest one, for it queued itself; None:
        what `heard` gave out last says nothing new of the queue."""
        self._queue_late: float | None = None
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._waited = 0

    # -- what the network side calls

    def push(self, now: float, payload: bytes) -> None:
        """A packet came.  Never raises; costs next to nothing."""
        if len(payload) > PACKET_BYTES_MAX:
            self._refused["size"] += 1
            return
        if len(self._inbox) == INBOX_MAX:
            self._refused["flood"] += 1
        self._inbox.append((now, payload))

    def open(self, now: float) -> None:
        """The call is answered: from now on packets are heard; what came a moment ago may be pushed again."""
        self._opened_at = now
        self._opens = True

    @property
    def is_little(self) -> bool:
        """Whether the other side sends little, as its line is narrow: long frames, and not those of a full rate."""
        return self._slots > 1 and self._bits < LITTLE_BITS_PER_SECOND

    def path_changed(self, now: float) -> None:
        """Packets take another path from now on: what was learnt of delays is void."""
        self._changed = True

    def begin_anew(self) -> None:
        """Another loudspeaker pulls from now on: what was learnt of delays is void, as the one before had its own
        clock and pauses, and what waits is dropped down to the target at once.
        """
        self._began_anew = True

    def report(self) -> Report:
        """What to tell the other side; about 100 ms old at most while `pull` is called."""
        return self._report

    def heard(self) -> Report | None:
        """The newest report of the other side about our packets; None where none came since the last call."""
        heard, self._heard = self._heard, None
        self.heard_late, self._queue_late = self._queue_late, None
        return heard

    def stats(self) -> ReceiverStats:
        count, line, reception, histogram = self._counts, self._line, self._reception, self._histogram
        played = max(1, line.played)
        return ReceiverStats(
            packets=count["packets"],
            bytes=count["bytes"],
            refused=dict(self._refused),
            slots=count["slots"] + (reception.slots if reception else 0),
            loss=(count["lost"] + (reception.lost if reception else 0))
            / max(1, count["slots"] + (reception.slots if reception else 0)),
            missing=count["missing"] / max(1, count["missing"] + count["played"]),
            late=count["late"],
            repaired=count["repaired"],
            inband=count["inband"],
            concealed=line.concealed / played,
            accelerated=line.accelerated / played,
            expanded=line.expanded / played,
            jitter_seconds=(histogram.target - histogram.least) * TICK_SECONDS if histogram else 0.0,
            playout_seconds=self._waited * TICK_SECONDS / max(1, count["frames"]),
            damaged=line.damaged,
            restarts=count["restarts"],
            frame_bits_per_second=self._frame_bits,
        )

    # -- what the loudspeaker calls

    def pull(self, now: float) -> Sound:
        """The next 10 ms: always 480 samples."""
        self._now = now
        self._tick += 1
        self._drain()
        if self._histogram is not None and (self._tick % TARGET_TICKS == 0 or not self._targets):
            self._targets.append(self._histogram.target)
        for _ in range(STEPS_PER_PULL):
            if self._line.ready >= PULL_SAMPLES:
                break
            self._step()
        while self._line.ready < PULL_SAMPLES:
            self._line.make_up(PULL_SAMPLES)
        if self._reception is not None and self._tick % REPORT_TICKS == 0:
            self._report = self._reception.report(now)
        return self._line.take()

    # -- packets

    def _drain(self) -> None:
        if self._opens:
            self._opens = self.is_deaf = False
            self._copies.clear()
            self._counts.clear()
            self._refused.clear()
            if self._reception is not None:
                self._reception.slots = self._reception.lost = 0
        if self._changed:
            self._changed = False
            self._histogram = None
            self._targets.clear()
            if self._reception is not None:
                self._reception.path_changed()
        if self._began_anew:
            self._began_anew = False
            self._histogram = self._next = None
            self._targets.clear()
            self._refused["another loudspeaker"] += len(self._buffer)
            self._buffer.clear()
            self._held = 0
            self._line.pass_over()
        fresh = 0
        for _ in range(INBOX_PER_PULL):
            if not self._inbox or fresh >= PACKETS_PER_PULL:
                break
            fresh += self._receive(*self._inbox.popleft())

    def _receive(self, at: float, payload: bytes) -> bool:
        """Whether the packet was worth more than a glance."""
        try:
            packet = decode_voice(payload, self._told)
        except BadPacket as bad:
            self._refused[bad.reason] += 1
            return False
        if packet.call != self._call:
            self._refused["other call"] += 1
            return False
        placed = self._slot_line.place(self._tick, packet.slot)
        if placed is None:
            self._refused["slot"] += 1
            return False
        slot, restarted = placed
        if slot in self._copies:
            self._refused["copy"] += 1
            return False
        if restarted:
            self._restart()
        self._copies.append(slot)
        self._counts["packets"] += 1
        self._counts["bytes"] += len(payload)
        if self._reception is None:
            self._reception = Reception(at, slot)
        if slot >= self._newest or self._counts["packets"] == 1 or restarted:
            self._newest, self._slots, self._inband = slot, packet.slots, packet.inband
            self._told = self._heard = packet.report
            if told_by(packet.slot) == "queue":
                self._queue_late = self._reception.later(at, slot, packet.slots)
            self._bits = 8 * len(payload) * RATE / (packet.slots * SLOT_SAMPLES)
            self._frame_bits = 8 * len(packet.frame) * RATE / (packet.slots * SLOT_SAMPLES)
        self._reception.packet(at, slot, packet.slots)
        if self.is_deaf:
            return True
        margin = int(self._now - at < MARGIN_SECONDS)
        if at < self._opened_at:  # it did not wait for the network, but for the answer
            margin -= int((self._now - at) / TICK_SECONDS)
        for known, slots, data, repaired in self._repair.add(packet, slot):
            inband = self._inband if repaired else packet.inband
            whole = Coded(packet.config, data).packet
            self._known(Frame(known, slots, whole, self._tick, inband, repaired), margin)
        if self._histogram is not None and slot == self._newest:
            reach = max((cover.first for cover in packet.covers), default=0)
            self._histogram.repairs_within(reach * packet.slots * TICKS_PER_SLOT)
        if packet.inband and self._histogram is not None:
            # The frame before could be played from now on, if poorly; counted only where it is not known yet.
            before = slot - packet.slots
            delay = tick_delay(self._tick, before, packet.slots) + margin
            self._histogram.add(before, packet.slots, delay, repaired=True)
        return True

    def _known(self, frame: Frame, margin: int) -> None:
        delay = tick_delay(self._tick, frame.slot, frame.slots)
        if self._histogram is None:
            self._histogram = DelayHistogram(delay + min(0, margin))
        self._histogram.add(frame.slot, frame.slots, delay + margin, repaired=frame.repaired)
        if self._next is not None and frame.slot < self._next:
            self._counts["late"] += 1
            assert self._reception is not None
            self._reception.late(frame.slot, frame.slots)
        elif not self._buffer.put(frame):
            self._refused["frame twice"] += 1

    def _restart(self) -> None:
        """The slots jumped: begin as if nothing had come yet, but go on sounding."""
        self._counts["restarts"] += 1
        if self._reception is not None:
            self._counts["slots"] += self._reception.slots
            self._counts["lost"] += self._reception.lost
        self._buffer.clear()
        self._repair.reset()
        self._copies.clear()
        self._targets.clear()
        self._reception = self._histogram = self._next = None
        self._held = 0
        self._line.pass_over()

    # -- decisions

    def _surplus(self, slot: int, target: int) -> int:
        """By how many samples a frame of `slot`, played right after what is ready, would be later than the target."""
        delay = self._tick * PULL_SAMPLES + self._line.ready - slot * SLOT_SAMPLES
        return delay - (target + TICKS_PER_SLOT * (self._slots - 1)) * PULL_SAMPLES

    def _step(self) -> None:
        """One decision, carried out."""
        if self._next is None and not self._begin():
            self._wait()
            return
        assert self._next is not None
        self._buffer.drop_before(self._next)
        frame = self._buffer.oldest()
        surplus = self._delay_samples()
        has = self._has(frame, surplus)
        do = decide(has, self._judge(has, frame, surplus), self._previous, noise=self._line.noise)
        self._carry_out(do, frame, surplus)
        self._previous = do

    def _begin(self) -> bool:
        """Whether the first frame has waited long enough."""
        frame = self._buffer.oldest()
        if frame is None or self._histogram is None or self._surplus(frame.slot, self._targets[-1]) < 0:
            return False
        self._next = frame.slot
        self._previous = Do.WAIT
        return True

    def _wait(self) -> None:
        if self._counts["played"]:
            self._line.make_up(PULL_SAMPLES)
        else:
            self._line.silence()
        self._previous = Do.WAIT

    def _has(self, frame: Frame | None, surplus: int) -> Has:
        assert self._next is not None
        if frame is None:
            return Has.NOTHING
        gap = (frame.slot - self._next) * SLOT_SAMPLES
        if not gap:
            return Has.NEXT
        if self._held >= gap:
            return Has.COVERED
        if frame.inband and gap == frame.slots * SLOT_SAMPLES and not self._held:
            return Has.COPY
        is_worth = gap >= HOPE_SLOTS * SLOT_SAMPLES and self._held < HOPE_SAMPLES and surplus < HOPE_SURPLUS
        return Has.HOPED if is_worth and self._repair.hopes(self._next) else Has.LATER

    def _delay_samples(self) -> int:
        """Surplus of delay above the target, negative below; 0 between the present target and that of a calm second."""
        assert self._next is not None
        if self._histogram is None:
            return 0
        short = self._surplus(self._next, self._targets[-1])
        return short if short < 0 else max(0, self._surplus(self._next, max(self._targets)))

    def _gain(self, slot: int, surplus: int) -> float:
        """How much better than now the target would be, in milliseconds of delay."""
        if self._histogram is None:
            return 0.0
        if surplus > 0:
            return surplus * 1000 / RATE
        target = self._targets[-1]
        return self._histogram.dearer(target + self._surplus(slot, target) // PULL_SAMPLES)

    def _judge(self, has: Has, frame: Frame | None, surplus: int) -> Delay:
        assert self._next is not None
        ahead = (frame.slot - self._next) * SLOT_SAMPLES - self._held if frame is not None else 0
        # Far behind, whatever there is: at the bound of the buffer the frame that is next is always just dropped.
        if ahead > FAR_SAMPLES or (has is not Has.NOTHING and surplus > FAR_SAMPLES):
            return Delay.FAR
        if surplus < 0:
            return Delay.SHORT
        return Delay.LONG if surplus >= SURPLUS_LEAST else Delay.RIGHT

    def _carry_out(self, do: Do, frame: Frame | None, surplus: int) -> None:
        assert self._next is not None
        if do is Do.HOLD:
            self._line.make_up(PULL_SAMPLES, staying=True)
            self._held += PULL_SAMPLES
            return
        assert frame is not None
        if do is Do.FLUSH:
            self._flush(frame)
        elif do is Do.SKIP:
            self._miss(frame.slot - self._next)
            self._next = frame.slot
            self._held = 0
        elif do is Do.CONCEAL:
            made_up = SLOT_SAMPLES - self._held % SLOT_SAMPLES
            self._line.make_up(made_up)
            passed = self._held // SLOT_SAMPLES + 1
            if frame.slot == self._next + passed:
                self._line.lead_in(made_up, frame)
            self._miss(passed)
            self._next += passed
            self._held = 0
        elif do is Do.RECOVER:
            found = self._line.recover(frame)
            self._counts["inband"] += found
            self._counts["played" if found else "missing"] += frame.slots
            self._next = frame.slot
        else:
            self._play(self._buffer.take(frame.slot), do, surplus)

    def _play(self, frame: Frame, do: Do, surplus: int) -> None:
        gain = self._gain(frame.slot, surplus) if do in HURRY_SAMPLES else 0.0  # else nothing is scaled
        good = self._line.frame(frame, do, surplus, gain)
        self._held = 0
        self._next = frame.slot + frame.slots
        self._counts["frames"] += 1
        self._counts["played" if good else "missing"] += frame.slots
        self._counts["repaired"] += frame.repaired and good
        self._waited += self._tick - frame.tick

    def _flush(self, frame: Frame) -> None:
        """Go on with the first frame that is not later than the target."""
        assert self._next is not None and self._histogram is not None
        target = self._targets[-1]
        dropped = 0
        while len(self._buffer) > 1 and self._surplus(frame.slot, target) >= SLOT_SAMPLES:
            self._buffer.take(frame.slot)
            dropped += 1
            oldest = self._buffer.oldest()
            assert oldest is not None
            frame = oldest
        self._refused["flushed"] += dropped
        self._miss(frame.slot - self._next)
        self._next = frame.slot
        self._held = 0

    def _miss(self, slots: int) -> None:
        self._line.pass_over()
        self._counts["missing"] += slots
