"""Echoes, and that no two kinds of control message begin alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import control, path, relay


def test_first_bytes_are_those_of_the_formats() -> None:
    assert control.MESSAGE_CANDIDATES == path.MESSAGE_CANDIDATES
    assert control.MESSAGE_LEASE == relay.LEASE_CHANNEL
    assert control.FRAMES_PATH_FROM <= path.KIND_PROBE < path.KIND_ANSWER <= control.FRAMES_PATH_TO


@given(st.integers(0, 2**32 - 1), st.integers(4, 1000))
def test_an_echo_comes_back_as_it_was(number: int, size: int) -> None:
    data = control.encode_echo(number, size)
    assert len(data) == size
    assert control.decode_echo(data) == number


@given(st.binary(max_size=1100))
def test_any_bytes_are_an_echo_or_refused(data: bytes) -> None:
    try:
        assert 0 <= control.decode_echo(data) < 2**32
    except BadPacket:
        assert not 4 <= len(data) <= 1000


@pytest.mark.parametrize(("number", "size"), [(-1, 64), (2**32, 64), (0, 3), (0, 1001)])
def test_what_cannot_be_sent_is_refused(number: int, size: int) -> None:
    with pytest.raises(ValueError, match="echo"):
        control.encode_echo(number, size)
