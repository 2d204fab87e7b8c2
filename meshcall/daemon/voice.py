"""The voice of one call: between the thread of a sound device and the node's loop.

The device calls `exchange` every 10 ms.  What it captured is processed there, in the device's thread, and put
into a short queue, which the loop turns into packets; what arrives is put into the receiver by the loop, and
played out of it by the device's thread.  Neither waits for the other.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import trio

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.audio.reckoning import delay_of, judge, overhead_bytes
from meshcall.audio.transceiver import Transceiver
from meshcall.core import ENDPOINT_V4_BYTES
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.drivers.sound.base import silent
from meshcall.drivers.sound.processing import Processing
from meshcall.path.paths import endpoint_of, is_relayed

if TYPE_CHECKING:
    from meshcall.audio.receiver import ReceiverStats
    from meshcall.calls.core import CallStatus
    from meshcall.path.paths import Path

CAPTURED_MAX: Final = 50
"""Blocks of 10 ms that wait for the loop; a loop that hangs longer loses the oldest."""

_TONE_HZ: Final = 425.0
_TONE_PEAK: Final = 2500.0
_RING_HZ: Final = (660.0, 550.0)
_RING_PEAK: Final = 6000.0
_BEAT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class VoiceStats:
    """How the voice of a call is doing; levels in dBFS, times in seconds."""

    level_out: float
    level_in: float
    receiver: ReceiverStats
    sent_bits_per_second: float
    """On the wire, since the beginning."""
    now_bits_per_second: float
    """On the wire, at the present size of packets."""
    frame_seconds: float
    repairs: int
    """Repair symbols in each packet that is sent."""
    loss_there: float | None
    """What the other side reports of our packets, before repair."""
    counters: dict[str, int]


class CallVoice:
    """Make it when packets are to flow; `exchange` is what a device calls."""

    def __init__(
        self,
        now: float,
        status: CallStatus,
        *,
        send: Callable[[float, bytes, bool, bool], int],
        reported: Callable[[float, float], object],
        processing: Processing,
        limit_bits_per_second: int,
        first_voice: Callable[[], object],
        on_fault: Callable[[Exception], None],
    ) -> None:
        """`send(now, payload, once, is_narrow)` and `reported(now, loss)` are called in the loop.

        `send` as `Calls.send_voice`, and returns how many datagrams it became.  Raises NoOpusError.
        """
        theirs = limit_bits_per_second if status.theirs is None else status.theirs.kbit_per_second * 1000
        self.processing = processing
        self.counters: Counter[str] = Counter()
        self.is_open = False
        """Both sides want the call: what is said is sent, and what is heard is played."""
        self.is_muted = False
        self.is_held = False
        """By either side."""
        self.tone: Tone | None = None
        """Played while the call is not open."""
        self._send = send
        self._reported = reported
        self._first_voice = first_voice
        self._on_fault = on_fault
        self._transceiver = Transceiver(
            now, OpusEncoder(), OpusDecoder, call=status.tag, slot=status.ours.slot,
            limit_bits_per_second=min(limit_bits_per_second, theirs),
        )  # fmt: skip
        self._sender = self._transceiver.sender
        self._captured: deque[Sound] = deque(maxlen=CAPTURED_MAX)
        self._wanted = 1
        """So many blocks are worth waking the loop."""
        self._heard_any = False
        self._token = trio.lowlevel.current_trio_token()
        self._offset = now - time.perf_counter()

    # In the thread of the device

    def exchange(self, captured: Sound) -> Sound:
        """One block in, one out."""
        block = self.processing.capture(captured)
        if len(self._captured) == CAPTURED_MAX:
            self.counters["captured blocks dropped"] += 1
        self._captured.append(block)
        try:
            return self._play()
        finally:
            # Last, so that the loop, once awake, need not wait for this thread: both at once is what Python cannot do.
            if len(self._captured) >= self._wanted:
                self._wake_loop()

    def _play(self) -> Sound:
        played = self._transceiver.receiver.pull(time.perf_counter() + self._offset)
        if not self.is_open:
            played = self.tone.next() if self.tone is not None else silent()
        elif self.is_held:
            played = silent()
        self.processing.played(played)
        return played

    def _wake_loop(self) -> None:
        try:
            self._token.run_sync_soon(self._flush_safely, idempotent=True)
        except trio.RunFinishedError:
            self.counters["after the end"] += 1

    # In the loop

    def _flush_safely(self) -> None:
        try:
            self._flush()
        except Exception as fault:
            # Whatever is raised here would end the whole node, and every other call with it.
            self.counters["faults in the sender"] += 1
            self._on_fault(fault)

    def _flush(self) -> None:
        """Send what was captured."""
        transceiver, sender = self._transceiver, self._sender
        sender.mute = not self.is_open or self.is_muted or self.is_held
        now = time.perf_counter() + self._offset
        if transceiver.report(now) and transceiver.loss_there is not None:
            self._reported(now, transceiver.loss_there)
        while self._captured:
            payload = sender.push(now, self._captured.popleft())
            if payload is not None:
                sender.went(now, self._send(now, payload, transceiver.once, transceiver.is_narrow))
        self._wanted = sender.blocks_wanted

    def open(self, now: float, link: int | None) -> None:
        """Both sides want the call, and it goes by this link."""
        self._transceiver.open(now, link)
        self.is_open = True

    def unheard(self, at: float, link: int, path: Path, payload: bytes) -> None:
        """A voice packet came while it rings: it is counted."""
        self._transceiver.unheard(at, link, path, payload)

    def arrived(self, at: float, path: Path, payload: bytes) -> None:
        """A voice packet of this call came."""
        self._transceiver.arrived(at, path, payload)
        if self.is_open and not self._heard_any:
            self._heard_any = True
            self._first_voice()

    def path_changed(self, now: float, path: Path | None) -> None:
        """Packets go by another path."""
        if path is not None:
            ipv6 = len(endpoint_of(path)) != ENDPOINT_V4_BYTES
            self._sender.overhead = overhead_bytes(relayed=is_relayed(path), ipv6=ipv6)
        self._sender.path_changed(now)

    def took(self, round_trip: float | None) -> None:
        """The newest round trip of the path, in seconds, if it is known: a queue shows in it."""
        self._transceiver.round_trip = round_trip

    def device_changed(self) -> None:
        """Another device calls `exchange`."""
        self._transceiver.receiver.begin_anew()

    def stats(self) -> VoiceStats:
        """As of now."""
        sent = self._sender.stats
        shape = sent.shape
        bits = 8 * (shape.size + self._sender.overhead) / shape.seconds
        return VoiceStats(
            self.processing.meter.level.level_dbfs, self.processing.far_meter.level.level_dbfs,
            self._transceiver.receiver.stats(), sent.wire_bits_per_second, bits, shape.seconds,
            len(shape.protection.covers), self._transceiver.loss_there, dict(self.counters),
        )  # fmt: skip


def show(stats: VoiceStats, rtt: float | None, device_seconds: float) -> dict[str, Any]:
    """The statistics as they are told to programs; `rtt`: of the path, None where it is not known."""
    received = stats.receiver
    delay = delay_of(
        network=(rtt or 0.0) / 2, waiting=received.playout_seconds, frame=stats.frame_seconds, devices=device_seconds
    )
    judged = judge(delay, missing=received.missing, made_up=received.concealed, bit_rate=received.frame_bits_per_second)
    return {
        "level_out": round(stats.level_out, 1),
        "level_in": round(stats.level_in, 1),
        "loss": round(received.loss, 4),
        "loss_after_repair": round(received.missing, 4),
        "loss_there": None if stats.loss_there is None else round(stats.loss_there, 4),
        "repaired": received.repaired + received.inband,
        "concealed": round(received.concealed, 4),
        "delay": {
            "total": round(delay.total, 4),
            "network": round(delay.network, 4),
            "waiting": round(delay.waiting, 4),
            "fixed": round(delay.fixed, 4),
            "devices": round(device_seconds, 4),
        },
        "jitter": round(received.jitter_seconds, 4),
        "kbit_per_second": round(stats.sent_bits_per_second / 1000, 1),
        "kbit_per_second_now": round(stats.now_bits_per_second / 1000, 1),
        "frame_milliseconds": round(stats.frame_seconds * 1000),
        "repairs": stats.repairs,
        "packets": received.packets,
        "refused": received.refused,
        "mos": round(judged.mos, 2),
        "quality": judged.word,
        "counters": stats.counters,
    }


class Tone:
    """What is heard while it rings."""

    def __init__(self, *, incoming: bool) -> None:
        """`incoming`: somebody calls here; else the sign that it rings there (a second in five)."""
        self._blocks = _beat(incoming)
        self._at = 0

    def next(self) -> Sound:
        """The next 10 ms."""
        block: Sound = self._blocks[self._at]
        self._at = (self._at + 1) % len(self._blocks)
        return block


@cache
def _beat(incoming: bool) -> Sound:
    """What is said again and again, a block in each row."""
    seconds = np.arange(int(_BEAT_SECONDS * RATE)) / RATE
    sound = np.zeros(len(seconds))
    if incoming:
        for beat in range(6):  # two notes in turn, for the first 2.4 s
            part = (seconds >= beat * 0.4) & (seconds < beat * 0.4 + 0.35)
            sound[part] = _RING_PEAK * np.sin(2 * np.pi * _RING_HZ[beat % 2] * seconds[part])
    else:
        part = seconds < 1.0
        sound[part] = _TONE_PEAK * np.sin(2 * np.pi * _TONE_HZ * seconds[part])
    return sound.astype(np.int16).reshape(-1, PULL_SAMPLES)
