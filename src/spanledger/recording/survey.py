"""A look at the outbox files from outside, and what may be done with rows that a sink refused for good."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spanledger.recording.files import Lease
from spanledger.recording.outbox import DAMAGED, Outbox, Saved, document_in

_BODIES: Final = "SELECT body FROM records UNION ALL SELECT body FROM dead"
_DEAD: Final = "SELECT seq, sink, reason, died_at, body FROM dead ORDER BY died_at"


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a sink stands with a file."""

    sink: str
    pending: int
    leased: int
    """Of these, how many are in a batch that was sent and not answered."""
    attempts: int
    """Failed attempts since the last success."""
    reason: str | None
    """What the last one failed of."""
    dead: int
    """Rows it refused for good."""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What a look from outside says of an outbox file."""

    path: Path
    owner_alive: bool
    pending: int
    dead: int
    reasons: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """A row that a sink refused for good."""

    path: Path
    seq: int
    sink: str
    reason: str
    died_at_ns: int
    body: str


def survey(directory: Path) -> list[OutboxState]:
    """Look at every outbox file without changing one. Raises `OSError`."""
    states = []
    for path in sorted(directory.glob("*.db")) if directory.is_dir() else []:
        lease = Lease(path.with_suffix(".lock"))
        alive = not lease.acquire()
        if not alive:
            lease.release()
        try:
            states.append(_look(path, alive=alive))
        except FileNotFoundError:  # delivered and gone meanwhile
            continue
        except sqlite3.Error as error:
            if path.exists():
                states.append(OutboxState(path, alive, 0, 0, unreadable=str(error)))
    return states


def quarantined(directory: Path) -> list[Path]:
    """Damaged files that were put aside."""
    found = directory.glob("*.db.corrupt-*") if directory.is_dir() else []
    return sorted(path for path in found if not path.name.endswith(("-wal", "-shm")))


def dead(directory: Path, sink: str | None = None) -> Iterator[Dead]:
    """The rows that sinks, or this one, refused for good, by file and time. Raises `sqlite3.Error`."""
    for path in sorted(directory.glob("*.db")) if directory.is_dir() else []:
        with closing(_open(path)) as connection:
            for row in connection.execute(_DEAD) if _has_tables(connection) else []:
                if sink in (None, row[1]):
                    yield Dead(path, *row)


def revive(directory: Path, sink: str | None = None) -> int:
    """Let dead rows be tried again; how many. Those of living processes and damaged ones are left alone.

    Each goes into a new file that is meant for its sink alone. Raises `OSError`, `sqlite3.Error`.
    """
    revived = 0
    for path in sorted({each.path for each in dead(directory, sink)}):
        outbox = Outbox.adopt(path)
        if outbox is None:
            continue
        try:
            rows = [each for each in dead(directory, sink) if each.path == path and DAMAGED not in each.reason]
            for name in sorted({each.sink for each in rows}):
                revived += _revive(outbox, directory, [each for each in rows if each.sink == name])
        finally:
            outbox.close()
    return revived


def _revive(outbox: Outbox, directory: Path, rows: list[Dead]) -> int:
    saved = Saved.of({rows[0].sink: 0}, [each.body for each in rows])
    Outbox.of_saved(directory, saved).close()
    outbox.exhume(rows[0].sink, [each.seq for each in rows])
    return len(rows)


def erase(directory: Path, user_ids: Sequence[str], personal: Sequence[str]) -> tuple[int, int]:
    """Take these columns from the waiting and the dead rows of these users.

    How many rows that was, and how many more wait in the files of living processes. Raises `OSError`, `sqlite3.Error`.
    """
    erased = elsewhere = 0
    for path in sorted(directory.glob("*.db")) if directory.is_dir() else []:
        outbox = Outbox.adopt(path)
        if outbox is not None:
            try:
                erased += outbox.rewrite(lambda row: _without(row, user_ids, personal))
            finally:
                outbox.close()
        elif path.exists():
            with closing(_open(path)) as connection:
                bodies = connection.execute(_BODIES) if _has_tables(connection) else []
                elsewhere += sum(document_in(body).get("user_id") in user_ids for (body,) in bodies)
    return erased, elsewhere


def _without(row: dict[str, Any], user_ids: Sequence[str], personal: Sequence[str]) -> dict[str, Any] | None:
    if row.get("user_id") not in user_ids:
        return None
    return {name: value for name, value in row.items() if name not in personal}


def _look(path: Path, *, alive: bool) -> OutboxState:
    with closing(_open(path)) as connection:
        if not _has_tables(connection):
            return OutboxState(path, alive, 0, 0)
        (pending,) = connection.execute("SELECT count(*) FROM records").fetchone()
        (buried,) = connection.execute("SELECT count(*) FROM dead").fetchone()
        reasons = connection.execute("SELECT DISTINCT sink || ': ' || reason FROM dead LIMIT 5").fetchall()
        return OutboxState(
            path, alive, pending, buried, tuple(text for (text,) in reasons), tuple(_waiting(connection))
        )


def _waiting(connection: sqlite3.Connection) -> Iterator[Waiting]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    progress = "leased, attempts, reason" if version > 1 else "0, 0, NULL"
    for sink, seq, leased, attempts, reason in connection.execute(f"SELECT sink, seq, {progress} FROM cursors"):
        (pending,) = connection.execute("SELECT count(*) FROM records WHERE seq > ?", (seq,)).fetchone()
        (sent,) = connection.execute(
            "SELECT count(*) FROM records WHERE seq > ? AND seq <= ?", (seq, leased)
        ).fetchone()
        (buried,) = connection.execute("SELECT count(*) FROM dead WHERE sink = ?", (sink,)).fetchone()
        yield Waiting(sink, pending, sent, attempts, reason, buried)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)


def _has_tables(connection: sqlite3.Connection) -> bool:
    found: Any = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'cursors'").fetchone()
    return bool(found[0])
