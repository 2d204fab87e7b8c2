"""Addresses and links: BIP 350's vectors, and every typing error found and named by its place."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshcall import address
from meshcall.address import ALPHABET, Link, TypingError, decode, encode, parse
from meshcall.errors import AddressError, UsageError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "address.json").read_text(encoding="utf-8"))
KEYS = st.binary(min_size=32, max_size=32)
PLACES = st.integers(0, address.ADDRESS_CHARS - 1)
KEY = bytes(range(32))
GOOD = encode(KEY)


@pytest.mark.parametrize("text", VECTORS["bech32m_valid"])
def test_bip_350_valid(text: str) -> None:
    prefix, symbols = address.decode_symbols(text)
    assert address.encode_symbols(prefix, symbols) == text.lower()


@pytest.mark.parametrize(("text", "reason"), VECTORS["bech32m_invalid"])
def test_bip_350_invalid(text: str, reason: str) -> None:
    with pytest.raises(AddressError):
        address.decode_symbols(text)
    with pytest.raises(AddressError):
        decode(text)


@pytest.mark.parametrize("vector", VECTORS["addresses"])
def test_address_vectors(vector: dict[str, str]) -> None:
    assert encode(bytes.fromhex(vector["public"])) == vector["address"]
    assert decode(vector["address"]).hex() == vector["public"]
    assert decode(vector["address"].upper()).hex() == vector["public"]


@pytest.mark.parametrize("vector", VECTORS["links"])
def test_link_vectors(vector: dict[str, str]) -> None:
    link = Link(bytes.fromhex(vector["public"]), vector["name"])
    assert str(link) == vector["link"]
    assert parse(vector["link"]) == link


@pytest.mark.parametrize("vector", VECTORS["wrong"], ids=lambda vector: vector["what"])
def test_typing_error_vectors(vector: dict[str, object]) -> None:
    with pytest.raises(TypingError) as caught:
        decode(str(vector["text"]))
    assert list(caught.value.places) == vector["places"]


@pytest.mark.parametrize("text", VECTORS["foreign"])
def test_what_is_sound_bech32m_but_no_address(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        decode(text)
    assert not isinstance(caught.value, TypingError)


@given(KEYS)
def test_round_trip(key: bytes) -> None:
    text = encode(key)
    assert len(text) == address.ADDRESS_CHARS
    assert decode(text) == decode(text.upper()) == key
    assert decode(f" \n\u200b-{text}\u2014 \t") == key


@given(KEYS, PLACES, st.sampled_from(string.printable) | st.characters())
def test_any_substitution_is_found_and_its_place_named(key: bytes, place: int, character: str) -> None:
    good = encode(key)
    assume(good[place] != character)
    with pytest.raises(TypingError) as caught:
        decode(good[:place] + character + good[place + 1 :])
    if character.strip() and character not in address._AROUND:
        assert caught.value.places == (place,)
    else:
        assert len(caught.value.places) == 1  # at an end: one character is missing


@given(KEYS, st.integers(3, 61), st.integers(3, 61), st.sampled_from(ALPHABET), st.sampled_from(ALPHABET))
def test_two_substitutions_are_found_and_their_places_named(
    key: bytes, first: int, second: int, one: str, other: str
) -> None:
    good = encode(key)
    typed = list(good)
    typed[first], typed[second] = one, other
    wrong = tuple(place for place in range(len(good)) if typed[place] != good[place])
    assume(wrong)
    with pytest.raises(TypingError) as caught:
        decode("".join(typed))
    assert caught.value.places == wrong


@given(KEYS, st.integers(0, 60))
def test_any_swap_of_neighbours_is_recognised(key: bytes, place: int) -> None:
    good = encode(key)
    assume(good[place] != good[place + 1])
    with pytest.raises(TypingError, match="changed places") as caught:
        decode(good[:place] + good[place + 1] + good[place] + good[place + 2 :])
    assert caught.value.places == (place, place + 1)


@given(KEYS, PLACES)
def test_a_missing_character_is_recognised(key: bytes, place: int) -> None:
    good = encode(key)
    with pytest.raises(TypingError, match="missing") as caught:
        decode(good[:place] + good[place + 1 :])
    (named,) = caught.value.places
    assert set(good[min(named, place) : max(named, place) + 1]) == {good[place]}  # the same run of equal characters


@given(KEYS, PLACES, st.sampled_from(ALPHABET))
def test_a_character_too_many_is_recognised(key: bytes, place: int, character: str) -> None:
    good = encode(key)
    typed = good[:place] + character + good[place:]
    with pytest.raises(TypingError, match="one too many") as caught:
        decode(typed)
    (named,) = caught.value.places
    assert typed[:named] + typed[named + 1 :] == good


@given(KEYS, st.lists(st.tuples(st.integers(3, 61), st.sampled_from(ALPHABET)), min_size=3, max_size=4))
def test_three_and_four_substitutions_are_found(key: bytes, changes: list[tuple[int, str]]) -> None:
    good = encode(key)
    typed = list(good)
    for place, character in changes:
        typed[place] = character
    assume("".join(typed) != good)
    with pytest.raises(TypingError):
        decode("".join(typed))


@given(KEYS, st.integers(3, 61))
def test_a_single_capital_is_named(key: bytes, place: int) -> None:
    good = encode(key)
    assume(good[place].isalpha())
    with pytest.raises(TypingError, match="never mixed") as caught:
        decode(good[:place] + good[place].upper() + good[place + 1 :])
    assert caught.value.places == (place,)


@given(st.text() | st.text(alphabet=ALPHABET + "1mcMC ", min_size=55, max_size=70))
def test_decode_and_parse_take_any_text(text: str) -> None:
    for function in (decode, parse):
        with pytest.raises(AddressError) as caught:
            function(text)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the address is missing"),
        (" - ", "the address is missing"),
        ("hello", "not a meshcall address"),
        (GOOD[:40], "too short: it has 40"),
        (GOOD + "qqqq", "too long: it has 66"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "something else, it begins with bc1"),
        (GOOD[:6] + "b" + GOOD[7:], r"the 7th character cannot be right, here: …\S+\[b\]\S+…; 'b' is never used"),
        (GOOD[:6] + "\x1b" + GOOD[7:], r"\[\?\].*U\+001B is never used"),
        (GOOD[:20] + " " + GOOD[21:], "a space is never used"),
        ("\u212a" + GOOD[1:], "the 1st character"),
        ("m" * 5000, "not a meshcall address"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        decode(text)


def test_no_sentence_says_what_would_be_right() -> None:
    # Whoever is offered a correction takes it; what was meant may be something else.
    for place in range(3, 62, 4):
        for character in ALPHABET[::5]:
            if character != GOOD[place]:
                typed = GOOD[:place] + character + GOOD[place + 1 :]
                with pytest.raises(TypingError) as caught:
                    decode(typed)
                assert GOOD[max(0, place - 2) : place + 3] not in str(caught.value).replace("[", "").replace("]", "")


@given(KEYS, st.text(max_size=20))
def test_links_keep_any_name_that_can_be_shown(key: bytes, name: str) -> None:
    try:
        link = Link(key, address.check_name(name))
    except UsageError:
        return
    assert parse(str(link)) == link
    assert str(link).isascii()


def test_links_are_tolerant_where_it_is_harmless() -> None:
    assert parse(f"MESHCALL:{GOOD.upper()}") == Link(KEY)
    assert parse(f" Meshcall:{GOOD}?NAME=Ada\n") == Link(KEY, "Ada")
    assert parse(f"meshcall:{GOOD}?later=1&name=Ada#top") == Link(KEY, "Ada")
    assert parse(f"meshcall:{GOOD}?") == Link(KEY)
    assert parse(GOOD) == Link(KEY)


@pytest.mark.parametrize(
    "query",
    ["name=a&name=b", "name=%ff", "name=%1b%5b2J", "name=" + "a" * 65, "name=%E2%80%AE", "name=" + "a" * 2000],
)
def test_names_that_cannot_be_shown_are_refused(query: str) -> None:
    with pytest.raises(AddressError):
        parse(f"meshcall:{GOOD}?{query}")


def test_typing_errors_in_links_are_named_too() -> None:
    with pytest.raises(TypingError) as caught:
        parse(f"meshcall:{GOOD[:6]}b{GOOD[7:]}?name=Ada")
    assert caught.value.places == (6,)


def test_encoding_something_else_than_a_key_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        encode(bytes(31))
