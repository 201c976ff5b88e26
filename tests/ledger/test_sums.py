"""A million calls: the ledger's sums are the integers that Python sums."""

import itertools
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest

from spanledger.ledger.queries import count, report, usd
from spanledger.ledger.sqlite import SqliteLedger, open_for_reading, open_for_writing
from spanledger.model import COLUMNS, Cost, Usage, UsageRecord, row_of
from spanledger.pricing.book import PriceBook

CALLS = 1_000_000
USAGES = 2_000
BATCH = 20_000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODELS = (
    ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4.1"), ("openai", "o3"),
    ("anthropic", "claude-sonnet-4-5"), ("anthropic", "claude-haiku-4-5"), ("gcp.gemini", "gemini-2.5-pro"),
    ("gcp.gemini", "gemini-2.5-flash"), ("deepseek", "deepseek-chat"), ("mistral_ai", "mistral-large-latest"),
)  # fmt: skip


def usages(source):
    """Random calls of real models at their prices: (row, cost), some with a cost beyond reason, some with none."""
    book = PriceBook(fixups=False)
    made = []
    for number in range(USAGES):
        provider, model = MODELS[number % len(MODELS)]
        prompt = source.randint(0, 10 ** source.randint(1, 6))
        usage = Usage(
            input_tokens=prompt, output_tokens=source.randint(0, 100_000),
            cache_read_tokens=source.randint(0, prompt), usage_status="reported",
        )  # fmt: skip
        cost = book.price(usage, provider=provider, models=(model,), at=NOON)
        assert cost.cost_pusd is not None, (provider, model)
        if number % 200 == 7:
            cost = cost._replace(cost_pusd=source.randint(10**15, 9 * 10**15))
        elif number % 200 == 8:
            cost = Cost()
        made.append(
            row_of(
                UsageRecord(
                    record_id="", started_at=NOON, operation="chat", provider=provider,
                    source="test", request_model=model, usage=usage, cost=cost,
                )
            )
        )  # fmt: skip
    return made


def draw(source, made):
    """A million of them: (place in `made`, weight)."""
    for _ in range(CALLS):
        yield int(source.random() * USAGES), 3 if source.random() < 0.25 else 1


def put(path, made, drawn):
    """Write the rows: the first batch as the writer does, the others by SQL into the same columns, for speed."""
    ids = (f"019aa000-0000-7000-8000-{number:012x}" for number in itertools.count())
    sink = SqliteLedger(path)
    first = [{**made[place], "record_id": next(ids), "weight": weight} for place, weight in drawn[:BATCH]]
    sink.send(first)
    sink.close()
    names = [name for name in COLUMNS if name not in ("record_id", "weight")]
    connection = open_for_writing(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")  # 200 MB: pages are written once
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"CREATE TEMP TABLE made (place INTEGER PRIMARY KEY, {', '.join(names)})")
    connection.executemany(
        f"INSERT INTO made VALUES ({', '.join('?' * (len(names) + 1))})",
        ((place, *(row[name] for name in names)) for place, row in enumerate(made)),
    )
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE drawn (record_id, place, weight)")
    connection.executemany(
        "INSERT INTO drawn VALUES (?, ?, ?)", ((next(ids), *each) for each in itertools.islice(drawn, BATCH, None))
    )
    connection.execute(
        f"INSERT INTO usage_records (record_id, weight, recorded_at, {', '.join(names)})"
        f" SELECT record_id, weight, '2026-11-21', {', '.join(names)} FROM drawn CROSS JOIN made USING (place)"
    )
    connection.execute("COMMIT")
    connection.close()


def pico(row):
    return int(row["cost_usd"].replace(".", ""))


@pytest.mark.timeout(300)
def test_the_sum_of_a_million_calls_is_exact_to_the_last_digit(tmp_path):
    source = random.Random(20261121)
    made = usages(source)
    drawn = list(draw(source, made))
    by_model, weights, tokens = defaultdict(int), Counter(), Counter()
    unpriced = 0
    for place, weight in drawn:
        row = made[place]
        by_model[row["request_model"]] += (row["cost_pusd"] or 0) * weight
        weights[row["request_model"]] += weight
        unpriced += weight if row["cost_pusd"] is None else 0
        for name in ("input_tokens", "output_tokens", "cache_read_tokens"):
            tokens[name] += row[name] * weight
    put(tmp_path / "ledger.db", made, drawn)
    connection = open_for_reading(tmp_path / "ledger.db")
    try:
        (total,) = report(connection, [])
        models = report(connection, ["model"])
        rows = count(connection)
    finally:
        connection.close()
        (tmp_path / "ledger.db").unlink()  # half a gigabyte
    expected = sum(by_model.values())
    assert expected > 2**63
    assert Counter(weight for _, weight in drawn).keys() == {1, 3}
    assert rows == CALLS
    assert pico(total) == expected
    assert total["cost_usd"] == usd(expected)
    assert (total["calls"], total["unpriced_calls"]) == (weights.total(), unpriced)
    assert {name: total[name] for name in tokens} == dict(tokens)
    assert {row["model"]: pico(row) for row in models} == dict(by_model)
    assert {row["model"]: row["calls"] for row in models} == dict(weights)
    assert [row["model"] for row in models] == sorted(by_model, key=by_model.get, reverse=True)
    assert len(models) == len(MODELS)
