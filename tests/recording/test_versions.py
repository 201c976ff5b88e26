"""Outbox files of other versions: an older one is drained, a later one is left as it is."""

import json
import sqlite3
import zlib
from contextlib import closing

from tests.recording.test_outbox import row

from spanledger.homes import private_directory
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import VERSION, Outbox
from spanledger.testing import MemorySink

FIRST_RELEASE = """
CREATE TABLE records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  record_id TEXT NOT NULL,
  settle_at INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX unsettled ON records (record_id) WHERE settle_at > 0;
CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead (seq INTEGER, sink TEXT, reason TEXT NOT NULL, died_at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (seq, sink)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
ROWS = [row(number) for number in range(10)]
DIED_AT = 1_790_000_000_000_000_000
SETTLE_AT = 1_790_000_002_000_000_000


def body_of_first_release(number):
    """A whole row, its nulls too."""
    return json.dumps({"v": 1, **ROWS[number]}, separators=(",", ":"), allow_nan=False)


def file_of_first_release(directory):
    """Ten rows: `ledger` has taken four and refused the second, `memory` has taken none; the last three are open."""
    private_directory(directory.parent)
    private_directory(directory)
    path = directory / "host-1-1.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FIRST_RELEASE)
        bodies = [body_of_first_release(number) for number in range(10)]
        connection.executemany(
            "INSERT INTO records (record_id, settle_at, crc, body) VALUES (?, ?, ?, ?)",
            [
                (json.loads(body)["record_id"], SETTLE_AT if number > 6 else 0, zlib.crc32(body.encode()), body)
                for number, body in enumerate(bodies)
            ],
        )
        connection.execute("INSERT INTO cursors VALUES ('ledger', 4), ('memory', 0)")
        connection.execute("INSERT INTO dead VALUES (2, 'ledger', 'HTTP 422', ?, ?)", (DIED_AT, bodies[1]))
        connection.commit()
    return path


def known(row):
    return {name: value for name, value in row.items() if value is not None and name != "v"}


class Sink(MemorySink):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.sent = []

    def send(self, rows):
        self.sent += [known(each) for each in rows]


def drained(directory, *sinks):
    made = Delivery(sinks, directory, batch_size=3, flush_interval=0.01, count=lambda *_: None, wall=lambda: 0)
    assert made.drain(30)
    made.stop(1)


def test_a_file_of_the_first_release_is_drained_as_far_as_each_sink_lacks_it(tmp_path):
    directory = tmp_path / "state" / "outbox"
    path = file_of_first_release(directory)
    assert None in ROWS[0].values()
    ledger, memory = Sink("ledger"), Sink("memory")
    drained(directory, ledger, memory)
    wanted = [known(each) for each in ROWS]
    assert (ledger.sent, memory.sent) == (wanted[4:], wanted)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM records").fetchall() == []
        assert connection.execute("SELECT * FROM dead").fetchall() == [
            (2, "ledger", "HTTP 422", DIED_AT, body_of_first_release(1))
        ]
        assert connection.execute("SELECT * FROM cursors").fetchall() == [
            ("ledger", 13, 13, 0, 0, None),
            ("memory", 13, 13, 0, 0, None),
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_file_of_the_first_release_keeps_what_is_for_a_sink_nobody_has(tmp_path):
    directory = tmp_path / "state" / "outbox"
    path = file_of_first_release(directory)
    ledger = Sink("ledger")
    drained(directory, ledger)
    adopted = Outbox.adopt(path)
    assert [entry.row["source"] for entry in adopted.waiting("memory", 100)] == [f"test {n}" for n in range(10)]
    assert adopted.waiting("ledger", 100) == []
    adopted.close()


def test_a_migration_that_breaks_off_is_done_by_the_next(tmp_path, monkeypatch):
    directory = tmp_path / "state" / "outbox"
    file_of_first_release(directory)
    half = {1: ("ALTER TABLE cursors ADD COLUMN leased INTEGER NOT NULL DEFAULT 0", "ALTER TABLE nothing ADD COLUMN x")}
    with monkeypatch.context() as broken:
        broken.setattr("spanledger.recording.outbox._MIGRATIONS", half)
        drained(directory, Sink("ledger"))
    ledger, memory = Sink("ledger"), Sink("memory")
    drained(directory, ledger, memory)
    assert (len(ledger.sent), len(memory.sent)) == (6, 10)


def test_a_file_of_a_later_version_is_left_untouched_and_said_once(tmp_path, caplog):
    directory = tmp_path / "state" / "outbox"
    path = file_of_first_release(directory)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE cursors ADD COLUMN something_later")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before, now = path.read_bytes(), [0.0]
    ledger = Sink("ledger")
    made = Delivery(
        [ledger],
        directory,
        batch_size=3,
        flush_interval=0.01,
        count=lambda *_: None,
        clock=lambda: now[0],
        wall=lambda: 0,
    )
    for _ in range(5):
        assert made.drain(30)
        now[0] += 60
    made.stop(1)
    assert (ledger.sent, path.read_bytes()) == ([], before)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        (
            f"The outbox file {path} can't be read (it is of version {VERSION + 1}, this spanledger knows {VERSION};"
            " upgrade spanledger); it is left as it is."
        )
    ]
