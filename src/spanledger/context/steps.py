"""Generators and other iterators whose steps belong to whoever made them, not to whoever asks for the next one.

A generator sees the context of its consumer. What is here holds a frame during each step, and nowhere else; a scope
that is opened inside lasts from step to step.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import AsyncExitStack, ExitStack, suppress
from contextvars import Token
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, TypeVar, cast

from spanledger.context.scope import Frame, current, in_force, nobody
from spanledger.model import Attribution

Item = TypeVar("Item")
RUNS_LATER: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)
"""What a function may return that has not run yet."""


def wrap_iter(iterable: Iterable[Item]) -> Iterator[Item]:
    """An iterator over `iterable` whose steps belong to the attribution in force here: for a streamed answer.

    `close` closes what is inside.
    """
    return Steps(iterable, Frame(nobody, owner=current()))


def wrap_aiter(iterable: AsyncIterable[Item]) -> AsyncIterator[Item]:
    """The same for an async iterable; `aclose` closes what is inside."""
    return AsyncSteps(iterable, Frame(nobody, owner=current()))


def later(made: Any, owner: Attribution) -> Any:
    """A generator, async generator or coroutine that runs as the calls of this owner."""
    frame = Frame(nobody, owner=owner)
    if isinstance(made, CoroutineType):
        return _awaited(made, frame)
    return _AsyncGeneratorSteps(made, frame) if isinstance(made, AsyncGeneratorType) else _generator_steps(made, frame)


class _Held:
    """Puts a frame in force for one step after the other, with what the steps before have opened in it."""

    __slots__ = ("_frame", "_last", "_token")

    def __init__(self, frame: Frame) -> None:
        self._frame = self._last = frame
        self._token: Token[Frame] | None = None

    def __enter__(self) -> None:
        if self._frame.closed:  # it is over, and now it is closed
            self._frame = self._last = Frame(nobody, owner=self._frame.attribution)
        self._token = in_force.set(self._last)

    def __exit__(self, *_: object) -> None:
        self._last = in_force.get()
        token, self._token = self._token, None  # it holds the context
        if token is not None:
            with suppress(ValueError):  # a step that is thrown away ends in another context
                in_force.reset(token)

    def close(self) -> None:
        """There are no more steps."""
        self._frame.close()


class Steps(Iterator[Item]):
    """An iterator that runs in a frame."""

    def __init__(self, iterable: Iterable[Item], frame: Frame) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Item] | None = None
        self._held = _Held(frame)

    def __next__(self) -> Item:
        with self._held:
            if self._iterator is None:
                self._iterator = iter(self._iterable)
            try:
                return next(self._iterator)
            except StopIteration:
                self._held.close()
                raise

    def __del__(self) -> None:
        with self._held:  # what runs at the end of a generator that nobody has closed
            self._iterator = None
            del self._iterable

    def close(self) -> None:
        """Close what is inside, in its frame, which ends then."""
        try:
            with self._held, ExitStack() as stack:
                for each in _both(self._iterable, self._iterator):
                    if hasattr(each, "close"):
                        stack.callback(each.close)
        finally:
            self._held.close()


class AsyncSteps(AsyncIterator[Item]):
    """An async iterator that runs in a frame."""

    def __init__(self, iterable: AsyncIterable[Item], frame: Frame) -> None:
        self._iterable = iterable
        self._iterator: AsyncIterator[Item] | None = None
        self._held = _Held(frame)

    async def __anext__(self) -> Item:
        with self._held:
            if self._iterator is None:
                self._iterator = aiter(self._iterable)
            try:
                return await anext(self._iterator)
            except StopAsyncIteration:
                self._held.close()
                raise

    def __del__(self) -> None:
        with self._held:  # as above
            self._iterator = None
            del self._iterable

    async def aclose(self) -> None:
        """Close what is inside, in its frame, which ends then."""
        try:
            with self._held:
                async with AsyncExitStack() as stack:
                    for each in _both(self._iterable, self._iterator):
                        stack.push_async_callback(_closed, each)
        finally:
            self._held.close()


def _both(iterable: Any, iterator: Any) -> tuple[Any, ...]:
    """What there is to close, the last first: a stream of an SDK is not closed by the iterator it gives."""
    return (iterable,) if iterator is None or iterator is iterable else (iterable, iterator)


async def _closed(each: Any) -> None:
    close = getattr(each, "aclose", None) or getattr(each, "close", None)
    closing = close() if close is not None else None
    if hasattr(closing, "__await__"):
        await cast("Awaitable[Any]", closing)


async def _awaited(coroutine: Coroutine[Any, Any, Any], frame: Frame) -> Any:
    with frame:
        return await coroutine


def _generator_steps(inner: Generator[Any, Any, Any], frame: Frame) -> Generator[Any, Any, Any]:
    held = _Held(frame)
    send: Callable[[], Any] = partial(next, inner)
    try:
        while True:
            with held:
                try:
                    item = send()
                except StopIteration as stop:
                    return stop.value
            try:
                sent = yield item
            except GeneratorExit:
                with held:
                    inner.close()
                raise
            except BaseException as error:  # noqa: BLE001  # thrown in by the consumer: it belongs to the generator
                send = partial(inner.throw, error)
            else:
                send = partial(inner.send, sent)
    finally:
        held.close()


class _AsyncGeneratorSteps(AsyncGenerator[Any, Any]):
    """An async generator that runs in a frame."""

    __slots__ = ("_held", "_inner")

    def __init__(self, inner: AsyncGenerator[Any, Any], frame: Frame) -> None:
        self._inner = inner
        self._held = _Held(frame)

    def __del__(self) -> None:
        with self._held:  # as above
            del self._inner

    async def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        with self._held:
            try:
                return await step(*args)
            except BaseException:  # an async generator that has raised is at its end
                self._held.close()
                raise

    async def asend(self, value: Any) -> Any:
        return await self._step(self._inner.asend, value)

    async def athrow(self, *args: Any) -> Any:
        return await self._step(self._inner.athrow, *args)

    async def aclose(self) -> None:
        await self._step(self._inner.aclose)
        self._held.close()
