"""TokenLedger's promises, each by its number: two lines, attribution, events by hand, its names in PostgreSQL."""

import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import anthropic
import openai
import psycopg
import pytest
from django.conf import settings as django_settings
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from flask import Flask
from tests.compat.conftest import OLD_MODELS
from tests.compat.seeds import billed
from tests.conftest import ROOT
from tests.postgresql.records import command

import spanledger
from spanledger import assembly
from spanledger.compat import tokenledger
from spanledger.compat.tokenledger import (
    LLMEvent,
    attribution,
    configure,
    get_async_tracker,
    get_tracker,
    patch_anthropic,
    patch_openai,
)
from spanledger.compat.tokenledger.middleware import FastAPIMiddleware, FlaskMiddleware
from spanledger.context.django import attribution_middleware
from spanledger.settings import read_settings

pytestmark = OLD_MODELS
HELLO = [{"role": "user", "content": "Hello! How are you?"}]
STREAM = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
SQL = ROOT / "src" / "spanledger" / "ledger" / "migrations" / "sql" / "0001_usage_records.sql"


def call(**more):
    with openai.OpenAI() as client:
        return client.chat.completions.create(model="gpt-4o", messages=HELLO, **more)


def asked(url, statement):
    """What a statement says to whoever connects, with PostgreSQL's own types."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def event(**more):
    known = {"provider": "openai", "model": "gpt-4o", "input_tokens": 100, "output_tokens": 50}
    return LLMEvent(**{**known, **more})


@pytest.fixture
def patched(home):
    """The OpenAI SDK, watched by TokenLedger's two lines, with a ledger in SQLite."""
    configure()
    patch_openai()


def settings():
    return assembly._runtime.settings


def test_k1_two_lines_and_existing_code_is_what_it_was(patched, truth, calls):
    answer = call()
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    with openai.OpenAI() as client, client.chat.completions.create(**STREAM) as read:
        assert isinstance(read, openai.Stream)
        assert len(list(read)) == 11
    assert calls() == billed(truth())


def test_k1_without_the_second_line_nothing_is_watched(truth):
    configure()
    call()
    assert spanledger.flush()
    assert (len(truth()), spanledger.get_usage()["total_requests"]) == (1, 0)


def test_k1_both_lines_twice_count_once(patched, truth, calls):
    configure()
    patch_openai()
    call()
    assert calls() == billed(truth())


def test_k2_the_url_of_a_database_is_enough_and_an_empty_one_gets_its_tables(database, truth):
    configure(database_url=database)
    patch_openai()
    call()
    assert spanledger.flush()
    assert asked(database, "SELECT input_tokens, output_tokens FROM token_ledger_events") == billed(truth())


@pytest.mark.parametrize("url", ["postgresql://u:secret@127.0.0.1:9/db", "postgresql://u@nobody.invalid/db"])
def test_k2_a_database_that_is_not_there_breaks_no_call_and_loses_nothing(url, truth, said):
    configure(database_url=url)
    patch_openai()
    assert call().usage.completion_tokens == 9
    assert not spanledger.flush(2)
    assert not any("secret" in each for each in said())
    with pytest.raises(spanledger.LedgerError) as raised:
        spanledger.get_usage()
    assert "secret" not in str(raised.value)


def test_k2_an_option_there_is_none_of_is_a_type_error():
    with pytest.raises(TypeError, match="configure has no option databse_url"):
        configure(databse_url="sqlite:///x.db")


def test_k3_openai_has_tokens_cost_and_latency(patched, truth, ledger):
    call()
    ((tokens_in, tokens_out, cost, duration, provider),) = ledger(
        "input_tokens", "output_tokens", "cost_pusd", "duration_ms", "provider"
    )
    cached = truth()[0]["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert (tokens_in, tokens_out, provider) == (*billed(truth())[0], "openai")
    assert cost == (tokens_in - cached) * 2_500_000 + cached * 1_250_000 + tokens_out * 10_000_000
    assert duration >= 0


def test_k4_anthropic_has_them_too_with_what_its_cache_took(truth, ledger):
    configure()
    patch_anthropic()
    with anthropic.Anthropic() as client:
        client.messages.create(model="claude-3-5-sonnet-20241022", max_tokens=100, messages=HELLO)
    assert ledger("provider", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens") == [
        (
            "anthropic",
            *billed(truth())[0],
            truth()[0]["usage"]["cache_read_input_tokens"],
            truth()[0]["usage"]["cache_creation_input_tokens"],
        )
    ]
    assert ledger("cost_pusd")[0][0] > 0


def test_k5_a_block_says_whose_a_call_is(patched, ledger):
    with attribution(user_id="ada", feature="summarize"):
        call()
    call()
    assert ledger("user_id", "feature") == [("ada", "summarize"), (None, None)]


def test_k6_a_decorator_says_it_for_every_call_of_a_function_in_threads_and_tasks(patched, ledger, truth):
    together = threading.Barrier(4)

    @attribution(feature="chat")
    def answer(user):
        together.wait()
        with attribution(user_id=user):
            return call()

    @attribution(feature="chat", team="async")
    async def answer_later(user):
        await asyncio.sleep(0)
        with attribution(user_id=user):
            return call()

    async def everybody():
        await asyncio.gather(*map(answer_later, "efgh"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, "abcd"))
    asyncio.run(everybody())
    call()
    assert sorted(ledger("user_id", "feature", "team"), key=str) == sorted(
        [
            *((name, "chat", None) for name in "abcd"),
            *((name, "chat", "async") for name in "efgh"),
            (None, None, None),
        ],
        key=str,
    )
    assert len(truth()) == 9


def test_k7_inner_blocks_add_to_outer_ones_and_win(patched, ledger):
    with attribution(user_id="ada", team="ml", page="/a", a=1):
        with attribution(user_id="bob", feature="chat", a=2, b=3):
            call()
        call()
    assert [(*row[:3], json.loads(row[3])) for row in ledger("user_id", "team", "feature", "metadata")] == [
        ("bob", "ml", "chat", {"page": "/a", "a": 2, "b": 3}),
        ("ada", "ml", None, {"page": "/a", "a": 1}),
    ]


FIELDS = ("user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center")


def test_k8_there_are_seven_fields(patched, ledger):
    with attribution(**{name: f"my {name}" for name in FIELDS}):
        call()
    assert ledger(*FIELDS) == [tuple(f"my {name}" for name in FIELDS)]


def test_k9_any_other_word_goes_into_metadata_extra(database):
    configure(database_url=database)
    patch_openai()
    with attribution(custom_field="value", number=7, page="/home"):
        call()
    assert spanledger.flush()
    extra = {"custom_field": "value", "number": 7, "page": "/home"}
    assert asked(database, "SELECT metadata_extra, page FROM token_ledger_events") == [(extra, "/home")]


def put(url, number, **more):
    """Events in a PostgreSQL ledger, each of 0.00075 USD."""
    configure(database_url=url)
    for _ in range(number):
        get_tracker().track(event(**more))
    assert spanledger.flush()


COST = Decimal("0.00075")


def test_k10_cost_by_feature(database):
    put(database, 2, feature="search")
    put(database, 1, feature="chat")
    put(database, 1, feature="old", timestamp=datetime.now(UTC) - timedelta(days=31))
    statement = (
        "SELECT feature, SUM(cost_usd) FROM token_ledger_events WHERE timestamp >= NOW() - INTERVAL '30 days'"
        " GROUP BY feature ORDER BY 2 DESC"
    )
    assert asked(database, statement) == [("search", 2 * COST), ("chat", COST)]


def test_k11_cost_and_requests_by_team(database):
    put(database, 2, team="ml")
    put(database, 1)
    statement = "SELECT team, SUM(cost_usd), COUNT(*) FROM token_ledger_events GROUP BY team ORDER BY 1"
    assert asked(database, statement) == [("ml", 2 * COST, 2), (None, COST, 1)]


def test_k12_top_users(database):
    put(database, 1, user_id="ada", feature="a")
    put(database, 3, user_id="bob", feature="b")
    statement = (
        "SELECT user_id, feature, SUM(cost_usd) FROM token_ledger_events GROUP BY user_id, feature ORDER BY 3 DESC"
        " LIMIT 10"
    )
    assert asked(database, statement) == [("bob", "b", 3 * COST), ("ada", "a", COST)]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_k13_the_urls_of_either_driver_are_served_and_both_extras_are_there(scheme, database):
    put(database.replace("postgresql", scheme, 1), 1)
    assert asked(database, "SELECT count(*) FROM token_ledger_events") == [(1,)]
    assert {"postgres", "asyncpg"} <= {*importlib.metadata.metadata("spanledger").get_all("Provides-Extra")}


def test_k14_nothing_waits_for_the_database(database, postgres, truth):
    configure(database_url=database, async_mode=True)
    patch_openai()
    call()
    assert spanledger.flush()
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE usage_records")
        for _ in range(3):
            call()
        get_tracker().track(event())  # all of them return while nobody can write there
        assert other.execute("SELECT count(*) FROM usage_records").fetchone() == (1,)
    assert spanledger.flush(60)
    assert asked(database, "SELECT count(*) FROM usage_records") == [(5,)]


def test_k14_without_it_a_call_returns_after_its_record_is_on_the_disk(home, said):
    configure(async_mode=False)
    assert settings().durability == "sync"
    configure()
    assert settings().durability == "async"


VIEWS = (
    "token_ledger_cost_center_costs", "token_ledger_daily_costs", "token_ledger_events", "token_ledger_team_costs",
    "token_ledger_user_costs",
)  # fmt: skip
NAMES = "SELECT table_name FROM information_schema.views WHERE table_schema = 'public' ORDER BY table_name"


def test_k15_the_tables_are_made_by_a_command(database):
    command("ledger", "migrate", SPANLEDGER_LEDGER_URL=database)
    command("ledger", "migrate", SPANLEDGER_LEDGER_URL=database)
    assert {*VIEWS} <= {name for (name,) in asked(database, NAMES)}
    put(database, 1)


def test_k15_the_tables_are_made_by_alembic(database, tmp_path):
    (tmp_path / "alembic.ini").write_text(command("ledger", "migrate", "--ini").stdout)
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=tmp_path, check=True, capture_output=True,
        env={**os.environ, "SPANLEDGER_LEDGER_URL": database},
    )  # fmt: skip
    put(database, 1)
    assert asked(database, "SELECT count(*) FROM token_ledger_events") == [(1,)]


@pytest.mark.wants("psql")
def test_k15_the_tables_are_made_by_a_file_for_psql(database):
    done = subprocess.run(
        ["psql", "-v", "ON_ERROR_STOP=1", database, "-f", SQL], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    put(database, 1)
    assert asked(database, "SELECT count(*) FROM token_ledger_events") == [(1,)]


def test_k16_there_are_indexes_for_time_and_for_each_attribution(database):
    put(database, 1)
    found = asked(database, "SELECT indexdef FROM pg_indexes WHERE tablename = 'usage_records'")
    columns = {definition.partition("btree (")[2].rpartition(")")[0] for (definition,) in found}
    assert {"started_at", *(f"{name}, started_at" for name in FIELDS)} <= {each.partition(") ")[0] for each in columns}


def test_k17_the_four_views_have_their_sums(database):
    put(database, 2, user_id="ada", team="ml", cost_center="CC-1")
    put(database, 1)
    sums = {
        name: asked(database, f"SELECT {key}, request_count, total_cost FROM token_ledger_{name}_costs ORDER BY 2")
        for name, key in {"user": "user_id", "team": "team", "cost_center": "cost_center"}.items()
    }
    assert sums == {
        "user": [("anonymous", 1, COST), ("ada", 2, 2 * COST)],
        "team": [("unassigned", 1, COST), ("ml", 2, 2 * COST)],
        "cost_center": [("unassigned", 1, COST), ("CC-1", 2, 2 * COST)],
    }
    assert asked(database, "SELECT provider, model, sum(request_count), sum(total_cost) FROM token_ledger_daily_costs"
                 " GROUP BY provider, model") == [("openai", "gpt-4o", 3, 3 * COST)]  # fmt: skip


HEADERS = {"X-User-ID": "ada", "X-Feature": "chat", "X-Team": "web", "X-Cost-Center": "CC-7"}


def test_k18_fastapi_takes_whose_it_is_from_headers_each_request_for_itself(patched, ledger):
    app = FastAPI()
    app.add_middleware(FastAPIMiddleware)

    @app.post("/chat")
    async def chat(request: Request):
        call()
        if request.headers.get("x-fail"):
            raise KeyError("mine")

    client = TestClient(app, raise_server_exceptions=False)
    said = [HEADERS, {**HEADERS, "X-User-ID": "bob", "x-fail": "1"}, {}]
    assert [client.post("/chat", headers=each).status_code for each in said] == [200, 500, 200]
    assert ledger("user_id", "feature", "team", "cost_center") == [
        ("ada", "chat", "web", "CC-7"), ("bob", "chat", "web", "CC-7"), (None, None, None, None),
    ]  # fmt: skip


def test_k19_what_is_configured_is_what_is_set():
    configure(
        app_name="my-api", environment="production", async_mode=True, batch_size=7, flush_interval_seconds=3,
        sample_rate=0.5, debug=True,
    )  # fmt: skip
    found = settings()
    assert (found.app_name, found.environment, found.durability, found.batch_size, found.flush_interval) == (
        "my-api", "production", "async", 7, 3,
    )  # fmt: skip
    assert (found.sample_rate, found.debug) == (2, True)


def test_k19_a_row_has_the_application_and_its_environment(ledger):
    configure(app_name="my-api", environment="production")
    get_tracker().track(event())
    assert ledger("service_name", "environment") == [("my-api", "production")]


def test_k20_records_are_inserted_in_batches(database):
    configure(database_url=database, batch_size=10, flush_interval_seconds=60)
    get_tracker().track(event())
    assert spanledger.flush()
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE usage_records")
        for _ in range(25):
            get_tracker().track(event())
        other.rollback()
    assert spanledger.flush()
    assert asked(database, "SELECT count(*) FROM usage_records") == [(26,)]
    transactions = asked(database, "SELECT count(DISTINCT xmin::text) FROM usage_records")[0][0]
    assert transactions < 26


def test_k21_an_event_by_hand_is_a_row_of_whoever_is_in_force(ledger):
    configure()
    with attribution(user_id="ada", feature="custom", extra=1):
        get_tracker().track(event(duration_ms=250.0, status="success", feature="mine", metadata_extra={"own": 2}))
    (row,) = ledger()
    known = {
        "provider": "openai", "request_model": "gpt-4o", "input_tokens": 100, "output_tokens": 50, "duration_ms": 250,
        "status": "success", "user_id": "ada", "feature": "mine", "cost_pusd": 750_000_000, "operation": "chat",
    }  # fmt: skip
    assert {name: row[name] for name in known} == known
    assert json.loads(row["metadata"]) == {"extra": 1, "own": 2}


def test_k21_an_event_that_is_tracked_twice_is_one_row(ledger):
    configure()
    twice = event()
    for _ in range(3):
        get_tracker().track(twice)
        assert spanledger.flush()
    get_tracker().track(event())
    assert len(ledger()) == 2
    assert twice.event_id in {row["record_id"] for row in ledger()}


@pytest.mark.parametrize("status", ["success", "error", "timeout", "cancelled"])
def test_k21_an_event_has_a_status(status, ledger):
    configure()
    get_tracker().track(event(status=status, error_message="secret"))
    assert ledger("status", "error_type") == [
        {
            "success": ("success", None), "error": ("error", "error"), "timeout": ("error", "timeout"),
            "cancelled": ("cancelled", None),
        }[status]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_tokens": -1}, {"output_tokens": "many"}, {"cached_tokens": True}, {"input_tokens": 1.5},
        {"duration_ms": -1.0}, {"duration_ms": float("nan")}, {"status": "fine"},
    ],
)  # fmt: skip
def test_k21_what_is_no_event_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        event(**wrong)


def test_k22_any_provider_and_any_model_are_taken(ledger):
    configure()
    get_tracker().track(event(provider="custom", model="my-model"))
    get_tracker().track(event(provider="custom", model="my-model", cost_usd="0.25"))
    get_tracker().track(event(provider="", model=""))
    assert ledger("provider", "request_model", "input_tokens", "cost_pusd") == [
        ("custom", "my-model", 100, None), ("custom", "my-model", 100, 250_000_000_000), ("unknown", None, 100, None),
    ]  # fmt: skip


def test_k23_coroutines_track_and_flush(ledger):
    configure()

    async def report(number):
        tracker = await get_async_tracker()
        with attribution(user_id=f"user {number}"):
            await tracker.track_async(event())
        return await tracker.flush_async()

    async def everybody():
        return await asyncio.gather(*map(report, range(5)))

    assert asyncio.run(everybody()) == [True] * 5
    rows = ledger("user_id", "input_tokens", flush=False)
    assert sorted(rows) == [(f"user {number}", 100) for number in range(5)]


def test_k23_the_loop_goes_on_while_it_flushes(database):
    configure(database_url=database)

    async def report():
        tracker = await get_async_tracker()
        await tracker.track_async(event())
        flushing = asyncio.create_task(tracker.flush_async(60))
        turns = 0
        while not flushing.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, flushing.result()

    turns, home = asyncio.run(report())
    assert (turns > 1, home) == (True, True)


def test_k24_fast_construct_makes_the_same_event_without_checks(ledger):
    configure()
    known = {"provider": "openai", "model": "gpt-4o", "input_tokens": 100, "output_tokens": 50, "user_id": "ada"}
    fast, checked = LLMEvent.fast_construct(**known), LLMEvent(**known)
    assert fast.said() == checked.said()
    get_tracker().track(fast)
    get_tracker().track(LLMEvent.fast_construct(**{**known, "input_tokens": -5}))
    assert ledger("input_tokens", "output_tokens", "user_id", "usage_status") == [
        (100, 50, "ada", "reported"),
        (None, 50, "ada", "invalid"),
    ]


def test_k24_a_field_there_is_none_of_is_a_type_error_either_way():
    for make in (LLMEvent, LLMEvent.fast_construct):
        with pytest.raises(TypeError, match="tokens"):
            make(provider="openai", tokens=5)


def test_k24_each_event_has_an_id_of_its_own():
    made = [LLMEvent.fast_construct(provider="openai") for _ in range(100)] + [event() for _ in range(100)]
    assert len({each.event_id for each in made}) == 200


ENVIRONMENT = {
    "TOKENLEDGER_APP_NAME": ("my-app", "app_name", "my-app"),
    "TOKENLEDGER_ENVIRONMENT": ("production", "environment", "production"),
    "TOKENLEDGER_DEBUG": ("true", "debug", True),
    "TOKENLEDGER_BATCH_SIZE": ("7", "batch_size", 7),
    "TOKENLEDGER_FLUSH_INTERVAL": ("2.5", "flush_interval", 2.5),
    "TOKENLEDGER_SAMPLE_RATE": ("0.1", "sample_rate", 10),
    "TOKENLEDGER_DATABASE_URL": ("sqlite:////tmp/x.db", "ledger_url", "sqlite:////tmp/x.db"),
    "DATABASE_URL": ("sqlite:////tmp/y.db", "ledger_url", "sqlite:////tmp/y.db"),
}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_k25_the_environment_is_read(name, monkeypatch):
    text, setting, value = ENVIRONMENT[name]
    monkeypatch.setenv(name, text)
    configure()
    assert getattr(settings(), setting) == value


@pytest.mark.parametrize("name", ["BATCH_SIZE", "FLUSH_INTERVAL", "SAMPLE_RATE", "DEBUG"])
def test_k25_what_is_no_value_is_one_warning_and_the_default(name, monkeypatch, said):
    name = f"TOKENLEDGER_{name}"
    setting = ENVIRONMENT[name][1]
    default = getattr(read_settings(), setting)
    monkeypatch.setenv(name, "a lot")
    configure()
    assert getattr(settings(), setting) == default
    assert len({each for each in said() if name in each}) == 1


def test_k26_a_rate_keeps_some_calls_that_stand_for_all(ledger):
    configure(sample_rate=0.1)
    for _ in range(1000):
        get_tracker().track(event())
    rows = ledger("weight", "input_tokens")
    assert {*rows} == {(10, 100)}
    assert 20 < len(rows) < 250
    told = spanledger.get_usage()
    assert (told["total_requests"], told["total_tokens"]) == (10 * len(rows), 1500 * len(rows))
    assert told["total_cost"] == pytest.approx(float(COST) * 10 * len(rows), rel=1e-12)


def test_k27_monitoring_queries_have_names_as_reports(database):
    put(database, 2, user_id="ada", team="ml", feature="search", duration_ms=200.0)
    put(database, 1, user_id="bob", team="ml", feature="search", duration_ms=500.0)
    said = asked(
        database,
        "SELECT feature, team, SUM(cost_usd), COUNT(*), AVG(duration_ms) FROM token_ledger_events GROUP BY 1, 2",
    )
    assert said == [("search", "ml", 3 * COST, 3, 300.0)]
    days = asked(database, "SELECT date, request_count, total_cost FROM token_ledger_daily_costs ORDER BY date DESC")
    assert sum(count for _, count, _ in days) == 3
    for name in ("daily", "leaderboard", "features", "anomalies"):
        assert command("report", name, SPANLEDGER_LEDGER_URL=database).stdout


KEPT = (
    "timestamp", "provider", "model", "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "duration_ms",
    "status", *FIELDS, "metadata_extra",
)  # fmt: skip


def test_k28_a_call_has_everything_that_is_promised_of_it(database, truth):
    configure(database_url=database)
    patch_openai()
    before = datetime.now(UTC)
    with attribution(**{name: name for name in FIELDS}, extra=1):
        call()
    assert spanledger.flush()
    (row,) = asked(database, f"SELECT {', '.join(KEPT)} FROM token_ledger_events")
    found = dict(zip(KEPT, row, strict=True))
    assert before <= found.pop("timestamp") <= datetime.now(UTC)
    assert found.pop("duration_ms") >= 0
    prompt, completion = billed(truth())[0]
    cached = truth()[0]["usage"]["prompt_tokens_details"]["cached_tokens"]
    pusd = (prompt - cached) * 2_500_000 + cached * 1_250_000 + completion * 10_000_000
    assert found == {
        "provider": "openai", "model": "gpt-4o", "input_tokens": prompt, "output_tokens": completion,
        "cached_tokens": cached, "cost_usd": Decimal(pusd).scaleb(-12), "status": "success",
        **{name: name for name in FIELDS}, "metadata_extra": {"extra": 1},
    }  # fmt: skip


SUPABASE = (
    "postgresql://postgres:a-password@db.abcdefghijklmnop.supabase.co:5432/postgres",
    "postgresql://postgres.abcdefghijklmnop:a-password@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
    "postgres://postgres:a-password@db.abcdefghijklmnop.supabase.co:5432/postgres?sslmode=require&pgbouncer=true",
)


@pytest.mark.parametrize("url", SUPABASE)
def test_k29_the_urls_of_supabase_are_taken_as_they_are(url, said):
    configure(database_url=url)
    assert settings().ledger_url == url
    assert said() == []


def test_k29_the_url_of_the_document_with_its_placeholders_raises_nothing_and_loses_nothing(truth, said):
    configure(database_url="postgresql://postgres:[password]@db.[ref].supabase.co:5432/postgres")
    patch_openai()
    assert call().usage.completion_tokens == 9
    assert not spanledger.flush(2)


def test_k31_flask_takes_whose_it_is_from_headers(patched, ledger):
    app = Flask("app")
    FlaskMiddleware(app)

    @app.post("/chat")
    def chat():
        call()
        return ""

    for headers in (HEADERS, {}):
        assert app.test_client().post("/chat", headers=headers).status_code == 200
    assert ledger("user_id", "feature", "team", "cost_center") == [
        ("ada", "chat", "web", "CC-7"),
        (None, None, None, None),
    ]


def test_k31_django_takes_whose_it_is_from_whatever_says_so(patched, ledger):
    if not django_settings.configured:
        django_settings.configure()
    with override_settings(SPANLEDGER_ATTRIBUTION=lambda request: {"user_id": request.headers["x-user-id"]}):
        serve = attribution_middleware(lambda request: HttpResponse(call().id))
        assert serve(RequestFactory().get("/", headers={"X-User-ID": "ada"})).status_code == 200
    assert ledger("user_id", "input_tokens") == [("ada", 8)]


MAIN = "from spanledger.cli.main import main; main()"
QUICK_START = """
from openai import OpenAI

print(OpenAI().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello!"}]).usage)
"""


def test_k32_the_quick_start_works_with_a_program_that_knows_nothing(tmp_path, home, truth, calls):
    (tmp_path / "app.py").write_text(QUICK_START)
    with in_the_project() as environment:
        run = [sys.executable, "-c", MAIN, "run", "--", sys.executable, "app.py"]
        done = subprocess.run(run, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "total_tokens" in done.stdout
    assert calls() == billed(truth())
    assert "gpt-4o" in command("report", "--by", "feature,model", "--since", "7d").stdout


@contextmanager
def in_the_project():
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    yield {**os.environ, "PYTHONPATH": path}


def test_the_names_are_tokenledgers():
    assert {"configure", "patch_openai", "attribution", "LLMEvent", "get_tracker"} <= {*tokenledger.__all__}
