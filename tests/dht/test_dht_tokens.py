"""Write tokens."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.tokens import SECRET_LIFE_SECONDS, TOKEN_BYTES, Tokens

HERE = endpoint("203.0.113.7", 6881)


def test_a_token_is_good_for_its_address_whatever_the_port() -> None:
    tokens = Tokens(0.0, Random(1))
    token = tokens.make(0.0, HERE)
    assert len(token) == TOKEN_BYTES
    assert tokens.good(1.0, HERE, token)
    assert tokens.good(1.0, endpoint("203.0.113.7", 1), token)
    assert not tokens.good(1.0, endpoint("203.0.113.8", 6881), token)
    assert not tokens.good(1.0, endpoint("2001:db8::7", 6881), token)


@given(st.floats(0, 1e6), st.floats(0, 2000))
def test_a_token_lives_at_least_five_and_at_most_ten_minutes(made: float, later: float) -> None:
    tokens = Tokens(0.0, Random(1))
    token = tokens.make(made, HERE)
    good = tokens.good(made + later, HERE, token)
    if later < SECRET_LIFE_SECONDS - 1e-6:
        assert good
    if later > 2 * SECRET_LIFE_SECONDS + 1e-6:
        assert not good


def test_a_token_dies_also_where_rotations_were_asked_for_in_between() -> None:
    tokens = Tokens(0.0, Random(1))
    token = tokens.make(0.0, HERE)
    for now in range(0, 601, 50):
        assert tokens.good(float(now), HERE, token) is (now < 600)


@given(st.binary(max_size=40), st.sampled_from([6, 18]))
def test_a_guessed_token_is_not_good(token: bytes, size: int) -> None:
    tokens = Tokens(0.0, Random(2))
    assert not tokens.good(0.0, Endpoint(bytes(range(size))), token)


def test_another_node_makes_another_token() -> None:
    assert Tokens(0.0, Random(1)).make(0.0, HERE) != Tokens(0.0, Random(2)).make(0.0, HERE)
