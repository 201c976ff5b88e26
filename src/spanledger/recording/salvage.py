"""Saves what can be read of a damaged outbox file. The file itself is kept, under another name."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from spanledger.recording.files import Lease, private_file
from spanledger.recording.outbox import Outbox, Saved

_PAGE: Final = 4096
_GAP: Final = 1000
"""So many numbers without a row after the last one known: there are no more."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved of a damaged file."""

    kept_as: Path
    saved: int
    damaged: int
    """Rows that were there and can't be read."""


def salvage(path: Path, sinks: Iterable[str]) -> Salvage | None:
    """Move the readable rows of a damaged file into a new one, which anybody may adopt. `None` if others are at it.

    Where it can't be read what the file was meant for, it was meant for `sinks`.
    Raises `OSError`, `sqlite3.Error`. Whenever it is interrupted, the rows are in one of the two files or in both.
    """
    lease = Lease(path.with_suffix(".lock"))
    if not lease.acquire():
        return None
    try:
        if not path.exists():
            return None
        saved = _read(path)
        if not saved.cursors:
            saved = replace(saved, cursors=dict.fromkeys(sinks, 0))
        if saved.rows or saved.dead:
            Outbox.of_saved(path.parent, saved).close()
        return Salvage(_set_aside(path), len(saved.rows), saved.damaged)
    finally:
        lease.release(remove=True)


def _set_aside(path: Path) -> Path:
    moved = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        Path(f"{path}-wal").rename(f"{moved}-wal")
    path.rename(moved)
    return moved


def _read(path: Path) -> Saved:
    """What can be read; if that is nothing, what can be read with another first page: it is the same in all files."""
    saved = _read_rows(path)
    if saved.rows:
        return saved
    copy = path.with_name(f"{path.name}.salvage")
    try:
        private_file(copy)
        copy.write_bytes(_first_page(path.parent) + path.read_bytes()[_PAGE:])
        with suppress(FileNotFoundError):
            wal = Path(f"{path}-wal").read_bytes()
            private_file(Path(f"{copy}-wal"))
            Path(f"{copy}-wal").write_bytes(wal)
        return _read_rows(copy)
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _first_page(directory: Path) -> bytes:
    fresh = Outbox.create(directory, (), full_sync=False, max_bytes=2**20)
    try:
        fresh.checkpoint()
        return fresh.path.read_bytes()[:_PAGE]
    finally:
        fresh.close()


def _read_rows(path: Path) -> Saved:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        cursors: dict[str, int] = dict(_readable(connection, "SELECT sink, seq FROM cursors"))
        dead = list(_readable(connection, "SELECT seq, sink, reason, died_at, body FROM dead"))
        number = min(cursors.values(), default=0) + 1
        rows, damaged = [], 0
        last: int = max((seq for (seq,) in _readable(connection, "SELECT seq FROM sqlite_sequence")), default=0)
        while number <= last + _GAP:
            try:
                row = connection.execute("SELECT seq, record_id, crc, body FROM records WHERE seq = ?", (number,))
                found = row.fetchone()
            except sqlite3.Error:
                damaged += number <= last
                found = None
            if found is not None:
                last = max(last, number)
                if _whole(found[2], found[3]):
                    rows.append(found)
                else:
                    damaged += 1
            number += 1
    return Saved(cursors, rows, dead, damaged)


def _whole(crc: object, body: object) -> bool:
    return isinstance(body, str) and zlib.crc32(body.encode("utf-8", "surrogatepass")) == crc


def _readable(connection: sqlite3.Connection, statement: str) -> Iterator[Any]:
    """The rows of a statement until one can't be read."""
    with suppress(sqlite3.Error):
        yield from connection.execute(statement)
