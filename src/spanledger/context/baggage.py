"""Attribution to other services of one's own, as OpenTelemetry baggage: only if asked for, only there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlsplit

from spanledger.context.scope import current
from spanledger.context.sources import attribute_names
from spanledger.pricing.hosts import OPENAI_COMPATIBLE, provider_at


class Outbound:
    """Adds some attribution keys to requests to these hosts as the header `baggage`.

    `hosts` are names, or `*.` and the end of names; `keys` are attribution keys. Raises `ValueError` for a host of a
    model provider: whose a call is must not be told there.
    """

    def __init__(self, *, hosts: Iterable[str], keys: Iterable[str]) -> None:
        self._hosts = dict.fromkeys([hosts] if isinstance(hosts, str) else hosts, "")
        self._names = attribute_names(keys)
        for host in self._hosts:
            if host.strip("*.") == "" or _provider_at(host.removeprefix("*.")):
                raise ValueError(f"{host} is, or includes, a model provider's; name the hosts of your own services")

    def headers(self, url: Any, baggage: str | None = None) -> dict[str, str]:
        """The header for a request to `url` beside the `baggage` it has; empty where none is to be sent."""
        host = (urlsplit(str(url)).hostname or "").lower()
        if provider_at(host, self._hosts) is None or _provider_at(host):
            return {}
        whose = current()
        said = [
            f"{name}={quote(value, safe='')}"
            for key, name in self._names.items()
            if (value := getattr(whose, key)) is not None
        ]
        others = [each for each in (baggage or "").split(",") if each.partition("=")[0].strip() not in self._known]
        return {"baggage": ",".join(filter(None, (*others, *said)))} if said else {}

    @property
    def _known(self) -> frozenset[str]:
        return frozenset(self._names.values())

    def hook(self, request: Any) -> None:
        """For HTTPX: `httpx.Client(event_hooks={"request": [outbound.hook]})`."""
        request.headers.update(self.headers(request.url, request.headers.get("baggage")))

    async def async_hook(self, request: Any) -> None:
        """For HTTPX's `AsyncClient`."""
        self.hook(request)


def _provider_at(host: str) -> bool:
    """Whether models are asked there. Clouds have other services, too."""
    provider = provider_at(host, OPENAI_COMPATIBLE)
    if provider == "aws.bedrock":
        return "bedrock" in host
    if provider == "gcp.vertex_ai":
        return "aiplatform" in host
    return provider is not None
