"""Read values by path from what an SDK hands over: typed objects, mappings, lists. Nothing is sure of its type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

_DEPTH: Final = 5
_WIDTH: Final = 64

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
