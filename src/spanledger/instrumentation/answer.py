"""What is known of a response so far. A whole response is a stream of one chunk: the last value seen wins."""

from __future__ import annotations

from typing import Any

from spanledger.instrumentation.plan import Plan
from spanledger.usage.paths import at_path, text, texts, walk


class Answer:
    """What is known of a response so far."""

    __slots__ = ("finish", "plan", "raw", "response", "state", "values")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.raw: Any = None
        self.state: str | None = None
        self.response: Any = None
        self.finish: tuple[str, ...] = ()
        self.values: dict[str, str] = {}

    def read(self, response: Any) -> None:
        """Take in a response, or what sits in a chunk of one."""
        if isinstance(response, (str, bytes, int, float, list, tuple)):
            return  # no response, whatever it is
        plan, values = self.plan, self.values
        self.response = response
        for name, path in plan.names:
            value = at_path(response, path)
            if isinstance(value, str) and value:
                values[name] = value
        if plan.finish is not None:
            reasons = walk(response, plan.finish)
            if reasons is not None:
                self.finish += texts(reasons)
        if plan.state is not None:
            self.state = text(walk(response, plan.state)) or self.state
        usage = plan.find_usage(response)
        if usage is not None:
            self.raw = usage

    @property
    def complete(self) -> bool:
        """Whether the response has said its last word."""
        endpoint = self.plan.endpoint
        if endpoint.state:
            return endpoint.states.get(self.state or "", "incomplete") != "incomplete"
        return bool(self.finish) or self.raw is not None

    def context(self) -> dict[str, str]:
        """What the price depends on, as far as the usage says it."""
        return self.plan.usage.context(self.raw) if self.plan.usage.shape.context and self.raw is not None else {}

    @property
    def in_background(self) -> bool:
        """Whether the provider works on it while nobody waits."""
        path = self.plan.endpoint.background
        return bool(path) and at_path(self.response, path) is True


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
