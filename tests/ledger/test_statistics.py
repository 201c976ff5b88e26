"""`get_usage`: its periods, what there is none of, and how SQLite answers it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.postgresql.records import put, sink_at
from tests.postgresql.test_statistics import NOTHING, NOW, made, plain

import spanledger
from spanledger.ledger.asking import usage
from spanledger.ledger.books import reading
from spanledger.ledger.repricing import Adjustment, apply
from spanledger.ledger.sqlite import open_for_reading
from spanledger.ledger.statistics import PERIODS, current_period, statistics
from spanledger.model import UNPRICED

# Periods.


@pytest.mark.parametrize(
    ("now", "period", "zone", "begins", "ends"),
    [
        ("2026-03-29T12:00Z", "day", "UTC", "2026-03-29T00:00Z", "2026-03-30T00:00Z"),
        ("2026-03-29T12:00Z", "week", "UTC", "2026-03-23T00:00Z", "2026-03-30T00:00Z"),
        ("2026-03-30T00:00Z", "week", "UTC", "2026-03-30T00:00Z", "2026-04-06T00:00Z"),
        ("2028-02-29T12:00Z", "month", "UTC", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("2026-12-31T23:59:59Z", "month", "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2028-12-31T12:00Z", "year", "UTC", "2028-01-01T00:00Z", "2029-01-01T00:00Z"),
        # the hour that is missing, and the one that comes twice
        ("2026-03-29T12:00Z", "day", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("2026-10-25T12:00Z", "day", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("2026-03-15T12:00Z", "month", "Europe/Berlin", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("2026-07-01T12:00Z", "year", "Europe/Berlin", "2025-12-31T23:00Z", "2026-12-31T23:00Z"),
        ("2026-03-29T00:59Z", "day", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        # tomorrow's month already
        ("2026-03-31T15:00Z", "month", "Asia/Tokyo", "2026-03-31T15:00Z", "2026-04-30T15:00Z"),
        ("2026-03-31T14:59:59Z", "month", "Asia/Tokyo", "2026-02-28T15:00Z", "2026-03-31T15:00Z"),
        ("2026-12-31T10:00Z", "year", "Pacific/Kiritimati", "2026-12-31T10:00Z", "2027-12-31T10:00Z"),
        ("2026-03-31T12:00Z", "30d", "UTC", "2026-03-01T12:00Z", "2026-03-31T12:00Z"),
        ("2026-03-31T12:00Z", "24h", "Europe/Berlin", "2026-03-30T12:00Z", "2026-03-31T12:00Z"),
        # a day whose midnight there is not
        ("2026-09-06T12:00Z", "day", "America/Santiago", "2026-09-06T04:00Z", "2026-09-07T03:00Z"),
    ],
)  # fmt: skip
def test_a_period_begins_and_ends_at_midnight_there(now, period, zone, begins, ends):
    found = current_period(period, datetime.fromisoformat(now), zone)
    assert found == (datetime.fromisoformat(begins), datetime.fromisoformat(ends))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns"])
@pytest.mark.parametrize("period", PERIODS)
def test_periods_follow_each_other_without_gap_for_ten_years(period, zone):
    begins, ends = current_period(period, datetime(2020, 1, 1, tzinfo=UTC), zone)
    while ends.year < 2030:
        assert begins < ends
        assert current_period(period, ends - timedelta(microseconds=1), zone) == (begins, ends)
        following = current_period(period, ends, zone)
        assert following[0] == ends
        begins, ends = following


# What there is nothing of.


def test_without_a_ledger_file_it_is_all_zeros_and_none_is_made(tmp_path):
    path = tmp_path / "none" / "ledger.db"
    how = {"by": ["team"], "period": "month", "timezone": "UTC", "where": {}}
    assert plain(usage(f"sqlite:///{path}", None, None, **how)) == NOTHING
    assert not path.parent.exists()


def test_a_ledger_that_is_switched_off_can_not_be_asked(recording):
    spanledger.configure(ledger_url="none")
    with pytest.raises(spanledger.LedgerError, match="ledger_url is none"):
        spanledger.get_usage()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"by": "colour"}, "no key 'colour'"),
        ({"by": ["team", "cost_pusd; DROP TABLE usage_records"]}, "there is no key"),
        ({"colour": "red"}, "no key 'colour'"),
        ({"period": "fortnight"}, "no period 'fortnight'"),
        ({"period": ""}, "no period ''"),
        ({"period": "99999999999d"}, "longer ago"),
        ({"timezone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"timezone": ""}, "no time zone ''"),
        ({"start": datetime(2026, 1, 1)}, "aware datetimes"),  # noqa: DTZ001
        ({"end": "yesterday"}, "no point in time"),
    ],
    ids=str,
)  # fmt: skip
def test_what_there_is_none_of_is_a_value_error(recording, how, says):
    with pytest.raises(ValueError, match=says):
        spanledger.get_usage(**how)


def test_what_this_process_has_just_recorded_is_in_it(recording):
    for number in range(5):
        spanledger.track(
            provider="openai", model="gpt-4o", input_tokens=number, output_tokens=1, user_id=f"u{number % 2}"
        )
    answer = spanledger.get_usage(by="user_id", user_id="u1")
    assert (answer["total_requests"], answer["total_tokens"], [*answer["by_user_id"]]) == (2, 6, ["u1"])
    assert answer["current_period"]["requests"] == 2
    assert json.loads(json.dumps(answer)) == answer
    assert spanledger.get_usage("1h")["total_requests"] == 5
    assert spanledger.get_usage(end="1h")["total_requests"] == 0


def test_what_has_lost_its_price_since_costs_nothing_and_is_counted(tmp_path):
    url, rows = f"sqlite:///{tmp_path}/ledger.db", [each for each in made(8, 60) if each["cost_pusd"]]
    put(url, rows)
    ledger = sink_at(url)
    apply(
        ledger,
        [
            Adjustment(
                record_id=each["record_id"], provider=each["provider"], model=None, weight=each["weight"],
                old_pusd=each["cost_pusd"], old_status=each["cost_status"], cost=UNPRICED,
            )
            for each in rows
        ],
    )  # fmt: skip
    ledger.close()
    with reading(url) as connection:
        answer = statistics(connection, NOW)
    weights = sum(each["weight"] for each in rows)
    assert (answer["total_requests"], answer["total_cost"], answer["unpriced_requests"]) == (weights, 0.0, weights)
    assert {each["cost"] for each in answer["by_model"].values()} == {0.0}


# How it is asked.


class Watched:
    """A connection that notes SQLite's plan of every question to the records alone."""

    def __init__(self, connection):
        self.connection, self.plans = connection, []

    def execute(self, statement, values=()):
        if "cost_adjustments" not in statement:
            plan = self.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            self.plans.append(" ".join(str(tuple(each)[-1]) for each in plan))
        return self.connection.execute(statement, values)


@pytest.mark.parametrize(
    "how",
    [{}, {"start": NOW - timedelta(days=30)}, {"by": ["user_id"]}, {"by": ["team", "project", "cost_center"]},
     {"where": {"user_id": "ada"}}, {"where": {"feature": None, "model": "gpt-4o"}, "end": NOW}],
    ids=str,
)  # fmt: skip
def test_sqlite_answers_from_the_index_alone(tmp_path, how):
    path = tmp_path / "ledger.db"
    put(f"sqlite:///{path}", made(7, 50))
    connection = open_for_reading(path)
    try:
        watched = Watched(connection)
        statistics(watched, NOW, **how)
    finally:
        connection.close()
    assert len(watched.plans) == 2 + len(how.get("by", ()))
    assert all("USING COVERING INDEX usage_records_totals" in plan for plan in watched.plans), watched.plans
