"""What a simulation is about: a TOML file read into one frozen object.

Every key has a default and its unit in its name; an unknown key is an error with its place, because
a misspelt one would otherwise silently do nothing.  Scenarios are found by name (those shipped with
meshcall) or by path.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

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
    lines: dict[str, Amount] = msgspec.field(default_factory=dict)
    """Weights of the kinds of line (`[line.NAME]`) that people have; none: just what the access is."""
    callee_lines: dict[str, Amount] = msgspec.field(default_factory=dict)
    """If given, half of the people only call and have `lines`, the others are called and have these."""
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


class LineKind(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person's line does beyond its access's delay; the same both ways, each by itself, but for the rates.

    Bursts and stalls are spells of the line, so they hit both ways at once (a radio, a bad plug).
    """

    loss: Share = 0.0
    """Of all datagrams, each by chance."""
    burst_every_seconds: Amount = 0.0
    """Mean time between spells of loss (Gilbert and Elliott's bad state); 0: never."""
    burst_seconds: Positive = 0.06
    """Mean length of such a spell."""
    burst_loss: Share = 1.0
    """Loss within it."""
    stall_every_seconds: Amount = 0.0
    """Mean time between spells in which nothing passes, and what came meanwhile passes at their end; 0: never."""
    stall_seconds: Positive = 0.2
    """Mean length of such a spell."""
    jitter_ms: Amount = 0.0
    """Mean of an exponential delay; datagrams do not overtake each other on a line."""
    up_kbit: Amount = 0.0
    """Kilobits per second, IP and UDP headers included; 0: no limit."""
    down_kbit: Amount = 0.0
    queue_ms: Amount = 500.0
    """A datagram that would wait longer before a limit is dropped."""


class Voice(Struct, frozen=True, forbid_unknown_fields=True):
    """People do not echo but really call: offer, ring, answer, hang up.  Some of the calls are under study."""

    studied: Share = 1.0
    """Share of the calls of each round with sender and receiver at both ends; all others are only counted."""
    answer_seconds: Amount = 1.0
    """It rings so long."""
    kbit_per_second: Annotated[int, Meta(ge=18, le=1000)] = 70
    """What people let a call take of their line at most, headers included."""
    window_seconds: Annotated[float, Meta(ge=0.5)] = 2.0
    """Quality is judged over so long at a time."""


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
    voice: Voice | None = None
    line: dict[str, LineKind] = msgspec.field(default_factory=dict)
    """Kinds of line by name, for `calls.lines`."""
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
        raise ConfigError(f"{source}: {_sentence(_named(str(problem), table))}") from None
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
    _check_lines(scenario, demand)
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


def _check_lines(scenario: Scenario, demand: Callable[[bool, str, str], None]) -> None:
    calls, voice = scenario.calls, scenario.voice
    demand(calls is not None or voice is None, "[voice]", "only a world with [calls] has voice")
    demand(calls is not None or not scenario.line, "[line]", "only people with [calls] have kinds of line")
    if calls is None:
        return
    known = ", ".join(scenario.line) or "none, as there is no [line.NAME]"
    for place, weights in (("[calls] lines", calls.lines), ("[calls] callee_lines", calls.callee_lines)):
        for name in weights:
            demand(name in scenario.line, place, f"there is no kind of line {name!r}; known are: {known}")
        demand(not weights or sum(weights.values()) > 0, place, "at least one weight must be over 0")
    demand(not calls.callee_lines or bool(calls.lines), "[calls] callee_lines", "needs `lines` for those who call")
    demand(not calls.lines or calls.pattern == "random", "[calls] lines", "a matrix has no kinds of line")
    if voice is not None:
        least = voice.answer_seconds + 2 * voice.window_seconds
        demand(calls.call_seconds > least, "[calls] call_seconds", f"must be over {least:g}, or nobody gets to talk")


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


def _named(problem: str, table: dict[str, Any]) -> str:
    """A problem within a kind of line, with the kind's name, which the checker does not tell."""
    lines = table.get("line")
    if "`$.line[...]" in problem and isinstance(lines, dict):
        for name, kind in lines.items():
            try:
                msgspec.convert(kind, LineKind)
            except msgspec.ValidationError:
                return problem.replace("$.line[...]", f"$.line {name}")
    return problem


def _sentence(problem: str) -> str:
    what, _, where = problem.partition(" - at `$")
    place = where.rstrip("`").strip(".")
    if found := re.fullmatch(r"event\[(\d+)\]\.?(.*)", place):
        place = f"[[event]] number {int(found[1]) + 1} {found[2]}".rstrip()
    elif "." in place:
        section, _, key = place.partition(".")
        place = f"[{section}] {key}"
    elif place in ("world", "node", "weather", "churn", "people", "calls", "voice", "line", "ending"):
        place = f"[{place}]"
    what = what.replace("Object contains unknown field", "there is no such key as")
    return f"{place or 'top of the file'}: {what[:1].lower()}{what[1:].replace('`', '')}"
