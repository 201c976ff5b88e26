"""The sinks `jsonl` and `console`: one JSON object a line, with the ledger's column names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spanledger.model import compact_json
from spanledger.recording.files import private_file
from spanledger.recording.sink import Row, SinkError


class JsonlSink:
    """Appends to a file, mode 0600."""

    name = "jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, rows: Sequence[Row]) -> None:
        """Append the rows. Raises `SinkError`."""
        try:
            private_file(self._path)
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{compact_json(dict(row))}\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Nothing is held open."""


class ConsoleSink:
    """Prints on standard error, so that the output of the application stays its own."""

    name = "console"

    def send(self, rows: Sequence[Row]) -> None:
        """Print the rows."""
        for row in rows:
            known = {name: value for name, value in row.items() if value is not None}
            print(f"spanledger {compact_json(known)}", file=sys.stderr, flush=True)  # noqa: T201  # it is the console

    def close(self) -> None:
        """Nothing is held open."""
