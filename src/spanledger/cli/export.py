"""`spanledger export`: every record as a row of a file that other tools read."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import click

from spanledger.cli.formats import FORMATS, Page, loaded_pyarrow
from spanledger.cli.ledgers import NotWell, WrongUse, ledger_option, opened, period_of, period_options, settings_of
from spanledger.cli.tables import progress
from spanledger.homes import sync_directory
from spanledger.ledger.exporting import columns_of, pages
from spanledger.ledger.queries import count
from spanledger.ledger.rows import Asked

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@click.command()
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="csv", show_default=True)
@click.option("--output", metavar="FILE", help="Write this file, mode 0600, once all of it is there. Default: stdout.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@period_options
@click.option("--columns", metavar="A,B", help="Only these, in this order. Default: all of docs/reference/ledger.md.")
@ledger_option
def export(
    form: str,
    output: str | None,
    since: str | None,
    until: str | None,
    where: Sequence[str],
    columns: str | None,
    ledger: str | None,
    *,
    force: bool,
) -> None:
    """One row per record with its current cost, oldest first, as CSV, JSON or Parquet."""
    target = None if output is None else Path(output)
    names = _columns(columns)
    _check(form, target, force=force)
    period = period_of(since, until, where)
    with opened(settings_of(ledger)) as asked:
        total, found = _found(asked, names, *period)
        with (
            _destination(target, force=force) as out,
            FORMATS[form](out, names) as write,
            _progress(total, target) as advance,
        ):
            for page in found:
                write(page)
                advance(len(page))


def _found(
    asked: Asked, names: Sequence[str], since: datetime | None, until: datetime | None, where: dict[str, str | None]
) -> tuple[int, Iterator[Page]]:
    """How many records there are, and pages of them."""
    try:
        total = count(asked, since=since, until=until, where=where)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    return total, pages(asked, names, since=since, until=until, where=where)


def _columns(text: str | None) -> tuple[str, ...]:
    try:
        return columns_of(text)
    except ValueError as error:
        raise WrongUse(str(error)) from None


def _check(form: str, target: Path | None, *, force: bool) -> None:
    if form == "parquet":
        if target is None:
            raise WrongUse("Parquet is no text for a terminal or a pipe; name a file with --output")
        loaded_pyarrow()
    if target is not None:
        _check_place(target, force=force)


def _check_place(target: Path, *, force: bool) -> None:
    try:
        found = target.lstat()
    except OSError:
        return  # it is said where the file is made
    if not stat.S_ISREG(found.st_mode):
        raise WrongUse(f"{target} is no plain file; name another with --output")
    if not force:
        raise WrongUse(f"{target} is there already; --force replaces it")


def _progress(total: int, target: Path | None) -> AbstractContextManager[Callable[[int], None]]:
    """A bar, unless it would stand among the rows."""
    if target is None and sys.stdout.isatty():
        return nullcontext(_nowhere)
    return progress("exported", total)


def _nowhere(_: int) -> None:
    pass


def _destination(target: Path | None, *, force: bool) -> AbstractContextManager[BinaryIO]:
    return _stdout() if target is None else _file(target, force=force)


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    out = sys.stdout.buffer
    try:
        yield out
        out.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail at the exit again
        if not isinstance(error, BrokenPipeError):  # a reader that has enough closes the pipe
            raise NotWell(f"stdout can't be written ({error.strerror})") from None


@contextmanager
def _file(target: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place once it is whole, and is gone if it never is."""
    part = target.with_name(f".spanledger-{secrets.token_hex(4)}.part")
    try:
        with _terminable(), os.fdopen(os.open(part, _NEW, 0o600), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _check_place(target, force=force)  # somebody else may have been there meanwhile
        part.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise NotWell(f"{target} can't be written ({error.strerror or error}); nothing was changed") from None
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, so that what stands half is cleared away."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
