"""What a session says of tokens, checked, and the record that its parts make together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from spanledger.export.formats.usage_api import SHAPE, plain_usd
from spanledger.manual.report import Moment, record_of
from spanledger.model import MOST_OF_A_COUNT, PICO_USD, Cost, UsageRecord
from spanledger.recording.telling import ROWS, TOOL
from spanledger.usage.stated import amount

ALIASES: Final = {"input": "prompt", "output": "completion"}
CALL: Final = ("prompt", "completion", "total")
"""Types that are parts of a model call."""
TOOLS: Final = ("function_call", "tool_usage")
"""Types that are each something of their own."""
_BUCKETS: Final = {"prompt": "input", "completion": "output"}
_SHORT: Final = 32
_WORD: Final = re.compile(rf"[\w.+-]{{0,{_SHORT}}}")
_LONGEST: Final = 256
"""Characters of what is shown or kept of a text."""


@dataclass(frozen=True, slots=True)
class Part:
    """One `usage(...)`."""

    kind: str
    tokens: int
    cost: str | None
    """As it was given."""
    pusd: int | None
    label: str | None

    @property
    def sent(self) -> dict[str, str]:
        """What the usage API is told of it, but for the message."""
        found = {"type": self.kind, "token": str(self.tokens)}
        return found if self.cost is None else {**found, "cost": self.cost}


def part_of(tokens: Any, token_type: Any, cost: Any, label: Any) -> Part:
    """What `usage` was given. Raises `ValueError` that says what is wrong with it."""
    kind = shown(token_type).strip().lower()
    kind = ALIASES.get(kind, kind)
    if kind not in (*CALL, *TOOLS):
        raise ValueError(f"the type is one of {', '.join((*CALL, *TOOLS, *ALIASES))}")
    count = _count(tokens)
    if count is None:
        raise ValueError(f"tokens are a whole number from 0 to {MOST_OF_A_COUNT}")
    pusd = None if cost is None else amount(cost, PICO_USD)
    if cost is not None and pusd is None:
        raise ValueError(f"a cost is an amount in USD such as '0.002', not {quoted(cost)}")
    return Part(kind, count, None if cost is None else _plain(cost), pusd, None if label is None else shown(label))


def _count(tokens: Any) -> int | None:
    """A count from a number or a text; `None` for what is none."""
    try:
        count = None if isinstance(tokens, bool) else int(tokens)
        whole = isinstance(tokens, str) or count == tokens
    except Exception:  # noqa: BLE001  # whatever the application gives
        return None
    return count if count is not None and whole and 0 <= count <= MOST_OF_A_COUNT else None


def shown(value: Any, *, whole: bool = False) -> str:
    """A value as text, of bounded length; what has none, by its type."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  # the application's
        text = f"<{type(value).__name__}>"
    return text if whole or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def quoted(value: Any) -> str:
    """A number or a short word as it would be written in a program; anything else by its type: it may be an answer."""
    if value is None or isinstance(value, (bool, int, float)):
        text = repr(value)
        return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
    if isinstance(value, str) and _WORD.fullmatch(value):
        return repr(value)
    return f"<{type(value).__name__}>"


def _plain(cost: Any) -> str:
    """An amount as text: a text as it is, a number without exponent."""
    if isinstance(cost, str):
        return cost.strip()
    text = f"{cost:.12f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def call_record(parts: Mapping[str, Part], model: str | None, moment: Moment, record_id: str) -> UsageRecord:
    """The record of a model call that is told in parts; what is not told of a total is the other part."""
    whole = _with_rest(parts)
    said: dict[str, Any] = {f"{_BUCKETS[kind]}_tokens": part.tokens for kind, part in whole.items() if kind in _BUCKETS}
    if not said and "total" in whole:
        said["other_usage"] = {"total_tokens": whole["total"].tokens}
    label = next((part.label for part in whole.values() if part.label is not None), None)
    record = record_of({**said, "model": model, "label": label}, moment, record_id)
    return replace(record, cost=_cost(whole), **_raw([*whole.values()]))


def _with_rest(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The parts, and what a total says beyond them: of tokens and cost, the part that is lacking."""
    whole, total = dict(parts), parts.get("total")
    if total is None:
        return whole
    for known, other in (("prompt", "completion"), ("completion", "prompt")):
        if known in parts and other not in parts and total.tokens >= parts[known].tokens:
            whole[other] = Part(other, total.tokens - parts[known].tokens, None, None, None)
    unpaid = [part for kind, part in whole.items() if kind in _BUCKETS and part.pusd is None]
    rest = (
        None if total.pusd is None else total.pusd - sum(part.pusd or 0 for part in whole.values() if part is not total)
    )
    if unpaid and rest is not None and rest >= 0:
        last = unpaid[-1]
        whole[last.kind] = replace(last, pusd=rest, cost=plain_usd(rest))
    return whole


def tool_record(part: Part, moment: Moment) -> UsageRecord:
    """The record of something else that costs: its tokens are no model's, and are kept apart."""
    said = {"operation": TOOL, "label": part.label, "other_usage": {f"{part.kind}_tokens": part.tokens}}
    return replace(record_of(said, moment), cost=_cost({part.kind: part}), **_raw([part]))


def _raw(parts: list[Part]) -> dict[str, Any]:
    return {"raw_usage": {ROWS: [part.sent for part in parts]}, "usage_shape": SHAPE}


def _cost(parts: Mapping[str, Part]) -> Cost | None:
    """What the parts state; `None` where none does, `partial` where one of two does."""
    stated = {kind: part.pusd for kind, part in parts.items() if part.pusd is not None}
    whole = stated.pop("total", None)
    if not stated and whole is None:
        return None
    if not stated:
        stated, lacks = {"stated": whole or 0}, False
    else:
        lacks = any(kind not in stated for kind in parts if kind != "total")
    breakdown = {_BUCKETS.get(kind, "stated"): pusd for kind, pusd in stated.items() if pusd}
    total = sum(stated.values())
    status = "partial" if lacks else "priced" if total else "free"
    return Cost(total, breakdown, "USD", "manual", status)
