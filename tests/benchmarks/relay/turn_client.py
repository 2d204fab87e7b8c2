"""A small TURN client (RFC 8656) for the comparison with coturn: Allocate and ChannelBind over UDP, no authentication.

It makes the allocation from the very port that the load generator will then use: TURN ties an
allocation to addresses and ports, so closing the socket and opening it again keeps it.
"""

from __future__ import annotations

import os
import socket
import struct

COOKIE = 0x2112A442
TRIES = 5
ALLOCATE, ALLOCATED = 0x0003, 0x0103
CHANNEL_BIND, CHANNEL_BOUND = 0x0009, 0x0109
_CHANNEL_NUMBER, _REQUESTED_TRANSPORT, _PEER_ADDRESS, _RELAYED_ADDRESS = 0x000C, 0x0019, 0x0012, 0x0016
_UDP = b"\x11\0\0\0"
_HEADER = struct.Struct("!HHI12s")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _xor_address(address: tuple[str, int]) -> bytes:
    host = int.from_bytes(socket.inet_aton(address[0]), "big")
    return struct.pack("!BBHI", 0, 1, address[1] ^ COOKIE >> 16, host ^ COOKIE)


def _read_xor_address(value: bytes) -> tuple[str, int]:
    _, _, port, host = struct.unpack("!BBHI", value)
    return socket.inet_ntoa((host ^ COOKIE).to_bytes(4, "big")), port ^ COOKIE >> 16


def _request(one: socket.socket, method: int, body: bytes) -> tuple[int, dict[int, bytes]]:
    """Ask and wait; the kind of the answer and its attributes."""
    transaction = os.urandom(12)
    message = _HEADER.pack(method, len(body), COOKIE, transaction) + body
    for _ in range(TRIES):
        one.send(message)
        try:
            answer = one.recv(2048)
            while answer[8:20] != transaction:
                answer = one.recv(2048)
        except TimeoutError:
            continue
        kind, size = struct.unpack_from("!HH", answer)
        attributes, at = {}, _HEADER.size
        while at < _HEADER.size + size:
            name, length = struct.unpack_from("!HH", answer, at)
            attributes[name] = answer[at + 4 : at + 4 + length]
            at += 4 + length + (-length % 4)
        return kind, attributes
    raise TimeoutError("the TURN server does not answer")


def allocate(server: tuple[str, int], local: tuple[str, int], peer: tuple[str, int], channel: int) -> tuple[str, int]:
    """The relayed address of a new allocation with one channel bound to `peer`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.5)
        one.bind(local)
        one.connect(server)
        kind, attributes = _request(one, ALLOCATE, _attribute(_REQUESTED_TRANSPORT, _UDP))
        if kind != ALLOCATED:
            raise RuntimeError(f"allocation refused: {kind:#x}")
        body = _attribute(_CHANNEL_NUMBER, struct.pack("!HH", channel, 0))
        body += _attribute(_PEER_ADDRESS, _xor_address(peer))
        kind, _ = _request(one, CHANNEL_BIND, body)
        if kind != CHANNEL_BOUND:
            raise RuntimeError(f"channel refused: {kind:#x}")
        return _read_xor_address(attributes[_RELAYED_ADDRESS])
