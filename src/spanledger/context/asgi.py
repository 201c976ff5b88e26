"""ASGI middleware: the attribution of a request holds for everything that the application does for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spanledger.context.scope import Frame, nobody
from spanledger.context.sources import Asked, Baggage, Headers, Whose, decoded, owner_of, said_in_time

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]


class AttributionMiddleware:
    """`app.add_middleware(AttributionMiddleware, whose=…)` in FastAPI and Starlette, `AttributionMiddleware(app, …)`
    elsewhere.

    `whose(scope)` says whose a request is: an `Attribution`, a mapping of its keys, or `None`; it may be a coroutine
    function. Or it is `Headers(…)` or `Baggage(…)`. Streamed bodies and background tasks belong to the request.
    """  # noqa: D205

    def __init__(self, app: App, whose: Whose | Headers | Baggage) -> None:
        self._app = app
        self._whose = whose

    async def __call__(
        self, scope: Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[Any]]
    ) -> None:
        """Serve a request, or a WebSocket, under its attribution. What the application raises passes through."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        whose = self._whose
        said = whose.read(asked(scope)) if isinstance(whose, (Headers, Baggage)) else await said_in_time(whose, scope)
        with Frame(nobody, owner=owner_of(said)):
            await self._app(scope, receive, send)


def asked(scope: Scope) -> Asked:
    """A request, as sources read it."""
    found: dict[str, str] = {}
    for name, value in scope.get("headers") or ():
        known, text = found.get(key := name.decode("latin-1").lower()), decoded(value)
        found[key] = text if known is None else f"{known},{text}"
    client = scope.get("client")
    return Asked(found.get, client[0] if client else None)
