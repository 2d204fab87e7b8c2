"""Node IDs bound to addresses (BEP 42), and what the nodes around us are counted by.

Everything here works on packed addresses and compact endpoints, because it stands on the way of
every datagram.  Nothing here keeps state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint

if TYPE_CHECKING:
    from random import Random

NODE_ID_BYTES = 20
NODE_ID_BITS = 160

SUBNET_V4_BYTES = 3
"""A subnet is a /24 of IPv4 ..."""
SUBNET_V6_BYTES = 6
"""... or a /48 of IPv6: what one customer commonly gets at most."""
SOURCE_V6_BYTES = 8
"""A single IPv6 customer chooses freely among the addresses of a /64, so that counts as one source."""

_POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), bits reversed: RFC 3720 section 12.1."""

_V4_MASK = 0x030F3FFF
_V6_MASK = 0x0103070F1F3F7FFF
_PREFIX_MASK = 0xFFFFF800
"""BEP 42 binds the first 21 bits."""

_GLOBAL, _LOCAL, _LOOPBACK, _SECOND_OCTET_TELLS, _UNUSABLE = range(5)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _v4_kinds() -> bytes:
    kinds = bytearray(256)
    kinds[10] = _LOCAL
    kinds[127] = _LOOPBACK
    kinds[100] = kinds[169] = kinds[172] = kinds[192] = _SECOND_OCTET_TELLS
    kinds[0] = _UNUSABLE
    for first in range(224, 256):
        kinds[first] = _UNUSABLE
    return bytes(kinds)


_CRC = _crc_table()
_V4_KIND = _v4_kinds()
_V4_LOCAL_SECOND = {100: range(64, 128), 169: range(254, 255), 172: range(16, 32), 192: range(168, 169)}
_ZEROS_10 = bytes(10)
_V4_MAPPED = bytes(10) + b"\xff\xff"
_V6_UNSPECIFIED = bytes(16)
_V6_LOOPBACK = bytes(15) + b"\x01"


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data` (RFC 3720 section 12.1): 32 bits."""
    table = _CRC
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def _bep42_prefix(host: bytes, r: int) -> int:
    """The 32-bit hash of which a node ID must share the first 21 bits; the low 3 bits of `r` count."""
    if len(host) == 4:
        # the shape of most calls, written out: 4 steps of the table without a loop
        table = _CRC
        crc = 0xFFFFFFFF
        crc = crc >> 8 ^ table[(crc ^ (host[0] & 0x03 | (r & 7) << 5)) & 255]
        crc = crc >> 8 ^ table[(crc ^ (host[1] & 0x0F)) & 255]
        crc = crc >> 8 ^ table[(crc ^ (host[2] & 0x3F)) & 255]
        return crc >> 8 ^ table[(crc ^ host[3]) & 255] ^ 0xFFFFFFFF
    if host.startswith(_V4_MAPPED):
        return _bep42_prefix(host[12:], r)
    return crc32c((int.from_bytes(host[:8], "big") & _V6_MASK | (r & 7) << 61).to_bytes(8, "big"))


def bep42_id(host: bytes, rng: Random, tail: int | None = None) -> bytes:
    """A node ID of 20 bytes that fits the packed address `host` (4 or 16 bytes) as BEP 42 wants it.

    `tail` is the last byte, of which BEP 42 takes the low 3 bits as its r; drawn where not given.
    For a local address, which BEP 42 exempts, the ID is bound to it all the same: harmless, and
    right where the address is global after all to somebody.
    """
    if tail is None:
        tail = rng.getrandbits(8)
    prefix = _bep42_prefix(host, tail) & _PREFIX_MASK
    middle = rng.getrandbits(19 * 8 - 21)
    return (prefix << 120 | middle).to_bytes(19, "big") + bytes((tail,))


def fits_bep42(node_id: bytes, host: bytes) -> bool:
    """Whether a node at the packed address `host` may have this ID; a local address may have any."""
    if len(node_id) != NODE_ID_BYTES:
        return False
    prefix = _bep42_prefix(host, node_id[19])
    if not (prefix ^ (node_id[0] << 24 | node_id[1] << 16 | node_id[2] << 8)) & _PREFIX_MASK:
        return True
    return not is_global(host)


def is_global(host: bytes) -> bool:
    """Whether the packed address `host` (4 or 16 bytes) means the same machine everywhere.

    Not global: BEP 42's list (10/8, 172.16/12, 192.168/16, 169.254/16, 127/8), the carriers' own
    100.64/10 (RFC 6598), what is no host's address (0/8, 224/4, 240/4), and in IPv6 fc00::/7,
    fe80::/10, ff00::/8, ::1, :: and ::ffff:0:0/96 around an IPv4 address that is not global.
    The ranges for documentation and benchmarks (RFC 5737, 3849, 2544) count as global: BEP 42 does
    not exempt them, nobody real has them, and so they can play the public network in tests.
    """
    if len(host) == 4:
        first = host[0]
        kind = _V4_KIND[first]
        if not kind:
            return True
        return kind == _SECOND_OCTET_TELLS and host[1] not in _V4_LOCAL_SECOND[first]
    first = host[0]
    if first >= 0xFC:
        return first == 0xFE and host[1] & 0xC0 != 0x80
    if first or not host.startswith(_ZEROS_10):
        return True
    if host.startswith(_V4_MAPPED):
        return is_global(host[12:])
    return host not in (_V6_UNSPECIFIED, _V6_LOOPBACK)


def is_usable(endpoint: Endpoint) -> bool:
    """Whether a datagram can be sent there: 6 or 18 bytes, port not 0, the address of one machine.

    Not usable are 0/8, multicast, 240/4 with the broadcast address, ::, ff00::/8, ::ffff:0:0/96 (an IPv4
    address in disguise would count twice) and fe80::/10 (an endpoint has no zone to go with it).
    """
    size = len(endpoint)
    if size == ENDPOINT_V4_BYTES:
        return _V4_KIND[endpoint[0]] != _UNUSABLE and (endpoint[4] | endpoint[5]) != 0
    if size != ENDPOINT_V6_BYTES or not (endpoint[16] | endpoint[17]):
        return False
    first = endpoint[0]
    if first >= 0xFE:
        return first == 0xFE and endpoint[1] & 0xC0 != 0x80
    return bool(first) or not (endpoint.startswith((_V4_MAPPED, _V6_UNSPECIFIED)))


def subnet_of(endpoint: Endpoint) -> bytes:
    """What quotas of nodes, items and bytes are kept by: /24 of IPv4 (3 bytes), /48 of IPv6 (6 bytes).

    Local addresses are no sign of one owner and hard to come by for strangers, and a private
    network may have only one subnet: there the whole address counts (4 or 16 bytes), and on the
    loopback interface the endpoint with its port (6 or 18 bytes).
    """
    if len(endpoint) == ENDPOINT_V4_BYTES:
        first = endpoint[0]
        kind = _V4_KIND[first]
        if kind and (kind != _SECOND_OCTET_TELLS or endpoint[1] in _V4_LOCAL_SECOND[first]):
            return endpoint if kind == _LOOPBACK else endpoint[:4]
        return endpoint[:SUBNET_V4_BYTES]
    if endpoint.startswith(_V6_LOOPBACK):
        return endpoint
    return endpoint[:SUBNET_V6_BYTES] if is_global(endpoint[:16]) else endpoint[:16]


def source_of(endpoint: Endpoint) -> bytes:
    """What rates are kept by: an IPv4 address (4 bytes), a /64 of IPv6 (8 bytes).

    On the loopback interface it is the endpoint with its port, as all share one address there;
    on other local addresses the whole address, also of IPv6.
    """
    if len(endpoint) == ENDPOINT_V4_BYTES:
        return endpoint if endpoint[0] == 127 else endpoint[:4]
    if endpoint.startswith(_V6_LOOPBACK):
        return endpoint
    return endpoint[:SOURCE_V6_BYTES] if is_global(endpoint[:16]) else endpoint[:16]


def shared_prefix_bits(a: bytes, b: bytes) -> int:
    """How many leading bits two IDs of 20 bytes share: 0 to 160."""
    return NODE_ID_BITS - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


def random_id_in(rng: Random, low: int, high: int) -> bytes:
    """A random ID of 20 bytes, as a number at least `low` and at most `high`."""
    return rng.randint(low, high).to_bytes(NODE_ID_BYTES, "big")
