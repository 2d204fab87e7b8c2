"""From the configuration, and files named on a command line, to a sound device and its processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.drivers.sound.duplex import Duplex
from meshcall.drivers.sound.ports import SoundChoice
from meshcall.drivers.sound.processing import Processing, Settings
from meshcall.drivers.sound.wav import WavSink, WavSource
from meshcall.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from meshcall.config import Audio


def choice_of(audio: Audio) -> SoundChoice:
    """The devices that a configuration names."""
    return SoundChoice(audio.microphone, audio.speaker, audio.backend)


def processing_of(audio: Audio) -> Processing:
    """The processing that a configuration wants."""
    return Processing(Settings(audio.echo_cancellation, audio.noise_suppression, audio.automatic_gain))


def open_sound(
    audio: Audio, microphone: Path | None = None, speaker: Path | None = None, *, loop: bool = False, held: bool = False
) -> Duplex:
    """A device, not started; files where they are named.  Raises WavError or UsageError with a sentence.

    `held`: files wait for `Duplex.begin`.
    """
    if microphone is not None and speaker is not None and microphone.resolve() == speaker.resolve():
        raise UsageError(f"{microphone} cannot be microphone and loudspeaker at once")
    source = None if microphone is None else WavSource(microphone, loop=loop, held=held)
    try:
        sink = None if speaker is None else WavSink(speaker, held=held)
    except BaseException:
        if source is not None:
            source.close()
        raise
    return Duplex(choice_of(audio), source=source, sink=sink)
