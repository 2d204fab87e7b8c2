"""The control stream: in order, once, whatever the wire does; bounded."""

from __future__ import annotations

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
    trip.timed_out()
    assert trip.timeout == pytest.approx(0.1)
    for _ in range(50):
        trip.add(0.3)
    assert 0.3 < trip.timeout < 0.5
    for _ in range(20):
        trip.timed_out()
    assert trip.timeout == 4.0


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
