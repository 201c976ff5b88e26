"""What users and we test with: a provider that answers on this machine, and a sink that remembers.

`python -m spanledger.testing.loopback` speaks the wire formats of OpenAI, Anthropic, Google and Amazon Bedrock well
enough for the real SDKs, costs nothing and knows exactly what it has answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spanledger.testing.loopback import Loopback
    from spanledger.testing.memory import MemorySink

__all__ = ["Loopback", "MemorySink"]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    homes = {"Loopback": "loopback", "MemorySink": "memory"}  # late, so that `python -m` runs a module only once
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
