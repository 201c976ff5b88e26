"""No fork while a thread of ours is in SQLite: what SQLite holds locked then stays locked in the child for ever."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ContextDecorator
from typing import Final

_LONGEST: Final = 1.0
"""Seconds that a fork waits for others, and they for it. SQLite's own locks are held for microseconds; what takes
longer is the disk, or somebody else's hook before the fork, which may be waiting for us."""


class Gate(ContextDecorator):
    """Many threads are inside at a time; a fork waits until none is, and none enters while it lasts."""

    def __init__(self) -> None:
        self.reopen()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while self._forking and me not in self._forking and not self._inside[me]:
                if not self._changed.wait(_LONGEST):
                    self._forking.clear()
            self._inside[me] += 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is inside."""
        with self._changed:
            self._forking.add(threading.get_ident())
            self._changed.wait_for(lambda: self._inside.keys() <= self._forking, _LONGEST)

    def after_fork(self) -> None:
        """Let them in again: the parent goes on."""
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def reopen(self) -> None:
        """In a forked child nobody is inside."""
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        """Thread → how often it is inside."""
        self._forking: set[int] = set()
        """Threads that are forking."""


in_sqlite: Final = Gate()
"""Held around whatever our threads do in SQLite."""
