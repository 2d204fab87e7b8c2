"""The address that people give each other, and its link form.  Step one of the way of a call.

An address is bech32m (BIP 350) with the prefix `mc` over one version byte and the 32-byte Ed25519
identity key: 62 characters.  A typing error is always found, and where it can be, its place is named;
an address is never corrected, because a wrong guess would call a stranger.  The exact format is in
docs/identity.md.  Whether the key is a sound point is not asked here but by `identity.read_address`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from meshcall.errors import AddressError, UsageError

PREFIX: Final = "mc"
VERSION: Final = 1
KEY_BYTES: Final = 32
SYMBOLS: Final = 53
"""33 bytes in symbols of 5 bits; the last symbol ends with one zero bit."""
CHECKSUM_SYMBOLS: Final = 6
ADDRESS_CHARS: Final = len(PREFIX) + 1 + SYMBOLS + CHECKSUM_SYMBOLS
SCHEME: Final = "meshcall:"
NAME_BYTES_MAX: Final = 64
"""Length of a name in UTF-8."""
LINK_CHARS_MAX: Final = 1024
BECH32M_CHARS_MAX: Final = 90

ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
"""The 32 symbols in order of their value (BIP 173): without 1, b, i and o, which are easily mistaken."""
_VALUE: Final = {character: value for value, character in enumerate(ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CONSTANT: Final = 0x2BC830A3
_HEAD: Final = PREFIX + "1"
_AROUND: Final = " \t\r\n\v\f\u00a0\u200b\u2060\ufeff-\u00ad\u2010\u2011\u2012\u2013\u2014\u2212"
"""What copying and pasting leaves around an address: spaces and dashes, seen and unseen."""
_JOINERS: Final = "\u200c\u200d"
"""Invisible but part of honest names: Persian spelling, composed emoji."""


class TypingError(AddressError):
    """This address has a typing error."""

    def __init__(self, sentence: str, places: tuple[int, ...] = ()) -> None:
        """`places`: indices into the address (0 is the `m`) that cannot be right; empty if unknown."""
        super().__init__(sentence)
        self.places = places


@dataclass(frozen=True, slots=True)
class Link:
    """An address as it is passed on: the 32-byte identity key, and the name its owner goes by, if given."""

    public: bytes
    name: str = ""

    def __str__(self) -> str:
        """The link, `meshcall:mc1...?name=...`."""
        link = SCHEME + encode(self.public)
        return f"{link}?name={quote(check_name(self.name), safe='')}" if self.name else link


def encode(public: bytes) -> str:
    """The address of a 32-byte identity key, in small letters."""
    if len(public) != KEY_BYTES:
        raise ValueError(f"a key of {len(public)} bytes")
    bits = (VERSION << 8 * KEY_BYTES | int.from_bytes(public, "big")) << 1
    return encode_symbols(PREFIX, [bits >> 5 * place & 31 for place in reversed(range(SYMBOLS))])


def decode(text: str) -> bytes:
    """The 32-byte identity key of an address in small letters or in capitals; spaces and dashes around it are let go.

    Raises AddressError: TypingError with the places that are wrong, where they can be told.
    """
    text = text.strip(_AROUND)
    if not text:
        raise AddressError(f"the address is missing: {ADDRESS_CHARS} characters that begin with {_HEAD}")
    _check_case(text)
    lower = _lower(text)
    try:
        prefix, symbols = decode_symbols(lower)
    except AddressError:
        _explain(lower)
    if prefix != PREFIX:
        raise AddressError(
            f"this is an address for something else, it begins with {prefix}1; a meshcall address begins with {_HEAD}"
        )
    if len(symbols) < 2 or _version(symbols) != VERSION:
        raise AddressError("this address is of a kind that this version of meshcall does not know; update meshcall")
    if len(symbols) != SYMBOLS or symbols[-1] & 1:
        raise AddressError("this is not a meshcall address, although its checksum fits; ask for it again")
    bits = 0
    for symbol in symbols:
        bits = bits << 5 | symbol
    return (bits >> 1 & (1 << 8 * KEY_BYTES) - 1).to_bytes(KEY_BYTES, "big")


def parse(text: str) -> Link:
    """A link or a bare address.  Raises AddressError as `decode` does."""
    if len(text) > LINK_CHARS_MAX:
        raise AddressError(f"this is too long for an address: {len(text)} characters")
    text = text.strip(_AROUND)
    if text[: len(SCHEME)].lower() != SCHEME:
        return Link(decode(text))
    address, _, query = text[len(SCHEME) :].partition("#")[0].partition("?")
    public = decode(address)
    names = [value for key, _, value in (part.partition("=") for part in query.split("&")) if key.lower() == "name"]
    if len(names) > 1:
        raise AddressError("this link has more than one name; ask for it again")
    if not names:
        return Link(public)
    try:
        return Link(public, check_name(unquote_to_bytes(names[0]).decode("utf-8")))
    except (UnicodeDecodeError, UsageError):
        raise AddressError(
            "the name in this link cannot be read; leave out what begins with the question mark"
        ) from None


def check_name(name: str) -> str:
    """The name without spaces around it.  Raises UsageError where it is too long or cannot be printed."""
    name = name.strip()
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise UsageError(f"this name is too long: at most {NAME_BYTES_MAX} bytes in UTF-8")
    if not all(character.isprintable() or character in _JOINERS for character in name):
        raise UsageError("this name has a character in it that cannot be printed")
    return name


def encode_symbols(prefix: str, symbols: list[int]) -> str:
    """Bech32m (BIP 350) over values of 5 bits.  `prefix` in small letters."""
    remainder = _polymod([*_expand(prefix), *symbols, *[0] * CHECKSUM_SYMBOLS]) ^ _CONSTANT
    checksum = [remainder >> 5 * place & 31 for place in reversed(range(CHECKSUM_SYMBOLS))]
    return f"{prefix}1{''.join(ALPHABET[value] for value in (*symbols, *checksum))}"


def decode_symbols(text: str) -> tuple[str, list[int]]:
    """Prefix and values of a bech32m text (BIP 350) of up to 90 characters.  Raises AddressError without a place."""
    if len(text) > BECH32M_CHARS_MAX or text.lower() != text != text.upper():
        raise AddressError
    text = text.lower()
    prefix, separator, data = text.rpartition("1")
    if not separator or not prefix or len(data) < CHECKSUM_SYMBOLS:
        raise AddressError
    if not all("!" <= character <= "~" for character in prefix) or not all(character in _VALUE for character in data):
        raise AddressError
    values = [_VALUE[character] for character in data]
    if _polymod([*_expand(prefix), *values]) != _CONSTANT:
        raise AddressError
    return prefix, values[:-CHECKSUM_SYMBOLS]


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(values: list[int]) -> int:
    remainder = 1
    for value in values:
        remainder = _step(remainder) ^ value
    return remainder


def _step(remainder: int) -> int:
    top = remainder >> 25
    remainder = (remainder & 0x1FFFFFF) << 5
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            remainder ^= generator
    return remainder


def _version(symbols: list[int]) -> int:
    return symbols[0] << 3 | symbols[1] >> 2


# What is wrong with a text that is no address.  All of this runs only for a text that was refused already.


def _check_case(text: str) -> None:
    capitals = [place for place, c in enumerate(text) if "A" <= c <= "Z"]
    smalls = [place for place, c in enumerate(text) if "a" <= c <= "z"]
    if capitals and smalls:
        odd, kind = (capitals, "a capital") if len(capitals) <= len(smalls) else (smalls, "a small letter")
        rest = "small letters" if odd is capitals else "capitals"
        many = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise TypingError(
            f"an address is written in small letters or in capitals, never mixed: "
            f"the {_ordinal(odd[0])} character{many} is {kind} among {rest}{_excerpt(text, (odd[0],))}",
            tuple(odd),
        )


def _explain(text: str) -> NoReturn:
    """Raise the most exact error for a refused text (in small letters, ASCII or not)."""
    foreign = _foreign(text)
    if len(text) == ADDRESS_CHARS and sum(a != b for a, b in zip(text, _HEAD, strict=False)) < len(_HEAD):
        _explain_places(text, foreign)
    if len(text) == ADDRESS_CHARS - 1 and (place := _missing(text)) is not None:
        raise TypingError(f"a character is missing from this address, the {_ordinal(place)}", (place,))
    if len(text) == ADDRESS_CHARS + 1 and (place := _surplus(text)) is not None:
        raise TypingError(
            f"the {_ordinal(place)} character of this address is one too many{_excerpt(text, (place,))}", (place,)
        )
    if not text.startswith(_HEAD):
        raise AddressError(
            f"this is not a meshcall address: those begin with {_HEAD} and have {ADDRESS_CHARS} characters"
        )
    if foreign:
        _cannot_be_right(text, foreign, _reason(text, foreign))
    if len(text) != ADDRESS_CHARS:
        raise TypingError(
            f"this address is {'too short' if len(text) < ADDRESS_CHARS else 'too long'}: "
            f"it has {len(text)} characters instead of {ADDRESS_CHARS}"
        )
    raise TypingError(
        "this address has typing errors in more than two places; compare it with the original, or copy it again"
    )


def _foreign(text: str) -> tuple[int, ...]:
    """Places whose character no address has there."""
    head = [place for place, expected in enumerate(_HEAD) if text[place : place + 1] != expected]
    return (*head, *(place for place in range(len(_HEAD), len(text)) if text[place] not in _VALUE))


def _explain_places(text: str, foreign: tuple[int, ...]) -> None:
    """For a text of the right length: swapped neighbours, then one or two wrong characters."""
    for place in range(len(text) - 1):
        if _is_valid(text[:place] + text[place + 1] + text[place] + text[place + 2 :]):
            places = (place, place + 1)
            raise TypingError(
                f"the {_ordinal(place)} and the {_ordinal(place + 1)} character of this address have changed places"
                f"{_excerpt(text, places)}",
                places,
            )
    values = [_VALUE.get(character, 0) for character in text[len(_HEAD) :]]
    found = {len(_HEAD) + place for place, _ in _locate(values) or ()}
    # A foreign character that has to become `q` (value 0) is no error to the checksum; and with more than two
    # places in all the checksum may point anywhere, so that only what is foreign is certain.
    if len(found | set(foreign)) > 2:
        found = set()
    if foreign or found:
        _cannot_be_right(text, tuple(sorted({*foreign, *found})), _reason(text, foreign))


def _cannot_be_right(text: str, places: tuple[int, ...], reason: str) -> NoReturn:
    named = [f"the {_ordinal(place)}" for place in places[:3]]
    if len(places) > 3:
        named.append(f"{len(places) - 3} more")
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    raise TypingError(
        f"this address has a typing error: {listed} character{'s' if len(places) > 1 else ''} cannot be right"
        f"{_excerpt(text, places)}{reason}",
        places,
    )


def _reason(text: str, foreign: tuple[int, ...]) -> str:
    if any(place < len(_HEAD) for place in foreign):
        return f"; an address begins with {_HEAD}"
    if not foreign:
        return ""
    used = text[foreign[0]]
    name = "a space" if used.isspace() else f"'{used}'" if used.isprintable() else f"U+{ord(used):04X}"
    return f"; {name} is never used in an address"


def _missing(text: str) -> int | None:
    """The place where one more character makes the text an address."""
    for place, character in enumerate(_HEAD):
        if _is_valid(text[:place] + character + text[place:]):
            return place
    if not text.startswith(_HEAD):
        return None
    for place in range(len(_HEAD), ADDRESS_CHARS):
        with_gap = text[:place] + ALPHABET[0] + text[place:]
        values = [_VALUE.get(character, -1) for character in with_gap[len(_HEAD) :]]
        if -1 in values:
            return None
        errors = _locate(values, errors_max=1)
        if errors is not None and all(len(_HEAD) + where == place for where, _ in errors):
            return place
    return None


def _surplus(text: str) -> int | None:
    """The place of a character without which the text is an address."""
    for place in range(len(text)):
        if _is_valid(text[:place] + text[place + 1 :]):
            return place
    return None


def _is_valid(text: str) -> bool:
    """Whether a candidate in small letters is an address; used to name a place, never to call someone."""
    try:
        prefix, symbols = decode_symbols(text)
    except AddressError:
        return False
    return prefix == PREFIX and len(symbols) == SYMBOLS and _version(symbols) == VERSION and not symbols[-1] & 1


@cache
def _syndromes() -> tuple[tuple[int, ...], ...]:
    """By place in the values, by error: how the remainder changes (the checksum is linear over GF(2))."""
    row: tuple[int, ...] = tuple(range(32))
    rows = [row]
    for _ in range(SYMBOLS + CHECKSUM_SYMBOLS - 1):
        row = tuple(_step(remainder) for remainder in row)
        rows.append(row)
    return tuple(reversed(rows))


def _locate(values: list[int], errors_max: int = 2) -> list[tuple[int, int]] | None:
    """Places and differences of the fewest errors, at most two, that explain the remainder; None if none do.

    Unique: two texts that both are bech32m differ in at least five symbols at this length (BIP 173).
    """
    remainder = _polymod([*_expand(PREFIX), *values]) ^ _CONSTANT
    if remainder == 0:
        return [] if _is_plausible(values, []) else None
    by_remainder = {
        change: (place, error)
        for place, changes in enumerate(_syndromes())
        for error, change in enumerate(changes)
        if error
    }
    if (single := by_remainder.get(remainder)) is not None:
        return [single] if _is_plausible(values, [single]) else None
    if errors_max > 1:
        for change, first in by_remainder.items():
            second = by_remainder.get(remainder ^ change)
            if second is not None and _is_plausible(values, [first, second]):
                return sorted((first, second))
    return None


def _is_plausible(values: list[int], errors: list[tuple[int, int]]) -> bool:
    """Whether, with these errors undone, version and padding are those of an address."""
    values = list(values)
    for place, error in errors:
        values[place] ^= error
    return _version(values) == VERSION and not values[SYMBOLS - 1] & 1


def _lower(text: str) -> str:
    """ASCII letters only: `str.lower` would turn the Kelvin sign into a k."""
    return "".join(c.lower() if c.isascii() else c for c in text)


def _ordinal(place: int) -> str:
    number = place + 1
    suffix = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _excerpt(text: str, places: tuple[int, ...], around: int = 4) -> str:
    """The surroundings of the first three places, with the places in brackets and safe to print."""
    shown, previous = "", -1
    for place, character in enumerate(text):
        if min(abs(place - wrong) for wrong in places[:3]) <= around:
            safe = character if character.isprintable() else "?"
            shown += ("" if place == previous + 1 else "…") + (f"[{safe}]" if place in places else safe)
            previous = place
    return f", here: {shown}{'' if previous == len(text) - 1 else '…'}"
