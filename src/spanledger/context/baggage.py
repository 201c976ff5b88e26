"""Attribution to other services of one's own, as OpenTelemetry baggage: only if asked for, only there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, urlsplit

from spanledger.context.scope import current
from spanledger.context.sources import attribute_names, baggage_name
from spanledger.pricing.hosts import OPENAI_COMPATIBLE, provider_at

_OURS: Final = "spanledger.baggage"
"""In the extensions of a request of HTTPX, which a redirect takes along: the header has something of ours."""


class Outbound:
    """Adds some attribution keys to requests to these hosts as the header `baggage`.

    `hosts` are names, or `*.` and the end of names; `keys` are attribution keys. What a request says for these keys
    already is replaced. Raises `ValueError` for a host of a model provider: whose a call is must not be told there.
    """

    def __init__(self, *, hosts: Iterable[str], keys: Iterable[str]) -> None:
        named = [hosts] if isinstance(hosts, str) else hosts
        self._hosts = dict.fromkeys((host.lower().rstrip(".") for host in named), "")
        self._names = attribute_names(keys)
        self._known = frozenset(self._names.values())
        for host in self._hosts:
            if host.strip("*.") == "" or _provider_at(host.removeprefix("*.")):
                raise ValueError(f"{host} is, or includes, a model provider's; name the hosts of your own services")

    def headers(self, url: Any, baggage: str | None = None) -> dict[str, str]:
        """The header for a request to `url` that has this `baggage`; empty where it is to stay as it is."""
        if not self._is_told(url):
            return {}
        whose = current()
        said = [
            f"{name}={quote(value, safe='')}"
            for key, name in self._names.items()
            if (value := getattr(whose, key)) is not None
        ]
        header = ",".join((*said, *self._others(baggage)))  # ours first: whoever reads it reads 180 of them
        return {"baggage": header} if header or baggage else {}

    def _others(self, baggage: str | None) -> list[str]:
        return [each for each in (baggage or "").split(",") if each and baggage_name(each) not in self._known]

    def _is_told(self, url: Any) -> bool:
        try:
            host = (urlsplit(str(url)).hostname or "").lower().rstrip(".")
        except ValueError:
            return False
        return provider_at(host, self._hosts) is not None and not _provider_at(host)

    def hook(self, request: Any) -> None:
        """For HTTPX: `httpx.Client(event_hooks={"request": [outbound.hook]})`."""
        held = request.headers.get("baggage")
        if self._is_told(request.url):
            header = self.headers(request.url, held).get("baggage")
            request.extensions[_OURS] = True
        elif held and request.extensions.get(_OURS):  # a redirect has copied it
            header = ",".join(self._others(held))
        else:
            return
        request.headers.pop("baggage", None)
        if header:
            request.headers["baggage"] = header

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
