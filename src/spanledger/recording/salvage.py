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

from spanledger.homes import private_file
from spanledger.recording.files import Lease
from spanledger.recording.forking import in_sqlite
from spanledger.recording.outbox import Outbox, Saved, id_in
from spanledger.recording.pages import rows_in

_PAGE: Final = 4096
_GAP: Final = 1000
"""So many numbers without a row after the last one known: there are no more."""
_LEAST: Final = 20
"""Bytes that a row takes at the least: there are no more rows than fit."""
_COLUMNS: Final = 5
_NEXT: Final = "SELECT seq, record_id, settle_at, crc, body FROM records WHERE seq >= ? ORDER BY seq LIMIT 1"
_OPEN: Final = "SELECT seq, record_id, settle_at, crc, body FROM records WHERE settle_at > 0"
_PARTS: Final = "SELECT sink, parts FROM cursors"
_DEAD: Final = "SELECT seq, sink, reason, died_at, body FROM dead"


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
    """What can be read of a copy; if that is nothing, what can be read of one with another first page.

    That page is the same in all files. The file itself is never opened: SQLite may mend it, or throw its log away.
    """
    content = path.read_bytes()
    saved = _read_copy(path, content) if content else None
    if saved is None or not saved.rows:
        saved = _read_copy(path, _first_page(path.parent) + content[_PAGE:])
    return saved


def _read_copy(path: Path, content: bytes) -> Saved:
    copy = path.with_name(f"{path.name}.salvage")
    log = Path(f"{path}-wal")
    try:
        for file, held in ((copy, content), (Path(f"{copy}-wal"), log.read_bytes() if log.exists() else b"")):
            private_file(file)
            file.write_bytes(held)
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


@in_sqlite
def _read_rows(path: Path) -> Saved:
    size = sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.exists())
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        numbers = [seq for (seq,) in _readable(connection, "SELECT seq FROM sqlite_sequence") if _counts(seq)]
        told = [each for each in _readable(connection, "SELECT sink, seq FROM cursors") if isinstance(each[0], str)]
        cursors = {sink: seq if _counts(seq) and seq <= max(numbers, default=0) else 0 for sink, seq in told}
        parts = {sink: number for sink, number in _readable(connection, _PARTS) if _counts(number)}
        dead = [each for each in _readable(connection, _DEAD) if tuple(map(type, each)) == (int, str, str, int, str)]
        number = min(cursors.values(), default=0) + 1
        rows = [each for each in _readable(connection, _OPEN) if _counts(each[0]) and each[0] < number]
        last = min(max(numbers, default=0), number + size // _LEAST)
        damaged = 0
        unread: set[int] = set()
        while number <= last + _GAP:
            try:
                found = connection.execute(_NEXT, (number,)).fetchone()
            except sqlite3.Error:
                unread.update([number] if number <= last else ())
                number += 1
                continue
            if found is None:
                break
            if found[0] >= number and _whole(*found[3:]):
                rows.append(found)
            else:
                damaged += 1
            number = max(number, found[0]) + 1
            last = max(last, found[0])
    if unread:  # their pages may be whole where those that lead there are not
        for seq, values in rows_in(path.read_bytes()):
            if seq in unread and len(values) == _COLUMNS and _whole(*values[3:]):
                unread.discard(seq)
                rows.append((seq, *values[1:]))
    rows = [row for row in rows if _whole(*row[3:])]
    known = {sink: parts.get(sink, 0) for sink, seq in told if cursors[sink] == seq}
    return Saved(cursors, _in_order(rows), dead, damaged + len(unread), known)


def _in_order(rows: list[tuple[Any, ...]]) -> list[tuple[int, str, int, str]]:
    """The rows, those that were not final after all others: cursors may have passed their place."""
    end = max((row[0] for row in rows), default=0)
    ordered = [
        (end + number if open_ else seq, name if isinstance(name, str) else id_in(body), crc, body)
        for number, (seq, name, open_, crc, body) in enumerate(sorted(rows, key=lambda row: row[0]), 1)
    ]
    return sorted(ordered)


def _counts(seq: object) -> bool:
    return isinstance(seq, int) and seq >= 0


def _whole(crc: object, body: object) -> bool:
    return isinstance(body, str) and zlib.crc32(body.encode("utf-8", "surrogatepass")) == crc


def _readable(connection: sqlite3.Connection, statement: str) -> Iterator[Any]:
    """The rows of a statement until one can't be read."""
    with suppress(sqlite3.Error):
        yield from connection.execute(statement)
