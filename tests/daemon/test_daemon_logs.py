"""Logs: their form, and what must never be in them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall import logs
from meshcall.logs import log, redact, set_up

ADDRESS = "mc1qywl5dumf90s5nvzzkkrgx7wlkksjnjtf2zuhvurhex2jn7fp6mesmee04e"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    logging.getLogger("meshcall").handlers.clear()
    logging.getLogger("meshcall").propagate = True


def _logger() -> logging.Logger:
    return logging.getLogger("meshcall.test")


def test_json_lines_have_the_event_and_its_fields(stream: io.StringIO) -> None:
    set_up("info", "json", stream)
    log(_logger(), logging.INFO, "joined the network", nodes=12, level="x")
    line = json.loads(stream.getvalue())
    assert line["event"] == "joined the network"
    assert line["nodes"] == 12
    assert line["level"] == "info"
    assert line["field_level"] == "x"
    assert line["time"].endswith("+00:00")


def test_plain_lines_are_short(stream: io.StringIO) -> None:
    set_up("info", "plain", stream)
    log(_logger(), logging.INFO, "ready", port=5)
    log(_logger(), logging.WARNING, "slow", reason="no node answered")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  ready  port=5", first)
    assert second.endswith('warning: slow  reason="no node answered"')


def test_the_level_is_kept(stream: io.StringIO) -> None:
    set_up("warning", "plain", stream)
    log(_logger(), logging.INFO, "not this")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["plain", "json"])
def test_secrets_and_contacts_are_never_logged(stream: io.StringIO, form: str) -> None:
    set_up("debug", form, stream)  # type: ignore[arg-type]
    log(
        _logger(),
        logging.DEBUG,
        f"looked up {ADDRESS}",
        passphrase="hunter2",
        seed=b"\x01" * 32,
        nested={"token": "abc123", "list": [ADDRESS.upper(), "ab" * 32]},
        raw=b"bytes",
    )
    said = stream.getvalue()
    for secret in ("hunter2", "abc123", ADDRESS, ADDRESS.upper(), "ab" * 32, "bytes'"):
        assert secret not in said


@pytest.mark.parametrize(
    "ip", ["192.0.2.7", "192.0.2.7:6881", "2001:db8::7", "[2001:db8::7]:6881", "::1", "fe80::1%eth0"]
)
def test_ip_addresses_are_for_the_debug_level(stream: io.StringIO, ip: str) -> None:
    set_up("debug", "plain", stream)
    log(_logger(), logging.INFO, "peer", where=ip, text=f"from {ip} again")
    assert ip not in stream.getvalue()
    log(_logger(), logging.DEBUG, "peer", where=ip)
    assert ip in stream.getvalue()


def test_what_is_no_address_stays() -> None:
    for text in ("12:30:59", "version 1.2.3", "a: b", "period 20779 :: next", "10 of 16"):
        assert redact(text, hide_ip=True) == text


def test_a_traceback_is_redacted_too(stream: io.StringIO) -> None:
    set_up("info", "json", stream)
    try:
        raise ValueError(f"bad packet from 192.0.2.7:5 about {ADDRESS}")
    except ValueError as fault:
        _logger().error("a defect", exc_info=fault)
    line = json.loads(stream.getvalue())
    assert "ValueError" in line["traceback"]
    assert "192.0.2.7" not in stream.getvalue()
    assert ADDRESS not in stream.getvalue()


@given(st.text(max_size=300))
def test_redaction_takes_any_text(text: str) -> None:
    assert isinstance(redact(text, hide_ip=True), str)
    assert "192.0.2.99" not in redact(f"{text} 192.0.2.99 {text}", hide_ip=True)


def test_long_values_are_cut(stream: io.StringIO) -> None:
    set_up("info", "plain", stream)
    log(_logger(), logging.INFO, "long", text="y" * 100_000)
    assert len(stream.getvalue()) < logs.VALUE_CHARACTERS_MAX + 200
