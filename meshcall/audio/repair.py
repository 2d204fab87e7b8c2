"""Loss repair by a sliding-window linear code over GF(2^8): symbols that combine frames sent before.

The idea is that of RLC (RFC 8681), without its headers: which frames a symbol combines is told by the packet
(`wire.voice.Cover`), and the coefficients follow from the slots.  A symbol of one frame is a copy of it.  Exact
enough for a second implementation: docs/voice.md.  Whatever a peer sends, work and memory are bounded: what is
unknown lies within `HORIZON_SLOTS`, and there is at most one equation for each unknown frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshcall.wire.coded import slots_of
from meshcall.wire.voice import FIRST_MAX, SLOTS_PER_FRAME_MAX, WINDOW_MAX, Cover, VoicePacket, is_implied

POLYNOMIAL: Final = 0x11D
FIELD: Final = 256
COLUMNS_MODULUS: Final = 64
"""Slots are told apart by their remainder; a window of 15 frames spans 45 slots at most."""
SYMBOL_COEFFICIENT_FIRST: Final = 64
"""The x of a symbol are 64 to 255, the y of a frame 0 to 63: never equal."""
SYMBOLS_PER_SLOT: Final = 3

HORIZON_SLOTS: Final = 96
"""How far behind the newest packet a frame may lie that is still solved for: 30 frames of 60 ms are 90."""
_COLUMNS: Final = 128
"""An equation begins with a byte for each slot, modulo this: more than the horizon."""
SHAPES_MAX: Final = 2
"""Frames of the present form (configuration and length) and of the one before are solved for, each among themselves."""
STALE_MAX: Final = 8
"""So many packets in a row from behind the horizon: the clock of the sender was set back; begin again."""

Known = tuple[int, int, bytes, bool]
"""Slot of a frame, how many slots it lasts, its bytes, and whether it was repaired.  Its configuration is that of the
packet it came out of."""


def _field() -> tuple[tuple[bytes, ...], bytes]:
    """products[c] is a table for bytes.translate that multiplies by c; inverses[c] is 1 / c (and 0 for 0)."""
    exponents = [1]
    for _ in range(FIELD - 2):
        doubled = exponents[-1] << 1
        exponents.append(doubled ^ POLYNOMIAL if doubled & FIELD else doubled)
    logarithms = {value: n for n, value in enumerate(exponents)}

    def times(a: int, b: int) -> int:
        return exponents[(logarithms[a] + logarithms[b]) % (FIELD - 1)] if a and b else 0

    products = tuple(bytes(times(c, value) for value in range(FIELD)) for c in range(FIELD))
    inverses = bytes(exponents[-logarithms[c] % (FIELD - 1)] if c else 0 for c in range(FIELD))
    return products, inverses


_PRODUCTS, _INVERSES = _field()


def coefficient(packet_slot: int, index: int, frame_slot: int, count: int) -> int:
    """By what the frame is multiplied in the packet's symbol number `index`; 1 in a symbol of one frame."""
    if count == 1:
        return 1
    x = SYMBOL_COEFFICIENT_FIRST + SYMBOLS_PER_SLOT * (packet_slot % COLUMNS_MODULUS) + index
    return _INVERSES[x ^ frame_slot % COLUMNS_MODULUS]


def _plus(sum_so_far: int, factor: int, data: bytes) -> int:
    """sum + factor * data, the sum as one large number: addition in the field is exclusive or."""
    return sum_so_far ^ int.from_bytes(data.translate(_PRODUCTS[factor]) if factor != 1 else data, "little")


class RepairEncoder:
    """The frames sent last, and symbols made of them: those of the newest one's form, as if no other had been sent."""

    def __init__(self) -> None:
        self._sent: dict[int, tuple[int, bytes]] = {}
        """Configuration and bytes, by slot."""
        self._slot = 0
        self._slots = 0
        self._row = 0
        """Frames of one form without a gap, the newest among them."""

    def add(self, slot: int, config: int, frame: bytes) -> None:
        """The frame of the packet that goes out next.  One of another form, or out of turn, begins a new row."""
        if slot <= self._slot:
            self._sent.clear()
        goes_on = slot == self._slot + self._slots and self._is_alike(self._sent.get(self._slot), config, len(frame))
        self._row = self._row + 1 if goes_on else 1
        self._slot, self._slots = slot, slots_of(config) or 0
        self._sent[slot] = config, frame
        while (oldest := next(iter(self._sent))) < slot - HORIZON_SLOTS:
            del self._sent[oldest]

    def possible(self, covers: Sequence[Cover]) -> tuple[Cover, ...]:
        """The covers as far as the row goes; of none (count 0) beyond it.

        Those that the packet implies stay as they are: they have no bytes to say how many are there.
        """
        if is_implied(covers):
            return tuple(covers)
        return tuple(Cover(one.first, max(0, min(one.count, self._row - one.first))) for one in covers)

    def symbols(self, covers: Sequence[Cover]) -> list[bytes]:
        """One for each cover, for the packet of the newest frame.

        Raises ValueError for what lies beyond the row; if the covers are implied, what is not there counts as zeros.
        """
        config, newest = self._sent[self._slot]
        symbols = []
        for index, cover in enumerate(covers):
            if cover.count and cover.first + cover.count > self._row and not is_implied(covers):
                raise ValueError("a symbol cannot cover what was not sent")
            total = 0
            for back in range(cover.first, cover.first + cover.count):
                slot = self._slot - back * self._slots
                covered = self._sent.get(slot)
                if covered is not None and self._is_alike(covered, config, len(newest)):
                    total = _plus(total, coefficient(self._slot, index, slot, cover.count), covered[1])
            symbols.append(total.to_bytes(len(newest), "little"))
        return symbols

    def _is_alike(self, one: tuple[int, bytes] | None, config: int, length: int) -> bool:
        return one is not None and one[0] == config and len(one[1]) == length


class _Window:
    """Frames of one form: those known, and equations among those that are not, in reduced echelon form.

    An equation is its coefficients, one byte per slot, and behind them the bytes of the sum.  Its pivot is its
    oldest unknown frame; no other equation has that one.
    """

    def __init__(self, packet: VoicePacket, newest: int) -> None:
        self.config = packet.config
        self.slots = packet.slots
        self.length = len(packet.frame)
        self.newest = newest
        self.known: dict[int, bytes] = {}
        self.rows: dict[int, bytes] = {}
        self.contradictions = 0
        self.reach = 0
        """How many slots behind its own the newest packet covers."""

    def advance(self, slot: int) -> None:
        """The newest slot is this one; what lies behind the horizon is forgotten."""
        before, self.newest = self.newest, slot
        least = slot - HORIZON_SLOTS
        if least > before:
            self.known.clear()
            self.rows.clear()
            return
        for old in range(before - HORIZON_SLOTS, least):
            self.known.pop(old, None)
            self.rows.pop(old, None)  # what it could have told hangs on a frame that will never be known

    def hopes(self, slot: int) -> bool:
        """Whether packets to come may tell this frame: one of them may cover it, or an equation that has it waits."""
        if slot in self.known or slot < self.newest - HORIZON_SLOTS:
            return False
        column = slot % _COLUMNS
        return self.newest < slot + self.reach or any(row[column] for row in self.rows.values())

    def learn(self, slot: int, frame: bytes, found: dict[int, bytes]) -> None:
        """A frame; what its equations give beyond it goes into `found`."""
        before = self.known.setdefault(slot, frame)
        if before is not frame:
            self.contradictions += before != frame
            return
        if not self.rows:
            return
        unit = bytearray(_COLUMNS + self.length)
        unit[slot % _COLUMNS] = 1
        unit[_COLUMNS:] = frame
        column = slot % _COLUMNS
        freed = self.rows.pop(slot, None)
        for pivot, row in list(self.rows.items()):
            if row[column]:
                self.rows[pivot] = self._sum(row, row[column], bytes(unit))
                self._solved(pivot, found)
        if freed is not None:
            self._insert(self._sum(freed, freed[column], bytes(unit)), found)

    def equation(self, packet_slot: int, index: int, cover: Cover, symbol: bytes, found: dict[int, bytes]) -> None:
        """A symbol.  Nothing is computed where all frames that it covers are known."""
        covered = [packet_slot - back * self.slots for back in range(cover.first, cover.first + cover.count)]
        unknown = [slot for slot in covered if slot not in self.known]
        if not unknown or unknown[-1] < self.newest - HORIZON_SLOTS:
            return
        head = bytearray(_COLUMNS)
        total = int.from_bytes(symbol, "little")
        for slot in covered:
            factor = coefficient(packet_slot, index, slot, cover.count)
            frame = self.known.get(slot)
            if frame is None:
                head[slot % _COLUMNS] = factor
            else:
                total = _plus(total, factor, frame)
        self._insert(bytes(head) + total.to_bytes(self.length, "little"), found)

    def _insert(self, row: bytes, found: dict[int, bytes]) -> None:
        for one, other in self.rows.items():
            factor = row[one % _COLUMNS]
            if factor:
                row = self._sum(row, factor, other)
        least = self.newest - HORIZON_SLOTS
        pivot = next((slot for slot in range(least, self.newest + 1) if row[slot % _COLUMNS]), None)
        if pivot is None:
            self.contradictions += any(row)
            return
        column = pivot % _COLUMNS
        row = row.translate(_PRODUCTS[_INVERSES[row[column]]])
        for one, other in list(self.rows.items()):
            if other[column]:
                self.rows[one] = self._sum(other, other[column], row)
                self._solved(one, found)
        self.rows[pivot] = row
        self._solved(pivot, found)

    def _solved(self, pivot: int, found: dict[int, bytes]) -> None:
        """Whether the equation has one unknown left: then it is known, and no other equation has it."""
        row = self.rows[pivot]
        if row.count(0, 0, _COLUMNS) == _COLUMNS - 1:
            del self.rows[pivot]
            found[pivot] = self.known[pivot] = row[_COLUMNS:]

    def _sum(self, row: bytes, factor: int, other: bytes) -> bytes:
        """row + factor * other."""
        return _plus(int.from_bytes(row, "little"), factor, other).to_bytes(len(row), "little")


class RepairDecoder:
    """Frames out of packets: their own, and lost ones as soon as the symbols suffice."""

    def __init__(self) -> None:
        self._windows: list[_Window] = []
        self._stale = 0
        self._contradictions = 0
        self.repaired = 0
        """Frames that came out of symbols."""

    @property
    def contradictions(self) -> int:
        """Symbols and frames that cannot all be true; only a faulty or hostile sender makes them."""
        return self._contradictions + sum(one.contradictions for one in self._windows)

    @property
    def equations(self) -> int:
        """Held at present."""
        return sum(len(one.rows) for one in self._windows)

    @property
    def frames(self) -> int:
        """Kept at present, to solve equations with."""
        return sum(len(one.known) for one in self._windows)

    def add(self, packet: VoicePacket, slot: int) -> list[Known]:
        """The frames newly known, in the order of their slots.  `slot` is the packet's, unwrapped.

        A frame is told once, by whichever came first; twice at most where the clock of the sender was set back.
        """
        window = self._window(packet, slot)
        if slot < window.newest - HORIZON_SLOTS:
            self._stale += 1
            if self._stale < STALE_MAX:
                return [(slot, packet.slots, packet.frame, False)]
            self.reset()
            window = self._window(packet, slot)
        self._stale = 0
        window.advance(max(slot, window.newest))
        if slot == window.newest:
            window.reach = max((one.first + one.count - 1 for one in packet.covers), default=0) * packet.slots
        found: dict[int, bytes] = {}
        is_new = slot not in window.known
        window.learn(slot, packet.frame, found)
        for index, (cover, symbol) in enumerate(zip(packet.covers, packet.repairs, strict=True)):
            window.equation(slot, index, cover, symbol, found)
        # Zeros stand for a frame that never was: the row began after it.
        known = [(one, packet.slots, frame, True) for one, frame in found.items() if any(frame)]
        self.repaired += len(known)
        if is_new:
            known.append((slot, packet.slots, packet.frame, False))
        return sorted(known)

    def hopes(self, slot: int) -> bool:
        """Whether the frame of this slot, which is missing, may yet be told by packets to come."""
        return any(window.hopes(slot) for window in self._windows)

    def reset(self) -> None:
        """Forget all frames and equations."""
        self._contradictions = self.contradictions
        self._windows.clear()
        self._stale = 0

    def _window(self, packet: VoicePacket, slot: int) -> _Window:
        for window in self._windows:
            if window.config == packet.config and window.length == len(packet.frame):
                return window
        if len(self._windows) == SHAPES_MAX:
            self._contradictions += self._windows.pop(0).contradictions
        self._windows.append(_Window(packet, slot))
        return self._windows[-1]


assert (FIRST_MAX + WINDOW_MAX - 1) * SLOTS_PER_FRAME_MAX <= HORIZON_SLOTS < _COLUMNS
