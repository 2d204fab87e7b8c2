"""The receiver on paper: which slot sounds where, on clean and bad networks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES
from meshcall.audio.receiver import Receiver
from meshcall.audio.repair import RepairEncoder
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import Cover, Report, VoicePacket, encode_voice
from tests.audio.paper_codec import PaperDecoder, paper_frame, paper_packet
from tests.audio.paper_net import new_receiver, run

NETWORK = 0.02


def test_nothing_sent_is_silence() -> None:
    receiver, _ = new_receiver()
    for tick in range(300):
        block = receiver.pull(tick * 0.01)
        assert len(block) == PULL_SAMPLES and not block.any()
    assert receiver.report() == Report()


@pytest.mark.parametrize("phase", [0.0, 0.001, 0.0045, 0.0085])
def test_on_a_clean_path_a_frame_waits_less_than_two_pulls(phase: float) -> None:
    heard = run(30, lambda slot: NETWORK + phase)
    assert heard.decoder.decoded == list(range(len(heard.decoder.decoded)))
    delays = heard.delays(range(1200, 1490))
    assert len(delays) == 290
    # The network, up to 10 ms to the next pull, and one pull of margin where packets come right before a pull.
    assert max(delays) - NETWORK - phase <= 0.0126
    stats = heard.receiver.stats()
    assert stats.concealed == stats.missing == stats.loss == 0
    assert heard.receiver.report() == Report()


def test_in_steady_state_nothing_is_scaled() -> None:
    sound = run(40, lambda slot: NETWORK + 0.003).sound()
    settled = sound[48_000 * 25 : 48_000 * 39]
    assert np.all(np.diff(np.flatnonzero(np.diff(settled))) == 960)


def test_copies_repair_one_lost_packet_in_five() -> None:
    chance = random.Random(4)
    heard = run(40, lambda slot: None if slot > 50 and chance.random() < 0.2 else NETWORK + 0.003, copies=(1, 3))
    stats = heard.receiver.stats()
    assert 0.15 < stats.loss < 0.25
    assert stats.missing < 0.02
    assert stats.repaired > 200
    assert max(heard.delays(range(200, 1900))) < NETWORK + 0.1
    assert heard.receiver.report().loss == pytest.approx(0.2, abs=0.1)


def test_rare_bursts_are_waited_for_as_far_as_copies_reach() -> None:
    """A burst of 120 ms each 8 s: too few for the histogram to wait 140 ms for the copies, yet all are played."""
    heard = run(60, lambda slot: None if slot % 400 in range(200, 206) else NETWORK + 0.003, copies=(7,))
    stats = heard.receiver.stats()
    assert stats.missing == 0 and stats.repaired >= 42
    assert 0.14 < max(heard.delays(range(1000, 2900))) < NETWORK + 0.17


def test_the_other_sides_report_is_handed_on_once() -> None:
    receiver, _ = new_receiver()
    receiver.push(0.0, paper_packet(1, report=Report(loss=0.2)))
    assert receiver.heard() is None
    receiver.pull(0.0)
    heard = receiver.heard()
    assert heard is not None and heard.loss == pytest.approx(0.2, abs=0.01)
    assert receiver.heard() is None


def test_after_a_storm_the_delay_falls_again() -> None:
    chance = random.Random(9)
    storm = range(500, 1000)
    heard = run(75, lambda slot: NETWORK + 0.003 + (chance.uniform(0, 0.2) if slot in storm else 0.0))
    assert max(heard.delays(range(900, 1000))) > 0.15
    late = heard.delays(range(3200, 3700))
    assert len(late) > 450 and max(late) < 0.06


def test_a_queue_that_has_drained_is_soon_forgotten() -> None:
    def delay(slot: int) -> float:
        return NETWORK + 0.003 + min(0.3, max(0.0, (slot - 150) * 0.01)) * (slot < 350)

    heard = run(45, delay)
    assert max(heard.delays(range(300, 350))) > 0.25
    late = heard.delays(range(1200, 2200))
    assert len(late) > 900 and max(late[500:]) < 0.09


def test_a_stall_loses_nothing_and_changes_no_order() -> None:
    def delay(slot: int) -> float:
        return NETWORK + 0.003 + (max(0, 515 - slot) * 0.02 if 500 <= slot < 515 else 0.0)

    heard = run(20, delay)
    assert heard.decoder.decoded == list(range(len(heard.decoder.decoded)))
    assert heard.receiver.stats().missing == 0
    assert heard.receiver.stats().concealed > 0


def test_frames_of_all_lengths_follow_each_other_without_gaps() -> None:
    receiver, decoder = new_receiver()
    lengths = [1] * 200 + [3] * 100 + [2] * 100 + [1] * 300 + [2] * 50 + [3] * 50
    arrivals, slot = [], 0
    for slots in lengths:
        arrivals.append(((slot + slots) * 0.02 + NETWORK, slot, slots))
        slot += slots
    sent = [one[1] for one in arrivals]
    for tick in range(slot * 2 + 40):
        now = tick * 0.01
        while arrivals and arrivals[0][0] <= now:
            _, begin, slots = arrivals.pop(0)
            receiver.push(now, paper_packet(begin, slots))
        assert len(receiver.pull(now)) == PULL_SAMPLES
    assert decoder.decoded == sent
    assert receiver.stats().missing == 0


@pytest.mark.parametrize("drift", [300e-6, -300e-6])
def test_clocks_that_drift_apart_make_neither_gaps_nor_delay(drift: float) -> None:
    heard = run(100, lambda slot: NETWORK, drift=drift)
    stats = heard.receiver.stats()
    assert stats.missing == stats.concealed == 0
    assert heard.decoder.decoded == list(range(len(heard.decoder.decoded)))
    delays = [
        at - slot * 0.02 * drift for slot, at in zip(range(2000, 4900), heard.delays(range(2000, 4900)), strict=True)
    ]
    assert max(delays) < NETWORK + 0.045
    report = heard.receiver.report()
    assert report.queue < 0.01 and report.loss == 0


def test_a_new_path_with_another_delay_is_learnt_afresh() -> None:
    receiver, decoder = new_receiver()
    for tick in range(6000):
        now = tick * 0.01
        if tick == 2000:
            receiver.path_changed(now)
        extra = 40 if tick < 2000 else 0
        if tick % 2 == 0 and tick >= extra:
            receiver.push(now, paper_packet((tick - extra) // 2))
        receiver.pull(now)
    stats = receiver.stats()
    assert receiver.report().queue == 0
    assert stats.jitter_seconds <= 0.02
    assert len(decoder.decoded) > 2900


def test_another_loudspeaker_begins_without_the_delay_of_the_one_before() -> None:
    """The one before paused for 300 ms again and again: its delay is gone 0.2 s after the change."""
    waits = {}
    for anew in (False, True):
        receiver, decoder = new_receiver()
        now, slot = 0.0, 0
        for tick in range(800):
            now += 0.31 if tick < 590 and tick % 100 == 99 else 0.01
            while slot * 0.02 <= now:
                receiver.push(slot * 0.02, paper_packet(slot))
                slot += 1
            if tick == 600 and anew:
                receiver.begin_anew()
            receiver.pull(now)
            if tick == 620:
                waits[anew] = receiver.stats().jitter_seconds
        assert decoder.decoded
    assert waits[True] <= 0.02 < waits[False]


@pytest.mark.parametrize("jump", [-5000, 700, 20_000])
def test_after_a_jump_of_the_slots_sound_is_back_within_a_second(jump: int) -> None:
    receiver, decoder = new_receiver()
    for tick in range(2000):
        now = tick * 0.01
        if tick % 2 == 0:
            receiver.push(now, paper_packet(6000 + tick // 2 + (jump if tick >= 1000 else 0)))
        receiver.pull(now)
        if tick == 1100:
            assert decoder.decoded[-1] >= 6000 + jump + 520
    assert receiver.stats().restarts == 1
    assert decoder.decoded[-1] >= 6000 + jump + 990


def test_ten_seconds_of_nothing_pass_into_noise_and_back() -> None:
    heard = run(40, lambda slot: None if 1000 <= slot < 1500 else NETWORK + 0.003)
    decoded = heard.decoder.decoded
    assert decoded[:1000] == list(range(1000)) and decoded[1000:1003] == [1500, 1501, 1502]
    assert heard.decoder.concealed <= 48_000  # the codec is not asked for 10 s
    delays = heard.delays(range(1520, 1990))
    assert len(delays) == 470 and max(delays) < 0.1


def test_a_flood_of_valid_packets_is_dropped_and_counted() -> None:
    receiver, decoder = new_receiver()
    for tick in range(200):
        now = tick * 0.01
        for n in range(400):
            receiver.push(now, paper_packet(tick // 2 + n % 7 * 9000 + n))
        assert len(receiver.pull(now)) == PULL_SAMPLES
    assert len(receiver._inbox) <= 128 and len(receiver._buffer) <= 150
    assert receiver.stats().refused["flood"] > 40_000
    # The true stream is heard again once it is alone.
    for tick in range(200, 500):
        receiver.push(tick * 0.01, paper_packet(tick // 2))
        receiver.pull(tick * 0.01)
    assert decoder.decoded[-1] >= 245


def test_damaged_frames_and_other_calls_are_counted_and_bridged() -> None:
    receiver, decoder = new_receiver()
    chance = random.Random(11)
    for tick in range(1000):
        now = tick * 0.01
        slot = tick // 2
        if tick % 2 == 0:
            good = paper_packet(slot)
            receiver.push(now, good[:-5] + b"\xff" * 5 if slot % 10 == 9 else good)
            receiver.push(now, chance.randbytes(chance.randrange(1400)))
            receiver.push(now, paper_packet(slot, call=8))
        assert len(receiver.pull(now)) == PULL_SAMPLES
    stats = receiver.stats()
    assert 45 <= stats.damaged <= 50
    assert stats.refused["other call"] >= 499
    assert len(decoder.decoded) >= 440


def test_copies_on_a_second_path_cost_nothing_and_play_nothing_twice() -> None:
    receiver, decoder = new_receiver()
    for tick in range(1000):
        now = tick * 0.01
        if tick % 2 == 0:
            receiver.push(now, paper_packet(tick // 2))
        if tick % 2 == 0 and tick > 6:
            receiver.push(now, paper_packet(tick // 2 - 3))
        receiver.pull(now)
    assert decoder.decoded == list(range(len(decoder.decoded)))
    assert receiver.stats().refused == {"copy": 496}


def test_the_copy_in_the_frame_that_follows_stands_in() -> None:
    heard = run(20, lambda slot: None if slot % 10 == 5 else NETWORK + 0.003, inband=True)
    stats = heard.receiver.stats()
    assert stats.inband >= 90 and stats.missing == 0
    assert heard.decoder.inband[20:40] == list(range(heard.decoder.inband[20], heard.decoder.inband[20] + 200, 10))


def test_reports_say_what_the_network_did() -> None:
    def delay(slot: int) -> float | None:
        if slot % 20 in (10, 11, 12, 13):
            return None
        return NETWORK + (0.05 if slot % 2 else 0.0)

    report = run(20, delay).receiver.report()
    assert report.loss == pytest.approx(0.2, abs=0.03)
    assert report.burst == pytest.approx(4, abs=0.7)
    assert report.jitter == pytest.approx(0.05, abs=0.003)
    assert report.queue == pytest.approx(0, abs=0.002)
    queued = run(20, lambda slot: NETWORK + (0.1 if slot > 800 else 0.0)).receiver.report()
    assert queued.queue == pytest.approx(0.1, abs=0.005) and queued.loss == 0


def queues_told(arrivals: list[tuple[float, int]], seconds: float) -> list[tuple[float, float]]:
    """Seconds, and the queue that is told then, of packets (when, slot) that keep their order."""
    receiver, _ = new_receiver()
    told = []
    for tick in range(round(seconds * 100)):
        now = tick * 0.01
        while arrivals and arrivals[0][0] <= now:
            at, slot = arrivals.pop(0)
            receiver.push(at, paper_packet(slot))
        receiver.pull(now)
        told.append((now, receiver.report().queue))
    return told


@pytest.mark.parametrize("spread", [0.0, 0.002])
@pytest.mark.parametrize("stall", [0.2, 0.45, 0.7, 1.2])
def test_a_line_that_stands_still_and_goes_on_reports_no_queue(stall: float, spread: float) -> None:
    """What comes first then is the latest; half of a burst, or its beginning, looked like a queue."""
    arrivals: list[tuple[float, int]] = []
    for slot in range(400):
        sent = 0.02 * slot
        held = 3.0 + stall - sent + spread * (slot - 150) if 3.0 <= sent < 3.0 + stall else 0.0
        arrivals.append((max(sent + held, arrivals[-1][0] if arrivals else 0.0), slot))
    assert max(queue for _, queue in queues_told(arrivals, 8.0)) < 0.03


def test_a_queue_that_stands_is_told_within_a_little_more_than_half_a_second() -> None:
    arrivals = [(0.02 * slot + (0.4 if slot >= 170 else 0.0), slot) for slot in range(400)]
    first = next(now for now, queue in queues_told(arrivals, 8.0) if queue > 0.35)
    assert 3.8 < first < 4.5


def test_the_queue_of_the_path_before_is_not_told_of_the_new_one() -> None:
    receiver, _ = new_receiver()
    for tick in range(420):
        now = tick * 0.01
        if tick % 2 == 0:
            late = 20 if 2.0 <= now < 4.0 else 0
            receiver.push(now, paper_packet(tick // 2 - late if tick // 2 >= late else 0))
        if tick == 400:
            assert receiver.report().queue > 0.35
            receiver.path_changed(now)
        receiver.pull(now)
        if tick >= 410:
            assert receiver.report().queue < 0.02


def test_nothing_grows_however_long_nobody_pulls_or_sends() -> None:
    receiver, _ = new_receiver()
    for slot in range(5000):
        receiver.push(slot * 0.02, paper_packet(slot))
    assert len(receiver._inbox) == 128
    for tick in range(10_000, 10_400):
        receiver.push(tick * 0.01, paper_packet(tick // 2))
        receiver.pull(tick * 0.01)
    assert receiver.stats().missing < 1
    assert np.any(receiver.pull(104.0))


def stormy_call(lost: set[int]) -> tuple[Receiver, PaperDecoder]:
    """12 s of frames of 40 ms, each symbol of three; stalls of 120 ms up to 1.5 s before the losses."""
    receiver, decoder = new_receiver()
    encoder = RepairEncoder()
    arrivals = []
    for n in range(300):
        frame = paper_frame(2 * n, 2)
        encoder.add(2 * n, WHOLE[1], frame)
        covers = encoder.possible((Cover(1, 3),))
        packet = VoicePacket(7, 2 * n, WHOLE[1], False, Report(), frame, covers, tuple(encoder.symbols(covers)))
        stalled = max(0.0, 0.12 - 0.04 * (n % 8)) if n < 160 else 0.0
        if n not in lost:
            arrivals.append(((n + 1) * 0.04 + NETWORK + stalled, encode_voice(packet)))
    for tick in range(1200):
        while arrivals and arrivals[0][0] <= tick * 0.01:
            receiver.push(*arrivals.pop(0))
        receiver.pull(tick * 0.01)
    return receiver, decoder


def test_many_missing_frames_are_held_for_while_packets_to_come_may_tell_them() -> None:
    receiver, decoder = stormy_call({200, 201, 202})  # known 120 ms after the last was due, where 120 are waited for
    stats = receiver.stats()
    assert stats.missing == 0 and stats.repaired == 3 and stats.late == 0
    assert decoder.decoded == list(range(0, decoder.decoded[-1] + 1, 2))


def test_what_no_symbol_can_tell_any_more_is_not_held_for() -> None:
    receiver, decoder = stormy_call(set(range(200, 207)))
    stats = receiver.stats()
    assert stats.repaired == 3 and stats.late == 0
    assert [slot for slot in range(380, 430, 2) if slot not in decoder.decoded] == [400, 402, 404, 406]
    alone = stormy_call({200, 201, 202, 203})[0].stats()
    assert alone.missing * 600 < 4  # but one frame was known in time
