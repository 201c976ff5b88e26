"""Price files that a user names, or that we ship as corrections: read, checked, and made ready to be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spanledger.pricing.document import Document, Place, PriceFileError, read_document
from spanledger.pricing.litellm_table import is_litellm, offers_of
from spanledger.pricing.offer import ALWAYS, Offer, Period, Variant, ordered
from spanledger.pricing.places import provider_id
from spanledger.pricing.price_file import Derived, Match, OverrideFile
from spanledger.pricing.units import UNIT_OF_PRICE, rates_of


@dataclass(frozen=True, slots=True)
class Rule:
    """What every entry has: whom it is about, and where it stands."""

    source: str
    provider: str | None
    match: Callable[[str], bool]
    when: Mapping[str, str]
    entry: Any


@dataclass(frozen=True, slots=True)
class Overrides:
    """A file that has been read: its entries by kind."""

    name: str
    digest: str
    aliases: tuple[Rule, ...] = ()
    models: tuple[tuple[Rule, Offer], ...] = ()
    multipliers: tuple[Rule, ...] = ()
    derived: tuple[Rule, ...] = ()
    free: tuple[Rule, ...] = ()
    table: Mapping[tuple[str, str], Offer] | None = None
    """The offers of a table in LiteLLM's format, which counts last."""


def read_overrides(path: Path) -> Overrides:
    """The price file at the path; its providers' names become those of genai-prices.

    Raises `PriceFileError` for whatever is wrong with it.
    """
    document, content = read_document(path)
    digest = sha256(content).hexdigest()[:8]
    if is_litellm(document.data):
        return Overrides(name=path.name, digest=digest, table=offers_of(document.data, path.name))
    try:
        found = OverrideFile.model_validate(document.data)
        return _overrides(document, found, digest)
    except ValidationError as error:
        raise PriceFileError(_told(document, error)) from None


def _overrides(document: Document, found: OverrideFile, digest: str) -> Overrides:
    def rules(kind: str) -> Iterator[Rule]:
        for number, entry in enumerate(getattr(found, kind)):
            for key in ("price", "of") if isinstance(entry, Derived) else ():
                if getattr(entry, key) not in UNIT_OF_PRICE:
                    there = document.where((kind, number, key))
                    raise PriceFileError(f"{there}: there is no price {getattr(entry, key)!r}")
            try:
                match = _predicate(entry.match)
            except (re.error, OverflowError, RecursionError) as error:
                there = document.where((kind, number, "match", "regex"))
                raise PriceFileError(f"{there}: this is no regular expression ({error})") from None
            yield Rule(
                source=document.where((kind, number)),
                provider=provider_id(entry.provider) if entry.provider else None,
                match=match,
                when=getattr(entry, "when", None) or {},
                entry=entry,
            )

    return Overrides(
        name=document.name,
        digest=digest,
        aliases=tuple(rules("aliases")),
        models=tuple((rule, Offer(rule.source, _periods(rule.entry.prices))) for rule in rules("models")),
        multipliers=tuple(rules("multipliers")),
        derived=tuple(rules("derived")),
        free=tuple(rules("free")),
    )


def _predicate(match: str | Match | None) -> Callable[[str], bool]:
    if match is None:
        return lambda _: True
    if isinstance(match, Match):
        return match.predicate()
    return partial(_fits, glob(match))


def _fits(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.fullmatch(name) is not None


def glob(pattern: str) -> re.Pattern[str]:
    """A name in which `*` is any text, as a regular expression with a group for each `*`."""
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _periods(listed: list[Any]) -> tuple[Period, ...]:
    """Each start makes a period, with the newest prices by then for every context."""
    starts = sorted({entry.from_ or ALWAYS for entry in listed})
    periods = []
    for start in starts:
        newest: dict[tuple[tuple[str, str], ...], Any] = {}
        for entry in sorted(listed, key=lambda each: each.from_ or ALWAYS):
            if (entry.from_ or ALWAYS) <= start:
                newest[tuple(sorted((entry.when or {}).items()))] = entry
        base = newest.pop((), None)
        periods.append(
            Period(
                rates=_rates(base) if base else {},
                since=start,
                variants=tuple(Variant(dict(when), _rates(entry)) for when, entry in newest.items()),
            )
        )
    return ordered(periods)


def _rates(entry: Any) -> dict[str, Any]:
    return rates_of({key: getattr(entry, key) for key in UNIT_OF_PRICE})


def _told(document: Document, error: ValidationError) -> str:
    """The first thing that is wrong, as one line."""
    errors = error.errors(include_url=False)
    # Where an object stands for a text or an object, what is wrong inside it is what is wrong.
    inner = [each for each in errors if not isinstance(each["input"], (dict, list))] or errors
    inner = [each for each in errors if each["type"] in ("extra_forbidden", "missing")] or inner
    first = min(inner, key=lambda each: document.line(_place(each["loc"])))
    place = _place(first["loc"])
    said = {
        "extra_forbidden": "this key is not known",
        "missing": "this is missing",
        "literal_error": f"expected {first.get('ctx', {}).get('expected', '')}",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    if place == ("currency",):
        said = "amounts are in USD only; convert them"
    shown = "" if first["type"] in ("missing", "extra_forbidden") else f" (it says {str(first['input'])[:60]!r})"
    return f"{document.where(place)}: {'.'.join(map(str, place)) or 'the file'}: {said}{shown}"


def _place(location: tuple[Any, ...]) -> Place:
    """Pydantic's location less its own names for the alternatives of a type."""
    names = {"Tiered", "Match", "str", "constrained-str", "Prices"}
    return tuple(each for each in location if not (isinstance(each, str) and (each in names or "[" in each)))
