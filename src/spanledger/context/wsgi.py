"""WSGI middleware: the attribution of a request holds while it is answered, its streamed body included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spanledger.context.scope import Frame, current, nobody
from spanledger.context.sources import Asked, Baggage, Headers, Whose, decoded, owner_of, said_by
from spanledger.context.steps import Steps

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class AttributionMiddleware:
    """`AttributionMiddleware(app, whose=…)`; in Flask `app.wsgi_app = AttributionMiddleware(app.wsgi_app, whose=…)`.

    `whose(environ)` says whose a request is: an `Attribution`, a mapping of its keys, or `None`. Or it is `Headers(…)`
    or `Baggage(…)`.
    """

    def __init__(self, app: App, whose: Whose | Headers | Baggage) -> None:
        self._app = app
        self._whose = whose

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request under its attribution. What the application raises passes through."""
        whose = self._whose
        said = whose.read(asked(environ)) if isinstance(whose, (Headers, Baggage)) else said_by(whose, environ)
        with Frame(nobody, owner=owner_of(said)):
            body = self._app(environ, start_response)
            wrapper = environ.get("wsgi.file_wrapper")  # any callable: uWSGI has a function
            is_made = isinstance(body, (list, tuple, wrapper if isinstance(wrapper, type) else ()))
            is_file = wrapper is not None and hasattr(body, "read")
            return body if is_made or is_file else Steps(body, Frame(nobody, owner=current()))


def asked(environ: Environ) -> Asked:
    """A request, as sources read it."""

    def header(name: str) -> str | None:
        value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
        return None if value is None else decoded(value.encode("latin-1", "replace"))

    return Asked(header, environ.get("REMOTE_ADDR") or None)
