"""Writes record.json: golden vectors of the record format, from seed to signed item.

This is a second implementation, made from docs/records.md alone.  It shares no code with meshcall:
Ed25519 is written out here, and only XChaCha20-Poly1305 is taken from libsodium.  Run it as

    python tests/vectors/make_record_vectors.py            (prints what it would write)
    python tests/vectors/make_record_vectors.py --write

A vector, once published, is only ever added to.
"""

from __future__ import annotations

import json
import sys
from hashlib import blake2b, sha1, sha512
from ipaddress import ip_address
from pathlib import Path

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha20poly1305

PLACE = Path(__file__).with_name("record.json")

# Ed25519 (RFC 8032): the curve -x^2 + y^2 = 1 + d x^2 y^2 over the field of P, in extended coordinates.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def base_point():
    x2 = (BASE_Y * BASE_Y - 1) * pow(D * BASE_Y * BASE_Y + 1, -1, P)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = P - x if x & 1 else x
    return (x, BASE_Y, 1, x * BASE_Y % P)


def add(one, two):
    a = (one[1] - one[0]) * (two[1] - two[0]) % P
    b = (one[1] + one[0]) * (two[1] + two[0]) % P
    c = 2 * one[3] * two[3] * D % P
    d = 2 * one[2] * two[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times_base(scalar):
    result, point = (0, 1, 1, 0), base_point()
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    inverse = pow(result[2], -1, P)
    x, y = result[0] * inverse % P, result[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expand(seed):
    digest = sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar = scalar & (2**254 - 8) | 2**254
    return scalar, digest[32:]


def sign(scalar, prefix, message):
    nonce = int.from_bytes(sha512(prefix + message).digest(), "little") % L
    commitment, public = times_base(nonce), times_base(scalar)
    challenge = int.from_bytes(sha512(commitment + public + message).digest(), "little") % L
    return commitment + ((nonce + challenge * scalar) % L).to_bytes(32, "little")


# The format


def u(size, number):
    return number.to_bytes(size, "big")


def address(text):
    host, _, port = text.rpartition(":")
    return ip_address(host.strip("[]")).packed + u(2, int(port))


def lease_bytes(lease):
    flags = lease["udp"] | ("tcp_port" in lease) << 1 | ("v4" in lease) << 2 | ("v6" in lease) << 3
    data = u(1, flags) + bytes.fromhex(lease["lease_id"]) + bytes.fromhex(lease["relay"])
    for family in ("v4", "v6"):
        data += address(lease[family]) if family in lease else b""
    return data + (u(2, lease["tcp_port"]) if "tcp_port" in lease else b"")


def device_bytes(device):
    data = u(4, device["serial"]) + bytes.fromhex(device["static"]) + u(5, device["expiry"])
    data += bytes.fromhex(device["signature"]) + u(4, device["time"]) + u(2, device["lifetime"])
    data += u(2, device["capabilities"])
    fields = [(1, lease_bytes(lease)) for lease in device["leases"]]
    for kind, family in ((2, "direct_v4"), (3, "direct_v6")):
        if device[family]:
            fields.append((kind, b"".join(map(address, device[family]))))
    fields += [(kind, bytes.fromhex(value)) for kind, value in device["unknown"]]
    return data + b"".join(u(1, kind) + u(1, len(value)) + value for kind, value in fields)


def plaintext_bytes(record):
    fields = [(1, device_bytes(device)) for device in record["devices"]]
    if record["revoked"]:
        fields.append((2, b"".join(u(4, each["serial"]) + u(4, each["until"]) for each in record["revoked"])))
    fields += [(kind, bytes.fromhex(value)) for kind, value in record["unknown"]]
    data = b"\x01" + b"".join(u(1, kind) + u(2, len(value)) + value for kind, value in fields)
    assert len(data) <= 836, len(data)
    return data + bytes(836 - len(data))


def certified(seed, device):
    """The device with the identity's signature over its terms."""
    scalar, prefix = expand(seed)
    terms = b"meshcall device 1" + bytes.fromhex(device["static"]) + u(4, device["serial"]) + u(8, device["expiry"])
    return device | {"signature": sign(scalar, prefix, terms).hex()}


def vector(name, seed, unix_time, seq, nonce, record):
    scalar, prefix = expand(seed)
    public = times_base(scalar)
    shift = int.from_bytes(blake2b(b"meshcall period 1" + public).digest()[:8], "big") % 86400
    period = (unix_time - shift) // 86400
    factor = blake2b(b"meshcall blind 1" + public + u(8, period)).digest()
    blinded_scalar = int.from_bytes(factor, "little") % L * scalar % L
    blinded_prefix = blake2b(b"meshcall blind nonce 1" + prefix + public + u(8, period), digest_size=32).digest()
    blinded_public = times_base(blinded_scalar)
    seal_key = blake2b(b"meshcall seal 1" + public + u(8, period), digest_size=32).digest()
    record = record | {"devices": [certified(seed, device) for device in record["devices"]]}
    plaintext = plaintext_bytes(record)
    sealed = nonce + xchacha20poly1305(plaintext, blinded_public + u(8, seq), nonce, seal_key)
    value = b"%d:%s" % (len(sealed), sealed)
    signature = sign(blinded_scalar, blinded_prefix, b"3:seqi%de1:v%s" % (seq, value))
    return {
        "name": name,
        "seed": seed.hex(),
        "public": public.hex(),
        "unix_time": unix_time,
        "shift": shift,
        "period": period,
        "blinding_factor": factor.hex(),
        "blinded_scalar": blinded_scalar.to_bytes(32, "little").hex(),
        "blinded_prefix": blinded_prefix.hex(),
        "blinded_public": blinded_public.hex(),
        "target": sha1(blinded_public).hexdigest(),
        "seal_key": seal_key.hex(),
        "record": record,
        "plaintext_without_padding": plaintext.rstrip(b"\0").hex(),
        "plaintext_blake2b_256": blake2b(plaintext, digest_size=32).hexdigest(),
        "seq": seq,
        "nonce": nonce.hex(),
        "value": value.hex(),
        "signature": signature.hex(),
    }


# The cases


def key(number):
    """32 bytes that stand for some public key."""
    return blake2b(b"vector key %d" % number, digest_size=32).hexdigest()


def device(serial, time, **more):
    return {
        "serial": serial, "static": key(serial), "expiry": time + 400 * 86400, "time": time, "lifetime": 10800,
        "capabilities": 1, "leases": [], "direct_v4": [], "direct_v6": [], "unknown": [],
    } | more  # fmt: skip


def vectors():
    alice, bob = bytes(range(32)), blake2b(b"vector seed bob", digest_size=32).digest()
    nonces = [blake2b(b"vector nonce %d" % number, digest_size=24).digest() for number in range(4)]
    time = 1_800_000_000
    relay = {"relay": key(101), "lease_id": "0011223344556677", "v4": "192.0.2.7:6881", "udp": True, "tcp_port": 443}
    both = {"relay": key(102), "lease_id": "8899aabbccddeeff", "v4": "198.51.100.9:41000",
            "v6": "[2001:db8::9]:41000", "udp": True}  # fmt: skip
    barred = {"relay": key(103), "lease_id": "0123456789abcdef", "v6": "[2001:db8:1::2]:443", "udp": False,
              "tcp_port": 443}  # fmt: skip
    return [
        vector("no device", alice, time, time, nonces[0], {"devices": [], "revoked": [], "unknown": []}),
        vector(
            "one device", alice, time, time + 1, nonces[1],
            {"devices": [device(7, time, leases=[relay])], "revoked": [], "unknown": []},
        ),
        vector(
            "two devices, leases of both families, addresses, a revocation and unknown fields",
            bob, time + 86400, time + 90000, nonces[2],
            {
                "devices": [
                    device(1, time + 80000, leases=[both, relay], direct_v4=["203.0.113.5:50000"]),
                    device(
                        0xFFFFFFFF, time + 86300, capabilities=0, lifetime=65535, leases=[barred],
                        direct_v4=["203.0.113.6:1", "203.0.113.6:65535"], direct_v6=["[2001:db8::6]:50000"],
                        unknown=[[9, ""], [200, "c0ffee"]],
                    ),
                ],
                "revoked": [{"serial": 2, "until": time + 400 * 86400}, {"serial": 3, "until": 0xFFFFFFFF}],
                "unknown": [[3, "00"], [255, "feed"]],
            },
        ),
        vector(
            "full: five devices with a lease each take all 836 bytes",
            bob, time - 86400 * 365, 2**63 - 1, nonces[3],
            {
                "devices": [
                    device(serial, time, leases=[relay | {"lease_id": f"{serial:016x}"}]) for serial in range(1, 6)
                ],
                "revoked": [],
                "unknown": [],
            },
        ),
    ]  # fmt: skip


def text():
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PLACE.write_text(text())
    else:
        print(text(), end="")
