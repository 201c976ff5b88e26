"""The file of counted losses: one JSON object a line, `at`, `reason`, `count`, `pid`."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from spanledger.guard import log
from spanledger.homes import private_directory

LOSSES: Final = "losses.jsonl"
"""Its name in the state directory."""


class Losses:
    """Writes down what was lost; where that can't be done, as on a full disk, with the next loss or `say`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsaid: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, reason: str, count: int) -> None:
        """So many more were lost."""
        self._unsaid[reason] += count
        self.say()

    def forget(self) -> None:
        """In a forked child: what is not written down yet is the parent's to write."""
        self._unsaid, self._lock = Counter(), threading.Lock()

    def say(self) -> None:
        """Write down what could not be written before. Never raises."""
        if not self._unsaid or not self._lock.acquire(blocking=False):
            return
        try:
            now, mine = time.time(), os.getpid()
            lines = [
                json.dumps({"at": now, "reason": reason, "count": count, "pid": mine})
                for reason, count in self._unsaid.items()
            ]
            try:
                private_directory(self._path.parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(self._path, flags, 0o600)
                try:
                    text = ("\n".join(lines) + "\n").encode()
                    if os.write(descriptor, text) < len(text):
                        raise OSError(errno.ENOSPC, "no room for all of it")
                finally:
                    os.close(descriptor)
            except OSError as error:
                log.error("Losses can't be written down yet (%s): %s.", error, dict(self._unsaid))
            else:
                self._unsaid.clear()
        finally:
            self._lock.release()
