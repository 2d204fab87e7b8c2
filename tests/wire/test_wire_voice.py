"""Voice packets: what is encoded comes back, what is out of form is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import voice
from meshcall.wire.coded import CONFIGS, slots_of
from meshcall.wire.voice import (
    IMPLIED,
    SLOTS_MODULUS,
    TAGS,
    Cover,
    Report,
    VoicePacket,
    decode_voice,
    encode_voice,
    frame_bytes_for,
    size_of,
)

covers = st.builds(Cover, st.integers(1, 16), st.integers(0, 15))
told = Report(0.2, 1.5, 0.1, 0.04, 0.2)
configs = st.sampled_from([config for config in range(CONFIGS) if slots_of(config)])
WIDEBAND = (9, 10, 11)
"""SILK of 20, 40 and 60 ms."""


@st.composite
def packets(draw: st.DrawFn) -> VoicePacket:
    length = draw(st.integers(1, 255))
    implied = draw(st.booleans())
    chosen = draw(st.sampled_from(IMPLIED)) if implied else tuple(draw(st.lists(covers, max_size=3)))
    parts = [draw(st.binary(min_size=length, max_size=length)) for _ in range(len(chosen) + 1)]
    return VoicePacket(
        draw(st.integers(0, TAGS - 1)), draw(st.integers(0, SLOTS_MODULUS - 1)), draw(configs),
        not chosen and draw(st.booleans()), told, parts[0], chosen, tuple(parts[1:]), implied,
    )  # fmt: skip


@given(packets(), st.integers(0, 3))
def test_a_packet_comes_back_as_it_was(packet: VoicePacket, padding: int) -> None:
    size = size_of(len(packet.frame), len(packet.covers), implied=packet.implied) + min(padding, len(packet.covers))
    data = encode_voice(packet, size)
    assert len(data) == size
    back = decode_voice(data)
    assert replace(back, report=told) == packet


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 1, SLOTS_MODULUS - 6])
def test_seven_packets_tell_a_whole_report(slots: int, first: int) -> None:
    heard = Report()
    for n in range(14):  # the count of slots wraps, and one turn with it
        packet = VoicePacket(0, (first + n * slots) % SLOTS_MODULUS, WIDEBAND[slots - 1], False, told, b"x")
        heard = decode_voice(encode_voice(packet), heard).report
    assert heard.loss == pytest.approx(0.2, abs=0.002)
    assert heard.burst == 1.5
    assert heard.late == pytest.approx(0.1, abs=0.002)
    assert heard.jitter == pytest.approx(0.04, abs=0.001)
    assert heard.queue == pytest.approx(0.2, abs=0.002)


def test_a_packet_tells_one_field_and_leaves_the_others() -> None:
    heard = Report(0.5, 4.0, 0.5, 0.5, 0.5)
    back = decode_voice(encode_voice(VoicePacket(0, 2, 9, False, told, b"x")), heard).report
    assert back == Report(0.5, 1.5, 0.5, 0.5, 0.5)


def test_a_size_that_says_another_length_of_the_frame_is_not_sent() -> None:
    packet = VoicePacket(0, 0, 9, False, Report(), bytes(20), (Cover(1, 2),), (bytes(20),))
    assert len(encode_voice(packet, 46)) == 46
    for size in (44, 47, 60):
        with pytest.raises(ValueError, match="as long as"):
            encode_voice(packet, size)


@given(st.binary(max_size=1200))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = decode_voice(data)
    except BadPacket:
        return
    assert len(packet.repairs) == len(packet.covers) <= voice.REPAIRS_MAX
    assert 1 <= len(packet.frame) <= 255
    assert 1 <= packet.slots <= 3
    assert size_of(len(packet.frame), len(packet.covers), implied=packet.implied) <= len(data)
    assert decode_voice(encode_voice(packet, len(data)), packet.report) == packet
    assert 0 <= packet.report.loss <= 1


@given(st.integers(6, 900), st.integers(0, 3), st.booleans())
def test_the_longest_frame_fits_and_one_more_byte_does_not(size: int, repairs: int, implied: bool) -> None:
    length = frame_bytes_for(size, repairs, implied=implied)
    if length >= 1:
        assert size_of(length, repairs, implied=implied) <= size
        assert length == 255 or size_of(length + 1, repairs, implied=implied) > size


def test_each_configuration_says_how_long_its_frames_are_or_is_refused() -> None:
    lasts = {0: 1, 4: 2, 8: 3, 1: 1, 2: 2, 3: 3, 5: 1, 6: 2, 7: 3, 9: 1, 10: 2, 11: 3}
    lasts.update(dict.fromkeys((13, 15, 19, 23, 27, 31), 1))
    for form in range(256):
        data = bytes([form]) + bytes(80)
        if form >> 3 in lasts:
            packet = decode_voice(data)
            assert (packet.config, packet.slots) == (form >> 3, lasts[form >> 3])
            assert (len(packet.covers), packet.inband) == ((0, 0, 1, 2, 3, 2, 2, 2)[form & 7], form & 7 == 1)
        else:
            with pytest.raises(BadPacket, match="form"):
                decode_voice(data)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -5.0])
def test_an_absurd_report_is_cut_to_what_fits(value: float) -> None:
    report = heard = Report(value, value, value, value, value)
    for slot in range(7):
        try:
            heard = decode_voice(encode_voice(VoicePacket(0, slot, 9, False, report, b"x")), heard).report
        except OverflowError:
            pytest.fail("an absurd report must not raise")
    assert 0 <= heard.loss <= 1
    assert 0 <= heard.queue <= 1.02


@pytest.mark.parametrize(
    "packet",
    [
        VoicePacket(0, 0, 12, False, Report(), b"x"),
        VoicePacket(0, 0, 32, False, Report(), b"x"),
        VoicePacket(0, 0, -1, False, Report(), b"x"),
        VoicePacket(0, 0, 9, False, Report(), b""),
        VoicePacket(0, 0, 9, False, Report(), bytes(256)),
        VoicePacket(0, 0, 9, False, Report(), b"xy", (Cover(1, 1),), (b"x",)),
        VoicePacket(0, 0, 9, False, Report(), b"x", (Cover(17, 1),), (b"x",)),
        VoicePacket(0, 0, 9, False, Report(), b"x", (Cover(1, 16),), (b"x",)),
        VoicePacket(0, 0, 9, False, Report(), b"x", (Cover(1, 1),) * 4, (b"x",) * 4),
        VoicePacket(0, 0, 9, False, Report(), b"x", (Cover(1, 1),), (b"x",), implied=True),
        VoicePacket(0, 0, 9, True, Report(), b"x", (Cover(1, 1),), (b"x",)),
        VoicePacket(0, 0, 9, True, Report(), b"x", IMPLIED[0], (b"x",) * 2, implied=True),
    ],
)
def test_what_is_out_of_range_is_not_sent(packet: VoicePacket) -> None:
    with pytest.raises(ValueError, match=r"voice|repair|cover"):
        encode_voice(packet)


VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "voice.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: vector["name"])
def test_the_vectors_are_what_is_sent_and_understood(vector: dict[str, Any]) -> None:
    report = Report(**vector["report"])
    for packet in vector["packets"]:
        payload = bytes.fromhex(packet["payload"])
        back = decode_voice(payload, report)
        assert (back.slot, back.config, back.slots) == (packet["slot"] % 4096, vector["config"], vector["slots"])
        assert (back.call, back.inband, back.implied) == (vector["call"] % 16, vector["inband"], vector["implied"])
        assert back.frame.hex() == packet["frame"]
        assert [one.hex() for one in back.repairs] == packet["symbols"]
        assert [one.first for one in back.covers] == [first for first, _ in vector["covers"]]
        assert encode_voice(replace(back, report=report), len(payload)) == payload


@pytest.mark.parametrize("vector", VECTORS["refused"])
def test_the_vectors_that_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(BadPacket, match=vector["why"]):
        decode_voice(bytes.fromhex(vector["payload"]))
