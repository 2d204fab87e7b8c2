"""Writes address.json and identity.json, the vectors of docs/identity.md.

    python tests/vectors/make_identity_vectors.py

Vectors are only ever added to: a second implementation may rely on them.  What is random in the
product comes from a counter here.  The bech32m strings are BIP 350's own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from meshcall import address, keyfile, words
from meshcall.crypto.sodium import Sodium
from meshcall.identity import Device, Identity, signed_terms

FOLDER = Path(__file__).parent
UNIX_TIME = 1_800_000_000
SMALL_COST = keyfile.Cost(operations=2, memory_kib=64)

# https://github.com/bitcoin/bips/blob/master/bip-0350.mediawiki, "Test vectors for Bech32m"
BIP_350_VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
BIP_350_INVALID = [
    ["\x201xj0phk", "HRP character out of range"],
    ["\x7f1g6xzxy", "HRP character out of range"],
    ["\x801vctc34", "HRP character out of range"],
    [
        "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
        "overall max length exceeded",
    ],
    ["qyrz8wqd2c9m", "No separator character"],
    ["1qyrz8wqd2c9m", "Empty HRP"],
    ["y1b0jsk6g", "Invalid data character"],
    ["lt1igcx5c0", "Invalid data character"],
    ["in1muywd", "Too short checksum"],
    ["mm1crxm3i", "Invalid character in checksum"],
    ["au1s5cgom", "Invalid character in checksum"],
    ["M1VUXWEZ", "checksum calculated with uppercase form of HRP"],
    ["16plkw9", "empty HRP"],
    ["1p2gdwpf", "empty HRP"],
]
SEEDS = {
    "zero": bytes(32),
    "counting": bytes(range(32)),
    "RFC 8032 section 7.1 test 1": bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
    "RFC 8032 section 7.1 test 2": bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
}
NAMES = ["", "Ada", "Jürgen W. & Söhne", "محمد", "50 % + 1?"]


class CountingSodium(Sodium):
    """Sodium whose random bytes can be foretold."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def random(self, size: int) -> bytes:
        """BLAKE2b of a counter."""
        self.count += 1
        return hashlib.blake2b(b"vector %d" % self.count, digest_size=size).digest()


def wrong_texts(good: str) -> list[dict[str, object]]:
    """Texts with typing errors, and the places (0 is the first character) that must be named."""

    def other(place: int) -> str:
        return "q" if good[place] != "q" else "p"

    two = good[:5] + other(5) + good[6:40] + other(40) + good[41:]
    texts = {
        "the first character": ("n" + good[1:], [0]),
        "one character": (good[:6] + other(6) + good[7:], [6]),
        "a character that is never used": (good[:6] + "b" + good[7:], [6]),
        "one character of the checksum": (good[:61] + other(61), [61]),
        "two characters": (two, [5, 40]),
        "neighbours swapped": (good[:20] + good[21] + good[20] + good[22:], [20, 21]),
        "one capital": (good[:1] + good[1].upper() + good[2:], [1]),
        "one missing": (good[:30] + good[31:], [30]),
        "one too many": (good[:30] + ("x" if good[30] != "x" else "y") + good[30:], [30]),
        "cut off": (good[:40], []),
    }
    return [{"what": what, "text": text, "places": places} for what, (text, places) in texts.items()]


def addresses() -> dict[str, object]:
    """The content of address.json."""
    suite = Sodium()
    good = address.encode(suite.expand(SEEDS["RFC 8032 section 7.1 test 1"]).public)
    keys = [suite.expand(seed).public for seed in SEEDS.values()]
    return {
        "bech32m_valid": BIP_350_VALID,
        "bech32m_invalid": BIP_350_INVALID,
        "addresses": [{"public": key.hex(), "address": address.encode(key)} for key in keys],
        "links": [{"public": keys[0].hex(), "name": name, "link": str(address.Link(keys[0], name))} for name in NAMES],
        "wrong": wrong_texts(good),
        "foreign": [
            address.encode_symbols("mc", [0] * address.SYMBOLS),  # version 0
            address.encode_symbols("mc", [0, 4, *[0] * 50, 1]),  # version 1, padding not zero
            address.encode_symbols("mc", [0, 4, *[0] * 50]),  # version 1, too short
            address.encode_symbols("bc", [0, 4, *[0] * 51]),
        ],
    }


def identities() -> dict[str, object]:
    """The content of identity.json."""
    suite = CountingSodium()
    people = []
    for what, seed in SEEDS.items():
        identity = Identity.from_seed(suite, seed)
        people.append(
            {
                "what": what,
                "seed": seed.hex(),
                "public": identity.public.hex(),
                "address": identity.address,
                "words": " ".join(words.from_seed(seed)),
            }
        )
    identity = Identity.from_seed(suite, SEEDS["RFC 8032 section 7.1 test 1"])
    device = Device.new(suite)
    certificate = device.certify(suite, identity, UNIX_TIME)
    secrets = keyfile.Secrets(seed=identity.seed, device_secret=device.secret, device_serial=device.serial)
    files = []
    for name, passphrase, cost in [
        ("Ada", "correct horse battery staple", SMALL_COST),
        ("", "pässword ﬁne", SMALL_COST),  # NFKC makes the ligature two letters
        ("Ada", "", None),
    ]:
        data = keyfile.seal(suite, secrets, name, passphrase, cost)
        header = keyfile.read_header(data)
        files.append(
            {
                "name": name,
                "passphrase": passphrase,
                "operations": header.cost.operations,
                "memory_kib": header.cost.memory_kib,
                "salt": header.salt.hex(),
                "nonce": header.nonce.hex(),
                "seed": secrets.seed.hex(),
                "device_secret": secrets.device_secret.hex(),
                "device_serial": secrets.device_serial,
                "file": data.hex(),
            }
        )
    return {
        "identities": people,
        "certificates": [
            {
                "identity_public": identity.public.hex(),
                "device_secret": device.secret.hex(),
                "device_public": device.public.hex(),
                "serial": certificate.serial,
                "expiry": certificate.expiry,
                "signed": signed_terms(certificate.static, certificate.serial, certificate.expiry).hex(),
                "certificate": certificate.encode().hex(),
            }
        ],
        "key_files": files,
    }


def render(content: dict[str, object]) -> str:
    """The text of a vector file."""
    return json.dumps(content, ensure_ascii=True, indent=1) + "\n"


def build() -> dict[str, str]:
    """All files by name."""
    return {"address.json": render(addresses()), "identity.json": render(identities())}


if __name__ == "__main__":
    for file_name, text in build().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8")
