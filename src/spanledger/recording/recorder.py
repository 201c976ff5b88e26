"""The junction: takes finished calls from any thread and hands them to the writer.

The caller hands over a function that builds the record, and goes on; that costs a queue's `put`.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from spanledger.context.scope import forget_scopes
from spanledger.guard import failed, log
from spanledger.model import UsageRecord
from spanledger.recording.bracket import Bracket
from spanledger.recording.files import forget_leases
from spanledger.recording.forking import in_sqlite
from spanledger.recording.leaving import commit_on_sigterm, leave_late
from spanledger.recording.telling import Telling
from spanledger.recording.writer import EXIT_WAIT, Item, Plan, Writer

if TYPE_CHECKING:
    from spanledger.recording.meters import Meters

_SYNC_WAIT: Final = 10.0
_SIGNAL_WAIT: Final = 5.0
"""Half of what the most impatient supervisor, Docker, leaves a process. It takes milliseconds on a healthy disk."""


class Recorder:
    """Takes records. Threads start with the first one; a process that records nothing pays nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._meters: Meters | None = None
        self._writer = Writer(plan, self._make_meters)
        self._closed = False
        self._successor: Recorder | None = None
        self.before_exit: Callable[[], None] = _nothing
        """Ends what is still open, so that it is recorded too."""
        self.in_child: Callable[[], None] = _nothing
        """Forgets what is still open: in a forked child it is the parent's."""
        atexit.register(self.shutdown, EXIT_WAIT)
        _register(self)

    @property
    def committed(self) -> int:
        """Records this process has committed to its outbox."""
        return self._writer.committed

    def record(self, build: Callable[[], UsageRecord | Telling | Bracket | None], *, settles: bool = True) -> None:
        """Keep the record that `build` makes, or what it says that somebody else tells of a call. Never raises.

        A bracket that it gives has ended.
        `build` runs on the writer's thread.

        With durability `sync` it returns after the commit, except on a thread that is committing already.
        `settles=False`: the record is not final, no metric moves.
        """
        if self._successor is not None:
            self._successor.record(build, settles=settles)
            return
        done = threading.Event() if self._plan.sync and not self._writer.here else None
        self._put(Item(build, settles, done))
        if done is not None and not done.wait(_SYNC_WAIT):
            log.warning("A record was not committed within %.0f s; it stays queued.", _SYNC_WAIT)

    def later(self, finish: Callable[[], Any]) -> None:
        """Run `finish` on the writer's thread: for a stream that the garbage collector finds. Never raises."""

        def run() -> None:
            finish()

        if self._successor is not None:
            self._successor.later(finish)
            return
        self._put(Item(run, settles=False, done=None))

    def count(self, name: str, attributes: Mapping[str, str]) -> None:
        """Move one of our counters by one, on the writer's thread. Never raises."""
        self.later(lambda: self._make_meters().count(name, 1, attributes))

    def flush(self, timeout: float = 10.0, sinks: Sequence[str] = (), *, held: bool = True) -> bool:
        """Commit and deliver what was recorded before, to all sinks or to these.

        `held`: also what waits for a report in a block that is open. True if it is there within `timeout` seconds.
        Never raises.
        """
        try:
            return self._writer.flush(timeout, sinks, held=held)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a flush", error)
            return False

    def commit(self, timeout: float = _SIGNAL_WAIT) -> bool:
        """Bring what was recorded before to the disk, and no further. True if it is there in time. Never raises."""
        try:
            return self._writer.commit(timeout)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a commit", error)
            return False

    def shutdown(self, timeout: float = EXIT_WAIT) -> bool:
        """Commit everything, deliver what goes within `timeout` seconds, end the threads. Never raises."""
        if self._closed:
            return True
        self._closed = True
        atexit.unregister(self.shutdown)
        try:
            self.before_exit()
            return self._writer.stop(timeout)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a shutdown", error)
            return False

    def trouble(self, sink: str) -> str | None:
        """Why a sink has not taken what waits for it, "" if nothing was tried, `None` if nothing waits.

        Never raises.
        """
        try:
            return self._writer.trouble(sink)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a look at the outbox", error)
            return None

    def refused(self, sink: str, record_id: str) -> str | None:
        """Why a sink will never take a record, `None` where it may. Never raises."""
        try:
            return self._writer.refused(sink, record_id)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a look at the outbox", error)
            return None

    def hand_over(self, successor: Recorder) -> None:
        """End; what comes late, of streams and blocks that are open, goes to another recorder. Never raises."""
        self.before_exit, self._successor = _nothing, successor
        self.shutdown()

    def prepare(self) -> None:
        """Make the metrics now: for those whose first record may come when the metrics' provider is gone already."""
        self._make_meters()

    def restart_after_fork(self) -> None:
        """In a child: what is queued, open or on the disk belongs to the parent."""
        self.in_child()
        self._writer.forget()
        self._plan.losses.forget()
        if self._meters is not None:
            self._meters.forget()
        self._writer = Writer(self._plan, self._make_meters)

    def _make_meters(self) -> Meters:
        if self._meters is None:  # once, also over forks: the SDK takes care of its own instruments there
            self._meters = self._plan.meters(self._observe)
        return self._meters

    def _observe(self) -> int:
        """Pending records. Metrics are being collected: what was recorded before must be in them."""
        return self._writer.observe()

    def _put(self, item: Item) -> None:
        try:
            self._writer.put(item)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a record", error)


def _nothing() -> None:
    """For those who have nothing open."""


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _register(recorder: Recorder) -> None:
    if not _at_fork:
        os.register_at_fork(
            before=in_sqlite.before_fork, after_in_parent=in_sqlite.after_fork, after_in_child=_after_fork
        )
        leave_late(_shut_down_all)
        _at_fork.append(True)
    _recorders.add(recorder)
    commit_on_sigterm(_commit_all)


_at_fork: Final[list[bool]] = []
"""Whether forks are watched."""


def _shut_down_all() -> None:
    for recorder in list(_recorders):
        recorder.shutdown()


def _commit_all() -> None:
    for recorder in list(_recorders):
        recorder.commit()


def _after_fork() -> None:
    in_sqlite.reopen()
    forget_scopes()
    forget_leases()
    for recorder in list(_recorders):
        recorder.restart_after_fork()
