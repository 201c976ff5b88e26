"""`spanledger reprice` as a user types it."""

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import Attribution, Cost, Usage, UsageRecord, record_id_at, row_of

BIN = Path(sys.executable).parent
PRICES = """
version: 1
models:
  - provider: openai
    match: gpt-4o
    prices: [{input_mtok: "1", cache_read_mtok: "0.5", output_mtok: "2"}]
"""
# 60 tokens in, 40 from the cache, 10 out: 60 + 20 + 20 micro-USD.
NEW = "0.000100000000"
USAGE = Usage(input_tokens=100, output_tokens=10, cache_read_tokens=40, usage_status="reported")


def command(*arguments, expect=0, **environ):
    done = subprocess.run(
        [BIN / "spanledger", *arguments], env={**os.environ, **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == expect, (done.stdout, done.stderr)
    return done


def record(number, cost, day=1, **more):
    started = datetime(2026, 11, day, 12, tzinfo=UTC)
    more.setdefault("request_model", "gpt-4o")
    return row_of(
        UsageRecord(
            record_id=record_id_at(int(started.timestamp() * 1e9) + number), started_at=started, operation="chat",
            provider="openai", source="test", usage=USAGE, cost=cost, **more,
        )
    )  # fmt: skip


def local(pusd):
    return Cost(pusd, {"input": pusd}, "USD", "local", "priced", "an old list")


@pytest.fixture
def filled(home, tmp_path, monkeypatch):
    """Five calls: an old price, one that counts thrice, none, the provider's own, and the price there is today."""
    home.mkdir(mode=0o700)
    (tmp_path / "prices.yaml").write_text(PRICES)
    monkeypatch.setenv("SPANLEDGER_PRICES", str(tmp_path / "prices.yaml"))
    sink = SqliteLedger(home / "ledger.db")
    sink.send(
        [
            record(1, local(400_000_000), attribution=Attribution(team="a")),
            record(2, local(50_000_000), day=2, weight=3, attribution=Attribution(team="b")),
            record(3, Cost(), day=3),
            record(4, Cost(7, {"stated": 7}, "USD", "provider", "priced"), day=3),
            record(5, local(100_000_000), day=4),
        ]
    )
    sink.close()
    return home


def asked(*arguments):
    return json.loads(command("reprice", "--format", "json", *arguments).stdout)


def contents(home):
    connection = sqlite3.connect(home / "ledger.db")
    try:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("usage_records", "cost_adjustments")
        ]
    finally:
        connection.close()


def total():
    (found,) = json.loads(command("report", "--format", "json", "--by", "provider").stdout)
    return found["cost_usd"], found["unpriced_calls"]


def test_without_apply_it_tells_and_changes_nothing(filled):
    before = contents(filled)
    out = command("reprice").stdout
    assert "5 calls looked at. Nothing was changed; --apply writes the adjustments." in out
    assert "unpriced → priced" in out
    assert "0.000550000000" in out  # what 1 + 3 calls cost by the ledger
    assert "-0.000050000000" in out  # and the difference to 5 calls at today's price
    found = asked()
    assert found == {
        "looked_at": 5,
        "adjustments_written": None,
        "calls": 5,
        "old_cost_usd": "0.000550000000",
        "new_cost_usd": "0.000500000000",
        "difference_usd": "-0.000050000000",
        "by_model": [
            {
                "provider": "openai", "model": "gpt-4o", "old_status": "unpriced", "new_status": "priced",
                "calls": 1, "old_cost_usd": "0.000000000000", "new_cost_usd": NEW, "difference_usd": NEW,
            },
            {
                "provider": "openai", "model": "gpt-4o", "old_status": "priced", "new_status": "priced",
                "calls": 4, "old_cost_usd": "0.000550000000", "new_cost_usd": "0.000400000000",
                "difference_usd": "-0.000150000000",
            },
        ][::-1],
    }  # fmt: skip
    assert contents(filled) == before
    assert before[1] == []


def test_apply_writes_once_and_reports_show_it(filled):
    records, _ = contents(filled)
    assert total() == ("0.000650000007", 1)
    assert "5 calls looked at, 3 adjustments written." in command("reprice", "--apply").stdout
    assert total() == ("0.000600000007", 0)
    after, adjusted = contents(filled)
    assert after == records
    assert len(adjusted) == 3
    assert "5 calls looked at: all cost what the ledger says" in command("reprice", "--apply").stdout
    again = asked("--apply")
    assert (again["looked_at"], again["adjustments_written"], again["calls"], again["by_model"]) == (5, 0, 0, [])
    assert contents(filled) == [records, adjusted]


def test_a_price_that_comes_back_is_adjusted_back(filled, tmp_path):
    assert asked("--apply")["adjustments_written"] == 3
    (tmp_path / "prices.yaml").write_text(PRICES.replace('"1"', '"2"'))
    assert asked("--apply")["adjustments_written"] == 4
    (tmp_path / "prices.yaml").write_text(PRICES)
    assert asked("--apply")["adjustments_written"] == 4
    assert total() == ("0.000600000007", 0)
    numbers = [row[1] for row in contents(filled)[1]]
    assert sorted(numbers) == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "looked_at", "written", "cost"),
    [
        (["--since", "2026-11-02"], 4, 2, "0.000900000007"),
        (["--until", "2026-11-02"], 1, 1, "0.000350000007"),
        (["--since", "2026-11-02", "--until", "2026-11-03"], 1, 1, "0.000800000007"),
        (["--where", "team=b"], 1, 1, "0.000800000007"),
        (["--where", "team="], 3, 1, "0.000750000007"),
        (["--where", "model=gpt-4o", "--where", "team=a"], 1, 1, "0.000350000007"),
        (["--where", "team=nobody"], 0, 0, "0.000650000007"),
    ],
)
def test_only_the_calls_asked_for_are_priced_again(filled, arguments, looked_at, written, cost):
    found = asked("--apply", *arguments)
    assert (found["looked_at"], found["adjustments_written"]) == (looked_at, written)
    assert total()[0] == cost


def test_another_ledger_is_named_by_its_url(filled, tmp_path):
    other = tmp_path / "other.db"
    (filled / "ledger.db").rename(other)
    assert asked("--apply", "--ledger", f"sqlite:///{other}")["adjustments_written"] == 3
    assert not (filled / "ledger.db").exists()


def one_line(done):
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("spanledger: ")
    return line


@pytest.mark.parametrize(
    "text", ["version: 1\nmodels: [{provider: openai, match: gpt-4o, prices: [{input_mtok: -1}]}]\n", "a: [", "{}\n"]
)
def test_a_price_file_that_cant_be_used_is_an_error_and_changes_nothing(filled, tmp_path, text):
    before = contents(filled)
    (tmp_path / "prices.yaml").write_text(text)
    assert "prices.yaml" in one_line(command("reprice", "--apply", expect=1))
    assert contents(filled) == before


def test_a_price_file_that_is_not_there_is_an_error_too(filled, tmp_path):
    before = contents(filled)
    (tmp_path / "prices.yaml").unlink()
    assert "prices.yaml" in one_line(command("reprice", "--apply", expect=1))
    assert contents(filled) == before


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        ([], {}, 1, "there is no ledger at"),
        (["--apply"], {}, 1, "there is no ledger at"),
        (["--apply"], {"SPANLEDGER_LEDGER_URL": "none"}, 2, "the ledger is switched off"),
        (["--since", "yesterday"], {}, 2, "'yesterday' is no point in time"),
        (["--where", "team"], {}, 2, "--where takes KEY=VALUE"),
        (["--ledger", "sqlite:////nowhere/at/all.db"], {}, 1, "there is no ledger at"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(home, arguments, environ, code, said):
    assert said in one_line(command("reprice", *arguments, expect=code, **environ))
    assert not (home / "ledger.db").exists()


def test_an_unknown_key_is_named(filled):
    assert "there is no key 'colour'" in one_line(command("reprice", "--where", "colour=red", expect=2))


def test_a_ledger_that_cant_be_written_says_so(filled):
    before = contents(filled)
    blocker = sqlite3.connect(filled / "ledger.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        line = one_line(command("reprice", "--apply", expect=1))
    finally:
        blocker.close()
    assert "the ledger can't be written" in line
    assert "0 adjustments are in it" in line
    assert contents(filled) == before


def test_a_ledger_of_the_first_version_that_nobody_has_written_since_is_brought_up_to_date(home):
    home.mkdir()
    connection = sqlite3.connect(home / "ledger.db", isolation_level=None)
    script = Path(sys.modules["spanledger.ledger.sqlite"].__file__).with_name("schema_sqlite.sql")
    for statement in script.read_text(encoding="utf-8").split("\n--;\n"):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert json.loads(command("report", "--format", "json").stdout) == []
    assert json.loads(command("reprice", "--format", "json").stdout)["looked_at"] == 0
