"""What the way home costs: the hand-over, the outbox, both ledgers, and an end with every receiver dead. Medians.

python benchmarks/deliveries.py [rounds]

PostgreSQL is one that this starts itself, as the tests do, with fsync on.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgresql.server import Server

from spanledger.ledger.postgres import PostgresLedger
from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import Attribution, Cost, Usage, UsageRecord, at, record_id_at, row_of
from spanledger.recording.courier import Courier, Errand
from spanledger.recording.outbox import Draft, Outbox

RECORDS, WRITTEN_AT_ONCE = 20_000, 1000

HANDED = """
import os, statistics, sys, time, resource
sys.path.insert(0, {here!r})
import spanledger
from spanledger import assembly
from deliveries import record
spanledger.configure({settings})
runtime = assembly.running()
runtime.recorder.record(lambda: record(0))
runtime.recorder.flush(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
took = []
for number in range({records}):
    made = record(number)
    start = time.perf_counter_ns()
    runtime.recorder.record(lambda made=made: made)
    took.append(time.perf_counter_ns() - start)
    if number % 50 == 49:
        time.sleep({pause})
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
start = time.perf_counter()
spanledger.shutdown()
end = time.perf_counter() - start
took.sort()
print(took[len(took) // 2] / 1e3, took[len(took) * 99 // 100] / 1e3, end, grown / 1024, flush=True)
"""


def record(number):
    return UsageRecord(
        record_id=record_id_at(1_790_000_000_000_000_000 + number * 1_000_000),
        started_at=at(1_790_000_000_000_000_000 + number * 1_000_000),
        operation="chat",
        provider="openai",
        source="spanledger",
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
        response_id=f"chatcmpl-{number}",
        duration_ns=840_000_000,
        request_model="gpt-4o",
        response_model="gpt-4o-2024-08-06",
        server_address="api.openai.com",
        finish_reasons=("stop",),
        service_name="shop",
        environment="production",
        raw_usage={"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306},
        usage_shape="openai.chat",
        usage=Usage(input_tokens=2006, output_tokens=300, cache_read_tokens=1920, usage_status="reported"),
        cost=Cost(5_615_000_000, {"input": 215_000_000, "cache_read": 2_400_000_000, "output": 3_000_000_000}, "USD",
                  "local", "priced", "genai-prices 0.2.3"),
        attribution=Attribution(user_id=f"user-{number % 500}", feature="search", team="shop"),
    )  # fmt: skip


def handed(**settings):
    """p50 and p99 of handing a record over (µs), seconds that `shutdown` takes, MB that the process grew by."""
    how = {"here": str(Path(__file__).parent), "settings": "", "records": 5000, "pause": 0.005, **settings}
    environ = {**os.environ, "SPANLEDGER_STATE_DIR": tempfile.mkdtemp()}
    done = subprocess.run([sys.executable, "-c", HANDED.format(**how)], env=environ, capture_output=True, check=True)
    return tuple(map(float, done.stdout.split()))


def into_outbox(outbox):
    """Records a second into the outbox, whole: from the record to the disk."""
    records = [record(number) for number in range(RECORDS)]
    start = time.perf_counter()
    for first in range(0, RECORDS, WRITTEN_AT_ONCE):
        outbox.append([Draft.of(row_of(each)) for each in records[first : first + WRITTEN_AT_ONCE]])
    return RECORDS / (time.perf_counter() - start)


def into_ledger(outbox, ledger):
    """Records a second from the outbox into a ledger."""
    courier = Courier(
        ledger, lambda: [outbox], batch_size=500, flush_interval=1, count=lambda *_: None, complete=lambda row: row,
        clock=time.monotonic, ended=lambda: None,
    )  # fmt: skip
    ledger.send([row_of(record(RECORDS + 1))])  # connected, the schema made
    errand = Errand(time.monotonic() + 120)
    start = time.perf_counter()
    courier.run(errand)
    assert errand.home
    return RECORDS / (time.perf_counter() - start)


def main(rounds):
    rates = {"into the outbox": [], "outbox to SQLite": [], "outbox to PostgreSQL": []}
    with Server() as server:
        for number in range(rounds):
            home = Path(tempfile.mkdtemp())
            database = server.create_database(f"bench_{number}")
            for name, ledger in (
                ("outbox to SQLite", SqliteLedger(home / "ledger.db")),
                ("outbox to PostgreSQL", PostgresLedger(database)),
            ):
                outbox = Outbox.create(home / "outbox", ["ledger"], full_sync=True, max_bytes=2**30)
                rates["into the outbox"].append(into_outbox(outbox))
                rates[name].append(into_ledger(outbox, ledger))
                ledger.close()
                outbox.close()
    for name, found in rates.items():
        print(f"{name:24} {statistics.median(found):10,.0f} records/s")
    alone = [handed() for _ in range(rounds)]
    dead = [
        handed(
            settings="sinks=['usage_api','openmeter'], usage_api_url='http://127.0.0.1:9',"
            " openmeter_url='http://127.0.0.1:9', ledger_url='postgresql://x@127.0.0.1:9/x'",
            records=100_000 if number == 0 else 5000,
            pause=0.01,
        )
        for number in range(rounds)
    ]
    for name, found in (("all is well", alone), ("every receiver dead", dead)):
        p50, p99, end, grown = map(statistics.median, zip(*found, strict=True))
        print(f"{name:24} hand-over p50 {p50:.1f} µs, p99 {p99:.1f} µs; shutdown {end:.2f} s; grown {grown:.0f} MB")
    print(f"{'100,000 into the dead':24} shutdown {dead[0][2]:.2f} s; grown {dead[0][3]:.0f} MB")
    print(f"{'this process':24} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
