"""24 words and back, with what is wrong named by its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall import words
from meshcall.words import WordsError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text(encoding="utf-8"))

# github.com/trezor/python-mnemonic, vectors.json: entropy and words of BIP 39
TREZOR = {
    "ff" * 32: "zoo " * 23 + "vote",
    "80" * 32: "letter advice cage absurd amount doctor acoustic avoid " * 2
    + "letter advice cage absurd amount doctor acoustic bless",
    "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c": (
        "hamster diagram private dutch cause delay private meat slide toddler razor book "
        "happy fancy gospel tennis maple dilemma loan word shrug inflict delay length"
    ),
}


@pytest.mark.parametrize("entropy", TREZOR)
def test_bip_39(entropy: str) -> None:
    assert words.from_seed(bytes.fromhex(entropy)) == TREZOR[entropy].split()
    assert words.to_seed(TREZOR[entropy]).hex() == entropy


@pytest.mark.parametrize("vector", VECTORS["identities"])
def test_vectors(vector: dict[str, str]) -> None:
    assert " ".join(words.from_seed(bytes.fromhex(vector["seed"]))) == vector["words"]
    assert words.to_seed(vector["words"]).hex() == vector["seed"]


@given(st.binary(min_size=32, max_size=32))
def test_round_trip_however_it_is_written(seed: bytes) -> None:
    listed = words.from_seed(seed)
    assert len(listed) == 24
    assert words.to_seed(" ".join(listed)) == seed
    assert words.to_seed("\n".join(f" {n}. {word.upper()}," for n, word in enumerate(listed, 1))) == seed


@given(st.binary(min_size=32, max_size=32), st.integers(0, 23), st.sampled_from(["qwerty", "abandom", "ünder", "x"]))
def test_an_unknown_word_is_named_by_its_place(seed: bytes, place: int, wrong: str) -> None:
    listed = words.from_seed(seed)
    listed[place] = wrong
    with pytest.raises(WordsError, match=f"the {place + 1}(st|nd|rd|th) word") as caught:
        words.to_seed(" ".join(listed))
    assert caught.value.places == (place,)


def test_sentences() -> None:
    listed = words.from_seed(bytes(32))
    with pytest.raises(WordsError, match="the 7th word is not in the list; it has abandon"):
        words.to_seed(" ".join([*listed[:6], "abandom", *listed[7:]]))
    with pytest.raises(WordsError, match="the 1st and the 3rd word are"):
        words.to_seed("xx abandon yy")
    with pytest.raises(WordsError, match="has 24 words, these are 23"):
        words.to_seed(" ".join(listed[:23]))
    with pytest.raises(WordsError, match="do not fit"):
        words.to_seed(" ".join([*listed[:23], "zoo"]))
    with pytest.raises(WordsError, match="too long"):
        words.to_seed("abandon " * 1000)
    with pytest.raises(WordsError, match="these are 0"):
        words.to_seed("")


@given(st.text())
def test_any_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(WordsError):
        words.to_seed(text)


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        words.from_seed(bytes(16))
