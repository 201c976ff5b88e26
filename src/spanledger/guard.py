"""Keeps our own mistakes out of the application.

Every way in from outside (a *door*) calls our code under :func:`failed`: a mistake of ours becomes one log line that
says what is lost and what still holds, and a count. Under pytest it is raised instead, so that our bugs fail tests.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Final

log: Final = logging.getLogger("spanledger")

failures: Counter[str] = Counter()
"""How often each guarded step failed in this process, by its description."""

_LOGGED_IN_FULL = 5


def strict() -> bool:
    """Whether our own mistakes are raised instead of logged: under pytest, unless a test asks for the field's way."""
    return "PYTEST_CURRENT_TEST" in os.environ and "SPANLEDGER_LENIENT" not in os.environ


def failed(lost: str, error: BaseException) -> None:
    """Account for a mistake of ours.

    `lost` says what is missing because of it ("the usage of a call"). The application goes on. Raises `error` under
    pytest; otherwise never raises.
    """
    failures[lost] += 1
    if strict():
        raise error
    noted(lost, error)


def noted(lost: str, error: BaseException) -> None:
    """Log a mistake of ours where raising is no use: on a thread of our own. Never raises."""
    count = failures[lost]
    if count <= _LOGGED_IN_FULL:
        log.warning(
            "spanledger lost %s because of an error of its own (%s); the application is unaffected.",
            lost,
            type(error).__name__,
            exc_info=error,
        )
    elif count & (count - 1) == 0:  # powers of two: a flood stays readable
        log.warning("spanledger lost %s, %d times so far; the application is unaffected.", lost, count)
