"""`meshcall id`: make an identity, show its address, back it up as 24 words, restore it from them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

import click

from meshcall import keyfile, words
from meshcall.address import Link, check_name, decode, encode
from meshcall.cli import passphrase as passphrases
from meshcall.cli.output import aligned, home_option, json_option, remark, show
from meshcall.drivers import files
from meshcall.errors import StateError, UsageError

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite
    from meshcall.drivers.files import Folders
    from meshcall.identity import Identity

WORD_COLUMNS: Final = 4

F = TypeVar("F", bound=Callable[..., Any])


class InOrder(click.Group):
    """Lists its commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In order of definition."""
        return list(self.commands)


@click.group(cls=InOrder)
def command() -> None:
    """Make, show, back up and restore your identity.

    Your identity is a key pair in one sealed file.  Its public half is your address, which you give to
    people who may call you.  The 24 words of the backup are the only way to get it back.
    """


def _new_options(function: F) -> F:
    """The options that `new` and `restore` share."""
    for option in (  # the last one is listed first
        home_option,
        json_option,
        click.option(
            "--no-passphrase", is_flag=True, help="Seal with no passphrase, for a machine that starts unattended."
        ),
        passphrases.passphrase_file_option,
        click.option(
            "--name",
            default="",
            metavar="NAME",
            help="What you go by; becomes part of your link, visible to all who get it.",
        ),
    ):
        function = option(function)
    return function


@command.command("new")
@_new_options
def new(folders: Folders, as_json: bool, no_passphrase: bool, passphrase_file: Path | None, name: str) -> None:
    """Make a new identity.  An existing one is never overwritten."""
    from meshcall.crypto.sodium import Sodium
    from meshcall.identity import Identity

    name = check_name(name)
    _refuse_existing(folders)
    passphrase = "" if no_passphrase else passphrases.ask_new(passphrase_file)
    suite = Sodium()
    identity = Identity.new(suite)
    _save(suite, folders, identity, name, passphrase)
    lines = _lines(identity.public, name, bool(passphrase), folders.identity)
    if not as_json:
        lines += [
            "",
            "Write down your 24 words now, on paper:  meshcall id backup",
            "Give the address or the link to people who may call you:  meshcall id show",
        ]
    show(_data(identity.public, name, bool(passphrase), folders.identity), lines, as_json=as_json)


@command.command("show")
@home_option
@json_option
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Write the QR code to this file too.")
@click.option("--qr/--no-qr", default=None, help="Print the QR code (on a terminal: yes).")
def show_identity(folders: Folders, as_json: bool, svg: Path | None, qr: bool | None) -> None:
    """Show your address, your link, and both as a QR code.  Needs no passphrase."""
    from meshcall import qr as codes

    header = keyfile.read_header(passphrases.identity_data(folders))
    if svg is not None:
        try:
            svg.write_text(codes.svg(header.public), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"the QR code cannot be written to {svg}: {error.strerror}") from error
    lines = _lines(header.public, header.name, header.has_passphrase, folders.identity)
    on_terminal = sys.stdout.isatty()
    if qr or (qr is None and on_terminal):
        lines += ["", *_qr_lines(header.public, on_terminal)]
    show(_data(header.public, header.name, header.has_passphrase, folders.identity), lines, as_json=as_json)


@command.command("backup")
@home_option
@json_option
@passphrases.passphrase_file_option
@click.option("--yes", is_flag=True, help="Do not ask, and print the words even if not to a terminal.")
def backup(folders: Folders, as_json: bool, passphrase_file: Path | None, yes: bool) -> None:
    """Print the 24 words from which your identity can be restored.

    Whoever reads them can be you, for ever: write them on paper, and keep them in no computer.
    """
    from meshcall.crypto.sodium import Sodium

    passphrases.identity_data(folders)
    if not yes:
        if not (sys.stdout.isatty() and sys.stdin.isatty()):
            raise UsageError("the 24 words are only shown on a terminal; --yes prints them all the same")
        if not click.confirm("Whoever sees the 24 words can be you, for ever. Show them now?", err=True):
            raise UsageError("the words were not shown")
    identity = passphrases.unlock(Sodium(), folders, passphrase_file).identity
    listed = words.from_seed(identity.seed)
    show({"address": identity.address, "words": listed}, [*_word_lines(listed), "", identity.address], as_json=as_json)
    if not as_json and sys.stdout.isatty():
        remark("\nWrite them on paper together with the address, then clear this screen.")


@command.command("restore")
@_new_options
@click.option("--words-file", type=click.File("r", encoding="utf-8"), metavar="FILE", help="Read the words from here.")
@click.option("--address", default="", metavar="ADDRESS", help="The address that must come out, from your paper.")
def restore(
    folders: Folders,
    as_json: bool,
    no_passphrase: bool,
    passphrase_file: Path | None,
    name: str,
    words_file: TextIO | None,
    address: str,
) -> None:
    """Get an identity back from its 24 words.

    They are asked for, or read from --words-file or from a pipe.  The result is a new device of the
    same identity.  An existing identity is never overwritten.
    """
    from meshcall.crypto.sodium import Sodium
    from meshcall.identity import Identity

    name = check_name(name)
    _refuse_existing(folders)
    expected = decode(address) if address else None
    suite = Sodium()
    identity = Identity.from_seed(suite, _read_words(words_file))
    if expected is not None and identity.public != expected:
        raise UsageError(f"these words are those of another identity: {identity.address}; nothing was saved")
    passphrase = "" if no_passphrase else passphrases.ask_new(passphrase_file)
    _save(suite, folders, identity, name, passphrase)
    lines = _lines(identity.public, name, bool(passphrase), folders.identity)
    if expected is None:
        lines += ["", "Compare the address with the one on your paper: a wrong word can slip through."]
    show(_data(identity.public, name, bool(passphrase), folders.identity), lines, as_json=as_json)


def _qr_lines(public: bytes, on_terminal: bool) -> list[str]:
    """The QR code, or why it cannot be shown here: wrapped lines or other characters are no QR code."""
    from meshcall import qr as codes

    lines = codes.terminal_lines(public, colour=False)
    if on_terminal and shutil.get_terminal_size().columns < len(lines[0]):
        return [f"The QR code needs a terminal of {len(lines[0])} columns; --svg FILE writes it to a file."]
    try:
        "".join(lines).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return [f"This terminal ({sys.stdout.encoding}) cannot show the QR code; --svg FILE writes it to a file."]
    return codes.terminal_lines(public, colour=on_terminal)


def _refuse_existing(folders: Folders) -> None:
    if folders.identity.exists() or folders.identity.is_symlink():
        raise StateError(
            f"there is an identity already: {folders.identity}; "
            "move that file away first, or use another folder with --home"
        )


def _save(suite: Suite, folders: Folders, identity: Identity, name: str, passphrase: str) -> None:
    from meshcall.identity import Device

    device = Device.new(suite)
    secrets = keyfile.Secrets(seed=identity.seed, device_secret=device.secret, device_serial=device.serial)
    try:
        data = keyfile.seal(suite, secrets, name, passphrase)
    except MemoryError as error:
        raise StateError(f"this machine has too little free memory to seal the key file: {error}") from None
    files.write(folders.identity, data, replace=False)


def _read_words(words_file: TextIO | None) -> bytes:
    if words_file is not None:
        return words.to_seed(_bounded(words_file))
    if not sys.stdin.isatty():
        return words.to_seed(_bounded(sys.stdin))
    remark(f"Type the {words.WORDS} words, with spaces between them; Enter when you like.")
    while True:
        typed: list[str] = []
        while len(typed) < words.WORDS:
            line: str = click.prompt(f"{len(typed) + 1:>2}", prompt_suffix="> ", err=True)
            try:
                typed += words.split(line, offset=len(typed))
            except words.WordsError as error:
                remark(f"{error}. Type this line again.")
        try:
            return words.to_seed(" ".join(typed))
        except words.WordsError as error:
            remark(f"{error}. Once more from the beginning.")


def _bounded(source: TextIO) -> str:
    try:
        return source.read(words.TEXT_CHARS_MAX + 1)
    except UnicodeDecodeError:
        raise UsageError("this is not a text file with words in it") from None


def _data(public: bytes, name: str, has_passphrase: bool, path: Path) -> dict[str, object]:
    return {
        "address": encode(public),
        "link": str(Link(public, name)),
        "name": name,
        "public_key": public.hex(),
        "passphrase": has_passphrase,
        "file": str(path),
    }


def _lines(public: bytes, name: str, has_passphrase: bool, path: Path) -> list[str]:
    rows = [("Address", encode(public)), ("Link", str(Link(public, name)))]
    if name:
        rows.append(("Name", name))
    rows.append(("Key file", str(path)))
    rows.append(
        (
            "Sealed",
            "with your passphrase" if has_passphrase else "without a passphrase: who can read the file can be you",
        )
    )
    return aligned(rows)


def _word_lines(listed: list[str]) -> list[str]:
    """The words, numbered down the columns."""
    rows = words.WORDS // WORD_COLUMNS
    return [
        "   ".join(f"{place + 1:>2} {listed[place]:<8}" for place in range(row, words.WORDS, rows)).rstrip()
        for row in range(rows)
    ]
