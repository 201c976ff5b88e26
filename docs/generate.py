"""Writes docs/reference/ from the tables it describes, and the SQL of the PostgreSQL ledger from its migrations.

python docs/generate.py            # write the pages
python docs/generate.py --check    # exit 1 if a page differs from what would be written

Sources: `semconv/registry.yaml` (attributes, metrics), `spanledger.settings.TABLE` (settings), the ledger's own schema,
`spanledger.instrumentation.providers` (providers), `docs/seeds.yaml` with the tests in tests/compat (replaced systems).
"""  # noqa: INP001  # a script, no package

from __future__ import annotations

import ast
import io
import json
import re
import sqlite3
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from spanledger import conventions
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.spec import Announcement, Batch, Endpoint, Provider
from spanledger.ledger.sqlite import migrate
from spanledger.model import ATTRIBUTION_SOURCES
from spanledger.pricing.price_file import json_schema
from spanledger.settings import TABLE, Setting

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "docs" / "reference"
MIGRATIONS: Final = ROOT / "src" / "spanledger" / "ledger" / "migrations"
REGISTRY: Final = ROOT / "semconv" / "registry.yaml"
SEEDS: Final = ROOT / "docs" / "seeds.yaml"
COMPAT: Final = ROOT / "tests" / "compat"

WRITTEN: Final = "<!-- Written by docs/generate.py. Edit its source, then run `python docs/generate.py`. -->"


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` compare them. 0 if all is well, 1 if a page is stale, 2 on wrong use."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python docs/generate.py [--check]\n")
        return 2
    stale = 0
    for path, text in [*((PAGES / name, text) for name, text in pages().items()), *scripts()]:
        if arguments:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                sys.stderr.write(f"{path.relative_to(ROOT)} is stale; run 'python docs/generate.py'\n")
                stale = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return stale


def pages() -> dict[str, str]:
    """File name → text of every generated page."""
    groups = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))["groups"]
    return {
        "attributes.md": _page(attributes(groups)),
        "metrics.md": _page(metrics(groups)),
        "settings.md": _page(settings()),
        "providers.md": _page(providers()),
        "ledger.md": _page(ledger()),
        "seeds.md": _page(seeds()),
        "price-file.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def scripts() -> Iterator[tuple[Path, str]]:
    """The SQL of every migration of the PostgreSQL ledger: its file, its text."""
    config = Config()
    config.set_main_option("script_location", "spanledger.ledger:migrations")
    config.set_main_option("version_locations", str(MIGRATIONS / "versions"))
    config.set_main_option("path_separator", "os")
    for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        config.output_buffer = written = io.StringIO()
        command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
        name = Path(script.path).stem.removeprefix("v")
        lines = (line.rstrip() for line in written.getvalue().splitlines())
        body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        head = f"-- {script.doc}\n-- Generated from versions/{Path(script.path).name} by docs/generate.py.\n"
        yield MIGRATIONS / "sql" / f"{name}.sql", f"{head}\n{body}\n"


def _page(lines: Iterable[str]) -> str:
    return "\n".join((WRITTEN, "", *lines)).rstrip() + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(' --- ' for _ in head)}|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _filled(text: str) -> list[str]:
    """A paragraph as lines of at most 120 characters."""
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def _code(text: object) -> str:
    return f"`{text}`"


# Attributes.

STANDARD: Final = (
    ("Every span", (conventions.OPERATION, conventions.PROVIDER)),
    (
        "Where the call has it",
        (
            conventions.REQUEST_MODEL,
            conventions.REQUEST_STREAM,
            conventions.SERVER_ADDRESS,
            conventions.SERVER_PORT,
            conventions.USER_ID,
            conventions.SESSION_ID,
        ),
    ),
    (
        "Where the answer says it",
        (
            conventions.RESPONSE_ID,
            conventions.RESPONSE_MODEL,
            conventions.FINISH_REASONS,
            conventions.OPENAI_RESPONSE_SERVICE_TIER,
            *(name for name in conventions.USAGE.values() if name.startswith("gen_ai.")),
        ),
    ),
    ("Streams", (conventions.TIME_TO_FIRST_CHUNK,)),
    ("Calls the SDK repeated", (conventions.RESEND_COUNT,)),
    ("Failed calls", (conventions.ERROR_TYPE,)),
)
"""When it stands on a span → attributes of OpenTelemetry's own conventions."""


def attributes(groups: list[dict[str, Any]]) -> Iterator[str]:
    """The page of attributes."""
    registry = _group(groups, "registry.spanledger")["attributes"]
    on_span = set(_refs(_group(groups, "span.spanledger.genai.client")))
    on_event = set(_refs(_group(groups, "event.spanledger.usage")))
    yield from (
        "# Attributes",
        "",
        *_filled(
            "Attributes that spanledger writes on spans and metrics. Its own stand in the namespace `spanledger.`; they"
            " are published in [`semconv/registry.yaml`](../../semconv/registry.yaml), in the format of the"
            " OpenTelemetry semantic-convention registry. Stability of all of them: development."
        ),
        "",
        "## On spans",
        "",
        "Absent means unknown. 0 means that the provider reported none.",
        "",
        *_attribute_table(each for each in registry if each["id"] in on_span),
        "",
        "## On log records",
        "",
        "The `otlp` sink sends each usage record as the event `spanledger.usage`, with the attributes above and these.",
        "",
        *_attribute_table(each for each in registry if each["id"] in on_event),
        "",
        "## On metrics only",
        "",
        *_attribute_table(each for each in registry if each["id"] not in on_span | on_event),
        "",
        "## Values",
        "",
    )
    for each in registry:
        if isinstance(each["type"], dict):
            yield from (f"### `{each['id']}`", "", each["brief"], "")
            yield from _table(
                ("value", "meaning"), ((_code(one["value"]), one["brief"]) for one in each["type"]["members"])
            )
            yield ""
    yield from _standard_attributes()


def _attribute_table(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield from _table(("attribute", "type", "meaning", "example"), (_attribute_row(each) for each in found))


def _attribute_row(each: dict[str, Any]) -> tuple[str, ...]:
    kind, name = each["type"], each["id"]
    if isinstance(kind, dict):
        kind = f"string, see [values](#{name.replace('.', '')})"
    elif kind.startswith("template["):
        name, kind = f"{name}.<key>", "string, int, double or boolean"
    meaning = f"{each['brief']} {each.get('note', '')}".strip()
    return _code(name), kind, meaning, _code(_example(each["examples"][0]))


def _example(value: Any) -> str:
    """Small amounts without an exponent."""
    return f"{value:.12f}".rstrip("0") if isinstance(value, float) else str(value)


def _standard_attributes() -> Iterator[str]:
    asked = sorted(
        {
            name
            for provider in PROVIDERS.values()
            for each in provider.targets
            for one in each.endpoints
            for name in one.request
        }
    )
    yield from (
        "## Of OpenTelemetry's own conventions",
        "",
        *_filled(
            f"Names as of {conventions.SNAPSHOT}. Input tokens include cache reads and writes, output tokens include"
            " reasoning. Counts of audio and image tokens are written only where they are not 0."
        ),
        "",
    )
    rows = [*STANDARD, ("Where the request has it", tuple(asked))]
    yield from _table(("when", "attributes"), ((when, ", ".join(map(_code, names))) for when, names in rows))
    yield from (
        "",
        f"Read on spans of others, but never written: `{conventions.CACHE_CREATION_TOKENS}` (an older spelling of",
        f"`{conventions.CACHE_WRITE_TOKENS}`).",
    )


def _group(groups: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(group for group in groups if group["id"] == name)


def _refs(group: dict[str, Any]) -> list[str]:
    return [each["ref"] for each in group.get("attributes", ())]


# Metrics.


def metrics(groups: list[dict[str, Any]]) -> Iterator[str]:
    """The page of metrics."""
    yield from (
        "# Metrics",
        "",
        "## Of spanledger",
        "",
        *_filled(
            "Counted from recorded calls, whatever the sampler decided. They move on a thread of spanledger's own,"
            " never on the caller's. Definitions: [`semconv/registry.yaml`](../../semconv/registry.yaml)."
        ),
        "",
    )
    found = [group for group in groups if group["type"] == "metric"]
    yield from _table(
        ("metric", "instrument", "unit", "what it says", "always has"),
        (
            (_code(each["metric_name"]), each["instrument"], _code(each["unit"]), f"{each['brief']}.", _always(each))
            for each in found
        ),
    )
    yield ""
    notes: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        if "note" in each:
            notes.setdefault(each["note"].strip(), []).append(each)
    for note, those in notes.items():
        yield from _filled(f"{', '.join(_code(each['metric_name']) for each in those)}: {note}")
        more = {f"`{one['ref']}`{_level(one)}" for each in those for one in _rest(each)}
        if more:
            yield from ("", *_filled(f"Attribution attributes: {', '.join(sorted(more))}."))
        yield ""
    yield from (
        *_filled(
            "`opt in`: only where the setting `metric_attributes` names the key. The others: where the call has a value"
            " and the setting names the key, as it does by default. Each attribution attribute takes at most"
            " `metric_values_limit` values; later ones become `__other__`."
        ),
        "",
        "## Of the GenAI conventions",
        "",
        *_filled(f"Names as of {conventions.SNAPSHOT}. Recorded for calls that spanledger itself watches."),
        "",
    )
    yield from _table(
        ("metric", "instrument", "unit", "what it says"),
        (
            (_code(name), kind, _code(unit), f"{says}.")
            for name, (kind, unit, says) in conventions.METRICS.items()
            if name.startswith("gen_ai.")
        ),
    )
    yield from (
        "",
        *_filled(
            "Attributes: `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`,"
            " `gen_ai.response.model`, `server.address`, `server.port`; `gen_ai.token.type` on tokens; `error.type` on"
            f" the duration of failed calls. `{conventions.METRIC_PER_CHUNK}` is off unless the setting"
            " `chunk_histogram` is on."
        ),
    )


def _always(group: dict[str, Any]) -> str:
    return ", ".join(
        _code(one["ref"]) for one in group.get("attributes", ()) if one.get("requirement_level") == "required"
    )


def _rest(group: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in group.get("attributes", ()) if one.get("requirement_level") != "required"]


def _level(ref: dict[str, Any]) -> str:
    level = ref.get("requirement_level")
    return f" ({level.replace('_', ' ')})" if isinstance(level, str) else ""


# Settings.


def settings() -> Iterator[str]:
    """The page of settings."""
    yield from (
        "# Settings",
        "",
        *_filled(
            "Each setting is read from the keywords of `spanledger.configure(...)`, else from its environment variables"
            " in the order given here, else it has its default. An empty variable counts as not set. A value that can't"
            " be used is one warning and the default, never an exception; an unknown keyword of `configure` raises"
            " `TypeError`."
        ),
        "",
        "Lists are separated by commas. A lone comma is the empty list.",
        "",
    )
    yield from _table(
        ("setting", "environment", "default", "what it does"),
        ((_code(row.name), ", ".join(map(_code, row.env)), _default(row), row.help) for row in TABLE),
    )
    yield from (
        "",
        "## OpenTelemetry's own variables",
        "",
        "They keep their meaning. These matter here:",
        "",
    )
    off = ", ".join(f"`spanledger_{name}`" for name in PROVIDERS)
    yield from _table(
        ("variable", "effect"),
        (
            (
                _code("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"),
                f"Calls of the providers named here are not watched: {off}. `*` switches all off.",
            ),
            (_code("OTEL_SDK_DISABLED"), "`true`: no spans and metrics; calls are recorded all the same."),
            (
                _code("OTEL_TRACES_EXPORTER"),
                "`spanledger` puts the model calls among exported spans of others into the ledger.",
            ),
            (
                f"{_code('OTEL_TRACES_EXPORTER')}, {_code('OTEL_METRICS_EXPORTER')}, {_code('OTEL_LOGS_EXPORTER')}",
                "Where unset, `spanledger run` takes `otlp` if an OTLP endpoint is named (logs never), else `none`.",
            ),
            (_code("OTEL_SERVICE_NAME"), "Service name, also in the ledger where `app_name` is not set."),
        ),
    )


# Providers.


def providers() -> Iterator[str]:
    """What is captured where."""
    yield from (
        "# Providers",
        "",
        *_filled(
            "Every method named here is watched, with its asynchronous twin, whole and streamed, raw"
            " (`with_raw_response`, `with_streaming_response`) and through the SDK's own helpers, as far as the SDK has"
            " them. A call is one row, however often the SDK retries it. The names of the counts are those of the"
            " ledger's columns; what is no column is in `other_usage`."
        ),
    )
    for name, provider in PROVIDERS.items():
        yield from ("", f"## {provider.title}", "")
        yield from _provider_facts(name, provider)
        yield from ("", *_table(("method", "versions", "operation", "usage"), _methods(provider)))
    yield from (
        "",
        "## Batches",
        "",
        *_filled(
            "Results of a batch are recorded when they are read: one row per answer, at the batch's rates. Its"
            " `record_id` follows from the batch and the item, so the same row comes of it whoever reads it how often."
        ),
    )
    yield from _usage_objects()


def _provider_facts(name: str, provider: Provider) -> Iterator[str]:
    told = {
        **provider.told_by,
        **{kind: named for kind, named in provider.clients.items() if not kind.startswith("Async")},
        **provider.hosts,
    }
    who = ", ".join(
        f"{_code(named)} ({', '.join(_code(by) for by in told if told[by] == named)})"
        for named in _unique(told.values())
    )
    yield from _filled(
        f"Package {_code(provider.package + provider.requires)}; switched off by `spanledger_{name}` in"
        f" `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`. Provider by client or host: {who}; otherwise"
        f" {_code(provider.name)}."
    )
    if provider.own_tracing:
        yield from (
            "",
            *_filled(
                f"The SDK makes spans of its own. Unless {_code(provider.own_tracing[0])} is set, ours replace them:"
                f" {' and '.join(map(_code, provider.own_tracing))} are set to `false` when it is instrumented. A"
                " client that traces itself all the same keeps its spans; ours makes none, and records as always."
            ),
        )


def _methods(provider: Provider) -> Iterator[tuple[str, ...]]:
    for target in provider.targets:
        if target.asynchronous or isinstance(target.endpoint, Announcement):
            continue
        method = f"{target.module}.{target.name}"
        if isinstance(target.endpoint, Mapping):
            for name, endpoint in target.endpoint.items():
                yield _code(name), target.versions or "all", endpoint.operation, _counts(endpoint)
        elif isinstance(target.endpoint, Batch):
            kinds = ", ".join(_code(kind) for kind in target.endpoint.endpoints)
            yield _code(method), target.versions or "all", "of the request", f"as of each answer: {kinds}"
        else:
            yield _code(method), target.versions or "all", target.endpoint.operation, _counts(target.endpoint)


def _counts(endpoint: Endpoint) -> str:
    told = [shape for one in _all([endpoint]) for shape in (one.usage, *one.spelled.values())]
    shapes = [_code(name) for name in _unique(shape.name for shape in told if shape.counts)]
    counted = [f"number of {name}" for name in (*endpoint.counts, *endpoint.lengths)]
    return ", ".join(shapes + counted)


def _usage_objects() -> Iterator[str]:
    yield from (
        "",
        "## Usage objects",
        "",
        *_filled(
            "What a usage object tells, by the name that `usage` has above and `usage_shape` has in the ledger. Input"
            " includes what was read from and written to a cache, output includes reasoning."
        ),
        "",
    )
    endpoints = [
        one for provider in PROVIDERS.values() for target in provider.targets for one in _all(target.endpoints)
    ]
    shapes = {shape.name: shape for one in endpoints for shape in (one.usage, *one.spelled.values()) if shape.counts}
    yield from _table(
        ("usage", "counts"), ((_code(name), ", ".join(map(_code, shapes[name].counts))) for name in shapes)
    )


def _all(endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    for endpoint in endpoints:
        yield endpoint
        yield from endpoint.variants.values()


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _default(row: Setting) -> str:
    if row.name == "state_dir":
        return "`$XDG_STATE_HOME/spanledger`, else `~/.local/state/spanledger`"
    value = row.default({"state_dir": Path("<state_dir>")}) if callable(row.default) else row.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return _code(str(value).lower())
    if isinstance(value, tuple):
        return _code(",".join(value)) if value else "empty"
    return _code(value)


# Ledger.

COLUMNS: Final = {
    "record_id": "Identity of the call: a UUIDv7 made when the call started, or derived from the provider's response"
    " for a background response. The only unique key.",
    "trace_id": "Trace of the span (hex). Absent where there was no span.",
    "span_id": "The span (hex).",
    "parent_span_id": "Its parent (hex).",
    "response_id": "The provider's id of the answer. Not unique: a server may repeat it.",
    "source": "Instrumentation scope that told of the call; `spanledger` for calls it watched itself.",
    "started_at": "Start of the call, ISO-8601 UTC with microseconds. For a background response its creation time.",
    "duration_ms": "Until the answer was complete, in ms. A stream ends with its last chunk, or when it is closed.",
    "time_to_first_chunk_ms": "Until the first chunk of a stream, in ms.",
    "operation": "`chat` (also OpenAI Responses), `text_completion` or `embeddings`; from spans of others also"
    " `generate_content`.",
    "provider": "Provider name of the GenAI conventions (`openai`, `azure.ai.openai`, `x_ai`, …).",
    "request_model": "Model that was asked for.",
    "response_model": "Model that answered.",
    "server_address": "Host that was asked.",
    "stream": "1 if a stream was asked for, else 0.",
    "finish_reasons": "JSON list of the reasons why the answer ended.",
    "service_tier": "Service tier the provider answered with. It may set the price.",
    "conversation_id": "The provider's id of the conversation.",
    "input_tokens": "Input tokens, cache reads and writes included.",
    "output_tokens": "Output tokens, reasoning included.",
    "cache_read_tokens": "Part of the input: read from a cache.",
    "cache_write_tokens": "Part of the input: written to a cache.",
    "cache_write_long_tokens": "Part of the cache writes: written for a long lifetime.",
    "reasoning_tokens": "Part of the output: reasoning.",
    "input_audio_tokens": "Part of the input: audio.",
    "output_audio_tokens": "Part of the output: audio.",
    "input_image_tokens": "Part of the input: images.",
    "output_image_tokens": "Part of the output: images.",
    "web_searches": "Web searches the provider bills for.",
    "other_usage": "JSON object of counts without a column of their own, such as `storage_searches`.",
    "usage_status": "[`spanledger.usage.status`](attributes.md#spanledgerusagestatus).",
    "cost_pusd": "Cost in pico-USD (10⁻¹² USD), an exact integer. NULL: unpriced.",
    "cost_breakdown": "JSON object: bucket → pico-USD. The parts sum to `cost_pusd`.",
    "currency": "`USD`, NULL where there is no cost.",
    "cost_source": "[`spanledger.cost.source`](attributes.md#spanledgercostsource).",
    "cost_status": "[`spanledger.cost.status`](attributes.md#spanledgercoststatus).",
    "price_basis": "Price lists that the cost was computed with: version and digest of each.",
    "price_context": "JSON object: what the price depends on besides model, tier and moment, as the provider said it:"
    " `speed`, `inference_geo`, …",
    "price_multipliers": "JSON object: label → factor, of every multiplier in the cost.",
    "local_cost_pusd": "Our own figure where `cost_source` is `provider`; the difference tells of stale prices.",
    "user_id": "User.",
    "session_id": "Session.",
    "organization_id": "Organization.",
    "feature": "Feature.",
    "team": "Team.",
    "project": "Project.",
    "cost_center": "Cost center.",
    "message_id": "The application's own message id.",
    "metadata": "JSON object of every other attribution key.",
    "status": "[`spanledger.status`](attributes.md#spanledgerstatus).",
    "error_type": "Type of the error, never its message. NULL unless the call failed.",
    "service_name": "`service.name`, or the setting `app_name`.",
    "service_version": "`service.version`.",
    "environment": "`deployment.environment.name`, or the setting `environment`.",
    "weight": "Calls that the row stands for: N where `sample_rate` keeps 1 in N, else 1. Reports multiply by it.",
    "raw_usage": "JSON object: the provider's usage object, numbers and names only, so that a row can be priced again.",
    "attempts": "HTTP requests the SDK made for the call, 1 without a retry; `NULL` where it does not tell.",
    "told_by": "JSON list of the scopes that told of the call, in order; `NULL` where it was `source` alone.",
    "merged_by": "By what they were known to tell of one call: `span`, `response_id`, `nesting`; `counts` and `time`"
    " are likely, not certain.",
    "claimed_cost_pusd": "What a span of somebody else says the call cost, pico-USD; the cost is ours all the same.",
    "usage_shape": "Table that `raw_usage` was read by (`spanledger.usage.shapes`), as `openai.chat`.",
    "attribution_source": "How it is known whose the call is: "
    + "; ".join(f"`{name}` ({meaning})" for name, meaning in ATTRIBUTION_SOURCES.items())
    + ". NULL: nobody is known.",
    "clock_suspect": "1 where `started_at` was more than 5 minutes ahead of or 35 days behind the delivery. The time"
    " itself stands as it was told.",
    "recorded_at": "When the row was written, ISO-8601 UTC.",
}
PRUNED: Final = {
    "day": "The UTC day.",
    "reason": "`retention_days`, `ledger_max_bytes`, or `asked for` by `spanledger ledger prune`.",
    "records": "Calls that were deleted.",
    "cost_usd": "What they had cost, decimal USD.",
    "pruned_at": "When, ISO-8601 UTC.",
}
ADJUSTMENTS: Final = {
    "record_id": "The call.",
    "number": "1 for its first adjustment. The last one counts.",
    "adjusted_at": "When, ISO-8601 UTC.",
    "old_cost_pusd": "What the call cost until then, NULL if it was unpriced.",
    "old_cost_status": "Status until then.",
    "old_price_basis": "Price lists until then.",
    "cost_pusd": "What it costs from then on, in pico-USD.",
    "cost_breakdown": "As in `usage_records`.",
    "cost_source": "As in `usage_records`.",
    "cost_status": "As in `usage_records`.",
    "price_basis": "As in `usage_records`.",
    "price_multipliers": "As in `usage_records`.",
}
VIEWS: Final = {
    "current_costs": "The rows of `usage_records` with what they cost by today's knowledge: the last adjustment, else"
    " what was recorded. Reports read it.",
    "token_ledger_events": "One row per call. Unknown tokens are 0 here, unknown cost is NULL. `cached_tokens` are"
    " cache reads; `page` and `component` are keys of `metadata`; `error_message`, `request_preview` and"
    " `response_preview` are always NULL.",
    "token_ledger_daily_costs": "Totals by day (UTC), provider and model.",
    "token_ledger_user_costs": "Totals by user; nobody is `anonymous`.",
    "token_ledger_team_costs": "Totals by team; none is `unassigned`.",
    "token_ledger_cost_center_costs": "Totals by cost center; none is `unassigned`.",
}


def ledger() -> Iterator[str]:
    """The page of the ledger. Raises `ValueError` where the schema and the meanings here differ."""
    connection = _made_ledger()
    columns = connection.execute("PRAGMA table_info(usage_records)").fetchall()
    views = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY rowid")
    ]
    adjustments = connection.execute("PRAGMA table_info(cost_adjustments)").fetchall()
    _same("columns", [name for _, name, *_ in columns], COLUMNS)
    _same("columns", [name for _, name, *_ in adjustments], ADJUSTMENTS)
    pruned = connection.execute("PRAGMA table_info(pruned_days)").fetchall()
    _same("columns", [name for _, name, *_ in pruned], PRUNED)
    _same("views", views, VIEWS)
    yield from (
        "# Ledger",
        "",
        *_filled(
            "The ledger is an SQLite file or a PostgreSQL database. `usage_records` has one row per model call,"
            " `cost_adjustments` what calls"
            " are known to have cost since. Unknown is NULL; 0 means that the provider reported none. No prompt,"
            " answer, header, key or error message is in it."
        ),
        "",
        "## `usage_records`",
        "",
    )
    yield from _table(
        ("column", "type", "meaning"),
        (
            (_code(name), f"{kind}{', never NULL' if needed else ''}", COLUMNS[name])
            for _, name, kind, needed, *_ in columns
        ),
    )
    yield from (
        "",
        *_filled(
            "Index: `started_at`. A row that is there already is completed, never doubled: what is NULL is filled, and"
            " a row whose status is `incomplete` takes the final status."
        ),
        "",
        "## `cost_adjustments`",
        "",
        *_filled(
            "Written by `spanledger reprice --apply`, one row per call and repricing. The row of the call itself never"
            " changes."
        ),
        "",
        *_table(
            ("column", "type", "meaning"),
            (
                (_code(name), f"{kind}{', never NULL' if needed else ''}", ADJUSTMENTS[name])
                for _, name, kind, needed, *_ in adjustments
            ),
        ),
        "",
        "## `pruned_days`",
        "",
        "What is no longer there, by day.",
        "",
        *_table(
            ("column", "type", "meaning"),
            (
                (_code(name), f"{kind}{', never NULL' if needed else ''}", PRUNED[name])
                for _, name, kind, needed, *_ in pruned
            ),
        ),
        "",
        "## In PostgreSQL",
        "",
        *_filled(
            "The same names. Times are `timestamptz`, counts and amounts `bigint`, JSON columns `jsonb`, `stream` and"
            " `clock_suspect` `boolean`; the views give cost as `numeric`. Besides `started_at` there are indexes on"
            " `user_id`, `session_id`, `organization_id`, `feature`, `team`, `project` and `cost_center`, each with"
            " `started_at`. The version of the schema stands in the table `spanledger_schema`."
        ),
        "",
        "## Views",
        "",
        "The `token_ledger_*` views give TokenLedger's column names. Tokens and cost are multiplied by `weight`; cost",
        "is in USD, in SQLite a double.",
        "",
    )
    for view in views:
        names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({view})")]
        columns_of = f"Columns: {', '.join(map(_code, names))}."
        yield from (f"### `{view}`", "", *_filled(VIEWS[view]), "", *_filled(columns_of), "")


def _made_ledger() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    return connection


def _same(what: str, there: list[str], described: dict[str, str]) -> None:
    wrong = set(there) ^ set(described)
    if wrong:
        raise ValueError(f"docs/generate.py and the ledger's schema have different {what}: {', '.join(sorted(wrong))}")


# Replaced systems.


def seeds() -> Iterator[str]:
    """What the replaced systems promise, and what shows that it is kept.

    Raises `ValueError` where a promise has neither a test nor says that it comes later.
    """
    tests = _tests()
    listed = yaml.safe_load(SEEDS.read_text(encoding="utf-8"))
    bare = [
        row["id"]
        for rows in listed.values()
        for row in rows
        if not (tests.get(row["id"]) or row.get("later") or row.get("also"))
    ]
    if bare:
        raise ValueError(f"{SEEDS.name}: no test in tests/compat is named after {', '.join(bare)}")
    yield from (
        "# Replaced systems",
        "",
        *_filled(
            "What Lexia, IndoxRouter, TokenTally and TokenLedger promise in their documents, where it lives here, and"
            " the tests that are named after it. The programs of the documents themselves run in"
            " `tests/compat/test_seed_documents.py` and `test_seed_ledger.py`. Rows in italics are promised by a"
            " package only, not by its document."
        ),
    )
    for system, rows in listed.items():
        yield from ("", f"## {system}", "")
        yield from _table(("row", "what", "where", "tests"), (_promise(row, tests.get(row["id"], [])) for row in rows))


def _promise(row: Mapping[str, Any], tests: list[str]) -> tuple[str, ...]:
    name = f"*{row['id']}*" if row.get("also") else row["id"]
    where = row["where"]
    plain = re.fullmatch(r"[\w.]+(\([\w=, ]*\))?", where) is not None
    shown = [*map(_code, tests), *([f"later: {row['later']}"] if row.get("later") else [])]
    return name, row["what"], _code(where) if plain else where, ", ".join(shown)


def _tests() -> dict[str, list[str]]:
    """Row → the names of the tests that begin with it, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(COMPAT.glob("test_*.py")):
        for each in ast.parse(path.read_text(encoding="utf-8")).body:
            named = re.match(r"test_([a-z]\d+)_", each.name) if isinstance(each, ast.FunctionDef) else None
            if named:
                found.setdefault(named[1].upper(), []).append(each.name)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
