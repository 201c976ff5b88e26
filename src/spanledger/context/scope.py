"""`attribution(...)`: a scope that says whose the calls inside it are.

It is a context manager (sync and async) and a decorator (functions, coroutines, generators, async generators). Scopes
nest: the inner one adds to the outer one and wins where both speak. The value lives in a `ContextVar` of our own: it
reaches tasks and `asyncio.to_thread`, and no header, no baggage and no request.

Whatever inherits a context inherits the scope that was open there. Once that one has ended it says nothing any more: a
task that was started in it may be a worker by now, and work for somebody else.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from spanledger.context.values import identifier, metadata_with
from spanledger.model import ATTRIBUTION_KEYS, NOBODY, Attribution

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_POSITIONS: Final = {name: number for number, name in enumerate(ATTRIBUTION_KEYS)}
_METADATA: Final = Attribution._fields.index("metadata")
_SOURCE: Final = Attribution._fields.index("attribution_source")


class Frame:
    """A scope while it is open, and after. What inherited it still holds it.

    As a context manager it is in force during the block, once, and ends with it.
    """

    __slots__ = ("_token", "attribution", "captured_in", "closed", "opened_by", "outer")

    def __init__(
        self, attribution: Attribution, outer: Frame | None, opened_by: Any = None, captured_in: Frame | None = None
    ) -> None:
        self.attribution = attribution
        self.outer = outer
        """What holds where this one doesn't any more; `None` for the outermost."""
        self.opened_by = opened_by
        self.captured_in = captured_in
        """For a job: the frame it was captured in."""
        self.closed = False

    def __enter__(self) -> None:
        self._token = in_force.set(self)

    def __exit__(self, *_: object) -> None:
        self.close()
        with suppress(ValueError):  # a coroutine that is thrown away ends in another context
            in_force.reset(self._token)

    def close(self) -> None:
        """End the scope, for everybody who has inherited it. Twice is once. Never raises."""
        self.closed = True
        if self.outer is not None:
            self.outer = _still_open(self.outer)  # so that chains of tasks hold no scopes of long ago


nobody: Final = Frame(NOBODY, None)
in_force: Final[ContextVar[Frame]] = ContextVar("spanledger.attribution", default=nobody)
"""The frame that this context opened or inherited, whether it is open or not."""


def current() -> Attribution:
    """The attribution in force here. Never raises."""
    frame = in_force.get()
    if frame.closed:
        return _still_open(frame).attribution._replace(attribution_source="outlived")
    if frame.captured_in is not None and frame.captured_in.closed:
        return frame.attribution._replace(attribution_source="late")
    return frame.attribution


def _still_open(frame: Frame) -> Frame:
    while frame.closed and frame.outer is not None:
        frame = frame.outer
    return frame


def enter(change: Callable[[Attribution], Attribution], opened_by: Any = None) -> Frame:
    """Open a scope in this context: `change` makes its attribution of the one in force."""
    frame = Frame(change(current()), _still_open(in_force.get()), opened_by)
    in_force.set(frame)
    return frame


def leave(frame: Frame) -> None:
    """Close a scope, whatever was opened in this context since. Never raises."""
    frame.close()
    here = in_force.get()
    if here.closed:
        in_force.set(_still_open(here))


def captured() -> Frame:
    """A frame for a job that is started here and runs later: it is of whoever is in force."""
    here = in_force.get()
    return Frame(current(), nobody, captured_in=None if here is nobody else here)


class attribution:  # noqa: N801  # used like a function: `with attribution(user_id="u1"):`
    """A scope of attribution: `user_id`, `session_id`, `organization_id`, `feature`, `team`, `project`, `cost_center`,
    `message_id`; any other key goes to `metadata` (at most 16 keys).

    `None` and an empty text leave a key as the outer scope has it. Values are text of at most 256 bytes; numbers and
    booleans stay what they are in `metadata`. A longer identifier becomes `sha256:` and its digest, so that no two are
    cut into one.
    """  # noqa: D205

    __slots__ = ("_frames", "_given")

    def __init__(self, **keys: Any) -> None:
        self._given: Mapping[str, Any] = keys
        self._frames: list[Frame] = []

    def _change(self, outer: Attribution) -> Attribution:
        return merge(outer, self._given)

    def __enter__(self) -> Attribution:
        """Open the scope. Never raises."""
        frame = enter(self._change, self)
        self._frames.append(frame)
        return frame.attribution

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scope. Never raises."""
        frame: Frame | None = in_force.get()
        while frame is not None and (frame.opened_by is not self or frame.closed):
            frame = frame.outer  # one object may be open in many tasks at a time
        if frame is None:  # it was opened in another context
            frame = self._frames[-1]
        self._frames.remove(frame)
        leave(frame)

    async def __aenter__(self) -> Attribution:
        """Open the scope. Never raises."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scope. Never raises."""
        self.__exit__(kind, error, trace)

    def __call__(self, function: Decorated) -> Decorated:
        """Hold the scope during each call of `function`; for generators during each of their steps and nowhere else."""
        return cast("Decorated", _decorated(function, self._change))


def merge(outer: Attribution, given: Mapping[str, Any]) -> Attribution:
    """`outer` with the given keys over it; unknown keys go to `metadata`."""
    values: list[Any] = list(outer)
    extra: dict[str, Any] = {}
    for key, value in given.items():
        position = _POSITIONS.get(key)
        if value is None:
            continue
        if position is not None:
            values[position] = identifier(value) or values[position]
        elif key == "metadata" and isinstance(value, Mapping):
            extra.update(value)
        else:
            extra[key] = value
    if extra:
        values[_METADATA] = metadata_with(values[_METADATA] or {}, extra)
    if values[_SOURCE] in (None, "outlived"):
        values[_SOURCE] = "scope"
    return Attribution._make(values)


def _decorated(function: Any, change: Callable[[Attribution], Attribution]) -> Any:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        from spanledger.context.steps import steps_of  # noqa: PLC0415  # it needs this module

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return steps_of(function(*args, **kwargs), Frame(change(current()), nobody))

    elif inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            frame = enter(change)
            try:
                return await function(*args, **kwargs)
            finally:
                leave(frame)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            frame = enter(change)
            try:
                return function(*args, **kwargs)
            finally:
                leave(frame)

    return wrapper
