"""Watch a stream without replacing it: the SDK's own object stays what it is, `isinstance`, `with` and all.

The object's inner iterator is exchanged for one that looks at what passes.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from spanledger.instrumentation.call import Call
from spanledger.instrumentation.closing import on_aclose, on_close


def watch_parsed(call: Call, stream: Any) -> bool:
    """Watch a stream of parsed chunks. False if it is no stream that can be watched."""
    iterator = getattr(stream, "_iterator", None)
    response = getattr(stream, "response", None)
    if iterator is None or response is None:
        return False
    watched: Any
    if hasattr(iterator, "__anext__"):
        watched = _async_chunks(call, iterator, _Dropped(call))
        on_aclose(response, _closed_by(call, watched, "ag_running"))
    else:
        watched = _chunks(call, iterator, _Dropped(call))
        on_close(response, _closed_by(call, watched, "gi_running"))
    stream._iterator = watched  # noqa: SLF001  # same name in every version of the SDKs
    call.streaming()
    return True


class _Dropped:
    """Lives in the frame of a watching generator, and so dies with the stream, however that is."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        # A collection may run anywhere, under any lock: the writer's thread ends the call.
        self._call.dropped()


def _closed_by(call: Call, watched: Any, running: str) -> Callable[[], None]:
    """What closing the HTTP response means: nothing while the SDK itself reads, the end otherwise."""
    alive = weakref.ref(watched)

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
