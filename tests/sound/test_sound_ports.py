"""Names to devices, and the order of what is tried."""

from __future__ import annotations

import pytest

from meshcall.drivers.sound.ports import Inventory, Plan, Port, SoundChoice, find, missing, plans

BUILT_IN = Port("Built-in Audio", 48_000, True, 0)
HEADSET = Port("USB Headset 300", 44_100, False, 1)
OTHER = Port("Headset of Ann", 48_000, False, 2)
SD = Inventory("sounddevice", (BUILT_IN,), (BUILT_IN,))
MA = Inventory("miniaudio", (BUILT_IN, HEADSET), (BUILT_IN, HEADSET))
NONE = Inventory("sounddevice", problem="there is none")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", BUILT_IN),
        ("usb headset 300", HEADSET),
        ("headset", OTHER),
        ("300", HEADSET),
        (" built-in ", BUILT_IN),
        ("gramophone", None),
    ],
)
def test_names_are_found_by_a_part(wanted: str, found: Port | None) -> None:
    assert find((HEADSET, BUILT_IN, OTHER), wanted) == found
    assert find((), wanted) is None


def test_no_default_means_the_first() -> None:
    assert find((HEADSET, OTHER), "") == HEADSET


def test_the_system_s_devices() -> None:
    assert plans(SoundChoice(), [SD, MA]) == [
        Plan("sounddevice", BUILT_IN, BUILT_IN),
        Plan("miniaudio", BUILT_IN, BUILT_IN),
        Plan("sounddevice", None, BUILT_IN, chosen=False),
        Plan("sounddevice", BUILT_IN, None, chosen=False),
        Plan("miniaudio", None, BUILT_IN, chosen=False),
        Plan("miniaudio", BUILT_IN, None, chosen=False),
        Plan("null", chosen=False),
    ]


def test_a_name_at_any_backend_comes_before_another_device() -> None:
    found = plans(SoundChoice("headset", ""), [SD, MA])
    assert found[:4] == [
        Plan("miniaudio", HEADSET, BUILT_IN),
        Plan("sounddevice", BUILT_IN, BUILT_IN, chosen=False),
        Plan("miniaudio", BUILT_IN, BUILT_IN, chosen=False),
        Plan("sounddevice", None, BUILT_IN, chosen=False),
    ]


def test_one_direction_where_there_is_no_other() -> None:
    only = Inventory("sounddevice", (), (HEADSET,))
    assert plans(SoundChoice(), [only]) == [
        Plan("sounddevice", None, HEADSET, chosen=False),
        Plan("null", chosen=False),
    ]
    assert plans(SoundChoice(microphone=None), [only])[0] == Plan("sounddevice", None, HEADSET)


@pytest.mark.parametrize("choice", [SoundChoice(None, None), SoundChoice(backend="null")])
def test_nothing_wanted_is_null_and_chosen(choice: SoundChoice) -> None:
    assert plans(choice, [SD, MA]) == [Plan("null")]


def test_a_backend_can_be_named() -> None:
    assert {plan.backend for plan in plans(SoundChoice(backend="miniaudio"), [SD, MA])} == {"miniaudio", "null"}


@pytest.mark.parametrize("microphone", ["", None, "headset", "gramophone"])
@pytest.mark.parametrize("speaker", ["", None, "headset", "gramophone"])
@pytest.mark.parametrize("inventories", [[], [NONE], [NONE, MA], [SD, MA]])
def test_there_is_always_a_last_resort_and_nothing_twice(
    microphone: str | None, speaker: str | None, inventories: list[Inventory]
) -> None:
    found = plans(SoundChoice(microphone, speaker), inventories)
    assert found[-1].backend == "null"
    for number, plan in enumerate(found):
        assert not any(plan.same(other) for other in found[:number])
        assert plan.backend == "null" or plan.microphone or plan.speaker
        assert microphone is not None or plan.microphone is None
        assert speaker is not None or plan.speaker is None


def test_what_is_missing_is_said_with_what_is_there() -> None:
    assert missing(SoundChoice("gramophone", "headset"), [NONE, MA]) == [
        "no microphone here has 'gramophone' in its name; there are: Built-in Audio, USB Headset 300"
    ]
    assert missing(SoundChoice("", "horn"), [NONE]) == ["no loudspeaker here has 'horn' in its name; there are: none"]
    assert missing(SoundChoice(), [NONE]) == []
