"""The header of a WAV file (Microsoft RIFF, 1991; WAVE_FORMAT_EXTENSIBLE, 2001): read strictly, written always valid.

    "RIFF" u32 size  "WAVE"  then chunks: id[4] u32 size, `size` bytes, a pad byte if odd
    "fmt ": u16 format, u16 channels, u32 rate, u32 bytes/s, u16 bytes/frame, u16 bits [, u16 extra, ...]
    "data": the samples, interleaved, little endian; 8-bit ones are unsigned

Sizes that lie are expected: programs that write to a pipe leave 0 or 0xFFFFFFFF, cut files promise more than
they hold.  What is there counts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray

from meshcall.drivers.sound.base import DeviceError

PCM: Final = 1
FLOAT: Final = 3
EXTENSIBLE: Final = 0xFFFE
OTHER_FORMATS: Final = {2: "ADPCM", 6: "A-law", 7: "mu-law", 0x11: "ADPCM", 0x31: "GSM 6.10", 0x50: "MPEG", 0x55: "MP3"}
GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format number in the sub-format of WAVE_FORMAT_EXTENSIBLE."""

RATE_MIN: Final = 4_000
RATE_MAX: Final = 384_000
"""Samples a second."""
CHANNELS_MAX: Final = 8
CHUNKS_MAX: Final = 64
"""Before the sound; more is no WAV file that anybody made in earnest."""
FORMAT_BYTES_MAX: Final = 1024
UNKNOWN_SIZES: Final = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)
"""What programs write that did not know the size beforehand."""

HEADER_BYTES: Final = 44
DATA_BYTES_MAX: Final = 0xFFFFFFFF - 36
"""Of a file that we write."""
HINT: Final = "; `ffmpeg -i IN -ac 1 -ar 48000 OUT.wav` makes one that will do"

Coding = Literal["u8", "i16", "i24", "i32", "f32", "f64"]
_CODINGS: Final[dict[tuple[int, int], Coding]] = {
    (PCM, 8): "u8",
    (PCM, 16): "i16",
    (PCM, 24): "i24",
    (PCM, 32): "i32",
    (FLOAT, 32): "f32",
    (FLOAT, 64): "f64",
}


class WavError(DeviceError):
    """This is not a WAV file that can be played."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sound of a file is and how it is written."""

    coding: Coding
    channels: int
    rate: int
    frame_bytes: int
    start: int
    """Offset of the first sample, bytes."""
    frames: int
    """Samples of each channel that are really there."""
    promised: int
    """Samples of each channel in the header; `frames` where it did not know."""

    @property
    def seconds(self) -> float:
        """Length."""
        return self.frames / self.rate


def read_layout(file: BinaryIO, size: int) -> Layout:
    """Read the header of an open file of `size` bytes.  Raises WavError (without the name of the file)."""
    if size == 0:
        raise WavError("is empty")
    head = file.read(12)
    if head[:4] in (b"RF64", b"BW64", b"RIFX"):
        raise WavError(f"is of the kind {head[:4].decode()}, which is not read here{HINT}")
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise WavError(f"is not a WAV file{HINT}")
    form: tuple[Coding, int, int, int] | None = None
    place = 12
    for _ in range(CHUNKS_MAX):
        file.seek(place)
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        place += 8
        if name == b"fmt ":
            form = _read_format(file.read(min(length, FORMAT_BYTES_MAX)))
        elif name == b"data":
            if form is None:
                raise WavError("has its sound before its format, so it cannot be played")
            return _layout(form, place, length, size)
        place += length + length % 2
        if place >= size:
            break
    raise WavError("ends before its sound begins; it was cut off, or is no sound" if form else "has no format in it")


def _read_format(body: bytes) -> tuple[Coding, int, int, int]:
    if len(body) < 16:
        raise WavError("has a format that is cut off")
    kind, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", body)
    if kind == EXTENSIBLE:
        if len(body) < 40 or body[26:40] != GUID_TAIL:
            raise WavError(f"is of a kind that is not known here{HINT}")
        kind = int.from_bytes(body[24:26], "little")
    coding = _CODINGS.get((kind, bits))
    if coding is None:
        name = OTHER_FORMATS.get(kind) or {PCM: "integers", FLOAT: "floats"}.get(kind, f"format {kind}")
        raise WavError(f"holds {name} of {bits} bits; 8, 16, 24, 32-bit integers and 32, 64-bit floats are read{HINT}")
    if not 1 <= channels <= CHANNELS_MAX:
        raise WavError(f"says that it has {channels} channels; 1 to {CHANNELS_MAX} can be")
    if not RATE_MIN <= rate <= RATE_MAX:
        raise WavError(f"says that it has {rate} samples a second; {RATE_MIN} to {RATE_MAX} can be")
    if frame_bytes != channels * bits // 8:
        raise WavError(f"contradicts itself: {channels} channels of {bits} bits are not {frame_bytes} bytes")
    return coding, channels, rate, frame_bytes


def _layout(form: tuple[Coding, int, int, int], start: int, length: int, size: int) -> Layout:
    coding, channels, rate, frame_bytes = form
    there = max(0, size - start)
    unknown = length in UNKNOWN_SIZES
    frames = (there if unknown else min(length, there)) // frame_bytes
    if frames == 0:
        raise WavError("holds no sound")
    promised = frames if unknown else length // frame_bytes
    return Layout(coding, channels, rate, frame_bytes, start, frames, promised)


def to_mono(raw: bytes, layout: Layout) -> NDArray[np.float32]:
    """Whole frames as floats, -1 to 1: the mean of the channels.  What is not a number is silence."""
    coding = layout.coding
    values: NDArray[np.floating[Any]]
    if coding == "u8":
        values = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    elif coding == "i16":
        values = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    elif coding == "i24":
        bytes3 = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(bytes3), 4), np.uint8)
        wide[:, 1:] = bytes3  # in the upper bytes, so that the sign is right
        values = wide.view("<i4").ravel().astype(np.float32) / 2**31
    elif coding == "i32":
        values = np.frombuffer(raw, "<i4").astype(np.float32) / 2**31
    else:
        floats = np.frombuffer(raw, "<f4" if coding == "f32" else "<f8")
        values = np.clip(np.nan_to_num(floats, nan=0.0), -1, 1).astype(np.float32)
    if layout.channels > 1:
        values = values.reshape(-1, layout.channels).mean(axis=1)
    return values.astype(np.float32, copy=False)


def header(data_bytes: int, rate: int) -> bytes:
    """The first 44 bytes of a mono 16-bit file with so many bytes of sound."""
    sound = min(data_bytes, DATA_BYTES_MAX)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + sound, b"WAVE", b"fmt ", 16, PCM, 1, rate, rate * 2, 2, 16, b"data", sound
    )
