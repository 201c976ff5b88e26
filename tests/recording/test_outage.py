"""Outages and floods: everything arrives, once and in order, and a process that ends waits for nobody who is away.

`SPANLEDGER_SOAK` asks for an hour at 100 rows a second, 100,000 calls into dead endpoints and 8 times 5,000 records.
"""

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from spanledger.assembly import deliver_left
from spanledger.model import Cost, UsageRecord, at, record_id_at, row_of
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Draft, Outbox
from spanledger.recording.sink import SinkError
from spanledger.recording.survey import survey
from spanledger.settings import read_settings

SOAK = bool(os.environ.get("SPANLEDGER_SOAK"))
HOUR = 3600.0
STEP = 1.0 if SOAK else 60.0
A_STEP = 100
CALLS = 100_000 if SOAK else 2_000
PROCESSES, EACH = 8, 5_000 if SOAK else 500


def row(number):
    moment = 1_790_000_000_000_000_000 + number * 1_000_000
    return row_of(
        UsageRecord(
            record_id=record_id_at(moment), started_at=at(moment), operation="chat", provider="openai",
            source="tests", cost=Cost(),
        )
    )  # fmt: skip


class Away:
    """A sink that answers 503 until an hour is over, and notes when it was asked and what it has taken."""

    def __init__(self, clock, *, idempotent):
        self.name, self.idempotent, self._clock = "memory", idempotent, clock
        self.asked, self.taken = [], []

    def send(self, rows):
        self.asked.append(self._clock())
        if self._clock() < HOUR:
            raise SinkError("HTTP 503")
        self.taken += [each["record_id"] for each in rows]

    def close(self):
        """Nothing is held."""


@pytest.mark.parametrize("idempotent", [False, True])
def test_after_an_hour_of_503_everything_arrives_once_and_in_order(tmp_path, monkeypatch, idempotent):
    monkeypatch.setattr("spanledger.recording.courier.random", random.Random(3))
    now = [0.0]
    sink = Away(lambda: now[0], idempotent=idempotent)
    outbox = Outbox.create(tmp_path / "state" / "outbox", ["memory"], full_sync=False, max_bytes=2**30)
    made = Delivery(
        [sink], outbox.path.parent, batch_size=500, flush_interval=0.01, count=lambda *_: None, clock=lambda: now[0]
    )
    made._own = outbox
    (courier,) = made._couriers
    ids, pauses = [], []
    while now[0] < HOUR:
        rows = [row(len(ids) + number) for number in range(A_STEP)]
        outbox.append([Draft.of(each) for each in rows])
        ids += [each["record_id"] for each in rows]
        before = len(sink.asked)
        assert made.drain(0) is False
        if len(sink.asked) > before:
            pauses.append(courier._breaker.not_before)
        now[0] += STEP
    during = list(sink.asked)
    assert all(asked >= pause for asked, pause in zip(during[1:], pauses, strict=False))
    assert (len(during), sink.taken, outbox.cursor("memory").attempts) == (len(pauses), [], len(during))
    assert 10 < len(during) < 60
    now[0] = max(now[0], courier._breaker.not_before)
    assert made.drain(HOUR)
    assert sink.taken == ids
    made.stop(0)
    outbox.close()


RECORDING = """
import json, sys, time
import spanledger
from spanledger import assembly
from spanledger.model import Cost, Usage, UsageRecord, at, record_id_at

spanledger.configure()
recorder = assembly._runtime.recorder
number, name = int(sys.argv[1]), sys.argv[2]
started, slowest = time.perf_counter(), 0.0
moment = time.time_ns()
for each in range(number):
    made = UsageRecord(
        record_id=record_id_at(moment + each), started_at=at(moment), operation="chat", provider="openai",
        source="tests", response_id=f"{name} {each}", request_model="gpt-4o",
        usage=Usage(input_tokens=1, usage_status="reported"),
        cost=Cost(cost_pusd=1, cost_status="priced"),
    )
    before = time.perf_counter()
    recorder.record(lambda made=made: made)
    slowest = max(slowest, time.perf_counter() - before)
    if each % 10_000 == 9_999:
        recorder.commit(60)
recorded = time.perf_counter()
recorder.commit(60)
committed = time.perf_counter()
home = spanledger.shutdown()
ended = time.perf_counter()
figures = {"record": recorded - started, "commit": committed - recorded, "shutdown": ended - committed,
           "slowest": slowest}
print(json.dumps({"home": home, **{name: round(each, 4) for name, each in figures.items()}}))
"""


def closed_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def test_calls_into_dead_endpoints_lose_nothing_and_their_process_ends(home, monkeypatch):
    pytest.importorskip("psycopg")
    url = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("SPANLEDGER_SINKS", "usage_api,otlp,openmeter")
    monkeypatch.setenv("SPANLEDGER_USAGE_API_URL", url)
    monkeypatch.setenv("OPENMETER_URL", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("SPANLEDGER_LEDGER_URL", f"postgresql://nobody:x@127.0.0.1:{closed_port()}/none")
    command = [sys.executable, "-c", RECORDING, str(CALLS), "dead"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    told = json.loads(done.stdout)
    print("dead endpoints", CALLS, told)  # noqa: T201  # figures for the reader
    (state,) = survey(home / "outbox")
    assert told["home"] is False
    assert (state.owner_alive, state.pending, state.dead) == (False, CALLS, 0)
    assert {each.sink: (each.pending, bool(each.reason)) for each in state.waiting} == dict.fromkeys(
        ("ledger", "usage_api", "otlp", "openmeter"), (CALLS, True)
    )
    assert not (home / "losses.jsonl").exists()


def test_several_processes_at_once_lose_nothing_and_share_one_ledger(home):
    processes = [
        subprocess.Popen([sys.executable, "-c", RECORDING, str(EACH), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    told = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    for name in ("record", "commit", "shutdown", "slowest"):
        found = [each[name] for each in told]
        print(f"{PROCESSES} x {EACH} {name}: {min(found)} to {max(found)} s")  # noqa: T201  # as above
    print(sum(each["home"] for each in told), "of them were home when they ended")  # noqa: T201  # as above
    assert deliver_left(read_settings(), 120)
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        found = connection.execute("SELECT response_id FROM usage_records").fetchall()
    assert len(found) == PROCESSES * EACH
    assert {each for (each,) in found} == {f"{name} {each}" for name in range(PROCESSES) for each in range(EACH)}
    assert survey(home / "outbox") == []
