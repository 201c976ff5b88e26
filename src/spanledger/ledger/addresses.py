"""Addresses of ledgers: which kind a URL names, and how a PostgreSQL one is told to its driver."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

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
    parts = urlsplit(url)
    known = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "ssl":  # asyncpg's word
            known.append(("sslmode", _TLS.get(value.lower(), value)))
        elif name in _PARAMETERS:
            known.append((name, value))
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(known), ""))


def sqlalchemy_url(url: str) -> str:
    """The same as SQLAlchemy reads it."""
    return libpq_url(url).replace("postgresql://", "postgresql+psycopg://", 1)


def shown(url: str) -> str:
    """A URL as it may be shown: without password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url.partition("?")[0]
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user.partition(':')[0]}:***@{host}", parts.path, "", ""))
