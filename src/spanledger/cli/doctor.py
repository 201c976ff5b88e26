"""What `spanledger doctor` looks at."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Final

from spanledger import assembly
from spanledger.cli.finding import Finding
from spanledger.cli.whose import calls_of_nobody, where_ids_go
from spanledger.export.sinks.table import lacking
from spanledger.homes import lasts, private_directory, trouble_with
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.spec import Provider
from spanledger.ledger import books
from spanledger.ledger.addresses import is_postgres, path_of, shown
from spanledger.recording.losses import LOSSES
from spanledger.recording.survey import OutboxState, quarantined, survey
from spanledger.settings import Settings
from spanledger.version import __version__


def diagnose(settings: Settings, most_unattributed: float | None = None) -> list[Finding]:
    """Look at everything; nothing is changed but a missing state directory made.

    More than the share `most_unattributed` (0 to 1) of calls without attribution is a failure.
    """
    findings: list[Finding] = []
    for look in (_switch, _providers, _pipeline, _prices, _state_dir, _sqlite, _sinks, _outbox, _losses, _ledger):
        findings.extend(look(settings))
    return [*findings, *calls_of_nobody(settings, most_unattributed), *where_ids_go(settings)]


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
    asked = settings.state_dir_asked
    if asked != settings.state_dir:
        yield Finding(
            subject="state directory",
            says=f"{asked} can't hold files ({trouble_with(asked)}); they go to {settings.state_dir}",
            well=lasts(settings.state_dir),
            do="Name a lasting place with SPANLEDGER_STATE_DIR.",
        )
        return
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


def _sinks(settings: Settings) -> Iterator[Finding]:
    for name in settings.sinks:
        missing = lacking(name, settings)
        if missing:
            yield Finding(
                subject=f"sink {name}",
                says=f"left out: {missing}",
                well=False,
                do=f"Set it right, or take {name} out of SPANLEDGER_SINKS.",
            )


def _outbox(settings: Settings) -> Iterator[Finding]:
    directory = settings.state_dir / "outbox"
    try:
        states = survey(directory)
    except OSError as error:
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
            do="A sink refused these for good. They are kept; mend the cause, then 'spanledger outbox dead --retry'.",
        )
    else:
        yield Finding(subject="outbox", says=says)
    yield from _trouble(states, quarantined(directory))


def _trouble(states: list[OutboxState], damaged: list[Path]) -> Iterator[Finding]:
    for sink, reason in sorted({(each.sink, each.reason) for state in states for each in state.waiting if each.reason}):
        yield Finding(
            subject=f"sink {sink}",
            says=f"can't be delivered to: {reason}",
            well=False,
            do="Nothing is lost: records wait in the outbox and are tried again.",
        )
    for state in states:
        if state.unreadable:
            yield Finding(
                subject="outbox",
                says=f"{state.path} can't be read ({state.unreadable})",
                well=False,
                do="The next process that delivers saves what can be read of it.",
            )
    if damaged:
        yield Finding(
            subject="outbox",
            says=f"{len(damaged)} damaged files were put aside: {', '.join(path.name for path in damaged)}",
            well=False,
            do="What could be read of them was saved. Delete them when you need them no more.",
        )


def _losses(settings: Settings) -> Iterator[Finding]:
    path = settings.state_dir / LOSSES
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
    where = shown(settings.ledger_url)
    try:
        with books.reading(settings.ledger_url) as asked:
            rows, unpriced, partial, odd, suspect = asked.execute(_COUNTS).fetchone()
    except books.NoLedgerError:
        yield Finding(subject="ledger", says=f"{where}, not there yet: the first record makes it")
        return
    except books.LedgerError as error:
        yield Finding(
            subject="ledger",
            says=str(error),
            well=False,
            do="Records wait in the outbox meanwhile; name another ledger with SPANLEDGER_LEDGER_URL.",
        )
        return
    yield Finding(
        subject="ledger",
        says=f"{where}: {rows} records, {unpriced} unpriced, {partial} partial, {odd} with incomplete usage",
    )
    if suspect:
        yield Finding(
            subject="clock",
            says=f"{suspect} records have a time more than 5 minutes ahead of or 35 days behind their delivery",
            well=False,
            do="Their times stand as they were told. Look after the clocks of the machines they came from.",
        )
    yield from _schema(settings.ledger_url) if is_postgres(settings.ledger_url) else _size(settings)


_COUNTS: Final = (
    "SELECT count(*), coalesce(sum(CASE WHEN cost_status = 'unpriced' THEN 1 ELSE 0 END), 0),"
    " coalesce(sum(CASE WHEN cost_status = 'partial' THEN 1 ELSE 0 END), 0),"
    " coalesce(sum(CASE WHEN usage_status <> 'reported' THEN 1 ELSE 0 END), 0),"
    " coalesce(sum(CASE WHEN clock_suspect THEN 1 ELSE 0 END), 0) FROM usage_records"
)


def _size(settings: Settings) -> Iterator[Finding]:
    size = path_of(settings.ledger_url).stat().st_size
    if size > 0.8 * settings.ledger_max_bytes:
        yield Finding(
            subject="ledger",
            says=f"{size >> 20} MB of at most {settings.ledger_max_bytes >> 20} MB; at the bound the oldest days go",
            well=False,
            do="Raise SPANLEDGER_LEDGER_MAX_BYTES, lower SPANLEDGER_RETENTION_DAYS, or move it to PostgreSQL with"
            " 'spanledger ledger copy'.",
        )


def _schema(url: str) -> Iterator[Finding]:
    from spanledger.ledger import postgres  # noqa: PLC0415  # an extra

    try:
        connection = postgres.connect(url)
        try:
            state = postgres.schema_of(connection)
        finally:
            connection.close()
    except Exception as error:  # noqa: BLE001  # a role may read the rows and not this
        yield Finding(subject="ledger", says=f"its schema can't be looked at ({postgres.told(error, url)})", well=False)
        return
    if state.behind:
        yield Finding(
            subject="ledger",
            says=f"its schema is of version {state.version}, this spanledger writes {postgres.newest()}",
            well=False,
            do="Records wait in the outbox until 'spanledger ledger migrate' has been run.",
        )
    if state.token_ledger:
        yield Finding(
            subject="ledger",
            says="there is a table token_ledger_events of TokenLedger's, which is left alone",
            warns=True,
            do="'spanledger ledger import tokenledger' copies its rows.",
        )


def _sqlite(settings: Settings) -> Iterator[Finding]:
    """SQLite's own versions, and the file systems that its write-ahead log does not get along with."""
    version = sqlite3.sqlite_version_info
    if (3, 7, 0) <= version < (3, 51, 3) and not _has_backport(version):
        yield Finding(
            subject="SQLite",
            says=f"{sqlite3.sqlite_version}, in which two connections that checkpoint at once can damage a file (fixed"
            " in 3.51.3); spanledger's writers take turns, so it does not come to that",
        )
    else:
        yield Finding(subject="SQLite", says=sqlite3.sqlite_version)
    kind = _file_system(settings.state_dir)
    if kind in _TROUBLE:
        yield Finding(
            subject="file system",
            says=f"{settings.state_dir} is on {kind}: {_TROUBLE[kind]}",
            well=False,
            do="Put SPANLEDGER_STATE_DIR on a local disk or a volume that lasts.",
        )


_FIXED: Final = {(3, 44): 6, (3, 50): 7}
"""Older lines of SQLite that have the repair → from which release on."""
_TROUBLE: Final = {
    "tmpfs": "it is gone with the next start of the machine",
    "ramfs": "it is gone with the next start of the machine",
    "overlay": "it is gone with the container",
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "ceph", "glusterfs", "lustre"),
        "SQLite's write-ahead log does not work over a network",
    ),
}


def _has_backport(version: tuple[int, ...]) -> bool:
    return version[2] >= _FIXED.get((version[0], version[1]), 10**6)


def _file_system(path: Path) -> str:
    """The kind of file system a path is on, as Linux names it; empty elsewhere."""
    place = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists()).resolve()
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        left, _, right = line.partition(" - ")
        mounted = left.split()[4].replace("\\040", " ")
        if place.is_relative_to(mounted) and len(mounted) >= len(found[0]):
            found = (mounted, right.split()[0])
    return found[1]
