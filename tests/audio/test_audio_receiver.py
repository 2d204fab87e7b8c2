"""The receiver on paper: which slot sounds where, on clean and bad networks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES
from meshcall.wire.voice import Report
from tests.audio.paper_codec import paper_packet
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
    heard = run(20, lambda slot: NETWORK + phase)
    assert heard.decoder.decoded == list(range(len(heard.decoder.decoded)))
    delays = heard.delays(range(800, 990))
    assert len(delays) == 190
    # The network, up to 10 ms to the next pull, and one pull of margin where packets come right before a pull.
    assert max(delays) - NETWORK - phase <= 0.0126
    stats = heard.receiver.stats()
    assert stats.concealed == stats.missing == stats.loss == 0
    assert heard.receiver.report() == Report()


def test_in_steady_state_nothing_is_scaled() -> None:
    sound = run(30, lambda slot: NETWORK + 0.003).sound()
    settled = sound[48_000 * 15 : 48_000 * 29]
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


def test_the_other_sides_report_is_handed_on_once() -> None:
    receiver, _ = new_receiver()
    receiver.push(0.0, paper_packet(1, report=Report(loss=0.2)))
    assert receiver.heard() is None
    receiver.pull(0.0)
    heard = receiver.heard()
    assert heard is not None and heard.loss == pytest.approx(0.2, abs=0.01)
    assert receiver.heard() is None
