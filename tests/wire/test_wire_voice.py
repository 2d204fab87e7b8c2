"""Voice packets: what is encoded comes back, what is out of form is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import voice
from meshcall.wire.voice import Cover, Report, VoicePacket, decode_voice, encode_voice, frame_bytes_for, size_of

covers = st.builds(Cover, st.integers(1, 16), st.integers(1, 16))


@st.composite
def packets(draw: st.DrawFn) -> VoicePacket:
    length = draw(st.integers(1, 255))
    chosen = tuple(draw(st.lists(covers, max_size=3)))
    parts = [draw(st.binary(min_size=length, max_size=length)) for _ in range(len(chosen) + 1)]
    return VoicePacket(
        draw(st.integers(0, 255)), draw(st.integers(0, 65535)), draw(st.integers(1, 3)), draw(st.booleans()),
        Report(0.2, 1.5, 0.1, 0.04, 0.2), parts[0], chosen, tuple(parts[1:]),
    )  # fmt: skip


@given(packets(), st.integers(0, 60))
def test_a_packet_comes_back_as_it_was_whatever_its_padding(packet: VoicePacket, padding: int) -> None:
    size = size_of(len(packet.frame), len(packet.covers))
    data = encode_voice(packet, size + padding)
    assert len(data) == size + padding
    back = decode_voice(data)
    assert (back.call, back.slot, back.slots, back.inband) == (packet.call, packet.slot, packet.slots, packet.inband)
    assert (back.frame, back.covers, back.repairs) == (packet.frame, packet.covers, packet.repairs)
    assert back.report.loss == pytest.approx(0.2, abs=0.002)
    assert back.report.burst == 1.5
    assert back.report.jitter == pytest.approx(0.04, abs=0.001)
    assert back.report.queue == pytest.approx(0.2, abs=0.002)


@given(st.binary(max_size=1200))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = decode_voice(data)
    except BadPacket:
        return
    assert len(packet.repairs) == len(packet.covers) <= voice.REPAIRS_MAX
    assert 1 <= len(packet.frame) <= 255
    assert size_of(len(packet.frame), len(packet.covers)) <= len(data)
    assert 0 <= packet.report.loss <= 1


@given(st.integers(11, 900), st.integers(0, 3))
def test_the_longest_frame_fits_and_one_more_byte_does_not(size: int, repairs: int) -> None:
    length = frame_bytes_for(size, repairs)
    if length >= 1:
        assert size_of(length, repairs) <= size
        assert length == 255 or size_of(length + 1, repairs) > size


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -5.0])
def test_an_absurd_report_is_cut_to_what_fits(value: float) -> None:
    report = Report(value, value, value, value, value)
    try:
        back = decode_voice(encode_voice(VoicePacket(0, 0, 1, False, report, b"x"))).report
    except OverflowError:
        pytest.fail("an absurd report must not raise")
    assert 0 <= back.loss <= 1


@pytest.mark.parametrize(
    "packet",
    [
        VoicePacket(0, 0, 4, False, Report(), b"x"),
        VoicePacket(0, 0, 1, False, Report(), b""),
        VoicePacket(0, 0, 1, False, Report(), bytes(256)),
        VoicePacket(0, 0, 1, False, Report(), b"xy", (Cover(1, 1),), (b"x",)),
        VoicePacket(0, 0, 1, False, Report(), b"x", (Cover(17, 1),), (b"x",)),
        VoicePacket(0, 0, 1, False, Report(), b"x", (Cover(1, 1),) * 4, (b"x",) * 4),
    ],
)
def test_what_is_out_of_range_is_not_sent(packet: VoicePacket) -> None:
    with pytest.raises(ValueError, match=r"voice|repair|cover"):
        encode_voice(packet)
