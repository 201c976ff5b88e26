"""The command on either ledger, as a user types it."""

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from tests.postgresql.records import (
    NOON,
    answer,
    asked,
    command,
    count,
    outbox_with,
    put,
    row,
)  # fmt: skip

from spanledger.ledger import books, copying
from spanledger.model import Attribution, Cost, Usage
from spanledger.recording.survey import survey
from spanledger.settings import read_settings

PRICES = """
version: 1
models:
  - provider: openai
    match: gpt-4o
    prices: [{input_mtok: "1", cache_read_mtok: "0.5", output_mtok: "2"}]
"""
# 10 tokens in, 5 out, at these prices: 20 micro-USD.


def local(pusd):
    return Cost(pusd, {"input": pusd}, "USD", "local", "priced", "an old list")


def day(ago):
    return f"{NOON - timedelta(days=ago):%Y-%m-%d}"


@pytest.fixture
def filled(url):
    """Four calls on three days; one counts twice, one has no price, one was stated by its provider."""
    put(
        url,
        [
            row(1, cost=local(5 * 10**12), attribution=Attribution(team="a", user_id="ada", feature="=cmd")),
            row(2, cost=local(7 * 10**12 + 1), weight=2, attribution=Attribution(team="b", user_id="bob")),
            row(3, cost=Cost(), started_at=NOON - timedelta(days=1, hours=2), usage=Usage(), status="error"),
            row(4, cost=Cost(7, {"stated": 7}, "USD", "provider", "priced"), started_at=NOON - timedelta(days=100),
                attribution=Attribution(user_id="ada", session_id="s", metadata={"page": "/x"}), trace_id="1" * 32),
        ],
    )  # fmt: skip
    return url


def report(url, *arguments):
    return answer("report", "--ledger", url, *arguments)


def short(rows, *names):
    return [tuple(each[name] for name in names) for each in rows]


# Questions.


def test_a_report_by_day_hour_and_model(filled):
    assert short(report(filled, "--by", "day"), "day", "calls", "cost_usd", "unpriced_calls", "failed_calls") == [
        (day(0), 3, "19.000000000002", 0, 0),
        (day(100), 1, "0.000000000007", 0, 0),
        (day(1), 1, "0.000000000000", 1, 1),
    ]
    assert short(report(filled, "--by", "hour"), "hour", "calls") == [
        (f"{day(0)}T12:00", 3), (f"{day(100)}T12:00", 1), (f"{day(1)}T10:00", 1),
    ]  # fmt: skip
    assert report(filled, "--by", "model") == [
        {
            "model": "gpt-4o", "calls": 5, "input_tokens": 40, "output_tokens": 20, "cache_read_tokens": 0,
            "cache_write_tokens": 0, "reasoning_tokens": 0, "cost_usd": "19.000000000009", "unpriced_calls": 1,
            "partial_calls": 0, "incomplete_calls": 0, "failed_calls": 1,
        }
    ]  # fmt: skip


def test_a_report_can_be_narrowed(filled):
    assert short(report(filled, "--by", "team", "--where", "user_id=ada"), "team", "calls") == [("a", 1), (None, 1)]
    assert short(report(filled, "--by", "team", "--where", "team="), "calls") == [(2,)]
    assert short(report(filled, "--by", "team", "--where", f"day={day(0)}"), "team") == [("b",), ("a",)]
    assert short(report(filled, "--by", "day", "--where", f"hour={day(1)}T10:00"), "day") == [(day(1),)]
    assert short(report(filled, "--by", "day", "--since", day(1), "--until", day(0)), "day") == [(day(1),)]
    assert report(filled, "--where", "team=' OR 1=1 --%s?:a") == []
    assert "no key 'colour'" in command("report", "--by", "colour", "--ledger", filled, expect=2).stderr


def test_a_hundred_calls_beyond_what_a_column_holds_have_an_exact_sum(url):
    put(url, [row(number, cost=Cost(cost_pusd=9 * 10**18 + number, cost_status="priced")) for number in range(100)])
    assert report(url, "--by", "model")[0]["cost_usd"] == "900000000.000000004950"


def test_usage_is_json(filled):
    found = json.loads(command("usage", "--since", day(200), "--ledger", filled).stdout)
    assert (found["total_requests"], found["total_cost"], found["unpriced_requests"]) == (5, 19.000000000009, 1)
    assert {name: each["requests"] for name, each in found["by_model"].items()} == {"gpt-4o": 5}


def test_doctor_says_what_is_there(filled, database):
    done = command("doctor", "--ledger", filled)
    assert "4 records, 1 unpriced, 0 partial, 1 with incomplete usage" in done.stdout
    assert "FAIL" not in done.stdout


def test_doctor_says_what_an_old_schema_waits_for(database):
    put(database, [row()])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE spanledger_schema SET version_num = '0000'")
    done = command("doctor", "--ledger", database, expect=1)
    assert "its schema is of version 0000, this spanledger writes 0001" in done.stdout
    assert "ledger migrate" in done.stdout


def test_an_empty_database_has_no_ledger_yet(database):
    for arguments in (("report",), ("usage",), ("ledger", "status"), ("ledger", "prune"), ("reprice",)):
        assert "there is no ledger in" in command(*arguments, "--ledger", database, expect=1).stderr
    assert "not there yet: the first record makes it" in command("doctor", "--ledger", database).stdout


def test_a_server_that_is_down_is_one_line_on_stderr(postgres, database):
    postgres.stop()
    done = command("report", "--ledger", database, expect=1)
    assert done.stderr.startswith(f"spanledger: the ledger {database} can't be read (OperationalError: ")
    assert len(done.stderr.splitlines()) == 1
    assert "can't be read" in command("doctor", "--ledger", database, expect=1).stdout


# Prices.


def test_repricing_writes_adjustments_once(filled, tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text(PRICES)
    monkeypatch.setenv("SPANLEDGER_PRICES", str(tmp_path / "prices.yaml"))
    dry = answer("reprice", "--ledger", filled)
    assert (dry["looked_at"], dry["adjustments_written"], dry["calls"]) == (4, None, 3)
    assert count(filled, "cost_adjustments") == 0
    done = answer("reprice", "--apply", "--ledger", filled)
    assert (done["adjustments_written"], done["old_cost_usd"], done["new_cost_usd"]) == (
        2, "19.000000000002", "0.000060000000",
    )  # fmt: skip
    assert answer("reprice", "--apply", "--ledger", filled)["adjustments_written"] == 0
    assert report(filled, "--by", "model")[0]["cost_usd"] == "0.000060000007"
    what = "number, old_cost_pusd, old_cost_status, old_price_basis, cost_pusd, cost_status, cost_source"
    assert asked(filled, f"SELECT {what} FROM cost_adjustments ORDER BY old_cost_pusd") == [
        (1, 5 * 10**12, "priced", "an old list", 20_000_000, "priced", "local"),
        (1, 7 * 10**12 + 1, "priced", "an old list", 20_000_000, "priced", "local"),
    ]
    assert asked(filled, "SELECT sum(cost_pusd) FROM usage_records") == [(12 * 10**12 + 8,)]


# What goes in and out.


def test_status_says_what_is_there(filled):
    found = answer("ledger", "status", "--ledger", filled)
    assert found == {
        "ledger": filled, "records": 4, "first": f"{day(100)}T12:00:00.000000+00:00",
        "last": f"{day(0)}T12:00:02.000000+00:00", "cost_usd": "19.000000000009", "clock_suspect": 0,
        "pruned_records": 0, "pruned_days": [],
    }  # fmt: skip


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_copy_has_everything_and_another_one_adds_nothing(tmp_path, database, monkeypatch, way):
    places = [f"sqlite:///{tmp_path}/ledger.db", database]
    source, target = places if way == "there" else places[::-1]
    (tmp_path / "prices.yaml").write_text(PRICES)
    monkeypatch.setenv("SPANLEDGER_PRICES", str(tmp_path / "prices.yaml"))
    put(
        source,
        [{**row(number, cost=local(number), attribution=Attribution(metadata={"n": number})),
          "recorded_at": "2026-01-02T03:04:05.000006+00:00"} for number in range(2100)],
    )  # fmt: skip
    command("reprice", "--apply", "--ledger", source)
    total = report(source, "--by", "day")
    for _ in range(2):
        said = command("ledger", "copy", "--from", source, "--to", target).stdout
        assert said == f"2,100 records copied from {source} to {target}.\n"
        assert (count(target), count(target, "cost_adjustments")) == (2100, 2100)
        assert report(target, "--by", "day") == total
    adjustment = "record_id, number, adjusted_at, old_cost_pusd, cost_pusd, price_basis, cost_status, cost_source"
    for what, table in (
        ("record_id, started_at, recorded_at, cost_pusd, input_tokens, stream, weight", "usage_records"),
        (adjustment, "cost_adjustments"),
    ):
        statement = f"SELECT {what} FROM {table} ORDER BY record_id"
        assert asked(target, statement) == asked(source, statement)
    assert asked(target, "SELECT DISTINCT recorded_at FROM usage_records") == [("2026-01-02T03:04:05.000006+00:00",)]
    metadata = "SELECT metadata FROM usage_records ORDER BY record_id LIMIT 1"
    assert [json.loads(each) for (each,) in asked(target, metadata)] == [{"n": 0}]


def test_a_copy_tells_how_far_it_is(tmp_path, database):
    source = f"sqlite:///{tmp_path}/ledger.db"
    put(source, [row(number) for number in range(4500)])
    seen = []
    sink = books.ledger_of(read_settings(), database)
    with books.reading(source) as connection:
        assert copying.copy(connection, sink, seen.append) == 4500
    sink.close()
    assert seen == [2000, 2000, 500]


def test_pruning_deletes_what_is_old_and_writes_down_what_it_was(filled):
    bound = (NOON - timedelta(hours=6)).isoformat()
    would = command("ledger", "prune", "--before", bound, "--dry-run", "--ledger", filled)
    assert would.stdout.splitlines()[-1].startswith("2 records before ")
    assert would.stdout.splitlines()[-1].endswith("would be deleted.")
    assert (count(filled), count(filled, "pruned_days")) == (4, 0)
    did = command("ledger", "prune", "--before", bound, "--ledger", filled)
    assert did.stdout.splitlines()[-1].endswith("were deleted.")
    assert asked(filled, "SELECT day, reason, records, cost_usd FROM pruned_days ORDER BY day") == [
        (day(100), "asked for", 1, "0.000000000007"), (day(1), "asked for", 1, "0.000000000000"),
    ]  # fmt: skip
    assert asked(filled, "SELECT cost_pusd FROM usage_records ORDER BY 1") == [(5 * 10**12,), (7 * 10**12 + 1,)]
    status = answer("ledger", "status", "--ledger", filled)
    assert (status["records"], status["pruned_records"], len(status["pruned_days"])) == (2, 2, 2)
    again = command("ledger", "prune", "--before", bound, "--ledger", filled)
    assert again.stdout.startswith("0 records before ")


def test_pruning_takes_adjustments_along(filled, tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text(PRICES)
    monkeypatch.setenv("SPANLEDGER_PRICES", str(tmp_path / "prices.yaml"))
    command("reprice", "--apply", "--ledger", filled)
    command("ledger", "prune", "--before", datetime.now(UTC).isoformat(), "--ledger", filled)
    assert (count(filled), count(filled, "cost_adjustments")) == (0, 0)
    assert asked(filled, "SELECT cost_usd FROM pruned_days WHERE day = ?", (day(0),)) == [("0.000060000000",)]


SECRET = "ada-5f2d8c71b9"
PERSONAL = ("user_id", "session_id", "conversation_id", "message_id", "metadata", "trace_id", "span_id",
            "parent_span_id", "response_id")  # fmt: skip


def personal(number):
    return row(
        number, cost=local(5), trace_id="1" * 32, span_id="2" * 16, parent_span_id="3" * 16, response_id=SECRET,
        conversation_id=SECRET, attribution=Attribution(
            user_id=SECRET, session_id=SECRET, message_id=SECRET, team="a", metadata={"who": SECRET},
        ),
    )  # fmt: skip


def test_a_forgotten_user_is_in_no_record_and_no_outbox_and_totals_stay(home, url, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_LEDGER_URL", url)
    put(url, [personal(1), row(2, attribution=Attribution(user_id="bob"))])
    outbox_with(home, [personal(3)])
    outbox_with(home, [personal(4), row(5, attribution=Attribution(user_id="bob"))], sinks=("ledger", "elsewhere"))
    before = report(url, "--by", "team,model")
    said = command("ledger", "forget", "--user-id", SECRET, "--user-id", "nobody").stdout
    assert f"3 records in {url} and 1 in outbox files lead nowhere now." in said
    assert report(url, "--by", "team,model") == before
    empty = " AND ".join(f"{name} IS NULL" for name in PERSONAL)
    assert asked(url, f"SELECT count(*) FROM usage_records WHERE {empty} AND team = 'a' AND input_tokens = 10") == [
        (3,)
    ]
    assert asked(url, "SELECT user_id FROM usage_records WHERE user_id IS NOT NULL") == [("bob",), ("bob",)]
    assert [state.pending for state in survey(home / "outbox")] == [2]
    folders = [home / "outbox", *([Path(url[10:]).parent] if url.startswith("sqlite") else [])]
    bytes_left = b"".join(file.read_bytes() for folder in folders for file in folder.iterdir())
    assert b"bob" in bytes_left
    assert SECRET.encode() not in bytes_left


# TokenLedger.

TOKEN_LEDGER = """
CREATE SCHEMA token_ledger;
CREATE TABLE token_ledger.token_ledger_events (
  event_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  trace_id UUID, span_id UUID, parent_span_id UUID,
  timestamp TIMESTAMPTZ NOT NULL DEFAULT now(),
  duration_ms DOUBLE PRECISION,
  provider VARCHAR(50) NOT NULL, model VARCHAR(100) NOT NULL,
  input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
  total_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER DEFAULT 0,
  cost_usd NUMERIC(12,8),
  endpoint VARCHAR(255), request_type VARCHAR(50) DEFAULT '''chat''',
  user_id VARCHAR(255), session_id VARCHAR(255), organization_id VARCHAR(255),
  app_name VARCHAR(100), environment VARCHAR(50),
  status VARCHAR(20) DEFAULT '''success''', error_type VARCHAR(100), error_message TEXT,
  metadata JSONB,
  request_preview TEXT, response_preview TEXT,
  feature VARCHAR(100), page VARCHAR(255), component VARCHAR(100), team VARCHAR(100), project VARCHAR(100),
  cost_center VARCHAR(100), metadata_extra JSONB
);
INSERT INTO token_ledger.token_ledger_events VALUES (
  '00000000-0000-4000-8000-000000000001', '0af76519-16cd-43dd-8448-eb211c80319c',
  '00000000-0000-4000-8000-0000000000aa', NULL, '2026-11-01T10:00:00.123456+02', 1234.5, 'openai', 'gpt-4o',
  1000, 500, 1500, 200, 0.00750001, '/v1/chat/completions', 'chat_stream', 'ada', 's', 'o', 'shop', 'production',
  'success', NULL, NULL, '{"a": 1}', 'THE PROMPT', 'THE ANSWER', 'search', '/home', 'box', 'ml', 'p', 'CC', '{"b": [2]}'
);
INSERT INTO token_ledger.token_ledger_events (event_id, timestamp, provider, model)
VALUES ('00000000-0000-4000-8000-000000000002', '2026-11-02T00:00:00Z', 'anthropic', 'claude');
INSERT INTO token_ledger.token_ledger_events
  (event_id, timestamp, provider, model, request_type, status, error_type, error_message, cost_usd)
VALUES ('00000000-0000-4000-8000-000000000003', '2026-11-03T00:00:00Z', 'openai', 'e', 'embedding', 'error', 'E',
  'THE MESSAGE', 9999.99999999), ('00000000-0000-4000-8000-000000000004', '2026-11-04T00:00:00Z', 'openai', 'e',
  'embedding', 'success', NULL, NULL, 0.00000001);
"""


@pytest.fixture
def theirs(postgres, database):
    source = postgres.create_database("theirs")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(TOKEN_LEDGER)
    yield source
    postgres.drop_database("theirs")


def test_a_token_ledger_is_imported_once_without_texts(theirs, url):
    for _ in range(2):
        said = command("ledger", "import", "tokenledger", "--from", theirs, "--ledger", url).stdout
        assert said.startswith(f"4 events imported from token_ledger.token_ledger_events into {url}.\n")
        assert count(url) == 4
    what = (
        "record_id, trace_id, span_id, parent_span_id, started_at, duration_ms, provider, response_model, operation,"
        " stream, input_tokens, output_tokens, cache_read_tokens, cost_pusd, currency, cost_source, cost_status,"
        " user_id, session_id, organization_id, service_name, environment, status, error_type, feature, team, project,"
        " cost_center, source, weight"
    )
    names = [each.strip() for each in what.split(",")]
    first, second, third, fourth = (
        dict(zip(names, each, strict=True))
        for each in asked(url, f"SELECT {what} FROM usage_records ORDER BY record_id")
    )
    assert first == {
        "record_id": "00000000-0000-4000-8000-000000000001", "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "0000000000004000800000000000" + "00aa", "parent_span_id": None,
        "started_at": "2026-11-01T08:00:00.123456+00:00", "duration_ms": 1234, "provider": "openai",
        "response_model": "gpt-4o", "operation": "chat", "stream": 1, "input_tokens": 1000, "output_tokens": 500,
        "cache_read_tokens": 200, "cost_pusd": 7_500_010_000, "currency": "USD", "cost_source": "manual",
        "cost_status": "priced", "user_id": "ada", "session_id": "s", "organization_id": "o", "service_name": "shop",
        "environment": "production", "status": "success", "error_type": None, "feature": "search", "team": "ml",
        "project": "p", "cost_center": "CC", "source": "tokenledger", "weight": 1,
    }  # fmt: skip
    assert [second[name] for name in ("operation", "stream", "cost_pusd", "cost_source", "cost_status", "status")] == [
        "chat", 0, None, "none", "unpriced", "success",
    ]  # fmt: skip
    assert [third[name] for name in ("operation", "cost_pusd", "status", "error_type")] == [
        "embeddings", 9999_99999999 * 10**4, "error", "E",
    ]  # fmt: skip
    assert fourth["cost_pusd"] == 10_000
    (metadata, *others) = asked(url, "SELECT metadata FROM usage_records ORDER BY record_id")
    assert json.loads(metadata[0]) == {
        "a": 1, "b": [2], "page": "/home", "component": "box", "endpoint": "/v1/chat/completions",
    }  # fmt: skip
    assert others == [(None,)] * 3
    with books.reading(url) as connection:
        everything = str([tuple(each) for each in connection.execute("SELECT * FROM usage_records")])
    assert not [word for word in ("THE PROMPT", "THE ANSWER", "THE MESSAGE") if word in everything]
    with psycopg.connect(theirs) as connection:
        assert connection.execute("SELECT count(*) FROM token_ledger.token_ledger_events").fetchone() == (4,)


def test_an_import_from_nowhere_says_what_is_wrong(theirs, url):
    arguments = ("ledger", "import", "tokenledger", "--ledger", url, "--from")
    assert "is no PostgreSQL database" in command(*arguments, "sqlite:///x.db", expect=2).stderr
    assert "is no name of a table" in command(*arguments, theirs, "--table", "a; DROP TABLE b", expect=2).stderr
    missing = command(*arguments, theirs, "--table", "public.nothing", expect=1).stderr
    assert "public.nothing" in missing
    assert "spanledger run" not in missing


# Addresses.


@pytest.mark.parametrize(
    "spelled",
    [
        "postgres://{}", "postgresql+asyncpg://{}", "postgresql+psycopg2://{}", "postgresql://{}?pgbouncer=true",
        "postgresql+asyncpg://{}?ssl=prefer", "POSTGRES://{}?connection_limit=1&schema=public&sslmode=prefer",
    ],
)  # fmt: skip
def test_an_address_may_be_spelled_as_other_systems_do(database, monkeypatch, spelled):
    url = spelled.format(database.partition("://")[2])
    command("ledger", "migrate", "--ledger", url)
    put(url, [row()])
    assert [each["calls"] for each in report(url, "--by", "model")] == [1]
    monkeypatch.setenv("SOMEBODYS_DATABASE", url)
    assert [each["calls"] for each in report("env:SOMEBODYS_DATABASE", "--by", "model")] == [1]
    assert answer("ledger", "status", SPANLEDGER_LEDGER_URL="env:SOMEBODYS_DATABASE")["records"] == 1
    assert answer("ledger", "status", TOKENLEDGER_DATABASE_URL=url)["records"] == 1


def test_tls_that_is_asked_for_is_asked_for(database):
    done = command("report", "--ledger", f"{database}?ssl=require", expect=1)
    assert "SSL" in done.stderr


def test_an_address_in_a_variable_that_is_not_set_is_wrong_use(home):
    assert "is no ledger URL" in command("report", "--ledger", "env:NOT_SET_AT_ALL", expect=2).stderr
    assert not home.exists()


def test_it_is_the_same_as_a_process_of_its_own(filled):
    done = subprocess.run(
        [Path(sys.executable).parent / "spanledger", "ledger", "status", "--ledger", filled, "--format", "json"],
        env=dict(os.environ), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (json.loads(done.stdout)["records"], done.stderr) == (4, "")


def test_ids_of_others_are_kept_as_they_are(url):
    record_id = str(uuid.uuid4())
    put(url, [{**row(), "record_id": record_id}])
    assert asked(url, "SELECT record_id FROM usage_records") == [(record_id,)]
