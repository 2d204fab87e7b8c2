"""Where a command gets the passphrase from, and the key file opened with it.

In this order: `--passphrase-file`, MESHCALL_PASSPHRASE_FILE, a question on the terminal.  A key file
without a passphrase needs none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshcall import keyfile
from meshcall.cli.output import remark
from meshcall.drivers import files
from meshcall.errors import StateError, UsageError
from meshcall.identity import Device, Identity

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite
    from meshcall.drivers.files import Folders

VARIABLE: Final = "MESHCALL_PASSPHRASE_FILE"
ATTEMPTS_MAX: Final = 3

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What an opened key file gives: the identity, this installation's device, and the name its owner goes by."""

    identity: Identity
    device: Device
    name: str


def passphrase_file_option(function: F) -> F:
    """Add `--passphrase-file FILE`, handed to the command as `passphrase_file: Path | None`."""
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar=VARIABLE,
        show_envvar=True,
        help="Read the passphrase from the first line of this file instead of asking.",
    )(function)


def from_file(path: Path) -> str:
    """The first line of a passphrase file, without its line end.  Raises StateError."""
    data = files.read(path, bytes_max=keyfile.PASSPHRASE_BYTES_MAX + 2, pipes=True)
    if data is None:
        raise StateError(f"the passphrase file {path} does not exist")
    if path.is_file() and files.readable_by_others(path):
        remark(f"warning: others on this machine can read {path}; chmod 600 {path}")
    return data.decode("utf-8", "surrogateescape").split("\n", 1)[0].removesuffix("\r")


def ask_new(passphrase_file: Path | None) -> str:
    """The passphrase for a new key file, asked twice.  Raises UsageError where there is no one to ask."""
    if passphrase_file is not None:
        passphrase = from_file(passphrase_file)
        if not passphrase:
            raise UsageError(f"the first line of {passphrase_file} is empty; --no-passphrase says that on purpose")
        return passphrase
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a passphrase: use --passphrase-file or --no-passphrase")
    while True:
        passphrase = _ask("Passphrase for the key file (empty for none): ")
        if passphrase == _ask("The same again: "):
            return passphrase
        remark("These were two different ones.")


def identity_data(folders: Folders) -> bytes:
    """The bytes of the key file.  Raises StateError where there is none."""
    data = files.read(folders.identity, bytes_max=16 * keyfile.FILE_BYTES)
    if data is None:
        raise StateError(f"there is no identity in {folders.identity.parent} yet; make one with `meshcall id new`")
    return data


def unlock(suite: Suite, folders: Folders, passphrase_file: Path | None) -> Unlocked:
    """Open the key file of these folders, asking for the passphrase if it has one.

    Raises StateError: no file, a damaged one, the wrong passphrase (three times on a terminal).
    """
    data = identity_data(folders)
    header = keyfile.read_header(data)
    if files.readable_by_others(folders.identity):
        remark(f"warning: others on this machine can read {folders.identity}; chmod 600 {folders.identity}")
    secrets = _unseal(suite, data, header, passphrase_file)
    return Unlocked(
        identity=Identity.from_seed(suite, secrets.seed),
        device=Device.from_secret(suite, secrets.device_secret, secrets.device_serial),
        name=header.name,
    )


def _unseal(suite: Suite, data: bytes, header: keyfile.Header, passphrase_file: Path | None) -> keyfile.Secrets:
    if not header.has_passphrase:
        return _stretch(suite, data, "")
    if passphrase_file is not None:
        return _stretch(suite, data, from_file(passphrase_file))
    if not sys.stdin.isatty():
        raise StateError(f"the key file has a passphrase and there is no terminal to ask for it: set {VARIABLE}")
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return _stretch(suite, data, _ask("Passphrase: "))
        except keyfile.WrongPassphraseError as error:
            remark(f"{error} Try again.")
    return _stretch(suite, data, _ask("Passphrase: "))


def _stretch(suite: Suite, data: bytes, passphrase: str) -> keyfile.Secrets:
    try:
        return keyfile.unseal(suite, data, passphrase)
    except MemoryError as error:
        raise StateError(f"this machine has too little free memory to open the key file: {error}") from None


def _ask(question: str) -> str:
    answer: str = click.prompt(question, prompt_suffix="", default="", show_default=False, hide_input=True, err=True)
    return answer
