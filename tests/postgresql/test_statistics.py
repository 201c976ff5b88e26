"""`get_usage` against figures that Python works out of the same rows, in SQLite and in a real PostgreSQL."""

import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.postgresql.records import put, sink_at

from spanledger.ledger.books import reading
from spanledger.ledger.repricing import Adjustment, apply
from spanledger.ledger.statistics import PERIODS, current_period, statistics
from spanledger.model import UNPRICED, Attribution, Cost, Usage, UsageRecord, record_id_at, row_of

NOW = datetime(2026, 3, 29, 12, 34, 56, tzinfo=UTC)
MODELS = (("openai", "gpt-4o", "gpt-4o-2024-08-06"), ("openai", "gpt-4o", None),
          ("anthropic", "claude-haiku-4-5", None), ("custom", None, None), ("groq", "gpt-4o", None))  # fmt: skip
USERS, TEAMS = (None, "ada", "bob"), (None, "red", "blue")
KEYS = ("user_id", "team", "operation", "status", "source", "day")


def made(seed, rows=300, most=10**13):
    source = random.Random(seed)
    found = []
    for number in range(rows):
        provider, asked, answered = source.choice(MODELS)
        pusd = source.choice((None, 0, source.randrange(most), source.randrange(10**9)))
        moment = NOW - timedelta(seconds=source.randrange(800 * 86400))
        found.append(
            row_of(
                UsageRecord(
                    record_id=record_id_at(int(moment.timestamp()) * 10**9 + number), started_at=moment,
                    operation=source.choice(("chat", "embeddings")), provider=provider, source="test",
                    request_model=asked, response_model=answered, weight=source.choice((1, 1, 3, 10)),
                    usage=Usage(
                        input_tokens=source.choice((None, source.randrange(10**6))),
                        output_tokens=source.choice((None, source.randrange(10**5))), usage_status="reported",
                    ),
                    cost=UNPRICED if pusd is None else Cost(pusd, {}, "USD", "local", "priced" if pusd else "free"),
                    status=source.choice(("success", "error")),
                    attribution=Attribution(user_id=source.choice(USERS), team=source.choice(TEAMS)),
                )
            )
        )  # fmt: skip
    return found


def key_of(row, key):
    if key == "model":
        return row["response_model"] or row["request_model"]
    return row["started_at"][:10] if key == "day" else row[key]


def summed(rows):
    """Requests, tokens, pico-USD, requests without a price."""
    return (
        sum(each["weight"] for each in rows),
        sum(each["weight"] * ((each["input_tokens"] or 0) + (each["output_tokens"] or 0)) for each in rows),
        sum(each["weight"] * (each["cost_pusd"] or 0) for each in rows),
        sum(each["weight"] for each in rows if each["cost_status"] == "unpriced"),
    )


def told(rows):
    requests, tokens, pusd, _ = summed(rows)
    return {"requests": requests, "tokens": tokens, "cost": pytest.approx(pusd / 10**12, rel=1e-12)}


def told_by(rows, key):
    groups = defaultdict(list)
    for each in rows:
        groups[key_of(each, key) or "unknown"].append(each)
    return {name: told(group) for name, group in groups.items()}


def within(rows, start, end):
    low, high = (each.astimezone(UTC).isoformat(timespec="microseconds") for each in (start, end))
    return [each for each in rows if low <= each["started_at"] < high]


def expected(rows, by=(), current=None):
    requests, tokens, pusd, unpriced = summed(rows)
    return {
        "total_requests": requests, "total_tokens": tokens, "total_cost": pytest.approx(pusd / 10**12, rel=1e-12),
        "by_provider": told_by(rows, "provider"), "by_model": told_by(rows, "model"),
        **{f"by_{key}": told_by(rows, key) for key in by},
        **({"unpriced_requests": unpriced} if unpriced else {}),
        "current_period": {**told(rows if current is None else current)},
    }  # fmt: skip


def plain(answer):
    """Without when the current period is."""
    current = {name: value for name, value in answer["current_period"].items() if not name.startswith("period_")}
    return {**json.loads(json.dumps(answer)), "current_period": current}


def ask(url, **how):
    with reading(url) as connection:
        return statistics(connection, NOW, **how)


@pytest.fixture
def filled(url):
    rows = made(20261122)
    put(url, rows)
    return url, rows


NOTHING = {"total_requests": 0, "total_tokens": 0, "total_cost": 0.0, "by_provider": {}, "by_model": {}, "by_team": {},
           "current_period": {"requests": 0, "tokens": 0, "cost": 0.0}}  # fmt: skip


# Sums.


def test_every_sum_is_what_python_comes_to(filled):
    url, rows = filled
    begins, ends = current_period("month", NOW)
    answer = ask(url, by=KEYS)
    assert plain(answer) == expected(rows, KEYS, within(rows, begins, ends))
    for name in ("by_provider", "by_model", *(f"by_{key}" for key in KEYS)):
        parts = answer[name].values()
        assert sum(each["requests"] for each in parts) == answer["total_requests"]
        assert sum(each["tokens"] for each in parts) == answer["total_tokens"]
        assert sum(each["cost"] for each in parts) == pytest.approx(answer["total_cost"], rel=1e-12)
        costs = [each["cost"] for each in parts]
        assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize(
    "where",
    [{"user_id": "ada"}, {"user_id": None}, {"team": None, "user_id": "bob"}, {"model": "gpt-4o"}, {"model": None},
     {"provider": "groq"}, {"status": "error", "operation": "chat"}, {"user_id": "nobody"}],
    ids=str,
)  # fmt: skip
def test_filters_leave_what_python_leaves(filled, where):
    url, rows = filled
    left = [each for each in rows if all(key_of(each, key) == value for key, value in where.items())]
    begins, ends = current_period("year", NOW)
    answer = ask(url, by=["team"], where=where, period="year")
    assert plain(answer) == expected(left, ["team"], within(left, begins, ends))


def test_the_start_is_in_and_the_end_is_not(filled):
    url, rows = filled
    moments = sorted(each["started_at"] for each in rows)
    start, end = (datetime.fromisoformat(moments[place]) for place in (50, 200))
    answer = ask(url, start=start, end=end)
    assert answer["total_requests"] == summed(within(rows, start, end))[0]
    assert len(within(rows, start, end)) == 150
    east = timezone(timedelta(hours=14))
    assert ask(url, start=start.astimezone(east), end=end.astimezone(east)) == answer
    assert ask(url, start=end, end=start)["total_requests"] == 0


@pytest.mark.parametrize(
    ("period", "zone"),
    [*((each, "UTC") for each in PERIODS), ("day", "Europe/Berlin"), ("week", "Pacific/Kiritimati"), ("30d", "UTC"),
     ("400d", "Asia/Kolkata"), ("36h", "UTC")],
)  # fmt: skip
def test_the_current_period_is_what_python_finds_in_it(filled, period, zone):
    url, rows = filled
    begins, ends = current_period(period, NOW, zone)
    assert plain(ask(url, period=period, timezone=zone)) == expected(rows, (), within(rows, begins, ends))


def test_repricing_twice_counts_as_of_the_last_time(filled):
    url, rows = filled
    after = {each["record_id"]: dict(each) for each in rows}
    ledger = sink_at(url)
    for turn in range(2):
        source = random.Random(turn)
        changes = []
        for row in after.values():
            if source.random() < 0.5:
                cost = Cost(source.randrange(10**12), {}, "USD", "local", "priced", f"list {turn}")
                changes.append(
                    Adjustment(
                        record_id=row["record_id"], provider=row["provider"], model=None, weight=row["weight"],
                        old_pusd=row["cost_pusd"], old_status=row["cost_status"], cost=cost,
                    )
                )  # fmt: skip
                row.update(cost_pusd=cost.cost_pusd, cost_status=cost.cost_status)
        assert apply(ledger, changes) == len(changes) > 100
    ledger.close()
    begins, ends = current_period("year", NOW)
    answer = ask(url, by=KEYS, period="year")
    assert plain(answer) == expected([*after.values()], KEYS, within([*after.values()], begins, ends))


def test_amounts_beyond_what_a_sum_of_sqlites_holds_are_exact(url):
    rows = [
        {**each, "cost_pusd": 9 * 10**18 - number, "cost_status": "priced"} for number, each in enumerate(made(3, 40))
    ]
    put(url, rows)
    answer = ask(url, by=["team"])
    assert summed(rows)[2] > 2**63
    assert answer["total_cost"] == summed(rows)[2] / 10**12
    assert {name: each["cost"] for name, each in answer["by_team"].items()} == {
        name: summed([each for each in rows if (each["team"] or "unknown") == name])[2] / 10**12
        for name in ("red", "blue", "unknown")
    }


def test_a_record_is_counted_to_the_pico_dollar(url):
    rows = [{**each, "cost_pusd": 1, "weight": 1, "cost_status": "priced"} for each in made(4, 7)]
    put(url, rows)
    assert ask(url)["total_cost"] == 7e-12


def test_a_period_is_told_by_its_first_and_its_last_second(url):
    put(url, made(5, 1))
    current = ask(url, period="month", timezone="Europe/Berlin")["current_period"]
    assert (current["period_start"], current["period_end"]) == ("2026-02-28T23:00:00Z", "2026-03-31T21:59:59Z")
    current = ask(url, period="30d")["current_period"]
    assert (current["period_start"], current["period_end"]) == ("2026-02-27T12:34:56Z", "2026-03-29T12:34:56Z")


def test_an_empty_ledger_is_all_zeros(url):
    put(url, [])
    assert plain(ask(url, by=["team"])) == NOTHING
