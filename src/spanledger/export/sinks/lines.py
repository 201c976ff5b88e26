"""The sinks `jsonl` and `console`: one JSON object a line, with the ledger's column names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spanledger.homes import private_file
from spanledger.model import COLUMNS, compact_json
from spanledger.recording.files import Lease
from spanledger.recording.sink import Row, SinkError

_KEPT: Final = 10
_NOTHING: Final = dict.fromkeys(COLUMNS)


class JsonlSink:
    """Appends to a file, mode 0600. At `max_bytes` it is renamed to `usage.jsonl.1`; the last ten files are kept.

    Processes that share the file take turns by a lock beside it.
    """

    name = "jsonl"

    def __init__(self, path: Path, *, max_bytes: int = 2**26) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._turn = Lease(path.with_name(f"{path.name}.lock"))

    def send(self, rows: Sequence[Row]) -> None:
        """Append the rows. Raises `SinkError`."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._turn.acquire():
                raise SinkError(f"{self._path} is being written by another process", retry_after=0.0)
            try:
                self._append(rows)
            finally:
                self._turn.release()
        except OSError as error:
            raise SinkError(f"{type(error).__name__}: {error}") from error

    def _append(self, rows: Sequence[Row]) -> None:
        private_file(self._path)
        if self._path.stat().st_size >= self._max_bytes:
            self._rotate()
        lines = "".join(f"{compact_json({**_NOTHING, **row})}\n" for row in rows).encode("utf-8", "backslashreplace")
        with self._path.open("ab", buffering=0) as file:
            whole = self._whole_bytes()
            if whole != file.tell():  # whoever wrote last died in the middle of a line, which is sent again
                os.ftruncate(file.fileno(), whole)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), whole)  # the rows come again
                raise

    def _whole_bytes(self) -> int:
        """Where the last whole line ends."""
        with self._path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 2**16)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
            return 0

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, _KEPT + 1))]
        for older, newer in reversed(list(zip(names[1:], names, strict=False))):
            if newer.exists():
                newer.replace(older)
        private_file(self._path)

    def close(self) -> None:
        """Nothing is held open."""


class ConsoleSink:
    """Prints on standard error, so that the output of the application stays its own."""

    name = "console"

    def send(self, rows: Sequence[Row]) -> None:
        """Print the rows. Raises `SinkError`."""
        known = ({name: value for name, value in row.items() if value is not None} for row in rows)
        try:
            if sys.stderr is None:
                raise SinkError("there is no standard error")
            sys.stderr.write("".join(f"spanledger {compact_json(each)}\n" for each in known))
            sys.stderr.flush()
        except (OSError, ValueError) as error:  # a broken pipe, a closed file
            raise SinkError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Nothing is held open."""
