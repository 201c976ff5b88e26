"""The outbox file and its delivery: order, bounds, damage, adoption, other people's files."""

import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import spanledger
from spanledger.guard import failures
from spanledger.homes import UnsafePathError, private_directory
from spanledger.model import UsageRecord, at, record_id_at, row_of
from spanledger.recording.delivery import Delivery
from spanledger.recording.files import Lease
from spanledger.recording.outbox import Draft, Outbox, OutboxFullError
from spanledger.recording.sink import SinkError
from spanledger.recording.survey import quarantined, survey
from spanledger.testing import MemorySink


def row(number=0):
    record_id = record_id_at(1_790_000_000_000_000_000 + number * 1_000_000)
    return row_of(
        UsageRecord(record_id=record_id, started_at=at(0), operation="chat", provider="openai", source=f"test {number}")
    )


def drafts(rows):
    return [Draft.of(each) for each in rows]


@pytest.fixture
def outbox(tmp_path):
    made = Outbox.create(tmp_path / "state" / "outbox", ["memory"], full_sync=True, max_bytes=2**20)
    yield made
    made.close()


def delivery(outbox, *sinks, clock=time.monotonic):
    counted = []
    made = Delivery(
        sinks, outbox.path.parent, batch_size=10, flush_interval=0.01, clock=clock,
        count=lambda name, amount, attributes: counted.append((name, amount, attributes)),
    )  # fmt: skip
    made._own = outbox
    return made, counted


def test_rows_come_out_as_they_went_in_and_go_when_every_sink_has_them(tmp_path):
    outbox = Outbox.create(tmp_path / "state" / "outbox", ["a", "b"], full_sync=True, max_bytes=2**20)
    rows = [row(number) for number in range(5)]
    outbox.append(drafts(rows[:3]))
    outbox.append(drafts(rows[3:]))
    found = outbox.waiting("a", 10)
    assert [entry.row for entry in found] == [
        {name: value for name, value in each.items() if value is not None} for each in rows
    ]
    outbox.taken("a", found[-1].seq)
    assert (outbox.waiting("a", 10), outbox.pending()) == ([], 5)
    outbox.taken("b", found[1].seq)
    assert (len(outbox.waiting("b", 10)), outbox.pending()) == (3, 3)
    outbox.taken("b", found[-1].seq)
    assert outbox.pending() == 0
    outbox.close()
    assert list((tmp_path / "state" / "outbox").iterdir()) == []


def test_files_are_private_and_links_are_refused(tmp_path, outbox):
    outbox.append(drafts([row()]))
    for file in outbox.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(outbox.path.parent.stat().st_mode) == 0o700
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(UnsafePathError, match="symbolic link"):
        private_directory(tmp_path / "link")
    real.chmod(0o777)
    with pytest.raises(UnsafePathError, match="chmod 700"):
        private_directory(real)


def test_at_its_bound_new_rows_are_refused_and_the_old_ones_stay(tmp_path):
    outbox = Outbox.create(tmp_path / "state" / "outbox", ["memory"], full_sync=False, max_bytes=100_000)
    kept = 0
    with pytest.raises(OutboxFullError):
        while True:
            outbox.append(drafts([row(kept) for _ in range(10)]))
            kept += 10
    assert outbox.pending() == kept >= 20
    entries = outbox.waiting("memory", 1000)
    outbox.taken("memory", entries[-1].seq)
    outbox.append(drafts([row()]))
    assert outbox.pending() == 1
    outbox.taken("memory", 10**9)
    outbox.close()


def test_a_damaged_row_is_put_aside_and_the_rest_goes_on(outbox):
    outbox.append(drafts([row(number) for number in range(3)]))
    outbox._connection.execute("UPDATE records SET body = replace(body, 'openai', 'nobody') WHERE seq = 2")
    sink = MemorySink()
    made, _ = delivery(outbox, sink)
    assert made.drain(5)
    assert [each["source"] for each in sink.rows.values()] == ["test 0", "test 2"]
    (state,) = survey(outbox.path.parent)
    assert (state.pending, state.dead, state.reasons) == (0, 1, ("memory: the row is damaged: its checksum is wrong",))
    outbox._connection.execute("DELETE FROM dead")


class Failing(MemorySink):
    """Fails as told: `refuse` names sources it never takes, `outages` is how often it can't be reached at first."""

    def __init__(self, refuse=(), outages=0):
        super().__init__()
        self.refuse, self.outages, self.calls = refuse, outages, 0

    def send(self, rows):
        self.calls += 1
        if self.outages:
            self.outages -= 1
            raise SinkError("HTTP 503")
        if any(each["source"] in self.refuse for each in rows):
            raise SinkError("HTTP 422", permanent=True)
        super().send(rows)


def test_poison_among_good_rows_is_isolated_and_kept_with_its_reason(outbox):
    outbox.append(drafts([row(number) for number in range(25)]))
    sink = Failing(refuse=("test 7", "test 19"))
    made, counted = delivery(outbox, sink)
    assert made.drain(5)
    assert len(sink.rows) == 23
    (state,) = survey(outbox.path.parent)
    assert (state.pending, state.dead, state.reasons) == (0, 2, ("memory: HTTP 422",))
    assert [amount for name, amount, _ in counted if name == "spanledger.delivery.dead"] == [1, 1]
    outbox._connection.execute("DELETE FROM dead")


def test_an_outage_loses_nothing_and_is_tried_again_after_a_pause(outbox):
    now = [0.0]
    outbox.append(drafts([row(number) for number in range(25)]))
    sink = Failing(outages=3)
    made, counted = delivery(outbox, sink, clock=lambda: now[0])
    while not made.drain(3600):
        assert now[0] < 3600
        now[0] += 1
    assert (len(sink.rows), sink.calls) == (25, 6)
    assert [attributes for name, _, attributes in counted if name == "spanledger.delivery.failed"] == [
        {"sink": "memory"}
    ] * 3


def test_one_sink_that_is_down_holds_up_no_other(tmp_path):
    outbox = Outbox.create(tmp_path / "state" / "outbox", ["memory", "other"], full_sync=True, max_bytes=2**20)
    outbox.append(drafts([row(1)]))
    good, bad = MemorySink(), Failing(outages=100)
    bad.name = "other"
    made, _ = delivery(outbox, bad, good)
    assert made.drain(5) is False
    assert (len(good.rows), outbox.pending()) == (1, 1)
    outbox.taken("other", 10**9)
    outbox.close()


def test_a_file_whose_owner_lives_is_left_alone(outbox):
    outbox.append(drafts([row()]))
    assert Outbox.adopt(outbox.path) is None


def test_a_dead_owners_file_is_adopted_delivered_and_removed_but_not_for_a_sink_nobody_has(tmp_path):
    directory = tmp_path / "state" / "outbox"
    for sinks in (["memory"], ["memory", "elsewhere"]):
        dead = Outbox.create(directory, sinks, full_sync=True, max_bytes=2**20)
        dead.append(drafts([row(1), row(2)]))
        dead._connection.close()
        dead._lease.release()
    sink = MemorySink()
    made = Delivery([sink], directory, batch_size=10, flush_interval=0.01, count=lambda *_: None)
    made.drain(5)
    made.stop(1)
    assert len(sink.rows) == 4
    assert [(state.owner_alive, state.pending) for state in survey(directory)] == [(False, 2)]


def test_only_one_of_two_adopters_gets_a_file(tmp_path):
    directory = tmp_path / "state" / "outbox"
    dead = Outbox.create(directory, ["memory"], full_sync=True, max_bytes=2**20)
    dead.append(drafts([row()]))
    dead._connection.close()
    dead._lease.release()
    found = []
    threads = [threading.Thread(target=lambda: found.append(Outbox.adopt(dead.path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (adopted,) = [each for each in found if each is not None]
    adopted.taken("memory", 10**9)
    adopted.close()
    assert list(directory.iterdir()) == []


def test_a_file_of_rubbish_is_put_aside_and_disturbs_nobody(home, client, ledger):
    rubbish = home / "outbox" / "rubbish.db"
    private_directory(home)
    private_directory(home / "outbox")
    rubbish.write_bytes(b"not a database" * 1000)
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert len(ledger()) == 1
    (kept,) = quarantined(home / "outbox")
    assert kept.read_bytes() == b"not a database" * 1000


HOLDER = """
import pathlib, sys
from spanledger.recording.files import Lease
sys.exit(0 if Lease(pathlib.Path(sys.argv[1])).acquire() else 1)
"""


def test_a_lease_is_free_when_its_process_is_gone(tmp_path):
    lease = Lease(tmp_path / "lease")
    take = [sys.executable, "-c", HOLDER, str(tmp_path / "lease")]
    assert subprocess.run(take, check=False, timeout=30).returncode == 0
    assert lease.acquire()
    assert subprocess.run(take, check=False, timeout=30).returncode == 1
    lease.release(remove=True)
    assert not (tmp_path / "lease").exists()


# A home that can't be used never disturbs the application.


@pytest.mark.lenient
def test_without_an_outbox_calls_go_on_are_kept_in_memory_and_arrive_once_it_is_back(home, client, ledger, caplog):
    home.parent.joinpath("elsewhere").mkdir()
    home.symlink_to(home.parent / "elsewhere")
    for _ in range(3):
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush(timeout=1) is False
    (said,) = [record.message for record in caplog.records if "outbox can't be written" in record.message]
    assert "symbolic link" in said
    assert "wait in memory" in said
    home.unlink()
    assert spanledger.flush()
    assert len(ledger()) == 3
    assert failures["the outbox"]


@pytest.mark.lenient
def test_what_can_never_be_written_is_counted_as_lost(home, client, recording, monkeypatch):
    monkeypatch.setattr("spanledger.recording.writer.MOST_KEPT_IN_MEMORY", 2)
    home.mkdir(mode=0o700)
    (home / "outbox").write_text("in the way")
    for _ in range(5):
        client.embeddings.create(model="text-embedding-3-small", input="x")
        spanledger.flush(timeout=0.5)
    assert sum(value for attributes, value in recording.points("spanledger.records.lost")) == 3
    spanledger.shutdown()
    lines = (home / "losses.jsonl").read_text().splitlines()
    assert sum(__import__("json").loads(line)["count"] for line in lines) == 5


def test_a_ledger_that_cant_be_opened_keeps_its_records_in_the_outbox(home, client, ledger, caplog):
    home.mkdir(mode=0o700)
    (home / "ledger.db").mkdir()
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush(timeout=2) is False
    assert [state.pending for state in survey(home / "outbox")] == [1]
    assert "Nothing is lost" in caplog.text
    (home / "ledger.db").rmdir()
    deadline = time.monotonic() + 30
    while not spanledger.flush(timeout=2):
        assert time.monotonic() < deadline
    assert len(ledger()) == 1


def test_a_ledger_of_a_later_version_is_left_alone_and_says_so(home, client, caplog):
    home.mkdir(mode=0o700)
    connection = sqlite3.connect(home / "ledger.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush(timeout=2) is False
    assert "version 99" in caplog.text
    assert Path(home / "ledger.db").stat().st_size < 10_000


def test_a_row_that_is_not_final_holds_nobody_up_and_comes_when_it_is(outbox):
    now, first, third = time.time_ns(), row(1), row(3)
    outbox.append([Draft.of(first, now + 120 * 10**9), Draft.of(row(2)), Draft.of(third, now + 2 * 10**9)])
    (entry,) = outbox.waiting("memory", 10)
    assert entry.row["source"] == "test 2"
    outbox.taken("memory", entry.seq)
    assert outbox.waiting("memory", 10) == []
    assert (outbox.pending(), outbox.pending(["memory"])) == (2, 2)
    outbox.settle([first["record_id"]])
    (entry,) = outbox.waiting("memory", 10)
    assert entry.row["source"] == "test 1"
    outbox.append([Draft.of(row(4))])
    outbox.settle([third["record_id"]])
    assert [each.row["source"] for each in outbox.waiting("memory", 10)] == ["test 1", "test 4", "test 3"]


def test_a_row_that_nobody_settles_is_final_after_a_while(outbox):
    now = time.time_ns()
    outbox.append([Draft.of(row(1), now - 61 * 10**9), Draft.of(row(2), now + 2 * 10**9)])
    assert outbox.waiting("memory", 10) == []
    outbox.settle([])
    assert [entry.row["source"] for entry in outbox.waiting("memory", 10)] == ["test 1"]
