"""The command as a user types it."""

import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

import spanledger
from spanledger.cli.main import main
from spanledger.ledger.queries import moment, usd
from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import Attribution, Cost, Usage, UsageRecord, record_id_at, row_of

BIN = Path(sys.executable).parent


def command(*arguments, expect=0, **environ):
    done = subprocess.run(
        [BIN / "spanledger", *arguments], env={**os.environ, **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == expect, (done.stdout, done.stderr)
    return done


def record(number, cost, day=1, **more):
    usage = more.pop("usage", Usage(input_tokens=100, output_tokens=10, cache_read_tokens=40, usage_status="reported"))
    status = "unpriced" if cost is None else "priced"
    started = datetime(2026, 11, day, 12, tzinfo=UTC)
    return row_of(
        UsageRecord(
            record_id=record_id_at(int(started.timestamp() * 1e9) + number), started_at=started, operation="chat",
            provider="openai", source="test", request_model="gpt-4o", usage=usage,
            cost=Cost(cost_pusd=cost, cost_status=status), **more,
        )
    )  # fmt: skip


@pytest.fixture
def filled(home):
    home.mkdir(mode=0o700)
    sink = SqliteLedger(home / "ledger.db")
    sink.send(
        [
            record(1, 5 * 10**12, attribution=Attribution(team="a", feature="=cmd")),
            record(2, 7 * 10**18, day=2, attribution=Attribution(team="b")),
            record(3, 7 * 10**18 + 1, day=2, attribution=Attribution(team="b")),
            record(4, None, day=3, usage=Usage(), status="error", error_type="openai.RateLimitError"),
        ]
    )
    sink.close()
    return home


def report(*arguments):
    return json.loads(command("report", "--format", "json", *arguments).stdout)


def test_a_report_is_a_list_of_objects_with_the_names_of_the_contract(filled):
    assert report("--by", "team") == [
        {
            "team": "b", "calls": 2, "input_tokens": 200, "output_tokens": 20, "cache_read_tokens": 80,
            "cache_write_tokens": 0, "reasoning_tokens": 0, "cost_usd": "14000000.000000000001",
            "unpriced_calls": 0, "partial_calls": 0, "incomplete_calls": 0, "failed_calls": 0,
        },
        {
            "team": "a", "calls": 1, "input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 40,
            "cache_write_tokens": 0, "reasoning_tokens": 0, "cost_usd": "5.000000000000",
            "unpriced_calls": 0, "partial_calls": 0, "incomplete_calls": 0, "failed_calls": 0,
        },
        {
            "team": None, "calls": 1, "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0,
            "cache_write_tokens": 0, "reasoning_tokens": 0, "cost_usd": "0.000000000000",
            "unpriced_calls": 1, "partial_calls": 0, "incomplete_calls": 0, "failed_calls": 1,
        },
    ]  # fmt: skip


def test_a_report_can_be_narrowed(filled):
    assert [row["calls"] for row in report("--by", "day")] == [2, 1, 1]
    assert [row["day"] for row in report("--by", "day", "--since", "2026-11-02", "--until", "2026-11-03")] == [
        "2026-11-02"
    ]
    assert [row["team"] for row in report("--by", "team", "--where", "team=a")] == ["a"]
    assert [row["status"] for row in report("--by", "status,model", "--where", "team=")] == ["error"]
    assert report("--by", "team", "--where", "team=nobody") == []


def test_csv_is_safe_to_open_as_a_sheet(filled):
    rows = list(csv.DictReader(io.StringIO(command("report", "--by", "feature", "--format", "csv").stdout)))
    assert [row["feature"] for row in rows] == ["", "'=cmd"]
    assert rows[1]["cost_usd"] == "5.000000000000"


def test_the_table_shows_totals_and_leaves_out_what_is_zero(filled):
    out = command("report", "--by", "team").stdout
    assert "14000005.000000000001" in out
    assert "reasoning" not in out
    assert "unpriced" in out


def test_another_ledger_is_read_by_its_url(filled, tmp_path):
    other = tmp_path / "other.db"
    (filled / "ledger.db").rename(other)
    assert len(report("--by", "team", "--ledger", f"sqlite:///{other}")) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["report", "--by", "colour"], 2, "there is no key 'colour'"),
        (["report", "--since", "yesterday"], 2, "'yesterday' is no point in time"),
        (["report", "--where", "team"], 2, "--where takes KEY=VALUE"),
        (["report", "--ledger", "mysql://x"], 2, "is no ledger URL"),
        (["report", "--ledger", "sqlite:////nowhere/at/all.db"], 1, "there is no ledger at"),
        (["run", "--", "no-such-program"], 2, "there is no command 'no-such-program'"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(filled, arguments, code, said):
    done = command(*arguments, expect=code)
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("spanledger: ")]) == 1
    assert "Traceback" not in done.stderr


def test_no_ledger_yet_says_how_to_get_one(home):
    assert "spanledger run" in command("report", expect=1).stderr


def test_usage_is_what_get_usage_tells(client, tmp_path):
    with spanledger.attribution(feature="search"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    told = spanledger.get_usage(by="feature")
    assert told["by_feature"] == {"search": {"requests": 1, "tokens": 14, "cost": 0.00010125}} != told["by_model"]
    assert json.loads(command("usage", "--by", "feature").stdout) == told
    saved = command("usage", "--by", "feature", "--save", str(tmp_path)).stdout.strip()
    (path,) = tmp_path.glob("usage_report_????????_??????.json")
    assert (saved, json.loads(path.read_text(encoding="utf-8"))) == (str(path), told)


def test_usage_of_nothing_is_zeros_and_a_period_there_is_none_of_is_wrong_use(client):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    spanledger.flush()
    assert json.loads(command("usage", "--until", "2020-01-01").stdout)["total_requests"] == 0
    assert "there is no period 'moon'; there are day, week" in command("usage", "--period", "moon", expect=2).stderr


def test_doctor_is_well_where_everything_is(client):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    client.chat.completions.create(model="gpt-imaginary", messages=[{"role": "user", "content": "Hello"}])
    spanledger.shutdown()
    out = command("doctor").stdout
    assert "FAIL" not in out
    assert "installed, 34 methods watched; usage of streams is asked for: auto" in out
    assert "0 records pending in 0 files" in out
    assert "0 records lost" in out
    assert "2 records, 1 unpriced" in out


DRIFTED = """
import openai.resources.embeddings as module
del module.Embeddings.create
from spanledger.cli.main import main
main(["doctor"])
"""


def test_doctor_fails_loudly_where_a_method_is_gone(home):
    done = subprocess.run([sys.executable, "-c", DRIFTED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "NOT watched: openai.resources.embeddings.Embeddings.create" in done.stdout


def test_doctor_fails_where_records_were_lost_or_are_dead(home):
    home.mkdir(mode=0o700)
    (home / "losses.jsonl").write_text('{"at": 1, "reason": "outbox_full", "count": 12, "pid": 1}\n')
    assert "12 records lost: outbox_full" in command("doctor", expect=1).stdout


def test_doctor_fails_where_the_home_cant_be_used(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    out = command("doctor", expect=1, SPANLEDGER_STATE_DIR=str(tmp_path / "link")).stdout
    assert "symbolic link" in out
    assert "SPANLEDGER_STATE_DIR" in out


def test_points_in_time():
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("7d", now) == datetime(2026, 11, 15, tzinfo=UTC)
    assert moment("2026-11-01", now) == datetime(2026, 11, 1, tzinfo=UTC)
    assert moment("2026-11-01T12:00+02:00", now) == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_money_is_printed_with_all_its_places():
    assert [usd(pico) for pico in (0, 1, 10**12, -1, 123456789012345)] == [
        "0.000000000000", "0.000000000001", "1.000000000000", "-0.000000000001", "123.456789012345",
    ]  # fmt: skip


def test_dead_records_are_tried_again_and_then_gone(home, tmp_path, monkeypatch):
    from spanledger.recording.outbox import Draft, Outbox
    from spanledger.recording.survey import dead

    outbox = Outbox.create(home / "outbox", ["jsonl"], full_sync=True, max_bytes=2**20)
    row = {"record_id": "019b2f3e-5c1a-7d43-9f8e-3a5b1c2d4e6f", "started_at": "2026-11-22T00:00:00.000000+00:00"}
    outbox.append([Draft.of({**row, "cost_status": "unpriced", "provider": "openai"})])
    (entry,) = outbox.waiting("jsonl", 10)
    outbox.bury("jsonl", entry.seq, "HTTP 400", json.dumps(entry.row))
    outbox.taken("jsonl", entry.seq)
    outbox.close()
    monkeypatch.setenv("SPANLEDGER_SINKS", "jsonl")
    monkeypatch.setenv("SPANLEDGER_LEDGER_URL", "none")

    shown = CliRunner().invoke(main, ["outbox", "status"])
    assert (shown.exit_code, "jsonl │       0 │         0 │    1" in shown.output) == (1, True)
    assert "1 records will be tried again" in CliRunner().invoke(main, ["outbox", "dead", "--retry"]).output
    assert CliRunner().invoke(main, ["outbox", "flush"]).output == "Everything is delivered.\n"
    (line,) = (home / "usage.jsonl").read_text().splitlines()
    assert json.loads(line)["record_id"] == row["record_id"]
    assert list(dead(home / "outbox")) == []
    assert CliRunner().invoke(main, ["outbox", "status"]).exit_code == 0
