"""Read values by path from what an SDK hands over: typed objects, mappings, lists. Nothing is sure of its type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from spanledger.instrumentation.spec import Count, Endpoint
from spanledger.model import MOST_OF_A_COUNT, Usage

_DEPTH: Final = 5
_WIDTH: Final = 64
_INSIDE: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_write_tokens", ("cache_write_long_tokens",)),
    ("output_tokens", ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")),
)
"""Counts that are parts of another, and so can't exceed it together."""

Path = tuple[tuple[str | int, ...], ...]


@lru_cache(maxsize=512)
def compiled(path: str) -> Path:
    """Alternatives of steps. Paths come from tables only."""
    return tuple(
        tuple(int(step) if step.isdecimal() else step for step in alternative.split("."))
        for alternative in path.split("|")
    )


def at_path(value: Any, path: str) -> Any:
    """The value at the path, `None` where there is none. The empty path is the value itself."""
    if not path:
        return value
    for steps in compiled(path):
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
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(name, int):
        return value[name] if isinstance(value, (list, tuple)) and name < len(value) else None
    if isinstance(value, (list, tuple)):
        return [member(each, name) for each in value] if name != "*" else value
    own = getattr(value, "__dict__", None)
    if own is not None and name in own:
        return own[name]
    extra = getattr(value, "__pydantic_extra__", None)
    if isinstance(extra, dict):
        return extra.get(name)  # asking a pydantic model for what it lacks costs a microsecond and an exception
    return getattr(value, name, None)


def text(value: Any) -> str | None:
    """The value if it is a non-empty text; a value of another type is nothing."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...] | None:
    """A text as a tuple of one, a list as its texts, without repeats of `None`; nothing if there are none."""
    if isinstance(value, str):
        return (value,)
    found = tuple(each for each in value if isinstance(each, str)) if isinstance(value, (list, tuple)) else ()
    return found or None


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


def find_usage(endpoint: Endpoint, response: Any) -> Any:
    """The response's usage object, `None` if it has none."""
    for path in endpoint.usage_at:
        found = at_path(response, path)
        if found is not None:
            return found
    return None


def read_usage(endpoint: Endpoint, raw: Any, response: Any) -> Usage:
    """The usage of a response: `raw` is its usage object as `plain` made it.

    A count that is no whole number from 0 to 10⁹ is unknown and the usage `invalid`; counts that contradict each
    other are kept as reported, and the usage is `invalid` too.
    """
    if raw is not None and not isinstance(raw, dict):
        return Usage(usage_status="invalid")
    counts: dict[str, Any] = {}
    broken = False
    for name, paths in endpoint.usage.items():
        value, bad = _total(raw, paths)
        broken = broken or bad
        if value is not None:
            counts[name] = value
    if endpoint.total and (thought := counts.get("reasoning_tokens")):
        total, _ = _total(raw, (endpoint.total,))
        if total is not None and total == sum(counts.get(each, 0) for each in endpoint.requires) + thought:
            counts["output_tokens"] = counts.get("output_tokens", 0) + thought
    status = _status(endpoint, counts, broken=broken)
    for name, count in endpoint.counts.items():
        found = _counted(count, response)
        if found is not None and name in Usage.__dataclass_fields__:
            counts[name] = found
        elif found:
            counts.setdefault("other_usage", {})[name] = found
    return Usage(usage_status=status, **counts)


def _status(endpoint: Endpoint, counts: Mapping[str, int], *, broken: bool) -> str:
    if broken:
        return "invalid"
    if not counts:
        return "missing"
    if any(whole in counts and sum(counts.get(part, 0) for part in parts) > counts[whole] for whole, parts in _INSIDE):
        return "invalid"
    return "reported" if all(name in counts for name in endpoint.requires) else "partial"


def _total(raw: Any, paths: tuple[str, ...]) -> tuple[int | None, bool]:
    total: int | None = None
    for path in paths:
        value = at_path(raw, path) if raw else None
        if value is None:
            if total is None:
                return None, False
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value <= MOST_OF_A_COUNT:
            return None, True
        total = (total or 0) + value
    return total, False


def _counted(count: Count, response: Any) -> int | None:
    items = at_path(response, count.items)
    if not isinstance(items, (list, tuple)):
        return None
    return sum(all(at_path(item, path) in (None, wanted) for path, wanted in count.where.items()) for item in items)


def request_attributes(endpoint: Endpoint, request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Span attributes of the request: plain values only, so an SDK's "not given" marker is nothing."""
    for attribute, path in endpoint.request.items():
        value = request.get(path) if "." not in path else at_path(request, path)
        if isinstance(value, (str, int, float)):
            yield attribute, value
