"""The SQLite ledger: once per id, completed but never doubled, exact sums, the views of the seed."""

import random
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest

from spanledger.ledger.queries import report
from spanledger.ledger.sqlite import SqliteLedger, open_for_reading, open_for_writing
from spanledger.model import COLUMNS, Attribution, Cost, Usage, UsageRecord, record_id_at, row_of
from spanledger.recording.sink import SinkError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def row(number=0, **more):
    more.setdefault("cost", Cost(cost_pusd=1_500_000, cost_status="priced"))
    more.setdefault("usage", Usage(input_tokens=10, output_tokens=5, usage_status="reported"))
    return row_of(
        UsageRecord(
            record_id=record_id_at(number * 10**6), started_at=NOON + timedelta(seconds=number), operation="chat",
            provider="openai", source="test", request_model="gpt-4o", duration_ns=120_400_000, **more,
        )
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def sink(path):
    made = SqliteLedger(path)
    yield made
    made.close()


def rows(path, what="*", table="usage_records"):
    connection = open_for_reading(path)
    try:
        return [tuple(each) for each in connection.execute(f"SELECT {what} FROM {table}")]
    finally:
        connection.close()


def test_its_columns_are_those_of_a_record_and_the_time_it_was_recorded(path, sink):
    sink.send([row()])
    connection = open_for_reading(path)
    names = {each["name"] for each in connection.execute("PRAGMA table_info(usage_records)")}
    connection.close()
    assert names == {*COLUMNS, "recorded_at"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_record_twice_is_one_row(path, sink):
    first = row()
    sink.send([first, first])
    sink.send([first])
    assert rows(path, "count(*), sum(cost_pusd)") == [(1, 1_500_000)]


def test_a_later_telling_fills_gaps_and_changes_nothing_that_is_known(path, sink):
    first = row(attribution=Attribution(team="a"))
    again = {**first, "team": "b", "user_id": "ada", "input_tokens": 999, "cost_pusd": 7}
    sink.send([first])
    sink.send([again])
    assert rows(path, "team, user_id, input_tokens, cost_pusd") == [("a", "ada", 10, 1_500_000)]


def test_writers_in_many_threads_and_files_lose_and_double_nothing(path):
    def write(start):
        sink = SqliteLedger(path)
        for batch in range(10):
            sink.send([row(start + batch * 10 + number) for number in range(10)])
        sink.close()

    threads = [threading.Thread(target=write, args=(start * 1000,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(path, "count(*)") == [(400,)]


def test_sums_are_exact_and_do_not_overflow(path, sink):
    source = random.Random(3)
    amounts = [source.randint(0, 9 * 10**18) for _ in range(300)]
    sink.send([row(number, cost=Cost(cost_pusd=amount, cost_status="priced")) for number, amount in enumerate(amounts)])
    connection = open_for_reading(path)
    (total,) = report(connection, [])
    connection.close()
    assert int(total["cost_usd"].replace(".", "")) == sum(amounts) > 2**63


def test_the_views_speak_the_seeds_language(path, sink):
    sink.send(
        [
            row(1, stream=True, attribution=Attribution(user_id="ada", team="a", metadata={"page": "/home"})),
            row(2, usage=Usage(input_tokens=10, usage_status="reported")),
            row(3, cost=Cost(), usage=Usage()),
        ]
    )
    what = "model, input_tokens, output_tokens, total_tokens, cost_usd, request_type, duration_ms, page"
    assert rows(path, what, "token_ledger_events ORDER BY timestamp") == [
        ("gpt-4o", 10, 5, 15, 1.5e-06, "chat_stream", 120, "/home"),
        ("gpt-4o", 10, 0, 10, 1.5e-06, "chat", 120, None),
        ("gpt-4o", 0, 0, 0, None, "chat", 120, None),
    ]
    assert rows(path, "date, provider, model, request_count, total_tokens, total_cost", "token_ledger_daily_costs") == [
        ("2026-11-21", "openai", "gpt-4o", 3, 25, 3e-06)
    ]
    assert rows(path, "user_id, request_count", "token_ledger_user_costs") == [("ada", 1), ("anonymous", 2)]
    assert rows(path, "team, total_tokens", "token_ledger_team_costs") == [("a", 15), ("unassigned", 10)]
    assert rows(path, "cost_center, request_count", "token_ledger_cost_center_costs") == [("unassigned", 3)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    path.parent.mkdir()
    from spanledger.ledger import sqlite as module

    monkeypatch.setattr(module, "MIGRATIONS", ("schema_sqlite.sql", "sqlite.py"))  # the second is no SQL
    with pytest.raises(sqlite3.Error):
        open_for_writing(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM usage_records").fetchone() == (0,)
    connection.close()


def test_a_cost_beyond_what_a_column_holds_is_refused_for_good_and_holds_nothing_up(sink):
    with pytest.raises(SinkError) as refused:
        sink.send([row(cost=Cost(cost_pusd=2**63, cost_status="priced"))])
    assert refused.value.permanent
    sink.send([row(1)])
    assert rows(sink.path, "cost_pusd") == [(1_500_000,)]
