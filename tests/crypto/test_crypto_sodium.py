"""libsodium behind the suite: published vectors, blinding, and the refusal of points that are no identity."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nacl import bindings

from meshcall.crypto.sodium import Sodium
from meshcall.crypto.suite import Suite

SUITE: Suite = Sodium()
ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19

# RFC 8032 section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]
RFC_8032_SHA_ABC = (
    "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
    "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
    hashlib.sha512(b"abc").hexdigest(),
    "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
    "3dca179c138ac17ad9bef1177331a704",
)
EIGHT_ORDER = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
"""A point of order 8 (listed as small order in libsodium's ed25519_ref10.c)."""
SMALL_ORDER = {
    "neutral": "01" + "00" * 31,
    "order 2": (FIELD - 1).to_bytes(32, "little").hex(),
    "order 4": "00" * 32,
    "order 8": EIGHT_ORDER,
    "order 8, other": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}
NON_CANONICAL = {
    "0, written as p": FIELD.to_bytes(32, "little").hex(),
    "neutral, written as p + 1": (FIELD + 1).to_bytes(32, "little").hex(),
    "neutral, sign bit set": "01" + "00" * 30 + "80",
}


def h(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(("seed", "public", "message", "signature"), [*RFC_8032, RFC_8032_SHA_ABC])
def test_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SUITE.expand(h(seed))
    assert key.public == h(public)
    assert SUITE.sign(key, h(message)) == h(signature)
    assert SUITE.verify(h(public), h(message), h(signature))
    assert SUITE.is_identity_key(h(public))
    assert not SUITE.verify(h(public), h(message) + b"x", h(signature))


def test_rfc_7748_section_6_1() -> None:
    secret = h("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert SUITE.agree_public(secret).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    other = h("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    agreed = SUITE.agree(secret, other)
    assert agreed is not None
    assert agreed.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


# The u coordinates of small order (https://cr.yp.to/ecdh.html, "validate").
@pytest.mark.parametrize(
    "public",
    [
        bytes(32),
        b"\x01" + bytes(31),
        h("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        h("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (FIELD - 1).to_bytes(32, "little"),
        FIELD.to_bytes(32, "little"),
        (FIELD + 1).to_bytes(32, "little"),
    ],
)
def test_no_agreement_with_a_key_of_small_order(public: bytes) -> None:
    assert SUITE.agree(SUITE.random(32), public) is None


def test_packets_are_sealed_by_number() -> None:
    """The cipher is covered by the public Noise vectors; here: what must not be opened."""
    key = SUITE.random(32)
    sealed = SUITE.seal_packet(key, 7, b"plain", b"head")
    assert len(sealed) == len(b"plain") + 16
    assert SUITE.open_packet(key, 7, sealed, b"head") == b"plain"
    assert SUITE.open_packet(key, 8, sealed, b"head") is None
    assert SUITE.open_packet(key, 7, sealed, b"tail") is None
    assert SUITE.open_packet(key, 7, sealed[:-1], b"head") is None
    assert SUITE.open_packet(SUITE.random(32), 7, sealed, b"head") is None
    assert all(SUITE.open_packet(key, 7, sealed[:size], b"head") is None for size in range(len(sealed)))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), st.binary(max_size=200))
def test_a_blinded_signature_is_an_ordinary_one(seed: bytes, factor: bytes, message: bytes) -> None:
    assume(int.from_bytes(factor, "little") % ORDER > 1)
    key = SUITE.expand(seed)
    blinded = SUITE.blind_key(key, factor, hashlib.sha256(seed).digest())
    assert blinded.public == SUITE.blind_public(key.public, factor)
    assert blinded.public != key.public
    signature = SUITE.sign(blinded, message)
    assert bindings.crypto_sign_open(signature + message, blinded.public) == message
    assert SUITE.is_identity_key(blinded.public)


def test_blinding_reduces_the_factor_and_multiplies() -> None:
    key = SUITE.expand(bytes(32))
    one, five = (1).to_bytes(64, "little"), (5).to_bytes(64, "little")
    assert SUITE.blind_public(key.public, one) == key.public
    assert SUITE.blind_public(key.public, (ORDER + 5).to_bytes(64, "little")) == SUITE.blind_public(key.public, five)
    scalar = int.from_bytes(key.scalar, "little") * 5 % ORDER
    assert SUITE.blind_key(key, five, bytes(32)).scalar == scalar.to_bytes(32, "little")


@pytest.mark.parametrize("point", [*SMALL_ORDER.values(), *NON_CANONICAL.values()])
def test_no_identity_is_a_point_of_small_order_or_of_odd_form(point: str) -> None:
    assert not SUITE.is_identity_key(h(point))
    assert not SUITE.verify(h(point), b"message", h(point) + bytes(32))
    with pytest.raises(ValueError, match="identity"):
        SUITE.blind_public(h(point), bytes([3]) + bytes(63))


def test_small_order_keys_sign_nothing_even_where_the_equation_holds() -> None:
    # With A and R neutral and S = 0, S*B == R + k*A holds for every message.
    neutral = h(SMALL_ORDER["neutral"])
    assert not SUITE.verify(neutral, b"anything", neutral + bytes(32))


def test_no_identity_is_a_point_of_mixed_order() -> None:
    mixed = bindings.crypto_core_ed25519_add(SUITE.expand(bytes(32)).public, h(EIGHT_ORDER))
    assert not SUITE.is_identity_key(mixed)
    with pytest.raises(ValueError, match="identity"):
        SUITE.blind_public(mixed, bytes([3]) + bytes(63))


@pytest.mark.parametrize("junk", [b"", b"x" * 31, b"x" * 33, b"\xff" * 32, h("02" + "00" * 31)])
def test_no_identity_is_no_point_at_all(junk: bytes) -> None:
    assert not SUITE.is_identity_key(junk)
    assert not SUITE.verify(junk, b"message", bytes(64))


def test_a_signature_cannot_be_written_in_a_second_way() -> None:
    key = SUITE.expand(bytes(32))
    signature = SUITE.sign(key, b"message")
    malleable = signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    assert SUITE.verify(key.public, b"message", signature)
    assert not SUITE.verify(key.public, b"message", malleable)


@given(st.binary(max_size=40), st.binary(max_size=80), st.binary(max_size=80))
def test_verify_takes_anything(public: bytes, message: bytes, signature: bytes) -> None:
    assert not SUITE.verify(public, message, signature)


# draft-irtf-cfrg-xchacha-03 appendix A.3.1
XCHACHA_KEY = bytes(range(0x80, 0xA0))
XCHACHA_NONCE = bytes(range(0x40, 0x58))
XCHACHA_BOUND = h("50515253c0c1c2c3c4c5c6c7")
XCHACHA_PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: "
    b"If I could offer you only one tip for the future, sunscreen would be it."
)


def test_xchacha_vector() -> None:
    sealed = SUITE.seal(XCHACHA_KEY, XCHACHA_NONCE, XCHACHA_PLAINTEXT, XCHACHA_BOUND)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"
    assert SUITE.open(XCHACHA_KEY, XCHACHA_NONCE, sealed, XCHACHA_BOUND) == XCHACHA_PLAINTEXT


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 7), st.integers(min_value=0))
def test_a_seal_holds(plaintext: bytes, bound: bytes, bit: int, place: int) -> None:
    key, nonce = bytes(32), bytes(24)
    sealed = SUITE.seal(key, nonce, plaintext, bound)
    assert SUITE.open(key, nonce, sealed, bound) == plaintext
    broken = bytearray(sealed)
    broken[place % len(sealed)] ^= 1 << bit
    assert SUITE.open(key, nonce, bytes(broken), bound) is None
    assert SUITE.open(key, nonce, sealed, bound + b"x") is None
    assert SUITE.open(bytes([1]) + key[1:], nonce, sealed, bound) is None


@given(st.binary(max_size=64), st.integers(0, 7), st.integers(min_value=0))
def test_a_box_holds(plaintext: bytes, bit: int, place: int) -> None:
    key, nonce = bytes(32), bytes(24)
    boxed = SUITE.box(key, nonce, plaintext)
    assert SUITE.unbox(key, nonce, boxed) == plaintext
    broken = bytearray(boxed)
    broken[place % len(boxed)] ^= 1 << bit
    assert SUITE.unbox(key, nonce, bytes(broken)) is None


@given(st.binary(max_size=30), st.binary(max_size=40))
def test_opening_takes_anything(nonce: bytes, sealed: bytes) -> None:
    assert SUITE.open(bytes(32), nonce, sealed, b"") is None
    assert SUITE.unbox(bytes(32), nonce, sealed) is None


def test_our_own_mistakes_are_no_wrong_tags() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        SUITE.open(bytes(31), bytes(24), bytes(16), b"")
    with pytest.raises(ValueError, match="31 bytes"):
        SUITE.unbox(bytes(31), bytes(24), bytes(16))


def test_stretch() -> None:
    one = SUITE.stretch(b"passphrase", bytes(16), 1, 8192)
    assert len(one) == 32
    assert one == SUITE.stretch(b"passphrase", bytes(16), 1, 8192)
    assert one != SUITE.stretch(b"passphrase", bytes(16), 2, 8192)
    assert one != SUITE.stretch(b"passphrase", bytes(16), 1, 16384)
    assert one != SUITE.stretch(b"Passphrase", bytes(16), 1, 8192)
    assert one != SUITE.stretch(b"passphrase", bytes([1]) * 16, 1, 8192)
    with pytest.raises(ValueError, match="range"):
        SUITE.stretch(b"", bytes(16), 0, 8192)
    with pytest.raises(ValueError, match="range"):
        SUITE.stretch(b"", bytes(16), 1, 100)


def test_random_is_not_constant() -> None:
    assert len(SUITE.random(24)) == 24
    assert SUITE.random(24) != SUITE.random(24)
