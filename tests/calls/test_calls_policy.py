"""Who rings, who is answered, who learns an address; and that docs/calls.md has the numbers of the code."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from meshcall.calls import desk, finding, offers, speaker, state, strangers
from meshcall.calls.events import Ending
from meshcall.calls.policy import CallPolicy, Standing
from meshcall.calls.state import FAILURES, Call, State
from meshcall.path.candidates import Trust
from meshcall.peers.policy import PeerPolicy
from meshcall.wire.talk import Terms

OWN, FRIEND, FOE, OTHER = (bytes([number]) * 32 for number in range(4))
DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "calls.md").read_text()
MODULES: tuple[ModuleType, ...] = (state, speaker, offers, strangers, finding, desk)


def test_standing_and_ringing() -> None:
    policy = CallPolicy(frozenset({FRIEND, FOE}), frozenset({FOE}))
    assert policy.standing(OWN, FRIEND) is Standing.CONTACT
    assert policy.standing(OWN, OWN) is Standing.CONTACT
    assert policy.standing(OWN, OTHER) is Standing.STRANGER
    assert policy.standing(OWN, FOE) is Standing.BLOCKED, "counts more than being a contact"
    assert [policy.rings(OWN, who) for who in (FRIEND, OTHER, FOE)] == [True, False, False]
    all_ring = CallPolicy(frozenset({FRIEND}), frozenset({FOE}), ring="all")
    assert [all_ring.rings(OWN, who) for who in (FRIEND, OTHER, FOE)] == [True, True, False]


def test_auto_answer() -> None:
    contacts = frozenset({FRIEND})
    assert not CallPolicy(contacts).answers(OWN, FRIEND)
    assert CallPolicy(contacts, auto_answer="contacts").answers(OWN, FRIEND)
    assert not CallPolicy(contacts, auto_answer="contacts", ring="all").answers(OWN, OTHER)
    listed = CallPolicy(contacts, auto_answer=frozenset({OTHER}), ring="all")
    assert listed.answers(OWN, OTHER)
    assert not listed.answers(OWN, FRIEND)


@pytest.mark.parametrize(
    ("direct", "contact", "accepted", "expected"),
    [
        ("accepted", True, False, Trust.FULL),
        ("accepted", False, False, Trust.NONE),
        ("accepted", False, True, Trust.FULL),
        ("contacts", True, False, Trust.FULL),
        ("contacts", False, True, Trust.NONE),
        ("never", True, True, Trust.RELAY_ONLY),
        ("never", False, False, Trust.RELAY_ONLY),
    ],
)
def test_addresses(direct: str, contact: bool, accepted: bool, expected: Trust) -> None:
    policy = CallPolicy(frozenset({FRIEND}), direct=direct)  # type: ignore[arg-type]
    assert policy.trust(OWN, FRIEND if contact else OTHER, accepted=accepted) is expected


def test_a_device_that_hides_trusts_nobody_with_an_address_and_still_answers_its_friends() -> None:
    policy = PeerPolicy(frozenset({FRIEND}), answer_pings="trusted", hides=True)
    assert policy.trust_of(OWN, FRIEND) is policy.trust_of(OWN, OWN) is Trust.RELAY_ONLY
    assert policy.answers_ping(OWN, FRIEND)
    assert not policy.answers_ping(OWN, OTHER)


def test_the_reason_most_worth_telling_is_kept() -> None:
    call = Call(1, 1, OTHER, True, State.SEEKING, Terms(0, 70), 0.0, 1.0)
    call.fail(Ending.NOT_REACHED, "first")
    call.fail(Ending.BUSY)
    call.fail(Ending.NO_RESPONSE)
    assert call.failure == (Ending.BUSY, Ending.BUSY.value)
    assert len(set(FAILURES)) == len(FAILURES)


def test_every_ending_is_a_sentence() -> None:
    for ending in Ending:
        assert re.fullmatch(r"[A-Z].*[.]", ending.value), ending


def test_the_constants_in_the_document_are_those_of_the_code() -> None:
    table = DOCUMENT.split("## Constants")[1].split("##")[0]
    seen = 0
    for names, values in re.findall(r"^\| ([A-Z_, ]+) \| ([\d., ]+) \|", table, re.MULTILINE):
        for name, value in zip(names.split(", "), values.split(", "), strict=True):
            found = [vars(module)[name] for module in MODULES if name in vars(module)]
            assert found, name
            assert set(found) == {float(value)}, name
            seen += 1
    assert seen > 25
