"""Senders and receivers for the benches."""

from __future__ import annotations

from random import Random
from typing import Any

from standin import StandInReceiver, StandInSender


def sender(chance: Random, kbps: float, variant: str) -> Any:
    return StandInSender()


def receiver() -> Any:
    return StandInReceiver()


def facts_of(sender: Any, receiver: Any) -> dict[str, Any]:
    return {}
