"""Watch an answer whose bytes the application reads itself: `with_raw_response`, `with_streaming_response`.

The HTTP response's byte iterator is exchanged for one that looks at what passes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from spanledger.guard import failed
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.closing import on_aclose, on_close
from spanledger.instrumentation.eventstream import CONTENT_TYPE, chunk_of, take_frames
from spanledger.usage.paths import decoded

_MOST_BUFFERED: Final = 32 * 2**20
_BINARY: Final = ("audio/", "image/", "application/octet-stream")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


def watch_raw(call: Call, response: Any, *, stream: bool) -> bool:
    """Watch an HTTP response whose bytes the application reads itself. False if it can't be watched.

    `stream`: a stream of events was asked for. A body that is already there is read at once.
    """
    if not stream and (getattr(response, "is_stream_consumed", False) or getattr(response, "is_closed", False)):
        read_events(call, response)  # bytes of speech may be events
        call.succeeded(decoded(response.content))
        return True
    if not hasattr(response, "iter_bytes"):
        return False
    content_type = response.headers.get("content-type", "") if hasattr(response, "headers") else ""
    body = _body_of(content_type, stream=stream)(call)
    response.iter_bytes = body.watching(response.iter_bytes)
    response.aiter_bytes = body.watching_async(response.aiter_bytes)
    on_close(response, body.closed)
    on_aclose(response, body.closed)
    call.streaming()
    return True


def read_events(call: Call, response: Any) -> None:
    """Take in an HTTP response of server-sent events that was read to its end."""
    if "event-stream" in response.headers.get("content-type", ""):
        _Events(call).whole(response.content)


def _body_of(content_type: str, *, stream: bool) -> type[Body]:
    if content_type.startswith(_BINARY):
        return _Binary
    if "event-stream" in content_type:
        return _Events
    if not stream or "json" in content_type:
        return Body
    return _Frames if CONTENT_TYPE in content_type else _Events


class Body:
    """A body that is one JSON document."""

    _whole = True
    """Whether the answer is all there when the body is at its end."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.buffer = bytearray()
        self._started = False
        self._ended = False
        self.reading = False
        """Whether the SDK is in the middle of reading."""

    def watching(self, original: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        """The response's `iter_bytes`, observed."""

        def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            source = original(*args, **kwargs)
            while True:
                self.reading = True
                try:
                    data = next(source)
                except StopIteration:
                    self.end(None)
                    return
                except BaseException as error:
                    self.end(error)
                    raise
                self.reading = False
                self.feed(data)
                yield data

        return iter_bytes

    def watching_async(self, original: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        """The response's `aiter_bytes`, observed."""

        async def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            source = original(*args, **kwargs)
            while True:
                self.reading = True
                try:
                    data = await source.__anext__()
                except StopAsyncIteration:
                    self.end(None)
                    return
                except BaseException as error:
                    self.end(error)
                    raise
                self.reading = False
                self.feed(data)
                yield data

        return aiter_bytes

    def closed(self) -> None:
        """The response was closed; where it closes itself at the end of its bytes, they say so. Never raises."""
        if not self.reading:
            self.call.closed()

    def feed(self, data: bytes) -> None:
        """Look at bytes as they pass. Never raises."""
        if self._ended:
            return
        try:
            if not self._started:
                self._started = True
                self.call.begun()
            self._take(data)
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a raw answer said", error)

    def _take(self, data: bytes) -> None:
        if len(self.buffer) + len(data) <= _MOST_BUFFERED:
            self.buffer += data

    def end(self, error: BaseException | None) -> None:
        """The bytes are at their end. Never raises."""
        if self._ended:
            return
        self._ended = True
        try:
            self._finish()
        except Exception as mistake:  # noqa: BLE001  # a door
            failed("what a raw answer said", mistake)
        self.buffer = bytearray()
        if error is None:
            self.call.exhausted(whole=self._whole)
        else:
            self.call.failed(error)

    def _finish(self) -> None:
        self.call.read_whole(decoded(bytes(self.buffer)))

    def __del__(self) -> None:
        self.call.dropped()


class _Binary(Body):
    """A body that says nothing."""

    def _take(self, _: bytes) -> None:
        """Nothing is kept."""


class _Events(Body):
    """A body of server-sent events (WHATWG HTML, 9.2): `data` lines up to an empty one, ended by CR, LF or both."""

    _whole = False

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._lines: list[bytes] = []
        self._too_long = False

    def whole(self, body: bytes) -> None:
        """Take in all of it."""
        self._take(body)
        self._finish()

    def _take(self, data: bytes) -> None:
        *ended, rest = _LINE_END.split(data)
        for part in ended:
            self._append(part)
            self._line()
        self._append(rest)

    def _append(self, part: bytes) -> None:
        """More of the current line; of one without end only that it was there."""
        if len(self.buffer) + len(part) > _MOST_BUFFERED:
            self._too_long = True
            self.buffer.clear()
        elif not self._too_long:
            self.buffer += part

    def _line(self) -> None:
        line, too_long = bytes(self.buffer), self._too_long
        self.buffer.clear()
        self._too_long = False
        if not line and not too_long:
            self._dispatch()
        elif line.startswith(b"data:"):
            self._lines.append(line[5:].removeprefix(b" "))

    def _dispatch(self) -> None:
        data = b"\n".join(self._lines)
        self._lines.clear()
        if data and data != b"[DONE]":
            self.call.read(decoded(data))

    def _finish(self) -> None:
        self._line()
        self._dispatch()


class _Frames(Body):
    """A body of Amazon's event stream, in whose chunks a model's own events are."""

    _whole = False
    _broken = False
    """Whether it turned out to be none; what comes then is not looked at."""

    def _take(self, data: bytes) -> None:
        if self._broken:
            return
        self.buffer += data
        try:
            for payload in take_frames(self.buffer):
                chunk = chunk_of(payload)
                if chunk is not None:
                    self.call.read(chunk)
        except ValueError:
            self._broken = True
        if self._broken or len(self.buffer) > _MOST_BUFFERED:
            self._broken = True
            self.buffer.clear()

    def _finish(self) -> None:
        """There is no frame at the end that has not ended."""
