"""`meshcall id` as a person uses it, on a terminal and in scripts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from meshcall import keyfile
from meshcall.address import parse
from meshcall.cli.passphrase import Unlocked, unlock
from meshcall.crypto.sodium import Sodium
from meshcall.drivers.files import folders

ANSWER_SECONDS_MAX = 30
PASSPHRASE = "correct horse"


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MESHCALL_")}
    return {**kept, "MESHCALL_HOME": str(home), "MESHCALL_OFFLINE": "1"}


def run(home: Path, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshcall", "id", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**environment(home), **more},
        check=False,
    )


class Terminal:
    """A command on a terminal of its own; what it prints is in `seen`."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.seen = ""
        self.read_to = 0
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshcall", "id", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=environment(home),
        )
        os.close(slave)

    def expect(self, text: str) -> None:
        """Read until the text has come after the one expected before."""
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while (found := self.seen.find(text, self.read_to)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen!r}"
            assert self._more(), f"{text!r} never came: {self.seen!r}"
        self.read_to = found + len(text)

    def answer(self, question: str, answer: str) -> None:
        self.expect(question)
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        # getpass throws away what was typed before it has switched off the echo
        while "assphrase" in question + self.seen[-40:] and termios.tcgetattr(self.master)[3] & termios.ECHO:
            assert time.monotonic() < deadline
            os.sched_yield()
        os.write(self.master, answer.encode() + b"\n")

    def end(self) -> int:
        while self._more():
            pass
        os.close(self.master)
        return self.process.wait(ANSWER_SECONDS_MAX)

    def _more(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], ANSWER_SECONDS_MAX)
        try:
            data = os.read(self.master, 4096) if ready else b""
        except OSError:  # Linux's way to say that the other end is closed
            data = b""
        self.seen += data.decode()
        return bool(data)


def opened(home: Path, passphrase_file: Path | None = None) -> Unlocked:
    return unlock(Sodium(), folders(home), passphrase_file)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(PASSPHRASE + "\n")
    return path


def test_new_show_backup_restore_without_a_terminal(home: Path, tmp_path: Path) -> None:
    made = run(home, "new", "--no-passphrase", "--name", "Ada", "--json")
    assert made.returncode == 0, made.stderr
    data = json.loads(made.stdout)
    assert parse(data["link"]).name == "Ada"
    assert parse(data["address"]).public.hex() == data["public_key"]
    assert data["passphrase"] is False
    assert (home / "identity.key").stat().st_mode & 0o777 == 0o600

    shown = run(home, "show")
    assert data["address"] in shown.stdout
    assert data["link"] in shown.stdout
    assert "without a passphrase: who can read the file can be you" in shown.stdout
    assert "█" not in shown.stdout
    assert "█" in run(home, "show", "--qr").stdout
    assert json.loads(run(home, "show", "--json").stdout) == data

    backup = json.loads(run(home, "backup", "--yes", "--json").stdout)
    assert backup["address"] == data["address"]
    other = tmp_path / "other"
    restored = run(other, "restore", "--no-passphrase", "--name", "Ada", "--json", stdin="\n".join(backup["words"]))
    assert json.loads(restored.stdout)["address"] == data["address"]
    assert opened(other).identity == opened(home).identity
    assert opened(other).device != opened(home).device


def test_an_identity_is_never_overwritten(home: Path) -> None:
    run(home, "new", "--no-passphrase")
    before = (home / "identity.key").read_bytes()
    for arguments in (["new"], ["new", "--no-passphrase"], ["restore", "--no-passphrase"]):
        done = run(home, *arguments)
        assert done.returncode == 1
        assert "there is an identity already" in done.stderr
    assert (home / "identity.key").read_bytes() == before
    (home / "identity.key").write_bytes(b"damaged")
    assert run(home, "new", "--no-passphrase").returncode == 1
    assert (home / "identity.key").read_bytes() == b"damaged"


def test_a_passphrase_from_a_file(home: Path, passphrase_file: Path) -> None:
    assert run(home, "new", "--passphrase-file", str(passphrase_file)).returncode == 0
    assert "with your passphrase" in run(home, "show").stdout
    locked = run(home, "backup", "--yes")
    assert locked.returncode == 1
    assert "set MESHCALL_PASSPHRASE_FILE" in locked.stderr
    unlocked = run(home, "backup", "--yes", MESHCALL_PASSPHRASE_FILE=str(passphrase_file))
    assert len(re.findall(r"\d+ [a-z]+", unlocked.stdout)) == 24
    assert unlocked.stderr == ""
    passphrase_file.write_text("something else")
    wrong = run(home, "backup", "--yes", "--passphrase-file", str(passphrase_file))
    assert wrong.returncode == 1
    assert wrong.stderr == "meshcall: This is not the passphrase of the key file.\n"
    passphrase_file.chmod(0o644)
    assert "chmod 600" in run(home, "backup", "--yes", "--passphrase-file", str(passphrase_file)).stderr
    passphrase_file.unlink()
    assert "does not exist" in run(home, "backup", "--yes", "--passphrase-file", str(passphrase_file)).stderr


def test_an_empty_passphrase_file_is_an_accident(home: Path, passphrase_file: Path) -> None:
    passphrase_file.write_text("\n")
    done = run(home, "new", "--passphrase-file", str(passphrase_file))
    assert done.returncode == 1
    assert "--no-passphrase says that on purpose" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize("arguments", [["show"], ["backup", "--yes"]])
def test_without_an_identity_the_way_to_one_is_named(home: Path, arguments: list[str]) -> None:
    done = run(home, *arguments)
    assert done.returncode == 1
    assert "make one with `meshcall id new`" in done.stderr
    assert not home.exists()


def test_a_damaged_key_file_is_named_and_left(home: Path) -> None:
    run(home, "new", "--no-passphrase")
    path = home / "identity.key"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    done = run(home, "show")
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert "meshcall id restore" in done.stderr
    assert path.read_bytes() == data


def test_a_key_file_that_others_can_read_is_remarked(home: Path) -> None:
    run(home, "new", "--no-passphrase")
    (home / "identity.key").chmod(0o640)
    assert "chmod 600" in run(home, "backup", "--yes").stderr


def test_svg(home: Path, tmp_path: Path) -> None:
    run(home, "new", "--no-passphrase")
    assert run(home, "show", "--svg", str(tmp_path / "me.svg")).returncode == 0
    assert "http://www.w3.org/2000/svg" in (tmp_path / "me.svg").read_text()
    assert "cannot be written" in run(home, "show", "--svg", str(tmp_path / "none" / "me.svg")).stderr


def test_words_are_not_shown_by_accident(home: Path) -> None:
    run(home, "new", "--no-passphrase")
    done = run(home, "backup")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "only shown on a terminal" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("abandon " * 23, "these are 23"),
        ("abandon " * 6 + "abandom " + "abandon " * 17, "the 7th word is not in the list"),
        ("abandon " * 24, "do not fit"),
        ("", "these are 0"),
    ],
)
def test_wrong_words_are_named(home: Path, words: str, sentence: str) -> None:
    done = run(home, "restore", "--no-passphrase", stdin=words)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not home.exists()


def test_restore_checks_the_address_on_the_paper(home: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("abandon " * 23 + "art")
    right = "mc1qyak5faue6m2gttz5w5dq2n0p4ek2vs4wuw7ysax8tqy3gvtt8dzjxtg8j2"
    wrong = "mc1q8t44xqps2cs4d74f0ld8jtyquaqactj70d2vge94upp568hqag35hzmcv9"
    arguments = ["restore", "--no-passphrase", "--words-file", str(words)]
    done = run(home, *arguments, "--address", wrong)
    assert done.returncode == 1
    assert f"another identity: {right}; nothing was saved" in done.stderr
    assert "the 7th character" in run(home, *arguments, "--address", right[:6] + "b" + right[7:]).stderr
    assert not home.exists()
    assert "Compare the address" in run(home, *arguments).stdout


def test_names_are_checked_before_anything_is_asked(home: Path) -> None:
    assert "too long" in run(home, "new", "--name", "x" * 65).stderr


def test_on_a_terminal(home: Path, passphrase_file: Path, tmp_path: Path) -> None:
    new = Terminal(home, "new")
    new.answer("Passphrase for the key file (empty for none): ", PASSPHRASE)
    new.answer("The same again: ", "something else")
    new.expect("two different ones")
    new.answer("Passphrase for the key file (empty for none): ", PASSPHRASE)
    new.answer("The same again: ", PASSPHRASE)
    new.expect("meshcall id backup")
    assert new.end() == 0
    assert PASSPHRASE not in new.seen
    identity = opened(home, passphrase_file).identity

    show = Terminal(home, "show")
    show.expect(identity.address)
    show.expect("█")
    assert show.end() == 0

    backup = Terminal(home, "backup")
    backup.answer("Show them now? [y/N]: ", "y")
    backup.answer("Passphrase: ", "wrong")
    backup.expect("Try again.")
    backup.answer("Passphrase: ", PASSPHRASE)
    backup.expect("clear this screen")
    assert backup.end() == 0
    numbered = {int(number): word for number, word in re.findall(r"(\d+) ([a-z]+)\b", backup.seen)}
    assert sorted(numbered) == list(range(1, 25))

    restore = Terminal(tmp_path / "other", "restore")
    listed = [numbered[number] for number in range(1, 25)]
    restore.answer(" 1> ", " ".join(listed[:6]))
    restore.answer(" 7> ", "qwertyuiop " + listed[7])
    restore.expect("the 7th word is not in the list")
    restore.answer(" 7> ", " ".join([*listed[6:23], listed[23], "zoo"]))
    restore.expect("a backup has 24 words, these are 25. Once more from the beginning.")
    restore.answer(" 1> ", " ".join(listed))
    restore.answer("Passphrase for the key file (empty for none): ", "")
    restore.answer("The same again: ", "")
    restore.expect(identity.address)
    assert restore.end() == 0
    assert opened(tmp_path / "other").identity == identity


def test_no_means_no(home: Path) -> None:
    run(home, "new", "--no-passphrase")
    backup = Terminal(home, "backup")
    backup.answer("Show them now? [y/N]: ", "")
    assert backup.end() == 1
    assert "the words were not shown" in backup.seen


def test_three_wrong_passphrases_end_it(home: Path, passphrase_file: Path) -> None:
    cheap = keyfile.seal(
        Sodium(), keyfile.Secrets(bytes(32), bytes(32), 1), "", PASSPHRASE, keyfile.Cost(operations=1, memory_kib=8)
    )
    home.mkdir()
    (home / "identity.key").write_bytes(cheap)
    (home / "identity.key").chmod(0o600)
    backup = Terminal(home, "backup", "--yes")
    for _ in range(3):
        backup.answer("Passphrase: ", "wrong")
    assert backup.end() == 1
    assert "meshcall: This is not the passphrase" in backup.seen
    assert opened(home, passphrase_file).name == ""


def test_control_c_at_a_question(home: Path) -> None:
    new = Terminal(home, "new")
    new.expect("Passphrase for the key file")
    while termios.tcgetattr(new.master)[3] & termios.ECHO:
        os.sched_yield()
    os.write(new.master, b"\x03")
    assert new.end() == 130
    assert "Traceback" not in new.seen
    assert not home.exists()
