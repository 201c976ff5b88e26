"""Name of a sink → what makes it, and what it can't be made without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from spanledger.guard import log
from spanledger.recording.sink import Poster, Sink
from spanledger.settings import TABLE, Settings


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table."""

    make: Callable[[Settings], Sink | Poster]
    needs: str | None = None
    """The setting it can't do without."""
    bills: bool = False
    """Whether what it is told becomes a bill: it needs every call."""


def _usage_api(settings: Settings) -> Poster:
    from spanledger.export.sinks.usage_api import UsageApiSink  # noqa: PLC0415  # each with what it needs

    return UsageApiSink(
        settings.usage_api_url,
        headers=settings.usage_api_headers,
        totals=settings.usage_api_totals,
        debug=settings.debug,
    )


def _tokentally(settings: Settings) -> Poster:
    from spanledger.export.sinks.tokentally import TokenTallySink  # noqa: PLC0415  # as above

    return TokenTallySink(settings.tokentally_base_url, settings.tokentally_api_key or "", debug=settings.debug)


def _openmeter(settings: Settings) -> Sink:
    from spanledger.export.sinks.openmeter import OpenMeterSink  # noqa: PLC0415  # as above

    return OpenMeterSink(settings.openmeter_url or "", settings.openmeter_api_key, debug=settings.debug)


def _otlp(settings: Settings) -> Sink:
    from spanledger.export.sinks.otlp import OtlpSink  # noqa: PLC0415  # as above

    return OtlpSink(debug=settings.debug)


def _jsonl(settings: Settings) -> Sink:
    from spanledger.export.sinks.lines import JsonlSink  # noqa: PLC0415  # as above

    return JsonlSink(settings.jsonl_path, max_bytes=settings.jsonl_max_bytes)


def _console(_: Settings) -> Sink:
    from spanledger.export.sinks.lines import ConsoleSink  # noqa: PLC0415  # as above

    return ConsoleSink()


KINDS: Final = {
    "usage_api": Kind(_usage_api, bills=True),
    "tokentally": Kind(_tokentally, needs="tokentally_api_key", bills=True),
    "openmeter": Kind(_openmeter, needs="openmeter_url", bills=True),
    "otlp": Kind(_otlp),
    "jsonl": Kind(_jsonl),
    "console": Kind(_console),
}


def lacking(name: str, settings: Settings) -> str | None:
    """What a sink can't do without and is not so: an environment variable that is not set, a rate below 1."""
    kind = KINDS[name]
    if kind.bills and settings.sample_rate > 1:
        return f"it bills, and only one call in {settings.sample_rate} is kept (sample_rate)"
    if kind.needs is None or getattr(settings, kind.needs):
        return None
    return f"{next(row.env[0] for row in TABLE if row.name == kind.needs)} is not set"


def say_left_out(settings: Settings) -> None:
    """A warning for each sink that is asked for and does not have what it needs."""
    for name in settings.sinks:
        if missing := lacking(name, settings):
            log.warning("The sink %s is left out: %s. Records go to the others.", name, missing)


def usable(settings: Settings) -> tuple[str, ...]:
    """The sinks that are asked for and have what they need."""
    return tuple(name for name in settings.sinks if lacking(name, settings) is None)


def sink_of(name: str, settings: Settings) -> Sink | Poster:
    """The sink of a name, one of `settings.SINKS`."""
    return KINDS[name].make(settings)
