"""What leaves the SQLite ledger by itself: old records, and the oldest days of a file that is too large."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from spanledger.ledger.erasure import forget, prune
from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import UNPRICED, Attribution, Cost, UsageRecord, iso, record_id_at, row_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def row(days_ago, *, recorded=None, cost=None, **more):
    moment = NOW - timedelta(days=days_ago)
    made = row_of(
        UsageRecord(
            record_id=record_id_at(int(moment.timestamp() * 1e9)), started_at=moment, operation="chat",
            provider="openai", source="tests",
            cost=UNPRICED if cost is None else Cost(cost_pusd=cost, cost_status="priced", cost_source="local"), **more,
        )
    )  # fmt: skip
    return {**made, "recorded_at": iso(recorded or moment)}


def asked(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def ledger(tmp_path):
    made = SqliteLedger(tmp_path / "ledger.db", retention_days=400, max_bytes=2**31, clock=lambda: NOW)
    yield made
    made.close()


def test_what_is_older_than_the_retention_goes_and_what_it_was_is_written_down(ledger, caplog):
    ledger.send([row(401, cost=3), row(401.1), row(402, cost=4), row(399, cost=5)])
    ledger.tidy()
    assert asked(ledger.path, "SELECT cost_pusd FROM usage_records") == [(5,)]
    assert asked(ledger.path, "SELECT day, reason, records, cost_usd FROM pruned_days ORDER BY day") == [
        ("2025-10-16", "retention_days", 1, "0.000000000004"),
        ("2025-10-17", "retention_days", 2, "0.000000000003"),
    ]
    assert "3 calls of 2025-10-16 to 2025-10-17 were pruned" in caplog.text


def test_a_call_whose_clock_was_wrong_or_that_was_imported_is_not_old(ledger):
    ledger.send([row(20_000, recorded=NOW - timedelta(days=1), cost=1)])
    ledger.tidy()
    assert asked(ledger.path, "SELECT count(*) FROM usage_records") == [(1,)]


def test_a_file_that_is_too_large_loses_its_oldest_days_and_never_the_present_one(tmp_path, caplog):
    ledger = SqliteLedger(tmp_path / "ledger.db", max_bytes=300_000, clock=lambda: NOW)
    for day in (3, 2, 1, 0):
        ledger.send([row(day + number / 10_000, cost=1, error_type="x" * 400) for number in range(200)])
    ledger.tidy()
    days = "SELECT substr(started_at, 1, 10), count(*) FROM usage_records GROUP BY 1"
    kept = dict(asked(ledger.path, days))
    assert "2026-11-19" not in kept
    assert kept["2026-11-22"] == 200
    (gone,) = asked(ledger.path, "SELECT sum(records) FROM pruned_days WHERE reason = 'ledger_max_bytes'")[0]
    assert gone + sum(kept.values()) == 800
    assert "at the bound its oldest days are pruned" in caplog.text
    ledger.close()


def test_a_user_is_forgotten_and_the_totals_stay(ledger):
    whose = Attribution(user_id="grace-7", session_id="s", team="ml", metadata={"mail": "grace-7@example.com"})
    ledger.send([row(1, cost=7, attribution=whose, trace_id="a" * 32), row(2, cost=8)])
    assert ledger.write(lambda connection: forget(connection, ["grace-7"])) == 1
    ledger.scrub()
    ledger.close()
    statement = "SELECT user_id, session_id, trace_id, metadata, team, cost_pusd FROM usage_records ORDER BY cost_pusd"
    assert asked(ledger.path, statement) == [(None, None, None, None, "ml", 7), (None, None, None, None, None, 8)]
    assert b"grace-7" not in ledger.path.read_bytes()


def test_pruning_by_hand_goes_by_the_time_of_the_call(ledger):
    ledger.send([row(10, recorded=NOW), row(1)])
    found = ledger.write(lambda connection: prune(connection, NOW - timedelta(days=5), "asked for"))
    assert [(each.day, each.records) for each in found] == [("2026-11-12", 1)]
    assert asked(ledger.path, "SELECT count(*) FROM usage_records") == [(1,)]
