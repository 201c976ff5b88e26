"""A disk that is full, and homes that can't hold our files: the application goes on, and what is lost is counted."""

import json
import os
import subprocess
import sys

import pytest
from tests.recording.asking import asked

from spanledger import homes
from spanledger.settings import read_settings

CHILD = """
import json, os, pathlib, resource, signal, sys, threading, time
from collections import Counter
from spanledger.model import Cost, UsageRecord, at, record_id_at
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Outbox
from spanledger.recording.losses import Losses
from spanledger.recording.recorder import Recorder
from spanledger.recording.writer import Plan

way, home = sys.argv[1], pathlib.Path(sys.argv[2])
SURPLUS = 12_000
if way == "tmpfs":
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    home.mkdir(mode=0o700)
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 16384 | 262144, None) or libc.mount(
        b"none", bytes(home), b"tmpfs", 0, b"size=32m,mode=0700"
    ):
        sys.exit(77)
    filler = home / "filler"
    filler.write_bytes(bytes(31 << 20))
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))

lost, taken, open_ = Counter(), Counter(), threading.Event()

class Gate:
    name, idempotent = "memory", True
    def send(self, rows):
        open_.wait()
        taken.update(row["response_id"] for row in rows)
    def close(self):
        pass

class Meters:
    def count(self, name, amount, attributes):
        if name == "spanledger.records.lost":
            lost[attributes["reason"]] += amount
    def settled(self, record):
        pass

recorder = Recorder(Plan(
    outbox=lambda: Outbox.create(home / "outbox", ["memory"], full_sync=True, max_bytes=2**30),
    delivery=lambda count: Delivery([Gate()], home / "outbox", batch_size=100, flush_interval=0.01, count=count),
    meters=lambda _: Meters(), finish=lambda record: record, price=lambda record: record, priced=lambda: True,
    others=lambda: False, sync=False, losses=Losses(home / "losses.jsonl"),
))
recorded = 0

def record(number):
    global recorded
    for _ in range(number):
        made = UsageRecord(record_id=record_id_at(time.time_ns()), started_at=at(0), operation="chat",
                           provider="openai", source="tests", response_id=str(recorded), cost=Cost())
        recorder.record(lambda made=made: made)
        recorded += 1
    assert recorder.commit(60)

while recorder.committed == recorded:
    record(100)
before = recorder.committed
record(SURPLUS)
full = recorder.committed
while_full = dict(lost)
open_.set()
recorder._writer._delivery.drain(5)
taken_while_full = len(taken)

if way == "tmpfs":
    filler.unlink()
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
space = time.monotonic()
record(1)
while recorder.committed == full and time.monotonic() < space + 30:
    recorder.commit(1)
again = time.monotonic() - space
home_in_time = recorder.flush(60)
recorder.shutdown(30)
lines = (home / "losses.jsonl").read_text().splitlines() if (home / "losses.jsonl").exists() else []
losses = Counter()
for line in lines:
    losses[json.loads(line)["reason"]] += json.loads(line)["count"]
left = sorted(path.name for path in home.rglob("*") if path.is_file() and path.name != "losses.jsonl")
print(json.dumps({
    "recorded": recorded, "before": before, "full": full, "while_full": while_full, "lost": lost, "losses": losses,
    "taken": len(taken), "taken_while_full": taken_while_full, "again": again, "home": home_in_time,
    "attempts": sum(taken.values()),
    "first_missing": sum(str(each) not in taken for each in range(before)), "last": str(recorded - 1) in taken,
    "left": left,
}))
"""
WAYS = {"tmpfs": "disk_full", "limit": "outbox_unavailable"}
"""A real full disk where one can be mounted; a limit on the size of files, which needs nothing, but which SQLite calls
an I/O error and not a full disk."""


@pytest.mark.parametrize("way", WAYS)
def test_while_the_disk_is_full_rows_wait_in_memory_and_only_what_is_too_many_is_lost_and_counted(tmp_path, way):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, way, str(tmp_path / "state")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(way, told)  # noqa: T201  # figures for the reader
    gone = told["recorded"] - told["taken"]
    assert (told["lost"], told["losses"]) == ({WAYS[way]: gone}, {WAYS[way]: gone})
    assert 0 < gone <= 12_000 + 100 - 10_000
    assert (told["first_missing"], told["last"], told["home"], told["left"]) == (0, True, True, [])
    assert told["again"] < 5


# Homes that can't be one.


def in_the_way(tmp_path):
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "state"


def a_file(tmp_path):
    (tmp_path / "plain").write_text("in the way")
    return tmp_path / "plain"


def linked(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    return tmp_path / "link"


def foreign(tmp_path):
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    (tmp_path / "foreign").mkdir(mode=0o700)
    os.chown(tmp_path / "foreign", 12345, 12345)
    return tmp_path / "foreign"


def open_to_all(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    return tmp_path / "open"


HOMES = {
    in_the_way: "can't be written",
    a_file: "it is no directory",
    linked: "it is a symbolic link",
    foreign: "it belongs to another user",
    open_to_all: "it can be written by others",
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """$STATE_DIRECTORY and the directory of temporary files."""
    monkeypatch.setattr(homes, "_said", set())
    named, temporary = tmp_path / "named", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("STATE_DIRECTORY", f"{named}:/elsewhere")
    return named / "spanledger", temporary / f"spanledger-{os.geteuid()}"


@pytest.mark.parametrize("make", HOMES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("systemd", [True, False])
def test_without_a_usable_home_files_go_to_the_next_place_with_one_warning(
    tmp_path, monkeypatch, places, caplog, make, systemd
):
    home = make(tmp_path)
    monkeypatch.setenv("SPANLEDGER_STATE_DIR", str(home))
    if not systemd:
        monkeypatch.delenv("STATE_DIRECTORY")
    place = places[0 if systemd else 1]
    assert [read_settings().state_dir for _ in range(3)] == [place] * 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{home} can't hold spanledger's files (")
    assert (HOMES[make] in said, f"They go to {place}" in said) == (True, True)
    assert ("may not outlast this machine" in said) is not systemd  # what systemd gave to the service lasts
    status, answer = asked("doctor")
    assert (status, f"they go to {place}" in answer) == (int(not systemd), True)


def test_calls_are_recorded_in_the_next_place(tmp_path, monkeypatch, places, client_elsewhere, ledger):
    client_elsewhere.embeddings.create(model="text-embedding-3-small", input="x")
    assert len(ledger(path=places[0] / "ledger.db")) == 1


@pytest.fixture
def client_elsewhere(tmp_path, monkeypatch, places, request):
    monkeypatch.setenv("SPANLEDGER_STATE_DIR", str(in_the_way(tmp_path)))
    return request.getfixturevalue("client")
