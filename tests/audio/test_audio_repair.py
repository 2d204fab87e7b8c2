"""The repair code: whatever is recovered is what was sent, and nothing that comes in costs more than its bounds."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.audio import repair
from meshcall.audio.repair import HORIZON_SLOTS, RepairDecoder, RepairEncoder, coefficient
from meshcall.errors import BadPacket
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import IMPLIED, Cover, Report, VoicePacket, decode_voice, is_implied

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "voice.json").read_text())
plans = st.sampled_from(IMPLIED) | st.lists(st.builds(Cover, st.integers(1, 16), st.integers(0, 15)), max_size=3).map(
    tuple
)
CONFIG = 9
"""Of SILK, wideband, 20 ms."""


def stream(
    chance: Random, count: int, covers: tuple[Cover, ...], *, slots: int = 1, length: int = 20, start: int = 0
) -> list[VoicePacket]:
    """Packets of frames of chance."""
    encoder = RepairEncoder()
    packets = []
    for n in range(count):
        frame = chance.randbytes(length)
        slot = start + n * slots
        encoder.add(slot, WHOLE[slots - 1], frame)
        possible = encoder.possible(covers)
        symbols = tuple(encoder.symbols(possible))
        packets.append(VoicePacket(0, slot, WHOLE[slots - 1], False, Report(), frame, possible, symbols))
    return packets


def play(decoder: RepairDecoder, packets: list[VoicePacket], order: list[int], start: int = 0) -> dict[int, bytes]:
    """All frames that come out, by slot; each once."""
    slots = packets[0].slots
    out: dict[int, bytes] = {}
    for n in order:
        known = decoder.add(packets[n], start + n * slots)
        assert [one[0] for one in known] == sorted(one[0] for one in known)
        for slot, lasts, frame, _ in known:
            assert slot not in out
            assert lasts == slots
            out[slot] = frame
    return out


@given(st.randoms(use_true_random=False), plans, st.integers(1, 3), st.floats(0, 0.7), st.integers(0, 1 << 40))
@settings(max_examples=150)
def test_what_is_recovered_is_what_was_sent(
    chance: Random, covers: tuple[Cover, ...], slots: int, loss: float, start: int
) -> None:
    packets = stream(chance, 80, covers, slots=slots, start=start)
    order = [n for n in range(80) if chance.random() >= loss]
    # some change places with later ones, some come twice
    order = [n for _, n in sorted((n + chance.uniform(0, 3), n) for n in order)]
    decoder = RepairDecoder()
    out = {}
    for n in order + order[-4:]:
        for slot, _, frame, _ in decoder.add(packets[n], start + n * slots):
            assert slot not in out
            out[slot] = frame
    assert decoder.contradictions == 0
    for slot, frame in out.items():
        assert frame == packets[(slot - start) // slots].frame
    assert set(out) >= {start + n * slots for n in order}
    assert decoder.equations <= HORIZON_SLOTS


@pytest.mark.parametrize(
    ("covers", "lost", "needed"),
    [
        ((Cover(1, 1),), [5], 6),
        ((Cover(4, 1),), [5, 6, 7, 8], 12),
        ((Cover(1, 4),), [5, 6], 8),
        ((Cover(1, 4), Cover(1, 4)), [5, 6, 7], 9),
        ((Cover(2, 1), Cover(2, 3)), [5, 6], 8),
        ((Cover(1, 15),) * 3, list(range(20, 32)), 35),
    ],
)
def test_losses_that_the_code_must_repair_are_repaired_in_time(
    covers: tuple[Cover, ...], lost: list[int], needed: int
) -> None:
    packets = stream(Random(1), 50, covers)
    out = play(RepairDecoder(), packets, [n for n in range(needed + 1) if n not in lost])
    assert all(out[n] == packets[n].frame for n in lost)


def test_at_a_fifth_lost_one_symbol_of_two_frames_leaves_less_than_a_fortieth() -> None:
    packets = stream(Random(2), 4000, (Cover(1, 2),), length=8)
    chance = Random(3)
    order = [n for n in range(4000) if chance.random() >= 0.2]
    left = 1 - len(play(RepairDecoder(), packets, order)) / 4000
    assert left < 0.03
    alone = 1 - len(order) / 4000
    assert left < alone / 6


def test_a_change_of_length_begins_anew_on_both_sides() -> None:
    chance = Random(4)
    encoder, decoder = RepairEncoder(), RepairDecoder()
    out = {}
    sent = {}
    for n in range(60):
        length = 20 if n < 30 else 33
        sent[n] = chance.randbytes(length)
        encoder.add(n, CONFIG, sent[n])
        covers = encoder.possible((Cover(1, 3),))
        if n == 30:
            assert covers == (Cover(1, 0),)
        packet = VoicePacket(0, n, CONFIG, False, Report(), sent[n], covers, tuple(encoder.symbols(covers)))
        if n not in (10, 29, 40):
            out.update({slot: frame for slot, _, frame, _ in decoder.add(packet, n)})
    assert out == {n: frame for n, frame in sent.items() if n != 29}


@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from([13, 15, 4]), st.sampled_from([11, 12]), st.integers(1, 9)), max_size=20),
    plans, st.floats(0, 0.6),
)  # fmt: skip
@settings(max_examples=150)
def test_frames_of_other_forms_are_never_combined(
    chance: Random, rows: list[tuple[int, int, int]], covers: tuple[Cover, ...], loss: float
) -> None:
    """However configuration and length change, a lost frame comes out as it was sent, in a packet of its own form."""
    encoder, decoder = RepairEncoder(), RepairDecoder()
    sent: dict[int, tuple[int, bytes]] = {}
    slot = 5
    for config, length, count in rows:
        for _ in range(count):
            frame = chance.randbytes(length)
            sent[slot] = config, frame
            encoder.add(slot, config, frame)
            possible = encoder.possible(covers)
            packet = VoicePacket(0, slot, config, False, Report(), frame, possible, tuple(encoder.symbols(possible)))
            if chance.random() >= loss:
                assert all(sent[one] == (config, data) for one, _, data, _ in decoder.add(packet, slot))
            slot += packet.slots
    assert decoder.contradictions == 0


def test_a_single_frame_of_another_form_leaves_the_others_repairable() -> None:
    encoder, decoder = RepairEncoder(), RepairDecoder()
    sent, told = {}, {}
    for n in range(20):
        config = 13 if n == 10 else 15
        sent[n] = bytes([n + 1]) * 8
        encoder.add(n, config, sent[n])
        covers = encoder.possible(IMPLIED[1])
        packet = VoicePacket(0, n, config, False, Report(), sent[n], covers, tuple(encoder.symbols(covers)))
        if n not in (8, 9):
            told.update({slot: frame for slot, _, frame, _ in decoder.add(packet, n)})
    assert told == sent


@pytest.mark.parametrize("covers", IMPLIED)
def test_where_a_row_begins_implied_symbols_cover_zeros_that_are_no_frames(covers: tuple[Cover, ...]) -> None:
    assert is_implied(covers)
    for lost in ([], [1], [2, 4], [3, 4]):
        packets = stream(Random(6), 30, covers, start=500)
        assert packets[0].covers == covers
        assert not any(map(any, packets[0].repairs))
        decoder = RepairDecoder()
        out = play(decoder, packets, [n for n in range(30) if n not in lost], 500)
        assert out == {500 + n: packets[n].frame for n in range(30)}
        assert (decoder.repaired, decoder.contradictions) == (len(lost), 0)
        assert decoder.equations <= len(lost)  # a zero whose own copy was lost is of no use to anybody


def test_a_symbol_of_frames_that_were_not_sent_is_refused() -> None:
    encoder = RepairEncoder()
    encoder.add(0, CONFIG, b"abc")
    with pytest.raises(ValueError, match="not sent"):
        encoder.symbols([Cover(1, 1)])


@given(
    st.lists(
        st.tuples(st.binary(min_size=6, max_size=120), st.integers(-300, 300)),
        max_size=60,
    )
)
@settings(max_examples=200)
def test_garbage_neither_crashes_nor_grows(received: list[tuple[bytes, int]]) -> None:
    decoder = RepairDecoder()
    slot = 10_000
    for data, jump in received:
        slot += jump
        try:
            packet = decode_voice(data)
        except BadPacket:
            continue
        decoder.add(packet, slot)
        assert decoder.equations <= repair.SHAPES_MAX * HORIZON_SLOTS
        assert decoder.frames <= repair.SHAPES_MAX * (HORIZON_SLOTS + 1)


def test_frames_behind_the_horizon_are_forgotten_by_and_by_or_at_a_leap() -> None:
    decoder = RepairDecoder()
    for n in (*range(300), *range(400, 800), 2000):
        decoder.add(VoicePacket(0, n, 1, False, Report(), b"frame"), n)
        assert decoder.frames <= HORIZON_SLOTS + 1
        assert decoder.frames == HORIZON_SLOTS + 1 or n < HORIZON_SLOTS or 400 <= n < 400 + HORIZON_SLOTS or n == 2000
    assert decoder.frames == 1


def test_contradicting_symbols_are_counted_and_bounded() -> None:
    decoder = RepairDecoder()
    chance = Random(5)
    for n in [one + shift for one in range(0, 800, 4) for shift in (0, 2, 3, 1)]:
        symbols = tuple(chance.randbytes(10) for _ in range(3))
        decoder.add(VoicePacket(0, n, CONFIG, False, Report(), chance.randbytes(10), (Cover(1, 15),) * 3, symbols), n)
        assert decoder.equations <= HORIZON_SLOTS
    assert decoder.contradictions > 100


def test_another_frame_for_a_slot_that_is_known_is_counted_and_not_told() -> None:
    decoder = RepairDecoder()
    decoder.add(VoicePacket(0, 0, CONFIG, False, Report(), b"one"), 0)
    assert decoder.add(VoicePacket(0, 0, CONFIG, False, Report(), b"two"), 0) == []
    assert decoder.contradictions == 1


def test_a_clock_that_was_set_back_is_followed_after_some_packets() -> None:
    decoder = RepairDecoder()
    for n, packet in enumerate(stream(Random(6), 5, (Cover(1, 1),), start=1_000_000)):
        decoder.add(packet, 1_000_000 + n)
    packets = stream(Random(7), 30, (Cover(1, 1),))
    known = [one for n, packet in enumerate(packets) if n != 20 for one in decoder.add(packet, n)]
    assert (20, 1, packets[20].frame, True) in known
    assert {slot for slot, *_ in known} == set(range(30))


def test_the_vectors() -> None:
    for vector in VECTORS["coefficients"]:
        assert (
            coefficient(vector["packet_slot"], vector["index"], vector["frame_slot"], vector["count"])
            == vector["coefficient"]
        )
    for vector in VECTORS["streams"]:
        encoder = RepairEncoder()
        covers = tuple(Cover(first, count) for first, count in vector["covers"])
        for packet in vector["packets"]:
            frame = bytes.fromhex(packet["frame"])
            encoder.add(packet["slot"], vector["config"], frame)
            symbols = [one.hex() for one in encoder.symbols(encoder.possible(covers))]
            assert symbols == packet["symbols"]


def test_there_is_hope_for_a_frame_as_long_as_packets_to_come_may_tell_it() -> None:
    packets = stream(Random(3), 40, (Cover(1, 3),), slots=2)
    decoder = RepairDecoder()
    assert not decoder.hopes(18)
    play(decoder, packets, list(range(9)))
    decoder.add(packets[12], 24)  # 9, 10 and 11 are lost; the symbol is of them
    assert decoder.hopes(18) and decoder.hopes(22)
    assert not decoder.hopes(16)  # known
    for n in (13, 14):
        assert decoder.hopes(18)
        decoder.add(packets[n], 2 * n)
    assert decoder.repaired == 3 and not decoder.hopes(18)
    for n in (*range(15, 20), 24):  # 20 to 23 are lost, one more than a window
        decoder.add(packets[n], 2 * n)
    assert not decoder.hopes(40)  # no symbol that comes has the first of them
    assert decoder.hopes(42) and decoder.hopes(46)
