"""Watch an answer whose bytes the application reads itself: `with_raw_response`, `with_streaming_response`.

The HTTP response's byte iterator is exchanged for one that looks at what passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from spanledger.guard import failed
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.closing import on_aclose, on_close

_MOST_BUFFERED: Final = 32 * 2**20
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


def watch_raw(call: Call, response: Any, *, stream: bool) -> bool:
    """Watch an HTTP response whose bytes the application reads itself. False if it can't be watched.

    `stream`: a stream of events was asked for. A body that is already there is read at once.
    """
    if not stream and (getattr(response, "is_stream_consumed", False) or getattr(response, "is_closed", False)):
        call.succeeded(_decoded(response.content))
        return True
    if not hasattr(response, "iter_bytes"):
        return False
    content_type = response.headers.get("content-type", "") if hasattr(response, "headers") else ""
    body = _Events(call) if stream and "json" not in content_type else _Body(call)
    response.iter_bytes = body.watching(response.iter_bytes)
    response.aiter_bytes = body.watching_async(response.aiter_bytes)
    on_close(response, body.closed)
    on_aclose(response, body.closed)
    call.streaming()
    return True


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


class _Body:
    """A body that is one JSON document."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._buffer = bytearray()
        self._started = False
        self._reading = False

    def watching(self, original: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        """The response's `iter_bytes`, observed."""

        def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            source = original(*args, **kwargs)
            while True:
                self._reading = True
                try:
                    data = next(source)
                except StopIteration:
                    self._end(None)
                    return
                except BaseException as error:
                    self._end(error)
                    raise
                self._reading = False
                self._feed(data)
                yield data

        return iter_bytes

    def watching_async(self, original: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        """The response's `aiter_bytes`, observed."""

        async def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            source = original(*args, **kwargs)
            while True:
                self._reading = True
                try:
                    data = await source.__anext__()
                except StopAsyncIteration:
                    self._end(None)
                    return
                except BaseException as error:
                    self._end(error)
                    raise
                self._reading = False
                self._feed(data)
                yield data

        return aiter_bytes

    def closed(self) -> None:
        """The response was closed; where it closes itself at the end of its bytes, they say so. Never raises."""
        if not self._reading:
            self._call.closed()

    def _feed(self, data: bytes) -> None:
        """Look at bytes as they pass. Never raises."""
        try:
            if not self._started:
                self._started = True
                self._call.begun()
            self._take(data)
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a raw answer said", error)

    def _take(self, data: bytes) -> None:
        if len(self._buffer) + len(data) <= _MOST_BUFFERED:
            self._buffer += data

    def _end(self, error: BaseException | None) -> None:
        """The bytes are at their end. Never raises."""
        try:
            self._finish()
        except Exception as mistake:  # noqa: BLE001  # a door
            failed("what a raw answer said", mistake)
        if error is None:
            self._call.exhausted()
        else:
            self._call.failed(error)

    def _finish(self) -> None:
        self._call.read_whole(_decoded(bytes(self._buffer)))

    def __del__(self) -> None:
        self._call.dropped()


class _Events(_Body):
    """A body of server-sent events (WHATWG HTML, 9.2): `data` lines up to an empty one, ended by CR, LF or both."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._lines: list[bytes] = []
        self._too_long = False

    def _take(self, data: bytes) -> None:
        *ended, rest = _LINE_END.split(data)
        for part in ended:
            self._append(part)
            self._line()
        self._append(rest)

    def _append(self, part: bytes) -> None:
        """More of the current line; of one without end only that it was there."""
        if len(self._buffer) + len(part) > _MOST_BUFFERED:
            self._too_long = True
            self._buffer.clear()
        elif not self._too_long:
            self._buffer += part

    def _line(self) -> None:
        line, too_long = bytes(self._buffer), self._too_long
        self._buffer.clear()
        self._too_long = False
        if not line and not too_long:
            self._dispatch()
        elif line.startswith(b"data:"):
            self._lines.append(line[5:].removeprefix(b" "))

    def _dispatch(self) -> None:
        data = b"\n".join(self._lines)
        self._lines.clear()
        if data and data != b"[DONE]":
            self._call.read(_decoded(data))

    def _finish(self) -> None:
        self._line()
        self._dispatch()
