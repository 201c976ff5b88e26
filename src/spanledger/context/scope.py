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
from typing import Any, Final, TypeAlias, TypeVar, cast

from spanledger.context.values import identifier, metadata_with
from spanledger.model import ATTRIBUTION_KEYS, NOBODY, Attribution

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_OUTLIVED: Final = Attribution(attribution_source="outlived")
Change: TypeAlias = Callable[[Attribution], Attribution]
"""What a scope makes of the attribution around it."""

_POSITIONS: Final = {name: number for number, name in enumerate(ATTRIBUTION_KEYS)}
_METADATA: Final = Attribution._fields.index("metadata")
_SOURCE: Final = Attribution._fields.index("attribution_source")
_SHORT: Final = 64
"""An identifier of so many ASCII characters, as nearly all are, needs nothing done to it."""


class Frame:
    """A scope while it is open, and after. What inherited it still holds it.

    As a context manager it is in force during the block, once, and ends with it.
    """

    __slots__ = (
        "_around", "_captured_in", "_change", "_token", "attribution", "bracket", "closed", "opened_by", "outer",
    )  # fmt: skip

    def __init__(
        self,
        outer: Frame | None,
        change: Change | None = None,
        *,
        owner: Attribution | None = None,
        opened_by: Any = None,
        captured_in: Frame | None = None,
        bracket: Any = None,
    ) -> None:
        self.outer = outer
        """What is around it; `None` for the outermost."""
        self.opened_by = opened_by
        self.closed = False
        if bracket is None and outer is not None:
            bracket = outer.bracket if owner is None else bracket_here()
        self.bracket: Any = bracket
        """What the calls in it are reported in by hand, if they are."""
        self._change = change
        self._captured_in = captured_in
        self._around = NOBODY if outer is None or outer is nobody else outer.now()
        self.attribution: Attribution = self._around if owner is None else owner
        if change is not None:
            self.attribution = change(self._around)

    def __enter__(self) -> None:
        self._token = in_force.set(self)

    def __exit__(self, *_: object) -> None:
        self.close()
        with suppress(ValueError):  # a coroutine that is thrown away ends in another context
            in_force.reset(self._token)
        del self._token  # it holds the context

    def close(self) -> None:
        """End the scope, for everybody who has inherited it. Twice is once. Never raises."""
        self.closed = True
        self._captured_in = None
        outer = self.outer
        if outer is not None and outer.closed:
            self.outer = outer.still_open()  # so that chains of tasks hold no scopes of long ago

    def still_open(self) -> Frame:
        """This one, or the nearest one around it that has not ended."""
        frame = self
        while frame.closed and frame.outer is not None:
            frame = frame.outer
        return frame

    def now(self) -> Attribution:
        """Of an open one, its attribution, without what it has from scopes that have ended since."""
        if self.outer is None or (self.outer is nobody and self._captured_in is None):
            return self.attribution
        frames = []
        frame: Frame = self
        while frame.outer is not None:
            frames.append(frame)
            frame = frame.outer.still_open()
        around = frame.attribution
        for each in reversed(frames):
            around = each.within(around)
        return around

    def within(self, around: Attribution) -> Attribution:
        """The attribution, where that of the nearest open scope around it is `around`."""
        if self._captured_in is not None and self._captured_in.has_ended():
            self._captured_in = None
            self.attribution = self.attribution._replace(attribution_source="late")
        elif around is not self._around and self._change is not None:
            made, outer = self._change(around), self.outer
            if outer is not None and outer.closed:
                made = made if any(made[:_SOURCE]) else _OUTLIVED
                self.outer = outer.still_open()
            self.attribution = made
            self._around = around
        return self.attribution

    def origin(self) -> Frame:
        """Of a job, the frame it was captured in: its own end is not that of whose it is."""
        return self._captured_in or self

    def has_ended(self) -> bool:
        """Whether this one has ended, or one that is around it."""
        frame: Frame | None = self
        while frame is not None:
            if frame.closed:
                return True
            frame = frame.outer
        return False


nobody: Final = Frame(None)
in_force: Final[ContextVar[Frame]] = ContextVar("spanledger.attribution", default=nobody)
"""The frame that this context opened or inherited, whether it is open or not."""


def current() -> Attribution:
    """The attribution in force here. Never raises."""
    frame = in_force.get()
    if frame.closed:
        return frame.still_open().now()._replace(attribution_source="outlived")
    return frame.now()


def bracket_here() -> Any:
    """What the calls here are reported in by hand, `None` where they are not. Never raises."""
    frame = in_force.get()
    bracket = frame.bracket
    if frame.closed:
        bracket = frame.still_open().bracket
    while bracket is not None and bracket.ended:
        bracket = bracket.outer
    return bracket


def enter(change: Change, opened_by: Any = None, bracket: Any = None) -> Frame:
    """Open a scope in this context: `change` makes its attribution of the one around it."""
    here = in_force.get()
    frame = Frame(here.still_open() if here.closed else here, change, opened_by=opened_by, bracket=bracket)
    in_force.set(frame)
    return frame


def leave(frame: Frame) -> None:
    """Close a scope, whatever was opened in this context since. Never raises."""
    frame.close()
    here = in_force.get()
    if here.closed:
        in_force.set(here.still_open())


def captured() -> Frame:
    """A frame for a job that is started here and runs later: it is of whoever is in force.

    Where that scope has ended already nobody is taken: a job that starts itself again is nobody's worker.
    """
    owner, here = current(), in_force.get().still_open()
    if owner.attribution_source == "late":
        owner = _OUTLIVED
    return Frame(nobody, owner=owner, captured_in=here.origin() if any(owner[:_SOURCE]) else None)


def forget_scopes() -> None:
    """In a forked child: it may be a worker for everybody, and the scopes around it end in its parent."""
    frame: Frame | None = in_force.get()
    while frame is not None and frame is not nobody:
        frame.closed, frame = True, frame.outer


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
        self._frames: dict[Frame, None] = {}

    def _change(self, outer: Attribution) -> Attribution:
        return merge(outer, self._given)

    def __enter__(self) -> Attribution:
        """Open the scope. Never raises."""
        frame = enter(self._change, self)
        self._frames[frame] = None
        return frame.attribution

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scope. Never raises."""
        frame: Frame | None = in_force.get()
        while frame is not None and (frame.opened_by is not self or frame.closed):
            frame = frame.outer  # one object may be open in many tasks at a time
        if frame is None and len(self._frames) == 1:  # it was opened in another context
            frame = next(iter(self._frames))
        if frame is not None:  # otherwise nobody knows which: it ends with its context
            self._frames.pop(frame, None)
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
    """`outer` with the given keys over it; unknown keys go to `metadata`. What has no text is left out."""
    values: list[Any] = list(outer)
    extra: dict[str, Any] = {}
    for key, value in given.items():
        position = _POSITIONS.get(key)
        if value is None or value == "":
            continue
        if position is not None:
            if value.__class__ is str and len(value) <= _SHORT and value.isascii() and value.isprintable():
                values[position] = value
            else:
                values[position] = identifier(value) or values[position]
        elif key == "metadata" and isinstance(value, Mapping):
            extra.update((name, each) for name, each in value.items() if each is not None and each != "")
        else:
            extra[key] = value
    if extra:
        values[_METADATA] = metadata_with(values[_METADATA] or {}, extra)
    if (values[_SOURCE] in (None, "outlived") and any(values[:_SOURCE])) or given.get("user_id"):
        values[_SOURCE] = "scope"
    return Attribution._make(values)


def _decorated(function: Any, change: Change) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_decorated(function.__func__, change))
    if isinstance(function, type):
        raise TypeError("attribution decorates functions and methods; a class is neither")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

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
                result = function(*args, **kwargs)
            finally:
                leave(frame)
            from spanledger.context import steps  # noqa: PLC0415  # it needs this module

            return steps.later(result, change(current())) if isinstance(result, steps.RUNS_LATER) else result

    return wrapper
