"""The configuration of a node: TOML to one frozen object, with a sentence for every mistake.

Every key has a default, a unit in its name where it has one, and its place in `DEFAULT_TEXT`,
which `meshcall up --print-config` prints.  An unknown key is an error, because a misspelt one
would otherwise silently do nothing.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from meshcall.address import parse as parse_address
from meshcall.core import parse_endpoint
from meshcall.endpoints import may_use_port
from meshcall.errors import AddressError, ConfigError, UsageError
from meshcall.wire.record import LEASES_MAX

FILE_BYTES_MAX = 1 << 20
CALL_KBIT_MIN = 24
CALL_KBIT_MAX = 510
DEVICE_NAME_CHARACTERS_MAX = 256


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sockets, and which network this node belongs to."""

    port: int = 0
    families: tuple[Literal[4, 6], ...] = (4, 6)
    bind_ipv4: str = ""
    bind_ipv6: str = ""
    private: bool = False
    port_mapping: bool = True
    lan: bool = True


class Discovery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The DHT node."""

    bootstrap: tuple[str, ...] = ()
    reachable: Literal["auto", "yes", "no"] = "auto"
    items_max: int = 4000
    item_bytes_max: int = 4_000_000
    peers_max: int = 20_000
    queries_per_second_max: float = 2000.0


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is published about this device."""

    publish: bool = True
    publish_addresses: Literal["never", "always"] = "never"


class Contacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """People whom the owner of this device knows."""

    trusted: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()


class CallRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call, and what a call shows."""

    ring: Literal["contacts", "all"] = "contacts"
    auto_answer: Literal["contacts", "nobody"] | tuple[str, ...] = "nobody"
    direct: Literal["contacts", "accepted", "never"] = "accepted"
    kbit_per_second: int = 70


class LinkRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What other people's devices get from this one."""

    answer_pings: Literal["all", "trusted", "nobody"] = "all"


class Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Relays: those of others that this device uses, and whether it is one itself."""

    leases: int = 2
    mode: Literal["open", "list", "off"] = "off"
    listed: tuple[str, ...] = ()
    tcp_port: int | Literal["auto", "off"] = "auto"
    leases_max: int = 256
    uplink_kbit_per_second: int = 10_000
    lease_kbit_per_second: int = 640
    source_kbit_per_second: int = 640


class Home(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The people for whom this node runs."""

    members: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()


class Audio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Microphone, loudspeaker, and what is done to the voice."""

    microphone: str = ""
    speaker: str = ""
    backend: Literal["auto", "sounddevice", "miniaudio", "null"] = "auto"
    echo_cancellation: bool = True
    noise_suppression: Literal["off", "low", "moderate", "high", "very-high"] = "moderate"
    automatic_gain: bool = True


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["plain", "json"] = "plain"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    network: Network = Network()
    dht: Discovery = Discovery()
    record: Record = Record()
    contacts: Contacts = Contacts()
    call: CallRules = CallRules()
    link: LinkRules = LinkRules()
    relay: Relay = Relay()
    home: Home = Home()
    audio: Audio = Audio()
    log: Log = Log()


DEFAULT_TEXT = """\
# Configuration of a meshcall node.  All values below are the defaults; a node needs no file at all.
# meshcall up --config FILE

[network]
# UDP port.  0: any free one, kept from then on, so that a rule in your router stays right.
port = 0
# Internet protocols to use, of those the machine has.
families = [4, 6]
# Local addresses to use; "" is all of them.
bind_ipv4 = ""
bind_ipv6 = ""
# true: a network of your own.  Public routers are never asked and no name of theirs is resolved.
private = false
# Ask the router to forward the UDP port to this node (PCP, NAT-PMP, UPnP), so that calls find a direct way in.
port_mapping = true
# Call trusted contacts on the local network directly, and answer theirs there.  Who listens on that network
# sees that a meshcall node calls somebody; strangers get no answer.
lan = true

[dht]
# Nodes to start from, "host:port" or "[ipv6]:port".  Nodes of the last run are tried before, and, in
# the open network, the public routers of the BitTorrent DHT after.
bootstrap = []
# Can strangers reach this node unasked?  "auto" finds out, "yes" or "no" if you know better.
reachable = "auto"
# Most that is stored for others.
items_max = 4000
item_bytes_max = 4000000
peers_max = 20000
# Most questions of others that are answered.
queries_per_second_max = 2000.0

[record]
# false: this node helps others to be found, but is not to be found itself.
publish = true
# "always" lets everybody who knows your address see the IP address of this node.  "never" does not.
publish_addresses = "never"

[contacts]
# Addresses ("mc1...") of people who may learn the IP addresses of this device, so that a link with them
# becomes direct.  With all others it goes through relays, unless you have published your IP address.
trusted = []
# Addresses of people who get silence: no answer to a handshake, a ping or a call.  Counts more than trust.
blocked = []

[call]
# Whose calls ring: of "contacts" (those in [contacts] trusted), or of "all".  Who is no contact is told that it does
# not ring, and is kept in a list of requests.
ring = "contacts"
# Whose calls are answered without asking: "nobody", all "contacts", or a list of addresses.  For a device that listens
# in a room, take care: whoever is listed hears what is said there.
auto_answer = "nobody"
# With whom a call may leave the relay, so that both sides see each other's IP address: "contacts" only, everybody whose
# call was "accepted", or "never".
direct = "accepted"
# Most that this device wants to receive and send for a call (thousands of bits a second, headers included).
kbit_per_second = 70

[link]
# Whose pings are answered: of "all" who know your address, of "trusted" contacts, of "nobody".  An answer
# tells no more than the handshake before it: that this device is there.
answer_pings = "all"

[relay]
# Relays at which this device keeps a place, so that it can be called behind any firewall without telling
# its IP address.  0: none; then only a published address leads here.
leases = 2
# Is this node a relay for others?  It then needs an address that strangers can reach, and carries sealed
# packets for "open": everybody, "list": those in `listed` and in [home] members, "off": nobody.
mode = "off"
listed = []
# For devices in networks that bar UDP, a relay takes TCP too, on this port.  "auto": 443 where this account may
# use it, else the number of the UDP port or any free one; "off": no TCP.  Open it in your firewall.
tcp_port = "auto"
# Most devices that keep a place here.
leases_max = 256
# Most that is forwarded (thousands of bits a second): in all, for one place (a call takes about 130, both
# ways), from callers at one address.
uplink_kbit_per_second = 10000
lease_kbit_per_second = 640
source_kbit_per_second = 640

[home]
# Addresses of the people of this home (family, company): they come first at this relay.
members = []
# On their devices: relays of the home, "192.0.2.1:6881" or "[2001:db8::1]:6881", to be used before others.
relays = []

[audio]
# Names of devices, or parts of them; `meshcall devices` lists them.  "": the system's.
microphone = ""
speaker = ""
# The library for devices: "sounddevice", "miniaudio", "auto": the first that works, "null": silence.
backend = "auto"
# Take out of the microphone what comes from the loudspeaker.
echo_cancellation = true
# "off", "low" (6 dB), "moderate" (12 dB), "high" (18 dB), "very-high" (21 dB).
noise_suppression = "moderate"
# Bring a voice that is too quiet to the usual level.
automatic_gain = true

[log]
# "debug", "info", "warning" or "error".  IP addresses are logged at the debug level only.
level = "info"
# "plain" for people, "json" for programs (one object a line).
format = "plain"
"""


def load(path: Path) -> Config:
    """The configuration in a TOML file.  Raises ConfigError with the file, the key and what would do."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; `meshcall up --print-config > {path}` makes one") from None
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes, so it cannot be a configuration")
    try:
        text = raw.decode()
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: not UTF-8 text (at byte {problem.start})") from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Config:
    """The configuration in a TOML text; `source` names it in messages.  Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{source}: not valid TOML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    _refuse_unknown(table, Config, source, ())
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as problem:
        what, _, where = str(problem).partition(" - at `$")
        key = _key(tuple(where.rstrip("`").strip(".").split("."))) if where else "the file"
        raise ConfigError(f"{source}: {key}: {_lower(what).replace('`', '')}") from None
    check(config, source)
    return config


def check(config: Config, source: str) -> Config:
    """The same configuration if its values can be used.  Raises ConfigError."""

    def demand(holds: bool, key: str, sentence: str) -> None:
        if not holds:
            raise ConfigError(f"{source}: {key}: {sentence}")

    demand(0 <= config.network.port <= 65535, "[network] port", "must be 0 to 65535")
    demand(bool(config.network.families), "[network] families", "must name at least one of 4 and 6")
    demand(
        len(set(config.network.families)) == len(config.network.families),
        "[network] families",
        "names one of them twice",
    )
    for family, text in ((4, config.network.bind_ipv4), (6, config.network.bind_ipv6)):
        if text:
            try:
                found = parse_endpoint(f"[{text}]:1" if ":" in text else f"{text}:1")
            except UsageError:
                found = None
            size = 6 if family == 4 else 18
            demand(
                found is not None and len(found) == size,
                f"[network] bind_ipv{family}",
                f"{text!r} is not a numeric IPv{family} address",
            )
    for text in config.dht.bootstrap:
        try:
            host_and_port(text)
        except UsageError as problem:
            raise ConfigError(f"{source}: [dht] bootstrap: {problem}") from None
    people = {
        "[contacts] trusted": config.contacts.trusted,
        "[contacts] blocked": config.contacts.blocked,
        "[call] auto_answer": () if isinstance(config.call.auto_answer, str) else config.call.auto_answer,
        "[relay] listed": config.relay.listed,
        "[home] members": config.home.members,
    }
    for key, addresses in people.items():
        for text in addresses:
            try:
                parse_address(text)
            except AddressError as problem:
                raise ConfigError(f"{source}: {key}: {text!r}: {problem}") from None
    for text in config.home.relays:
        try:
            parse_endpoint(text)
        except UsageError as problem:
            raise ConfigError(f"{source}: [home] relays: {problem}") from None
    rate = config.call.kbit_per_second
    demand(
        CALL_KBIT_MIN <= rate <= CALL_KBIT_MAX,
        "[call] kbit_per_second",
        f"must be {CALL_KBIT_MIN} to {CALL_KBIT_MAX}",
    )
    for name in ("microphone", "speaker"):
        demand(
            len(getattr(config.audio, name)) <= DEVICE_NAME_CHARACTERS_MAX, f"[audio] {name}", "is too long for a name"
        )
    demand(0 <= config.relay.leases <= LEASES_MAX, "[relay] leases", f"must be 0 to {LEASES_MAX}")
    tcp_port = config.relay.tcp_port
    demand(
        isinstance(tcp_port, str) or (tcp_port <= 65535 and may_use_port(tcp_port)),
        "[relay] tcp_port",
        'must be 443, 1024 to 65535, "auto" or "off"',
    )
    for name in ("leases_max", "uplink_kbit_per_second", "lease_kbit_per_second", "source_kbit_per_second"):
        demand(getattr(config.relay, name) >= 1, f"[relay] {name}", "must be at least 1")
    for name in ("items_max", "item_bytes_max", "peers_max", "queries_per_second_max"):
        demand(getattr(config.dht, name) >= 1, f"[dht] {name}", "must be at least 1")
    return config


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of `host:port`, `192.0.2.1:6881` or `[2001:db8::1]:6881`.  Raises UsageError."""
    host, _, port = text.strip().rpartition(":")
    bare = host.strip("[]")
    if (
        not bare
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
        or (":" in bare) != host.startswith("[")
        or any(character.isspace() for character in bare)
    ):
        raise UsageError(
            f'{text!r} is not of the form "host:port", for example "192.0.2.1:6881" or "[2001:db8::1]:6881"'
        )
    return bare, int(port)


def _refuse_unknown(table: dict[str, Any], form: type[msgspec.Struct], source: str, place: tuple[str, ...]) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(form)}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f'; did you mean "{near[0]}"?' if near else f"; known are: {', '.join(known)}"
            raise ConfigError(f"{source}: {_key((*place, name))}: there is no such {_kind(value)}{hint}")
        inner = known[name]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"{source}: {name}: must be a section, written [{name}]")
            _refuse_unknown(value, inner, source, (*place, name))


def _kind(value: object) -> str:
    return "section" if isinstance(value, dict) else "key"


def _key(place: tuple[str, ...]) -> str:
    """A key as it is found in the file: `[section] name`."""
    return f"[{place[0]}] {'.'.join(place[1:])}".rstrip() if len(place) > 1 else ".".join(place)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
