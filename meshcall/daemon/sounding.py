"""Everything that sounds in one call of the daemon: devices or files, processing, tones, the voice itself.

Imported when a call begins, and not before: a node that only waits needs none of the memory that it takes.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import trio

from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import Sender
from meshcall.daemon.sound import Files, choice_of, processing_of
from meshcall.daemon.voice import CallVoice, Tone, show
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.drivers.sound.duplex import Changed, Duplex
from meshcall.drivers.sound.null import Silence
from meshcall.drivers.sound.processing import Processing, Settings
from meshcall.errors import StateError
from meshcall.logs import log

if TYPE_CHECKING:
    from meshcall.audio.codec import Sound
    from meshcall.calls.core import CallStatus
    from meshcall.config import Config
    from meshcall.path.paths import Path as Way

Json = dict[str, Any]
_log = logging.getLogger("meshcall.call")
_PLAIN = Settings(echo_cancellation=False, noise_suppression="off", automatic_gain=False)
"""A file is sent as it is."""


@cache
def prepare() -> None:
    """What takes a moment the first time, 0.2 s together: not in the loop, not while the loudspeaker waits."""
    try:
        Sender(0.0, OpusEncoder(), call=0, slot=0)
        Receiver(0.0, OpusDecoder(), call=0)
    except StateError as problem:
        log(_log, logging.WARNING, "no voice", reason=str(problem))  # and a call says so to its client
    Tone(incoming=True)
    Tone(incoming=False)
    Processing(_PLAIN)
    # What is loaded stays.  Looked through by the collector of cycles, it stops all threads for 15 to 25 ms.
    gc.freeze()


class Sounding:
    """The sound of one call.  `start`, `answered`, and `stop` in every case."""

    def __init__(
        self,
        now: float,
        status: CallStatus,
        config: Config,
        files: Files,
        *,
        incoming: bool,
        send: Callable[[float, bytes, bool, bool], int],
        reported: Callable[[float, float], object],
        first_voice: Callable[[], object],
        on_device: Callable[[Changed], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        """See `CallVoice`; `on_device` is called in the loop.  Raises NoOpusError."""
        audio = config.audio
        self.files = files
        self.processing = Processing(_PLAIN) if files.source is not None else processing_of(audio)
        self._make = partial(
            CallVoice, send=send, reported=reported, processing=self.processing,
            limit_bits_per_second=config.call.kbit_per_second * 1000, first_voice=first_voice, on_fault=on_fault,
        )  # fmt: skip
        self.voice = self._make(now, status)
        self.voice.tone = Tone(incoming=incoming)
        self._tag = status.tag
        self._choice = choice_of(audio)
        self._on_device = on_device
        self._token = trio.lowlevel.current_trio_token()
        self._duplex: Duplex | None = None
        self._is_over = False
        self._heard_on: tuple[str, str] | None = None

    def start(self, *, listening: bool) -> None:
        """Let packets flow.  `listening`: the microphone is opened; before a call is answered here, it is not."""
        source = self.files.source if listening else Silence()
        self._duplex = Duplex(self._choice, source=source, sink=self.files.sink)
        self._duplex.start(self._exchange, self._changed)

    def _exchange(self, captured: Sound) -> Sound:
        return self.voice.exchange(captured)

    def answered(self, now: float, status: CallStatus, path: Way) -> None:
        """Both sides want the call; files begin."""
        if status.tag != self._tag:  # both had called each other, and the other one's call is the one that counts
            self.voice, self._tag = self._make(now, status), status.tag
        self.voice.path_changed(now, path)
        self.voice.open(now, status.link)
        self._begin()

    def _begin(self) -> None:
        if self._duplex is not None and self.voice.is_open:
            self._duplex.begin()

    async def listen(self, files: Files) -> None:
        """From the loudspeaker that rang to the devices, or files, of the conversation."""
        ringing, self._duplex = self._duplex, None
        self.files = files
        if files.source is not None:
            self.processing.set(_PLAIN)
        if ringing is not None:
            await trio.to_thread.run_sync(ringing.stop)
        if not self._is_over:
            self.start(listening=True)
            self._begin()

    async def stop(self) -> None:
        """End the sound; files are complete afterwards."""
        self._is_over = True
        self.voice.is_open = False
        if self._duplex is not None:
            await trio.to_thread.run_sync(self._duplex.stop)
        await trio.to_thread.run_sync(self.files.close)

    def stats(self, rtt: float | None) -> Json:
        """As they are told to programs; `rtt`: of the path, in seconds."""
        duplex = self._duplex
        stats = self.voice.stats()
        if duplex is None:
            return show(stats, rtt, 0.0)
        stats = replace(stats, counters={**stats.counters, **duplex.stats()})
        return show(stats, rtt, duplex.latency.capture + duplex.latency.play)

    def _changed(self, said: Changed) -> None:
        """In a thread of the devices."""
        try:
            self._token.run_sync_soon(self._tell, said)
        except trio.RunFinishedError:
            self.voice.counters["after the end"] += 1

    def _tell(self, said: Changed) -> None:
        if self._duplex is not None:
            self.processing.device(self._duplex.latency)
        if (said.device, said.backend) != self._heard_on:
            self._heard_on = (said.device, said.backend)
            self.voice.device_changed()
        if not self._is_over:
            self._on_device(said)
