"""`attribution(...)`: a scope that says whose the calls inside it are.

It is a context manager (sync and async) and a decorator (functions, coroutines, generators, async generators). Scopes
nest: the inner one adds to the outer one and wins where both speak. The value lives in a `ContextVar` of our own: it
reaches tasks and `asyncio.to_thread`, and no header, no baggage and no request.
"""

from __future__ import annotations

import functools
import inspect
import unicodedata
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from spanledger.guard import log
from spanledger.model import ATTRIBUTION_KEYS, NOBODY, Attribution

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

MOST_METADATA: Final = 16
MOST_CHARACTERS: Final = 256

_current: ContextVar[Attribution] = ContextVar("spanledger.attribution", default=NOBODY)


def current() -> Attribution:
    """The attribution in force here. Never raises."""
    return _current.get()


class attribution:  # noqa: N801  # used like a function: `with attribution(user_id="u1"):`
    """A scope of attribution: `user_id`, `session_id`, `organization_id`, `feature`, `team`, `project`, `cost_center`,
    `message_id`; any other key goes to `metadata` (at most 16 keys).

    `None` leaves a key as the outer scope has it. Values are text of at most 256 characters; numbers and booleans stay
    what they are in `metadata`. A longer identifier becomes `sha256:` and its digest, so that no two are cut into one.
    """  # noqa: D205

    __slots__ = ("_given", "_tokens")

    def __init__(self, **keys: Any) -> None:
        self._given = {key: value for key, value in keys.items() if value is not None}
        self._tokens: list[Token[Attribution]] = []

    def __enter__(self) -> Attribution:
        """Open the scope. Never raises."""
        merged = merge(_current.get(), self._given)
        self._tokens.append(_current.set(merged))
        return merged

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scope. Never raises."""
        token = self._tokens.pop()
        try:
            _current.reset(token)
        except ValueError:  # closed in another context than opened: that one ends with its task
            log.debug("An attribution scope was closed in another context than it was opened in.")

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
        return cast("Decorated", _decorated(function, self._given))


def merge(outer: Attribution, given: dict[str, Any]) -> Attribution:
    """`outer` with the given keys over it; unknown keys go to `metadata`."""
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in given.items():
        if key in ATTRIBUTION_KEYS:
            known[key] = identifier(value)
        elif key == "metadata" and isinstance(value, dict):
            extra.update({str(name): each for name, each in value.items()})
        else:
            extra[key] = value
    if extra:
        metadata = dict(outer.metadata or {})
        for key, value in extra.items():
            if key in metadata or len(metadata) < MOST_METADATA:
                metadata[clean(key)[:MOST_CHARACTERS]] = plain_value(value)
        known["metadata"] = metadata
    return replace(outer, **known) if known else outer


def identifier(value: Any) -> str:
    """An identifier as clean text; one that is too long becomes its digest, never a part of itself."""
    text = clean(_text(value))
    if len(text) > MOST_CHARACTERS:
        from hashlib import sha256  # noqa: PLC0415  # loads OpenSSL

        return f"sha256:{sha256(text.encode()).hexdigest()}"
    return text


def plain_value(value: Any) -> str | int | float | bool:
    """A metadata value: numbers and booleans as they are, everything else as clean text of at most 256 characters."""
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN, which JSON has no word for
        return value
    text = clean(_text(value))
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _text(value: Any) -> str:
    """A value as text; one that has none is called by its type."""
    try:
        return value if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):  # an int of thousands of digits, lists in lists
        return f"<{type(value).__name__}>"


def clean(text: str) -> str:
    """Text without control characters and lone surrogates, which databases and logs choke on."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if kind == "Cs" else character
        for character in text
        if (kind := unicodedata.category(character)) != "Cc"
    )


def _decorated(function: Any, given: dict[str, Any]) -> Any:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _AsyncSteps(function(*args, **kwargs), merge(_current.get(), given))

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _steps(function(*args, **kwargs), merge(_current.get(), given))

    elif inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            async with attribution(**given):
                return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with attribution(**given):
                return function(*args, **kwargs)

    return wrapper


def _steps(inner: Generator[Any, Any, Any], mine: Attribution) -> Generator[Any, Any, Any]:
    """Run a generator with the scope in force inside it only: its consumer keeps its own."""
    send: Callable[[], Any] = lambda: next(inner)  # noqa: E731
    while True:
        token = _current.set(mine)
        try:
            item = send()
        except StopIteration as stop:
            return stop.value
        finally:
            _current.reset(token)
        try:
            sent = yield item
        except GeneratorExit:
            token = _current.set(mine)
            try:
                inner.close()
            finally:
                _current.reset(token)
            raise
        except BaseException as error:  # noqa: BLE001  # thrown in by the consumer: it belongs to the generator
            send = functools.partial(inner.throw, error)
        else:
            send = functools.partial(inner.send, sent)


class _AsyncSteps(AsyncGenerator[Any, Any]):
    """An async generator with the scope in force during its steps only."""

    __slots__ = ("_inner", "_mine")

    def __init__(self, inner: AsyncGenerator[Any, Any], mine: Attribution) -> None:
        self._inner = inner
        self._mine = mine

    async def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        token = _current.set(self._mine)
        try:
            return await step(*args)
        finally:
            _current.reset(token)

    async def asend(self, value: Any) -> Any:
        return await self._step(self._inner.asend, value)

    async def athrow(self, *args: Any) -> Any:
        return await self._step(self._inner.athrow, *args)

    async def aclose(self) -> None:
        await self._step(self._inner.aclose)
