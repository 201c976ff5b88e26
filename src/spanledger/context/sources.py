"""Where a request's attribution comes from: the application's own function, or headers of peers it trusts.

The safe source is a function of the application that reads who was authenticated. Headers can be sent by anybody, so
they are believed only from the addresses that are named.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from types import CoroutineType, MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote_plus

from spanledger import conventions
from spanledger.context.scope import merge
from spanledger.context.values import trimmed
from spanledger.guard import log
from spanledger.model import ATTRIBUTION_SOURCES, NOBODY, Attribution

Said: TypeAlias = Attribution | Mapping[str, Any] | None
"""What a source says of a request; `None` for nothing."""
Whose: TypeAlias = Callable[[Any], Said | Awaitable[Said]]
"""A function of the application: of a request, whose it is."""

HEADERS: Final = MappingProxyType(
    {
        "user_id": "X-User-ID",
        "session_id": "X-Session-ID",
        "organization_id": "X-Organization-ID",
        "feature": "X-Feature",
        "team": "X-Team",
        "project": "X-Project",
        "cost_center": "X-Cost-Center",
    }
)
"""Attribution key → header, as TokenLedger's middleware has them."""
_MOST_BAGGAGE_BYTES: Final = 8192
_MOST_MEMBERS: Final = 180
UNIX: Final = "unix"
"""Among trusted proxies: whoever is connected by a Unix socket."""


class Asked(NamedTuple):
    """A request, as far as it matters here."""

    header: Callable[[str], str | None]
    """Of a header's name in lower case, its value."""
    peer: str | None
    """The address of who is connected; `None` by a Unix socket."""


class _Peers:
    """Whom to believe. Raises `ValueError` where nobody is named, or everybody in disguise."""

    def __init__(self, trusted_proxies: Iterable[str], *, trust_all: bool) -> None:
        several = isinstance(trusted_proxies, (list, tuple, set, frozenset))
        named = [str(each) for each in (trusted_proxies if several else [trusted_proxies])]
        if trust_all == bool(named):
            raise ValueError(
                "anybody can send these headers: name the addresses of the proxies that set them, as"
                " trusted_proxies=['10.0.0.0/8'] ('unix' for a Unix socket). trust_all=True believes everybody instead,"
                " and is only for networks that nobody else reaches."
            )
        self.trust_all = trust_all
        self._unix = UNIX in named
        self._networks = [ipaddress.ip_network(each, strict=False) for each in named if each != UNIX]
        if any(not each.prefixlen for each in self._networks):
            raise ValueError("a trusted proxy of /0 is everybody: say trust_all=True if that is meant")
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, peer: str | None) -> bool:
        if self.trust_all:
            return True
        if not peer:
            return self._unix
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


class Headers:
    """Attribution from headers that a proxy sets.

    `trusted_proxies` are the networks (`10.0.0.0/8`, `unix`) whose headers are believed; those of others change
    nothing. `names` are attribution keys and their headers. The proxy must remove such headers from what clients send.
    Raises `ValueError` without trusted proxies, unless `trust_all=True`.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str] = (),
        trust_all: bool = False,
        names: Mapping[str, str] = HEADERS,
    ) -> None:
        self._peers = _Peers(trusted_proxies, trust_all=trust_all)
        self._names = tuple((key, name.lower()) for key, name in names.items())
        self._source = "unverified_headers" if trust_all else "headers"

    def read(self, asked: Asked) -> Attribution:
        """What the headers of a request say."""
        if not self._peers.trusts(asked.peer):
            return NOBODY
        found = {key: value for key, name in self._names if (value := _single(asked.header(name)))}
        return merge(NOBODY, found)._replace(attribution_source=self._source) if found else NOBODY


class Baggage:
    """Attribution from OpenTelemetry baggage, as `context.baggage.Outbound` of another service sends it.

    Only these `keys`, and only of peers in `trusted_proxies`. Raises `ValueError` as `Headers` does.
    """

    def __init__(self, keys: Iterable[str], *, trusted_proxies: Iterable[str] = (), trust_all: bool = False) -> None:
        self._peers = _Peers(trusted_proxies, trust_all=trust_all)
        self._names = attribute_names(keys)
        self._source = "unverified_headers" if trust_all else "baggage"

    def read(self, asked: Asked) -> Attribution:
        """What the baggage of a request says."""
        header = asked.header("baggage") if self._peers.trusts(asked.peer) else None
        if not header:
            return NOBODY
        carried = _carried(header)
        found = {key: carried[name] for key, name in self._names.items() if name in carried}
        return merge(NOBODY, found)._replace(attribution_source=self._source) if found else NOBODY


def baggage_name(member: str) -> str:
    """The name in a member of a baggage header, as OpenTelemetry decodes it."""
    return unquote_plus(member.partition("=")[0].partition(";")[0]).strip()


def _carried(header: str) -> dict[str, str]:
    """What a baggage header holds, within the limits of W3C Baggage; nothing that is named twice."""
    if len(header.encode("utf-8", "replace")) > _MOST_BAGGAGE_BYTES:
        return {}
    carried: dict[str, str | None] = {}
    for member in header.split(",")[:_MOST_MEMBERS]:
        name, value = baggage_name(member), unquote_plus(member.partition("=")[2].partition(";")[0]).strip()
        carried[name] = None if name in carried else value
    return {name: value for name, value in carried.items() if value}


def attribute_names(keys: Iterable[str]) -> dict[str, str]:
    """Attribution key → its name in baggage, which is that of the span attribute. Raises `ValueError`."""
    named = [keys] if isinstance(keys, str) else list(keys)
    unknown = [key for key in named if key not in conventions.ATTRIBUTION]
    if unknown or not named:
        raise ValueError(f"expected some of {', '.join(conventions.ATTRIBUTION)}; found {', '.join(unknown) or 'none'}")
    return {key: conventions.ATTRIBUTION[key] for key in named}


def _single(value: str | None) -> str | None:
    """A header's value, `None` for several: who sent which can't be told."""
    if value and "," in value:
        trimmed["ambiguous"] += 1
        return None
    return value and value.strip()


def decoded(value: bytes) -> str:
    """The text of a header, which is UTF-8 or was never meant to be."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def said_by(source: Whose, request: Any) -> Any:
    """What a function of the application says of a request; `None` where it fails. It may be awaitable."""
    try:
        return source(request)
    except Exception as error:  # noqa: BLE001  # the application's: a request is never refused for it
        failed_to_say(error)
        return None


def failed_to_say(error: Exception) -> None:
    """Count, and say once, that a function of the application failed."""
    if not trimmed["failed"]:
        log.warning(
            "The function that says whose a request is failed (%s); its calls are unattributed.", type(error).__name__
        )
    trimmed["failed"] += 1


async def said_in_time(source: Whose, request: Any) -> Any:
    """The same, awaited where it has to be."""
    said = said_by(source, request)
    try:
        return await said if hasattr(said, "__await__") else said
    except Exception as error:  # noqa: BLE001  # as above
        failed_to_say(error)
        return None


def owner_of(said: Any) -> Attribution:
    """What was said of a request, clean. Nothing of the context around it holds: a server may start a request inside
    the one before it."""  # noqa: D205, D209
    if said is None:
        return NOBODY
    try:
        keys = said._asdict() if isinstance(said, Attribution) else dict(said.items())
        source = keys.pop("attribution_source", None)
        owner = merge(NOBODY, keys)
    except Exception as error:  # noqa: BLE001  # a lazy object of the application's, or no mapping at all
        if type(said) is CoroutineType:  # where nobody can await it
            said.close()
        failed_to_say(error)
        return NOBODY
    if not any(owner[:-1]):
        return NOBODY
    return owner._replace(attribution_source=source if source in ATTRIBUTION_SOURCES else "scope")
