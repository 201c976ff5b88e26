"""What survives: SIGKILL at random moments, SIGTERM under uvicorn, a worker that leaves by os._exit, a fork."""

import contextlib
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

import spanledger

KILLS = 60 if "SPANLEDGER_SOAK" in os.environ else 6
CALLER = """
import os, sys, threading, time
import httpx2, spanledger
from openai import OpenAI
from spanledger import assembly

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = {"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}
def answer(request):
    return httpx2.Response(200, json=BODY)

spanledger.configure()
client = OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
recorder = assembly._runtime.recorder
assembly._runtime.engine.prices.wait()
returned = 0

def tell():
    while True:
        os.write(1, b"%d %d\\n" % (recorder.committed, returned))
        time.sleep(0.001)

threading.Thread(target=tell, daemon=True).start()
while True:
    client.chat.completions.create(model="gpt-4o", messages=[])
    returned += 1
    time.sleep(0.002)
"""


def rows_in(state):
    """Calls that are safe: in the ledger or in an outbox file, counted once."""
    found = set()
    for path in [state / "ledger.db", *(state / "outbox").glob("*.db")]:
        if path.exists():
            with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.OperationalError):
                table = "usage_records" if path.name == "ledger.db" else "records"
                found.update(record for (record,) in connection.execute(f"SELECT record_id FROM {table}"))
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("durability", ["async", "sync"])
def test_sigkill_at_random_moments_loses_nothing_that_was_acknowledged(home, durability):
    source = random.Random(7)
    acknowledged = 0
    for _ in range(KILLS):
        environ = {**os.environ, "SPANLEDGER_DURABILITY": durability}
        process = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True, env=environ)
        for line in process.stdout:
            if int(line.split()[1]) > 0:
                break
        time.sleep(source.uniform(0.05, 0.5))
        process.kill()
        said = [line, *process.communicate()[0].splitlines()]
        whole = [line.split() for line in said if re.fullmatch(r"\d+ \d+\n?", line)]
        committed, returned = map(int, whole[-1])
        acknowledged += returned if durability == "sync" else committed
    assert acknowledged > 50
    assert len(rows_in(home)) >= acknowledged


def test_the_next_living_process_delivers_what_a_killed_one_left_without_being_asked(home, client, ledger):
    environ = {**os.environ, "SPANLEDGER_FLUSH_INTERVAL": "3600"}
    process = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True, env=environ)
    for line in process.stdout:
        if int(line.split()[0]) >= 20:
            break
    process.kill()
    process.communicate()
    left = rows_in(home)
    assert len(left) >= 20

    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "I live"}])
    assert spanledger.flush()
    assert {row["record_id"] for row in ledger()} > left
    assert len(list((home / "outbox").glob("*.db"))) == 1  # our own; the drained one is gone


APP = """
import asyncio
import httpx2, spanledger
from openai import AsyncOpenAI

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = {"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}
spanledger.configure()
client = AsyncOpenAI(
    api_key="x",
    http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=BODY))),
)

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await client.chat.completions.create(model="gpt-4o", messages=[])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def get(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return b"done" in answer


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_uvicorn_that_is_stopped_loses_nothing_it_served(home, tmp_path, stop, workers):
    (tmp_path / "served.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen([*command, "--workers", str(workers)], cwd=tmp_path)
    try:
        served = 0
        deadline = time.monotonic() + 60
        while served < 40:
            assert time.monotonic() < deadline
            try:
                served += get(port)
            except OSError:
                time.sleep(0.1)
    finally:
        server.send_signal(stop)
        server.wait(timeout=30)
    assert len(rows_in(home)) == 40


WORKERS = """
import multiprocessing, os, sys
import httpx2, spanledger
from openai import OpenAI

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = {"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}
spanledger.configure()

def call(times):
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=BODY))
    client = OpenAI(api_key="x", http_client=httpx2.Client(transport=transport))
    for _ in range(times):
        client.chat.completions.create(model="gpt-4o", messages=[])

if __name__ == "__main__":
    call(5)
    if sys.argv[1] == "os._exit":
        child = os.fork()
        if child == 0:
            call(50)
            os._exit(0)
        os.waitpid(child, 0)
    else:
        context = multiprocessing.get_context(sys.argv[1])
        child = context.Process(target=call, args=(50,))
        child.start()
        child.join()
    call(5)
"""


@pytest.mark.parametrize("way", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_that_end_at_once_lose_nothing(home, tmp_path, way):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    subprocess.run([sys.executable, script, way], check=True, timeout=120)
    assert len(rows_in(home)) == 60


def test_a_forked_worker_that_leaves_by_os_exit_loses_nothing_in_sync_mode(home, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    environ = {**os.environ, "SPANLEDGER_DURABILITY": "sync"}
    subprocess.run([sys.executable, script, "os._exit"], check=True, timeout=120, env=environ)
    assert len(rows_in(home)) == 60


def test_an_application_that_just_ends_has_its_rows_in_the_ledger(home, tmp_path, ledger):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS.replace("call(5)\n    if", "call(5); sys.exit()\n    if"))
    subprocess.run([sys.executable, script, "-"], check=True, timeout=120)
    assert len(ledger(flush=False)) == 5
    assert list((home / "outbox").iterdir()) == []
