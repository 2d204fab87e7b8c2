"""What is plugged in, and which of it is used: names to devices, and the order of what is tried.  Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from meshcall.drivers.sound.base import Device

BackendName = Literal["sounddevice", "miniaudio", "null"]
BackendChoice = Literal["auto", "sounddevice", "miniaudio", "null"]
ORDER: Final[tuple[BackendName, ...]] = ("sounddevice", "miniaudio")
PORTS_MAX: Final = 256
"""Of one direction of one backend that are looked at."""


@dataclass(frozen=True, slots=True)
class Port:
    """A microphone or a loudspeaker of one backend."""

    name: str
    rate: int
    """What it does by itself, samples a second; 0: not told."""
    default: bool
    """The system's choice."""
    key: Any = field(compare=False, repr=False)
    """What the backend opens it by; valid until it looks again."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one backend sees."""

    backend: BackendName
    microphones: tuple[Port, ...] = ()
    speakers: tuple[Port, ...] = ()
    problem: str | None = None
    """A sentence, where it cannot be used at all: what to do."""


@dataclass(frozen=True, slots=True)
class SoundChoice:
    """What the user wants.  Names, or parts of names; "": the system's; None: not wanted, it is a file."""

    microphone: str | None = ""
    speaker: str | None = ""
    backend: BackendChoice = "auto"


@dataclass(frozen=True, slots=True)
class Plan:
    """One thing to try: a direction that is None is not opened."""

    backend: BackendName
    microphone: Port | None = None
    speaker: Port | None = None
    chosen: bool = True
    """It is what the user wants, not a way out."""

    def same(self, other: Plan) -> bool:
        """The same devices of the same backend."""
        mine = (self.backend, self.microphone, self.speaker)
        return mine == (other.backend, other.microphone, other.speaker)

    @property
    def name(self) -> str:
        """For people."""
        if self.backend == "null":
            return "no sound device"
        microphone = self.microphone.name if self.microphone else "no microphone"
        speaker = self.speaker.name if self.speaker else "no loudspeaker"
        both = microphone if microphone == speaker else f"{microphone} / {speaker}"
        return f"{both} ({self.backend})"


class Backend(Protocol):
    """A library for sound hardware.  None of its calls comes from the thread of trio: each may wait."""

    name: BackendName

    def look(self, *, fresh: bool) -> Inventory:
        """What is there.  `fresh`: also what was plugged in since; only while none of its devices is open.

        Never raises for what a machine lacks: `Inventory.problem` says it.
        """
        ...

    def open(self, plan: Plan) -> Device:
        """Open, not started.  Raises DeviceError."""
        ...


def find(ports: Sequence[Port], wanted: str) -> Port | None:
    """By name: the same, else the first that begins with it, else the first that holds it; "": the system's."""
    if not wanted:
        return next((port for port in ports if port.default), ports[0] if ports else None)
    want = wanted.casefold().strip()
    names = [(port.name.casefold(), port) for port in ports]
    for fits in (str.__eq__, str.startswith, str.__contains__):
        for name, port in names:
            if fits(name, want):
                return port
    return None


def plans(choice: SoundChoice, inventories: Sequence[Inventory]) -> list[Plan]:
    """What to try, best first; the last is always the null device.

    1. what was asked for, at any backend;  2. the system's in the place of a name that is not there, or
    does not work;  3. one direction, where the other has no device;  4. null.
    """
    if choice.backend == "null" or (choice.microphone is None and choice.speaker is None):
        return [Plan("null")]
    exact: list[Plan] = []
    near: list[Plan] = []
    half: list[Plan] = []
    both = choice.microphone is not None and choice.speaker is not None
    for one in inventories:
        if choice.backend not in ("auto", one.backend):
            continue
        named = _pair(one, choice)
        anything = SoundChoice(
            None if choice.microphone is None else "", None if choice.speaker is None else "", choice.backend
        )
        system = _pair(one, anything)
        mixed = (named[0] or system[0], named[1] or system[1])
        for place, (microphone, speaker) in ((exact, named), (near, mixed), (near, system)):
            if (microphone is None) == (choice.microphone is None) and (speaker is None) == (choice.speaker is None):
                place.append(Plan(one.backend, microphone, speaker, chosen=place is exact))
        if both and mixed[1] is not None:
            half.append(Plan(one.backend, None, mixed[1], chosen=False))
        if both and mixed[0] is not None:
            half.append(Plan(one.backend, mixed[0], None, chosen=False))
    found: list[Plan] = []
    for plan in [*exact, *near, *half, Plan("null", chosen=False)]:
        if not any(plan.same(other) for other in found):
            found.append(plan)
    return found


def _pair(inventory: Inventory, choice: SoundChoice) -> tuple[Port | None, Port | None]:
    return (
        None if choice.microphone is None else find(inventory.microphones, choice.microphone),
        None if choice.speaker is None else find(inventory.speakers, choice.speaker),
    )


def missing(choice: SoundChoice, inventories: Sequence[Inventory]) -> list[str]:
    """Sentences about names that nothing bears."""
    said = []
    usable = [one for one in inventories if choice.backend in ("auto", one.backend) and one.problem is None]
    for what, wanted, ports in (
        ("microphone", choice.microphone, [port for one in usable for port in one.microphones]),
        ("loudspeaker", choice.speaker, [port for one in usable for port in one.speakers]),
    ):
        if wanted and find(ports, wanted) is None:
            there = ", ".join(dict.fromkeys(port.name for port in ports)) or "none"
            said.append(f"no {what} here has {wanted!r} in its name; there are: {there}")
    return said
