"""Tells systemd how the service is doing (sd_notify(3)); does nothing where systemd did not start us."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send `state` ("READY=1", "STATUS=...", several with newlines).  False: nobody wants to know."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if where[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
        return False
    name = "\0" + where[1:] if where.startswith("@") else where  # '@' stands for the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.sendto(state.encode(), name)
    except OSError:
        return False  # a supervisor that does not listen is no reason to stop
    return True


def watchdog_seconds() -> float | None:
    """How often systemd wants WATCHDOG=1 (half of what it asks for); None: not at all."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2e6 or None
