"""Proofs before work: `mac1` (the sender knows whom it calls), cookie and `mac2` (it receives at its address).

As in WireGuard (whitepaper, sections 5.4.4 and 5.4.7), but on every piece of a handshake message, so that
nothing is kept for a sender that has proved nothing.  A cookie is a MAC over the path that a piece came on,
under a secret that nobody else knows and that changes; it travels sealed, so only who saw the piece can read it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from meshcall.crypto.suite import SEAL_NONCE_BYTES
from meshcall.wire.link import COOKIE_BYTES, MAC_BYTES, encode_cookie

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite

SECRET_SECONDS: Final = 120.0
"""How long cookies are made with one secret; they are accepted for another period."""
COOKIE_SECONDS: Final = 110.0
"""How long the initiator uses a cookie."""
_NO_MAC: Final = bytes(MAC_BYTES)


def mac_key(static: bytes) -> bytes:
    """The key of `mac1` for pieces to the device with this public key."""
    return hashlib.blake2b(b"meshcall mac1 1" + static, digest_size=32).digest()


def cookie_key(static: bytes) -> bytes:
    """The key under which the device with this public key seals its cookies."""
    return hashlib.blake2b(b"meshcall cookie 1" + static, digest_size=32).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """Keyed BLAKE2b of 16 bytes."""
    return hashlib.blake2b(data, key=key, digest_size=MAC_BYTES).digest()


def with_macs(body: bytes, key: bytes, cookie: bytes | None) -> bytes:
    """The datagram of a piece: what is covered, `mac1`, and `mac2` or zeros."""
    body += mac(key, body)
    return body + (_NO_MAC if cookie is None else mac(cookie, body))


def mac1_of(datagram: bytes) -> bytes:
    """The `mac1` of a piece."""
    return datagram[-2 * MAC_BYTES : -MAC_BYTES]


def mac1_fits(datagram: bytes, key: bytes) -> bool:
    """Whether who made this datagram knows the public key behind `key`."""
    return hmac.compare_digest(mac(key, datagram[: -2 * MAC_BYTES]), mac1_of(datagram))


def open_cookie(suite: Suite, key: bytes, nonce: bytes, sealed: bytes, mac1: bytes) -> bytes | None:
    """The cookie in a reply to the piece with this `mac1`, or None."""
    cookie = suite.open(key, nonce, sealed, mac1)
    return cookie if cookie is not None and len(cookie) == COOKIE_BYTES else None


class CookieJar:
    """The responder's side: makes and checks cookies, and remembers none."""

    __slots__ = ("_key", "_previous", "_secret", "_since", "_suite")

    def __init__(self, now: float, static: bytes, suite: Suite) -> None:
        self._suite = suite
        self._key = cookie_key(static)
        self._secret = suite.random(32)
        self._previous = self._secret
        self._since = now

    def reply(self, now: float, path: bytes, index: bytes, mac1: bytes) -> bytes:
        """The cookie reply to a piece that came on this path."""
        self._rotate(now)
        nonce = self._suite.random(SEAL_NONCE_BYTES)
        cookie = mac(self._secret, path)
        return encode_cookie(index, nonce, self._suite.seal(self._key, nonce, cookie, mac1))

    def fits(self, now: float, path: bytes, datagram: bytes) -> bool:
        """Whether the `mac2` of a piece shows that its sender got a cookie on this path lately."""
        mac2 = datagram[-MAC_BYTES:]
        if mac2 == _NO_MAC:
            return False
        self._rotate(now)
        covered = datagram[:-MAC_BYTES]
        return any(
            hmac.compare_digest(mac(mac(secret, path), covered), mac2) for secret in (self._secret, self._previous)
        )

    def _rotate(self, now: float) -> None:
        age = now - self._since
        if age < SECRET_SECONDS:
            return
        fresh = self._suite.random(32)
        self._previous = self._secret if age < 2 * SECRET_SECONDS else fresh
        self._secret, self._since = fresh, now
