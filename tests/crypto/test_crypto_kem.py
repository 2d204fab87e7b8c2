"""ML-KEM-768: sizes, both sides agree, what is no key is refused; the paper one keeps to the same rules."""

from __future__ import annotations

import base64
import subprocess
import sys
from random import Random

import pytest

from meshcall.crypto.kem import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES, KEM_SECRET_BYTES, Kem, MlKem768
from meshcall.sim.paper_kem import PaperKem

KEMS: list[Kem] = [MlKem768(), PaperKem(Random(1))]
each = pytest.mark.parametrize("kem", KEMS, ids=["ML-KEM-768", "paper"])


@each
def test_both_sides_agree(kem: Kem) -> None:
    key = kem.generate()
    assert len(key.public) == KEM_PUBLIC_BYTES == 1184
    made = kem.encapsulate(key.public)
    assert made is not None
    secret, ciphertext = made
    assert (len(secret), len(ciphertext)) == (KEM_SECRET_BYTES, KEM_CIPHERTEXT_BYTES) == (32, 1088)
    assert key.decapsulate(ciphertext) == secret
    again = kem.encapsulate(key.public)
    assert again is not None
    assert again[0] != secret
    assert kem.generate().public != key.public


@each
def test_what_is_damaged_gives_another_secret_or_none(kem: Kem) -> None:
    key = kem.generate()
    made = kem.encapsulate(key.public)
    assert made is not None
    secret, ciphertext = made
    other = key.decapsulate(bytes([ciphertext[0] ^ 1]) + ciphertext[1:])
    assert other is not None
    assert other != secret
    assert kem.generate().decapsulate(ciphertext) != secret
    assert key.decapsulate(ciphertext[1:]) is None
    assert kem.encapsulate(key.public[1:]) is None


def test_a_key_with_unreduced_coefficients_is_none() -> None:
    """FIPS 203 section 7.2: 0xfff is more than 3328."""
    assert MlKem768().encapsulate(b"\xff" * KEM_PUBLIC_BYTES) is None


def test_the_key_of_rfc_9935_appendix_c() -> None:
    """ML-KEM-768 of the seed 00 01 .. 3f; some of the lines printed there."""
    spki = bytes.fromhex("308204b2300b0609608648016503040402038204a100") + MlKem768().from_seed(bytes(range(64))).public
    text = base64.b64encode(spki).decode()
    assert text.startswith(
        "MIIEsjALBglghkgBZQMEBAIDggShACmKoQ1CPI3aBp0CvFnmzfA6CWuLPaTKubgM"
        "pKFJB2cszvHsT68jSgvFt+nUc/KzEzs7JqHRdctnp4BZGWmcAvdlMbmcX4kYBwS7"
        "TKRTXFuJcmecZgoHxeUUuHAJyGLrj1FXaV77P8QKne9rgcHMAqJJrk8JStDZvTSF"
    )
    assert "XmO0ztf4CFenc91ksVDSZhLqmsEgUtsgF78YQ8y0sygbaQ3HKK36hcACgbjjwJKH" in text
    assert "M1+Fa0/CiS9povV5Ia2gGRTECYhmLVd2lmKnhjUbm2ZJPat5WU2YbeIQDWW6D/Tq" in text


def test_the_import_is_late() -> None:
    code = "import sys, meshcall.handshake.links; sys.exit('cryptography' in sys.modules or 'nacl' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
