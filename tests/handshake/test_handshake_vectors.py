"""The link against golden vectors that a second implementation made from docs/link.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from meshcall.core import Endpoint
from meshcall.crypto.kem import KemKey, MlKem768
from meshcall.crypto.sodium import Sodium
from meshcall.handshake.cookie import CookieJar, cookie_key, mac1_fits, mac1_of, mac_key, open_cookie, with_macs
from meshcall.handshake.dial import start_handshake
from meshcall.handshake.indexes import Indexes
from meshcall.handshake.noise import IK, IK_HFS, Handshake, KeyPair
from meshcall.handshake.pieces import Assembler, cut
from meshcall.handshake.replay import encode_time
from meshcall.handshake.responder import Caller, Responder
from meshcall.handshake.safety import safety_words
from meshcall.handshake.session import Epoch, Peer, Session
from meshcall.identity import Certificate, Device, Identity
from meshcall.path.paths import Path as Way
from meshcall.path.paths import direct
from meshcall.wire import link as wire

SUITE = Sodium()
FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS = json.loads((FOLDER / "link.json").read_text())["vectors"]
each = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: "hybrid" if vector["hybrid"] else "classical")


class Kept:
    """ML-KEM whose key and encapsulation are those of a vector."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.key = MlKem768().from_seed(h(vector["kem_seed"]))
        self.ciphertext = h(vector["kem_ciphertext"])

    def generate(self) -> KemKey:
        return self.key

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        assert public == self.key.public
        secret = self.key.decapsulate(self.ciphertext)
        assert secret is not None
        return secret, self.ciphertext


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def keys(vector: dict[str, Any], name: str) -> KeyPair:
    return KeyPair.of(SUITE, h(vector[name]))


def both(vector: dict[str, Any]) -> tuple[Handshake, Handshake]:
    pattern, kem = (IK_HFS, Kept(vector)) if vector["hybrid"] else (IK, None)
    prologue = b"meshcall link 1" + h(vector["index_i"])
    return (
        Handshake(
            pattern, suite=SUITE, kem=kem, initiator=True, prologue=prologue, static=keys(vector, "s_i"),
            remote_static=keys(vector, "s_r").public, ephemeral=keys(vector, "e_i"),
        ),
        Handshake(
            pattern, suite=SUITE, kem=kem, initiator=False, prologue=prologue, static=keys(vector, "s_r"),
            ephemeral=keys(vector, "e_r"),
        ),
    )  # fmt: skip


def finished(vector: dict[str, Any]) -> tuple[Handshake, Handshake]:
    sides = both(vector)
    assert sides[1].read(sides[0].write(h(vector["offer"]))) == h(vector["offer"])
    assert sides[0].read(sides[1].write(h(vector["answer"]))) == h(vector["answer"])
    return sides


def certificate(vector: dict[str, Any], side: str) -> tuple[bytes, Certificate]:
    identity = Identity.from_seed(SUITE, h(vector[f"identity_seed_{side}"]))
    device = Device.from_secret(SUITE, h(vector[f"s_{side}"]), 7 if side == "i" else 8)
    from meshcall.identity import signed_terms

    signature = SUITE.sign(identity.key, signed_terms(device.public, device.serial, 2_000_000_000))
    return identity.public, Certificate(device.public, device.serial, 2_000_000_000, signature)


@each
def test_payloads(vector: dict[str, Any]) -> None:
    offer = wire.decode_offer(h(vector["offer"]))
    assert wire.encode_offer(offer) == h(vector["offer"])
    identity, certified = certificate(vector, "i")
    assert (offer.identity, offer.certificate) == (identity, certified.encode()[32:])
    assert offer.time == encode_time(vector["unix_time"] * 10**9 + 5)
    assert offer.keep_alive == 25
    assert offer.reset_token == Indexes(SUITE, h(vector["s_i"])).token(h(vector["index_i"]))
    answer = wire.decode_answer(h(vector["answer"]))
    assert wire.encode_answer(answer) == h(vector["answer"])
    identity, certified = certificate(vector, "r")
    assert (answer.index, answer.identity) == (h(vector["index_r"]), identity)
    assert answer.certificate == certified.encode()[32:]


@each
def test_handshake(vector: dict[str, Any]) -> None:
    initiator, responder = both(vector)
    assert initiator.write(h(vector["offer"])) == h(vector["first"])
    assert responder.read(h(vector["first"])) == h(vector["offer"])
    assert responder.write(h(vector["answer"])) == h(vector["second"])
    assert initiator.read(h(vector["second"])) == h(vector["answer"])
    assert initiator.hash == responder.hash == h(vector["transcript"])
    assert list(safety_words(initiator.hash)) == vector["safety_words"]
    assert initiator.split() == (h(vector["initiator_sends_with"]), h(vector["responder_sends_with"]))
    assert responder.split() == (h(vector["responder_sends_with"]), h(vector["initiator_sends_with"]))


@each
def test_the_product_begins_the_handshake_so(vector: dict[str, Any]) -> None:
    kem = Kept(vector) if vector["hybrid"] else None
    responder = start_handshake(
        SUITE, kem, keys(vector, "s_r"), h(vector["index_i"]), hybrid=vector["hybrid"], remote_static=None
    )
    assert responder.read(h(vector["first"])) == h(vector["offer"])


@each
def test_pieces_and_cookies(vector: dict[str, Any]) -> None:
    form = wire.FORM_HYBRID if vector["hybrid"] else 0
    key = mac_key(keys(vector, "s_r").public)
    bodies = [wire.encode_piece(piece) for piece in cut(h(vector["first"]), form, h(vector["index_i"]))]
    plain = [with_macs(body, key, None) for body in bodies]
    assert plain == [h(text) for text in vector["first_datagrams"]]
    path = direct(Endpoint(h(vector["path"])[1:]))
    assert path == h(vector["path"])
    cookie_index, nonce, sealed = wire.decode_cookie(h(vector["cookie_reply"]))
    assert cookie_index == h(vector["index_i"])
    cookie = open_cookie(SUITE, cookie_key(keys(vector, "s_r").public), nonce, sealed, mac1_of(plain[0]))
    assert cookie == h(vector["cookie"])
    proved = [with_macs(body, key, cookie) for body in bodies]
    assert proved == [h(text) for text in vector["first_datagrams_with_cookie"]]
    jar = CookieJar(0.0, keys(vector, "s_r").public, SUITE)
    jar._secret = h(vector["cookie_secret"])
    assert all(jar.fits(0.0, path, datagram) for datagram in proved)
    assembler = Assembler()
    back = [wire.decode_piece(h(text)) for text in vector["second_datagrams"]]
    assert all(mac1_fits(h(text), mac_key(keys(vector, "s_i").public)) for text in vector["second_datagrams"])
    assert [assembler.add(0.0, path, piece) for piece in back][-1] == h(vector["second"])


@each
def test_the_responder_takes_the_first_message(vector: dict[str, Any]) -> None:
    kem = Kept(vector) if vector["hybrid"] else None
    responder = Responder(0.0, SUITE, kem, keys(vector, "s_r"))
    path = Way(h(vector["path"]))
    for text in vector["first_datagrams"]:
        found = responder.take(0.0, vector["unix_time"] + 60.0, path, h(text), wire.decode_piece(h(text)))
    assert isinstance(found, Caller)
    assert found.peer == Peer(*certificate(vector, "i"))


@each
def test_packets(vector: dict[str, Any]) -> None:
    sides = {}
    for name, handshake, index, other, side in zip(
        ("initiator", "responder"), finished(vector), ("index_i", "index_r"), ("index_r", "index_i"), "ri", strict=True
    ):
        indexes = Indexes(SUITE, b"secret")
        epoch = Epoch(0.0, SUITE, handshake, h(vector[index]), h(vector[other]), bytes(16))
        sides[name] = Session(
            0.0, suite=SUITE, kem=None, static=keys(vector, "s_i"), peer=Peer(*certificate(vector, side)),
            indexes=indexes, owner=1, epoch=epoch, starter=name == "initiator", counters=Counter(),
        )  # fmt: skip
    for packet in vector["packets"]:
        datagram, payload = h(packet["datagram"]), h(packet["payload"])
        there = sides["responder" if packet["from"] == "initiator" else "initiator"]
        assert sides[packet["from"]].seal(0.0, packet["kind"], payload) == datagram
        assert there.open(0.0, datagram) == (packet["kind"], payload)
        assert there.open(0.0, datagram) is None


@each
def test_reset(vector: dict[str, Any]) -> None:
    token = Indexes(SUITE, h(vector["s_r"])).token(h(vector["index_r"]))
    assert wire.encode_reset(token) == h(vector["reset_by_responder"])
    assert wire.decode_answer(h(vector["answer"])).reset_token == token


def test_the_vectors_are_what_the_script_makes() -> None:
    script = FOLDER / "make_link_vectors.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "the same"
