"""Django middleware, for sync and async views: `MIDDLEWARE = […, "spanledger.context.django.attribution_middleware"]`.

`SPANLEDGER_ATTRIBUTION` in Django's settings says whose a request is: a function of the `HttpRequest` (or its dotted
path), `Headers(…)` or `Baggage(…)`. After `AuthenticationMiddleware` it can read `request.user`.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction  # what Django needs is there with it
from django.conf import settings
from django.utils.decorators import sync_and_async_middleware
from django.utils.module_loading import import_string

from spanledger.context.scope import Frame, current, nobody
from spanledger.context.sources import Asked, Baggage, Headers, owner_of, said_by, said_in_time
from spanledger.context.steps import AsyncSteps, Steps


@sync_and_async_middleware  # type: ignore[untyped-decorator]  # Django has no types
def attribution_middleware(get_response: Any) -> Any:
    """The middleware. Raises `ImproperlyConfigured`, or `ImportError`, where the setting says nothing usable."""
    whose = _whose()
    reads = isinstance(whose, (Headers, Baggage))
    if iscoroutinefunction(get_response):

        async def serve_async(request: Any) -> Any:
            said = whose.read(_asked(request)) if reads else await said_in_time(whose, request)
            with Frame(owner_of(said), nobody):
                return _streamed(await get_response(request))

        return serve_async

    def serve(request: Any) -> Any:
        said = whose.read(_asked(request)) if reads else said_by(whose, request)
        with Frame(owner_of(said), nobody):
            return _streamed(get_response(request))

    return serve


def _whose() -> Any:
    whose = getattr(settings, "SPANLEDGER_ATTRIBUTION", None)
    whose = import_string(whose) if isinstance(whose, str) else whose
    if not isinstance(whose, (Headers, Baggage)) and not callable(whose):
        from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415  # in the one case

        raise ImproperlyConfigured(
            "SPANLEDGER_ATTRIBUTION must say whose a request is: a function of the request, its dotted path,"
            " spanledger.context.sources.Headers(…) or Baggage(…)"
        )
    return whose


def _streamed(response: Any) -> Any:
    """The response; a streamed body belongs to the request, whoever reads it."""
    if getattr(response, "streaming", False):
        steps: Any = AsyncSteps if getattr(response, "is_async", False) else Steps
        response.streaming_content = steps(response.streaming_content, Frame(current(), nobody))
    return response


def _asked(request: Any) -> Asked:
    return Asked(request.headers.get, request.META.get("REMOTE_ADDR") or None)
