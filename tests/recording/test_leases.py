"""Leases over forks and failures; what is known to the outbox when something else went wrong."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.recording.test_outbox import drafts, row

from spanledger.recording import outbox as module
from spanledger.recording.outbox import DAMAGED, Draft, Outbox
from spanledger.recording.survey import dead, revive

FORKED = """
import os, pathlib, sys, time
from spanledger.recording.files import Lease
import spanledger
spanledger.configure(ledger_url="none", sinks="jsonl")
path = pathlib.Path(sys.argv[1])
lease = Lease(path)
assert lease.acquire()
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
lease.release()
print(Lease(path).acquire(), flush=True)
sys.stdin.close()
os.waitpid(child, 0)
"""


def test_a_lease_that_is_given_back_is_free_while_a_child_forked_meanwhile_lives(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, tmp_path / "lock"],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_an_outbox_that_cant_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(module, "_connect", full)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(sqlite3.OperationalError):
            Outbox.create(tmp_path / "state" / "outbox", ["ledger"], full_sync=True, max_bytes=2**20)
    assert list((tmp_path / "state" / "outbox").iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_damaged_row_is_never_tried_again_as_if_it_were_whole(tmp_path):
    directory = tmp_path / "state" / "outbox"
    outbox = Outbox.create(directory, ["ledger"], full_sync=True, max_bytes=2**20)
    outbox.append(drafts([row(1), row(2)]))
    outbox._connection.execute("UPDATE records SET body = replace(body, 'test 1', 'test 9') WHERE seq = 1")
    (good,) = outbox.waiting("ledger", 10)
    outbox.bury("ledger", good.seq, "HTTP 400", Draft.of(good.row).body)
    outbox.taken("ledger", good.seq)
    outbox.close()
    assert revive(directory) == 1
    assert [each.reason for each in dead(directory)] == [DAMAGED]


def test_the_reason_of_a_damaged_row_does_not_grow_with_every_look(tmp_path):
    outbox = Outbox.create(tmp_path / "state" / "outbox", ["ledger"], full_sync=True, max_bytes=2**20)
    outbox.append(drafts([row(1), row(2)]))
    outbox._connection.execute("UPDATE records SET body = 'no row' WHERE seq = 2")
    for _ in range(5):
        assert [entry.seq for entry in outbox.waiting("ledger", 10)] == [1]
    assert [each.reason for each in dead(outbox.path.parent)] == [DAMAGED]
    assert outbox.rewrite(lambda found: {**found, "user_id": "x"} if found else None) == 1
    outbox.taken("ledger", 2)
    outbox.close()
