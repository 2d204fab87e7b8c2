"""Files on disk: whole or not at all, closed to others, set aside when damaged, one process at a time."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from meshcall.drivers import files
from meshcall.errors import StateError

AS_ROOT = os.geteuid() == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    files.write(path, b"one")
    assert files.read(path) == b"one"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    files.write(path, b"two")
    assert files.read(path) == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_modes_do_not_depend_on_the_umask_being_sane(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") & 0o077 == 0


def test_write_does_not_replace_where_it_must_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"one", replace=False)
    with pytest.raises(StateError, match="exists already"):
        files.write(path, b"two", replace=False)
    assert files.read(path) == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_left_by_a_crash_is_in_no_ones_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / f".file.{os.getpid()}.new").write_bytes(b"half")
    files.write(path, b"whole")
    assert files.read(path) == b"whole"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="no space left"):
        files.write(path, b"new")
    assert files.read(path) == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    program = (
        "import sys, pathlib\nfrom meshcall.drivers import files\npath = pathlib.Path(sys.argv[1])\nn = 0\n"
        "while True:\n    files.write(path, bytes([n % 256]) * 50000)\n    n += 1\n    print(flush=True)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = files.read(path)
        assert data is not None
        assert len(data) == 50000
        assert len(set(data)) == 1


def test_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(101))
    assert files.read(path, bytes_max=101) == bytes(101)
    with pytest.raises(StateError, match="larger than 100 bytes"):
        files.read(path, bytes_max=100)


def test_read_of_nothing_and_of_a_folder(tmp_path: Path) -> None:
    assert files.read(tmp_path / "none") is None
    assert files.read(tmp_path / "none" / "deeper") is None
    with pytest.raises(StateError, match="cannot be read"):
        files.read(tmp_path)


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="permission denied"):
        files.write(tmp_path / "file", b"")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be made"):
        files.write(tmp_path / "file" / "inside", b"")


def test_damaged_files_are_set_aside_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    for number in range(12):
        path.write_bytes(b"%d" % number)
        aside = files.set_aside(path)
        os.utime(aside, ns=(number, number))  # the order, even where the clock is coarse
        assert aside.read_bytes() == b"%d" % number
        assert not path.exists()
    kept = sorted(int(aside.read_bytes()) for aside in tmp_path.iterdir())
    assert kept == [7, 8, 9, 10, 11]
    with pytest.raises(StateError, match="cannot be set aside"):
        files.set_aside(path)


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path),
        pytest.raises(StateError, match=rf"another meshcall \(process {os.getpid()}\) is running on"),
        files.locked(tmp_path),
    ):
        pass
    with files.locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\nfrom meshcall.drivers import files\n"
        "with files.locked(pathlib.Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StateError, match=f"process {holder.pid}"), files.locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with files.locked(tmp_path):
        pass


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHCALL_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    standard = files.folders()
    assert standard.config != standard.state
    assert standard.config.is_relative_to(tmp_path)
    assert standard.state.is_relative_to(tmp_path)
    monkeypatch.setenv("MESHCALL_HOME", str(tmp_path / "one"))
    assert files.folders() == files.Folders(tmp_path / "one", tmp_path / "one")
    assert files.folders(tmp_path / "two").identity == tmp_path / "two" / "identity.key"
    assert files.folders("~/three").state == tmp_path / "three"
    assert not (tmp_path / "one").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    with pytest.raises(StateError, match="not a file"):
        files.read(path)


def test_a_damaged_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    os.utime(tmp_path / "other", ns=(1, 1))
    (tmp_path / "nodes").symlink_to(tmp_path / "other")
    assert files.set_aside(tmp_path / "nodes").is_symlink()
    assert (tmp_path / "other").stat().st_mtime_ns == 1
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_the_lock_is_neither_a_link_nor_a_pipe(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "lock").symlink_to(other)
    with pytest.raises(StateError, match="cannot be opened"), files.locked(tmp_path):
        pass
    assert other.read_bytes() == b"precious"
    (tmp_path / "lock").unlink()
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(StateError, match="not a file"), files.locked(tmp_path):
        pass


def test_a_full_disk_does_not_keep_the_lock_from_holding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with (
        files.locked(tmp_path),
        pytest.raises(StateError, match="another meshcall is running on"),
        files.locked(tmp_path),
    ):
        pass


def test_a_folder_that_others_may_write_into_is_noticed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert not files.writable_by_others(tmp_path)
    tmp_path.chmod(0o775)
    assert files.writable_by_others(tmp_path)
