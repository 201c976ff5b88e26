"""Amazon Bedrock's answers as botocore and aiobotocore hand them over: mappings, where one member may be a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final

from spanledger.guard import failed
from spanledger.instrumentation.call import Call, attempts_of
from spanledger.instrumentation.closing import on_aclose, on_close
from spanledger.instrumentation.eventstream import chunk_of
from spanledger.instrumentation.raw import Body
from spanledger.instrumentation.stream import watch_stream
from spanledger.usage.paths import decoded

METRICS: Final = "amazon-bedrock-invocationMetrics"
_DIGITS: Final = 12
_HEADER: Final = "x-amzn-bedrock-"
_COUNTS: Final = {
    "input-token-count": "inputTokenCount",
    "output-token-count": "outputTokenCount",
    "cache-read-input-token-count": "cacheReadInputTokenCount",
    "cache-write-input-token-count": "cacheWriteInputTokenCount",
}
"""End of the header's name → name of the same count in the metrics at the end of a stream (Bedrock user guide)."""


def follow(call: Call, result: Any, _: Mapping[str, Any]) -> Any:
    """A Converse answer is whole; the others carry an event stream, or the body that the model itself wrote."""
    if not isinstance(result, dict):
        call.succeeded(result)
        return result
    call.attempts = attempts_of(result)
    events, body = result.get("stream"), result.get("body")
    events = body if hasattr(body, "_event_generator") else events
    if hasattr(events, "_event_generator"):
        call.decode = event
        if watch_stream(call, events):
            _watch_errors(call, events)
            return result
    elif hasattr(body, "read"):
        counts = header_counts(result)
        if counts is not None:
            call.read({METRICS: counts})
        _ModelBody(call).watch(body)
        return result
    call.succeeded(result)
    return result


def header_counts(result: Mapping[str, Any]) -> dict[str, int] | None:
    """The token counts in the HTTP headers of an answer."""
    headers = (result.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    told = {name: str(headers.get(_HEADER + end, "")) for end, name in _COUNTS.items()}
    return {name: int(value) for name, value in told.items() if value.isdecimal() and len(value) < _DIGITS} or None


def event(message: Any) -> Any:
    """An event as botocore parses it; of a `chunk` what the model itself has written."""
    data = decoded(message.payload)
    if message.headers.get(":event-type") != "chunk":
        return {message.headers.get(":event-type"): data}
    return chunk_of(data)


def _watch_errors(call: Call, events: Any) -> None:
    """An error that comes as an event is raised where the events are parsed."""
    parse = events._parse_event  # noqa: SLF001  # same name in every version

    def parse_event(message: Any) -> Any:
        try:
            return parse(message)
        except BaseException as error:
            call.failed(error)
            raise

    async def parse_event_async(message: Any) -> Any:
        try:
            return await parse(message)
        except BaseException as error:
            call.failed(error)
            raise

    # aiobotocore's was no coroutine until 2.14, though its stream is asynchronous.
    events._parse_event = parse_event_async if iscoroutinefunction(parse) else parse_event  # noqa: SLF001


def _length_of(body: Any) -> int:
    length = str(getattr(body, "_content_length", None) or getattr(body, "_self_content_length", None) or "")
    return int(length) if length.isdecimal() else -1


class _ModelBody(Body):
    """The body of an InvokeModel answer, read by the application."""

    _left = -1
    """How many bytes are still to come; negative where nobody has said how many there are."""

    def watch(self, body: Any) -> None:
        """Look at what is read through the body's own methods."""
        asynchronous = hasattr(body, "__aenter__")
        self._left = _length_of(body)
        raw = getattr(body, "_raw_stream", None)
        if not asynchronous and raw is not None and hasattr(raw, "__dict__"):
            body = raw  # `with body as stream` hands it out
        wrap = self._reading_async if asynchronous else self._reading_sync
        bare: Any = getattr(body, "__wrapped__", None)  # `async with` of aiobotocore 2 hands it out
        if asynchronous and hasattr(bare, "read") and hasattr(bare, "__dict__"):
            bare.read = wrap(bare.read)
        for name in ("read", "readinto", "readlines", "read1"):
            method = getattr(body, name, None)
            if method is not None:
                setattr(body, name, wrap(method))
        on_close(body, self.closed)
        on_aclose(body, self.closed)
        self.call.streaming()

    def _reading_sync(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(*args: Any, **kwargs: Any) -> Any:
            if self.reading:
                return method(*args, **kwargs)
            self.reading = True
            try:
                data = method(*args, **kwargs)
            except BaseException as error:
                self.end(error)
                raise
            self.reading = False
            self._take_in(data, next((each for each in (*args, *kwargs.values())), None))
            return data

        return read

    def _reading_async(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def read(*args: Any, **kwargs: Any) -> Any:
            if self.reading:
                return await method(*args, **kwargs)
            self.reading = True
            try:
                data = await method(*args, **kwargs)
            except BaseException as error:
                self.end(error)
                raise
            self.reading = False
            self._take_in(data, next((each for each in (*args, *kwargs.values())), None))
            return data

        return read

    def _take_in(self, data: Any, asked: Any) -> None:
        """What a method has read: bytes, lines, or so many bytes of the buffer it was given. Never raises."""
        try:
            if isinstance(data, list):
                read, done = b"".join(data), asked is None
            elif isinstance(data, int):
                read, done = bytes(memoryview(asked)[:data]), not data and len(asked) > 0
            else:
                read, done = bytes(data), asked is None or asked < 0 or (not data and asked != 0)
            self.feed(read)
            self._left -= len(read)
            if done or self._left == 0:  # who knows the length asks for no more
                self.end(None)
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a model's answer said", error)
