"""Structured logs on the standard library: plain lines for people or JSON lines for programs.

What must not be in a log is taken out here, whoever wrote it: secrets and the address of a contact
at every level, IP addresses and other endpoints above the debug level.  Cores never log.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "(hidden)"
VALUE_CHARACTERS_MAX = 2000

_SECRET_WORDS = re.compile(r"secret|passphrase|password|seed|private|scalar|token|words|mnemonic|contact", re.I)
_LONG_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64,}(?![0-9a-fA-F])")  # keys: 32 bytes and more
_ADDRESS = re.compile(r"\bmc1[02-9ac-hj-np-z]{20,}\b", re.I)  # the bech32 alphabet
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?(?![\d.])")
_IPV6 = re.compile(r"\[?(?<![0-9A-Za-z:])(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:.]{3,}(?:%\w+)?(?:\]:\d{1,5}|\])?")
_CLOCK = re.compile(r"\d{1,2}:\d{2}:\d{2}(?:\.\d+)?$")


def redact(text: str, *, hide_ip: bool) -> str:
    """`text` without secrets and meshcall addresses, and without IP addresses if `hide_ip`."""
    text = _LONG_HEX.sub(HIDDEN, text)
    text = _ADDRESS.sub("mc1" + HIDDEN, text)
    if hide_ip:
        text = _IPV4.sub(HIDDEN, text)
        text = _IPV6.sub(lambda found: found[0] if _CLOCK.match(found[0]) else HIDDEN, text)
    return text


def _clean(name: str, value: object, *, hide_ip: bool) -> object:
    if _SECRET_WORDS.search(name):
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray):
        return HIDDEN  # raw bytes are keys, packets or endpoints: none of them belongs here
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), one, hide_ip=hide_ip) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(name, one, hide_ip=hide_ip) for one in value]
    return redact(str(value)[:VALUE_CHARACTERS_MAX], hide_ip=hide_ip)


def log(logger: logging.Logger, level: int, event: str, /, **fields: object) -> None:
    """Log `event`, a short fixed sentence, with fields for what varies."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", event, extra={"fields": fields})


class _Formatter(logging.Formatter):
    """What both forms share: which record may say what."""

    def parts(self, record: logging.LogRecord) -> tuple[str, dict[str, object], str]:
        hide_ip = record.levelno > logging.DEBUG
        raw: Mapping[str, object] = getattr(record, "fields", {})
        fields = {name: _clean(name, value, hide_ip=hide_ip) for name, value in raw.items()}
        trace = ""
        if record.exc_info and record.exc_info[0] is not None:
            trace = redact("".join(traceback.format_exception(*record.exc_info)).rstrip(), hide_ip=hide_ip)
        return redact(record.getMessage(), hide_ip=hide_ip), fields, trace


class JsonFormatter(_Formatter):
    """One JSON object a line: time (UTC), level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields, trace = self.parts(record)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            **{
                (f"field_{name}" if name in ("time", "level", "logger", "event") else name): one
                for name, one in fields.items()
            },
        }
        if trace:
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainFormatter(_Formatter):
    """For people: time of day, level unless it is info, the event and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields, trace = self.parts(record)
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        rest = "".join(f"  {name}={_show(value)}" for name, value in fields.items())
        return f"{when}  {level}{event}{rest}" + (f"\n{trace}" if trace else "")


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    inner = text[1:-1]
    return inner if text.startswith('"') and inner and " " not in inner and "\\" not in inner else text


def set_up(level: str = "info", form: Literal["plain", "json"] = "plain", stream: TextIO | None = None) -> None:
    """Send the logs of meshcall to `stream` (default: standard error)."""
    logger = logging.getLogger("meshcall")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    handler: logging.Handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter())
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record made by `log`, before redaction; for tests and other handlers."""
    return dict(getattr(record, "fields", {}))
