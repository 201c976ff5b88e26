"""How an export is spelled. Each format is entered with a stream and columns, and gives what writes a page of rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, BinaryIO, Final

from spanledger.cli.ledgers import NotWell
from spanledger.cli.sheets import cell
from spanledger.ledger.exporting import INTEGERS, JSON, PAGE, TIMES
from spanledger.model import compact_json

Page = Sequence[tuple[Any, ...]]
Write = Callable[[Page], None]
Format = Callable[[BinaryIO, Sequence[str]], AbstractContextManager[Write]]
_GROUP: Final = 16 * PAGE
"""Rows of a row group: enough to compress well, few enough to be held."""


@contextmanager
def as_csv(out: BinaryIO, columns: Sequence[str]) -> Iterator[Write]:
    """RFC 4180, in UTF-8 with a header; unknown is empty, and no text becomes a formula in a spreadsheet."""
    texts = [name not in INTEGERS and name != "cost_usd" for name in columns]

    def lines(rows: Sequence[Sequence[Any]]) -> None:
        page = io.StringIO()
        csv.writer(page).writerows(rows)
        out.write(page.getvalue().encode("utf-8", "backslashreplace"))

    lines([columns])
    yield lambda rows: lines(
        [[cell(value) if text else value for value, text in zip(row, texts, strict=True)] for row in rows]
    )


@contextmanager
def as_jsonl(out: BinaryIO, columns: Sequence[str]) -> Iterator[Write]:
    """An object a line; JSON columns are objects or lists in it. ASCII, so that no text can break it."""
    yield lambda rows: _put(out, "".join(f"{text}\n" for text in _objects(rows, columns)))


@contextmanager
def as_json(out: BinaryIO, columns: Sequence[str]) -> Iterator[Write]:
    """One list of such objects, written as they come."""
    before = "[\n"

    def write(rows: Page) -> None:
        nonlocal before
        for text in _objects(rows, columns):
            _put(out, f"{before}{text}")
            before = ",\n"

    yield write
    _put(out, "[]\n" if before == "[\n" else "\n]\n")


@contextmanager
def as_parquet(out: BinaryIO, columns: Sequence[str]) -> Iterator[Write]:
    """Parquet in row groups: int64, timestamp[us, UTC], decimal128(38, 12) for `cost_usd`, else text."""
    arrow, parquet = loaded_pyarrow()
    kinds = [_kind(name) for name in columns]
    types = {
        "integer": arrow.int64(),
        "time": arrow.timestamp("us", tz="UTC"),
        "money": arrow.decimal128(38, 12),
        "text": arrow.string(),
    }
    schema = arrow.schema([(name, types[kind]) for name, kind in zip(columns, kinds, strict=True)])
    waiting: list[Any] = []

    def flush(writer: Any) -> None:
        if waiting:
            writer.write_table(arrow.Table.from_batches(waiting, schema), row_group_size=_GROUP)
            waiting.clear()

    def write(rows: Page) -> None:
        values = [list(map(_TYPED[kind], column)) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]
        arrays = [arrow.array(each, of) for each, of in zip(values, schema.types, strict=True)]
        waiting.append(arrow.record_batch(arrays, schema=schema))
        if sum(batch.num_rows for batch in waiting) >= _GROUP:
            flush(writer)

    with parquet.ParquetWriter(out, schema) as writer:
        yield write
        flush(writer)


FORMATS: Final[dict[str, Format]] = {"csv": as_csv, "json": as_json, "jsonl": as_jsonl, "parquet": as_parquet}


def loaded_pyarrow() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`. Raises `NotWell` where they can't be loaded."""
    try:
        import pyarrow as arrow  # noqa: ICN001, PLC0415  # an extra, by a name that reads
        from pyarrow import parquet  # noqa: PLC0415  # as above
    except ImportError as error:
        raise NotWell(f"Parquet needs pyarrow ({error}); pip install 'spanledger[parquet]'") from None
    return arrow, parquet


def _objects(rows: Page, columns: Sequence[str]) -> Iterator[str]:
    documents = [name in JSON for name in columns]
    for row in rows:
        values = (
            json.loads(value) if document and value is not None else value
            for value, document in zip(row, documents, strict=True)
        )
        yield compact_json(dict(zip(columns, values, strict=True)))


def _put(out: BinaryIO, text: str) -> None:
    out.write(text.encode("ascii"))


def _kind(name: str) -> str:
    if name in INTEGERS:
        return "integer"
    return "time" if name in TIMES else "money" if name == "cost_usd" else "text"


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _storable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


_TYPED: Final[dict[str, Callable[[Any], Any]]] = {
    "integer": lambda value: value,
    "time": _moment,
    "money": lambda text: None if text is None else Decimal(text),
    "text": _storable,
}
