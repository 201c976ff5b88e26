"""The thread that brings records to one sink, at that sink's own pace.

A failure that may pass is tried again for ever, with growing pauses, and holds up no other sink; a row that the sink
refuses for good is put aside with the reason, and the rest goes on.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanledger import conventions
from spanledger.guard import failures, log, noted
from spanledger.model import compact_json
from spanledger.recording.outbox import Entry, Outbox, is_damage
from spanledger.recording.sink import Poster, Sink, SinkError

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
_LONGEST_ASKED: Final = 86400.0
_TIDY_EVERY: Final = 3600.0
_LOOK_ROUND: Final = 30.0
"""Seconds after which an idle courier looks for files that others have left."""

ONLY: Final = "only_requests"
"""In a row that is tried again after some of its requests were refused: their numbers."""

Count = Callable[..., None]


class _UnnotedError(Exception):
    """Something was delivered, and the outbox can't be told so now."""


class Breaker:
    """Whether a sink may be tried. After a failure it is left alone for a while; then one batch tries it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.attempts = 0
        self.not_before = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the sink is to be left alone now."""
        return self.attempts > 0 and self._clock() < self.not_before

    def failed(self, error: SinkError) -> None:
        """Leave it alone: a random part of a ceiling that doubles (full jitter), at least as long as it asked for."""
        ceiling = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.attempts, 16))
        pause = random.uniform(0, ceiling)  # noqa: S311  # jitter, not a secret
        self.attempts += 1
        self.not_before = self._clock() + max(pause, min(error.retry_after or 0.0, _LONGEST_ASKED))

    def succeeded(self) -> bool:
        """Let everything through. Whether it was left alone before."""
        failing, self.attempts = self.attempts > 0, 0
        return failing


class Errand:
    """A round that somebody waits for."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.done = threading.Event()
        self.home = False
        """Whether the sink has taken everything."""


class Courier:
    """Delivers from outboxes to one sink.

    `outboxes()` gives the files to look at. `count(name, amount, attributes)` moves a counter of ours; `complete(row)`
    adds to a row what it could not have when it was written: its price.
    """

    def __init__(
        self,
        sink: Sink | Poster,
        outboxes: Callable[[], Sequence[Outbox]],
        *,
        batch_size: int,
        flush_interval: float,
        count: Count,
        complete: Callable[[dict[str, Any]], dict[str, Any]],
        clock: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        self.name = sink.name
        self.thread: threading.Thread | None = None
        self._sink = sink
        self._outboxes = outboxes
        self._batch_size = batch_size
        self._bulk = max(batch_size, getattr(sink, "bulk", 0))
        self._flush_interval = flush_interval
        self._count = count
        self._complete = complete
        self._clock = clock
        self._ended = ended
        self._breaker = Breaker(clock)
        self._errands: deque[Errand] = deque()
        self._due = threading.Event()
        self._hurry = threading.Event()
        self._stopping = False
        self._tidy_at = 0.0
        self._unnoted: dict[Outbox, Callable[[], None]] = {}
        """What was delivered from a file and could not be noted there: before anything else is sent, it is."""

    @property
    def lives(self) -> bool:
        """Whether its thread is running."""
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> bool:
        """Start the thread; whether one was. Where none can be, at the interpreter's end, errands run elsewhere."""
        if self.thread is not None or self._stopping:
            return False
        thread = threading.Thread(target=self._run, name=f"spanledger-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self.thread = thread
        return True

    def wake(self, waiting: int) -> None:
        """There are records; a full batch of them doesn't wait for company."""
        if waiting >= self._batch_size:
            self._hurry.set()
        self._due.set()

    def run(self, errand: Errand) -> None:
        """Do an errand as soon as possible, on the thread if there is one."""
        if self.lives:
            self._errands.append(errand)
            self._hurry.set()
            self._due.set()
        else:
            self._do([errand])

    def stop(self) -> None:
        """End the thread after the round it is at. The sink is closed then."""
        self._stopping = True
        self._hurry.set()
        self._due.set()
        if not self.lives:
            self._sink.close()

    def _run(self) -> None:
        while True:
            self._due.wait(self._until_next())
            if self._due.is_set():
                self._hurry.wait(self._flush_interval)  # company for the first record
            self._due.clear()
            self._hurry.clear()
            errands = [self._errands.popleft() for _ in range(len(self._errands))]
            if errands or not self._stopping:
                self._do(errands)
            if self._stopping and not self._errands:
                break
        try:
            self._sink.close()
        finally:
            self._ended()

    def _until_next(self) -> float:
        if self._stopping:
            return 0.0
        if self._unnoted:
            return _FIRST_PAUSE
        pause = self._breaker.not_before - self._clock() if self._breaker.attempts else _LOOK_ROUND
        return max(0.05, min(_LOOK_ROUND, pause))

    def _do(self, errands: Sequence[Errand]) -> None:
        deadline = max(each.deadline for each in errands) if errands else None
        home = False
        try:
            with suppress_instrumentation():  # a delivery is no span of the application's
                home = self._round(deadline)
        except Exception as error:  # noqa: BLE001  # the thread outlives a bad round
            failures["a round of deliveries, which will be tried again"] += 1
            noted("a round of deliveries, which will be tried again", error)
        for each in errands:
            each.home = home
            each.done.set()
        self._tidy()

    def _tidy(self) -> None:
        """Now and then, let the sink clear up."""
        tidy = getattr(self._sink, "tidy", None)
        if tidy is None or self._stopping or self._clock() < self._tidy_at:
            return
        self._tidy_at = self._clock() + _TIDY_EVERY
        try:
            tidy()
        except Exception as error:  # noqa: BLE001  # the thread outlives it
            log.warning("%s can't be tidied up (%s); it will be tried again.", self.name, error)

    def _round(self, deadline: float | None) -> bool:
        home = True
        self._unnoted = {outbox: note for outbox, note in self._unnoted.items() if not outbox.closed}
        for outbox in self._outboxes():
            try:
                home = self._empty(outbox, deadline) and home
            except Exception as error:
                if is_damage(error):
                    log.error(
                        "The outbox file %s is damaged (%s); what can be read of it is saved.", outbox.path, error
                    )
                    outbox.abandon()
                elif not outbox.closed:
                    raise
                home = False
        return home

    def _empty(self, outbox: Outbox, deadline: float | None) -> bool:
        if not self._noted(outbox):
            return False
        while True:
            if self._breaker.is_open or self._is_late(deadline):
                return not outbox.waiting(self.name, 1)
            found = outbox.waiting(self.name, self._bulk)
            if not found:
                return True
            entries = [self._completed(entry) for entry in found]
            try:
                self._deliver(outbox, entries, deadline)
            except SinkError as error:
                self._failed(outbox, error)
                return False
            except _UnnotedError:
                return False

    def _note(self, outbox: Outbox, note: Callable[[], None]) -> None:
        """Note in the file what was delivered. Raises `_UnnotedError` where that can't be done, as on a full disk."""
        self._unnoted[outbox] = note
        if not self._noted(outbox):
            raise _UnnotedError

    def _noted(self, outbox: Outbox) -> bool:
        note = self._unnoted.get(outbox)
        if note is not None:
            try:
                note()
            except sqlite3.OperationalError:
                return False
            del self._unnoted[outbox]
        return True

    def _is_late(self, deadline: float | None) -> bool:
        """Whether this round is to end here: its time is up, or somebody is waiting for another one."""
        if deadline is None:
            return self._stopping or bool(self._errands)
        return self._clock() > deadline

    def _completed(self, entry: Entry) -> Entry:
        try:
            return Entry(entry.seq, self._complete(entry.row))
        except Exception as error:  # noqa: BLE001  # a row that we can't complete must not hold up the others
            failures["the completion of a row, which is delivered without"] += 1
            noted("the completion of a row, which is delivered without", error)
            return entry

    def _failed(self, outbox: Outbox, error: SinkError) -> None:
        if not self._breaker.attempts:
            log.warning(
                "%s can't be delivered to (%s). Nothing is lost: records wait in the outbox for another try.",
                self.name,
                error,
            )
        self._breaker.failed(error)
        self._count(conventions.METRIC_FAILED, 1, {conventions.SINK: self.name})
        with suppress(sqlite3.OperationalError):  # a full disk: it is for those who look from outside
            outbox.failed(self.name, str(error))

    def _deliver(self, outbox: Outbox, entries: Sequence[Entry], deadline: float | None) -> None:
        """Send. Raises `SinkError` where it may pass."""
        if hasattr(self._sink, "post"):
            self._post(outbox, entries, deadline)
            return
        cursor = outbox.cursor(self.name)
        if not getattr(self._sink, "idempotent", False) and cursor.leased <= cursor.seq:
            outbox.lease(self.name, entries[-1].seq)
        self._send(outbox, entries)

    def _send(self, outbox: Outbox, entries: Sequence[Entry]) -> None:
        """Send, splitting at what is refused for good."""
        try:
            self._try(lambda sink: sink.send([entry.row for entry in entries]))
        except SinkError as error:
            if not error.permanent:
                raise
            if len(entries) > 1:
                middle = len(entries) // 2
                self._send(outbox, entries[:middle])
                self._send(outbox, entries[middle:])
                return
            self._bury(outbox, entries[0], [str(error)])
            self._took(outbox, entries[0].seq, 0)
        else:
            self._took(outbox, entries[-1].seq, len(entries))

    def _post(self, outbox: Outbox, entries: Sequence[Entry], deadline: float | None) -> None:
        """Send one request after the other; after a failure the next attempt goes on where this one ended."""
        accepted = outbox.cursor(self.name).parts
        for entry in entries:
            refusals: dict[int, str] = {}
            wanted = entry.row.get(ONLY)
            try:
                parts = list(cast("Poster", self._sink).parts(entry.row))
            except Exception as error:  # noqa: BLE001  # it is the row: nothing was sent yet
                parts, refusals = [], {0: f"{type(error).__name__}: it can't be told to this receiver"}
            for number in range(accepted, len(parts)):
                if self._is_late(deadline):
                    return
                if wanted is not None and number not in wanted:
                    continue
                try:
                    self._try(partial(_post, part=parts[number], key=f"{entry.row['record_id']}-{number}"))
                except SinkError as error:
                    if not error.permanent:
                        raise
                    refusals[number] = f"request {number + 1} of {len(parts)}: {error}"
                    self._bury(outbox, entry, list(refusals.values()), only=list(refusals))
                else:
                    self._through()
                self._note(outbox, partial(outbox.part_taken, self.name, number + 1))
            if refusals and not parts:
                self._bury(outbox, entry, list(refusals.values()))
            accepted = 0
            self._took(outbox, entry.seq, 0 if refusals else 1, synced=entry is entries[-1])

    def _try(self, attempt: Callable[[Any], Any]) -> Any:
        """What the sink answers, where an error that it did not foresee is one that may pass."""
        try:
            return attempt(self._sink)
        except SinkError:
            raise
        except Exception as error:
            failures[f"a delivery to {self.name}, which will be tried again"] += 1
            noted(f"a delivery to {self.name}, which will be tried again", error)
            raise SinkError(type(error).__name__) from error

    def _through(self) -> None:
        if self._breaker.succeeded():
            log.warning("%s takes records again.", self.name)

    def _took(self, outbox: Outbox, seq: int, number: int, *, synced: bool = True) -> None:
        def note() -> None:
            outbox.taken(self.name, seq, synced=synced)
            if number:
                self._through()
                self._count(conventions.METRIC_SENT, number, {conventions.SINK: self.name})

        self._note(outbox, note)

    def _bury(self, outbox: Outbox, entry: Entry, reasons: Sequence[str], only: Sequence[int] | None = None) -> None:
        """Put a row aside, for the last of these reasons. It is one dead row, however many reasons there are.

        `only`: the requests that were refused, if others were not.
        """
        log.warning(
            "%s refuses record %s for good (%s); it is kept in the outbox as dead, the rest goes on."
            " 'spanledger outbox dead' shows it.",
            self.name,
            entry.row.get("record_id"),
            reasons[-1],
        )
        known = {name: value for name, value in {**entry.row, ONLY: only}.items() if value is not None}
        outbox.bury(self.name, entry.seq, reasons[-1], compact_json(known))
        if len(reasons) == 1:
            self._count(conventions.METRIC_DEAD, 1, {conventions.SINK: self.name})


def _post(sink: Poster, *, part: Any, key: str) -> None:
    sink.post(part, key)
