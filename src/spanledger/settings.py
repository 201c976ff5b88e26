"""Settings, as one table: name, environment names, how to read it, default, help.

Keywords win over `SPANLEDGER_*`, which win over the seed systems' own names. A bad value is one clear warning and the
default; it is never an exception.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from spanledger.attributes import HASH
from spanledger.guard import log
from spanledger.homes import usable

SINKS: Final = ("usage_api", "tokentally", "openmeter", "otlp", "jsonl", "console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user decided, read and checked. Field names are setting names."""

    enabled: bool
    ledger_url: str
    auto_migrate: str
    retention_days: int
    ledger_max_bytes: int
    state_dir: Path
    state_dir_asked: Path
    """The state directory that was asked for, which may not be usable."""
    sinks: tuple[str, ...]
    durability: str
    prices: tuple[Path, ...]
    price_fixups: str
    spans: str
    span_attributes: tuple[str, ...]
    read_spans: str
    stream_usage: str
    metric_attributes: tuple[str, ...]
    metric_values_limit: int
    app_name: str | None
    environment: str | None
    batch_size: int
    flush_interval: float
    sample_rate: int
    """N, of 1 call in N that the ledger keeps."""
    outbox_max_bytes: int
    propagate: str
    request_user: bool
    signing_key: str | None
    debug: bool
    chunk_histogram: bool
    usage_api_url: str
    usage_api_headers: Mapping[str, str]
    usage_api_totals: bool
    tokentally_api_key: str | None
    tokentally_base_url: str
    openmeter_url: str | None
    openmeter_api_key: str | None
    jsonl_path: Path
    jsonl_max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table."""

    name: str
    env: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    """A value, or a function of the settings read so far."""
    help: str
    secret: bool = False
    """Whether its value is never shown."""


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected true or false")


_SAME: Final = {"true": "on", "on": "true", "false": "off", "off": "false"}


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            word = _SAME.get(word, word)
        if word not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return word

    return parse


def _many_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        chosen = _listed(text)
        unknown = [word for word in chosen if word not in words]
        if unknown:
            raise ValueError(f"does not know {', '.join(unknown)}; expected any of {', '.join(words)}")
        return chosen

    return parse


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _positive(kind: type[int | float]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise ValueError("expected a number above zero")
        return number

    return parse


_LEAST_RATE: Final = 0.000001


def _every(text: str) -> int:
    """Of a rate, the N of 1 in N."""
    rate = float(text)
    if not _LEAST_RATE <= rate <= 1:
        raise ValueError(f"expected a number from {_LEAST_RATE} to 1")
    return round(1 / rate)


_LEAST_SECRET: Final = 16
POSTGRES_SCHEMES: Final = (
    "postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg", "asyncpg",
)  # fmt: skip
"""Schemes that name a PostgreSQL database; psycopg 3 serves them all."""


def _ledger_url(text: str) -> str:
    url = text.strip()
    if url.startswith("env:"):
        url = os.environ.get(url[4:], "")
        if not url:
            raise ValueError(f"{text} names an environment variable that is not set")
    if url == "none" or url.startswith("sqlite:///") or url.partition("://")[0].lower() in POSTGRES_SCHEMES:
        return url
    raise ValueError(
        "expected sqlite:///relative.db, sqlite:////absolute.db, postgresql://user:password@host/database, env:NAME or"
        " none"
    )


def _headers(text: str) -> dict[str, str]:
    """As in OTEL_EXPORTER_OTLP_HEADERS: comma-separated `name=value`, the value percent-encoded where need be."""
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise ValueError("expected name=value,name=value")
        found[name.strip()] = unquote(value.strip())
    return found


def _address(text: str) -> str:
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an http or https address")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("expected an address without user, password, query and fragment")
    return text.strip()


def _secret(text: str) -> str:
    text = text.strip()
    if len(text) < _LEAST_SECRET:
        raise ValueError(f"expected at least {_LEAST_SECRET} characters")
    return text


def _home(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _default_state_dir(_: Mapping[str, Any]) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join("~", ".local", "state")  # noqa: PTH118  # text, not yet a path
    return _home(base) / "spanledger"


ATTRIBUTION_WORDS: Final = (
    "user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center", "message_id", "metadata",
)  # fmt: skip

TABLE: Final = (
    Setting(
        name="enabled", env=("SPANLEDGER_ENABLED",), parse=_flag, default=True, help="`false` switches everything off."
    ),
    Setting(
        name="state_dir",
        env=("SPANLEDGER_STATE_DIR",),
        parse=_home,
        default=_default_state_dir,
        help="Where the ledger and the outbox live, mode 0700. Default `$XDG_STATE_HOME/spanledger`.",
    ),
    Setting(
        name="ledger_url",
        env=("SPANLEDGER_LEDGER_URL", "TOKENLEDGER_DATABASE_URL"),
        parse=_ledger_url,
        default=lambda read: f"sqlite:///{read['state_dir'] / 'ledger.db'}",
        help="`sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user:password@host/database`, `env:NAME`"
        " (what the variable NAME holds), `none`. Default `<state_dir>/ledger.db`.",
        secret=True,
    ),
    Setting(
        name="auto_migrate",
        env=("SPANLEDGER_AUTO_MIGRATE",),
        parse=_one_of("true", "false", "always"),
        default="true",
        help="PostgreSQL: `true` makes the tables in a database that has none, an older schema waits for"
        " `spanledger ledger migrate`; `always` migrates it too; `false` does neither.",
    ),
    Setting(
        name="retention_days",
        env=("SPANLEDGER_RETENTION_DAYS",),
        parse=_positive(int),
        default=400,
        help="Days that the ledger keeps a record; what is older is pruned, and what was pruned is written down.",
    ),
    Setting(
        name="ledger_max_bytes",
        env=("SPANLEDGER_LEDGER_MAX_BYTES",),
        parse=_positive(int),
        default=2 * 2**30,
        help="Size of the SQLite ledger. Above 80 % there are warnings, at 100 % the oldest days are pruned.",
    ),
    Setting(
        name="sinks",
        env=("SPANLEDGER_SINKS",),
        parse=_many_of(*SINKS),
        default=(),
        help=f"Comma list beside the ledger: {', '.join(SINKS)}.",
    ),
    Setting(
        name="durability",
        env=("SPANLEDGER_DURABILITY",),
        parse=_one_of("async", "sync", "relaxed"),
        default="async",
        help="`async`: full sync by a writer thread; `sync`: a call returns after the commit; `relaxed`: no full sync.",
    ),
    Setting(
        name="prices",
        env=("SPANLEDGER_PRICES",),
        parse=lambda text: tuple(map(_home, _listed(text))),
        default=(),
        help="Price files, comma list: overrides (docs/how-to/override-prices.md), tables in LiteLLM's JSON format.",
    ),
    Setting(
        name="price_fixups",
        env=("SPANLEDGER_PRICE_FIXUPS",),
        parse=_one_of("on", "off"),
        default="on",
        help="`off` prices with genai-prices as it is, without our own corrections.",
    ),
    Setting(
        name="spans",
        env=("SPANLEDGER_SPANS",),
        parse=_one_of("auto", "always", "never"),
        default="auto",
        help="`auto`: one span per call, ours or the one somebody else made, with the cost on it; `always`: ours beside"
        " any other; `never`: none of ours.",
    ),
    Setting(
        name="span_attributes",
        env=("SPANLEDGER_SPAN_ATTRIBUTES",),
        parse=_many_of(*ATTRIBUTION_WORDS, *(f"{HASH}{word}" for word in ATTRIBUTION_WORDS[:-1])),
        default=ATTRIBUTION_WORDS,
        help="Attribution keys written on spans; `hash:user_id` writes a keyed hash of it. Default all.",
    ),
    Setting(
        name="read_spans",
        env=("SPANLEDGER_READ_SPANS",),
        parse=_one_of("auto", "off"),
        default="auto",
        help="`auto` reads the model spans that others make, sampled or not; `off` leaves them alone.",
    ),
    Setting(
        name="stream_usage",
        env=("SPANLEDGER_STREAM_USAGE",),
        parse=_one_of("auto", "always", "never"),
        default="auto",
        help="Ask for the usage of streams where the server is known to accept it; the application sees no difference.",
    ),
    Setting(
        name="metric_attributes",
        env=("SPANLEDGER_METRIC_ATTRIBUTES",),
        parse=_many_of(*ATTRIBUTION_WORDS[:-1]),
        default=("feature", "team", "project", "cost_center"),
        help="Attribution keys written on `spanledger.*` metrics.",
    ),
    Setting(
        name="metric_values_limit",
        env=("SPANLEDGER_METRIC_VALUES_LIMIT",),
        parse=_positive(int),
        default=100,
        help="Values per attribution key on metrics; later ones become `__other__`.",
    ),
    Setting(
        name="app_name",
        env=("SPANLEDGER_APP_NAME", "TOKENLEDGER_APP_NAME"),
        parse=str,
        default=None,
        help="Service name in the ledger. Default the resource's `service.name`.",
    ),
    Setting(
        name="environment",
        env=("SPANLEDGER_ENVIRONMENT", "TOKENLEDGER_ENVIRONMENT"),
        parse=str,
        default=None,
        help="Environment in the ledger. Default the resource's `deployment.environment.name`.",
    ),
    Setting(
        name="batch_size",
        env=("SPANLEDGER_BATCH_SIZE", "TOKENLEDGER_BATCH_SIZE"),
        parse=_positive(int),
        default=500,
        help="Records per delivery.",
    ),
    Setting(
        name="flush_interval",
        env=("SPANLEDGER_FLUSH_INTERVAL", "TOKENLEDGER_FLUSH_INTERVAL"),
        parse=_positive(float),
        default=1.0,
        help="Seconds between deliveries.",
    ),
    Setting(
        name="sample_rate",
        env=("SPANLEDGER_SAMPLE_RATE", "TOKENLEDGER_SAMPLE_RATE"),
        parse=_every,
        default=1,
        help="Share of the calls that the ledger keeps, rounded to 1 in N; a kept row stands for N (`weight`), in every"
        " sum. Metrics count all calls. Sinks that bill (`usage_api`, `tokentally`, `openmeter`) need 1. Default 1.0.",
    ),
    Setting(
        name="outbox_max_bytes",
        env=("SPANLEDGER_OUTBOX_MAX_BYTES",),
        parse=_positive(int),
        default=256 * 2**20,
        help="Size of one process's outbox; at the bound new records are refused and counted.",
    ),
    Setting(
        name="propagate",
        env=("SPANLEDGER_PROPAGATE",),
        parse=_one_of("executors", "threads", "off"),
        default="executors",
        help="What takes the attribution of whoever starts it: `executors` (jobs of thread pools, each its own),"
        " `threads` (threads too, be they workers for everybody), `off`. Tasks and `asyncio.to_thread` have it anyway.",
    ),
    Setting(
        name="request_user",
        env=("SPANLEDGER_REQUEST_USER",),
        parse=_flag,
        default=False,
        help="Where no scope says a user, take the one in the request: OpenAI's `safety_identifier` and `user`,"
        " Anthropic's `metadata.user_id`.",
    ),
    Setting(
        name="signing_key",
        env=("SPANLEDGER_SIGNING_KEY",),
        parse=_secret,
        default=None,
        help="What `capture()` signs and identifiers are hashed with, the same wherever they meet. Default a key in the"
        " state directory.",
        secret=True,
    ),
    Setting(
        name="debug",
        env=("SPANLEDGER_DEBUG", "TOKENLEDGER_DEBUG"),
        parse=_flag,
        default=False,
        help="Logs what each sink sends.",
    ),
    Setting(
        name="chunk_histogram",
        env=("SPANLEDGER_CHUNK_HISTOGRAM",),
        parse=_flag,
        default=False,
        help="Record `gen_ai.client.operation.time_per_output_chunk`, one point per chunk.",
    ),
    Setting(
        name="usage_api_url",
        env=("LEXIA_API_BASE_URL",),
        parse=_address,
        default="http://localhost",
        help="Base URL of the `usage_api` sink.",
    ),
    Setting(
        name="usage_api_headers",
        env=("SPANLEDGER_USAGE_API_HEADERS",),
        parse=_headers,
        default={},
        help="Headers of the `usage_api` sink, as `x-tenant=acme,authorization=Bearer%20…`.",
        secret=True,
    ),
    Setting(
        name="usage_api_totals",
        env=("SPANLEDGER_USAGE_API_TOTALS",),
        parse=_flag,
        default=False,
        help="Send `total` rows to the usage API as well. Whoever sums its rows counts every token twice then.",
    ),
    Setting(
        name="tokentally_api_key",
        env=("TOKENTALLY_API_KEY",),
        parse=str,
        default=None,
        help="API key of the `tokentally` sink.",
        secret=True,
    ),
    Setting(
        name="tokentally_base_url",
        env=("TOKENTALLY_BASE_URL",),
        parse=_address,
        default="https://api.tokentally.io",
        help="Base URL of the `tokentally` sink.",
    ),
    Setting(
        name="openmeter_url",
        env=("OPENMETER_URL",),
        parse=_address,
        default=None,
        help="Base URL of the `openmeter` sink.",
    ),
    Setting(
        name="openmeter_api_key",
        env=("OPENMETER_API_KEY",),
        parse=str,
        default=None,
        help="API key of the `openmeter` sink.",
        secret=True,
    ),
    Setting(
        name="jsonl_path",
        env=("SPANLEDGER_JSONL_PATH",),
        parse=_home,
        default=lambda read: read["state_dir"] / "usage.jsonl",
        help="File of the `jsonl` sink. Default `<state_dir>/usage.jsonl`.",
    ),
    Setting(
        name="jsonl_max_bytes",
        env=("SPANLEDGER_JSONL_MAX_BYTES",),
        parse=_positive(int),
        default=64 * 2**20,
        help="Size at which that file is renamed to `….1`; ten are kept.",
    ),
)


def read_settings(given: Mapping[str, Any] = {}, environ: Mapping[str, str] = os.environ) -> Settings:  # never written
    """Settings from keywords, the environment and the defaults, in this order.

    Raises `TypeError` for a keyword that is no setting; a bad value is a warning and the default.
    """
    unknown = sorted(set(given) - {row.name for row in TABLE})
    if unknown:
        raise TypeError(f"spanledger has no setting {', '.join(unknown)}; it has {', '.join(r.name for r in TABLE)}")
    read: dict[str, Any] = {}
    for row in TABLE:
        read[row.name] = _read(row, given, environ, read)
        if row.name == "state_dir":
            read["state_dir_asked"], read["state_dir"] = read["state_dir"], usable(read["state_dir"])
    return Settings(**read)


def _read(row: Setting, given: Mapping[str, Any], environ: Mapping[str, str], read: Mapping[str, Any]) -> Any:
    sources = [(f"{row.name}=", given[row.name])] if given.get(row.name) is not None else []
    sources += [(name, environ[name]) for name in row.env if environ.get(name, "").strip()]
    default = row.default(read) if callable(row.default) else row.default
    for name, value in sources:
        try:
            return row.parse(_text(value))
        except (ValueError, OverflowError) as error:
            shown = "none" if row.secret else _shown(default)
            log.warning("%s is not usable (%s); %s stays at its default, %s.", name, error, row.name, shown)
            return default
    return default


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={quote(str(each))}" for name, each in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(str(each) for each in value)
    return value.decode() if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
