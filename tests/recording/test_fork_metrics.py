"""Metrics over a fork, and leaving: each process tells of its own calls, and nobody leaves without its rows."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.recording.test_durability import rows_in

COUNTING = """
import json, os, sys
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
import spanledger
from openai import DefaultHttpxClient, OpenAI
import importlib

BODY = {"id": "c", "model": "gpt-4o", "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
web = importlib.import_module(DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
kind = getattr(AggregationTemporality, sys.argv[1])
reader = InMemoryMetricReader(preferred_temporality={Counter: kind, Histogram: kind})
provider = MeterProvider([reader])
theirs = provider.get_meter("theirs").create_counter("theirs")
spanledger.configure(meter_provider=provider)
transport = web.MockTransport(lambda _: web.Response(200, json=BODY))
client = OpenAI(api_key="x", http_client=web.Client(transport=transport))

def call(times):
    for _ in range(times):
        client.chat.completions.create(model="gpt-4o", messages=[])
    theirs.add(times)
    assert spanledger.flush(30)

def tell(who):
    told, data = {}, reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = metric.data.data_points
                values = [point.count if hasattr(point, "count") else point.value for point in points]
                told[metric.name] = sum(values)
    os.write(1, (json.dumps([who, told]) + "\\n").encode())

call(5)
if sys.argv[2] == "told":
    tell("before")
child = os.fork()
if child == 0:
    if sys.argv[3] == "again":
        grandchild = os.fork()
        if grandchild == 0:
            call(2)
            tell("grandchild")
            os._exit(0)
        os.waitpid(grandchild, 0)
    call(3)
    tell("child")
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
call(4)
tell("parent")
"""
NAMES = {
    "gen_ai.client.token.usage": 2,
    "gen_ai.client.operation.duration": 1,
    "spanledger.calls": 1,
    "spanledger.usage": 7,
    "spanledger.delivery.sent": 1,
}
"""Metric → what a call adds: points of a histogram, or to the sum of a counter."""


def told_by(*arguments):
    command = [sys.executable, "-c", COUNTING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("temporality", "before"),
    [("CUMULATIVE", "told"), ("CUMULATIVE", "untold"), ("DELTA", "told"), ("DELTA", "untold")],
)
def test_what_was_counted_before_a_fork_is_told_by_the_parent_alone(home, temporality, before):
    told = told_by(temporality, before, "once")
    of_parent = 4 if (temporality, before) == ("DELTA", "told") else 9
    assert {who: ours(found) for who, found in told.items() if who != "before"} == {
        "child": calls(3),
        "parent": calls(of_parent),
    }
    if before == "told":
        assert ours(told["before"]) == calls(5)
    theirs = {who: found["theirs"] for who, found in told.items() if who != "before"}
    carried = 3 if (temporality, before) == ("DELTA", "told") else 8  # what theirs inherit is none of our business
    assert theirs == {"child": carried, "parent": of_parent}


def test_a_child_of_a_child_tells_of_its_own_calls_alone(home):
    told = told_by("CUMULATIVE", "untold", "again")
    assert {who: ours(found) for who, found in told.items()} == {
        "grandchild": calls(2),
        "child": calls(3),
        "parent": calls(9),
    }


def ours(found):
    return {name: found.get(name) for name in NAMES}


def calls(number):
    """What our instruments say of so many calls."""
    return {name: number * each for name, each in NAMES.items()}


LEAVING = """
import importlib, os, signal, sys
from openai import DefaultHttpxClient, OpenAI
import spanledger

BODY = {"id": "c", "model": "gpt-4o", "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
web = importlib.import_module(DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
transport = web.MockTransport(lambda _: web.Response(200, json=BODY))
client = OpenAI(api_key="x", http_client=web.Client(transport=transport))

def call(times):
    for _ in range(times):
        client.chat.completions.create(model="gpt-4o", messages=[])

def handler(*_):
    os.write(1, b"handled")
    sys.exit(7)

way = sys.argv[1]
if way == "handler before":
    signal.signal(signal.SIGTERM, handler)
elif way == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
spanledger.configure()
if way == "handler after":
    signal.signal(signal.SIGTERM, handler)
if way.startswith("handler"):
    assert signal.getsignal(signal.SIGTERM) is handler
if way == "fork":
    call(3)
    child = os.fork()
    if child == 0:
        call(1)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status))
elif way == "fork, SIGTERM":
    child = os.fork()
    if child == 0:
        call(4)
        os.kill(os.getpid(), signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
else:
    call(4)
    os.kill(os.getpid(), signal.SIGTERM)
    print("goes on")
"""


@pytest.mark.parametrize(
    ("way", "status", "said"),
    [
        ("no handler", -signal.SIGTERM, ""),
        ("handler before", 7, "handled"),
        ("handler after", 7, "handled"),
        ("ignored", 0, "goes on\n"),
        ("fork", 3, ""),
        ("fork, SIGTERM", 0, f"{-signal.SIGTERM}\n"),
    ],
)
def test_however_a_process_leaves_its_rows_are_safe_and_it_leaves_that_way(home, way, status, said):
    environ = {**os.environ, "SPANLEDGER_FLUSH_INTERVAL": "3600"}
    command = [sys.executable, "-c", LEAVING, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (status, said, "")
    assert len(rows_in(home)) == 4


BUSY = """
import os, signal, sys, threading
from pathlib import Path
import spanledger
from spanledger.recording.outbox import Draft, Outbox

spanledger.configure()
home = Path(sys.argv[1]) / "outbox"
ended = threading.Event()

def keep(number):
    box = Outbox.create(home, ["nobody"], full_sync=False, max_bytes=2**24)
    for each in range(number):
        box.append([Draft.of({"record_id": str(each)})])
    box.close()

def busy():
    while not ended.is_set():
        keep(20)

threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        keep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
ended.set()
for thread in threads:
    thread.join()
"""


def test_a_fork_while_our_threads_are_in_sqlite_leaves_the_child_a_sqlite_that_works(home, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BUSY, str(tmp_path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(int(signal.SIGKILL))] * 40, "")
