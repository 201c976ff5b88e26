"""What a process does before it goes by a signal that it does not handle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from spanledger.guard import log


def commit_on_sigterm(commit: Callable[[], Any]) -> None:
    """Call `commit` before a SIGTERM that nobody handles ends the process, as it would have ended it.

    Whoever handles SIGTERM keeps doing so: this takes effect only where nobody does, and anybody who sets a handler
    later replaces it. Never raises.
    """
    try:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _Leaving(commit))
    except (ValueError, OSError) as error:  # a subinterpreter, or a platform without
        log.debug("SIGTERM can't be handled (%s).", error)


class _Leaving:
    def __init__(self, commit: Callable[[], Any]) -> None:
        self._commit = commit

    def __call__(self, number: int, _: Any) -> None:
        try:
            self._commit()
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


_leave: Callable[[int], NoReturn] = os._exit


def leave_late(finish: Callable[[], Any]) -> None:
    """Call `finish` when a process leaves by `os._exit`, past atexit, as the workers of task queues do."""

    def leave(status: int) -> NoReturn:
        try:
            finish()
        finally:
            _leave(status)

    os._exit = leave
