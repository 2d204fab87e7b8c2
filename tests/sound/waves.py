"""WAV files for tests, written by hand so that any lie can be told."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RATE = 48_000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """A sine as floats."""
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def coded(values: np.ndarray, coding: str) -> tuple[int, int, bytes]:
    """Format number, bits, bytes of floats in one of the codings."""
    if coding == "u8":
        return 1, 8, np.clip(np.rint(values * 128 + 128), 0, 255).astype(np.uint8).tobytes()
    if coding == "i24":
        wide = np.clip(np.rint(values * 2**23), -(2**23), 2**23 - 1).astype("<i4")
        return 1, 24, wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    if coding in ("i16", "i32"):
        bits = int(coding[1:])
        top = 2 ** (bits - 1)
        return 1, bits, np.clip(np.rint(values * top), -top, top - 1).astype(f"<i{bits // 8}").tobytes()
    bits = int(coding[1:])
    return 3, bits, values.astype(f"<f{bits // 8}").tobytes()


def wav_bytes(
    values: np.ndarray,
    coding: str = "i16",
    rate: int = RATE,
    *,
    channels: int = 1,
    extensible: bool = False,
    before: bytes = b"",
    size: int | None = None,
    **lies: int,
) -> bytes:
    """A file; `size` is what its header says of the sound, `lies` replace fields of the format."""
    kind, bits, data = coded(np.repeat(values, channels) if channels > 1 else values, coding)
    fields = {"kind": kind, "channels": channels, "rate": rate, "frame": channels * bits // 8, "bits": bits} | lies
    form = struct.pack(
        "<HHIIHH",
        0xFFFE if extensible else fields["kind"],
        fields["channels"],
        fields["rate"] & 0xFFFFFFFF,
        fields["rate"] * fields["frame"] & 0xFFFFFFFF,
        fields["frame"],
        fields["bits"],
    )
    if extensible:
        form += struct.pack("<HHIH", 22, fields["bits"], 0, fields["kind"]) + bytes.fromhex(
            "000000001000800000aa00389b71"
        )
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + before
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def write_wav(path: Path, *arguments: object, **options: object) -> Path:
    """`wav_bytes` as a file."""
    path.write_bytes(wav_bytes(*arguments, **options))  # type: ignore[arg-type]
    return path
