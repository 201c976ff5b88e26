"""Read values by path from what an SDK hands over: typed objects, mappings, lists. Nothing is sure of its type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from spanledger.instrumentation.spec import Count, Endpoint
from spanledger.model import MOST_OF_A_COUNT, Usage

_DEPTH: Final = 5
_WIDTH: Final = 64
_SCALARS: Final = (str, bytes, bool, int, float, list, tuple)
_INSIDE: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_write_tokens", ("cache_write_long_tokens",)),
    ("output_tokens", ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")),
)
"""Counts that are parts of another, and so can't exceed it together."""

Steps = tuple[str | int, ...]


@lru_cache(maxsize=512)
def compiled(path: str) -> tuple[Steps, ...]:
    """Alternatives of steps. Paths come from tables only."""
    return tuple(
        tuple(int(step) if step.isdecimal() else step for step in alternative.split("."))
        for alternative in path.split("|")
    )


def at_path(value: Any, path: str) -> Any:
    """The value at the path, `None` where there is none. The empty path is the value itself."""
    return walk(value, compiled(path)) if path else value


def walk(value: Any, alternatives: tuple[Steps, ...]) -> Any:
    """The value at the first of these paths that leads somewhere, else `None`."""
    for steps in alternatives:
        found = value
        for step in steps:
            found = member(found, step)
            if found is None:
                break
        else:
            return found
    return None


def member(value: Any, name: str | int) -> Any:
    """One step: a mapping's key, a list's item, an object's attribute; `None` where it is absent."""
    if value.__class__ is dict:
        return value.get(name)
    own = getattr(value, "__dict__", None)
    if own is not None:
        if name in own:
            return own[name]
        extra = getattr(value, "__pydantic_extra__", None)
        if extra.__class__ is dict:
            return extra.get(name)  # asking a pydantic model for what it lacks costs a microsecond and an exception
    if isinstance(value, (list, tuple)):
        if isinstance(name, int):
            return value[name] if name < len(value) else None
        return [member(each, name) for each in value] if name != "*" else value
    return getattr(value, name, None) if isinstance(name, str) else None


class Plan:
    """An endpoint's table with its paths taken apart, once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.usage_at = tuple(compiled(path) for path in endpoint.usage_at)
        self.usage = tuple((field, tuple(map(compiled, paths))) for field, paths in endpoint.usage.items())
        self.inside = tuple(
            (whole, known)
            for whole, parts in _INSIDE
            if whole in endpoint.usage and (known := tuple(part for part in parts if part in endpoint.usage))
        )
        self.total = compiled(endpoint.total) if endpoint.total else None
        self.finish = compiled(endpoint.finish_reasons) if endpoint.finish_reasons else None
        self.state = compiled(endpoint.state) if endpoint.state else None
        self.names = tuple(
            (name, path) for name in ("id", "model", "service_tier") if (path := getattr(endpoint, name))
        )
        self.signal = endpoint.signals[0]
        self.signals = tuple(steps for signal in endpoint.signals for steps in compiled(signal))
        self.request = {path: attribute for attribute, path in endpoint.request.items() if "." not in path}
        self.nested_request = {
            path.split(".")[0]: (attribute, path) for attribute, path in endpoint.request.items() if "." in path
        }
        self.starts: dict[Any, tuple[str, dict[str, Any]]] = {}
        """Span name and start attributes that calls to one model at one server share; bounded."""

    def tells(self, chunk: Any) -> bool:
        """Whether a chunk of a stream is worth reading; one of an odd type is."""
        try:
            return self._tells(chunk)
        except (AttributeError, LookupError, TypeError):
            return True

    def _tells(self, chunk: Any) -> bool:
        for steps in self.signals:
            value = chunk
            for step in steps:
                if step.__class__ is int:
                    value = value[step] if value else None
                else:
                    own = value.__dict__
                    if step in own:
                        value = own[step]
                    else:
                        extra = value.__pydantic_extra__
                        value = extra.get(step) if extra else None
                if value is None:
                    break
            else:
                return True
        return False

    def find_usage(self, response: Any) -> Any:
        """The response's usage object, `None` if it has none."""
        for path in self.usage_at:
            found = walk(response, path)
            if found is not None:
                return found
        return None

    def read_usage(self, raw: Any, response: Any) -> Usage:
        """The usage of a response: `raw` is its usage object.

        A count that is no whole number from 0 to 10⁹ is unknown and the usage `invalid`; counts that contradict each
        other are kept as reported, and the usage is `invalid` too.
        """
        if isinstance(raw, _SCALARS):
            return Usage(usage_status="invalid")
        counts: dict[str, Any] = {}
        broken = False
        if raw is not None:
            for field, paths in self.usage:
                value = walk(raw, paths[0])
                if value is None:
                    continue
                if type(value) is not int or not 0 <= value <= MOST_OF_A_COUNT or len(paths) > 1:
                    value = _total(raw, paths)
                if value is None:
                    broken = True
                else:
                    counts[field] = value
            if self.total is not None:
                self._move_reasoning_inside(raw, counts)
        status = self._status(counts, broken=broken)
        for name, count in self.endpoint.counts.items():
            found = _counted(count, response)
            if found is not None and name in Usage.__dataclass_fields__:
                counts[name] = found
            elif found:
                counts.setdefault("other_usage", {})[name] = found
        return Usage(usage_status=status, **counts)

    def _move_reasoning_inside(self, raw: Any, counts: dict[str, Any]) -> None:
        thought = counts.get("reasoning_tokens")
        known = all(each in counts for each in self.endpoint.requires)
        if thought and known and self.total is not None:
            parts = sum(counts[each] for each in self.endpoint.requires)
            if walk(raw, self.total) == parts + thought:
                counts["output_tokens"] += thought

    def _status(self, counts: Mapping[str, int], *, broken: bool) -> str:
        if broken:
            return "invalid"
        if not counts:
            return "missing"
        for whole, parts in self.inside:
            rest = counts.get(whole, 0)
            for part in parts:
                rest -= counts.get(part, 0)
            if rest < 0 and whole in counts:
                return "invalid"
        for name in self.endpoint.requires:
            if name not in counts:
                return "partial"
        return "reported"

    def request_attributes(self, request: Mapping[str, Any], attributes: dict[str, Any]) -> None:
        """Add span attributes of the request: plain values only, so an SDK's "not given" marker is nothing."""
        for name, value in request.items():
            attribute = self.request.get(name)
            if attribute is not None:
                if isinstance(value, (str, int, float)):
                    attributes[attribute] = value
            elif name in self.nested_request:
                attribute, path = self.nested_request[name]
                found = at_path(request, path)
                if isinstance(found, (str, int, float)):
                    attributes[attribute] = found


def text(value: Any) -> str | None:
    """The value if it is a non-empty text; a value of another type is nothing."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...]:
    """A text as a tuple of one, a list as the texts in it."""
    if isinstance(value, str):
        return (value,)
    return tuple([each for each in value if isinstance(each, str)]) if isinstance(value, (list, tuple)) else ()


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """A usage object as plain JSON: names and numbers only. Free text becomes the name of its type."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str) or depth == 0:
        return f"<{type(value).__name__}>"
    if isinstance(value, (list, tuple)):
        return [plain(each, depth - 1) for each in value[:_WIDTH]]
    members = _members(value)
    if members is None:
        return f"<{type(value).__name__}>"
    return {name: plain(each, depth - 1) for name, each in members if each is not None}


def _members(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, Mapping):
        source: dict[str, Any] = dict(value)
    else:
        own = getattr(value, "__dict__", None)
        if not isinstance(own, dict):
            return None
        extra = getattr(value, "__pydantic_extra__", None)
        source = {**own, **extra} if isinstance(extra, dict) and extra else own
    return [(name, each) for name, each in list(source.items())[:_WIDTH] if isinstance(name, str) and name[:1] != "_"]


def _total(raw: Any, paths: tuple[tuple[Steps, ...], ...]) -> int | None:
    """The sum of the counts at the paths; `None` if one of them is no count."""
    total = 0
    for path in paths:
        value = walk(raw, path)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None:
            if type(value) is not int or not 0 <= value <= MOST_OF_A_COUNT:
                return None
            total += value
    return total


def _counted(count: Count, response: Any) -> int | None:
    items = at_path(response, count.items)
    if not isinstance(items, (list, tuple)):
        return None
    return sum(all(at_path(item, path) in (None, wanted) for path, wanted in count.where.items()) for item in items)


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
