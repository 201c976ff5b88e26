"""An endpoint's table made ready to read with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spanledger.instrumentation.spec import Count, Endpoint
from spanledger.model import Usage
from spanledger.usage.paths import at_path, compiled, walk
from spanledger.usage.shape import SCALARS, Reader


class Plan:
    """An endpoint's table with its paths taken apart, once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.usage_at = tuple(compiled(path) for path in endpoint.usage_at)
        self.usage = Reader(endpoint.usage)
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
        """The response's usage object, `None` if it has none. Only the first place may hold something else than one."""
        found = walk(response, self.usage_at[0])
        for path in self.usage_at[1:]:
            if found is not None:
                break
            found = walk(response, path)
            if isinstance(found, SCALARS):
                found = None
        return found

    def read_usage(self, raw: Any, response: Any) -> Usage:
        """The usage of a response: `raw` is its usage object."""
        items = {
            name: found
            for name, count in self.endpoint.counts.items()
            if (found := _counted(count, response)) is not None
        }
        return self.usage.usage(raw, items)

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


def _counted(count: Count, response: Any) -> int | None:
    items = at_path(response, count.items)
    if not isinstance(items, (list, tuple)):
        return None
    return sum(all(at_path(item, path) in (None, wanted) for path, wanted in count.where.items()) for item in items)
