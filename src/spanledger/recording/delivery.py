"""The thread that empties outboxes: this process's own and those of processes that died.

Each sink goes at its own pace: a failure that may pass is tried again for ever, with growing pauses, and holds up
nobody else; a row that a sink refuses for good is put aside with the reason, and the rest goes on.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from spanledger import conventions
from spanledger.guard import failures, log, noted
from spanledger.model import compact_json
from spanledger.recording.outbox import Entry, Outbox
from spanledger.recording.sink import Sink, SinkError

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
_ORPHANS_EVERY: Final = 30.0

Count = Callable[..., None]


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row


class _Pace:
    """When a sink may be tried again."""

    def __init__(self) -> None:
        self.attempts = 0
        self.not_before = 0.0
        self.reason = ""

    def failed(self, error: SinkError, now: float) -> None:
        ceiling = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.attempts, 16))
        pause = random.uniform(0, ceiling)  # noqa: S311  # jitter, not a secret
        self.attempts += 1
        self.not_before = now + max(pause, error.retry_after or 0.0)
        self.reason = str(error)


class Delivery:
    """Delivers to `sinks`.

    `count(name, amount, attributes)` moves a counter of ours; `complete(row)` adds to a row what it could not have
    when it was written: its price.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        directory: Path,
        *,
        batch_size: int,
        flush_interval: float,
        count: Count,
        complete: Callable[[dict[str, Any]], dict[str, Any]] = _as_it_is,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sinks = sinks
        self._directory = directory
        self._batch_size = batch_size
        self._flush_interval = flush_interval
        self._count = count
        self._complete = complete
        self._clock = clock
        self._pace = {sink.name: _Pace() for sink in sinks}
        self._own: Outbox | None = None
        self._adopted: dict[Path, Outbox] = {}
        self._due = threading.Event()
        self._hurry = threading.Event()
        self._stopping = False
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._orphans_at = 0.0

    def serve(self, outbox: Outbox) -> None:
        """Deliver from this process's own outbox from now on."""
        self._own = outbox
        self.start()

    def start(self) -> None:
        """Start the thread if it isn't running."""
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="spanledger-delivery", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down: `drain` and `stop` deliver on the caller's thread
                return
            self._thread = thread

    def release(self) -> None:
        """This process's own outbox is about to be closed."""
        with self._turn:
            self._own = None

    def wake(self, waiting: int) -> None:
        """There are records; a full batch of them doesn't wait for company."""
        if waiting >= self._batch_size:
            self._hurry.set()
        self._due.set()

    def drain(self, timeout: float) -> bool:
        """Deliver what is there now. True if every sink has taken everything within `timeout` seconds."""
        deadline = self._clock() + timeout
        if not self._turn.acquire(timeout=timeout):
            return False
        try:
            return self._round(deadline)
        finally:
            self._turn.release()

    def stop(self, timeout: float) -> bool:
        """Deliver what is there within `timeout` seconds, then end the thread. What is left waits in the outbox."""
        self._stopping = True
        self._hurry.set()
        self._due.set()
        done = self.drain(timeout)
        if self._thread is not None:
            self._thread.join(max(0.1, timeout))
        with self._turn:
            for outbox in self._adopted.values():
                outbox.close()
            self._adopted.clear()
            for sink in self._sinks:
                sink.close()
        return done

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(self._until_next())
            if self._due.is_set():
                self._hurry.wait(self._flush_interval)  # company for the first record
            self._due.clear()
            self._hurry.clear()
            if self._stopping:
                return
            with self._turn:
                try:
                    self._round(None)
                except Exception as error:  # noqa: BLE001  # the thread outlives a bad round
                    failures["a round of deliveries, which will be tried again"] += 1
                    noted("a round of deliveries, which will be tried again", error)

    def _until_next(self) -> float:
        now = self._clock()
        retries = [pace.not_before - now for pace in self._pace.values() if pace.attempts]
        return max(0.05, min([_ORPHANS_EVERY, *retries]))

    def _round(self, deadline: float | None) -> bool:
        self._adopt()
        done = True
        for outbox in [*([self._own] if self._own else []), *self._adopted.values()]:
            for sink in self._sinks:
                done = self._empty(outbox, sink, deadline) and done
        for path, outbox in list(self._adopted.items()):
            if not outbox.pending() or not set(outbox.sinks()) & {sink.name for sink in self._sinks}:
                del self._adopted[path]
                outbox.close()
        return done

    def _adopt(self) -> None:
        now = self._clock()
        if now < self._orphans_at or not self._directory.is_dir():
            return
        self._orphans_at = now + _ORPHANS_EVERY
        own = self._own.path if self._own else None
        for path in sorted(self._directory.glob("*.db")):
            if path == own or path in self._adopted:
                continue
            try:
                outbox = Outbox.adopt(path)
            except (OSError, sqlite3.Error) as error:
                log.warning("The outbox file %s can't be read (%s); it is left as it is.", path, error)
                continue
            if outbox is not None:
                log.info("Delivering %d records that a process which died left in %s.", outbox.pending(), path)
                self._adopted[path] = outbox

    def _empty(self, outbox: Outbox, sink: Sink, deadline: float | None) -> bool:
        pace = self._pace[sink.name]
        while True:
            now = self._clock()
            if (pace.attempts and now < pace.not_before) or (deadline is not None and now > deadline):
                return not outbox.waiting(sink.name, 1)
            entries = outbox.waiting(sink.name, self._batch_size)
            if not entries:
                return True
            entries = [Entry(entry.seq, self._complete(entry.row)) for entry in entries]
            try:
                self._send(outbox, sink, entries)
            except SinkError as error:
                if not pace.attempts:
                    log.warning(
                        "%s can't be delivered to (%s). Nothing is lost: records wait in the outbox for another try.",
                        sink.name,
                        error,
                    )
                pace.failed(error, self._clock())
                self._count(conventions.METRIC_FAILED, 1, {conventions.SINK: sink.name})
                return False
            if pace.attempts:
                log.warning("%s takes records again.", sink.name)
            pace.attempts = 0

    def _send(self, outbox: Outbox, sink: Sink, entries: Sequence[Entry]) -> None:
        """Send, splitting at what is refused for good. Raises `SinkError` where it may pass."""
        try:
            _hand_over(sink, entries)
        except SinkError as error:
            if error.taken:
                self._took(outbox, sink, entries[: error.taken])
            rest = entries[error.taken :]
            if not error.permanent or not rest:
                raise
            if len(rest) > 1:
                middle = len(rest) // 2
                self._send(outbox, sink, rest[:middle])
                self._send(outbox, sink, rest[middle:])
                return
            log.warning(
                "%s refuses record %s for good (%s); it is kept in the outbox as dead, the rest goes on.",
                sink.name,
                rest[0].row.get("record_id"),
                error,
            )
            outbox.bury(sink.name, rest[0].seq, str(error), compact_json(rest[0].row))
            outbox.taken(sink.name, rest[0].seq)
            self._count(conventions.METRIC_DEAD, 1, {conventions.SINK: sink.name})
        else:
            self._took(outbox, sink, entries)

    def _took(self, outbox: Outbox, sink: Sink, entries: Sequence[Entry]) -> None:
        outbox.taken(sink.name, entries[-1].seq)
        self._count(conventions.METRIC_SENT, len(entries), {conventions.SINK: sink.name})


def _hand_over(sink: Sink, entries: Sequence[Entry]) -> None:
    """`sink.send`, where an error the sink did not foresee is one that may pass."""
    try:
        sink.send([entry.row for entry in entries])
    except SinkError:
        raise
    except Exception as error:
        failures[f"a delivery to {sink.name}, which will be tried again"] += 1
        noted(f"a delivery to {sink.name}, which will be tried again", error)
        raise SinkError(type(error).__name__) from error
