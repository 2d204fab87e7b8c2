"""One end of a call under study: the real sender and the real receiver, every 10 ms of virtual time.

Only the codec is of paper.  Its frames have true lengths and say which they are, so the world knows of every frame
when it was spoken and when it is heard; what is decoded is silence.  Of what the world knows, and no node could,
quality is made: real delay, real loss after repair.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from struct import Struct
from typing import TYPE_CHECKING, Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, SLOT_SAMPLES, Sound
from meshcall.audio.reckoning import Delay, delay_of, judge, overhead_bytes
from meshcall.audio.transceiver import Transceiver
from meshcall.core import ENDPOINT_V4_BYTES
from meshcall.errors import BadPacket
from meshcall.path.paths import endpoint_of, is_relayed
from meshcall.wire.coded import WHOLE, Coded
from meshcall.wire.voice import SLOT_SECONDS

if TYPE_CHECKING:
    from meshcall.audio.receiver import ReceiverStats
    from meshcall.calls.core import CallStatus
    from meshcall.path.paths import Path
    from meshcall.sim.device import Device
    from meshcall.sim.scenario import Voice

TICK_SECONDS: Final = 0.01
TICKS_PER_SLOT: Final = 2
SENT_MAX: Final = 1024
"""Packets whose moment of sending is remembered until they come."""
_SILENCE: Final[Sound] = np.zeros(PULL_SAMPLES, np.int16)
_head = Struct(">BI")
INBAND: Final = 1
_SLOT: Final = slice(1, 3)
"""Of a voice packet (wire/voice): its call and slot."""
MOS_OF_NOTHING: Final = 1.0
"""Of a time in which no frame was heard; the E-model's loss was never meant for that."""


class PaperEncoder:
    """An `audio.codec.Encoder` whose frames say their own number, again and again."""

    def __init__(self) -> None:
        self.slots = 0
        """Spoken so far."""
        self._inband = 0

    def encode(self, sound: Sound, size: int) -> Coded:
        """A frame of exactly `size` bytes."""
        slots = len(sound) // SLOT_SAMPLES
        frame = _filled(_head.pack(self._inband, self.slots), size)
        self.slots += slots
        return Coded(WHOLE[slots - 1], frame)

    def expect_loss(self, share: float, *, inband: bool) -> None:
        """Of paper, only the in-band copy is kept."""
        self._inband = INBAND if inband else 0


@dataclass(slots=True)
class Heard:
    """What a decoder did in some time."""

    spoken: list[tuple[int, int]] = field(default_factory=list)
    """Number (its first slot) and slots of each frame that was played, copies included."""
    played: int = 0
    """Slots of those."""
    frame_bytes: int = 0
    frame_slots: int = 0
    """Of the frames that were decoded."""
    gaps: int = 0
    missing: int = 0
    """Slots that were passed over, in so many gaps."""


class PaperDecoder:
    """An `audio.codec.Decoder` that yields silence and takes notes; a frame repaired wrongly is refused."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._next: int | None = None
        self._keeping = False
        self._kept: tuple[int | None, Heard] | None = None

    def decode(self, frame: bytes, samples: int) -> Sound:
        """Raises BadPacket for what no PaperEncoder made."""
        _, number = _read(frame)
        if self._keeping:
            self._kept = (self._next, replace(self.heard, spoken=list(self.heard.spoken)))
            self._keeping = False
        slots = samples // SLOT_SAMPLES
        self.heard.frame_bytes += len(frame)
        self.heard.frame_slots += slots
        self._play(number, slots)
        return np.zeros(samples, np.int16)

    def decode_inband(self, following: bytes, samples: int) -> Sound | None:
        """Silence, if the frame has a copy of the one before."""
        flags, number = _read(following)
        if not flags & INBAND:
            return None
        self._play(number - samples // SLOT_SAMPLES, samples // SLOT_SAMPLES)
        return np.zeros(samples, np.int16)

    def conceal(self, samples: int) -> Sound:
        """Silence."""
        return np.zeros(samples, np.int16)

    def keep(self) -> None:
        """From the next frame on, notes may be taken back."""
        self._keeping, self._kept = True, None

    def go_back(self) -> None:
        """Take back the notes of the frames since then, if there were any."""
        if self._kept is not None:
            self._next, self.heard = self._kept
            self._kept = None

    def _play(self, number: int, slots: int) -> None:
        if self._next is not None and number > self._next:
            self.heard.missing += number - self._next
            self.heard.gaps += 1
        self._next = number + slots
        self.heard.played += slots
        self.heard.spoken.append((number, slots))


def _filled(head: bytes, size: int) -> bytes:
    return (head * (size // len(head) + 1))[:size]


def _read(frame: bytes) -> tuple[int, int]:
    if len(frame) < _head.size or frame != _filled(frame[: _head.size], len(frame)):
        raise BadPacket("not of paper")
    flags, number = _head.unpack_from(frame)
    return flags, number


@dataclass(frozen=True, slots=True)
class Window:
    """One direction of a call for some seconds, at the listener's end.  Seconds, shares."""

    at: float
    """Its end, since the call was answered."""
    mos: float
    delay: Delay | None
    """None: nothing was heard."""
    lost: float
    """Of the packets, before repair, as the receiver reports it (over two seconds)."""
    missing: float
    """Of the frames, after it."""
    made_up: float
    """Of the sound."""
    bits_per_second: float
    """That the speaker sent meanwhile: on the wire, headers included, both copies where two paths are used."""


class VoiceEnd:
    """Runs from ringing to the end; `open` when the call is answered here."""

    def __init__(self, now: float, device: Device, status: CallStatus, settings: Voice) -> None:
        kbit = settings.kbit_per_second
        if status.theirs is not None:
            kbit = min(kbit, status.theirs.kbit_per_second)
        self.windows: list[Window] = []
        self.ticks = 0
        self.sent_bytes = 0
        """On the wire."""
        self.opened: float | None = None
        self.first_voice: float | None = None
        """The first frame heard that was spoken after the other side had answered."""
        self._device = device
        self._call = status.call
        self._window_ticks = round(settings.window_seconds / TICK_SECONDS)
        self._began = now
        self._over = False
        self._path: Path | None = None
        self._overhead = overhead_bytes(relayed=False)
        self._other: VoiceEnd | None = None
        self._sent: dict[bytes, float] = {}
        self._decoder = PaperDecoder()
        self._transceiver = Transceiver(
            now, PaperEncoder(), self._new_decoder, call=status.tag, slot=status.ours.slot,
            limit_bits_per_second=kbit * 1000,
        )  # fmt: skip
        self._sender = self._transceiver.sender
        self._sender.mute = True
        self._transits: list[float] = []
        self._delays: list[tuple[float, float]] = []
        self._window_began = 0
        self._made_up = 0.0
        self._other_sent = 0
        device.schedule.at(now, self._tick)

    def _new_decoder(self) -> PaperDecoder:
        self._decoder = PaperDecoder()
        return self._decoder

    # What happens to it

    def open(self, now: float, link: int, path: Path, other: VoiceEnd) -> None:
        """The call is up at this end; `other` is the one it is with."""
        self.opened = now
        self._other = other
        self.path_changed(now, path)
        self._transceiver.open(now, link)
        self._sender.mute = False
        self._begin_window(self.stats)

    def path_changed(self, now: float, path: Path | None) -> None:
        """Packets go by another path, or by none."""
        if path == self._path:
            return
        self._path = path
        if path is not None:
            ipv6 = len(endpoint_of(path)) != ENDPOINT_V4_BYTES
            self._overhead = self._sender.overhead = overhead_bytes(relayed=is_relayed(path), ipv6=ipv6)
        self._sender.path_changed(now)

    def unheard(self, at: float, link: int, path: Path, payload: bytes) -> None:
        """A voice packet came while it rings."""
        self._transceiver.unheard(at, link, path, payload)

    def arrived(self, at: float, path: Path, payload: bytes) -> None:
        """A voice packet of this call came."""
        if self._other is not None:
            sent = self._other._sent.pop(payload[_SLOT], None)  # a copy that comes later counts no more
            if sent is not None:
                self._transits.append(at - sent)
        self._transceiver.arrived(at, path, payload)

    def close(self) -> None:
        """No more of it."""
        self._over = True

    @property
    def stats(self) -> ReceiverStats:
        """The receiver's, over the whole call."""
        return self._transceiver.receiver.stats()

    @property
    def shape_changes(self) -> int:
        return self._sender.stats.shape_changes

    # Every 10 ms

    def _tick(self, now: float, _first: None, _second: None, _third: None) -> None:
        if self._over or self._device.node is None:
            return
        self._transceiver.receiver.pull(now)
        self._note(now)
        self._speak(now)
        self.ticks += 1
        self._device.schedule.at(self._began + self.ticks * TICK_SECONDS, self._tick)
        if self.opened is not None and self.ticks - self._window_began >= self._window_ticks:
            self._judge(now)

    def _speak(self, now: float) -> None:
        transceiver, node = self._transceiver, self._device.node
        assert node is not None
        transceiver.round_trip = node.calls.round_trip(self._call)
        if transceiver.report(now) and transceiver.loss_there is not None:
            node.calls.report_loss(now, self._call, transceiver.loss_there)
            self._device.drain(now)
        payload = transceiver.sender.push(now, _SILENCE)
        if payload is not None:
            copies = node.calls.send_voice(
                now, self._call, payload, once=transceiver.once, is_narrow=transceiver.is_narrow
            )
            transceiver.sender.went(now, copies)
            self.sent_bytes += copies * (len(payload) + self._overhead)
            self._remember(now, payload[_SLOT])
            self._device.drain(now)

    def _remember(self, now: float, slot: bytes) -> None:
        self._sent.pop(slot, None)
        self._sent[slot] = now
        if len(self._sent) > SENT_MAX:
            del self._sent[next(iter(self._sent))]

    def spoken_at(self, number: int, slots: int) -> float:
        """When the frame of this number was complete at this end."""
        return self._began + (TICKS_PER_SLOT * (number + slots) - 1) * TICK_SECONDS

    # What it was like

    def _note(self, now: float) -> None:
        other = self._other
        heard = self._decoder.heard.spoken
        for number, slots in heard if other is not None else ():
            assert other is not None
            complete = other.spoken_at(number, slots)
            self._delays.append((now - complete, slots * SLOT_SECONDS))
            if self.first_voice is None and other.opened is not None and complete >= other.opened:
                self.first_voice = now
        heard.clear()

    def _begin_window(self, stats: ReceiverStats) -> None:
        self._window_began = self.ticks
        self._decoder.heard = Heard()
        self._transits, self._delays = [], []
        self._made_up = self._sound_made_up(stats)
        self._other_sent = 0 if self._other is None else self._other.sent_bytes

    def _sound_made_up(self, stats: ReceiverStats) -> float:
        return stats.concealed * self.ticks

    def _judge(self, now: float) -> None:
        assert self.opened is not None and self._other is not None
        stats, heard = self.stats, self._decoder.heard
        ticks = self.ticks - self._window_began
        made_up = (self._sound_made_up(stats) - self._made_up) / ticks
        missing = heard.missing / (heard.missing + heard.played) if heard.played else 1.0
        delay = self._delay()
        mos = MOS_OF_NOTHING
        if delay is not None:
            frames = max(1, len(self._delays))
            run = heard.missing / heard.gaps / max(1.0, heard.frame_slots / frames) if heard.gaps else 1.0
            rate = 8 * heard.frame_bytes / (heard.frame_slots * SLOT_SECONDS) if heard.frame_slots else 0.0
            mos = judge(delay, missing=missing, made_up=made_up, bit_rate=rate, burst=max(1.0, run)).mos
        self.windows.append(
            Window(
                now - self.opened, mos, delay, self._transceiver.receiver.report().loss, missing, made_up,
                8 * (self._other.sent_bytes - self._other_sent) / (ticks * TICK_SECONDS),
            )
        )  # fmt: skip
        self._begin_window(stats)

    def _delay(self) -> Delay | None:
        if not self._delays:
            return None
        count = len(self._delays)
        whole = sum(delay for delay, _ in self._delays) / count
        frame = sum(length for _, length in self._delays) / count
        network = min(whole, sum(self._transits) / len(self._transits)) if self._transits else whole
        return delay_of(network=network, waiting=whole - network, frame=frame)
