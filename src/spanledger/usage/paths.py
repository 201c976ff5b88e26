"""Read values by path from what an SDK hands over: typed objects, mappings, lists. Nothing is sure of its type."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Final

_DEPTH: Final = 5
_WORDS: Final = frozenset(
    {
        "type",
        "modality",
        "ttl",
        "model",
        "currency",
        "service_tier",
        "speed",
        "inference_geo",
        "traffic_type",
        "trafficType",
        "serviceTier",
    }
)
"""Members of a usage object whose text says how to read or price a count."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
"""What a field of a usage object is called; anything else may be somebody's text."""
_WORD: Final = re.compile(r"[\w./:@-]{1,80}")
_WIDTH: Final = 64

Steps = tuple[str | int | tuple[str, str], ...]
_STEP: Final = re.compile(r"([^.\[]+)(?:\[(\w+)=(\w+)\])?(?:\.|$)")


@lru_cache(maxsize=512)
def compiled(path: str) -> tuple[Steps, ...]:
    """Alternatives of steps. Paths come from tables only.

    `a.b` walks attributes and keys, a number a list's item, `*` all of them; `a[key=value]` the items of a list whose
    `key` is `value`; `a|b` is the first that is there.
    """
    return tuple(tuple(_steps(alternative)) for alternative in path.split("|"))


def _steps(path: str) -> Iterator[str | int | tuple[str, str]]:
    for name, key, value in _STEP.findall(path):
        yield int(name) if name.isdecimal() else name
        if key:
            yield key, value


def at_path(value: Any, path: str) -> Any:
    """The value at the path, `None` where there is none. The empty path is the value itself."""
    return walk(value, compiled(path)) if path else value


def walk(value: Any, alternatives: tuple[Steps, ...]) -> Any:
    """The value at the first of these paths that leads somewhere, else `None`."""
    for steps in alternatives:
        found = value
        for step in steps:
            found = _with(found, *step) if isinstance(step, tuple) else member(found, step)
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
        # Asking a pydantic model for what it lacks costs microseconds and an exception.
        extra = getattr(value, "__pydantic_extra__", value)
        if extra is None:
            return None
        if extra.__class__ is dict:
            return extra.get(name)
    if isinstance(value, (list, tuple)):
        if isinstance(name, int):
            return value[name] if name < len(value) else None
        if name == "*":
            return value
        items = [member(each, name) for each in value]
        return items if any(each is not None for each in items) else None
    return getattr(value, name, None) if isinstance(name, str) else None


def _with(items: Any, key: str, wanted: str) -> list[Any] | None:
    """The items of a list whose `key` is `wanted`, a text or an enum of one; `None` if there is no such item."""
    if not isinstance(items, (list, tuple)):
        return None
    return [each for each in items if plain_word(member(each, key)) == wanted] or None


def plain_word(value: Any) -> Any:
    """The text of an enum of texts; any other value as it is."""
    return value.value if isinstance(value, Enum) else value


def text(value: Any) -> str | None:
    """The value if it is a non-empty text; a value of another type is nothing."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...]:
    """A text as a tuple of one, a list as the texts in it; an enum of texts counts as its text."""
    if isinstance(value, (list, tuple)):
        return tuple([word for each in value if isinstance(word := plain_word(each), str)])
    return texts((value,))


def decoded(body: bytes | str) -> Any:
    """The JSON document in a body, `None` if there is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def fields_of(value: Any) -> dict[str, Any]:
    """The members of an object that are set: a mapping's or a typed object's; of anything else none."""
    return {name: each for name, each in _members(value) or () if each is not None}


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """A usage object as plain JSON: names and numbers. Of text only what says how to read or price a count stays."""
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
    return {
        name: word if name in _WORDS and _isplain_word(word := plain_word(each)) else plain(each, depth - 1)
        for name, each in members
        if each is not None and _NAME.fullmatch(str(name))
    }


def _isplain_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


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
