"""An endpoint's table made ready to read with, and what reading a usage means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from spanledger.instrumentation.collect import Steps, at_path, compiled, walk
from spanledger.instrumentation.spec import Count, Endpoint
from spanledger.model import MOST_OF_A_COUNT, Usage

_SCALARS: Final = (str, bytes, bool, int, float, list, tuple)
_INSIDE: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_write_tokens", ("cache_write_long_tokens",)),
    ("output_tokens", ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")),
)
"""Counts that are parts of another, and so can't exceed it together."""


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
