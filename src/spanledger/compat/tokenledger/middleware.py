"""TokenLedger's middleware: attribution from headers that anybody can send.

To import this is to choose that. `spanledger.context.asgi` and `.wsgi` take the authenticated user, or headers of
trusted proxies only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spanledger.context import asgi, wsgi
from spanledger.context.scope import merge
from spanledger.context.sources import HEADERS, Headers
from spanledger.guard import log
from spanledger.model import Attribution


class FastAPIMiddleware(asgi.AttributionMiddleware):
    """`app.add_middleware(FastAPIMiddleware)`; Starlette and every other ASGI application can have it, too.

    `names` are attribution keys and the headers they are in. The path is `page`, the method `http_method` in the
    metadata.
    """

    def __init__(self, app: asgi.App, *, names: Mapping[str, str] = HEADERS) -> None:
        headers = _believed(names)

        def whose(scope: asgi.Scope) -> Attribution:
            return _with_request(headers.read(asgi.asked(scope)), scope["path"], scope.get("method"))

        super().__init__(app, whose)


class FlaskMiddleware:
    """`FlaskMiddleware(app)`: the same for a Flask application."""

    def __init__(self, app: Any, *, names: Mapping[str, str] = HEADERS) -> None:
        headers = _believed(names)

        def whose(environ: wsgi.Environ) -> Attribution:
            said = headers.read(wsgi.asked(environ))
            return _with_request(said, environ.get("PATH_INFO"), environ.get("REQUEST_METHOD"))

        app.wsgi_app = wsgi.AttributionMiddleware(app.wsgi_app, whose)


def _believed(names: Mapping[str, str]) -> Headers:
    log.warning(
        "Whoever can reach this service can send %s and be billed as anybody: TokenLedger's middleware believes them"
        " all. spanledger.context.asgi and .wsgi take the authenticated user, or headers of trusted proxies.",
        ", ".join(names.values()),
    )
    return Headers(trust_all=True, names=names)


def _with_request(said: Attribution, path: str | None, method: str | None) -> Attribution:
    """What the headers say, and what was asked; without headers nobody is known."""
    source = said.attribution_source or "unverified_headers"
    return merge(said, {"page": path, "http_method": method})._replace(attribution_source=source)
