"""Sort out the shapes an answer has: whole, streamed, raw. One function per way in which SDKs hand answers over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from spanledger.instrumentation import aws
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.raw import read_events, watch_raw
from spanledger.instrumentation.stream import watch_stream, watched_iterator
from spanledger.usage.paths import at_path, decoded

Follow = Callable[[Call, Any, Mapping[str, Any]], Any]
RAW_HEADER: Final = "X-Stainless-Raw-Response"


def is_raw(request: Mapping[str, Any]) -> bool:
    """Whether the answer is handed over unparsed: `with_raw_response` and `with_streaming_response` say so so."""
    headers = request.get("extra_headers")
    return isinstance(headers, Mapping) and RAW_HEADER in headers


def follow_stainless(call: Call, result: Any, request: Mapping[str, Any]) -> Any:
    """The SDKs that Stainless generates: typed objects, their `Stream`, raw responses."""
    if is_raw(request):
        if not watch_raw(call, getattr(result, "http_response", None), stream=call.streams):
            call.succeeded(result)
    elif not (call.streams and watch_stream(call, result)):
        if call.plan.endpoint.lengths:
            read_events(call, getattr(result, "response", None))  # OpenAI's speech is bytes, also as events
        call.succeeded(result)
    return result


def follow_google(call: Call, result: Any, _: Mapping[str, Any]) -> Any:
    """google-genai: typed objects, generators, and for interactions a `Stream` and raw responses."""
    if call.streams:
        watched = watched_iterator(call, result)
        if watched is not None:
            return watched
    typed = hasattr(type(result), "model_fields")
    response = None if typed else getattr(result, "http_response", None)
    if response is not None and watch_raw(call, response, stream=call.streams):
        return result
    if call.streams and watch_stream(call, result):
        return result
    body = at_path(result, "sdk_http_response.body") if typed else None
    call.succeeded(decoded(body) if isinstance(body, str) else result)  # `should_return_http_response` parses nothing
    return result


FOLLOW: Final[Mapping[str, Follow]] = {
    "stainless": follow_stainless,
    "google": follow_google,
    "aws": aws.follow,
}
"""`Provider.answers` → what takes the call, the method's result and its request, and gives the result to return."""
