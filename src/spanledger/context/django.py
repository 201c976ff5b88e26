"""Django middleware, for sync and async views: `MIDDLEWARE = […, "spanledger.context.django.attribution_middleware"]`.

`SPANLEDGER_ATTRIBUTION` in Django's settings says whose a request is: a function of the `HttpRequest` (or its dotted
path), `Headers(…)` or `Baggage(…)`. After `AuthenticationMiddleware` it can read `request.user`.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async  # what Django needs is there with it
from django.conf import settings
from django.utils.decorators import sync_and_async_middleware
from django.utils.module_loading import import_string

from spanledger.context.scope import Frame, current, nobody
from spanledger.context.sources import Asked, Baggage, Headers, decoded, owner_of, said_by, said_in_time
from spanledger.context.steps import AsyncSteps, Steps


@sync_and_async_middleware  # type: ignore[untyped-decorator]  # Django has no types
def attribution_middleware(get_response: Any) -> Any:
    """The middleware. Raises `ImproperlyConfigured`, or `ImportError`, where the setting says nothing usable."""
    whose = _whose()
    reads = isinstance(whose, (Headers, Baggage))
    if iscoroutinefunction(get_response):

        async def in_time(request: Any) -> Any:
            said = await (whose if iscoroutinefunction(whose) else sync_to_async(whose))(
                request
            )  # it may ask a database
            return await said if hasattr(said, "__await__") else said

        async def serve_async(request: Any) -> Any:
            said = whose.read(_asked(request)) if reads else await said_in_time(in_time, request)
            with Frame(nobody, owner=owner_of(said)):
                return _streamed(await get_response(request))

        return serve_async

    def serve(request: Any) -> Any:
        said = whose.read(_asked(request)) if reads else said_by(whose, request)
        with Frame(nobody, owner=owner_of(said)):
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
    if getattr(response, "streaming", False) and getattr(response, "file_to_stream", None) is None:
        steps: Any = AsyncSteps if getattr(response, "is_async", False) else Steps
        owner, close = current(), response.close

        def close_as_owner() -> None:
            with Frame(nobody, owner=owner):
                close()

        response.streaming_content = steps(response.streaming_content, Frame(nobody, owner=owner))
        response.close = close_as_owner
    return response


def _asked(request: Any) -> Asked:
    def header(name: str) -> str | None:
        value = request.headers.get(name)
        return None if value is None else decoded(value.encode("latin-1", "replace"))

    return Asked(header, request.META.get("REMOTE_ADDR") or None)
