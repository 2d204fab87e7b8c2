"""`meshcall up`: run the node until Ctrl-C, SIGTERM or the end of the session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli import passphrase as passphrases
from meshcall.cli.output import aligned, home_option, remark

if TYPE_CHECKING:
    from meshcall.config import Config
    from meshcall.daemon.live import LiveNode
    from meshcall.daemon.service import Owner
    from meshcall.drivers.files import Folders

CONFIG_FILE = "config.toml"


@click.command()
@home_option
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
@click.option("--print-config", is_flag=True, help="Print a commented configuration with the defaults, and stop.")
@click.option("--port", type=click.IntRange(0, 65535), help="UDP port (0: any free one, kept from then on).")
@click.option("--bind", metavar="ADDRESS", help="Use this local IP address only.")
@click.option("--bootstrap", multiple=True, metavar="HOST:PORT", help="A node to start from; may be repeated.")
@click.option("--private", is_flag=True, help="A network of your own: never ask the public routers.")
@click.option("--no-publish", is_flag=True, help="Help others to be found, without being found; needs no identity.")
@click.option("--relay", is_flag=True, help="Carry sealed packets for everybody: be a relay ([relay] mode = open).")
@click.option(
    "--auto-answer", multiple=True, metavar="WHOM",
    help='Answer calls without asking: "contacts", "nobody", or an address; may be repeated.',
)  # fmt: skip
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged.")
@click.option("--log-format", type=click.Choice(["plain", "json"]), help="For people or for programs.")
@passphrases.passphrase_file_option
def command(
    folders: Folders,
    config_file: Path | None,
    print_config: bool,
    passphrase_file: Path | None,
    **options: Any,
) -> None:
    """Run your node: others find you through it, and it helps others to be found.

    It reads config.toml in the folder of the configuration (or --config FILE); options win over the file.
    """
    from meshcall import config as configuration

    if print_config:
        click.echo(configuration.DEFAULT_TEXT, nl=False)
        return
    default = folders.config / CONFIG_FILE
    if config_file is not None:
        config = configuration.load(config_file)
    else:
        config = configuration.load(default) if default.exists() else configuration.Config()
    config = with_options(config, **options)
    _run(folders, config, passphrase_file)


def with_options(
    config: Config,
    *,
    port: int | None = None,
    bind: str | None = None,
    bootstrap: tuple[str, ...] = (),
    private: bool = False,
    no_publish: bool = False,
    relay: bool = False,
    auto_answer: tuple[str, ...] = (),
    log_level: str | None = None,
    log_format: str | None = None,
) -> Config:
    """The configuration with what the command line says instead.  Raises ConfigError."""
    from msgspec.structs import replace

    from meshcall.config import check
    from meshcall.errors import ConfigError

    network, log = config.network, config.log
    if port is not None:
        network = replace(network, port=port)
    if bind is not None:
        family = 6 if ":" in bind else 4
        network = replace(network, families=(family,), **{f"bind_ipv{family}": bind})
    if private:
        network = replace(network, private=True)
    log = replace(log, level=log_level or log.level, format=log_format or log.format)
    changed = replace(
        config,
        network=network,
        dht=replace(config.dht, bootstrap=(*bootstrap, *config.dht.bootstrap)),
        record=replace(config.record, publish=config.record.publish and not no_publish),
        relay=replace(config.relay, mode="open") if relay else config.relay,
        call=replace(config.call, auto_answer=_whom(auto_answer)) if auto_answer else config.call,
        log=log,
    )
    if changed.relay.mode != "off" and not changed.record.publish:
        raise ConfigError("a relay needs an identity, so that its users know it: leave out --no-publish, or --relay")
    return check(changed, "the command line")


def _whom(words: tuple[str, ...]) -> Any:
    """A word that the configuration knows, or addresses."""
    return words[0] if len(words) == 1 and words[0] in ("contacts", "nobody") else words


def _run(folders: Folders, config: Config, passphrase_file: Path | None) -> None:
    import trio

    from meshcall import logs
    from meshcall.crypto.sodium import Sodium
    from meshcall.daemon.service import Service
    from meshcall.drivers.files import locked, writable_by_others

    logs.set_up(config.log.level, config.log.format)
    suite = Sodium()
    with locked(folders.state):  # before the passphrase is asked for: a second start ends here
        if writable_by_others(folders.state):
            remark(f"warning: others on this machine can write into {folders.state}; chmod 700 {folders.state}")
        owner = _owner(suite, folders, passphrase_file) if config.record.publish else None

        async def serve() -> None:
            service = Service(folders.state, config, suite, owner)
            await service.run(lambda live: _greet(folders, config, owner, live))

        trio.run(serve)


def _owner(suite: Any, folders: Folders, passphrase_file: Path | None) -> Owner:
    from meshcall.daemon.service import Owner
    from meshcall.errors import StateError

    if not folders.identity.exists():
        raise StateError(
            f"there is no identity in {folders.state} yet; make one with `meshcall id new`, "
            "or run a node without one: `meshcall up --no-publish`"
        )
    unlocked = passphrases.unlock(suite, folders, passphrase_file)
    return Owner(unlocked.identity, unlocked.device, unlocked.name)


def _greet(folders: Folders, config: Config, owner: Owner | None, live: LiveNode) -> None:
    """Say what runs here, to people only."""
    from meshcall.core import port_of

    if config.log.format != "plain":
        return
    families = " and ".join(f"IPv{family}" for family in live.families)
    rows = []
    if owner is not None:
        rows.append(("Address", owner.identity.address))
    rows += [
        ("Home", str(folders.state)),
        ("Listening", f"UDP port {port_of(live.endpoints[0])}, {families}"),
        ("Network", _network(config)),
    ]
    if config.relay.mode != "off":
        rows.append(("Relay", "for everybody" if config.relay.mode == "open" else "for a list of people"))
    for line in [*aligned(rows), "Your node is running; Ctrl-C stops it.", ""]:
        click.echo(line)


def _network(config: Config) -> str:
    from meshcall.daemon.start_points import is_offline

    if config.network.private:
        return "private"
    if is_offline():
        return "only nodes that it is told of (MESHCALL_OFFLINE is set)"
    return "open (BitTorrent Mainline DHT)"
