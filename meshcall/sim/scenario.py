"""What a simulation is about: a TOML file read into one frozen object.

Every key has a default and its unit in its name; an unknown key is an error with its place, because
a misspelt one would otherwise silently do nothing.  Scenarios are found by name (those shipped with
meshcall) or by path.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from meshcall.errors import ConfigError, UsageError
from meshcall.sim.access import ACCESS_KINDS
from meshcall.sim.geography import ACCESS, REGIONS
from meshcall.sim.nat import NAT_KINDS

FILE_BYTES_MAX = 1 << 20
NODES_MAX = 1_000_000
CALL_EVENTS = ("weather", "kill relays", "revive relays", "move", "rebind")
PLAIN_EVENTS = ("kill", "revive", "partition", "heal", "weather", "lookups", "cold lookups")
PHASE_BEFORE = "before"
PHASE_ALL = "all the time"
PHASE_LAST = "at the end"

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Number = Annotated[int, Meta(ge=0)]

ACCESS_SHARES = {"fibre": 35.0, "cable": 25.0, "dsl": 15.0, "mobile": 15.0, "datacentre": 10.0}
NAT_SHARES = {"full cone": 15.0, "restricted": 15.0, "port restricted": 50.0, "symmetric": 20.0}


class World(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the hosts are and how they begin."""

    model: Literal["geography", "flat"] = "geography"
    """"geography": cities and access lines; "flat": every packet takes a time drawn from `delay_ms`."""
    delay_ms: tuple[Amount, Amount] = (40.0, 80.0)
    """One way, least and most; for the flat model."""
    access: dict[str, Amount] = msgspec.field(default_factory=lambda: dict(ACCESS_SHARES))
    """Weights of the kinds of access line."""
    public: Share = 0.4
    """Share of hosts with a public address; the others are behind NAT."""
    nat: dict[str, Amount] = msgspec.field(default_factory=lambda: dict(NAT_SHARES))
    """Weights of the kinds of NAT."""
    nat_life_seconds: Positive = 120.0
    """How long a NAT keeps a mapping that is not used."""
    nat_shared: Share = 0.1
    """Share of hosts behind NAT that share the box of another."""
    neighbours: Share = 0.05
    """Share of public addresses in the /24 of another host."""
    routers: Annotated[int, Meta(ge=1, le=64)] = 3
    """Well-known public hosts that the others bootstrap from; they are never switched off."""
    join_seconds: Amount = 60.0
    """The hosts are switched on evenly over this time."""
    settle_seconds: Amount = 60.0
    """After that, so much time passes before people begin."""


class Node(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the nodes' cores (`meshcall.dht.config`)."""

    k: Annotated[int, Meta(ge=1, le=64)] = 8
    reachable: Literal["auto", "yes", "no"] = "auto"


class Weather(Struct, frozen=True, forbid_unknown_fields=True):
    """Faults of the network; shares are of all packets."""

    loss: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    reorder_seconds: Amount = 0.1
    burst_every_seconds: Amount = 0.0
    """Mean time between a line's bursts of total loss; 0: never."""
    burst_seconds: Positive = 0.5
    clog_every_seconds: Amount = 0.0
    """Mean time between spells in which a line holds everything back; 0: never."""
    clog_seconds: Positive = 1.0


class Churn(Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts that are switched off and on again."""

    lifetime: Literal["none", "weibull", "pareto"] = "none"
    """The law of the time between switching on and off; both are heavy-tailed with the shapes below."""
    shape: Positive = 0.5
    """Weibull: below 1 is heavy-tailed.  Pareto (Lomax): must be over 1."""
    mean_minutes: Positive = 60.0
    away_mean_minutes: Positive = 30.0
    """Mean of the (exponential) time away."""
    return_share: Share = 0.8
    """Share that comes back as itself with its saved contacts; a newcomer takes the place of the others."""
    publishers_stay: bool = True
    """Those who publish run their node all the time."""


class People(Struct, frozen=True, forbid_unknown_fields=True):
    """Who publishes and who looks up."""

    publishers: Annotated[int, Meta(ge=1)] = 100
    lookups_per_minute: Amount = 30.0
    """All people together."""
    cold_share: Share = 0.0
    """Share of the look-ups that a fresh node makes, which joins for it."""
    republish_minutes: Positive = 60.0
    update_minutes: Amount = 0.0
    """Mean time between changes of a person's record; 0: never."""
    value_bytes: Annotated[int, Meta(ge=8, le=990)] = 900


class Calls(Struct, frozen=True, forbid_unknown_fields=True):
    """People who call each other, each with a whole node; a scenario with this part is about them alone.

    They call in rounds: everybody is in one call at a time.
    """

    pattern: Literal["matrix", "random"] = "random"
    """matrix: everybody who calls has called everybody who is called, once, after as many rounds as there are callers;
    random: all pair off anew in each round."""
    people: Annotated[int, Meta(ge=1, le=2000)] = 40
    """random: all; matrix: callers of each kind of access, and as many callees."""
    access: dict[str, Amount] = msgspec.field(default_factory=lambda: {"linux": 1.0})
    """Weights of the kinds of access; for a matrix only which are there counts."""
    relays: Annotated[int, Meta(ge=1, le=200)] = 5
    """Volunteers with a public address."""
    relay_uplink_kbit: Positive = 10_000.0
    """Kilobits per second that a relay's line carries, and that its owner gives."""
    echoes_per_second: Annotated[float, Meta(gt=0.0, le=50.0)] = 10.0
    """A caller sends so many echoes: a stream of 64-byte frames both ways."""
    call_seconds: Annotated[float, Meta(ge=1.0)] = 6.0
    pause_seconds: Annotated[float, Meta(ge=0.5)] = 1.0
    must_connect: bool = True
    """Whether a call that fails or breaks is a violation."""


class Ending(Struct, frozen=True, forbid_unknown_fields=True):
    """After the last hour all faults end, some time passes, and every item is looked up once more."""

    calm_minutes: Positive = 5.0
    revive: bool = False
    """Whether those that were killed are switched on again."""
    republish: bool = True
    """Whether all publish again in the calm, as they would within the hour."""


class Event(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happens at one moment."""

    at: Share
    """When, as a share of the hours."""
    kind: Literal[
        "kill", "revive", "partition", "heal", "weather", "lookups", "cold lookups",
        "kill relays", "revive relays", "move", "rebind",
    ]  # fmt: skip
    """kill relays, revive relays, move (people to another network), rebind (their NATs restart): for calls only."""
    share: Share = 0.0
    """kill: of the hosts that are on; partition: of all lines; with calls: of all relays, or of all people."""
    regions: tuple[str, ...] = ()
    """partition: these regions against the rest."""
    count: Number = 0
    """lookups, cold lookups: how many, spread evenly over `seconds`."""
    seconds: Positive = 10.0
    weather: Weather = Weather()
    phase: str = ""
    """Look-ups from now on are counted under this name."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    title: str
    description: str = ""
    nodes: Annotated[int, Meta(ge=4, le=NODES_MAX)] = 500
    hours: Positive = 0.5
    seed: Number = 1
    world: World = World()
    node: Node = Node()
    weather: Weather = Weather()
    churn: Churn = Churn()
    people: People = People()
    calls: Calls | None = None
    ending: Ending = Ending()
    event: tuple[Event, ...] = ()


def parse(text: str, source: str) -> Scenario:
    """The scenario in a TOML text; `source` names it in messages.  Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{source}: not valid TOML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    try:
        scenario = msgspec.convert(table, Scenario)
    except msgspec.ValidationError as problem:
        raise ConfigError(f"{source}: {_sentence(str(problem))}") from None
    check(scenario, source)
    return scenario


def check(scenario: Scenario, source: str) -> None:
    """Whether the parts fit together.  Raises ConfigError."""

    def demand(holds: bool, place: str, sentence: str) -> None:
        if not holds:
            raise ConfigError(f"{source}: {place}: {sentence}")

    world, churn, calls = scenario.world, scenario.churn, scenario.calls
    demand(world.delay_ms[0] <= world.delay_ms[1], "[world] delay_ms", "the least comes first")
    for place, weights, known in (
        ("[world] access", world.access, tuple(ACCESS)),
        ("[world] nat", world.nat, tuple(NAT_KINDS)),
        ("[calls] access", {"linux": 1.0} if calls is None else calls.access, tuple(ACCESS_KINDS)),
    ):
        for name in weights:
            demand(name in known, place, f"there is no {name!r}; known are: {', '.join(known)}")
        demand(sum(weights.values()) > 0, place, "at least one weight must be over 0")
    alone = scenario.churn == Churn() and scenario.people == People() and scenario.ending == Ending()
    demand(calls is None or alone, "[calls]", "a world with calls has no [churn], [people] and [ending]")
    demand(world.routers < scenario.nodes, "[world] routers", "must be fewer than the nodes")
    demand(churn.lifetime != "pareto" or churn.shape > 1, "[churn] shape", "must be over 1 for pareto (no mean else)")
    earlier = 0.0
    for number, event in enumerate(scenario.event, 1):
        place = f"[[event]] number {number}"
        known_here = CALL_EVENTS if calls is not None else PLAIN_EVENTS
        demand(event.kind in known_here, place, f"{event.kind} is {'not ' if calls else 'only '}for a world with calls")
        demand(event.at >= earlier, place, "events must be in the order of `at`")
        earlier = event.at
        for region in event.regions:
            demand(region in REGIONS, place, f"there is no region {region!r}; known are: {', '.join(REGIONS)}")
        if event.kind in ("kill relays", "move", "rebind"):
            demand(0 < event.share <= 1, place, f"{event.kind} needs a share over 0")
        if event.kind in ("kill", "partition"):
            demand(0 < event.share < 1 or bool(event.regions), place, f"{event.kind} needs a share between 0 and 1")
        if event.kind in ("lookups", "cold lookups"):
            demand(event.count > 0, place, f"{event.kind} needs a count")
        demand(not event.regions or event.kind == "partition", place, f"{event.kind} takes no regions")
        demand(not event.regions or world.model == "geography", place, "the flat world has no regions")


def check_size(scenario: Scenario, nodes: int | None) -> None:
    """Whether the scenario can be run with so many nodes.  Raises UsageError."""
    least = max(4, scenario.world.routers + 1)
    if nodes is not None and nodes < least:
        raise UsageError(f"this scenario needs at least {least} nodes")


def shipped() -> dict[str, Path]:
    """The scenarios that come with meshcall, by name: from the installed package or from a checkout."""
    here = Path(__file__).parent
    for folder in (here / "scenarios", here.parent.parent / "simulations"):
        if found := sorted(folder.glob("*.toml")):
            return {path.stem: path for path in found}
    return {}


def load(name: str) -> tuple[str, Scenario]:
    """The short name and the scenario called so, or in that file.  Raises UsageError, ConfigError."""
    known = shipped()
    path = known.get(name)
    if path is None:
        path = Path(name)
        if path.suffix != ".toml" and not path.is_file():
            raise UsageError(f"there is no scenario {name!r}; known are {', '.join(known)}, or give a .toml file")
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as problem:
        raise UsageError(f"{path}: cannot be read: {problem.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes, so it cannot be a scenario")
    try:
        text = raw.decode()
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: not UTF-8 text (at byte {problem.start})") from None
    return path.stem, parse(text, str(path))


def _sentence(problem: str) -> str:
    what, _, where = problem.partition(" - at `$")
    place = where.rstrip("`").strip(".")
    if found := re.fullmatch(r"event\[(\d+)\]\.?(.*)", place):
        place = f"[[event]] number {int(found[1]) + 1} {found[2]}".rstrip()
    elif "." in place:
        section, _, key = place.partition(".")
        place = f"[{section}] {key}"
    elif place in ("world", "node", "weather", "churn", "people", "calls", "ending"):
        place = f"[{place}]"
    what = what.replace("Object contains unknown field", "there is no such key as")
    return f"{place or 'top of the file'}: {what[:1].lower()}{what[1:].replace('`', '')}"
