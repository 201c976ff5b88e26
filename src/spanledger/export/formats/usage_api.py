"""The usage API (`POST {base}/api/internal/v1/usages`): one row per token type, every value a string.

Wire format: the `lexia` package 1.2.13. Its types are `prompt`, `completion`, `function_call`, `tool_usage` and
`total`; cache and reasoning tokens have none, they are inside the first two. `total` rows are sent only where they are
asked for, for whoever sums the rows counts everything twice then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from spanledger.model import PICO_USD
from spanledger.recording.sink import Row
from spanledger.recording.telling import ROWS
from spanledger.usage.stated import amount

PATH: Final = "/api/internal/v1/usages"
_INPUT_BUCKETS: Final = ("input", "cache_read", "cache_write", "cache_write_long", "input_audio", "input_image")
_OUTPUT_BUCKETS: Final = ("output", "reasoning", "output_audio", "output_image")
SHAPE: Final = "usage_api"
"""What a row's `usage_shape` is whose usage was reported in this API's words."""
TYPES: Final = (("prompt", "input_tokens", _INPUT_BUCKETS), ("completion", "output_tokens", _OUTPUT_BUCKETS))
"""Type on the wire ← our count, and the buckets whose cost goes with it."""


def bodies(row: Row, *, totals: bool = False) -> Iterator[dict[str, str]]:
    """The requests for one record: one for each token type it reports, and one for tools and searches it paid for."""
    metadata = json.loads(row.get("metadata") or "{}")
    said: list[dict[str, Any]] = json.loads(row.get("raw_usage") or "{}").get(ROWS, [])
    if row.get("usage_shape") == SHAPE:
        yield from _as_said(row, said, metadata.get("label"), totals=totals)
        return
    words = {each["type"]: each["cost"] for each in said if "cost" in each}
    breakdown: dict[str, int] = json.loads(row.get("cost_breakdown") or "{}")
    message = str(row.get("message_id") or row["record_id"])
    label = metadata.get("label")
    spoken: set[str] = set()
    for kind, field, buckets in TYPES:
        spoken.update(buckets)
        count = row.get(field)
        if count is not None:
            pico = sum(breakdown.get(name, 0) for name in buckets) if breakdown else None
            body = _body(message, kind, count, pico, label)
            yield {**body, "cost": words[kind]} if pico is not None and _says(words.get(kind), pico) else body
    rest = {name: amount for name, amount in breakdown.items() if name not in spoken and amount}
    if rest:
        yield _body(message, "tool_usage", row.get("web_searches") or 0, sum(rest.values()), label)
    counts = [row[field] for _, field, _ in TYPES if row.get(field) is not None]
    if totals and counts:
        yield _body(message, "total", sum(counts), row.get("cost_pusd"), label)


def _says(text: str | None, pico: int) -> bool:
    """Whether a text that an application gave is this cost, however many zeros it ends with."""
    return text is not None and amount(text, PICO_USD) == pico


def _as_said(row: Row, said: list[dict[str, Any]], label: object, *, totals: bool) -> Iterator[dict[str, str]]:
    """What was reported in this API's own words, in them. A total goes where it is all that is known."""
    for each in said:
        if each["type"] != "total" or totals or len(said) == 1:
            yield {
                "message_id": str(row.get("message_id") or row["record_id"]),
                **{name: str(each[name]) for name in ("type", "token", "cost") if name in each},
                **({} if label is None else {"label": str(label)}),
            }


def _body(message: str, kind: str, count: int, pico: int | None, label: object) -> dict[str, str]:
    body = {"message_id": message, "type": kind, "token": str(count)}
    if pico is not None:
        body["cost"] = plain_usd(pico)
    if label is not None:
        body["label"] = str(label)
    return body


def plain_usd(pico: int) -> str:
    """Pico-USD as decimal USD without exponent and without zeros at the end."""
    text = f"{pico // 10**12}.{pico % 10**12:012d}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
