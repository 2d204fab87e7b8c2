"""A call while it rings: packets are counted and nothing of them is kept; the talk begins with what that taught."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES
from meshcall.audio.transceiver import WAY_SILENT_SECONDS, Transceiver
from meshcall.wire.coded import WHOLE, Coded
from meshcall.wire.voice import Cover, Report, VoicePacket, decode_voice, encode_voice
from tests.audio.paper_codec import PaperDecoder, paper_packet, slot_of

START = 100.0
NETWORK = 0.02
SILENCE = np.zeros(PULL_SAMPLES, np.int16)
RELAY, DIRECT = b"relay", b"direct"
LIMIT = 70_000


class PaperEncoder:
    """Frames of nothing."""

    def encode(self, sound: object, size: int) -> Coded:
        return Coded(WHOLE[0], bytes(size))

    def expect_loss(self, share: float, *, inband: bool) -> None:
        return None


@dataclass
class End:
    """A pair, its decoders, what it played and what it sent."""

    decoders: list[PaperDecoder] = field(default_factory=list)
    played: list[int] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transceiver = Transceiver(
            START, PaperEncoder(), self._decoder, call=7, slot=0, limit_bits_per_second=LIMIT
        )

    def _decoder(self) -> PaperDecoder:
        self.decoders.append(PaperDecoder())
        return self.decoders[-1]

    def tick(self, now: float) -> None:
        """10 ms: what a device and the loop do."""
        block = self.transceiver.receiver.pull(now)
        self.played += sorted({slot for sample in block if (slot := slot_of(int(sample))) is not None})
        self.transceiver.report(now)
        payload = self.transceiver.sender.push(now, SILENCE)
        if payload is not None:
            self.sent.append(payload)


def ring(end: End, packets: int, *, begin: int = 0, lost: int = 0, link: int = 1, path: bytes = RELAY) -> float:
    """The other side's packets of 20 ms, of which every `lost`-th does not come; when that is over."""
    for n in range(begin, begin + packets):
        sent = START + 0.02 * n
        if not lost or n % lost:
            end.transceiver.unheard(sent + NETWORK, link, path, paper_packet(n))
        for half in (0.0, 0.01):
            end.tick(sent + NETWORK + half)
    return START + 0.02 * (begin + packets) + NETWORK


def test_while_it_rings_packets_are_reported_and_none_is_decoded_kept_or_played() -> None:
    end = End()
    ring(end, 200, lost=5)
    assert end.transceiver.receiver.report().loss == pytest.approx(0.2, abs=0.02)
    assert end.played == []
    (decoder,) = end.decoders
    assert decoder.decoded == decoder.inband == [] and decoder.concealed == 0
    assert len(end.transceiver.receiver._buffer) == 0
    told = max(decode_voice(payload).report.loss for payload in end.sent[-20:])
    assert told == pytest.approx(0.2, abs=0.05), "it is told to the other side"


def test_the_queue_that_was_there_at_the_answer_is_known_for_what_it_is() -> None:
    """Delays rise while it rings: the least one is that of the first packets, not that of the first heard."""
    end = End()
    for n in range(300):
        now = START + 0.02 * n
        late = NETWORK + max(0.0, min(0.4, 0.004 * (n - 100)))
        if n == 250:
            end.transceiver.open(now, 1)
        if n < 250:
            end.transceiver.unheard(now + late, 1, RELAY, paper_packet(n))
        else:
            end.transceiver.arrived(now + late, RELAY, paper_packet(n))
        end.tick(now + late)
        end.tick(now + late + 0.01)
    assert end.transceiver.receiver.report().queue == pytest.approx(0.4, abs=0.03)


def test_what_is_said_right_after_the_answer_is_heard_and_what_was_counted_may_come_again() -> None:
    end = End()
    now = ring(end, 100)
    end.transceiver.open(now, 1)
    early = [paper_packet(n) for n in (97, 98, 99)]
    for n, payload in enumerate(early):
        end.transceiver.arrived(START + 0.02 * (97 + n) + NETWORK, RELAY, payload)
    for n in range(100, 200):
        end.transceiver.arrived(START + 0.02 * n + NETWORK, RELAY, paper_packet(n))
        for half in (0.0, 0.01):
            end.tick(START + 0.02 * n + NETWORK + half)
    assert end.decoders[0].decoded[:4] == [97, 98, 99, 100]
    stats = end.transceiver.receiver.stats()
    assert stats.missing == stats.restarts == 0
    assert not {"copy", "slot"} & set(stats.refused)
    assert stats.packets == 103, "statistics are of the talk"
    assert stats.jitter_seconds <= 0.02, "what waited for the answer did not wait for the network"


def test_another_device_than_the_one_that_was_counted_answers() -> None:
    end = End()
    now = ring(end, 100, link=1)
    end.transceiver.open(now, 2)
    for n in range(60):
        at = now + 0.02 * n
        end.transceiver.arrived(at, DIRECT, paper_packet(30_000 + n))
        for half in (0.0, 0.01):
            end.tick(at + half)
    assert len(end.decoders) == 2
    assert end.decoders[1].decoded[:2] == [30_000, 30_001], "not a packet is lost to finding that out"


def test_the_least_delay_is_forgotten_for_a_path_that_packets_come_by_and_for_none_that_ours_take() -> None:
    end = End()
    ring(end, 100)
    end.transceiver.sender.path_changed(START + 2.0)
    ring(end, 50, begin=100)
    base = end.transceiver.receiver._reception._base  # type: ignore[union-attr]
    assert base is not None
    for n in range(150, 155):  # both come for a while
        end.transceiver.unheard(START + 0.02 * n + NETWORK, 1, RELAY, paper_packet(n))
        end.transceiver.unheard(START + 0.02 * n + NETWORK + 0.15, 1, DIRECT, paper_packet(n))
    end.tick(START + 3.2)
    assert end.transceiver.receiver._reception._base == pytest.approx(base, abs=0.001)  # type: ignore[union-attr]
    for n in range(155, 155 + int(WAY_SILENT_SECONDS / 0.02) + 40):
        end.transceiver.unheard(START + 0.02 * n + NETWORK + 0.15, 1, DIRECT, paper_packet(n))
        for half in (0.0, 0.01):
            end.tick(START + 0.02 * n + NETWORK + 0.15 + half)
    assert end.transceiver.receiver.report().queue == 0.0, "the longer way is no queue"


def test_a_narrow_line_of_theirs_shows_in_their_frames() -> None:
    end = End()
    end.transceiver.open(START, 1)
    for n in range(2000):
        end.tick(START + n * 0.01)
    assert end.transceiver.is_narrow, "nothing was told: it never climbed"
    end = End()
    ring(end, 400)
    assert not end.transceiver.is_narrow
    half = bytes(140)
    storm = VoicePacket(7, 402, WHOLE[1], False, Report(), half, (Cover(1, 1),), (half,))
    end.transceiver.unheard(START + 8.5, 1, RELAY, encode_voice(storm))
    end.tick(START + 8.5)
    assert not end.transceiver.is_narrow, "long frames of a full rate are those of a storm"
    end.transceiver.unheard(START + 9.0, 1, RELAY, paper_packet(404, 3))
    end.tick(START + 9.0)
    assert end.transceiver.is_narrow


def test_a_queue_that_only_the_round_trip_shows_lowers_the_rate() -> None:
    """The other side began to listen on a full line: it reports no queue, and packets are half a second under way."""
    rates = {}
    for trip in (0.1, 0.6):
        end = End()
        end.transceiver.round_trip = 0.1
        ring(end, 400)
        end.transceiver.open(START + 8.1, 1)
        end.transceiver.round_trip = trip
        ring(end, 150, begin=410)
        rates[trip] = end.transceiver.sender.shape.size / end.transceiver.sender.shape.seconds
    assert rates[0.6] < 0.7 * rates[0.1]


def test_round_trips_of_a_line_that_stood_still_are_no_queue() -> None:
    end = End()
    end.transceiver.round_trip = 0.1
    ring(end, 400)
    end.transceiver.open(START + 8.1, 1)
    ring(end, 300, begin=410)
    sizes = set()
    for trip, packets, begin in ((0.6, 45, 710), (0.1, 100, 755)):  # of probes that waited; the next ones do not
        end.transceiver.round_trip = trip
        ring(end, packets, begin=begin)
        sizes.add(end.transceiver.sender.shape.size)
    assert sizes == {121}, "70,000 with the headers"


def test_a_standstill_in_which_nothing_is_told_is_no_queue_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a second, both ways: the first look after it sees the round trip of a probe that had waited."""
    end = End()
    end.transceiver.round_trip = 0.1
    ring(end, 400)
    end.transceiver.open(START + 8.1, 1)
    ring(end, 300, begin=410)
    told: list[float] = []
    reported = end.transceiver.sender.reported

    def noted(
        now: float, report: Report, round_trip: float | None = None, *, hidden: float, late: float | None
    ) -> None:
        told.append(hidden)
        reported(now, report, round_trip, hidden=hidden, late=late)

    monkeypatch.setattr(end.transceiver.sender, "reported", noted)
    end.transceiver.round_trip = 1.6
    ring(end, 20, begin=790)  # 1.6 s later
    end.transceiver.round_trip = 0.1
    ring(end, 50, begin=810)
    assert told and max(told) == 0.0
