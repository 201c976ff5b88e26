"""What is known of a response so far. A whole response is a stream of one chunk: the last value seen wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from spanledger.instrumentation.plan import Plan
from spanledger.model import Usage
from spanledger.usage.paths import at_path, plain_word, text, texts, walk

_LATEST: Final = 2**32
"""Unix seconds after which no answer was made: it is a broken one that says so."""


class Answer:
    """What is known of a response so far."""

    __slots__ = ("asked", "ended", "finish", "items", "lengths", "plan", "raw", "response", "state", "values")

    def __init__(self, plan: Plan, request: Mapping[str, Any] = {}) -> None:  # never written
        self.plan = plan
        self.asked = plan.context(request) if plan.endpoint.context else {}
        self.lengths = plan.lengths(request) if plan.endpoint.lengths else {}
        self.raw: Any = None
        self.ended = False
        self.state: str | None = None
        self.response: Any = None
        self.finish: tuple[str, ...] = ()
        self.values: dict[str, str] = {}
        self.items: dict[str, int] = {}

    def read(self, response: Any, placeholders: tuple[str, ...] = ()) -> None:
        """Take in a response, or what sits in a chunk of one; `placeholders` in its usage object are not true yet."""
        if isinstance(response, (str, bytes, int, float, list, tuple)):
            return  # no response, whatever it is
        plan, values = self.plan, self.values
        self.response = response
        for name, path in plan.names:
            value = walk(response, path)
            if isinstance(value, str) and value:
                values[name] = value
        if plan.finish is not None:
            reasons = walk(response, plan.finish)
            if reasons is not None:
                self.finish += texts(reasons)
        if plan.end is not None and walk(response, plan.end) is not None:
            self.ended = True
        if plan.state is not None:
            self.state = text(plain_word(walk(response, plan.state))) or self.state
        usage = plan.find_usage(response)
        if usage is not None:
            self._take(usage, placeholders)
        if plan.endpoint.counts:
            for name, count in plan.counted(response, told=self.raw is not None).items():
                self.items[name] = count or self.items.get(name, 0)

    def _take(self, usage: Any, placeholders: tuple[str, ...]) -> None:
        if self.plan.endpoint.merges:
            told = {name: each for name, each in usage.items() if name not in placeholders}
            self.raw = {**(self.raw or {}), **told}
        else:
            self.raw = usage

    def usage(self) -> Usage:
        """What was used."""
        items = {**self.lengths, **self.items} if self.raw is None else self.items
        return self.plan.reader(self.raw).usage(self.raw, items)

    @property
    def complete(self) -> bool:
        """Whether the response has said its last word."""
        endpoint = self.plan.endpoint
        if endpoint.state:
            return endpoint.states.get(self.state or "", "incomplete") != "incomplete"
        return bool(self.finish) or self.ended or (endpoint.usage_ends and self.raw is not None)

    def context(self) -> dict[str, str]:
        """What the price depends on, as far as the usage and the request say it."""
        return self.asked if self.raw is None else {**self.asked, **self.plan.reader(self.raw).context(self.raw)}

    @property
    def in_background(self) -> bool:
        """Whether the provider works on it while nobody waits."""
        path = self.plan.endpoint.background
        return bool(path) and at_path(self.response, path) is True


def moment(value: Any) -> float | None:
    """A creation time (Unix seconds) as an answer states it, `None` where it is none."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < _LATEST else None


def without_usage(chunk: Any) -> bool:
    """Undo what asking for usage changed: the usage field of each chunk. False for the extra chunk at the end."""
    fields_set = getattr(chunk, "__pydantic_fields_set__", None)
    if fields_set is None:
        return True
    if chunk.__dict__.get("usage") is not None:
        if not chunk.__dict__.get("choices"):
            return False
        chunk.usage = None
    fields_set.discard("usage")
    return True
