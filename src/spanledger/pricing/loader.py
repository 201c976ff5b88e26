"""Loads the price book in the background, so that neither the import of an SDK nor a call waits for it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spanledger.guard import failed, failures, log, noted

if TYPE_CHECKING:
    from spanledger.pricing.book import PriceBook
    from spanledger.pricing.overrides import Overrides

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at the user's price files."""
_FORK_WAIT: Final = 30.0
"""Longer than a load takes on the slowest machine: a child with half a module would never have prices."""


class Prices:
    """A price book that is there, is on its way, or has not been asked for.

    The user's price files are looked at again every few seconds while calls come in; a file that has become unusable
    leaves the prices in force that it had.
    """

    def __init__(self, *, fixups: bool, files: tuple[Path, ...] = ()) -> None:
        self._fixups = fixups
        self._files = files
        self._read: dict[Path, Overrides] = {}
        self._stamps: tuple[object, ...] = ()
        self._look_at = 0.0
        self._book: PriceBook | None = None
        self._loading = threading.Lock()
        self._held = False
        """Whether a fork is under way, which holds the lock."""
        self._thread: threading.Thread | None = None
        _register(self)

    @property
    def ready(self) -> PriceBook | None:
        """The book if it is loaded. Never waits."""
        return self._book

    def warm(self) -> None:
        """Start loading in the background, or loading again what has changed. Never waits, never raises."""
        if not self._loading.acquire(blocking=False):
            return  # somebody is at it
        try:
            if (self._book is None and self._thread is None) or self._changed():
                self._thread = threading.Thread(target=self._load, name="spanledger-prices", daemon=True)
                self._thread.start()
        except RuntimeError:  # no thread can be started at interpreter exit: whoever needs the book loads it
            self._thread = None
        finally:
            self._loading.release()

    def _changed(self) -> bool:
        """Whether a price file is another than the one that was read."""
        now = time.monotonic()
        if not self._files or self._book is None or now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY
        return self._stamps != _stamps(self._files)

    def wait(self) -> PriceBook:
        """The book, loaded here if need be. Raises what loading raises."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._loading:
            if self._book is None:
                self._book = self._made()
            return self._book

    def before_fork(self) -> None:
        """Let a load under way finish, and none begin: a child must not inherit a half-imported module."""
        self._held = self._loading.acquire(timeout=_FORK_WAIT)

    def after_fork(self) -> None:
        """The parent goes on."""
        if self._held:
            self._held = False
            self._loading.release()

    def in_child(self) -> None:
        """Whoever was loading is not here."""
        self._loading, self._held = threading.Lock(), False
        if self._book is None:
            self._thread = None

    def _made(self) -> PriceBook:
        from spanledger.pricing.book import PriceBook  # noqa: PLC0415  # a process without model calls never needs it
        from spanledger.pricing.document import PriceFileError  # noqa: PLC0415  # as above
        from spanledger.pricing.overrides import read_overrides  # noqa: PLC0415  # as above

        self._stamps = _stamps(self._files)
        for path in self._files:
            try:
                self._read[path] = read_overrides(path)
            except PriceFileError as error:
                still = "its previous prices stay in force" if path in self._read else "calls are priced without it"
                log.warning("The price file %s can't be used: %s; %s.", path, error, still)
        return PriceBook(
            fixups=self._fixups, overrides=[self._read[path] for path in self._files if path in self._read]
        )

    def _load(self) -> None:
        try:
            with self._loading:
                if self._book is None or self._stamps != _stamps(self._files):
                    self._book = self._made()
        except Exception as error:  # noqa: BLE001  # calls are recorded without prices then
            failures["the price list"] += 1
            noted("the price list", error)


def _stamps(files: tuple[Path, ...]) -> tuple[object, ...]:
    """What tells a file that has changed."""
    found: list[object] = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


_known: weakref.WeakSet[Prices] = weakref.WeakSet()


def _register(prices: Prices) -> None:
    if not _at_fork:
        _at_fork.append(True)
        os.register_at_fork(
            before=lambda: _each(Prices.before_fork),
            after_in_parent=lambda: _each(Prices.after_fork),
            after_in_child=lambda: _each(Prices.in_child),
        )
    _known.add(prices)


_at_fork: Final[list[bool]] = []
"""Whether forks are watched."""


def _each(do: Callable[[Prices], None]) -> None:
    for prices in list(_known):
        try:
            do(prices)
        except Exception as error:  # noqa: BLE001  # a fork goes on whatever we do
            failed("the prices at a fork", error)
