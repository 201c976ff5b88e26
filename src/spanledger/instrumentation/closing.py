"""Closing the HTTP response is what ends an answer early, whoever closes it and through whatever object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_close(response: Any, closed: Callable[[], None]) -> None:
    """Have `closed` called after the response was closed."""
    original = getattr(response, "close", None)
    if original is None:
        return

    def close(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            closed()

    response.close = close


def on_aclose(response: Any, closed: Callable[[], None]) -> None:
    """Have `closed` called after the response was closed, by an asynchronous client."""
    original = getattr(response, "aclose", None)
    if original is None:
        return

    async def aclose(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        finally:
            closed()

    response.aclose = aclose
