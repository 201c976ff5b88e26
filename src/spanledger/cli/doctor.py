"""What `spanledger doctor` looks at."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version

from spanledger import assembly
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.spec import Provider
from spanledger.ledger.sqlite import open_for_reading, path_of
from spanledger.recording.files import private_directory
from spanledger.recording.survey import survey
from spanledger.settings import Settings
from spanledger.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. `do` says what to do where it is not well."""

    subject: str
    says: str
    well: bool = True
    do: str = ""


def diagnose(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed but a missing state directory made."""
    findings: list[Finding] = []
    for look in (_switch, _providers, _pipeline, _prices, _state_dir, _outbox, _losses, _ledger):
        findings.extend(look(settings))
    return findings


def _switch(settings: Settings) -> Iterator[Finding]:
    if settings.enabled:
        yield Finding(subject="spanledger", says=f"{__version__}, switched on")
    else:
        yield Finding(
            subject="spanledger",
            says="switched off by SPANLEDGER_ENABLED=false",
            well=False,
            do="Unset it to record usage.",
        )


def _providers(settings: Settings) -> Iterator[Finding]:
    for name, provider in PROVIDERS.items():
        try:
            installed = version(provider.package)
        except PackageNotFoundError:
            yield Finding(subject=name, says="not installed, nothing to watch")
            continue
        yield _provider(name, provider, installed, settings)


def _provider(name: str, provider: Provider, installed: str, settings: Settings) -> Finding:
    if not settings.enabled:
        return Finding(subject=name, says=f"{installed} installed")
    states = assembly.look(name)
    watched = [bound.target.name for bound in states if bound.state == "watched"]
    missing = [f"{bound.target.module}.{bound.target.name}" for bound in states if bound.state == "missing"]
    itself = f"; {_own_spans(provider)}" if provider.own_tracing else ""
    asks = f"; usage of streams is asked for: {settings.stream_usage}"
    says = f"{installed} installed, {len(watched)} methods watched{itself}{asks if provider.asks_usage_of else ''}"
    if missing or not watched:
        return Finding(
            subject=name,
            says=f"{says}; NOT watched: {', '.join(missing) or 'anything'}",
            well=False,
            do=f"Calls of these methods are not recorded. Supported: {provider.package}{provider.requires}.",
        )
    return Finding(subject=name, says=says)


def _own_spans(provider: Provider) -> str:
    switch = provider.own_tracing[0]
    asked = os.environ.get(switch, "false").strip().lower() != "false"
    return f"traces itself as {switch} asks, ours make no spans" if asked else "its own spans are replaced by ours"


def _pipeline(_: Settings) -> Iterator[Finding]:
    configurators = [entry.name for entry in entry_points(group="opentelemetry_configurator")]
    if len(configurators) > 1:
        says = f"configurators installed: {', '.join(configurators)}; the first found is used"
    elif configurators:
        says = f"configurator {configurators[0]} is in charge of the SDK"
    else:
        says = "no configurator installed; under opentelemetry-instrument spanledger runs the SDK's own"
    yield Finding(subject="OpenTelemetry", says=says)


def _prices(settings: Settings) -> Iterator[Finding]:
    from spanledger.pricing.book import PriceBook  # noqa: PLC0415  # loads the price list
    from spanledger.pricing.document import PriceFileError  # noqa: PLC0415  # as above
    from spanledger.pricing.overrides import read_overrides  # noqa: PLC0415  # as above

    files = []
    for path in settings.prices:
        try:
            files.append(read_overrides(path))
        except PriceFileError as error:
            yield Finding(
                subject="price file",
                says=f"{path} can't be used: {error}",
                well=False,
                do="Calls are priced without it. 'spanledger prices check FILE' tries it again.",
            )
    yield Finding(subject="prices", says=PriceBook(fixups=settings.price_fixups == "on", overrides=files).basis)


def _state_dir(settings: Settings) -> Iterator[Finding]:
    try:
        private_directory(settings.state_dir)
    except OSError as error:
        yield Finding(
            subject="state directory",
            says=f"{settings.state_dir} can't be used ({error})",
            well=False,
            do="Name another with SPANLEDGER_STATE_DIR; until then records are kept in memory and counted when lost.",
        )
    else:
        yield Finding(subject="state directory", says=str(settings.state_dir))


def _outbox(settings: Settings) -> Iterator[Finding]:
    try:
        states = survey(settings.state_dir / "outbox")
    except (OSError, sqlite3.Error) as error:
        yield Finding(
            subject="outbox",
            says=f"can't be read ({error})",
            well=False,
            do="Nothing was changed; look at the files named there.",
        )
        return
    pending, dead = sum(state.pending for state in states), sum(state.dead for state in states)
    alive = sum(state.owner_alive for state in states)
    says = f"{pending} records pending in {len(states)} files ({alive} of living processes), {dead} dead"
    if dead:
        reasons = sorted({reason for state in states for reason in state.reasons})
        yield Finding(
            subject="outbox",
            says=f"{says}: {'; '.join(reasons)}",
            well=False,
            do="A sink refused these for good. They are kept; correct the cause at the receiver.",
        )
    else:
        yield Finding(subject="outbox", says=says)


def _losses(settings: Settings) -> Iterator[Finding]:
    path = settings.state_dir / "losses.jsonl"
    lost: Counter[str] = Counter()
    try:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            entry = json.loads(line)
            lost[entry["reason"]] += entry["count"]
    except (OSError, ValueError, KeyError) as error:
        yield Finding(subject="losses", says=f"{path} can't be read ({error})", well=False, do="Move it away.")
        return
    if lost:
        yield Finding(
            subject="losses",
            says=", ".join(f"{count} records lost: {reason}" for reason, count in lost.items()),
            well=False,
            do=f"These calls are in no ledger. Remove {path} once you have taken note.",
        )
    else:
        yield Finding(subject="losses", says="0 records lost")


def _ledger(settings: Settings) -> Iterator[Finding]:
    if settings.ledger_url == "none":
        yield Finding(subject="ledger", says="switched off (ledger_url is none)")
        return
    path = path_of(settings.ledger_url)
    if not path.exists():
        yield Finding(subject="ledger", says=f"{path}, not there yet: the first record makes it")
        return
    try:
        connection = open_for_reading(path)
        try:
            rows, unpriced, partial, odd = connection.execute(
                "SELECT count(*), coalesce(sum(cost_status = 'unpriced'), 0),"
                " coalesce(sum(cost_status = 'partial'), 0),"
                " coalesce(sum(usage_status <> 'reported'), 0) FROM usage_records"
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        yield Finding(
            subject="ledger",
            says=f"{path} can't be read ({error})",
            well=False,
            do="Records wait in the outbox meanwhile; name another ledger with SPANLEDGER_LEDGER_URL.",
        )
    else:
        yield Finding(
            subject="ledger",
            says=f"{path}: {rows} records, {unpriced} unpriced, {partial} partial, {odd} with incomplete usage",
        )
