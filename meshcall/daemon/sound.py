"""From the configuration, and files named on a command line, to a sound device and its processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.drivers.sound.duplex import Duplex
from meshcall.drivers.sound.ports import SoundChoice
from meshcall.drivers.sound.processing import Processing, Settings
from meshcall.drivers.sound.wav import WavSink, WavSource
from meshcall.errors import MeshcallError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from meshcall.config import Audio


def choice_of(audio: Audio) -> SoundChoice:
    """The devices that a configuration names."""
    return SoundChoice(audio.microphone, audio.speaker, audio.backend)


def processing_of(audio: Audio) -> Processing:
    """The processing that a configuration wants."""
    return Processing(Settings(audio.echo_cancellation, audio.noise_suppression, audio.automatic_gain))


class Files:
    """WAV files in the place of microphone and loudspeaker."""

    def __init__(self, microphone: Path | None = None, speaker: Path | None = None, *, held: bool = True) -> None:
        """Opens them; `held`: they wait for `Duplex.begin`.  Raises WavError or UsageError with a sentence."""
        if microphone is not None and speaker is not None and microphone.resolve() == speaker.resolve():
            raise UsageError(f"{microphone} cannot be microphone and loudspeaker at once")
        self.source = None if microphone is None else WavSource(microphone, held=held)
        self.sink: WavSink | None = None
        try:
            self.sink = None if speaker is None else WavSink(speaker, held=held)
        except MeshcallError:
            self.close()
            raise

    def close(self) -> None:
        """What was recorded is complete after it."""
        for one in (self.source, self.sink):
            if one is not None:
                one.close()


def open_sound(audio: Audio, microphone: Path | None = None, speaker: Path | None = None) -> Duplex:
    """A device, not started; files where they are named.  Raises WavError or UsageError with a sentence."""
    files = Files(microphone, speaker, held=False)
    return Duplex(choice_of(audio), source=files.source, sink=files.sink)
