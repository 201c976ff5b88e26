"""Where files may live, and how: directories 0700, files 0600, nothing through a symbolic link."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from spanledger.guard import log

_said: Final[set[Path]] = set()


def trouble_with(home: Path) -> str | None:
    """Why a directory can't be the home of our files, `None` if it can. Nothing is made or changed."""
    try:
        if home.is_symlink():
            return "it is a symbolic link"
        if not home.exists():
            above = next(each for each in home.parents if each.exists())
            return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else f"{above} can't be written"
        found = home.stat()
    except OSError as error:
        return error.strerror or type(error).__name__
    if not stat.S_ISDIR(found.st_mode):
        return "it is no directory"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if found.st_mode & 0o022:
        return "it can be written by others; chmod 700 it, or name a directory inside it"
    return None if os.access(home, os.W_OK | os.X_OK) else "it can't be written"


def usable(home: Path) -> Path:
    """The directory itself, else one in `$STATE_DIRECTORY` (systemd's word), else one among the temporary files.

    Another one than was asked for is said once.
    """
    trouble = trouble_with(home)
    if trouble is None:
        return home
    for other in _others():
        if trouble_with(other) is None:
            if home not in _said:
                _said.add(home)
                log.warning(
                    "%s can't hold spanledger's files (%s). They go to %s%s.",
                    home,
                    trouble,
                    other,
                    ""
                    if lasts(other)
                    else ", which may not outlast this machine or container; name a lasting place"
                    " with SPANLEDGER_STATE_DIR",
                )
            return other
    return home


def lasts(other: Path) -> bool:
    """Whether a home that stands in for another is one that was given to the service, and not a temporary one."""
    return other != _temporary()


def _others() -> list[Path]:
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return [*([Path(named) / "spanledger"] if named.startswith("/") else []), _temporary()]


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"spanledger-{os.geteuid()}"


class UnsafePathError(OSError):
    """A path that others could have prepared."""


def private_directory(path: Path) -> Path:
    """Make the directory, mode 0700, and check that it is ours alone. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        sync_directory(path.parent)  # or a power cut may take its name with it
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise UnsafePathError(f"{path} is a symbolic link or no directory; spanledger keeps its files in a plain one")
    if found.st_uid != os.geteuid():
        raise UnsafePathError(f"{path} belongs to another user")
    if found.st_mode & 0o022:
        raise UnsafePathError(f"{path} can be written by others; chmod 700 it")
    return path


def private_file(path: Path) -> None:
    """Make the file, mode 0600, or check that the one that is there is a plain one of ours. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise UnsafePathError(f"{path} is no plain file of this user")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Bring the names of the files in a directory to the disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
