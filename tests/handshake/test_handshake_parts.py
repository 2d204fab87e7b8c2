"""Replay window, times of first messages, budgets, cookies, pieces, safety words."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.errors import BadPacket
from meshcall.handshake.budget import SOURCES_MAX, Budget, SourceBudgets, source_of
from meshcall.handshake.cookie import (
    COOKIE_SECONDS,
    SECRET_SECONDS,
    CookieJar,
    cookie_key,
    mac1_fits,
    mac1_of,
    mac_key,
    open_cookie,
    with_macs,
)
from meshcall.handshake.indexes import Indexes
from meshcall.handshake.pieces import ASSEMBLY_SECONDS, Assembler, cut
from meshcall.handshake.replay import (
    DEVICES_MAX,
    TIMES_MAX,
    TOLERANCE_SECONDS,
    WINDOW_PACKETS,
    Times,
    Window,
    decode_time,
    encode_time,
)
from meshcall.handshake.safety import WORDS, safety_words
from meshcall.path.paths import direct, relayed
from meshcall.wire.link import MESSAGE_BYTES_MAX, Piece, decode_cookie

SUITE = Sodium()
PATH = direct(endpoint("192.0.2.1", 1000))


@given(st.lists(st.integers(0, 5 * WINDOW_PACKETS), max_size=200))
def test_the_window_against_a_set(counters: list[int]) -> None:
    window, seen = Window(), set()
    for counter in counters:
        greatest = max(seen, default=-1)
        fresh = counter not in seen and counter > greatest - WINDOW_PACKETS
        assert window.is_new(counter) is fresh
        if fresh:
            window.add(counter)
            seen.add(counter)
            assert window.greatest == max(seen)


def test_a_far_counter_forgets_the_window_and_nothing_passes_twice() -> None:
    window = Window()
    for counter in (0, 1, 2**32 - 1):
        window.add(counter)
    assert not any(window.is_new(counter) for counter in (0, 1, 2, 2**32 - 1))
    assert window.is_new(2**32 - WINDOW_PACKETS)
    assert not window.is_new(2**32 - 1 - WINDOW_PACKETS)


def test_times_are_taken_once() -> None:
    times = Times()
    now = 1_000_000.0
    at = int(now * 10**9)
    assert times.accept(b"a", at, now)
    assert not times.accept(b"a", at, now)
    assert times.accept(b"b", at, now)
    assert times.accept(b"a", at - 600 * 10**9, now), "its clock was set back"
    assert times.accept(b"a", at + 600 * 10**9, now)
    for ahead in (-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1, 2**62):
        assert not times.accept(b"c", at + int(ahead) * 10**9, now)
    assert len(times) == 2


def test_old_times_are_refused_when_forgotten_and_all_is_bounded() -> None:
    times = Times()
    for second in range(TIMES_MAX + 10):
        assert times.accept(b"a", second * 10**9 + 1, 0.0)
    assert not any(times.accept(b"a", second * 10**9 + 1, 0.0) for second in range(TIMES_MAX + 10))
    assert times.accept(b"a", (TIMES_MAX + 5) * 10**9, 0.0)
    for number in range(DEVICES_MAX + 10):
        times.accept(number.to_bytes(4, "big"), 1, 0.0)
    assert len(times) == DEVICES_MAX


@given(st.integers(0, 2**63))
def test_tai64n_round_trip(nanoseconds: int) -> None:
    assert decode_time(encode_time(nanoseconds)) == nanoseconds


def test_tai64n_is_as_others_write_it() -> None:
    """The example of https://cr.yp.to/libtai/tai64.html: 1992-06-02 08:07:09 TAI, that is 08:06:43 UTC."""
    tai = 2**62 + 707472429 + 0
    assert tai.to_bytes(8, "big").hex() == "400000002a2b2c2d"
    assert encode_time((707472429 - 10) * 10**9).hex() == "400000002a2b2c2d" + "00000000"


@given(st.binary(min_size=12, max_size=12))
def test_any_time_is_borne(data: bytes) -> None:
    assert Times().accept(b"a", decode_time(data), 1_800_000_000.0) in (True, False)


def test_a_budget_fills_up_again() -> None:
    budget = Budget(0.0, rate=2.0, burst=3.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(0.4)
    assert budget.take(0.5)
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_sources_are_bounded_and_told_apart() -> None:
    budgets = SourceBudgets(1.0, 1.0)
    for number in range(SOURCES_MAX + 5):
        assert budgets.take(0.0, number.to_bytes(4, "big"))
    assert len(budgets) == SOURCES_MAX
    assert not budgets.take(0.0, (SOURCES_MAX + 4).to_bytes(4, "big"))
    four = [direct(endpoint("192.0.2.1", port)) for port in (1, 2)]
    assert source_of(four[0]) == source_of(four[1]) != source_of(direct(endpoint("192.0.2.2", 1)))
    six = [direct(endpoint(f"2001:db8::{host}", 1)) for host in ("1", "2")]
    assert source_of(six[0]) == source_of(six[1]) != source_of(direct(endpoint("2001:db8:0:1::1", 1)))
    through = [relayed(endpoint("192.0.2.1", 1), bytes([flow] * 8)) for flow in (1, 2)]
    assert source_of(through[0]) != source_of(through[1])


def test_cookies() -> None:
    static, other = bytes(32), bytes([1] * 32)
    jar = CookieJar(0.0, static, SUITE)
    plain = with_macs(b"covered", mac_key(static), None)
    assert mac1_fits(plain, mac_key(static))
    assert not mac1_fits(plain, mac_key(other))
    assert not jar.fits(0.0, PATH, plain)
    index, nonce, sealed = decode_cookie(jar.reply(0.0, PATH, b"indx", mac1_of(plain)))
    assert index == b"indx"
    assert open_cookie(SUITE, cookie_key(static), nonce, sealed, bytes(16)) is None
    assert open_cookie(SUITE, cookie_key(other), nonce, sealed, mac1_of(plain)) is None
    cookie = open_cookie(SUITE, cookie_key(static), nonce, sealed, mac1_of(plain))
    assert cookie is not None
    proved = with_macs(b"covered", mac_key(static), cookie)
    assert mac1_of(proved) == mac1_of(plain)
    assert jar.fits(0.0, PATH, proved)
    assert not jar.fits(0.0, direct(endpoint("192.0.2.1", 1001)), proved), "another port"
    assert not jar.fits(0.0, PATH, with_macs(b"other", mac_key(static), cookie)[:-16] + proved[-16:])
    assert jar.fits(COOKIE_SECONDS, PATH, proved)
    assert jar.fits(2 * SECRET_SECONDS - 1, PATH, proved)
    assert not jar.fits(3 * SECRET_SECONDS, PATH, proved)
    assert not CookieJar(0.0, static, SUITE).fits(0.0, PATH, proved)


@given(size=st.integers(1, MESSAGE_BYTES_MAX), seed=st.integers(0, 2**16))
def test_pieces_in_any_order_and_repeated(size: int, seed: int) -> None:
    rng = Random(seed)
    message = rng.randbytes(size)
    pieces = cut(message, 2, b"indx")
    shuffled = pieces * 2
    rng.shuffle(shuffled)
    assembler = Assembler()
    whole = [found for piece in shuffled if (found := assembler.add(0.0, PATH, piece)) is not None]
    assert whole
    assert set(whole) == {message}
    assert max(len(piece.data) for piece in pieces) - min(len(piece.data) for piece in pieces) < len(pieces)


def test_assembly_is_bounded_in_number_source_and_time() -> None:
    assembler = Assembler(limit=20, per_source=4)
    message = bytes(2000)

    def first(host: int, number: int) -> Piece:
        return cut(message + bytes([host, number]), 0, b"indx")[0]

    def path(host: int) -> bytes:
        return direct(endpoint(f"192.0.2.{host}", 1 + host))

    for number in range(4):
        assembler.add(0.0, path(1), first(1, number))
    with pytest.raises(BadPacket, match="one source"):
        assembler.add(0.0, path(1), first(1, 4))
    for host in range(2, 100):
        assembler.add(0.5, path(host), first(host, 0))
    assert len(assembler) == 20
    assert assembler.next_expiry() == 0.5 + ASSEMBLY_SECONDS
    assembler.expire(0.5 + ASSEMBLY_SECONDS)
    assert len(assembler) == 0
    assert not assembler._per_source
    assert assembler.next_expiry() is None


def test_pieces_of_two_messages_do_not_mix() -> None:
    assembler = Assembler()
    one, two = cut(bytes(2000), 0, b"indx"), cut(bytes([1] * 2000), 0, b"indx")
    assert assembler.add(0.0, PATH, one[0]) is None
    assert assembler.add(0.0, PATH, two[1]) is None
    forged = Piece(one[1].form, 1, 2, one[1].index, one[1].message_id, two[1].data)
    with pytest.raises(BadPacket, match="message id"):
        assembler.add(0.0, PATH, forged)
    with pytest.raises(BadPacket, match="piece count"):
        assembler.add(0.0, PATH, Piece(0, 2, 3, two[0].index, two[0].message_id, b"x"))
    with pytest.raises(BadPacket, match="piece differs"):
        assembler.add(0.0, PATH, Piece(0, 1, 2, two[0].index, two[0].message_id, b"x"))
    assert assembler.add(0.0, PATH, two[0]) == bytes([1] * 2000)


def test_indexes_are_unique_and_given_back() -> None:
    indexes = Indexes(SUITE, b"secret")
    drawn = [indexes.draw(number) for number in range(100)]
    assert len(set(drawn)) == 100
    assert [indexes.owner(index) for index in drawn] == list(range(100))
    indexes.free(drawn[0])
    assert indexes.owner(drawn[0]) is None
    assert indexes.token(drawn[1]) == Indexes(SUITE, b"secret").token(drawn[1]) != indexes.token(drawn[2])
    assert indexes.token(drawn[1]) != Indexes(SUITE, b"other").token(drawn[1])


def test_safety_words() -> None:
    assert safety_words(bytes(64)) == ("split", "slight", "asthma", "simple", "broccoli")
    seen = {safety_words(bytes([number]) * 64) for number in range(200)}
    assert len(seen) == 200
    assert all(len(words) == WORDS and all(word.isalpha() for word in words) for words in seen)
