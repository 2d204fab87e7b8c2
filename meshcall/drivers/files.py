"""Files of a node on disk: where they are, and reading and writing them so that a crash loses nothing.

A write is seen whole or not at all, even if the power fails.  A file that cannot be understood is
set aside under another name, never deleted and never read again.  Folders are 0700, files 0600.
What is in the files is the matter of others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshcall.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

APP_NAME: Final = "meshcall"
HOME_VARIABLE: Final = "MESHCALL_HOME"
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""No file of a node is larger; what is larger is damaged or not ours."""
SET_ASIDE_MAX: Final = 5
"""So many damaged copies of one file are kept; the next one replaces the oldest."""
LOCK_FILE: Final = "lock"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a node keeps its things.  `config` is written by people, `state` (keys, contacts, caches) by meshcall."""

    config: Path
    state: Path

    @property
    def identity(self) -> Path:
        """The sealed key file."""
        return self.state / "identity.key"


def folders(home: str | os.PathLike[str] | None = None) -> Folders:
    """The folders of this user, or both in `home`, or both in $MESHCALL_HOME.  Nothing is created."""
    home = home or os.environ.get(HOME_VARIABLE)
    if home:
        root = Path(home).expanduser().absolute()
        return Folders(config=root, state=root)
    import platformdirs

    return Folders(
        config=platformdirs.user_config_path(APP_NAME, appauthor=False),
        state=platformdirs.user_data_path(APP_NAME, appauthor=False),
    )


def ensure_folder(folder: Path) -> Path:
    """Create a folder with mode 0700 where it is missing.  Raises StateError where that cannot be."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"the folder {folder} cannot be made: {_why(error)}") from error
    return folder


def write(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a whole file, mode 0600: after a crash there is the old one or the new one, never half of one.

    With `replace=False` an existing file is left as it is.  Raises StateError.
    """
    ensure_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()  # left by a crashed process that had our number
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike rename it refuses where the name is taken
                temporary.unlink()
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except FileExistsError:
        raise StateError(f"{path} exists already") from None
    except OSError as error:
        raise StateError(f"{path} cannot be written: {_why(error)}") from error


def read(path: Path, bytes_max: int = READ_BYTES_MAX, *, pipes: bool = False) -> bytes | None:
    """The whole file, or None where there is none.  Raises StateError where it cannot be read or is too large.

    A pipe or a device is refused, since it might never end or never begin; with `pipes`, of the user's choice, read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if pipes else os.O_NONBLOCK))
        with open(descriptor, "rb") as file:
            if not pipes and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError(f"{path} cannot be read: it is not a file")
            data = file.read(bytes_max + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {_why(error)}") from error
    if len(data) > bytes_max:
        raise StateError(f"{path} is larger than {bytes_max} bytes, so it is not what it should be")
    return data


def readable_by_others(path: Path) -> bool:
    """Whether the mode of an existing file lets anyone but its owner read or write it."""
    return bool(path.stat().st_mode & 0o077)


def writable_by_others(folder: Path) -> bool:
    """Whether others can put files into an existing folder, and so take the names that a node uses there."""
    return bool(folder.stat().st_mode & 0o022)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `NAME.damaged-N` and return its new path; at most `SET_ASIDE_MAX` are kept.

    Raises StateError where the file cannot be renamed.
    """
    candidates = [path.with_name(f"{path.name}.damaged-{number}") for number in range(1, SET_ASIDE_MAX + 1)]
    try:
        free = [candidate for candidate in candidates if not os.path.lexists(candidate)]
        aside = free[0] if free else min(candidates, key=lambda candidate: candidate.lstat().st_mtime_ns)
        path.replace(aside)
        os.utime(aside, follow_symlinks=False)  # its age counts from now, so that the oldest makes room
        _sync_folder(path.parent)
    except OSError as error:
        raise StateError(f"{path} is damaged and cannot be set aside: {_why(error)}") from error
    return aside


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a state folder; the system frees it when the process dies, however it dies.

    Raises StateError where another process holds it.
    """
    path = ensure_folder(folder) / LOCK_FILE
    try:
        # Not through a link: what it points to would be overwritten.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, FILE_MODE)
    except OSError as error:
        raise StateError(f"{path} cannot be opened: {_why(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StateError(f"{path} is not a file; move it away, the node needs this name")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StateError(f"{path} cannot be locked: {_why(error)}") from error
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            who = f" (process {holder})" if holder.isdigit() else ""
            raise StateError(
                f"another meshcall{who} is running on {folder}; stop it first, or choose another folder with --home"
            ) from None
        with suppress(OSError):  # on a full disk the lock holds all the same, only nameless
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power failure, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
