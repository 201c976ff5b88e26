"""Clocks that jump: order is by number, times stand as they were told, and what can't be right is marked."""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from tests.recording.asking import asked

from spanledger.ledger.sqlite import SqliteLedger, open_for_reading
from spanledger.model import Cost, UsageRecord, iso, record_id_at, row_of
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Draft, Outbox
from spanledger.testing import MemorySink

NOW = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # in Berlin summer ends in half an hour
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def row(number, started_at):
    record_id = record_id_at(1_790_000_000_000_000_000 + number * 1_000_000)
    return row_of(
        UsageRecord(
            record_id=record_id, started_at=started_at, operation="chat", provider="openai", source=f"test {number}",
            cost=Cost(),
        )
    )  # fmt: skip


class Listing(MemorySink):
    """A sink that keeps what comes in order."""

    name = "ledger"

    def __init__(self):
        super().__init__()
        self.sent = []

    def send(self, rows):
        self.sent += [(each["source"], each["started_at"], each.get("clock_suspect")) for each in rows]


def delivered(directory, sink, rows, wall):
    outbox = Outbox.create(directory, ["ledger"], full_sync=False, max_bytes=2**20)
    for each in rows:
        outbox.append([Draft.of(each)])
    made = Delivery([sink], directory, batch_size=10, flush_interval=0.01, count=lambda *_: None, wall=wall.timestamp)
    made._own = outbox
    assert made.drain(30)
    made.stop(1)
    outbox.close()


JUMPS = {
    "an hour ahead": (HOUR, 1),
    "an hour back": (-HOUR, None),
    "40 days ahead": (40 * DAY, 1),
    "40 days back": (-40 * DAY, 1),
    "5 minutes ahead": (timedelta(minutes=5), None),
    "a second more than 5 minutes ahead": (timedelta(minutes=5, seconds=1), 1),
    "35 days back": (-35 * DAY, None),
    "a second more than 35 days back": (-35 * DAY - timedelta(seconds=1), 1),
}


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumps_between_calls_changes_neither_order_nor_times(tmp_path, jump):
    by, suspect = JUMPS[jump]
    times = [NOW, NOW + by, NOW + timedelta(seconds=1), NOW + by]
    sink = Listing()
    rows = [row(number, when) for number, when in enumerate(times)]
    delivered(tmp_path / "state" / "outbox", sink, rows, NOW)
    wanted = zip(times, [None, suspect, None, suspect], strict=True)
    assert sink.sent == [(f"test {number}", iso(when), mark) for number, (when, mark) in enumerate(wanted)]


def test_a_clock_that_jumps_while_records_wait_shows_at_their_delivery(tmp_path):
    sink = Listing()
    delivered(tmp_path / "one" / "outbox", sink, [row(1, NOW)], NOW + 40 * DAY)
    delivered(tmp_path / "other" / "outbox", sink, [row(2, NOW)], NOW - HOUR)
    assert sink.sent == [("test 1", iso(NOW), 1), ("test 2", iso(NOW), 1)]


def test_the_end_of_summer_time_is_no_jump(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        times = [NOW + timedelta(minutes=15 * number) for number in range(8)]
        assert len({when.astimezone().strftime("%H:%M") for when in times}) == 6  # half past two comes twice
        sink = Listing()
        rows = [row(number, when.astimezone()) for number, when in enumerate(times)]
        delivered(tmp_path / "state" / "outbox", sink, rows, NOW + 2 * HOUR)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sink.sent == [(f"test {number}", iso(when), None) for number, when in enumerate(times)]


def test_ids_of_records_do_not_repeat_when_the_clock_goes_back():
    moments = [1_790_000_000_000_000_000] * 1000
    assert len({record_id_at(moment) for moment in moments}) == 1000


def test_the_ledger_keeps_the_mark_and_doctor_shows_it(home):
    now = datetime.now(UTC)
    ledger = SqliteLedger(home / "ledger.db")
    times = [now, now + HOUR, now - 40 * DAY, now - HOUR]
    rows = [row(number, when) for number, when in enumerate(times)]
    delivered(home / "outbox", ledger, rows, now)
    with closing(open_for_reading(home / "ledger.db")) as connection:
        query = "SELECT source, started_at, clock_suspect FROM usage_records ORDER BY source"
        found = [tuple(each) for each in connection.execute(query)]
    marks = [None, 1, 1, None]
    assert found == [
        (f"test {number}", iso(when), mark) for number, (when, mark) in enumerate(zip(times, marks, strict=True))
    ]
    status, said = asked("doctor")
    assert (status, "2 records have a time more than 5 minutes ahead" in said) == (1, True)
