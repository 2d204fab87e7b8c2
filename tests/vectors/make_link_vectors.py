"""Writes link.json: golden vectors of the link, from keys to datagrams.

This is a second implementation, made from docs/link.md alone.  It shares no code with meshcall; only
primitives are taken: X25519, ChaCha20-Poly1305, XChaCha20-Poly1305 and Ed25519 from libsodium, ML-KEM-768
from OpenSSL.  OpenSSL's encapsulation cannot be told its entropy, so the secret and the ciphertext of a new
vector are those of one real encapsulation, kept from then on.  Run it as

    python tests/vectors/make_link_vectors.py            (says whether link.json is what it would write)
    python tests/vectors/make_link_vectors.py --write

A vector, once published, is only ever added to.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from mnemonic import Mnemonic
from nacl import bindings

PLACE = Path(__file__).with_name("link.json")


def blake(data, size=64, key=b"", person=b""):
    return hashlib.blake2b(data, digest_size=size, key=key, person=person).digest()


def public(secret):
    return bindings.crypto_scalarmult_base(secret)


def dh(secret, other):
    return bindings.crypto_scalarmult(secret, other)


def chacha(key, number, plaintext, bound):
    nonce = bytes(4) + number.to_bytes(8, "little")
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, bound, nonce, key)


def hkdf(chaining, material):
    def one(key, data):
        return hmac.new(key, data, hashlib.blake2b).digest()

    secret = one(chaining, material)
    first = one(secret, b"\x01")
    return first, one(secret, first + b"\x02")


class Symmetric:
    """Noise's SymmetricState, written out."""

    def __init__(self, name, prologue, responder_static):
        self.h = name.ljust(64, b"\0") if len(name) <= 64 else blake(name)
        self.ck, self.k, self.n = self.h, None, 0
        self.mix(prologue)
        self.mix(responder_static)

    def mix(self, data):
        self.h = blake(self.h + data)

    def key(self, material):
        self.ck, key = hkdf(self.ck, material)
        self.k, self.n = key[:32], 0

    def seal(self, plaintext):
        sealed = chacha(self.k, self.n, plaintext, self.h)
        self.n += 1
        self.mix(sealed)
        return sealed


def ik(hybrid, prologue, keys, payloads):
    """Both messages, the transcript, the initiator's key to send with and the responder's."""
    name = b"Noise_IKhfs_25519+MLKEM768_ChaChaPoly_BLAKE2b" if hybrid else b"Noise_IK_25519_ChaChaPoly_BLAKE2b"
    s_i, s_r, e_i, e_r = (keys[which] for which in ("s_i", "s_r", "e_i", "e_r"))
    state = Symmetric(name, prologue, public(s_r))
    state.mix(public(e_i))
    first = public(e_i)
    state.key(dh(e_i, public(s_r)))
    if hybrid:
        first += state.seal(keys["e1"])
    first += state.seal(public(s_i))
    state.key(dh(s_i, public(s_r)))
    first += state.seal(payloads[0])
    state.mix(public(e_r))
    second = public(e_r)
    state.key(dh(e_r, public(e_i)))
    if hybrid:
        second += state.seal(keys["kem_ciphertext"])
        state.key(keys["kem_secret"])
    state.key(dh(e_r, public(s_i)))
    second += state.seal(payloads[1])
    one, two = hkdf(state.ck, b"")
    return first, second, state.h, one[:32], two[:32]


def pieces(message, form, index, static, cookie=None):
    count = -(-len(message) // 1151)
    size = -(-len(message) // count)
    datagrams = []
    for number in range(count):
        head = bytes([0x10, 1, form, number, count]) + index + blake(message)[:8]
        datagram = head + message[number * size : (number + 1) * size]
        datagram += blake(datagram, 16, blake(b"meshcall mac1 1" + static, 32))
        datagram += bytes(16) if cookie is None else blake(datagram, 16, cookie)
        datagrams.append(datagram)
    return datagrams


def certificate(seed, static, serial, expiry):
    """What stands in the payload: without the static key."""
    verify, sign = bindings.crypto_sign_seed_keypair(seed)
    terms = serial.to_bytes(4, "big") + expiry.to_bytes(8, "big")
    return verify, terms + bindings.crypto_sign(b"meshcall device 1" + static + terms, sign)[:64]


def reset_token(secret, index):
    return blake(index, 16, blake(b"meshcall reset 1", 32, secret))


def tai64n(seconds, nanoseconds):
    return (2**62 + 10 + seconds).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")


def make(hybrid, old):
    keys = {which: blake(b"link vector " + which.encode(), 32) for which in ("s_i", "s_r", "e_i", "e_r")}
    seeds = {which: blake(b"link vector identity " + which.encode(), 32) for which in ("i", "r")}
    kem_seed = blake(b"link vector e1", 64)
    kem = MLKEM768PrivateKey.from_seed_bytes(kem_seed)
    if hybrid:
        keys["e1"] = kem.public_key().public_bytes_raw()
        if old:
            keys["kem_ciphertext"] = bytes.fromhex(old["kem_ciphertext"])
            keys["kem_secret"] = kem.decapsulate(keys["kem_ciphertext"])
        else:
            keys["kem_secret"], keys["kem_ciphertext"] = kem.public_key().encapsulate()
    index_i, index_r = bytes.fromhex("a1b2c3d4"), bytes.fromhex("0badcafe")
    identity_i, terms_i = certificate(seeds["i"], public(keys["s_i"]), 7, 2_000_000_000)
    identity_r, terms_r = certificate(seeds["r"], public(keys["s_r"]), 8, 2_000_000_000)
    offer = tai64n(1_800_000_000, 5) + identity_i + terms_i + (25).to_bytes(2, "big")
    offer += reset_token(keys["s_i"], index_i)
    answer = index_r + identity_r + terms_r + reset_token(keys["s_r"], index_r)
    first, second, transcript, send_i, send_r = ik(
        hybrid, b"meshcall link 1" + index_i, keys, (offer, answer)
    )  # fmt: skip
    form = 2 if hybrid else 0
    path = bytes.fromhex("00" + "c0000201" + "1092")
    cookie_secret, cookie_nonce = blake(b"link vector cookie", 32), blake(b"link vector nonce", 24)
    cookie = blake(path, 16, cookie_secret)
    plain = pieces(first, form, index_i, public(keys["s_r"]))
    sealed_cookie = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        cookie, plain[0][-32:-16], cookie_nonce, blake(b"meshcall cookie 1" + public(keys["s_r"]), 32)
    )
    packets = []
    for sender, number, kind, payload in (
        ("initiator", 0, 0, b""),
        ("initiator", 1, 1, (0).to_bytes(4, "big") + b"\1" + b"ring"),
        ("responder", 0, 2, (1).to_bytes(4, "big") + bytes(8)),
        ("responder", 1, 32, bytes(range(100))),
    ):
        key, index = (send_i, index_r) if sender == "initiator" else (send_r, index_i)
        head = b"\x12" + index + number.to_bytes(4, "big")
        datagram = head + chacha(key, number, bytes([kind]) + payload, head)
        packets.append(
            {"from": sender, "kind": kind, "payload": payload.hex(), "datagram": datagram.hex()}
        )  # fmt: skip
    word = int.from_bytes(blake(transcript, 8, person=b"meshcall safety"), "big") >> 9
    words = Mnemonic("english").wordlist
    vector = {
        "hybrid": hybrid,
        **{name: keys[name].hex() for name in ("s_i", "s_r", "e_i", "e_r")},
        "identity_seed_i": seeds["i"].hex(),
        "identity_seed_r": seeds["r"].hex(),
        "index_i": index_i.hex(),
        "index_r": index_r.hex(),
        "unix_time": 1_800_000_000,
        "offer": offer.hex(),
        "answer": answer.hex(),
        "first": first.hex(),
        "second": second.hex(),
        "first_datagrams": [datagram.hex() for datagram in plain],
        "second_datagrams": [d.hex() for d in pieces(second, form | 1, index_i, public(keys["s_i"]))],
        "path": path.hex(),
        "cookie": cookie.hex(),
        "cookie_secret": cookie_secret.hex(),
        "cookie_reply": (b"\x11" + index_i + cookie_nonce + sealed_cookie).hex(),
        "first_datagrams_with_cookie": [
            d.hex() for d in pieces(first, form, index_i, public(keys["s_r"]), cookie)
        ],
        "transcript": transcript.hex(),
        "safety_words": [words[word >> 11 * place & 0x7FF] for place in (4, 3, 2, 1, 0)],
        "initiator_sends_with": send_i.hex(),
        "responder_sends_with": send_r.hex(),
        "packets": packets,
        "reset_by_responder": (b"\x13" + reset_token(keys["s_r"], index_r)).hex(),
    }  # fmt: skip
    if hybrid:
        vector |= {"kem_seed": kem_seed.hex(), "kem_ciphertext": keys["kem_ciphertext"].hex()}
    return vector


def main():
    before = json.loads(PLACE.read_text())["vectors"] if PLACE.exists() else [None, None]
    vectors = [make(True, before[0]), make(False, before[1])]
    text = json.dumps({"vectors": vectors}, indent=1) + "\n"
    if "--write" in sys.argv:
        PLACE.write_text(text)
    else:
        print("the same" if PLACE.exists() and PLACE.read_text() == text else "different")


if __name__ == "__main__":
    main()
