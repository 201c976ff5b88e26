"""Attribution in jobs of thread pools and, if asked for, in threads.

A job takes what was in force when it was submitted, and the next job of the same thread something else. A thread that
is started inside a scope is another matter: it may be a worker for everybody, and takes nothing unless told to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any, Final

import wrapt

from spanledger.context.scope import Frame, captured

_ELSEWHERE: Final[Any] = getattr(futures, "InterpreterPoolExecutor", ())
"""Pools whose jobs are pickled: what is ours means nothing there."""


def run_in(frame: Frame, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What `function` returns, run in this frame, which ends with it."""
    with frame:
        return function(*args, **kwargs)


class Propagation:
    """Whether jobs and threads are given the attribution of whoever starts them. One per process."""

    def __init__(self) -> None:
        self._mode = "off"
        self._put_on: list[tuple[type, str, Any, Any]] = []

    def use(self, mode: str) -> None:
        """`executors`, `threads` (jobs and threads) or `off`."""
        self._mode = mode
        if mode == "off":
            self._take_off()
        wanted = {"executors": 1, "threads": 2}.get(mode, 0)
        places = ((futures.ThreadPoolExecutor, "submit", self._submit), (threading.Thread, "start", self._start))
        there = {each[0] for each in self._put_on}
        for owner, name, wrapper in places[:wanted]:
            if owner not in there:
                self._wrap(owner, name, wrapper)

    def _wrap(self, owner: type, name: str, wrapper: Callable[..., Any]) -> None:
        original = vars(owner)[name]
        ours = wrapt.FunctionWrapper(original, wrapper)
        setattr(owner, name, ours)
        self._put_on.append((owner, name, original, ours))

    def _take_off(self) -> None:
        """Restore what is there still; under somebody else's wrapper ours does nothing by now."""
        for each in list(self._put_on):
            owner, name, original, ours = each
            if vars(owner)[name] is ours:
                setattr(owner, name, original)
                self._put_on.remove(each)

    def _submit(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if self._mode == "off" or not args or isinstance(instance, _ELSEWHERE):
            return wrapped(*args, **kwargs)
        return wrapped(partial(run_in, captured(), args[0]), *args[1:], **kwargs)

    def _start(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if self._mode != "threads" or "run" in vars(instance):
            return wrapped(*args, **kwargs)
        try:
            instance.run = partial(_run_once, instance, instance.run, captured())
        except AttributeError:  # a class of its own with a `run` that can't be set
            return wrapped(*args, **kwargs)
        try:
            return wrapped(*args, **kwargs)
        except BaseException:  # it was not started, and may be tried again
            vars(instance).pop("run", None)
            raise


def _run_once(thread: Any, run: Callable[[], Any], frame: Frame) -> None:
    vars(thread).pop("run", None)  # or it would hold itself
    run_in(frame, run)
