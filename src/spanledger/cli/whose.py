"""What `spanledger doctor` says of attribution: calls of nobody, and where people's ids may go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Final

from spanledger.attributes import HASH
from spanledger.cli.finding import Finding
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.ledger import books
from spanledger.ledger.addresses import is_postgres
from spanledger.ledger.queries import conditions_of
from spanledger.model import ATTRIBUTION_KEYS
from spanledger.settings import Settings

DAYS: Final = 7
"""So many are looked at."""
_SENDERS: Final = frozenset({"aiohttp-client", "httpx", "httpx2", "requests", "tornado", "urllib", "urllib3"})
"""Instrumentations of HTTP clients, by their entry points: what they inject goes to every host."""
_NOBODY: Final = " AND ".join(f"{key} IS NULL" for key in ATTRIBUTION_KEYS)
_COUNTED: Final = ", ".join(
    f"coalesce(sum(CASE WHEN {condition} THEN weight ELSE 0 END), 0)"
    for condition in (
        "TRUE",
        _NOBODY,
        "attribution_source = 'outlived'",
        "attribution_source = 'unverified_headers'",
    )
)


def calls_of_nobody(settings: Settings, most: float | None) -> Iterator[Finding]:
    """How many of the last days' calls are unattributed: more than `most` of them (0 to 1) is a failure."""
    if settings.ledger_url == "none":
        return
    since = datetime.now(UTC) - timedelta(days=DAYS)
    try:
        with books.reading(settings.ledger_url) as asked:
            conditions, values = conditions_of(asked, since, None, {})
            calls, nobodys, outlived, unverified = asked.execute(
                f"SELECT {_COUNTED} FROM usage_records{conditions}", values
            ).fetchone()
    except books.NoLedgerError:
        calls = nobodys = outlived = unverified = 0
    except books.LedgerError:
        return  # said of the ledger already
    share = nobodys / calls if calls else 0.0
    bound = "" if most is None else f", at most {most:.1%} may be"
    yield Finding(
        subject="attribution",
        says=f"{nobodys} of {calls} calls of the last {DAYS} days are (unattributed), {share:.1%}{bound}",
        well=most is None or share <= most,
        do="Open a scope around them (docs/how-to/attribute-costs.md). 'spanledger report --by service,model --where"
        " user_id=' shows which they are.",
    )
    if outlived:
        yield Finding(
            subject="attribution",
            says=f"{outlived} calls were made by tasks that had outlived the scope they were started in",
            warns=True,
            do="Give such tasks their attribution with capture() and restore().",
        )
    if unverified:
        yield Finding(
            subject="attribution",
            says=f"{unverified} calls are attributed by headers that anybody can send (trust_all)",
            warns=True,
            do="Name the proxies that set them with trusted_proxies, or read the authenticated user.",
        )


def where_ids_go(settings: Settings) -> Iterator[Finding]:
    """Whether ids of people are on metrics, and whether baggage leaves for model providers."""
    listed = [key for key in ("user_id", "session_id") if key in settings.metric_attributes]
    if listed:
        yield Finding(
            subject="metrics",
            says=f"{' and '.join(listed)} on every point, up to {settings.metric_values_limit} of them",
            warns=True,
            do="Take them out of SPANLEDGER_METRIC_ATTRIBUTES: the ledger has them, a metrics backend need not.",
        )
    if is_postgres(settings.ledger_url) and settings.signing_key is None:
        hashed = [key for key in settings.span_attributes if key.startswith(HASH)]
        if hashed:
            yield Finding(
                subject="spans",
                says=f"{', '.join(hashed)} is hashed with a key of this machine's alone",
                warns=True,
                do="Set the same SPANLEDGER_SIGNING_KEY everywhere, or one person has another hash on each machine.",
            )
    senders = sorted({each.name for each in entry_points(group="opentelemetry_instrumentor")} & _SENDERS)
    senders += [
        name
        for name, provider in PROVIDERS.items()
        if any(os.environ.get(switch, "false").strip().lower() != "false" for switch in provider.own_tracing)
    ]
    propagators = os.environ.get("OTEL_PROPAGATORS", "tracecontext,baggage").split(",")
    if senders and "baggage" in (each.strip() for each in propagators):
        yield Finding(
            subject="baggage",
            says=f"{', '.join(senders)} send OpenTelemetry baggage to every host, model providers included; spanledger"
            " puts nothing into it, the application may",
            warns=True,
            do="OTEL_PROPAGATORS=tracecontext stops it.",
        )
