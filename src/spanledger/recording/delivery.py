"""Empties outboxes: this process's own and those of processes that died. One courier per sink does the way."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from spanledger import conventions
from spanledger.guard import log
from spanledger.model import iso_at
from spanledger.recording.courier import Count, Courier, Errand
from spanledger.recording.losses import LOSSES, Losses
from spanledger.recording.outbox import Outbox, OutboxVersionError, is_damage
from spanledger.recording.salvage import salvage
from spanledger.recording.sink import Poster, Sink

_LOOK_EVERY: Final = 30.0
_AHEAD: Final = 300.0
_BEHIND: Final = 35 * 86400.0


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row


class Delivery:
    """Delivers to `sinks`, from the outbox files in `directory`.

    `count(name, amount, attributes)` moves a counter of ours; `complete(row)` adds to a row what it could not have
    when it was written: its price. `meant_for` names all sinks that records are for, where these are not all.
    """

    def __init__(
        self,
        sinks: Sequence[Sink | Poster],
        directory: Path,
        *,
        batch_size: int,
        flush_interval: float,
        count: Count,
        meant_for: Sequence[str] = (),
        complete: Callable[[dict[str, Any]], dict[str, Any]] = _as_it_is,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._meant_for = meant_for or [sink.name for sink in sinks]
        self._count = count
        self._clock = clock
        self._complete = complete
        self._wall = wall
        self._own: Outbox | None = None
        self._left: list[Outbox] = []
        """Our own outboxes once they are released, while a courier is still at them."""
        self._running = 0
        """Couriers whose thread has not come to its end."""
        self._ending = threading.Lock()
        self._adopted: dict[Path, Outbox] = {}
        self._idle: dict[Path, int] = {}
        """Files of the dead in which there is nothing for our sinks → when they were changed last."""
        self._looking = threading.Lock()
        self._look_at = 0.0
        self._couriers = [
            Courier(
                sink,
                self._outboxes,
                batch_size=batch_size,
                flush_interval=flush_interval,
                count=count,
                complete=self._completed,
                clock=clock,
                ended=self._courier_ended,
            )
            for sink in sinks
        ]

    def serve(self, outbox: Outbox) -> None:
        """Deliver from this process's own outbox from now on."""
        self._own = outbox
        self.start()

    def start(self) -> None:
        """Start the couriers."""
        for courier in self._couriers:
            with self._ending:
                self._running += courier.start()

    def release(self) -> bool:
        """Let go of this process's own outbox. False if a courier is at it still, which closes the file in the end."""
        own, self._own = self._own, None
        with self._ending:
            if self._running and own is not None:
                self._left.append(own)
            return not self._running

    def wake(self, waiting: int) -> None:
        """There are records; a full batch of them doesn't wait for company."""
        for courier in self._couriers:
            courier.wake(waiting)

    def drain(self, timeout: float, sinks: Sequence[str] = ()) -> bool:
        """Deliver what is there now. True if every sink, or each of these, has it within `timeout` seconds."""
        until = time.monotonic() + timeout
        couriers = [courier for courier in self._couriers if not sinks or courier.name in sinks]
        errands = [Errand(self._clock() + timeout) for _ in couriers]
        for courier, errand in zip(couriers, errands, strict=True):
            courier.run(errand)
        for errand in errands:
            errand.done.wait(max(0.0, until - time.monotonic()))
        if self._running:
            self._retire(wait=0)  # a salvage may be under way, and hold the lock
        else:  # nobody else lets go of what was adopted for this
            self._close_adopted()
        return all(errand.home for errand in errands)

    def stop(self, timeout: float) -> bool:
        """Deliver what is there within `timeout` seconds, then end the couriers. What is left waits in the outbox."""
        until = time.monotonic() + timeout
        home = self.drain(timeout)
        for courier in self._couriers:
            courier.stop()
        for courier in self._couriers:
            if courier.thread is not None:
                courier.thread.join(max(0.0, until - time.monotonic()))
        return home

    def _courier_ended(self) -> None:
        """On the thread of a courier, at its end."""
        with self._ending:
            self._running -= 1
            left, self._left = ([], self._left) if self._running else (self._left, [])
            last = not self._running
        if last:
            self._close_adopted()
        for outbox in left:
            outbox.close()

    def _close_adopted(self) -> None:
        with self._looking:
            for outbox in self._adopted.values():
                outbox.close()
            self._adopted.clear()

    def _completed(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with what it could not have when it was written, and a flag where its time can't be right."""
        row = self._complete(row)
        now = self._wall()
        if not iso_at(now - _BEHIND) <= row["started_at"] <= iso_at(now + _AHEAD):
            row["clock_suspect"] = 1
        return row

    # Files of processes that died.

    def _outboxes(self) -> list[Outbox]:
        """What there is to deliver from, after a look round where one is due."""
        self._retire()
        with self._looking:
            if self._clock() >= self._look_at:
                self._look_at = self._clock() + _LOOK_EVERY
                self._adopt()
            return [*([self._own] if self._own else []), *self._adopted.values()]

    def _adopt(self) -> None:
        own = self._own.path if self._own else None
        for path in sorted(self._directory.glob("*.db")) if self._directory.is_dir() else []:
            if path == own or path in self._adopted or self._idle.get(path) == _changed(path):
                continue
            try:
                outbox = Outbox.adopt(path)
            except (OSError, sqlite3.Error, OutboxVersionError) as error:
                self._cannot_adopt(path, error)
                continue
            if outbox is not None:
                if waiting := outbox.pending(self._names()):
                    log.info("Delivering %d records that a process which died left in %s.", waiting, path)
                self._adopted[path] = outbox

    def _cannot_adopt(self, path: Path, error: Exception) -> None:
        try:
            saved = salvage(path, self._meant_for) if is_damage(error) else None
        except (OSError, sqlite3.Error) as another:
            saved, error = None, another
        if saved is None:
            if isinstance(error, OutboxVersionError):  # anything else may pass
                self._idle[path] = _changed(path)
            if not is_damage(error):  # or somebody else is saving what can be read of it
                log.warning("The outbox file %s can't be read (%s); it is left as it is.", path, error)
            return
        self._look_at = 0.0
        log.error(
            "The outbox file %s was damaged (%s). %d of its records are saved, %d can't be read. It is kept as %s.",
            path,
            error,
            saved.saved,
            saved.damaged,
            saved.kept_as,
        )
        if saved.damaged:
            self._count(conventions.METRIC_LOST, saved.damaged, {conventions.REASON: "outbox_damaged"})
            Losses(self._directory.parent / LOSSES).add("outbox_damaged", saved.damaged)

    def _retire(self, wait: float = -1) -> None:
        """Let go of files in which nothing is left for our sinks."""
        if not self._looking.acquire(timeout=wait):
            return
        try:
            for path, outbox in list(self._adopted.items()):
                if outbox.closed or not outbox.pending(self._names()):
                    del self._adopted[path]
                    outbox.close()
                    self._idle[path] = _changed(path)
        finally:
            self._looking.release()

    def _names(self) -> list[str]:
        return [courier.name for courier in self._couriers]


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
