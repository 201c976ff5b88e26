"""Watch a stream without replacing it: the SDK's own object stays what it is, `isinstance`, `with` and all.

The object's inner iterator is exchanged for one that looks at what passes.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from spanledger.instrumentation.call import Call
from spanledger.instrumentation.closing import on_aclose, on_close

_INNER: Final = ("_iterator", "generator", "_event_generator")
"""Where the streams of the SDKs keep what they draw their chunks from: stainless, google-genai, botocore."""


def watch_stream(call: Call, stream: Any) -> bool:
    """Watch a stream object. False if it is none that can be watched."""
    stream = getattr(stream, "_raw_stream", stream) if not hasattr(stream, "_event_generator") else stream
    name = next((name for name in _INNER if getattr(stream, name, None) is not None), None)
    if name is None:
        return False
    inner = getattr(stream, name)
    closes = getattr(stream, "response", stream)
    watched = watched_iterator(call, inner)
    if watched is None:
        return False
    closed = _closed_by(call, watched)
    on_close(closes, closed)
    on_aclose(closes, closed)
    setattr(stream, name, watched)
    return True


def watched_iterator(call: Call, inner: Any) -> Any:
    """What yields the same as an iterator, sync or async, under our watch; `None` if it is no iterator."""
    watched: Any
    if hasattr(inner, "__anext__"):
        watched = _async_chunks(call, inner, _Dropped(call))
    elif hasattr(inner, "__next__"):
        watched = _chunks(call, inner, _Dropped(call))
    else:
        return None
    call.streaming()
    return watched


class _Dropped:
    """Lives in the frame of a watching generator, and so dies with the stream, however that is."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        # A collection may run anywhere, under any lock: the writer's thread ends the call.
        self._call.dropped()


def _closed_by(call: Call, watched: Any) -> Callable[[], None]:
    """What closing the HTTP response means: nothing while the SDK itself reads, the end otherwise."""
    alive = weakref.ref(watched)
    running = "ag_running" if hasattr(watched, "ag_running") else "gi_running"

    def closed() -> None:
        generator = alive()
        if generator is None:
            call.dropped()
        elif not getattr(generator, running):
            call.closed()

    return closed


# These two loops are the only code of ours that runs for each chunk, so everything is written out. They keep the last
# chunks and look for a usage; `Call.saw` does the rest where there is something to see.


def _chunks(call: Call, iterator: Iterator[Any], _: _Dropped) -> Iterator[Any]:
    advance, keep, signal, special = iterator.__next__, call.tail.append, call.plan.signal, True
    while True:
        try:
            chunk = advance()
        except StopIteration:
            call.exhausted()
            return
        except BaseException as error:
            call.failed(error)
            raise
        keep(chunk)
        try:
            telling = special or chunk.__dict__.get(signal) is not None
        except AttributeError:  # no typed object
            telling = True
        if telling:
            passes = call.saw(chunk)
            special = call.special
            if not passes:
                continue
        yield chunk


async def _async_chunks(call: Call, iterator: AsyncIterator[Any], _: _Dropped) -> AsyncIterator[Any]:
    advance, keep, signal, special = iterator.__anext__, call.tail.append, call.plan.signal, True
    while True:
        try:
            chunk = await advance()
        except StopAsyncIteration:
            call.exhausted()
            return
        except BaseException as error:
            call.failed(error)
            raise
        keep(chunk)
        try:
            telling = special or chunk.__dict__.get(signal) is not None
        except AttributeError:  # no typed object
            telling = True
        if telling:
            passes = call.saw(chunk)
            special = call.special
            if not passes:
                continue
        yield chunk
