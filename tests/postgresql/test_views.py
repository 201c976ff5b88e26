"""The names of the TokenLedger seed say what was put in."""

import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from tests.postgresql.records import asked, bare, command, put, row

from spanledger.recording.sink import SinkError

# What people who come from TokenLedger ask, by its names. Its own statements run in tests/compat.
LATELY = "FROM token_ledger_events WHERE timestamp >= now() - interval"
COST_BY_FEATURE = f"SELECT feature, sum(cost_usd) AS cost {LATELY} '30 days' GROUP BY 1 ORDER BY 2 DESC"
COST_BY_TEAM = f"SELECT team, sum(cost_usd) AS cost, count(*) AS requests {LATELY} '30 days' GROUP BY 1"
TOP_USERS = f"SELECT user_id, feature, sum(cost_usd) AS cost {LATELY} '7 days' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 10"
DAILY_TREND = "SELECT * FROM token_ledger_daily_costs ORDER BY date DESC LIMIT 30"
LEADERBOARD = "SELECT * FROM token_ledger_user_costs ORDER BY total_cost DESC LIMIT 20"
BY_FEATURE_AND_TEAM = (
    "SELECT feature, team, sum(cost_usd) AS cost, count(*) AS requests, avg(duration_ms) AS avg_latency_ms"
    f" {LATELY} '7 days' GROUP BY 1, 2 ORDER BY 3 DESC"
)
ANOMALIES = f"""
WITH days AS (SELECT user_id, date(timestamp) AS day, sum(cost_usd) AS spent {LATELY} '30 days' GROUP BY 1, 2),
means AS (SELECT user_id, avg(spent) AS avg_daily FROM days GROUP BY 1),
today AS (SELECT user_id, date(timestamp) AS date, sum(cost_usd) AS daily_cost {LATELY} '1 day' GROUP BY 1, 2)
SELECT user_id, date, daily_cost, avg_daily FROM today JOIN means USING (user_id) WHERE daily_cost > 2 * avg_daily"""
USD = 10**12
NOW = datetime.now(UTC)


def call(number, user, team, feature, cost, ago, **more):
    known = {
        "started_at": (NOW - ago).isoformat(timespec="microseconds"), "user_id": user, "team": team, "feature": feature,
        "cost_pusd": None if cost is None else int(cost * USD), "response_model": "gpt-4o", "input_tokens": 100,
        "output_tokens": 10, "duration_ms": 250,
    }  # fmt: skip
    return bare(number, **{**known, **more})


DAYS = timedelta(days=1)
FIVE_MINUTES = timedelta(minutes=5)
CALLS = [
    # Today ada spends 9 USD; on two days before 1 USD each: 9 > 2 · 11/3.
    call(1, "ada", "ml", "search", 9, FIVE_MINUTES),
    call(2, "ada", "ml", "search", 1, 3 * DAYS, duration_ms=350),
    call(3, "ada", "ml", "chat", 1, 4 * DAYS),
    # bob spends the same every day. One of his calls stands for three, and nobody knows what another one cost.
    call(4, "bob", "web", "chat", Decimal("0.000000000001"), FIVE_MINUTES, weight=3, cost_center="CC-1"),
    call(5, "bob", None, None, None, 2 * DAYS, input_tokens=None, output_tokens=None, status="error"),
    call(6, None, "web", "chat", 4, 20 * DAYS, stream=1, duration_ms=None),
    call(7, "ada", "ml", "search", 100, 40 * DAYS),
]


@pytest.fixture
def filled(database):
    put(database, CALLS)
    return database


def run(url, statement):
    """As psql would: nothing set but what the server has."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
        found = connection.execute(statement)
        return [column.name for column in found.description], found.fetchall()


def test_cost_by_feature(filled):
    # 30 days: search 9 + 1, chat 1 + 4 + 3 · 1e-12; NULL first, as PostgreSQL sorts it.
    assert run(filled, COST_BY_FEATURE) == (
        ["feature", "cost"], [(None, None), ("search", Decimal(10)), ("chat", Decimal("5.000000000003"))],
    )  # fmt: skip


def test_cost_by_team(filled):
    names, rows = run(filled, COST_BY_TEAM)
    assert names == ["team", "cost", "requests"]
    assert {*rows} == {("ml", Decimal(11), 3), ("web", Decimal("4.000000000003"), 2), (None, None, 1)}


def test_top_users(filled):
    assert run(filled, TOP_USERS) == (
        ["user_id", "feature", "cost"],
        [
            ("bob", None, None), ("ada", "search", Decimal(10)), ("ada", "chat", Decimal(1)),
            ("bob", "chat", Decimal("3e-12")),
        ],
    )  # fmt: skip


def test_the_daily_trend(filled):
    names, rows = run(filled, DAILY_TREND)
    assert names == [
        "date", "provider", "model", "request_count", "total_input_tokens", "total_output_tokens", "total_tokens",
        "total_cost", "avg_latency_ms",
    ]  # fmt: skip

    def day(ago):
        return (NOW - ago).date()

    # A call that stands for three has three times its tokens and its cost; requests are rows.
    assert rows == [
        (day(FIVE_MINUTES), "openai", "gpt-4o", 2, 400, 40, 440, Decimal("9.000000000003"), 250.0),
        (day(2 * DAYS), "openai", "gpt-4o", 1, 0, 0, 0, None, 250.0),
        (day(3 * DAYS), "openai", "gpt-4o", 1, 100, 10, 110, Decimal(1), 350.0),
        (day(4 * DAYS), "openai", "gpt-4o", 1, 100, 10, 110, Decimal(1), 250.0),
        (day(20 * DAYS), "openai", "gpt-4o", 1, 100, 10, 110, Decimal(4), None),
        (day(40 * DAYS), "openai", "gpt-4o", 1, 100, 10, 110, Decimal(100), 250.0),
    ]


def test_the_leaderboard(filled):
    names, rows = run(filled, LEADERBOARD)
    assert names == ["user_id", "request_count", "total_tokens", "total_cost", "first_request", "last_request"]
    assert rows == [
        ("ada", 4, 440, Decimal(111), NOW - 40 * DAYS, NOW - FIVE_MINUTES),
        ("anonymous", 1, 110, Decimal(4), NOW - 20 * DAYS, NOW - 20 * DAYS),
        ("bob", 2, 330, Decimal("3e-12"), NOW - 2 * DAYS, NOW - FIVE_MINUTES),
    ]


def test_cost_by_feature_and_team(filled):
    assert run(filled, BY_FEATURE_AND_TEAM) == (
        ["feature", "team", "cost", "requests", "avg_latency_ms"],
        [
            (None, None, None, 1, 250.0), ("search", "ml", Decimal(10), 2, 300.0), ("chat", "ml", Decimal(1), 1, 250.0),
            ("chat", "web", Decimal("3e-12"), 1, 250.0),
        ],
    )  # fmt: skip


def test_anomalies(filled):
    names, rows = run(filled, ANOMALIES)
    assert names == ["user_id", "date", "daily_cost", "avg_daily"]
    ((user, day, cost, average),) = rows
    assert (user, day, cost, round(average, 10)) == (
        "ada",
        (NOW - FIVE_MINUTES).date(),
        Decimal(9),
        round(Decimal(11) / 3, 10),
    )


COLUMNS = {
    "token_ledger_daily_costs": [
        "date", "provider", "model", "request_count", "total_input_tokens", "total_output_tokens", "total_tokens",
        "total_cost", "avg_latency_ms",
    ],
    **{
        f"token_ledger_{name}_costs": [
            name if name != "user" else "user_id", "request_count", "total_tokens", "total_cost", "first_request",
            "last_request",
        ]
        for name in ("user", "team", "cost_center")
    },
}  # fmt: skip
KINDS = {
    "event_id": "text", "trace_id": "text", "span_id": "text", "parent_span_id": "text",
    "timestamp": "timestamp with time zone", "duration_ms": "double precision", "provider": "text", "model": "text",
    "input_tokens": "bigint", "output_tokens": "bigint", "total_tokens": "bigint", "cached_tokens": "bigint",
    "cost_usd": "numeric", "endpoint": "text", "request_type": "text", "user_id": "text", "session_id": "text",
    "organization_id": "text", "app_name": "text", "environment": "text", "status": "text", "error_type": "text",
    "error_message": "text", "metadata": "jsonb", "request_preview": "text", "response_preview": "text",
    "feature": "text", "page": "text", "component": "text", "team": "text", "project": "text", "cost_center": "text",
    "metadata_extra": "jsonb",
}  # fmt: skip
"""The 33 columns of the seed's table, in its order."""


def test_the_views_have_the_seeds_columns(filled):
    def columns(view, *what):
        return asked(
            filled,
            f"SELECT {', '.join(what)} FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position",
            (view,),
        )

    assert dict(columns("token_ledger_events", "column_name", "data_type")) == KINDS
    assert [name for (name,) in columns("token_ledger_events", "column_name")] == list(KINDS)
    for view, names in COLUMNS.items():
        assert [name for (name,) in columns(view, "column_name")] == names


def test_a_row_in_the_seeds_words(database):
    put(
        database,
        [
            bare(
                1, trace_id="a" * 32, span_id="b" * 16, started_at="2026-11-21T12:00:00.500000+00:00", duration_ms=1200,
                request_model="gpt-4o", input_tokens=10, output_tokens=5, cache_read_tokens=4, cost_pusd=1_500_001,
                server_address="api.openai.com", stream=1, weight=2, service_name="shop", status="error",
                error_type="openai.RateLimitError", metadata='{"page": "/home", "component": "box", "n": 1}',
            )
        ],
    )  # fmt: skip
    with psycopg.connect(database) as connection:
        cursor = connection.execute("SELECT * FROM token_ledger_events")
        (found,) = cursor.fetchall()
    metadata = {"page": "/home", "component": "box", "n": 1}
    assert dict(zip([each.name for each in cursor.description], found, strict=True)) == {
        **dict.fromkeys(KINDS),
        "event_id": found[0], "trace_id": "a" * 32, "span_id": "b" * 16,
        "timestamp": datetime(2026, 11, 21, 12, 0, 0, 500_000, UTC), "duration_ms": 1200.0, "provider": "openai",
        "model": "gpt-4o", "input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "cached_tokens": 8,
        "cost_usd": Decimal("0.000003000002"), "endpoint": "api.openai.com", "request_type": "chat_stream",
        "app_name": "shop", "status": "error", "error_type": "openai.RateLimitError", "metadata": metadata,
        "metadata_extra": metadata, "page": "/home", "component": "box",
    }  # fmt: skip


def test_days_are_those_of_utc_whatever_the_session_says(database):
    put(database, [bare(started_at="2026-11-21T23:30:00.000000+00:00")])
    with psycopg.connect(database, options="-c TimeZone=Asia/Tokyo") as connection:
        assert connection.execute("SELECT date FROM token_ledger_daily_costs").fetchall() == [(date(2026, 11, 21),)]


@pytest.mark.parametrize("view", ["token_ledger_events", *COLUMNS])
def test_either_ledgers_view_says_the_same(tmp_path, database, view):
    sqlite = f"sqlite:///{tmp_path}/ledger.db"
    for place in (sqlite, database):
        put(place, CALLS)
    keys = ", ".join(
        {"token_ledger_events": ["event_id"], "token_ledger_daily_costs": ["date"]}.get(view, COLUMNS.get(view))[:1]
    )
    names = list(KINDS) if view == "token_ledger_events" else COLUMNS[view]
    ours, theirs = (
        [
            tuple(map(_number, each))
            for each in asked(
                place, f"SELECT {', '.join(names)} FROM {view} ORDER BY {keys}".replace(" date,", f" {day},")
            )
        ]
        for place, day in ((sqlite, "date"), (database, "date::text"))
    )
    assert ours == theirs
    assert len(ours) >= 2


def _number(value):
    return round(float(value), 9) if isinstance(value, (int, float)) else value


# Somebody has the names already.

THEIRS = "CREATE TABLE token_ledger_events (event_id uuid PRIMARY KEY, user_id text, cost_usd numeric(12, 8))"
AGGREGATE = "CREATE VIEW token_ledger_user_costs AS SELECT user_id, sum(cost_usd) FROM token_ledger_events GROUP BY 1"
ONE = "INSERT INTO token_ledger_events VALUES ('0190a000-0000-7000-8000-000000000001', 'eve', 1.5)"


def test_somebodys_table_is_left_alone_and_said_so_and_everything_else_works(database, caplog):
    caplog.set_level(logging.INFO)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(THEIRS)
        connection.execute(ONE)
        put(database, [row()])
        (said,) = [each.message for each in caplog.records if "TokenLedger" in each.message]
        assert said == (
            f"{database} has a table token_ledger_events of TokenLedger's. It is left alone, so the token_ledger_*"
            " views are not made; 'spanledger ledger import tokenledger' copies its rows."
        )
        views = "SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY 1"
        assert connection.execute(views).fetchall() == [("current_costs",)]
        assert connection.execute("SELECT user_id, cost_usd FROM token_ledger_events").fetchall() == [
            ("eve", Decimal("1.5"))
        ]
        assert "there is a table token_ledger_events of TokenLedger's" in command("doctor", "--ledger", database).stdout
        assert "token_ledger_events" in command("ledger", "migrate", "--ledger", database).stdout
        assert asked(database, "SELECT count(*) FROM current_costs") == [(1,)]

        connection.execute("ALTER TABLE token_ledger_events RENAME TO theirs")
        assert "left alone" not in command("ledger", "migrate", "--ledger", database).stdout
        assert connection.execute(views).fetchall() == [("current_costs",), *((name,) for name in sorted(
            ["token_ledger_events", *COLUMNS]))]  # fmt: skip
        assert connection.execute("SELECT user_id, cost_usd FROM token_ledger_events").fetchall() == [
            (None, Decimal("0.0000015"))
        ]
        assert connection.execute("SELECT user_id, cost_usd FROM theirs").fetchall() == [("eve", Decimal("1.5"))]


def test_somebodys_view_is_left_alone_and_said_so_as_long_as_it_is_there(database):
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in (THEIRS, AGGREGATE, "ALTER TABLE token_ledger_events RENAME TO token_ledger_events_old"):
            connection.execute(statement)
        put(database, [row()])
        said = command("ledger", "migrate", "--ledger", database).stdout
        assert "The names token_ledger_user_costs belong to" in said
        connection.execute("DROP VIEW token_ledger_user_costs")
        assert command("ledger", "migrate", "--ledger", database).stdout == f"{database}: version 0001\n"
        assert connection.execute("SELECT user_id FROM token_ledger_user_costs").fetchall() == [("anonymous",)]


def test_the_name_being_taken_later_is_no_error(database):
    put(database, [row()])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP VIEW token_ledger_events CASCADE")
        connection.execute(THEIRS)
    try:
        put(database, [row(1)])
    except SinkError as error:
        pytest.fail(str(error))
    assert asked(database, "SELECT count(*) FROM usage_records") == [(2,)]
