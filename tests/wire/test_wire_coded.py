"""Frames without their table of contents: the Opus packet comes back as it was, or the frame is not made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.wire.coded import CONFIGS, WHOLE, Coded, coded, slots_of

SILK, HYBRID, CELT = 9 << 3, 13 << 3, 31 << 3


@given(st.binary(max_size=80), st.integers(0, 80))
def test_what_is_made_gives_the_same_packet(packet: bytes, length: int) -> None:
    made = coded(packet, length)
    if made is not None:
        assert len(made.frame) == length
        assert made.packet == packet
        assert slots_of(made.config) and made.config not in WHOLE


@given(st.integers(0, CONFIGS - 1).filter(slots_of), st.binary(min_size=1, max_size=255))
def test_any_frame_is_a_packet_of_one_frame_or_a_whole_one(config: int, frame: bytes) -> None:
    packet = Coded(config, frame).packet
    if config in WHOLE:
        assert packet == frame
    else:
        assert packet[0] == config << 3  # code 0, mono
        assert frame.startswith(packet[1:])
        assert not any(frame[len(packet) - 1 :])
        assert len(packet) > min(2, len(frame))


def test_silk_is_filled_up_with_zeros_and_they_go_again() -> None:
    made = coded(bytes([SILK]) + b"speech", 10)
    assert made == (9, b"speech\0\0\0\0")
    assert made.packet == bytes([SILK]) + b"speech"
    least = coded(bytes([SILK, 0, 0]), 10)
    assert least is not None and least.packet == bytes([SILK, 0, 0])


@pytest.mark.parametrize("first", [HYBRID, CELT])
def test_where_its_length_has_a_meaning_a_frame_has_it_or_is_not_made(first: int) -> None:
    assert coded(bytes([first]) + b"speech\0", 7) == (first >> 3, b"speech\0")
    assert coded(bytes([first]) + b"speech", 7) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"", bytes([SILK]) + b"longer than that", bytes([SILK]) + b"zero\0", bytes([SILK, 0]),
        bytes([SILK | 4]) + b"stereo", bytes([SILK | 1]) + b"twice ", bytes([SILK | 3, 1]) + b"form",
        bytes([8 << 3]) + b"10 ms", bytes([12 << 3]) + b"10 ms!",
    ],
)  # fmt: skip
def test_other_packets_are_not_made_into_frames(packet: bytes) -> None:
    assert coded(packet, 6) is None
