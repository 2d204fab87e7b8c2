"""Node IDs after BEP 42, and how addresses are classed."""

from __future__ import annotations

import ipaddress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.node_id import (
    bep42_id,
    crc32c,
    fits_bep42,
    is_global,
    is_usable,
    random_id_in,
    shared_prefix_bits,
    source_of,
    subnet_of,
)

HOSTS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))

# BEP 42, "test vectors": address, last byte, first three bytes (of the third only the upper 5 bits count)
BEP42_VECTORS = [
    ("124.31.75.21", 1, "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
    ("21.75.31.124", 86, "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
    ("65.23.51.170", 22, "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
    ("84.124.73.14", 65, "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
    ("43.213.53.83", 90, "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
]


def packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


# RFC 3720 section B.4
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_gives_the_values_of_rfc_3720(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize(("host", "tail", "example"), BEP42_VECTORS)
def test_the_vectors_of_bep_42(host: str, tail: int, example: str) -> None:
    assert fits_bep42(bytes.fromhex(example), packed(host))
    made = bep42_id(packed(host), Random(1), tail)
    assert made[:2].hex() == example[:4]
    assert made[2] & 0xF8 == int(example[4:6], 16) & 0xF8
    assert made[19] == tail


@given(HOSTS, st.integers(0, 2**32), st.none() | st.integers(0, 255))
def test_what_is_made_fits(host: bytes, seed: int, tail: int | None) -> None:
    made = bep42_id(host, Random(seed), tail)
    assert len(made) == 20
    assert fits_bep42(made, host)


@given(st.binary(min_size=20, max_size=20), st.integers(0, 159))
def test_only_the_first_21_bits_and_the_last_3_are_bound(node_id: bytes, bit: int) -> None:
    host = packed("203.0.113.7")
    good = int.from_bytes(bep42_id(host, Random(node_id), node_id[19]), "big")
    flipped = (good ^ 1 << (159 - bit)).to_bytes(20, "big")
    if 21 <= bit < 157:
        assert fits_bep42(flipped, host)
    elif bit < 21:
        assert not fits_bep42(flipped, host)


def test_ipv6_ids_are_bound_to_the_upper_64_bits() -> None:
    made = bep42_id(packed("2001:db8:1:2::1"), Random(3))
    assert fits_bep42(made, packed("2001:db8:1:2:ffff::99"))
    misfits = sum(not fits_bep42(made, packed(f"2001:db8:{n:x}:3::1")) for n in range(200))
    assert misfits > 190


def test_local_addresses_may_have_any_id() -> None:
    for host in ("10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.0.1", "169.254.3.3", "127.0.0.1", "::1", "fe80::1"):
        assert fits_bep42(bytes(20), packed(host))
    assert not fits_bep42(bytes(20), packed("172.32.0.1"))
    assert not fits_bep42(b"short", packed("10.0.0.1"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("8.8.8.8", True),
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("169.253.0.1", True),
        ("169.254.0.1", False),
        ("172.15.0.1", True),
        ("172.16.0.1", False),
        ("192.167.1.1", True),
        ("192.168.1.1", False),
        ("0.1.2.3", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("223.255.255.255", True),
        ("192.0.2.1", True),
        ("198.51.100.1", True),
        ("2001:db8::1", True),
        ("2a00::1", True),
        ("fc00::1", False),
        ("fdff::1", False),
        ("fe80::1", False),
        ("febf::1", False),
        ("fec0::1", True),
        ("ff02::1", False),
        ("::", False),
        ("::1", False),
        ("::2", True),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
    ],
)
def test_is_global(host: str, expected: bool) -> None:
    assert is_global(packed(host)) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("10.0.0.1", True),
        ("0.0.0.1", False),
        ("224.0.0.251", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", True),
        ("::", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("fd00::1", True),
        ("::ffff:8.8.8.8", False),
        ("2001:db8::1", True),
    ],
)
def test_is_usable(host: str, expected: bool) -> None:
    assert is_usable(Endpoint(packed(host) + b"\x1a\xe1")) is expected
    assert not is_usable(Endpoint(packed(host) + b"\0\0"))


@given(st.binary(max_size=20))
def test_nothing_foreign_raises(data: bytes) -> None:
    if is_usable(Endpoint(data)):
        assert len(data) in (6, 18)
        assert subnet_of(Endpoint(data))
        assert source_of(Endpoint(data))


def test_subnets_and_sources_of_global_addresses() -> None:
    assert subnet_of(endpoint("203.0.113.7", 1)) == subnet_of(endpoint("203.0.113.99", 2)) == bytes([203, 0, 113])
    assert source_of(endpoint("203.0.113.7", 1)) == source_of(endpoint("203.0.113.7", 2)) == bytes([203, 0, 113, 7])
    assert subnet_of(endpoint("2001:db8:1:2::3", 1)) == packed("2001:db8:1:ffff::")[:6]
    assert source_of(endpoint("2001:db8:1:2::3", 1)) == packed("2001:db8:1:2::")[:8]


def test_local_addresses_count_one_by_one() -> None:
    assert subnet_of(endpoint("192.168.1.2", 1)) != subnet_of(endpoint("192.168.1.3", 1))
    assert subnet_of(endpoint("192.168.1.2", 1)) == subnet_of(endpoint("192.168.1.2", 2))
    assert subnet_of(endpoint("100.64.1.2", 1)) != subnet_of(endpoint("100.64.1.3", 1))
    assert subnet_of(endpoint("fd00::2", 1)) != subnet_of(endpoint("fd00::3", 1))
    for host in ("127.0.0.1", "::1"):
        assert subnet_of(endpoint(host, 1)) != subnet_of(endpoint(host, 2))
        assert source_of(endpoint(host, 1)) != source_of(endpoint(host, 2))


def test_shared_prefix_bits() -> None:
    assert shared_prefix_bits(bytes(20), bytes(20)) == 160
    assert shared_prefix_bits(bytes(20), b"\x80" + bytes(19)) == 0
    assert shared_prefix_bits(bytes(20), bytes(19) + b"\x01") == 159
    assert shared_prefix_bits(b"\xff\x0f" + bytes(18), b"\xff\x1f" + bytes(18)) == 11


@given(st.integers(0, 2**160 - 1), st.integers(0, 2**160 - 1))
def test_random_ids_are_in_the_range(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    made = random_id_in(Random(7), low, high)
    assert len(made) == 20
    assert low <= int.from_bytes(made, "big") <= high
