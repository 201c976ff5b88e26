"""Pricing calls again: what is found, what is written, and that what was recorded stays."""

import json
import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from spanledger.ledger import repricing
from spanledger.ledger.queries import report
from spanledger.ledger.repricing import adjustments, apply
from spanledger.ledger.sqlite import MIGRATIONS, SqliteLedger, open_for_reading
from spanledger.model import UNPRICED, Attribution, Cost, Usage, UsageRecord, record_id_at, row_of
from spanledger.pricing.book import PriceBook
from spanledger.pricing.completion import price_of_row
from spanledger.recording.sink import SinkError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def local(pusd, status="priced", basis="list"):
    return Cost(pusd, {"input": pusd} if pusd else {}, "USD", "local", status, basis)


OLD, NEW = local(1_500_000, basis="old list"), local(2_000_000, basis="new list")


def row(number=0, cost=OLD, **more):
    more.setdefault("usage", Usage(input_tokens=10, output_tokens=5, usage_status="reported"))
    more.setdefault("provider", "openai")
    return row_of(
        UsageRecord(
            record_id=record_id_at(int(NOON.timestamp()) * 10**9 + number * 10**9),
            started_at=NOON + timedelta(seconds=number), operation="chat", source="test", request_model="gpt-4o",
            response_id=str(number), cost=cost, **more,
        )
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def sink(path):
    made = SqliteLedger(path)
    yield made
    made.close()


def found(path, price, **bounds):
    connection = open_for_reading(path)
    try:
        return list(adjustments(connection, price, **bounds))
    finally:
        connection.close()


def always(cost):
    return lambda _: cost


def rows(path, statement):
    connection = open_for_reading(path)
    try:
        return [tuple(each) for each in connection.execute(statement)]
    finally:
        connection.close()


def totals(path, *by):
    connection = open_for_reading(path)
    try:
        return report(connection, list(by))
    finally:
        connection.close()


CURRENT = "SELECT current_cost_pusd, current_cost_status, current_cost_source, current_price_basis FROM current_costs"


def test_a_call_that_had_no_price_gets_one(path, sink):
    sink.send([row(cost=Cost())])
    (each,) = found(path, always(NEW))
    assert (each.provider, each.model, each.weight) == ("openai", "gpt-4o", 1)
    assert (each.old_pusd, each.old_status, each.cost) == (None, "unpriced", NEW)
    assert apply(sink, [each]) == 1
    assert rows(path, CURRENT) == [(2_000_000, "priced", "local", "new list")]
    assert rows(path, "SELECT current_cost_breakdown FROM current_costs") == [('{"input":2000000}',)]


def test_the_price_book_gives_an_unpriced_row_its_price_exactly(path, sink):
    sink.send([row(cost=Cost())])
    book = PriceBook(fixups=False)
    (each,) = found(path, lambda row: price_of_row(book, row))
    apply(sink, [each])
    assert rows(path, CURRENT) == [(10 * 2_500_000 + 5 * 10_000_000, "priced", "local", book.basis)]
    assert found(path, lambda row: price_of_row(book, row)) == []


def test_another_price_is_an_adjustment_and_keeps_the_old_one_beside_it(path, sink):
    sink.send([row()])
    assert apply(sink, found(path, always(NEW._replace(price_multipliers={"contract": "0.9"})))) == 1
    what = "number, old_cost_pusd, old_cost_status, old_price_basis, cost_pusd, cost_status, cost_source, price_basis"
    assert rows(path, f"SELECT {what}, cost_breakdown, price_multipliers FROM cost_adjustments") == [
        (1, 1_500_000, "priced", "old list", 2_000_000, "priced", "local", "new list",
         '{"input":2000000}', '{"contract":"0.9"}')
    ]  # fmt: skip


def test_the_same_price_is_nothing_whatever_list_it_is_from(path, sink):
    sink.send([row()])
    assert found(path, always(OLD._replace(price_basis="another list", cost_breakdown={"output": 1_500_000}))) == []


def test_another_status_alone_is_an_adjustment(path, sink):
    sink.send([row()])
    (each,) = found(path, always(OLD._replace(cost_status="partial")))
    assert (each.old_pusd, each.old_status, each.cost.cost_status) == (1_500_000, "priced", "partial")
    assert apply(sink, [each]) == 1
    assert rows(path, CURRENT)[0][:2] == (1_500_000, "partial")
    assert totals(path)[0]["partial_calls"] == 1


@pytest.mark.parametrize("source", ["provider", "manual"])
def test_what_somebody_stated_stands(path, sink, source):
    sink.send([row(1, OLD._replace(cost_source=source)), row(2)])
    assert [each.old_status for each in found(path, always(NEW))] == ["priced"]
    assert apply(sink, found(path, always(NEW))) == 1
    assert rows(path, f"{CURRENT} ORDER BY started_at") == [
        (1_500_000, "priced", source, "old list"),
        (2_000_000, "priced", "local", "new list"),
    ]


def test_nothing_and_unknown_are_two_things(path, sink):
    free = local(0, "free")
    sink.send([row(1, Cost()), row(2, free)])
    assert [(each.old_pusd, each.cost.cost_pusd) for each in found(path, always(free))] == [(None, 0)]
    assert [(each.old_pusd, each.cost.cost_pusd) for each in found(path, always(UNPRICED))] == [(0, None)]
    zero, unknown = local(0), Cost(None, None, None, "none", "priced")  # the same status: only the amount tells
    sink.send([row(3, zero)])
    assert apply(sink, [each for each in found(path, always(unknown)) if each.old_status == "priced"]) == 1
    assert apply(sink, [each for each in found(path, always(zero)) if each.old_status == "priced"]) == 1
    assert rows(path, "SELECT number, old_cost_pusd, cost_pusd FROM cost_adjustments ORDER BY number") == [
        (1, 0, None),
        (2, None, 0),
    ]


def test_a_price_that_has_gone_leaves_the_call_unpriced(path, sink):
    sink.send([row()])
    assert apply(sink, found(path, always(UNPRICED))) == 1
    assert rows(path, CURRENT) == [(None, "unpriced", "none", None)]
    assert rows(path, "SELECT current_cost_breakdown FROM current_costs") == [(None,)]
    assert rows(path, "SELECT cost_usd FROM token_ledger_events") == [(None,)]
    (total,) = totals(path)
    assert (total["cost_usd"], total["unpriced_calls"]) == ("0.000000000000", 1)
    assert apply(sink, found(path, always(OLD))) == 1  # it is ours to price again
    assert rows(path, CURRENT)[0][0] == 1_500_000


def test_the_weight_of_a_call_is_that_of_its_adjustment(path, sink):
    sink.send([row(weight=3)])
    (each,) = found(path, always(NEW))
    assert each.weight == 3
    apply(sink, [each])
    (total,) = totals(path)
    assert (total["calls"], total["cost_usd"]) == (3, "0.000006000000")


def test_only_the_calls_asked_for_are_looked_at(path, sink):
    teams = ("a", "b", None, "a")
    sink.send([row(number, attribution=Attribution(team=team)) for number, team in enumerate(teams)])

    def numbers(**bounds):
        looked = []
        changed = found(path, lambda row: looked.append(int(row["response_id"])) or NEW, **bounds)
        assert len(changed) == len(looked)
        return sorted(looked)

    def after(seconds):
        return NOON + timedelta(seconds=seconds)

    assert numbers() == [0, 1, 2, 3]
    assert numbers(since=after(1)) == [1, 2, 3]
    assert numbers(until=after(1)) == [0]
    assert numbers(since=after(1), until=after(3)) == [1, 2]
    assert numbers(where={"team": "a"}) == [0, 3]
    assert numbers(where={"team": None}) == [2]
    assert numbers(since=after(1), where={"team": "a", "model": "gpt-4o"}) == [3]
    assert numbers(where={"provider": "anthropic"}) == []
    with pytest.raises(ValueError, match="no key 'colour'"):
        numbers(where={"colour": "red"})


def test_the_row_stays_as_it_was_recorded(path, sink):
    sink.send([row(1), row(2, Cost())])
    before = rows(path, "SELECT * FROM usage_records ORDER BY record_id")
    assert apply(sink, found(path, always(NEW))) == 2
    assert rows(path, "SELECT * FROM usage_records ORDER BY record_id") == before


def test_finding_writes_nothing(path, sink):
    sink.send([row()])
    assert len(found(path, always(NEW))) == 1
    assert rows(path, "SELECT count(*) FROM cost_adjustments") == [(0,)]
    assert rows(path, CURRENT)[0][0] == 1_500_000


def test_reports_and_views_show_the_adjusted_amount(path, sink):
    owner = Attribution(team="a", user_id="ada", cost_center="c1")
    sink.send([row(1, attribution=owner), row(2, Cost(), attribution=owner), row(3, NEW, attribution=owner)])
    assert totals(path, "team")[0]["cost_usd"] == "0.000003500000"
    assert apply(sink, found(path, always(NEW))) == 2
    (total,) = totals(path, "team", "model")
    assert (total["cost_usd"], total["unpriced_calls"]) == ("0.000006000000", 0)
    assert rows(path, "SELECT cost_usd FROM token_ledger_events") == [(2e-06,)] * 3
    for view in ("daily_costs", "user_costs", "team_costs", "cost_center_costs"):
        assert rows(path, f"SELECT request_count, total_cost FROM token_ledger_{view}") == [(3, pytest.approx(6e-06))]
    adjusted = rows(path, "SELECT adjusted_at IS NULL FROM current_costs ORDER BY started_at")
    assert adjusted == [(0,), (0,), (1,)]


def test_applying_twice_writes_nothing_the_second_time(path, sink):
    sink.send([row(1), row(2, Cost())])
    both = found(path, always(NEW))
    assert apply(sink, both) == 2
    assert apply(sink, both) == 0
    assert found(path, always(NEW)) == []
    assert apply(sink, []) == 0
    assert rows(path, "SELECT count(*) FROM cost_adjustments") == [(2,)]


def test_there_and_back_are_two_adjustments(path, sink):
    sink.send([row()])
    for cost in (NEW, OLD):
        assert apply(sink, found(path, always(cost))) == 1
    what = "number, old_cost_pusd, cost_pusd, old_price_basis, price_basis"
    assert rows(path, f"SELECT {what} FROM cost_adjustments ORDER BY number") == [
        (1, 1_500_000, 2_000_000, "old list", "new list"),
        (2, 2_000_000, 1_500_000, "new list", "old list"),
    ]
    assert rows(path, CURRENT)[0][0] == 1_500_000
    assert len(rows(path, "SELECT record_id FROM current_costs")) == 1


def test_two_writers_with_the_same_list_write_it_once(path, sink):
    sink.send([row(number) for number in range(300)])
    changed = found(path, always(NEW))
    barrier, written = threading.Barrier(2), []

    def write():
        own = SqliteLedger(path)
        barrier.wait()
        written.extend(apply(own, changed[start : start + 10]) for start in range(0, 300, 10))
        own.close()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written) == 300
    assert len(written) == 60
    assert rows(path, "SELECT count(*), count(DISTINCT record_id), max(number) FROM cost_adjustments") == [
        (300, 300, 1)
    ]


def test_an_adjustment_of_a_row_that_is_not_there_writes_nothing(path, sink, tmp_path):
    sink.send([row()])
    elsewhere = SqliteLedger(tmp_path / "elsewhere.db")
    elsewhere.send([row(9)])
    assert apply(elsewhere, found(path, always(NEW))) == 0
    elsewhere.close()


def test_a_list_is_written_whole_or_not_at_all(path, sink):
    sink.send([row(1), row(2)])
    good, bad = found(path, always(NEW))
    with pytest.raises(SinkError):
        apply(sink, [good, replace(bad, cost=NEW._replace(cost_source=None))])
    assert rows(path, "SELECT count(*) FROM cost_adjustments") == [(0,)]
    assert apply(sink, [good, bad]) == 2


@pytest.mark.parametrize("count", [1, 3, 6, 8])
def test_every_row_is_looked_at_once_however_many_there_are(path, sink, monkeypatch, count):
    monkeypatch.setattr(repricing, "BATCH", 3)
    sink.send([row(number) for number in range(count)])
    looked, batches = [], []
    changed = found(path, lambda row: looked.append(row["record_id"]) or NEW, seen=batches.append)
    assert len(changed) == len(set(looked)) == len(looked) == count
    assert sum(batches) == count
    assert max(batches) <= 3


def test_applying_while_reading_loses_and_doubles_nothing(path, sink, monkeypatch):
    monkeypatch.setattr(repricing, "BATCH", 3)
    sink.send([row(number) for number in range(10)])
    connection = open_for_reading(path)
    assert sum(apply(sink, [each]) for each in adjustments(connection, always(NEW))) == 10
    connection.close()
    assert rows(path, "SELECT count(*), max(number) FROM cost_adjustments") == [(10, 1)]


def test_a_call_is_still_completed_after_its_adjustment(path, sink):
    first = row(status="incomplete", cost=Cost(), usage=Usage())
    sink.send([first])
    assert found(path, lambda row: price_of_row(PriceBook(fixups=False), row)) == []  # nothing to price yet
    done = row()
    sink.send([{**done, "record_id": first["record_id"]}])
    assert rows(path, CURRENT)[0][:2] == (1_500_000, "priced")


def of_version_1(path, **more):
    """A ledger as the first version made it, with one row."""
    connection = sqlite3.connect(path)
    script = resources.files("spanledger.ledger").joinpath(MIGRATIONS[0]).read_text(encoding="utf-8")
    for statement in script.split("\n--;\n"):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    known = {each[1] for each in connection.execute("PRAGMA table_info(usage_records)")}
    values = {name: value for name, value in {**row(**more), "recorded_at": "2026"}.items() if name in known}
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO usage_records ({', '.join(values)}) VALUES ({marks})", values)
    connection.commit()
    kept = dict(
        zip(values, connection.execute(f"SELECT {', '.join(values)} FROM usage_records").fetchone(), strict=True)
    )
    connection.close()
    return kept


def test_a_ledger_of_the_first_version_is_migrated_and_keeps_its_row(path, sink):
    kept = of_version_1(path, attribution=Attribution(team="a", metadata={"page": "/home"}), weight=2)
    sink.send([row(7)])
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert rows(path, f"SELECT {', '.join(kept)} FROM usage_records WHERE response_id = '0'") == [tuple(kept.values())]
    new = "price_context, price_multipliers, local_cost_pusd, usage_shape"
    assert rows(path, f"SELECT {new} FROM usage_records WHERE response_id = '0'") == [(None,) * 4]
    (total,) = totals(path)
    assert (total["calls"], total["cost_usd"]) == (3, "0.000004500000")


def test_a_row_of_the_first_version_can_be_priced_again(path, sink):
    of_version_1(path, cost=Cost(), service_tier="default")
    sink.send([row(7)])
    book = PriceBook(fixups=False)
    changed = found(path, lambda row: price_of_row(book, row), where={"status": "success"})
    assert [(each.old_pusd, each.cost.cost_pusd) for each in changed] == [(None, 75_000_000), (1_500_000, 75_000_000)]
    assert apply(sink, changed) == 2
    assert json.loads(rows(path, "SELECT current_cost_breakdown FROM current_costs")[0][0]).keys() == {
        "input",
        "output",
    }
    assert rows(path, "SELECT sum(total_cost) FROM token_ledger_daily_costs") == [(pytest.approx(150e-6),)]
