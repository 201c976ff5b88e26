"""Addresses of ledgers: which kind a URL names, and how a PostgreSQL one is told to its driver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from spanledger.settings import POSTGRES_SCHEMES

_PARAMETERS: Final = frozenset({
    "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "connect_timeout", "client_encoding",
    "application_name", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslsni", "sslnegotiation",
    "ssl_min_protocol_version", "channel_binding", "require_auth", "gssencmode", "krbsrvname", "service",
    "target_session_attrs", "load_balance_hosts", "options",
})  # fmt: skip
"""What libpq understands. Others, such as Prisma's `pgbouncer=true`, are another driver's and left out."""
_TLS: Final = {"true": "require", "false": "disable"}


def is_postgres(url: str) -> bool:
    """Whether a URL names a PostgreSQL database."""
    return url.partition("://")[0].lower() in POSTGRES_SCHEMES


def path_of(url: str) -> Path:
    """The file of a `sqlite:///` URL: three slashes and a relative path, four and an absolute one."""
    return Path(url.removeprefix("sqlite:///")).expanduser()


def libpq_url(url: str) -> str:
    """A PostgreSQL URL as libpq reads it: its scheme, and only parameters that it knows."""
    where, credentials, query = _parts(url)
    known = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "ssl":  # asyncpg's word
            known.append(("sslmode", _TLS.get(value.lower(), value)))
        elif name in _PARAMETERS:
            known.append((name, value))
    return f"postgresql://{credentials}{where}{'?' if known else ''}{urlencode(known)}"


def _parts(url: str) -> tuple[str, str, str]:
    """Host and path, `user:password@`, query. A password may hold `#`, `?` and `[` as they are, as libpq lets it."""
    rest = url.partition("://")[2]
    found = re.match("[^/]*@", rest)
    credentials = found[0][:-1] if found else ""
    where, _, query = rest[found.end() if found else 0 :].partition("#")[0].partition("?")
    safe = re.sub("%(?![0-9A-Fa-f]{2})|[^%!$&'()*+,;=:._~A-Za-z0-9-]", lambda each: quote(each[0]), credentials)
    return where, f"{safe}@" if found else "", query


def sqlalchemy_url(url: str) -> str:
    """The same as SQLAlchemy reads it."""
    return libpq_url(url).replace("postgresql://", "postgresql+psycopg://", 1)


def shown(url: str) -> str:
    """A URL as it may be shown: without password."""
    if url.startswith("sqlite:"):
        return url
    scheme, sign, rest = url.partition("://") if "://" in url else ("", "", url)
    found = re.match("[^/]*@", rest) or re.match("[^?]*@", rest)
    user, colon, _ = (found[0] if found else "").rstrip("@").partition(":")
    where = re.split("[?#]", rest[found.end() if found else 0 :])[0]
    return f"{scheme}{sign}{user}{':***' if colon else ''}{'@' if found else ''}{where}"


def secrets_in(url: str) -> tuple[str, ...]:
    """The password of a URL, as it is written there and as it is meant."""
    found = re.match("[^/:]*:([^/]*)@", url.partition("://")[2])
    return tuple(sorted({found[1], unquote(found[1])}, key=len, reverse=True)) if found and found[1] else ()
