"""`spanledger export` from either ledger: every record once, as it is, in every format."""

import csv
import io
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.postgresql.records import NOON, asked, bare, command, put, row, sink_at

from spanledger.ledger import books
from spanledger.ledger.exporting import EXPORTED, INTEGERS, PAGE, TIMES, pages
from spanledger.ledger.repricing import Adjustment, apply
from spanledger.model import AS_JSON, COLUMNS, Attribution, Cost, Usage, record_id_at

LATER = NOON + timedelta(seconds=9)


def local(pusd):
    return Cost(pusd, {"input": pusd}, "USD", "local", "priced", "an old list")


def exported(url, *arguments):
    return command("export", "--ledger", url, *arguments).stdout_bytes.decode()  # `stdout` has other line ends


def lines(url, *arguments):
    return [json.loads(line) for line in exported(url, "--format", "jsonl", *arguments).splitlines()]


def table(url, to, *arguments):
    command("export", "--ledger", url, "--format", "parquet", "--output", to, *arguments)
    return parquet.read_table(to)


def reprice(url, record_id, cost, old=None):
    sink = sink_at(url)
    made = Adjustment(
        record_id=record_id, provider="openai", model="gpt-4o", weight=1, old_pusd=old, old_status="unpriced", cost=cost
    )
    try:
        assert apply(sink, [made]) == 1
    finally:
        sink.close()


FULL = {
    **dict.fromkeys(EXPORTED),
    "record_id": "0199", "started_at": (NOON + timedelta(seconds=1)).isoformat(timespec="microseconds"),
    "operation": "chat", "provider": "openai", "source": "test", "trace_id": "1" * 32, "request_model": "gpt-4o",
    "stream": 1, "finish_reasons": ["stop"], "status": "success", "weight": 2, "duration_ms": 120,
    "raw_usage": {"prompt_tokens": 10, "details": {"cached": 0}}, "input_tokens": 10, "output_tokens": 0,
    "usage_status": "reported", "cost_pusd": 1, "cost_breakdown": {"input": 1}, "currency": "USD",
    "cost_source": "local", "cost_status": "priced", "price_basis": "an old list", "user_id": "Zoë 🦉",
    "feature": "=cmd|' /C calc'!A0", "metadata": {"page": "/ü", "n": 1.5}, "attribution_source": "scope",
    "current_cost_pusd": 1, "current_cost_breakdown": {"input": 1}, "current_cost_status": "priced",
    "current_cost_source": "local", "current_price_basis": "an old list", "cost_usd": "0.000000000001",
}  # fmt: skip
"""A call that cost one pico-USD, as JSON has it."""


@pytest.fixture
def full(url):
    made = row(
        1, cost=local(1), weight=2, stream=True, finish_reasons=("stop",), trace_id="1" * 32,
        usage=Usage(input_tokens=10, output_tokens=0, usage_status="reported"),
        raw_usage={"prompt_tokens": 10, "details": {"cached": 0}},
        attribution=Attribution(user_id="Zoë 🦉", feature="=cmd|' /C calc'!A0", metadata={"page": "/ü", "n": 1.5}),
    )  # fmt: skip
    put(url, [{**made, "record_id": FULL["record_id"]}])
    return url


def test_a_record_in_json_lines_is_the_whole_row(full):
    (found,) = lines(full)
    assert datetime.fromisoformat(found.pop("recorded_at")).tzinfo is not None
    assert found == {name: value for name, value in FULL.items() if name != "recorded_at"}
    assert list(found) == [name for name in EXPORTED if name != "recorded_at"]


def test_json_is_a_list_of_the_same_objects(full):
    put(full, [bare(2, started_at=LATER.isoformat(timespec="microseconds"))])
    assert json.loads(exported(full, "--format", "json")) == lines(full)
    assert len(lines(full)) == 2


def test_csv_has_texts_that_no_spreadsheet_takes_for_formulas(full):
    (found,) = csv.DictReader(io.StringIO(exported(full), newline=""))
    assert list(found) == list(EXPORTED)
    assert found["feature"] == "'=cmd|' /C calc'!A0"
    assert found["user_id"] == "Zoë 🦉"
    for name in AS_JSON:
        assert (json.loads(found[name]) if found[name] else None) == FULL[name]
    texts = {name: "" if value is None else str(value) for name, value in FULL.items()}
    left_out = {"recorded_at", "feature", "current_cost_breakdown", *AS_JSON}
    assert {name: found[name] for name in set(EXPORTED) - left_out} == {
        name: texts[name] for name in set(EXPORTED) - left_out
    }


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_every_beginning_of_a_formula_gets_an_apostrophe_in_csv_alone(url, text):
    put(url, [bare(1, team=text, cost_pusd=0)])
    assert exported(url, "--columns", "team,cost_usd").startswith("team,cost_usd\r\n")
    ((_, found),) = [("", each) for each in csv.DictReader(io.StringIO(exported(url), newline=""))]
    assert found["team"] == f"'{text}"
    assert lines(url, "--columns", "team") == [{"team": text}]


def test_a_negative_amount_stays_a_number(url):
    put(url, [bare(1, cost_pusd=-(10**12), cost_status="priced", cost_source="manual")])
    assert (
        exported(url, "--columns", "cost_pusd,cost_usd") == "cost_pusd,cost_usd\r\n-1000000000000,-1.000000000000\r\n"
    )


def test_unpriced_is_not_zero_in_any_format(url, tmp_path):
    put(url, [bare(1), bare(2, cost_pusd=0, cost_status="free", input_tokens=0)])
    asked_for = ("--columns", "cost_usd,input_tokens")
    assert exported(url, *asked_for) == "cost_usd,input_tokens\r\n,\r\n0.000000000000,0\r\n"
    expected = [
        {"cost_usd": None, "input_tokens": None}, {"cost_usd": "0.000000000000", "input_tokens": 0},
    ]  # fmt: skip
    assert lines(url, *asked_for) == expected
    assert table(url, tmp_path / "x.parquet", *asked_for).to_pylist() == [
        expected[0], {"cost_usd": Decimal(0), "input_tokens": 0},
    ]  # fmt: skip


def test_parquet_has_types_that_keep_every_digit(full, tmp_path):
    put(full, [bare(2, started_at=LATER.isoformat(timespec="microseconds"), cost_pusd=2**63 - 1)])
    found = table(full, tmp_path / "usage.parquet")
    assert found.schema.names == list(EXPORTED)
    assert {each.name for each in found.schema if each.type == pa.int64()} == INTEGERS
    assert {each.name for each in found.schema if each.type == pa.timestamp("us", tz="UTC")} == TIMES
    assert found.schema.field("cost_usd").type == pa.decimal128(38, 12)
    first, second = found.to_pylist()
    assert first["started_at"] == NOON + timedelta(seconds=1)
    assert (first["cost_usd"], second["cost_usd"]) == (Decimal("0.000000000001"), Decimal("9223372.036854775807"))
    assert {name: json.loads(first[name]) for name in AS_JSON if first[name]} == {
        name: FULL[name] for name in AS_JSON if FULL[name]
    }
    assert (first["user_id"], second["user_id"]) == ("Zoë 🦉", None)


def test_integers_are_those_of_the_schema(tmp_path):
    url = f"sqlite:///{tmp_path}/l/ledger.db"
    put(url, [bare(1)])
    columns = asked(url, "PRAGMA table_info(current_costs)")
    assert {name for _, name, kind, *_ in columns if kind == "INTEGER"} | {"current_cost_pusd"} == INTEGERS
    assert {name for _, name, *_ in columns} | {"cost_usd"} == set(EXPORTED)


def test_a_call_that_was_priced_again_has_both_costs_and_costs_the_current_one(url):
    unpriced = row(1, cost=Cost())
    put(url, [unpriced, row(2, cost=local(5))])
    reprice(url, unpriced["record_id"], local(3)._replace(price_basis="a new list"))
    names = "cost_usd,current_cost_pusd,current_cost_status,current_price_basis,cost_pusd,cost_status"
    assert [tuple(each.values()) for each in lines(url, "--columns", names)] == [
        ("0.000000000003", 3, "priced", "a new list", None, "unpriced"),
        ("0.000000000005", 5, "priced", "an old list", 5, "priced"),
    ]
    adjusted = [each["adjusted_at"] for each in lines(url, "--columns", "adjusted_at")]
    assert adjusted[0].startswith(f"{datetime.now(UTC):%Y-}")
    assert adjusted[1] is None


def test_rows_stand_in_the_order_of_their_start_and_no_page_loses_one(url):
    rows = [row(number % 7, usage=Usage(input_tokens=number)) for number in range(2 * PAGE + 3)]
    put(url, [{**each, "record_id": record_id_at(number * 10**6)} for number, each in enumerate(rows)])
    found = lines(url, "--columns", "started_at,record_id,input_tokens")
    assert len(found) == len(rows)
    assert found == sorted(found, key=lambda each: (each["started_at"], each["record_id"]))
    assert sorted(each["input_tokens"] for each in found) == list(range(len(rows)))
    some = lines(url, "--columns", "input_tokens", "--since", (NOON + timedelta(seconds=3)).isoformat(),
                 "--until", (NOON + timedelta(seconds=4)).isoformat(), "--where", "provider=openai")  # fmt: skip
    assert [each["input_tokens"] for each in some] == list(range(3, len(rows), 7))


def test_a_ledger_is_asked_twice_over_one_connection(url):
    put(url, [row(1), row(2)])
    with books.reading(url) as connection:
        for _ in range(2):
            assert [len(page) for page in pages(connection, ("record_id",))] == [2]
            assert [len(page) for page in pages(connection, ("record_id",), where={"user_id": None})] == [2]
            assert list(pages(connection, ("record_id",), where={"user_id": "nobody"})) == []


def test_memory_does_not_grow_with_the_ledger(url):
    """What Python holds at most of 20,000 rows of 1 KB; those of the other kind of ledger are in tests/cli."""
    names = ", ".join((*COLUMNS, "recorded_at"))
    put(url, [{**row(1, attribution=Attribution(metadata={"page": "x" * 500})), "record_id": "0"}])
    others = names.replace("record_id", "'made-' || i")
    series = "generate_series(1, 20000) AS n(i)"
    if url.startswith("sqlite"):
        series = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n)"
    sink = sink_at(url)
    sink.write(
        lambda connection: connection.execute(
            f"INSERT INTO usage_records ({names}) SELECT {others} FROM usage_records, {series}"
        )
    )
    sink.close()
    with books.reading(url) as connection:
        tracemalloc.start()
        try:
            assert sum(len(page) for page in pages(connection, EXPORTED)) == 20_001
            assert tracemalloc.get_traced_memory()[1] < 15_000_000
        finally:
            tracemalloc.stop()


def test_lone_surrogates_and_line_ends_break_no_format(url, tmp_path):
    put(url, [row(1, attribution=Attribution(user_id="a\ud800b", team='x"\r\ny,', metadata={"k": "\udfff", "z": "é"}))])
    (found,) = lines(url, "--columns", "user_id,team,metadata")
    lone = found["metadata"].pop("k")
    assert found == {"user_id": "a\ufffdb", "team": 'x"\r\ny,', "metadata": {"z": "é"}}
    assert lone in ("\udfff", "\ufffd")
    (sheet,) = csv.DictReader(io.StringIO(exported(url), newline=""))
    assert (sheet["user_id"], sheet["team"]) == ("a\ufffdb", 'x"\r\ny,')
    (row_,) = table(url, tmp_path / "x.parquet", "--columns", "user_id,team").to_pylist()
    assert row_ == {"user_id": "a\ufffdb", "team": 'x"\r\ny,'}


def test_an_empty_ledger_is_an_empty_file_of_its_format(url, tmp_path):
    put(url, [bare(1)])
    nothing = ("--where", "team=nobody", "--columns", "record_id,cost_usd")
    assert exported(url, *nothing) == "record_id,cost_usd\r\n"
    assert exported(url, "--format", "json", *nothing) == "[]\n"
    assert exported(url, "--format", "jsonl", *nothing) == ""
    found = table(url, tmp_path / "x.parquet", *nothing)
    assert (found.num_rows, found.schema.names) == (0, ["record_id", "cost_usd"])


def test_an_unknown_key_or_column_is_one_line(url):
    put(url, [bare(1)])
    done = command("export", "--ledger", url, "--where", "colour=red", expect=2)
    assert done.stderr.startswith("spanledger: there is no key 'colour'; there are provider, ")
    done = command("export", "--ledger", url, "--columns", "cost_usd,colour", expect=2)
    assert done.stderr.startswith("spanledger: there is no column 'colour'; there are record_id, ")
    assert len(done.stderr.splitlines()) == 1


def test_no_ledger_yet_is_said_and_makes_no_file(url, tmp_path):
    done = command("export", "--ledger", url, "--output", tmp_path / "usage.csv", expect=1)
    assert done.stderr.startswith("spanledger: there is no ledger ")
    assert list(tmp_path.glob("*usage*")) == list(tmp_path.glob(".spanledger-*")) == []
