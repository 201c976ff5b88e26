"""What the models in use cost today, as a table in the repository: a newer price list shows its changes as a diff.

`python tests/pricing/test_resolution.py` writes the table anew.
"""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spanledger.pricing.book import PriceBook
from spanledger.pricing.units import UNIT_OF_PRICE, usd_per

TABLE = Path(__file__).with_name("resolution.csv")
NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)
COLUMNS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok")


def row_of(book, provider, model):
    """Provider, model, source and rates (base, and `>start:` for tiers) as text; other rates in one last column."""
    found = book.resolve(provider, (model,), NOW)
    rates = {price: found.terms.rates.get(unit.key) for price, unit in UNIT_OF_PRICE.items()}
    cells = {price: shown(rate, UNIT_OF_PRICE[price]) for price, rate in rates.items() if rate is not None}
    others = "; ".join(f"{price} {cell}" for price, cell in cells.items() if price not in COLUMNS)
    source = found.terms.source if cells or found.free else ""
    return [provider, model, source, *(cells.get(price, "") for price in COLUMNS), others]


def shown(rate, unit):
    tiers = "".join(f" >{start}:{usd_per(above, unit)}" for start, above in rate.tiers)
    return f"{usd_per(rate.base, unit)}{tiers}"


def written(book, names):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["provider", "model", "from", *COLUMNS, "others"])
    writer.writerows(row_of(book, provider, model) for provider, model in names)
    return out.getvalue()


def names():
    with TABLE.open(encoding="utf-8") as file:
        return [(row["provider"], row["model"]) for row in csv.DictReader(file)]


def test_the_models_in_use_cost_what_the_table_says():
    assert written(PriceBook(), names()).splitlines() == TABLE.read_text(encoding="utf-8").splitlines()


def test_the_table_covers_the_providers_and_nearly_all_of_it_is_priced():
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 85
    assert len({row["provider"] for row in rows}) >= 14
    assert [(row["provider"], row["model"]) for row in rows if not row["from"]] == [
        ("azure.ai.inference", "Llama-3.3-70B-Instruct"),
        ("aws.bedrock", "cohere.embed-english-v3"),
    ]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5.7"), ("openai", "gpt-6.2-sol"), ("anthropic", "claude-opus-5-6"),
        ("anthropic", "claude-opus-6"),
        ("gcp.gemini", "gemini-3.9-flash"), ("x_ai", "grok-5"), ("cohere", "command-a-plus-05-2026"),
        ("openai", "claude-opus-5-5"), ("nobody", "gpt-4o"),
    ],
)  # fmt: skip
def test_a_neighbour_of_a_known_model_is_not_guessed(provider, model):
    found = PriceBook().resolve(provider, (model,), NOW)
    assert (dict(found.terms.rates), found.free) == ({}, False)


if __name__ == "__main__":
    TABLE.write_text(written(PriceBook(), names()), encoding="utf-8")
