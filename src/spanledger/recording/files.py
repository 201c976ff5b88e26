"""Private files: directories 0700, files 0600, nothing through a symbolic link."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import weakref
from pathlib import Path
from typing import Final


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


class Lease:
    """An exclusive lock on a file, held by this process until `release` or its death, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lease at once. False if somebody holds it. Raises `OSError`."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        _held.add(self)
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lease back; with `remove` its file goes first, while it is still ours."""
        if self._descriptor is None:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a child that was forked meanwhile shares it: closing alone would not do
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None
        _held.discard(self)

    def forget(self) -> None:
        """In a forked child: drop the descriptor. The parent keeps the lease, which only an unlock would end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: Final[weakref.WeakSet[Lease]] = weakref.WeakSet()


def forget_leases() -> None:
    """In a forked child: every lease is the parent's, and ends with it."""
    for lease in list(_held):
        lease.forget()
    _held.clear()
