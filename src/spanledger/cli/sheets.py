"""CSV that is safe to open as a sheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def csv_of(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """A header and a line for each row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(cell(row[name]) for name in names)
    return out.getvalue()
