"""What the ops of the local API take as arguments, and that nothing else gets as far as the node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.daemon import service
from meshcall.drivers.control import NoArgs

ARGS: tuple[type[msgspec.Struct], ...] = (
    NoArgs, service.LookupArgs, service.PingArgs, service.CallArgs, service.AnswerArgs, service.VoiceArgs,
)  # fmt: skip
NAMES = sorted({name for kind in ARGS for name in kind.__struct_fields__} | {"unknown", ""})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("/a.wav"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "path", ["", "a.wav", "../a.wav", "~/a.wav", "/a\0b", "\0", "/" + "a" * 5000, "C:\\a.wav", 5, ["/a"]]
)
def test_a_file_is_named_by_an_absolute_path(path: Any) -> None:
    for kind in (service.CallArgs, service.AnswerArgs):
        for name in ("microphone", "speaker"):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({"address": "x", name: path} if kind is service.CallArgs else {name: path}, kind)
    assert msgspec.convert({"speaker": "/tmp/a b\n.wav"}, service.AnswerArgs).speaker == "/tmp/a b\n.wav"


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("inf"), float("nan"), "60", True])
def test_how_long_to_talk_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"talk_seconds": seconds}, service.AnswerArgs)


@given(st.sampled_from(ARGS), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_any_arguments_are_of_the_form_or_refused(kind: type[msgspec.Struct], values: dict[str, Any]) -> None:
    try:
        args = msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return
    assert set(values) <= set(kind.__struct_fields__)
    for name in ("talk_seconds", "interval_seconds"):
        assert getattr(args, name, None) is None or 0 < getattr(args, name) <= 86_400
    for name in ("microphone", "speaker"):
        assert (getattr(args, name, None) or "/").startswith("/")
    assert 1 <= getattr(args, "count", 1) <= 100_000
