"""How every sink that speaks HTTP reaches its receiver: one origin, no redirects, TLS verified, credentials masked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from spanledger.guard import log
from spanledger.recording.sink import SinkError
from spanledger.version import __version__

_TIMEOUT: Final = (5.0, 10.0)
PERMANENT: Final = frozenset({400, 409, 413, 422})
"""Statuses by which a receiver says that what was sent will never do. Every other failure may be the address, the
credentials or the hour: the records wait."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SHOWN: Final = frozenset({"accept", "content-type", "user-agent", "idempotency-key"})
"""Headers that are logged as they are; what any other holds may be a credential."""


class Http:
    """A connection to one address, for one sink. Credentials go to it and nowhere else."""

    def __init__(
        self, name: str, url: str, *, headers: Mapping[str, str], debug: bool = False, credentials: bool = False
    ) -> None:
        self._name = name
        self._url = url
        self._headers = {"Accept": "application/json", "User-Agent": f"spanledger/{__version__}", **headers}
        self._debug = debug
        self._session: requests.Session | None = None
        parts = urlsplit(url)
        if credentials and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            log.warning("%s sends its credentials to %s without TLS; use an https address.", name, parts.hostname)

    def post(self, body: str, headers: Mapping[str, str]) -> requests.Response:
        """The answer, if it is one of success. Raises `SinkError`."""
        sent = {**self._headers, **headers}
        if self._debug:
            log.info("%s: POST %s %s %s", self._name, masked_url(self._url), masked(sent), body)
        try:
            answer = self._open().post(
                self._url, data=body.encode(), headers=sent, timeout=_TIMEOUT, allow_redirects=False
            )
        except (requests.RequestException, UnicodeError) as error:
            raise SinkError(f"{type(error).__name__} at {masked_url(self._url)}") from error
        check(answer)
        return answer

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.auth = as_it_is
        return self._session


def check(answer: requests.Response) -> None:
    """Raise `SinkError` for what is no success: only 2xx is, a redirect is a wrong address."""
    status = answer.status_code
    if status // 100 == 2:
        return
    if status // 100 == 3:
        raise SinkError(f"HTTP {status}: a redirect is not followed; correct the address")
    raise SinkError(
        f"HTTP {status}", permanent=status in PERMANENT, retry_after=seconds(answer.headers.get("Retry-After"))
    )


def seconds(retry_after: str | None) -> float | None:
    """The `Retry-After` header in seconds; a date is counted from now."""
    if retry_after is None:
        return None
    try:
        pause = float(retry_after)
        return max(0.0, pause) if math.isfinite(pause) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def masked(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they may be logged."""
    return {name: value if name.lower() in _SHOWN else "***" for name, value in headers.items()}


def masked_url(url: str) -> str:
    """An address as it may be logged: without user, password and query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def as_it_is(request: Any) -> Any:
    """An authorization that adds nothing: without any, requests takes credentials for the host from ~/.netrc."""
    return request
