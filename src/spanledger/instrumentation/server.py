"""Whom a client asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from spanledger.instrumentation.spec import Provider
from spanledger.pricing.hosts import provider_at
from spanledger.usage.paths import at_path

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


def server_of(provider: Provider, client: Any, url: Any) -> Server:
    """Which provider a client talks to: by the client itself, else by the host; an unknown host is taken for one that
    speaks this SDK's API."""  # noqa: D205, D209
    address, port = _address(url)
    name = next((named for flag, named in provider.told_by.items() if at_path(client, flag)), None)
    for kind in type(client).__mro__ if name is None and client is not None else ():
        name = name or provider.clients.get(kind.__name__)
    name = name or provider_at(address, provider.hosts)
    known = name is not None
    name = name or provider.name
    return Server(name, address, port, known=known, states_cost=not known or name in provider.states_cost)


def _address(url: Any) -> tuple[str | None, int | None]:
    """Host and port of a URL, a text or an object that has them; a port of https's own is `None`."""
    if isinstance(url, str):
        url = urlsplit(url)
        host, port = url.hostname, url.port
    else:
        host, port = getattr(url, "host", None), getattr(url, "port", None)
    return host or None, None if port == _HTTPS else port
