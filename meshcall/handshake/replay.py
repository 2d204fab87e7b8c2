"""What has been seen before: packet counters in a sliding window (after RFC 6479), and times of first messages.

The times need no true clock.  A device's times are compared with its own earlier ones only, within a
window too, so that a clock which was set back by some minutes does not shut its owner out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

WINDOW_PACKETS: Final = 2048
"""How far a packet may be overtaken: 40 s of voice, or one second of a fast transfer."""

TIMES_MAX: Final = 32
"""Times kept of one device; an older one than the oldest of these is refused."""
DEVICES_MAX: Final = 4096
"""Devices whose times are kept; the longest silent ones are forgotten."""
TOLERANCE_SECONDS: Final = 2 * 3600
"""How far the clocks of two devices may be apart.  It bounds what a forgotten device's old messages can do."""

TAI64_EPOCH: Final = 2**62 + 10
TAI64N_BYTES: Final = 12


class Window:
    """Which of the last `WINDOW_PACKETS` counters have come."""

    __slots__ = ("_seen", "greatest")

    def __init__(self) -> None:
        self.greatest = -1
        """The greatest counter so far; -1: none."""
        self._seen = 0  # bit n: counter greatest - n

    def is_new(self, counter: int) -> bool:
        """Whether this counter may still come.  Ask before the packet is opened; it costs nothing."""
        behind = self.greatest - counter
        return behind < 0 or (behind < WINDOW_PACKETS and not self._seen >> behind & 1)

    def add(self, counter: int) -> None:
        """Count the counter of an authentic packet as seen.  Only such a one may move the window."""
        ahead = counter - self.greatest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        elif ahead >= WINDOW_PACKETS:
            self._seen, self.greatest = 1, counter
        else:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW_PACKETS) - 1)
            self.greatest = counter


def encode_time(nanoseconds: int) -> bytes:
    """TAI64N of so many nanoseconds since 1970 (leap seconds not counted, as everybody does)."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return (TAI64_EPOCH + seconds).to_bytes(8, "big") + rest.to_bytes(4, "big")


def decode_time(data: bytes) -> int:
    """The nanoseconds since 1970 of 12 bytes; any bytes give a number."""
    return (int.from_bytes(data[:8], "big") - TAI64_EPOCH) * 10**9 + int.from_bytes(data[8:], "big")


class Times:
    """The times of the first messages that each device has sent."""

    __slots__ = ("_devices",)

    def __init__(self) -> None:
        self._devices: OrderedDict[bytes, tuple[int, set[int]]] = OrderedDict()  # static key: refused up to, seen

    def __len__(self) -> int:
        return len(self._devices)

    def accept(self, static: bytes, time: int, unix_time: float) -> bool:
        """Whether a first message of this device and time (nanoseconds) is not a replay; it is one from now on.

        Ask only about messages that are authentic, so that nobody fills the table with keys of others.
        """
        if abs(time / 10**9 - unix_time) > TOLERANCE_SECONDS:
            return False
        floor, seen = self._devices.get(static, (0, set()))
        if time <= floor or time in seen:
            return False
        seen.add(time)
        if len(seen) > TIMES_MAX:
            floor = min(seen)
            seen.discard(floor)
        self._devices[static] = floor, seen
        self._devices.move_to_end(static)
        if len(self._devices) > DEVICES_MAX:
            self._devices.popitem(last=False)
        return True
