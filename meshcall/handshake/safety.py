"""Safety words: what two people read to each other to be sure that nobody stands between them.

They come from the transcript of the handshake, so they are the same on both sides if and only if both have
seen the same keys.  Five words are 55 bits: who wants to sit in the middle must hit them within the seconds
of one handshake.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

WORDS: Final = 5
_BITS_PER_WORD: Final = 11


def safety_words(transcript: bytes) -> tuple[str, ...]:
    """The five words of a session's transcript, of BIP 39's English list."""
    digest = hashlib.blake2b(transcript, digest_size=8, person=b"meshcall safety").digest()
    number = int.from_bytes(digest, "big") >> 64 - WORDS * _BITS_PER_WORD
    book = _book()
    return tuple(book[number >> _BITS_PER_WORD * place & 0x7FF] for place in reversed(range(WORDS)))


@cache
def _book() -> tuple[str, ...]:
    """Imported late: the list is read from a file, and most sessions show no words."""
    from mnemonic import Mnemonic

    return tuple(Mnemonic("english").wordlist)
