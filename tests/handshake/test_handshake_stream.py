"""The control stream: in order, once, whatever the wire does; bounded."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.handshake.stream import (
    MESSAGE_BYTES_MAX,
    WAITING_BYTES_MAX,
    WINDOW_SEGMENTS,
    LinkBusyError,
    RoundTrip,
    Stream,
)
from meshcall.wire.link import INNER_ACK, INNER_SEGMENT, encode_ack, encode_segment


def exchange(
    messages: list[bytes], *, seed: int, loss: float, delay: float = 0.03, jitter: float = 1.0, limit: float = 300.0
) -> tuple[list[bytes], float, int]:
    """What arrives, when, and in how many packets."""
    rng = Random(seed)
    sender, receiver = Stream(), Stream()
    now = 0.0
    flying: list[tuple[float, int, Stream, int, bytes]] = []
    packets = 0
    for message in messages:
        sender.send(now, message)
    while now < limit and (sender.waiting_bytes or flying or len(receiver.messages) < len(messages)):
        for here, there in ((sender, receiver), (receiver, sender)):
            for kind, payload in here.outbox:
                packets += 1
                if rng.random() >= loss:
                    flying.append((now + delay * rng.uniform(1, 1 + jitter), packets, there, kind, payload))
            here.outbox.clear()
        flying.sort(key=lambda one: one[:2])
        wake = sender.next_wake()
        if flying and (wake is None or flying[0][0] <= wake):
            now, _, there, kind, payload = flying.pop(0)
            there.segment(payload) if kind == INNER_SEGMENT else there.ack(now, payload)
        else:
            assert wake is not None
            now = max(now, wake)
            sender.wake(now)
    return receiver.messages, now, packets


@given(messages=st.lists(st.binary(max_size=5000), max_size=12), seed=st.integers(0, 2**16), loss=st.floats(0, 0.5))
def test_all_messages_arrive_in_order(messages: list[bytes], seed: int, loss: float) -> None:
    assert exchange(messages, seed=seed, loss=loss)[0] == messages


def test_the_longest_message_and_a_full_buffer() -> None:
    messages = [bytes([number]) * MESSAGE_BYTES_MAX for number in range(WAITING_BYTES_MAX // MESSAGE_BYTES_MAX)]
    got, seconds, packets = exchange(messages, seed=1, loss=0.0, jitter=0.0)
    assert got == messages
    assert seconds < 0.6  # ten round trips of 60 ms
    assert packets < 2 * 16 * 16 * 1.05


def test_limits() -> None:
    stream = Stream()
    with pytest.raises(ValueError, match="16385"):
        stream.send(0.0, bytes(MESSAGE_BYTES_MAX + 1))
    for _ in range(WAITING_BYTES_MAX // MESSAGE_BYTES_MAX):
        stream.send(0.0, bytes(MESSAGE_BYTES_MAX))
    with pytest.raises(LinkBusyError, match="has not taken"):
        stream.send(0.0, b"x")
    assert len(stream.outbox) == 10


def test_a_receiver_keeps_no_more_than_its_window() -> None:
    stream = Stream()
    with pytest.raises(BadPacket, match="window"):
        stream.segment(encode_segment(WINDOW_SEGMENTS, True, b""))
    for number in range(1, WINDOW_SEGMENTS):
        stream.segment(encode_segment(number, False, b"x"))
    assert len(stream._later) == WINDOW_SEGMENTS - 1
    assert not stream.messages
    assert stream.outbox[-1] == (INNER_ACK, encode_ack(0, 2 ** (WINDOW_SEGMENTS - 1) - 1))


def test_a_message_without_end_is_refused() -> None:
    stream = Stream()
    with pytest.raises(BadPacket, match="message size"):
        for number in range(100):
            stream.segment(encode_segment(number, False, bytes(1100)))
    assert len(stream._partial) <= MESSAGE_BYTES_MAX + 1100


def test_an_acknowledgement_of_what_was_not_sent_is_refused() -> None:
    stream = Stream()
    stream.send(0.0, b"x")
    with pytest.raises(BadPacket, match="unsent"):
        stream.ack(0.0, encode_ack(2, 0))
    stream.ack(0.0, encode_ack(0, 2**64 - 1))
    assert stream.waiting_bytes == 1


@given(payload=st.binary(max_size=30), kind=st.sampled_from([INNER_SEGMENT, INNER_ACK]))
def test_any_payload_is_borne(payload: bytes, kind: int) -> None:
    stream = Stream()
    stream.send(0.0, b"x" * 3000)
    try:
        stream.segment(payload) if kind == INNER_SEGMENT else stream.ack(1.0, payload)
    except BadPacket as bad:
        assert bad.reason


def test_the_timeout_fits_the_round_trip() -> None:
    trip = RoundTrip()
    assert trip.timeout == 0.5
    for _ in range(50):
        trip.add(0.02)
    assert trip.timeout == pytest.approx(0.05)
    trip.timed_out(thin=False)
    assert trip.timeout == pytest.approx(0.1)
    for _ in range(50):
        trip.add(0.3)
    trip.answered()
    assert 0.3 < trip.timeout < 0.5
    for _ in range(20):
        trip.timed_out(thin=False)
    assert trip.timeout == 4.0


def test_where_little_is_under_way_the_timeout_is_doubled_only_after_six() -> None:
    trip = RoundTrip()
    trip.add(0.1)
    first = trip.timeout
    waits = []
    for _ in range(9):
        trip.timed_out(thin=True)
        waits.append(trip.timeout)
    assert waits == pytest.approx([first] * 6 + [2 * first, 4 * first, 8 * first])
    trip.answered()
    assert trip.timeout == first


def test_what_the_owner_has_measured_counts_on_another_path() -> None:
    trip = RoundTrip()
    for _ in range(20):
        trip.add(0.35)
    trip.moved()
    trip.patience = 0.12
    assert trip.timeout == pytest.approx(0.13, abs=0.011)
    assert trip.seconds == pytest.approx(0.35)
    trip.add(0.2)  # a queue that the owner does not know of
    assert trip.seconds == pytest.approx(0.2)
    assert 0.2 < trip.timeout < 0.22
    trip.moved()
    assert trip.patience is None


def test_a_lost_segment_costs_about_one_round_trip() -> None:
    sender, receiver = Stream(), Stream()
    for number in range(8):
        sender.send(0.0, b"%d" % number)
    lost, *others = sender.outbox
    sender.outbox.clear()
    for _, payload in others:
        receiver.segment(payload)
    for _, payload in receiver.outbox:
        sender.ack(0.5, payload)
    assert sender.outbox == [lost]
    receiver.segment(lost[1])
    assert [int(message) for message in receiver.messages] == list(range(8))


def sent(stream: Stream) -> list[int]:
    """The numbers of the segments in the outbox, which is empty then."""
    numbers = [int.from_bytes(payload[:4], "big") for kind, payload in stream.outbox if kind == INNER_SEGMENT]
    stream.outbox.clear()
    return numbers


def test_a_short_message_on_a_line_that_loses_much_comes_soon() -> None:
    """A person waits for it: 30 % lost both ways, round trips of 60 to 80 ms known from what went before."""
    took = []
    for seed in range(300):
        rng = Random(seed)
        sender, receiver = Stream(), Stream()
        for _ in range(4):
            sender.round_trip.add(rng.uniform(0.06, 0.08))
        sender.send(0.0, b"hello")
        now = 0.0
        arrivals: list[float] = []
        while not receiver.messages:
            arrivals += [now + rng.uniform(0.03, 0.04) for _ in sent(sender) if rng.random() >= 0.3]
            now = min([*arrivals, sender.next_wake() or math.inf])
            if now in arrivals:
                receiver.segment(encode_segment(0, True, b"hello"))
            else:
                sender.wake(now)
        took.append(now)
    took.sort()
    assert took[150] < 0.05
    assert took[285] < 0.4  # 95 %: three sendings, as many lost in a row as that
    assert took[299] < 1.0


def test_of_two_acknowledged_at_once_the_later_tells_the_round_trip() -> None:
    """The acknowledgement of the first was lost; its own time says how long it was until the second was sent."""
    sender = Stream()
    sender.send(0.0, b"a")
    sender.send(2.0, b"b")
    sender.ack(2.1, encode_ack(2, 0))
    assert sender.round_trip.seconds == pytest.approx(0.1)


def test_one_of_two_that_left_together_is_sent_again_soon() -> None:
    sender = Stream()
    for _ in range(10):
        sender.round_trip.add(0.1)
    sender.round_trip.patience = 0.9
    sender.send(0.0, b"a")
    sender.send(0.0, b"b")
    assert sent(sender) == [0, 1]
    sender.ack(0.1, encode_ack(0, 1))  # the second one has come
    assert sender.next_wake() == pytest.approx(0.1125)
    sender.wake(0.1125)
    assert sent(sender) == [0]
    assert sender.next_wake() == pytest.approx(
        0.1125 + 0.9
    )  # it was sent after what has come: nothing has overtaken it


def test_all_of_a_thin_stream_is_sent_again_and_the_oldest_of_a_thick_one() -> None:
    thin, thick, heavy = Stream(), Stream(), Stream()
    for number in range(4):
        thin.send(0.0, b"%d" % number)
    for number in range(5):
        thick.send(0.0, b"%d" % number)
    heavy.send(0.0, bytes(1300))
    for stream, again in ((thin, [0, 1, 2, 3]), (thick, [0]), (heavy, [0])):
        sent(stream)
        stream.wake(0.5)
        assert sent(stream) == again
    assert thin.next_wake() == pytest.approx(1.0)
    assert thick.next_wake() == heavy.next_wake() == pytest.approx(1.5)


@pytest.mark.parametrize("trip", [0.5, 1.0, 2.5])
def test_a_timeout_shorter_than_the_round_trip_is_found_out(trip: float) -> None:
    """A queue has built up since: everything is acknowledged, and sent again before the acknowledgement can come."""
    sender, receiver = Stream(), Stream()
    sender.round_trip.add(0.05)
    now, copies = 0.0, []
    for _ in range(6):
        sender.send(now, b"x")
        flying: list[tuple[float, bytes]] = []
        count = 0
        while sender.waiting_bytes or flying:
            for payload in [payload for kind, payload in sender.outbox if kind == INNER_SEGMENT]:
                count += 1
                receiver.segment(payload)
                flying.append((now + trip, receiver.outbox.pop()[1]))
            sender.outbox.clear()
            wake = sender.next_wake()
            if flying and (wake is None or flying[0][0] <= wake):
                now, ack = flying.pop(0)
                sender.ack(now, ack)
            else:
                assert wake is not None
                now = wake
                sender.wake(now)
        copies.append(count)
        now += 1.0
    assert copies[0] <= 16
    assert max(copies[2:]) == 1
    assert sender.round_trip.timeout > trip


def test_a_line_that_is_dead_for_an_hour_costs_little() -> None:
    sender = Stream()
    sender.send(0.0, b"x")
    count = 0
    while (now := sender.next_wake()) is not None and now < 3600:
        count += len(sent(sender))
        sender.wake(now)
    assert count < 920  # one in four seconds
    assert len(sender._flight[0].times) == 16


def test_what_was_sent_twice_tells_no_round_trip_but_ends_the_count_of_timeouts() -> None:
    sender = Stream()
    sender.round_trip.add(0.1)
    first = sender.round_trip.timeout
    sender.send(0.0, b"x")
    now = 0.0
    for _ in range(8):
        now = sender.next_wake() or 0.0
        sender.wake(now)
    assert sender.round_trip.timeout > 3 * first
    sender.ack(now + 0.02, encode_ack(1, 0))
    assert sender.round_trip.seconds == pytest.approx(0.1)
    sender.send(now + 1, b"y")
    assert sender.next_wake() == pytest.approx(now + 1 + first)


def test_an_acknowledgement_that_was_overtaken_tells_no_round_trip_of_long_ago() -> None:
    sender = Stream()
    sender.round_trip.add(0.1)
    sender.send(0.0, b"x")
    sender.wake(0.31)  # sent again, and one of the two is lost
    sender.ack(0.4, encode_ack(1, 0))
    sender.send(3.0, b"y")
    sender.send(3.0, b"z")
    sender.ack(3.1, encode_ack(3, 0))
    sender.ack(3.11, encode_ack(2, 0))  # left before the other one
    assert sender.round_trip.seconds == pytest.approx(0.1)
    late = Stream()
    late.round_trip.add(0.1)
    late.send(0.0, b"x")
    late.wake(0.31)
    late.ack(0.4, encode_ack(1, 0))
    late.ack(60.0, encode_ack(1, 0))  # from whoever: no round trip is as long as that
    assert late.round_trip.seconds == pytest.approx(0.1)
