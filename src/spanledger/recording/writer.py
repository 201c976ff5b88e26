"""The thread that commits records: whatever is queued goes into the outbox at once (natural group commit)."""

from __future__ import annotations

import errno
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from spanledger import conventions
from spanledger.guard import failures, log, noted
from spanledger.model import UsageRecord, row_of
from spanledger.recording.bracket import Bracket
from spanledger.recording.losses import Losses
from spanledger.recording.reported import HELD
from spanledger.recording.settling import Settling
from spanledger.recording.telling import Rank, Telling

if TYPE_CHECKING:
    from spanledger.recording.delivery import Delivery
    from spanledger.recording.meters import Meters
    from spanledger.recording.outbox import Draft, Outbox

MOST_QUEUED: Final = 100_000
MOST_KEPT_IN_MEMORY: Final = 10_000
_BATCH: Final = 1000
EXIT_WAIT: Final = 2.0
_RETRY: Final = 1.0
_OBSERVE_WAIT: Final = 1.0
_HELD_NS: Final = round(HELD * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recorder is made of; everything is made again in a forked child."""

    outbox: Callable[[], Outbox] | None
    """Makes this process's outbox file; `None` where nothing is delivered."""
    delivery: Callable[[Callable[..., None]], Delivery]
    meters: Callable[[Callable[[], int]], Meters]
    finish: Callable[[UsageRecord], UsageRecord]
    """Completes a record off the caller's thread: service, environment, and its price if that can be told at once."""
    price: Callable[[UsageRecord], UsageRecord]
    """The record with its price, waiting for the price list if need be."""
    priced: Callable[[], bool]
    """Whether prices can be told at once."""
    others: Callable[[], bool]
    """Whether somebody else tells of model calls in this process, so that ours wait for them."""
    sync: bool
    losses: Losses
    keeps_every: int = 1
    """Of how many calls one is kept, with that weight. All are counted."""


class Item(NamedTuple):
    """Something for the writer: a record to build, or nothing but somebody who waits."""

    build: Callable[[], UsageRecord | Telling | Bracket | None] | None
    settles: bool
    """Of a record: whether it is final. Of nothing: whether all that is open becomes final now."""
    done: threading.Event | None
    held: bool = False
    """Of nothing: whether what waits for a report becomes final, too."""


class Writer:
    """Commits records on a thread of its own, in one process. A forked child makes another one."""

    def __init__(self, plan: Plan, meters: Callable[[], Meters]) -> None:
        self.committed = 0
        self._plan = plan
        self._make_meters = meters
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._local = threading.local()
        self._stopped = False
        self._outbox: Outbox | None = None
        self._unwritten: list[Draft] = []
        self._settling = Settling(plan.others, time.monotonic)
        self._to_settle: list[str] = []
        """Ids of final records whose rows do not say so yet."""
        self._unpriced: list[UsageRecord] = []
        """Final records that are counted once the price list is there."""
        self._meters: Meters | None = None
        self._delivery: Delivery | None = None
        self._full = False
        self._failing = False
        self._trouble = "outbox_unavailable"
        """Why what is lost while the outbox can't be written is lost."""

    @property
    def here(self) -> bool:
        """Whether this thread is committing right now: what it records itself it commits next."""
        return getattr(self._local, "taking", False)

    def put(self, item: Item) -> None:
        """Queue an item. Never waits; a garbage collection may call it, whatever this thread is in the middle of."""
        if self._queue.qsize() >= MOST_QUEUED:
            self._lose("queue_full", 1)
            if item.done:
                item.done.set()
            return
        self._queue.put(item)
        if self._thread is None:
            self._start()
        if self._stopped and not self.here:  # nobody is left to take it, but perhaps whoever is at the end of it all
            self._take_all(wait=0)

    def flush(self, timeout: float, sinks: Sequence[str] = (), *, held: bool = True) -> bool:
        """Commit and deliver what was queued before, to all sinks or to these; `held`: what waits for a report, too."""
        deadline = time.monotonic() + timeout
        if self._thread is None and self._plan.outbox is None:
            return True
        if self._stopped:  # what a span exporter hands over while the process ends
            self._take_all(wait=timeout)
            home = self._delivery is None or self._delivery.drain(timeout, sinks)
            self._close()
            return home
        for _ in range(2):  # what `later` left to do makes records of its own: those are what the second turn waits for
            done = threading.Event()
            self.put(Item(None, settles=True, done=done, held=held))
            if not done.wait(max(0.0, deadline - time.monotonic())):
                return False
        if self._failing:
            return False
        return self._delivery is None or self._delivery.drain(max(0.0, deadline - time.monotonic()), sinks)

    def commit(self, timeout: float) -> bool:
        """Commit what was queued before."""
        if self._thread is None:
            return True
        if self._stopped:  # a signal in the middle of an exit
            if self._thread.is_alive():
                self._thread.join(timeout)
            if self.here or self._thread.is_alive():
                return False
            return self._take_all(wait=timeout) and not self._unwritten
        done = threading.Event()
        self._queue.put(Item(None, settles=True, done=done, held=True))
        return done.wait(timeout)

    def stop(self, timeout: float) -> bool:
        """Commit everything, deliver what goes within the time, end the thread."""
        deadline = time.monotonic() + timeout
        if self._thread is None:
            return True
        self._stopped = True
        self._queue.put(Item(None, settles=True, done=None, held=True))
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._take_all(wait=max(0.5, deadline - time.monotonic()))
        done = self._delivery is None or self._delivery.stop(max(0.1, deadline - time.monotonic()))
        self._close()
        lost, self._unwritten = sum(not draft.replaces for draft in self._unwritten), []
        self._lose(self._trouble, lost)
        return done and not lost

    def _close(self) -> None:
        free = self._delivery is None or self._delivery.release()
        outbox, self._outbox = self._outbox, None  # first: a signal may come in the middle of the closing
        if outbox is not None and free:
            outbox.close()

    def forget(self) -> None:
        """In a forked child: the threads, the queue, the file and every connection are the parent's."""
        self._stopped = True
        inherited.append(self)
        if self._outbox is not None:
            self._outbox.forget()

    def _start(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # whoever holds it starts the thread, which takes what is queued
        try:
            if self._thread is not None:
                return
            # Whatever our threads need is imported here, by the caller: a fork in the middle of an import on another
            # thread leaves the child with half a module.
            self._meters = self._make_meters()
            self._delivery = self._plan.delivery(self._meters.count) if self._plan.outbox is not None else None
            thread = threading.Thread(target=self._run, name="spanledger-writer", daemon=True)
            _drain_with_multiprocessing(self)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # no thread can be started at interpreter exit: the caller's thread does the work
                self._stopped = True
        finally:
            self._lock.release()

    def _run(self) -> None:
        while not self._stopped:
            try:
                first = self._queue.get(timeout=self._until_next())
            except queue.Empty:
                first = None
            self._take(first)
            first = None  # an idle thread holds nothing

    def _until_next(self) -> float | None:
        due = self._settling.next_due
        waits = [_RETRY] if self._unwritten or self._to_settle else []
        if due is not None:
            waits.append(max(0.0, due - time.monotonic()))
        return min(waits) if waits else None

    def _take_all(self, wait: float) -> bool:
        """Commit what is queued. False if somebody else is at it and does not come to an end within `wait` seconds."""
        while self._take(Item(None, settles=True, done=None, held=True), wait):
            if self._queue.empty():
                return True
        return False

    def _take(self, first: Item | None, wait: float = -1) -> bool:
        self._local.taking = True  # before the lock: a collection that runs in between must not wait for it
        try:
            if not self._writing.acquire(timeout=wait):
                return False
            try:
                items = [first] if first is not None else []
                while len(items) < _BATCH:
                    try:
                        items.append(self._queue.get_nowait())
                    except queue.Empty:
                        break
                self._commit(items)
            finally:
                self._writing.release()
        finally:
            self._local.taking = False
        return True

    def _commit(self, items: list[Item]) -> None:
        for item in items:
            try:
                told = item.build() if item.build is not None else None
                if isinstance(told, Bracket):
                    self._settling.release(told)
                elif told is not None:
                    self._admit(told if isinstance(told, Telling) else Telling(told, final=item.settles))
            except Exception as error:  # noqa: BLE001  # one bad record must not take the others along
                self._lose("unbuildable", 1)
                failures["a record"] += 1
                noted("a record", error)
        waited_for = any(item.build is None for item in items)
        final = self._settling.due(
            all_of_them=any(item.build is None and item.settles for item in items),
            held=any(item.build is None and item.held for item in items),
        )
        self._to_settle += [record.record_id for record in final]
        try:
            self._write()
            if (self._to_settle or waited_for) and self._outbox is not None:
                self._outbox.settle(self._to_settle)
                self._to_settle = []
                if self._delivery is not None:
                    self._delivery.wake(len(final))
            self._failing = False
        except Exception as error:  # noqa: BLE001  # whatever it is, the thread goes on and tries again
            self._failing = True
            self._outbox_unavailable(error)
        self._unpriced.extend(final)
        if self._unpriced and (self._plan.priced() or waited_for):
            records, self._unpriced = self._unpriced, []
            for record in records:
                self._settle(record)
        for item in items:
            if item.done is not None:
                item.done.set()

    def _admit(self, telling: Telling) -> None:
        """Take in what a teller says: a new record, another form of one that is not final yet, or nothing."""
        from spanledger.recording.outbox import Draft  # noqa: PLC0415  # with the first record

        outcome = self._settling.admit(telling)
        if self._meters is not None and (telling.rank < Rank.OURS or outcome.name == "late"):
            name = conventions.METRIC_REPORTS if telling.rank is Rank.MANUAL else conventions.METRIC_SPANS
            self._meters.count(name, 1, {conventions.OUTCOME: outcome.name})
        if outcome.dropped and outcome.record is None:
            self._unwritten.append(Draft("", "", replaces=("", *outcome.dropped)))
        if outcome.record is None:
            return
        try:
            record = self._plan.finish(outcome.record)
            if self._plan.keeps_every > 1:
                record = replace(record, weight=self._plan.keeps_every)
            is_open = outcome.call is not None
            replaces = (record.record_id, *outcome.dropped) if outcome.before is not None else ()
            settle_at = time.time_ns() + _HELD_NS if is_open else 0
            draft = Draft.of(row_of(record), settle_at, replaces)
        except Exception:
            self._settling.abandon(outcome)
            raise
        self._settling.completed(outcome, record)
        if replaces or self._is_kept(record):
            self._unwritten.append(draft)
        if telling.final and not is_open:
            self._unpriced.append(record)

    def _is_kept(self, record: UsageRecord) -> bool:
        every = self._plan.keeps_every
        return every == 1 or crc32(record.record_id.encode()) % every == 0

    def _write(self) -> None:
        if self._plan.outbox is None:
            self._unwritten.clear()
            return
        if not self._unwritten:
            return
        written, self._unwritten = self._unwritten, []
        try:
            while written:
                self._append(written)
        finally:
            self._unwritten = written
        self._plan.losses.say()

    def _append(self, written: list[Draft]) -> None:
        """Commit the first of them, and take from the list what is committed or refused."""
        from spanledger.recording.outbox import OutboxFullError, is_damage  # noqa: PLC0415  # with the first record

        drafts = written[:_BATCH]
        try:
            self._open_outbox().append(drafts)
        except OutboxFullError:
            self._append_what_fits(written, len(drafts))
            return
        except Exception as error:
            if not is_damage(error) or self._outbox is None:
                raise
            log.error("The outbox file %s is damaged (%s); records go to a new one.", self._outbox.path, error)
            self._outbox.abandon()
            self._open_outbox().append(drafts)
        self._full = False
        self._committed(written, len(drafts))

    def _append_what_fits(self, written: list[Draft], number: int) -> None:
        """Commit so many one after the other; from the first that finds the outbox full on they are refused."""
        from spanledger.recording.outbox import OutboxFullError  # noqa: PLC0415  # with the first record

        for left in range(number, 0, -1):
            try:
                self._open_outbox().append(written[:1])
            except OutboxFullError:
                self._lose("outbox_full", sum(not each.replaces for each in written[:left]))
                del written[:left]
                if not self._full:
                    log.error("The outbox is full: new records are refused and counted until a sink takes some.")
                self._full = True
                return
            self._committed(written, 1)

    def _committed(self, written: list[Draft], number: int) -> None:
        count = sum(not draft.replaces for draft in written[:number])
        del written[:number]
        self.committed += count
        if self._delivery is not None:
            self._delivery.wake(count)

    def _open_outbox(self) -> Outbox:
        """This process's outbox, a new one where there is none or the last one was damaged."""
        if self._outbox is None or self._outbox.closed:
            assert self._plan.outbox is not None  # noqa: S101  # `_write` asks before
            self._outbox = self._plan.outbox()
            if self._delivery is not None:
                self._delivery.serve(self._outbox)
        return self._outbox

    def _outbox_unavailable(self, error: Exception) -> None:
        surplus = len(self._unwritten) - MOST_KEPT_IN_MEMORY
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        self._trouble = "disk_full" if full else "outbox_unavailable"
        if not failures["the outbox"]:
            log.error(
                "The outbox can't be written (%s: %s). Calls go on; up to %d records wait in memory for another try.",
                type(error).__name__,
                error,
                MOST_KEPT_IN_MEMORY,
            )
        failures["the outbox"] += 1
        if surplus > 0:
            del self._unwritten[MOST_KEPT_IN_MEMORY:]
            self._lose(self._trouble, surplus)

    def _settle(self, record: UsageRecord) -> None:
        try:
            if self._meters is not None:
                self._meters.settled(record if record.cost is not None else self._plan.price(record))
        except Exception as error:  # noqa: BLE001  # a metric must not take the record along
            failures["a metric point"] += 1
            noted("a metric point", error)

    def _lose(self, reason: str, count: int) -> None:
        if count:
            if self._meters is not None:
                self._meters.count(conventions.METRIC_LOST, count, {conventions.REASON: reason})
            self._plan.losses.add(reason, count)

    def trouble(self, sink: str) -> str | None:
        """Why a sink has not taken what is waiting for it in this process's outbox, "" if nothing was tried yet."""
        outbox = self._outbox
        return None if outbox is None or not outbox.waiting(sink, 1) else outbox.cursor(sink).reason or ""

    def refused(self, sink: str, record_id: str) -> str | None:
        """Why a sink will never take a record."""
        return None if self._outbox is None else self._outbox.refused(sink, record_id)

    def observe(self) -> int:
        """Commit what was queued before, then the number of records waiting."""
        if self._thread is not None and not self.here and not self._stopped:
            done = threading.Event()
            self._queue.put(Item(None, settles=False, done=done))
            done.wait(_OBSERVE_WAIT)
        outbox = self._outbox
        return outbox.pending() if outbox is not None else 0


inherited: list[Writer] = []
"""Writers of a parent process, kept for ever: SQLite and PostgreSQL forbid closing their connections here."""


def _drain_with_multiprocessing(process: Writer) -> None:
    """Children of multiprocessing leave by `os._exit`, past atexit; they do run multiprocessing's own finalizers.

    So do those of billiard, Celery's edition of it.
    """
    for name in ("multiprocessing.util", "billiard.util"):
        util = sys.modules.get(name)
        if util is not None:
            util.Finalize(None, process.stop, args=(EXIT_WAIT,), exitpriority=100)
