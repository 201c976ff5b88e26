"""Whom a client asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from spanledger.instrumentation.spec import Provider

_HTTPS: Final = 443


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked: the provider's name, host and port (`None` where it is https's own)."""

    provider: str
    address: str | None
    port: int | None
    known: bool
    """Whether the host is in the provider's table."""
    states_cost: bool
    """Whether an answer may state its cost: some providers do, and so may a gateway at a host of its own."""


def server_of(provider: Provider, client_types: tuple[type, ...], url: Any) -> Server:
    """Which provider a client talks to: by the class of the client, else by the host; an unknown host is taken for one
    that speaks this SDK's API."""  # noqa: D205, D209
    address = getattr(url, "host", None) or None
    port = getattr(url, "port", None)
    port = None if port == _HTTPS else port
    name = next((provider.clients[kind.__name__] for kind in client_types if kind.__name__ in provider.clients), None)
    for pattern, host_provider in provider.hosts.items():
        if name is not None:
            break
        if address == pattern.removeprefix("*.") or (pattern[:2] == "*." and str(address).endswith(pattern[1:])):
            name = host_provider
    known = name is not None
    name = name or provider.name
    return Server(name, address, port, known=known, states_cost=not known or name in provider.states_cost)
