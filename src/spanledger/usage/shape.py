"""A shape: how one API spells usage, as a table; and the one reader of all of them.

A path is as in `paths.compiled`. Several paths are summed: the first must be there unless it starts with `?`, the
others may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from spanledger.model import MOST_OF_A_COUNT, Usage
from spanledger.usage.paths import Steps, compiled, plain_word, walk
from spanledger.usage.stated import Stated, stated_cost

SCALARS: Final = (str, bytes, bool, int, float, list, tuple)
_FIELDS: Final = frozenset(each.name for each in fields(Usage))
_INSIDE: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_write_tokens", ("cache_write_long_tokens",)),
    ("output_tokens", ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")),
)
"""Counts that are parts of another, and so can't exceed it together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one API spells usage."""

    name: str
    counts: Mapping[str, tuple[str, ...]]
    """Field of `Usage`, or unit of genai-prices in `other_usage`, → paths inside the usage object."""
    requires: tuple[str, ...] = ("input_tokens", "output_tokens")
    """Counts without which a usage is only partial."""
    total: str = ""
    """Path of the provider's own total: where it equals input, output and reasoning together, reasoning stands beside
    the output count (xAI's chat) and is added to it."""
    adds_up_to: str = ""
    """Path of the provider's own total: where it is more than input and output together, the SDK left something out."""
    beside: str = ""
    """Path of a reasoning count that stands beside the output where it exceeds it, whatever the total."""
    context: Mapping[str, str] = field(default_factory=dict)
    """What a price depends on → its path inside the usage object."""
    stated: tuple[Stated, ...] = ()
    """Where the provider states the cost itself."""


class Reader:
    """A shape with its paths taken apart, once."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._counts = tuple(
            (
                name,
                name in _FIELDS,
                paths[0][:1] == "?",
                tuple((compiled(path.lstrip("?")), "[" in path) for path in paths),
            )
            for name, paths in shape.counts.items()
        )
        self._inside = tuple(
            (whole, known)
            for whole, parts in _INSIDE
            if whole in shape.counts and (known := tuple(part for part in parts if part in shape.counts))
        )
        self._total = compiled(shape.total) if shape.total else None
        self._adds_up_to = compiled(shape.adds_up_to) if shape.adds_up_to else None
        self._beside = compiled(shape.beside) if shape.beside else None
        self._context = tuple((key, compiled(path)) for key, path in shape.context.items())

    def usage(self, raw: Any, items: Mapping[str, int] = {}) -> Usage:  # never written
        """The usage in a usage object, and what was counted elsewhere in the response (`items`).

        A count that is no whole number from 0 to 10⁹ is unknown and the usage `invalid`; counts that contradict each
        other are kept as reported, and the usage is `invalid` too.
        """
        counts: dict[str, Any] = {}
        other: dict[str, int] = {}
        broken = isinstance(raw, SCALARS)
        for name, own, optional, paths in self._counts if raw is not None and not broken else ():
            value = walk(raw, paths[0][0])
            if value is None and not optional:
                continue
            if type(value) is not int or not 0 <= value <= MOST_OF_A_COUNT or len(paths) > 1:
                value = _sum(raw, paths, rounded=name.endswith("_seconds"))
            if value is None:
                broken = broken or any(walk(raw, path) is not None for path, _ in paths)
            elif own:
                counts[name] = value
            else:
                other[name] = value
        told = bool(counts or other)
        other = {name: value for name, value in other.items() if value}
        if self._total is not None:
            self._take_reasoning_in(raw, counts, other)
        told = told or (bool(items) and not self.shape.requires)
        status = self._status(counts, told=told, broken=broken)
        if status == "reported" and self._adds_up_to is not None and self._more(raw, counts):
            status = "partial"
        for name, count in items.items():
            if name in _FIELDS:
                counts[name] = count or counts.get(name, 0)
            elif count:
                other[name] = count
        if other:
            counts["other_usage"] = other
        return Usage(usage_status=status, **counts)

    def _more(self, raw: Any, counts: Mapping[str, int]) -> bool:
        """Whether the provider's total is more than what was told."""
        total = walk(raw, self._adds_up_to or ())
        return type(total) is int and total > counts.get("input_tokens", 0) + counts.get("output_tokens", 0)

    def context(self, raw: Any) -> dict[str, str]:
        """What a price depends on, as far as the usage object says it."""
        return {
            key: word for key, path in self._context if isinstance(word := plain_word(walk(raw, path)), str) and word
        }

    def stated(self, raw: Any) -> int | None:
        """The cost the provider states itself, int pico-USD, or `None`."""
        return stated_cost(self.shape.stated, raw) if self.shape.stated and raw is not None else None

    def _take_reasoning_in(self, raw: Any, counts: dict[str, Any], other: dict[str, int]) -> None:
        thought = counts.get("reasoning_tokens")
        if not thought or not all(each in counts for each in self.shape.requires):
            return
        parts = sum(counts[each] for each in self.shape.requires)
        outside = self._total is not None and walk(raw, self._total) == parts + thought
        answer = counts["output_tokens"] - other.get("output_citation_tokens", 0)
        if not outside and self._beside is not None and thought > answer:
            outside = walk(raw, self._beside) == thought
        if outside:
            counts["output_tokens"] += thought

    def _status(self, counts: Mapping[str, Any], *, told: bool, broken: bool) -> str:
        if broken:
            return "invalid"
        if not told:
            return "missing"
        for whole, parts in self._inside:
            rest = counts.get(whole, 0)
            for part in parts:
                rest -= counts.get(part, 0)
            if rest < 0 and whole in counts:
                return "invalid"
        for name in self.shape.requires:
            if name not in counts:
                return "partial"
        return "reported"


def _sum(raw: Any, paths: tuple[tuple[tuple[Steps, ...], bool], ...], *, rounded: bool) -> int | None:
    """The sum of the counts at the paths, of lists where they say so; `None` if there is none, or one is no count.

    Time is billed to the nearest second (OpenAI's pricing page, transcription).
    """
    total: int | None = None
    for path, many in paths:
        value = walk(raw, path)
        for each in value if many and isinstance(value, list) else (value,):
            if each is None:
                continue
            count = each
            if isinstance(each, float) and math.isfinite(each) and (rounded or each.is_integer()):
                count = math.floor(each + 0.5)
            if type(count) is not int or not 0 <= count <= MOST_OF_A_COUNT:
                return None
            total = count + (total or 0)
    return total
