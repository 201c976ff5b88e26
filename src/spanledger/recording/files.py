"""Leases: who a file belongs to, for as long as its process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path
from typing import Final


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
