"""An endpoint's table made ready to read with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spanledger.instrumentation.spec import Count, Endpoint
from spanledger.usage.paths import Steps, at_path, compiled, fields_of, plain_word, walk
from spanledger.usage.shape import SCALARS, Reader


class Plan:
    """An endpoint's table with its paths taken apart, once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.usage_at = tuple(compiled(path) for path in endpoint.usage_at)
        self._loose = tuple((name, compiled(path)) for name, path in endpoint.loose.items())
        self._usage = Reader(endpoint.usage)
        self._spelled = tuple((compiled(path), Reader(shape)) for path, shape in endpoint.spelled.items())
        self.finish = compiled(endpoint.finish_reasons) if endpoint.finish_reasons else None
        self.end = compiled(endpoint.end) if endpoint.end else None
        self.state = compiled(endpoint.state) if endpoint.state else None
        self.names = tuple(
            (name, compiled(path)) for name in ("id", "model", "service_tier") if (path := getattr(endpoint, name))
        )
        plain = len(endpoint.signals) == 1 and "." not in endpoint.signals[0]
        self.signal = endpoint.signals[0] if plain else ""
        """The attribute to look for in every chunk, where that is all."""
        self._signals = tuple(steps for signal in endpoint.signals for steps in compiled(signal))
        self._last_signals = tuple(steps for signal in endpoint.last_signals for steps in compiled(signal))
        self._request = {path: attribute for attribute, path in endpoint.request.items() if "." not in path}
        self._nested_request: dict[str, list[tuple[str, str]]] = {}
        for attribute, path in endpoint.request.items():
            if "." in path:
                self._nested_request.setdefault(path.split(".")[0], []).append((attribute, path.partition(".")[2]))
        self._variants = tuple((part, Plan(each)) for part, each in endpoint.variants.items())
        self.starts: dict[Any, tuple[str, dict[str, Any]]] = {}
        """Span name and start attributes that calls to one model at one server share; bounded."""

    def of(self, request: Mapping[str, Any]) -> Plan:
        """The plan for a request: a method may be asked different things of different models."""
        model = request.get(self.endpoint.request_model) if self._variants else None
        found = (plan for part, plan in self._variants if isinstance(model, str) and part in model)
        return next(found, self)

    def tells(self, chunk: Any, *, last: bool = False) -> bool:
        """Whether a chunk of a stream is worth reading; one of an odd type is."""
        try:
            return _any_set(chunk, self._signals) or (last and _any_set(chunk, self._last_signals))
        except (AttributeError, LookupError, TypeError):
            return True

    def find_usage(self, response: Any) -> Any:
        """The response's usage object, `None` if it has none. Only the first place may hold something else than one."""
        if self.endpoint.merges:
            return self._gathered(response)
        found = walk(response, self.usage_at[0])
        for path in self.usage_at[1:]:
            if found is not None:
                break
            found = walk(response, path)
            if isinstance(found, SCALARS):
                found = None
        return found

    def _gathered(self, response: Any) -> dict[str, Any] | None:
        """What all places of the response say together."""
        gathered: dict[str, Any] = {}
        for name, path in self._loose:
            found = walk(response, path)
            if isinstance(found, list):
                found = sum(found) if found and all(isinstance(each, (int, float)) for each in found) else None
            if found is not None:
                gathered[name] = found
        for path in self.usage_at:
            gathered |= fields_of(walk(response, path))
        return gathered or None

    def reader(self, raw: Any) -> Reader:
        """What reads this usage object."""
        for path, reader in self._spelled:
            if walk(raw, path) is not None:
                return reader
        return self._usage

    def counted(self, response: Any, *, told: bool) -> dict[str, int]:
        """What is counted in the response itself, where there is something to count; `told`: it has a usage object."""
        return {
            name: found
            for name, count in self.endpoint.counts.items()
            if not (told and count.instead) and (found := _counted(count, response)) is not None
        }

    def lengths(self, request: Mapping[str, Any]) -> dict[str, int]:
        """What is counted in the request itself."""
        return {
            name: len(found)
            for name, length in self.endpoint.lengths.items()
            if isinstance(found := at_path(request, length.path), str)
        }

    def context(self, request: Mapping[str, Any]) -> dict[str, str]:
        """What the price depends on, as far as the request says it."""
        return {
            key: found
            for key, path in self.endpoint.context.items()
            if isinstance(found := plain_word(at_path(request, path)), str)
        }

    def request_attributes(self, request: Mapping[str, Any], attributes: dict[str, Any]) -> None:
        """Add span attributes of the request: plain values only, so an SDK's "not given" marker is nothing."""
        for name, value in request.items():
            attribute = self._request.get(name)
            if attribute is not None:
                if isinstance(value, (str, int, float)):
                    attributes[attribute] = value
            elif name in self._nested_request:
                for nested, path in self._nested_request[name]:
                    found = at_path(value, path)
                    if isinstance(found, (str, int, float)):
                        attributes[nested] = found


def _any_set(chunk: Any, signals: tuple[Steps, ...]) -> bool:
    for steps in signals:
        value = chunk
        for step in steps:
            if value.__class__ is dict:
                value = value.get(step)
            elif step.__class__ is int:
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


def _counted(count: Count, response: Any) -> int | None:
    items = at_path(response, count.items)
    if not isinstance(items, (list, tuple)):
        return None
    return sum(
        item is not None and all(at_path(item, path) in (None, wanted) for path, wanted in count.where.items())
        for item in items
    )
