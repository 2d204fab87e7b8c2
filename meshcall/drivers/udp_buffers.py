"""The room that the system keeps for the datagrams of a socket, and what it dropped for want of it."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = (32, 33) if sys.platform == "linux" else (None, None)
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
"""linux/sock_diag.h: the last of them are the drops."""


def enlarge_buffers(one: socket.socket, size: int) -> int:
    """Room for `size` bytes each way, beyond the system's limit where we may; returns the room to receive."""
    for forced, wished in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            if forced is None:
                raise OSError(errno.ENOPROTOOPT, "not on Linux")
            one.setsockopt(socket.SOL_SOCKET, forced, size)
        except OSError:
            with contextlib.suppress(OSError):  # a wish; the system may give less
                one.setsockopt(socket.SOL_SOCKET, wished, size)
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def datagrams_dropped(one: socket.socket) -> int | None:
    """How many datagrams the system dropped for want of room in this socket, since it was opened; None: not told."""
    if sys.platform != "linux":
        return None
    try:
        memory = one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(memory)[-1])
    except (OSError, struct.error):
        return None
