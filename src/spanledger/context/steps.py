"""Generators and other iterators whose steps belong to whoever made them, not to whoever asks for the next one.

A generator sees the context of its consumer. What is here holds a frame during each step, and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, TypeVar

from spanledger.context.scope import Frame, current, in_force, nobody

Item = TypeVar("Item")


def wrap_iter(iterable: Iterable[Item]) -> Iterator[Item]:
    """An iterator over `iterable` whose steps belong to the attribution in force here: for a streamed answer.

    `close` closes what is inside. Never raises.
    """
    return Steps(iterable, Frame(current(), nobody))


def wrap_aiter(iterable: AsyncIterable[Item]) -> AsyncIterator[Item]:
    """The same for an async iterable. Never raises."""
    return AsyncSteps(iterable, Frame(current(), nobody))


def steps_of(generator: Any, frame: Frame) -> Any:
    """A generator, or async generator, that runs in this frame."""
    if isinstance(generator, AsyncGenerator):
        return _AsyncGeneratorSteps(generator, frame)
    return _generator_steps(generator, frame)


class Steps(Iterator[Item]):
    """An iterator that runs in a frame."""

    def __init__(self, iterable: Iterable[Item], frame: Frame) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Item] | None = None
        self._frame = frame

    def __next__(self) -> Item:
        token = in_force.set(self._frame)
        try:
            if self._iterator is None:
                self._iterator = iter(self._iterable)
            return next(self._iterator)
        except BaseException:
            self._frame.close()
            raise
        finally:
            in_force.reset(token)

    def close(self) -> None:
        """Close what is inside, in its frame."""
        token = in_force.set(self._frame)
        try:
            for each in dict.fromkeys((self._iterator, self._iterable)):
                close = getattr(each, "close", None)
                if close is not None:
                    close()
        finally:
            self._frame.close()
            in_force.reset(token)


class AsyncSteps(AsyncIterator[Item]):
    """An async iterator that runs in a frame."""

    def __init__(self, iterable: AsyncIterable[Item], frame: Frame) -> None:
        self._iterable = iterable
        self._iterator: AsyncIterator[Item] | None = None
        self._frame = frame

    async def __anext__(self) -> Item:
        token = in_force.set(self._frame)
        try:
            if self._iterator is None:
                self._iterator = aiter(self._iterable)
            return await anext(self._iterator)
        except BaseException:
            self._frame.close()
            raise
        finally:
            in_force.reset(token)

    async def aclose(self) -> None:
        """Close what is inside, in its frame."""
        token = in_force.set(self._frame)
        try:
            close = getattr(self._iterator or self._iterable, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._frame.close()
            in_force.reset(token)


def _generator_steps(inner: Generator[Any, Any, Any], frame: Frame) -> Generator[Any, Any, Any]:
    send: Callable[[], Any] = functools.partial(next, inner)
    try:
        while True:
            token = in_force.set(frame)
            try:
                item = send()
            except StopIteration as stop:
                return stop.value
            finally:
                in_force.reset(token)
            try:
                sent = yield item
            except GeneratorExit:
                token = in_force.set(frame)
                try:
                    inner.close()
                finally:
                    in_force.reset(token)
                raise
            except BaseException as error:  # noqa: BLE001  # thrown in by the consumer: it belongs to the generator
                send = functools.partial(inner.throw, error)
            else:
                send = functools.partial(inner.send, sent)
    finally:
        frame.close()


class _AsyncGeneratorSteps(AsyncGenerator[Any, Any]):
    """An async generator that runs in a frame."""

    __slots__ = ("_frame", "_inner")

    def __init__(self, inner: AsyncGenerator[Any, Any], frame: Frame) -> None:
        self._inner = inner
        self._frame = frame

    async def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        token = in_force.set(self._frame)
        try:
            return await step(*args)
        except BaseException:
            self._frame.close()
            raise
        finally:
            in_force.reset(token)

    async def asend(self, value: Any) -> Any:
        return await self._step(self._inner.asend, value)

    async def athrow(self, *args: Any) -> Any:
        return await self._step(self._inner.athrow, *args)

    async def aclose(self) -> None:
        await self._step(self._inner.aclose)
        self._frame.close()
