"""Loads the price book in the background, so that neither the import of an SDK nor a call waits for it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from spanledger.guard import failed, failures, noted

if TYPE_CHECKING:
    from spanledger.pricing.book import PriceBook

_FORK_WAIT = 5.0


class Prices:
    """A price book that is there, is on its way, or has not been asked for."""

    def __init__(self, *, fixups: bool) -> None:
        self._fixups = fixups
        self._book: PriceBook | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        _register(self)

    @property
    def ready(self) -> PriceBook | None:
        """The book if it is loaded. Never waits."""
        return self._book

    def warm(self) -> None:
        """Start loading in the background. Never raises."""
        try:
            with self._lock:
                if self._book is None and self._thread is None:
                    self._thread = threading.Thread(target=self._load, name="spanledger-prices", daemon=True)
                    self._thread.start()
        except RuntimeError:  # no thread can be started at interpreter exit: whoever needs the book loads it
            self._thread = None

    def wait(self) -> PriceBook:
        """The book, loaded here if need be. Raises what loading raises."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._book is None:
                self._book = self._made()
            return self._book

    def settle_before_fork(self) -> None:
        """Let a load under way finish: a child must not inherit a half-imported module. Never raises."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_FORK_WAIT)

    def _made(self) -> PriceBook:
        from spanledger.pricing.book import PriceBook  # noqa: PLC0415  # a process without model calls never needs it

        return PriceBook(fixups=self._fixups)

    def _load(self) -> None:
        try:
            book = self._made()
        except Exception as error:  # noqa: BLE001  # calls are recorded without prices then
            failures["the price list"] += 1
            noted("the price list", error)
        else:
            self._book = book


_known: weakref.WeakSet[Prices] = weakref.WeakSet()


def _register(prices: Prices) -> None:
    if not _known and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_settle)
    _known.add(prices)


def _settle() -> None:
    for prices in list(_known):
        try:
            prices.settle_before_fork()
        except Exception as error:  # noqa: BLE001  # a fork goes on whatever we do
            failed("the wait for prices before a fork", error)
