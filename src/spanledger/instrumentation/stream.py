"""Watch a stream without replacing it: the SDK's own object stays what it is, `isinstance`, `with` and all.

Parsed streams: the object's inner iterator is exchanged for one that looks at what passes. Raw answers: the HTTP
response's byte iterator is. In both, closing the HTTP response is what ends a stream early.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from spanledger.guard import failed
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.collect import at_path

_MOST_BUFFERED: Final = 32 * 2**20


def watch_parsed(call: Call, stream: Any) -> bool:
    """Watch a stream of parsed chunks. False if it is no stream that can be watched."""
    iterator = getattr(stream, "_iterator", None)
    response = getattr(stream, "response", None)
    if iterator is None or response is None:
        return False
    if hasattr(iterator, "__anext__"):
        stream._iterator = _AsyncChunks(call, iterator)  # noqa: SLF001  # same name in every version of the SDKs
        _on_aclose(response, call.closed)
    else:
        stream._iterator = _Chunks(call, iterator)  # noqa: SLF001
        _on_close(response, call.closed)
    call.streaming()
    return True


class _Watched:
    """What both iterators share: the look at each chunk, and the end that the garbage collector brings."""

    __slots__ = ("_advance", "_call", "_signals", "_started")

    def __init__(self, call: Call, advance: Callable[[], Any]) -> None:
        self._call = call
        self._advance = advance
        self._signals = call.endpoint.signals
        self._started = False

    def _passes(self, chunk: Any) -> bool:
        """Look at a chunk. False: the application did not ask for it. Never raises."""
        try:
            call = self._call
            if not self._started or call.ticks_each_chunk:
                call.tick()
            telling = not self._started
            self._started = True
            for signal in self._signals:
                if telling:
                    break
                telling = at_path(chunk, signal) is not None
            if telling:
                for root in call.endpoint.roots:
                    found = at_path(chunk, root)
                    if found is not None:
                        call.read(found)
            return not call.hides_usage or _without_usage(chunk)
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a chunk of a stream said", error)
            return True

    def __del__(self) -> None:
        # A collection may run anywhere, under any lock: the writer's thread ends the call.
        self._call.dropped()


class _Chunks(_Watched):
    __slots__ = ()

    def __init__(self, call: Call, iterator: Iterator[Any]) -> None:
        super().__init__(call, iterator.__next__)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        call = self._call
        while True:
            call.inside = True
            try:
                chunk = self._advance()
            except StopIteration:
                call.exhausted()
                raise
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.inside = False
            if self._passes(chunk):
                return chunk


class _AsyncChunks(_Watched):
    __slots__ = ()

    def __init__(self, call: Call, iterator: AsyncIterator[Any]) -> None:
        super().__init__(call, iterator.__anext__)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        while True:
            call.inside = True
            try:
                chunk = await self._advance()
            except StopAsyncIteration:
                call.exhausted()
                raise
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.inside = False
            if self._passes(chunk):
                return chunk


def _without_usage(chunk: Any) -> bool:
    """Undo what asking for usage changed: the extra last chunk, and the usage field of all the others."""
    fields_set = getattr(chunk, "__pydantic_fields_set__", None)
    if fields_set is None:
        return True
    usage = chunk.__dict__.get("usage")
    if usage is not None:
        if chunk.__dict__.get("choices") == []:
            return False
        chunk.usage = None
    fields_set.discard("usage")
    return True


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
    _on_close(response, body.closed)
    _on_aclose(response, body.closed)
    call.streaming()
    return True


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _Body:
    """A body that is one JSON document."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._buffer = bytearray()
        self._started = False
        self._whole = False

    def watching(self, original: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        """The response's `iter_bytes`, observed."""

        def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            source = original(*args, **kwargs)
            call = self._call
            while True:
                call.inside = True
                try:
                    data = next(source)
                except StopIteration:
                    self._end(None)
                    return
                except BaseException as error:
                    self._end(error)
                    raise
                finally:
                    call.inside = False
                self._feed(data)
                yield data

        return iter_bytes

    def watching_async(self, original: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        """The response's `aiter_bytes`, observed."""

        async def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            source = original(*args, **kwargs)
            call = self._call
            while True:
                call.inside = True
                try:
                    data = await source.__anext__()
                except StopAsyncIteration:
                    self._end(None)
                    return
                except BaseException as error:
                    self._end(error)
                    raise
                finally:
                    call.inside = False
                self._feed(data)
                yield data

        return aiter_bytes

    def closed(self) -> None:
        """The response was closed. Never raises."""
        self._call.closed()

    def _feed(self, data: bytes) -> None:
        """Look at bytes as they pass. Never raises."""
        try:
            if not self._started:
                self._started = True
                self._call.tick()
            if len(self._buffer) + len(data) <= _MOST_BUFFERED:
                self._buffer += data
                self._look()
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a raw answer said", error)

    def _look(self) -> None:
        """Read what is complete in the buffer."""

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
        self._call.read(_decoded(bytes(self._buffer)))

    def __del__(self) -> None:
        self._call.dropped()


class _Events(_Body):
    """A body of server-sent events."""

    def _look(self) -> None:
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._event(line)

    def _finish(self) -> None:
        self._event(bytes(self._buffer))

    def _event(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if not data or data == b"[DONE]":
            return
        chunk = _decoded(data)
        call = self._call
        for root in call.endpoint.roots:
            found = at_path(chunk, root)
            if found is not None:
                call.read(found)


def _on_close(response: Any, closed: Callable[[], None]) -> None:
    original = getattr(response, "close", None)
    if original is None:
        return

    def close(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            closed()

    response.close = close


def _on_aclose(response: Any, closed: Callable[[], None]) -> None:
    original = getattr(response, "aclose", None)
    if original is None:
        return

    async def aclose(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        finally:
            closed()

    response.aclose = aclose
