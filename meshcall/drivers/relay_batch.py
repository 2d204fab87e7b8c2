"""Batches of the relay's hot path: read many datagrams with one call, forward those of known routes with one more.

On 64-bit Linux by recvmmsg and sendmmsg of the C library, through ctypes, so that no compiler is
needed; elsewhere by recvfrom and sendto until nothing is left.  A packet that no route takes is not
looked at here: it goes to `others`.  The routes, and what each packet is paid with, are the core's.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections import Counter
from typing import Any, Protocol

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint
from meshcall.relay.flows import Route
from meshcall.relay.quota import PACKET_OVERHEAD_BYTES, Allowance, Quotas
from meshcall.wire.relay import FRAME_BYTES_MAX, HEAD_BYTES, MAGIC, TO_CALLER

BATCH_DATAGRAMS = 64
SLOT_BYTES = 2112
"""For one datagram; not a power of two, so that the slots do not fall upon each other in the cache."""
LEAD_BYTES = 4
"""A datagram begins here in its slot: then the id of a frame stands at a multiple of eight."""
DATAGRAM_BYTES_MAX = SLOT_BYTES - LEAD_BYTES
"""A datagram that fills this is counted and dropped."""

_MSG_DONTWAIT = 0x40
_HEADER_BYTES = 64
"""struct mmsghdr: name*, namelen, iov*, iovlen, control*, controllen, flags, message length; 8 bytes each."""
_SLOT_WORDS = SLOT_BYTES // 8
_LENGTH_AT = 14
"""Place of the message length in a header, in words of four bytes."""
_HEADER_HALVES = _HEADER_BYTES // 4
_LENGTH_PLACES = range(_LENGTH_AT, BATCH_DATAGRAMS * _HEADER_HALVES, _HEADER_HALVES)
_SOCKADDR = {ENDPOINT_V4_BYTES: struct.Struct("=H2s4s8x"), ENDPOINT_V6_BYTES: struct.Struct("=H2s4x16s4x")}
_SOCKADDR_BYTES = {4: 16, 6: 28}
_NAME_BYTES = {4: 16, 6: 32}
_ENDPOINT_BYTES = {4: ENDPOINT_V4_BYTES, 6: ENDPOINT_V6_BYTES}
_AF = {ENDPOINT_V4_BYTES: socket.AF_INET, ENDPOINT_V6_BYTES: socket.AF_INET6}
_FULL = (errno.EAGAIN, errno.ENOBUFS)


class Batch(Protocol):
    """What the hot path needs; one for each socket."""

    others: list[tuple[Endpoint, bytes]]
    """What no route took; whoever calls `take` empties it."""
    counters: Counter[str]

    def take(self, now: float) -> int:
        """Read one batch, forward what can be; returns how many datagrams were read."""
        ...

    def put(self, route: Route) -> None:
        """Forward by this route from here on, if both its ends are of this socket's family."""
        ...

    def drop(self, key: bytes) -> None:
        """Forget the route with this id and place."""
        ...


def open_batch(one: socket.socket, quotas: Quotas) -> Batch:
    """The fastest batch that this machine has for a bound, non-blocking UDP socket."""
    if has_mmsg():
        return MmsgBatch4(one, quotas) if one.family == socket.AF_INET else MmsgBatch6(one, quotas)
    return PlainBatch(one, quotas)


def has_mmsg() -> bool:
    """Whether the C library has recvmmsg and sendmmsg with the layout known here."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and hasattr(_libc(), "recvmmsg")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _sockaddr(endpoint: bytes) -> bytes:
    """The struct sockaddr_in or sockaddr_in6 of an endpoint."""
    return _SOCKADDR[len(endpoint)].pack(_AF[len(endpoint)], endpoint[-2:], endpoint[:-2])


class _Mmsg:
    """Memory laid out as the kernel wants it, and the two calls.

    Received and sent messages share data and names; each has headers and vectors of its own, so that
    nothing has to be put back between two batches.
    """

    def __init__(self, one: socket.socket, quotas: Quotas, family: int) -> None:
        self.others: list[tuple[Endpoint, bytes]] = []
        self.counters: Counter[str] = Counter()
        self._quotas = quotas
        self._family = family
        self._fd = one.fileno()
        libc = _libc()
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        self._recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        self._sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        name_bytes = _NAME_BYTES[family]
        self._data = bytearray(SLOT_BYTES * BATCH_DATAGRAMS)
        self._names = bytearray(name_bytes * BATCH_DATAGRAMS)
        vectors = bytearray(16 * BATCH_DATAGRAMS), bytearray(16 * BATCH_DATAGRAMS)
        headers = bytearray(_HEADER_BYTES * BATCH_DATAGRAMS), bytearray(_HEADER_BYTES * BATCH_DATAGRAMS)
        self._kept: list[Any] = []  # the buffers, so that they stay where they are
        data, names = self._address(self._data), self._address(self._names)
        for header, vector in zip(headers, vectors, strict=True):
            words, parts, at = memoryview(header).cast("Q"), memoryview(vector).cast("Q"), self._address(vector)
            for slot in range(BATCH_DATAGRAMS):
                parts[2 * slot] = data + SLOT_BYTES * slot + LEAD_BYTES
                parts[2 * slot + 1] = DATAGRAM_BYTES_MAX
                words[8 * slot : 8 * slot + 4] = memoryview(
                    struct.pack("=4Q", names + name_bytes * slot, _SOCKADDR_BYTES[family], at + 16 * slot, 1)
                ).cast("Q")
        self._in, self._out = self._address(headers[0]), self._address(headers[1])
        self._lengths = memoryview(headers[0]).cast("I")
        self._out_vectors = memoryview(vectors[1]).cast("Q")
        self._words = memoryview(self._data).cast("Q")

    def _address(self, buffer: bytearray) -> int:
        pinned = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        self._kept.append(pinned)
        return ctypes.addressof(pinned)

    def _receive(self) -> int:
        return int(self._recvmmsg(self._fd, self._in, BATCH_DATAGRAMS, _MSG_DONTWAIT, None))

    def _send(self, begin: int, end: int) -> None:
        """Send the messages of these slots; what the socket has no room for is lost, as voice may not wait."""
        while begin < end:
            done = self._sendmmsg(self._fd, self._out + _HEADER_BYTES * begin, end - begin, _MSG_DONTWAIT)
            if done > 0:
                begin += done
                continue
            problem = ctypes.get_errno()
            if problem in _FULL:
                self.counters["forwarded without room to send"] += end - begin
                return
            if problem != errno.EINTR:
                self.counters[f"forward {errno.errorcode.get(problem, 'error')}"] += 1
                begin += 1

    def _hand_over(self, slot: int) -> None:
        """Keep the datagram of a slot for the core."""
        size = self._lengths[_HEADER_HALVES * slot + _LENGTH_AT]
        if size >= DATAGRAM_BYTES_MAX:
            self.counters["received too long"] += 1
            return
        at, name = SLOT_BYTES * slot + LEAD_BYTES, _NAME_BYTES[self._family] * slot
        address = name + 4 if self._family == 4 else name + 8
        host = bytes(self._names[address : address + _ENDPOINT_BYTES[self._family] - 2])
        source = Endpoint(host + bytes(self._names[name + 2 : name + 4]))
        self.others.append((source, bytes(self._data[at : at + size])))

    def _runs(self, count: int, skipped: list[int]) -> None:
        """Send all of `count` slots but the skipped ones, in order."""
        begin = 0
        for slot in skipped:
            self._send(begin, slot)
            begin = slot + 1
        self._send(begin, count)


class MmsgBatch4(_Mmsg):
    """A batch on an IPv4 socket.  The table's key is id xor sender, both as numbers of eight bytes."""

    def __init__(self, one: socket.socket, quotas: Quotas) -> None:
        super().__init__(one, quotas, 4)
        self._name_words = memoryview(self._names).cast("Q")
        # sender, head, new head, new id, destination, and the objects that are written to
        self._table: dict[int, tuple[int, int, int, int, int, Route, Allowance, Allowance]] = {}

    def put(self, route: Route) -> None:
        """Forward by this route from here on."""
        if len(route.source) == ENDPOINT_V4_BYTES and len(route.destination) == ENDPOINT_V4_BYTES:
            source = _name_word(route.source)
            self._table[_word(route.frame_id) ^ source] = (
                source, _HEAD_WORDS[route.opening], _HEAD_WORDS[route.head[:4]], _word(route.head[4:]),
                _name_word(route.destination), route, route.lease, route.payer,
            )  # fmt: skip

    def drop(self, key: bytes) -> None:
        """Forget the route with this id and place."""
        if len(key) == 8 + ENDPOINT_V4_BYTES:
            self._table.pop(_word(key[:8]) ^ _name_word(key[8:]), None)

    def take(self, now: float) -> int:
        """Read and forward one batch."""
        count = self._receive()
        if count <= 0:
            return 0
        words, names, lengths, vectors, get = (
            self._words, self._name_words, self._lengths, self._out_vectors, self._table.get,
        )  # fmt: skip
        quotas = self._quotas
        quotas.refill(now)
        before = quotas.uplink.left
        room, least = before, quotas.packet_bytes_min
        skipped: list[int] = []
        # Places of the slot's id, sender and length; a zip of ranges costs less than three products.
        for at, pair, length_at in zip(
            range(1, count * _SLOT_WORDS, _SLOT_WORDS), range(0, 2 * count, 2), _LENGTH_PLACES, strict=False
        ):
            source = names[pair]
            size = lengths[length_at]
            entry = get(words[at] ^ source)
            if entry is not None and HEAD_BYTES < size <= FRAME_BYTES_MAX:
                sender, head, new_head, new_id, destination, route, lease, payer = entry
                if sender == source and words[at - 1] == head:
                    cost = size + PACKET_OVERHEAD_BYTES
                    if cost < least:
                        cost = least
                    if lease.left >= cost and payer.left >= cost and room >= cost:
                        lease.left -= cost
                        payer.left -= cost
                        room -= cost
                        route.last = now
                        words[at - 1] = new_head
                        words[at] = new_id
                        names[pair] = destination
                        vectors[pair + 1] = size
                        continue
                    lease.refused += cost
                    who = "lease" if lease.left < cost else "source" if payer.left < cost else "uplink"
                    self.counters[f"over quota: {who}"] += 1
                    skipped.append(pair >> 1)
                    continue
            self._hand_over(pair >> 1)
            skipped.append(pair >> 1)
        quotas.uplink.left -= before - room  # not `= room`: the node's thread may have refilled it meanwhile
        self._runs(count, skipped)
        self.counters["forwarded"] += count - len(skipped)
        return count


class MmsgBatch6(_Mmsg):
    """A batch on an IPv6 socket.  The table's key is id and struct sockaddr_in6, joined."""

    def __init__(self, one: socket.socket, quotas: Quotas) -> None:
        super().__init__(one, quotas, 6)
        self._table: dict[bytes, Route] = {}

    def put(self, route: Route) -> None:
        """Forward by this route from here on."""
        if len(route.source) == ENDPOINT_V6_BYTES and len(route.destination) == ENDPOINT_V6_BYTES:
            self._table[route.frame_id + _sockaddr(route.source)] = route

    def drop(self, key: bytes) -> None:
        """Forget the route with this id and place."""
        if len(key) == 8 + ENDPOINT_V6_BYTES:
            self._table.pop(key[:8] + _sockaddr(key[8:]), None)

    def take(self, now: float) -> int:
        """Read and forward one batch."""
        count = self._receive()
        if count <= 0:
            return 0
        data, names, lengths, vectors = self._data, self._names, self._lengths, self._out_vectors
        quotas = self._quotas
        quotas.refill(now)
        skipped: list[int] = []
        for slot in range(count):
            at, name = slot * SLOT_BYTES + LEAD_BYTES, slot * 32
            size = lengths[slot * _HEADER_HALVES + _LENGTH_AT]
            route = self._table.get(bytes(data[at + 4 : at + 12] + names[name : name + 28]))
            if route is None or not HEAD_BYTES < size <= FRAME_BYTES_MAX or not _fits(data, at, route):
                self._hand_over(slot)
                skipped.append(slot)
            elif who := quotas.pay(size, route.lease, route.payer):
                self.counters[f"over quota: {who}"] += 1
                skipped.append(slot)
            else:
                route.last = now
                data[at : at + HEAD_BYTES] = route.head
                names[name : name + 28] = _sockaddr(route.destination)
                vectors[2 * slot + 1] = size
        self._runs(count, skipped)
        self.counters["forwarded"] += count - len(skipped)
        return count


class PlainBatch:
    """A batch by one call per datagram, for machines without recvmmsg."""

    def __init__(self, one: socket.socket, quotas: Quotas) -> None:
        self.others: list[tuple[Endpoint, bytes]] = []
        self.counters: Counter[str] = Counter()
        self._socket = one
        self._quotas = quotas
        self._buffer = bytearray(DATAGRAM_BYTES_MAX)
        self._table: dict[tuple[bytes, str, int], tuple[Route, tuple[str, int]]] = {}
        self._size = _ENDPOINT_BYTES[4 if one.family == socket.AF_INET else 6]

    def put(self, route: Route) -> None:
        """Forward by this route from here on."""
        if len(route.source) == self._size and len(route.destination) == self._size:
            self._table[(route.frame_id, *self._name(route.source))] = route, self._name(route.destination)

    def drop(self, key: bytes) -> None:
        """Forget the route with this id and place."""
        if len(key) == 8 + self._size:
            self._table.pop((key[:8], *self._name(key[8:])), None)

    def _name(self, endpoint: bytes) -> tuple[str, int]:
        return socket.inet_ntop(self._socket.family, endpoint[:-2]), endpoint[-2] << 8 | endpoint[-1]

    def take(self, now: float) -> int:
        """Read and forward until nothing is left, a batch at most."""
        buffer, view, quotas = self._buffer, memoryview(self._buffer), self._quotas
        quotas.refill(now)
        for count in range(BATCH_DATAGRAMS):
            try:
                size, name = self._socket.recvfrom_into(buffer)
            except BlockingIOError:
                return count
            except OSError as problem:
                self.counters[f"receive {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
                if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                    return count
                continue
            found = self._table.get((bytes(view[4:12]), name[0], name[1]))
            if found is not None and HEAD_BYTES < size <= FRAME_BYTES_MAX and _fits(buffer, 0, found[0]):
                self._forward(now, size, *found)
            elif size >= DATAGRAM_BYTES_MAX:
                self.counters["received too long"] += 1
            else:
                host = socket.inet_pton(self._socket.family, name[0].partition("%")[0])
                self.others.append((Endpoint(host + name[1].to_bytes(2, "big")), bytes(view[:size])))
        return BATCH_DATAGRAMS

    def _forward(self, now: float, size: int, route: Route, destination: tuple[str, int]) -> None:
        if who := self._quotas.pay(size, route.lease, route.payer):
            self.counters[f"over quota: {who}"] += 1
            return
        route.last = now
        self._buffer[:HEAD_BYTES] = route.head
        try:
            self._socket.sendto(memoryview(self._buffer)[:size], destination)
        except OSError as problem:
            self.counters[f"forward {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
        else:
            self.counters["forwarded"] += 1


def _fits(data: bytearray, at: int, route: Route) -> bool:
    """Whether the first four bytes of a frame are those of this route's direction."""
    return data[at : at + 4] == route.opening


def _lead(four: bytes) -> int:
    """The first four bytes of a frame as they stand in their slot: after the lead, which is zero."""
    return _word(bytes(LEAD_BYTES) + four)


def _word(eight: bytes) -> int:
    """Eight bytes as the number that memory of this machine shows."""
    return int.from_bytes(eight, sys.byteorder)


def _name_word(endpoint: bytes) -> int:
    """The first eight bytes of a struct sockaddr_in: family, port, address."""
    return _word(_sockaddr(endpoint)[:8])


_HEAD_WORDS = {four: _lead(four) for four in (bytes([MAGIC, kind, 0, 0]) for kind in range(TO_CALLER + 1))}
"""One number for all routes of a kind: it stays in the processor's cache."""
