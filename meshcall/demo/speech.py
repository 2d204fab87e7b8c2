"""What Ann and Bob say: two short clips, made with the free voices slt and rms of flite (docs/decisions/speech.md)."""

from __future__ import annotations

from pathlib import Path

CLIPS = {name: Path(__file__).with_name(f"{name.lower()}.wav") for name in ("Ann", "Bob")}
"""16 kHz, mono, 16 bits: 9.6 s and 4.0 s."""
