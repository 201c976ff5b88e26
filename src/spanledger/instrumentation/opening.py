"""Context managers that make their request only when they are entered, such as Anthropic's `messages.stream`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from spanledger.guard import failed


def watch_request(
    manager: Any, ending: str, watch: Callable[..., Any], instance: Any, request: Mapping[str, Any]
) -> None:
    """Have `watch` see the request that a manager is going to make. Never raises."""
    try:
        name = next(name for name in vars(manager) if name.endswith(ending))
        asks = vars(manager)[name]
        if callable(asks):
            setattr(manager, name, lambda: watch(lambda **_: asks(), instance, (), request))
        else:
            setattr(manager, name, _Later(lambda: watch(lambda **_: asks, instance, (), request)))
    except Exception as error:  # noqa: BLE001  # a door
        failed("a streamed call", error)


class _Later:
    """An awaitable that is made when it is awaited, so that nothing of ours warns where nobody awaits."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._make().__await__()  # type: ignore[no-any-return]
