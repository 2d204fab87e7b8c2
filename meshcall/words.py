"""A 32-byte seed as 24 words on paper, and back (BIP 39's list and checksum; not its key derivation).

The checksum has 8 bits: a wrong word from the list slips through once in 256 times, so whoever
restores an identity must compare the address that comes out.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from meshcall.crypto.suite import SEED_BYTES
from meshcall.errors import UsageError

if TYPE_CHECKING:
    from mnemonic import Mnemonic

WORDS: Final = 24
TEXT_CHARS_MAX: Final = 4096
SUGGESTIONS_MAX: Final = 3
_NUMBERING: Final = re.compile(r"\d+[.):]?")


class WordsError(UsageError):
    """These are not the 24 words of an identity."""

    def __init__(self, sentence: str, places: tuple[int, ...] = ()) -> None:
        """`places`: indices of the words that cannot be right; empty if unknown."""
        super().__init__(sentence)
        self.places = places


def from_seed(seed: bytes) -> list[str]:
    """The 24 words of a 32-byte seed."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed of {len(seed)} bytes")
    return _book().to_mnemonic(seed).split()


def to_seed(text: str) -> bytes:
    """The seed of 24 words; capitals, line ends and numbering do not matter.  Raises WordsError."""
    words = split(text)
    if len(words) != WORDS:
        raise WordsError(f"a backup has {WORDS} words, these are {len(words)}")
    book = _book()
    if not book.check(" ".join(words)):
        raise WordsError(
            "each of these words is in the list, but together they do not fit: one of them is another word, "
            "or two have changed places; compare them with the paper"
        )
    return bytes(book.to_entropy(words))


def split(text: str, offset: int = 0) -> list[str]:
    """The words of a text, each of them in the list; `offset`: how many stand before them.

    Raises WordsError that names the words that are not in the list by their places.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise WordsError(f"this is too long for {WORDS} words")
    words = [word for word in text.lower().replace(",", " ").split() if not _NUMBERING.fullmatch(word)]
    book = _book()
    known = set(book.wordlist)
    wrong = tuple(place for place, word in enumerate(words, offset) if word not in known)
    if not wrong:
        return words
    if len(wrong) == 1:
        close = _close(words[wrong[0] - offset], book.wordlist)
        raise WordsError(f"the {_ordinal(wrong[0])} word is not in the list{close}", wrong)
    named = [f"the {_ordinal(place)}" for place in wrong[:4]]
    if len(wrong) > 4:
        named.append(f"{len(wrong) - 4} more")
    raise WordsError(f"{', '.join(named[:-1])} and {named[-1]} word are not in the list", wrong)


def _close(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=SUGGESTIONS_MAX)
    return f"; it has {' and '.join(close)}" if close else ""


def _ordinal(place: int) -> str:
    number = place + 1
    return f"{number}{'th' if 10 < number < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


@cache
def _book() -> Mnemonic:
    """The English list.  Imported late: it is read from a file, and most commands need no words."""
    from mnemonic import Mnemonic

    return Mnemonic("english")
