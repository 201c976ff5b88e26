"""Named reports from either ledger: whole UTC days, exact sums, nothing made of what is not known."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.postgresql.records import bare, command, put, sink_at

from spanledger.ledger import books
from spanledger.ledger.answers import ANSWERS, answer
from spanledger.ledger.repricing import Adjustment, apply
from spanledger.model import Cost

NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)
TODAY = datetime(2026, 11, 22, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
USD = 10**12


def call(number, cost=None, *, days=0, at=None, **columns):
    """A call so many days before `NOW`, at noon unless said otherwise."""
    moment = (TODAY + timedelta(hours=12) if at is None else at) - timedelta(days=days)
    status = "unpriced" if cost is None else "priced"
    return bare(
        number, started_at=moment.isoformat(timespec="microseconds"), cost_pusd=cost, cost_status=status,
        **{"cost_source": "local", **columns},
    )  # fmt: skip


def ask(url, name, **how):
    with books.reading(url) as connection:
        return answer(connection, name, now=how.pop("now", NOW), **how)


def short(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


# By day.


def test_daily_is_a_row_for_each_utc_day_the_last_first(url):
    put(
        url,
        [
            call(1, 1, input_tokens=10, output_tokens=5, duration_ms=100),
            call(2, 5 * USD, weight=2, input_tokens=10, duration_ms=101),
            call(3),
            call(4, days=1),
            call(5, 7, days=29, at=TODAY),
            call(6, 9, days=29, at=TODAY - MICROSECOND),
            call(7, 11, at=TODAY + timedelta(days=1)),
        ],
    )
    assert ask(url, "daily") == [
        {
            "day": "2026-11-22", "calls": 4, "input_tokens": 30, "output_tokens": 5, "total_tokens": 35,
            "cost_usd": "10.000000000001", "average_latency_ms": "100.667", "unpriced_calls": 1,
        },
        {
            "day": "2026-11-21", "calls": 1, "input_tokens": None, "output_tokens": None, "total_tokens": None,
            "cost_usd": None, "average_latency_ms": None, "unpriced_calls": 1,
        },
        {
            "day": "2026-10-24", "calls": 1, "input_tokens": None, "output_tokens": None, "total_tokens": None,
            "cost_usd": "0.000000000007", "average_latency_ms": None, "unpriced_calls": 0,
        },
    ]  # fmt: skip
    assert short(ask(url, "daily", days=1), "day", "calls") == [("2026-11-22", 4)]
    assert short(ask(url, "daily", limit=2), "day") == [("2026-11-22",), ("2026-11-21",)]


def test_a_day_is_one_of_utc_wherever_the_one_who_asks_is(url):
    put(url, [call(1, 1, at=TODAY), call(2, 2, at=TODAY - MICROSECOND)])
    elsewhere = datetime.fromisoformat("2026-11-23T01:00:00+14:00")
    assert short(ask(url, "daily", days=1, now=elsewhere), "day", "cost_usd") == [("2026-11-22", "0.000000000001")]


# By user.


def test_the_leaderboard_has_the_dearest_first_and_the_unpriced_last(url):
    put(
        url,
        [
            call(1, 2_000_001, user_id="bob", input_tokens=0),
            call(2, 999_999, user_id="ada", weight=2, input_tokens=3, output_tokens=4),
            call(3, 3, user_id="ada", days=400),
            call(4, 2_000_000),
            call(5, user_id="eve"),
            call(6, 0, user_id="zoë"),
        ],
    )
    assert ask(url, "leaderboard") == [
        {"user_id": "ada", "calls": 3, "total_tokens": 14, "cost_usd": "0.000002000001", "unpriced_calls": 0},
        {"user_id": "bob", "calls": 1, "total_tokens": 0, "cost_usd": "0.000002000001", "unpriced_calls": 0},
        {"user_id": None, "calls": 1, "total_tokens": None, "cost_usd": "0.000002000000", "unpriced_calls": 0},
        {"user_id": "zoë", "calls": 1, "total_tokens": None, "cost_usd": "0.000000000000", "unpriced_calls": 0},
        {"user_id": "eve", "calls": 1, "total_tokens": None, "cost_usd": None, "unpriced_calls": 1},
    ]  # fmt: skip
    assert short(ask(url, "leaderboard", days=1, limit=1), "user_id") == [("bob",)]


def test_the_leaderboard_has_twenty_rows_unless_asked_otherwise(url):
    put(url, [call(number, number, user_id=f"user {number}") for number in range(1, 25)])
    assert short(ask(url, "leaderboard"), "user_id") == [(f"user {number}",) for number in range(24, 4, -1)]
    assert len(ask(url, "leaderboard", limit=1000)) == 24


def test_sums_beyond_64_bits_are_exact_and_in_order(url):
    most = 9 * 10**18 + 7
    put(url, [call(number, most, user_id="rich") for number in range(5)] + [call(9, most, user_id="b", weight=6)])
    assert short(ask(url, "leaderboard"), "user_id", "cost_usd") == [
        ("b", "54000000.000000000042"), ("rich", "45000000.000000000035"),
    ]  # fmt: skip
    assert ask(url, "daily")[0]["cost_usd"] == "99000000.000000000077"


def test_a_call_that_was_priced_again_counts_with_its_current_cost(url):
    recorded = call(1, user_id="ada", cost_source="none")
    put(url, [recorded])
    sink = sink_at(url)
    made = Adjustment(
        record_id=recorded["record_id"], provider="openai", model=None, weight=1, old_pusd=None, old_status="unpriced",
        cost=Cost(3, {"input": 3}, "USD", "local", "priced"),
    )  # fmt: skip
    try:
        assert apply(sink, [made]) == 1
    finally:
        sink.close()
    assert short(ask(url, "leaderboard"), "user_id", "cost_usd", "unpriced_calls") == [("ada", "0.000000000003", 0)]


# By feature and team.


def test_features_stand_with_their_teams_and_latency(url):
    put(
        url,
        [
            call(1, 4, feature="search", team="a", duration_ms=10),
            call(2, 4, feature="search", team="a", duration_ms=20, weight=3),
            call(3, 4, feature="search", team="a"),
            call(4, 30, feature="search"),
            call(5, feature="chat", team="a", duration_ms=1),
            call(6, 1, days=6),
            call(7, 99, days=7, feature="old"),
        ],
    )
    assert ask(url, "features") == [
        {"feature": "search", "team": None, "calls": 1, "cost_usd": "0.000000000030", "average_latency_ms": None,
         "unpriced_calls": 0},
        {"feature": "search", "team": "a", "calls": 5, "cost_usd": "0.000000000020", "average_latency_ms": "17.500",
         "unpriced_calls": 0},
        {"feature": None, "team": None, "calls": 1, "cost_usd": "0.000000000001", "average_latency_ms": None,
         "unpriced_calls": 0},
        {"feature": "chat", "team": "a", "calls": 1, "cost_usd": None, "average_latency_ms": "1.000",
         "unpriced_calls": 1},
    ]  # fmt: skip


# What is out of the ordinary.


def spending(user, days, first=0):
    """Calls of a user that cost this many pico-USD, today, yesterday, …; `None` is an unpriced call."""
    return [
        call(first + number, cost, days=number, user_id=user) for number, cost in enumerate(days) if cost is not False
    ]


def test_an_anomaly_is_a_day_above_twice_the_average_of_the_users_own_days(url):
    put(
        url,
        [
            *spending("above", [401, *([100] * 3)]),  # an average of 175.25
            *spending("yesterday", [1, 1000, 1, 1], 100),
            *spending("before", [1, 1, 1000, 1], 200),
            *spending("even", [5] * 10, 300),
            *spending("once", [10**9], 400),
            *spending(None, [1000, 1, 1, 1], 500),
        ],
    )
    assert ask(url, "anomalies") == [
        {"user_id": "above", "day": "2026-11-22", "cost_usd": "0.000000000401", "average_day_usd": "0.000000000175"},
        {"user_id": "yesterday", "day": "2026-11-21", "cost_usd": "0.000000001000",
         "average_day_usd": "0.000000000251"},
    ]  # fmt: skip
    assert short(ask(url, "anomalies", days=1), "user_id") == [("above",)]
    assert short(ask(url, "anomalies", days=30), "user_id") == [("above",), ("yesterday",), ("before",)]
    assert short(ask(url, "anomalies", days=30, limit=1), "user_id") == [("above",)]


@pytest.mark.parametrize(("today", "found"), [(400, 0), (401, 1)])
def test_exactly_twice_the_average_is_no_anomaly(url, today, found):
    put(url, spending("ada", [today, 100, 100, 200]))  # 800 in 4 days are 200 a day
    assert len(ask(url, "anomalies")) == found


def test_the_average_is_of_thirty_days_and_of_those_with_a_price(url):
    put(
        url,
        [
            *spending("ada", [30, 10, None, 10, *([False] * 26), 10**6]),  # 50 in 3 days
            *spending("bob", [30, 10, *([False] * 27), 10, 10**6], 100),
            *spending("eve", [30, 0, 0], 200),
            *spending("none", [None, None, None], 300),
            call(900, 14, user_id="weighty", weight=3), call(901, 1, days=1, user_id="weighty"),
            call(902, 1, days=2, user_id="weighty"),
        ],
    )  # fmt: skip
    assert short(ask(url, "anomalies"), "user_id", "cost_usd", "average_day_usd") == [
        ("weighty", "0.000000000042", "0.000000000015"), ("eve", "0.000000000030", "0.000000000010"),
    ]  # fmt: skip
    assert ask(url, "anomalies", now=NOW + timedelta(days=30)) == []


def test_anomalies_look_at_no_more_days_than_the_average_is_of(url):
    put(url, [call(1, 1)])
    with pytest.raises(ValueError, match="anomalies are of at most 30 days, not 31"):
        ask(url, "anomalies", days=31)


def test_amounts_beyond_64_bits_are_compared_exactly(url):
    most = 9 * 10**18
    put(
        url, [call(1, most, user_id="ada", weight=4), *(call(2 + n, most, days=1 + n, user_id="ada") for n in range(4))]
    )
    assert ask(url, "anomalies") == [
        {"user_id": "ada", "day": "2026-11-22", "cost_usd": "36000000.000000000000",
         "average_day_usd": "14400000.000000000000"},
    ]  # fmt: skip


# What it costs to get something.


def test_efficiency_is_of_all_of_each_provider_and_of_each_model(url):
    put(
        url,
        [
            call(1, 3 * 10**6, request_model="gpt-4o", input_tokens=10, output_tokens=5),
            call(2, 10**6, request_model="asked", response_model="gpt-4o-mini", input_tokens=1, weight=4),
            call(3, request_model="gpt-4o", input_tokens=1000),
            call(4, request_model="gpt-4o", status="error"),
            call(5, 10**7, provider="anthropic", request_model="claude"),
        ],
    )

    def row(of, provider, model, *values):
        return dict(zip(ANSWERS["efficiency"].columns, (of, provider, model, *values), strict=True))

    assert ask(url, "efficiency") == [
        row("all", None, None, 8, 1019, "0.000017000000", "0.000000894737", "169.833", "0.000002833333", 2),
        row("provider", "anthropic", None, 1, None, "0.000010000000", None, None, "0.000010000000", 0),
        row("provider", "openai", None, 7, 1019, "0.000007000000", "0.000000368421", "169.833", "0.000001400000", 2),
        row("model", "anthropic", "claude", 1, None, "0.000010000000", None, None, "0.000010000000", 0),
        row("model", "openai", "gpt-4o-mini", 4, 4, "0.000004000000", "0.000001000000", "1.000", "0.000001000000", 0),
        row("model", "openai", "gpt-4o", 3, 1015, "0.000003000000", "0.000000200000", "507.500", "0.000003000000", 2),
    ]


def test_a_quotient_of_nothing_is_unknown(url):
    put(url, [call(1, 0, input_tokens=0, output_tokens=0, weight=0), call(2, request_model="m", input_tokens=0)])
    assert short(ask(url, "efficiency")[:1], "cost_usd", "cost_per_token_usd", "tokens_per_call",
                 "cost_per_call_usd") == [("0.000000000000", None, "0.000", None)]  # fmt: skip


# All of them.


@pytest.mark.parametrize("name", list(ANSWERS))
def test_an_empty_ledger_answers_with_no_rows(url, name):
    sink = sink_at(url)
    sink.write(lambda _: None)
    sink.close()
    assert ask(url, name) == []
    assert json.loads(command("report", name, "--format", "json", "--ledger", url).stdout) == []
    assert command("report", name, "--format", "csv", "--ledger", url).stdout == f"{','.join(ANSWERS[name].columns)}\n"
    assert ANSWERS[name].says.partition(",")[0][1:20] in command("report", name, "--ledger", url).stdout


@pytest.mark.parametrize("name", list(ANSWERS))
def test_no_ledger_yet_is_one_line(url, name):
    done = command("report", name, "--ledger", url, expect=1)
    assert done.stderr.startswith("spanledger: there is no ledger ")


def test_a_named_report_in_each_format(url):
    now = datetime.now(UTC)
    put(url, [call(1, 5 * 10**11, at=now, user_id="=ada"), call(2, at=now)])
    arguments = ("report", "leaderboard", "--days", 2, "--ledger", url)
    expected = [
        {"user_id": "=ada", "calls": 1, "total_tokens": None, "cost_usd": "0.500000000000", "unpriced_calls": 0},
        {"user_id": None, "calls": 1, "total_tokens": None, "cost_usd": None, "unpriced_calls": 1},
    ]
    assert json.loads(command(*arguments, "--format", "json").stdout) == expected
    found = list(csv.DictReader(io.StringIO(command(*arguments, "--format", "csv").stdout)))
    assert [tuple(row.values()) for row in found] == [("'=ada", "1", "", "0.500000000000", "0"), ("", "1", "", "", "1")]
    shown = [line.split("│")[1:-1] for line in command(*arguments).stdout.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in shown] == [
        ["=ada", "1", "-", "0.500000000000", "0"], ["(unattributed)", "1", "-", "-", "1"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("weather",), "there is no report 'weather'; there are daily, leaderboard, features, anomalies, efficiency"),
        (("daily", "--by", "model"), "--by does not go with the report daily; it has --days and --limit"),
        (("daily", "--since", "7d"), "--since does not go with the report daily; it has --days and --limit"),
        (("--days", "7"), "--days goes with a report by its name; there are daily, leaderboard, features, anomalies,"),
        (("anomalies", "--days", "31"), "anomalies are of at most 30 days, not 31"),
    ],
)
def test_what_does_not_go_together_is_wrong_use(url, arguments, said):
    put(url, [call(1, 1)])
    done = command("report", *arguments, "--ledger", url, expect=2)
    assert done.stderr.startswith(f"spanledger: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_report_by_keys_stays_as_it_is(url):
    put(url, [call(1, 1, request_model="gpt-4o")])
    rows = json.loads(command("report", "--format", "json", "--ledger", url).stdout)
    assert short(rows, "model", "calls", "cost_usd") == [("gpt-4o", 1, "0.000000000001")]
    assert json.loads(command("report", "--by", "model", "--format", "json", "--ledger", url).stdout) == rows
