"""What a stack is: somebody's tracing of model calls, put on, and calls made under it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`instrument(tracer_provider, meter_provider)` puts the tracing on; each of `calls` makes one model call, given
    the address of the loopback provider."""

    environment: str
    """File of `environments/`, without its ending, that it runs in."""
    packages: tuple[str, ...]
    """Distributions whose versions matter: the tracing ones and the SDK."""
    instrument: Callable[[Any, Any], None]
    calls: Mapping[str, Callable[[str], Any]]
