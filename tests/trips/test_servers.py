"""What real servers and pools of processes do to a recording: every call the client saw finish is one row, never two.

The applications here do what a user does, `spanledger.configure()` at import or nothing at all, and have no hook.
`SPANLEDGER_SOAK=1` runs every cell of the matrices instead of those that differ from each other.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOAK = bool(os.environ.get("SPANLEDGER_SOAK"))
CALLS = 40 if SOAK else 20
PATIENCE = 50.0
BIN = Path(sys.executable).parent
STARTS = {
    "in code": [],
    "opentelemetry-instrument": [str(BIN / "opentelemetry-instrument")],
    "spanledger run": [str(BIN / "spanledger"), "run", "--"],
}

CALLS_OF_A_USER = """
import asyncio, os, sys, time
from pathlib import Path
import httpx2
from openai import AsyncOpenAI, OpenAI

MADE = os.open("made", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = {"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}

def transport():
    return httpx2.MockTransport(lambda request: httpx2.Response(200, json=BODY))

client = OpenAI(api_key="x", http_client=httpx2.Client(transport=transport()))
async_client = AsyncOpenAI(api_key="x", http_client=httpx2.AsyncClient(transport=transport()))

def call(*_):
    client.chat.completions.create(model="gpt-4o", messages=[])
    os.write(MADE, b".")
    return os.getpid()

def wsgi(environ, start_response):
    call()
    if environ["PATH_INFO"] == "/stuck":
        Path("stuck").touch()
        time.sleep(600)
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"done %d" % os.getpid()]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await async_client.chat.completions.create(model="gpt-4o", messages=[])
    os.write(MADE, b".")
    if scope["path"] == "/stuck":
        Path("stuck").touch()
        await asyncio.sleep(600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done %d" % os.getpid()})
"""
CONFIGURED = "import spanledger\nspanledger.configure()\n" + CALLS_OF_A_USER


def rows_in(home):
    """Ids of the calls that are safe: in the ledger or in an outbox file, or in both; never twice in one."""
    found = set()
    for path in [home / "ledger.db", *(home / "outbox").glob("*.db")]:
        with contextlib.suppress(sqlite3.OperationalError):  # gone or still without tables: there is nothing in it
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
            with contextlib.closing(connection):
                table = "usage_records" if path.name == "ledger.db" else "records"
                ids = [record for (record,) in connection.execute(f"SELECT record_id FROM {table}")]
                assert len(ids) == len(set(ids)), path
                found.update(ids)
    return found


def made(user):
    """Calls that have returned to the application, whether or not the client saw an answer."""
    return (user / "made").stat().st_size


def until(true):
    """Wait for a condition; the test fails if it never comes."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer


class Family:
    """A process and all its descendants, in a process group of their own, silent on the terminal."""

    def __init__(self, command, cwd, **environ):
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environ}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.said = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def stop(self, how):
        """Signal the first process; its exit code once the last of the family is gone."""
        self.process.send_signal(how)
        return self.end()

    def end(self):
        """The exit code, once the last of the family is gone: that is when nobody holds its output any more."""
        self.said += self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode


class Server(Family):
    """A server on a socket file: no port that somebody else could take."""

    def __init__(self, command, cwd, **environ):
        self.socket = cwd / "s"
        self.seen = collections.Counter()
        """Process → answers that the client has got from it."""
        super().__init__(command, cwd, **environ)

    def ask(self, _=None):
        """Ask until there is an answer."""
        until(self._answered)

    def _answered(self):
        assert self.process.poll() is None, self.process.communicate()[0]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            head, _, answer = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"done ")
            if head.split()[1:2] == [b"200"] and answer:
                self.seen[int(answer.split()[0])] += 1
                return True
        return False

    def serve(self, times):
        """As many answers, to four clients at a time."""
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            list(clients.map(self.ask, range(times)))

    def get_stuck(self):
        """Ask for what never ends. The connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.socket))
        connection.sendall(b"GET /stuck HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        until((self.socket.parent / "stuck").exists)
        return connection


@pytest.fixture
def user(tmp_path):
    """The directory of the application, whose module is `calls`."""
    (tmp_path / "calls.py").write_text(CONFIGURED)
    return tmp_path


def gunicorn(worker, *options, start=()):
    kinds = {"sync": "sync", "gthread": "gthread", "uvicorn": "uvicorn_worker.UvicornWorker"}
    app = "calls:asgi" if worker == "uvicorn" else "calls:wsgi"
    return [
        *start, sys.executable, "-m", "gunicorn", app, "--bind", "unix:s", "--worker-class", kinds[worker],
        "--workers", "2", "--log-level", "error", "--no-control-socket", "--graceful-timeout", "3",
        *(["--threads", "4"] if worker == "gthread" else []), *options,
    ]  # fmt: skip


KINDS = ["sync", "gthread", "uvicorn"]
EVERY_STOP = list(itertools.product(KINDS, [(), ("--preload",)], ["TERM", "INT", "QUIT"]))
SHORT_STOPS = [("sync", ("--preload",), "QUIT"), ("uvicorn", ("--preload",), "TERM")]


@pytest.mark.parametrize(("worker", "preload", "stop"), EVERY_STOP if SOAK else SHORT_STOPS)
def test_what_gunicorn_has_served_is_recorded_however_its_master_is_stopped(home, user, worker, preload, stop):
    with Server(gunicorn(worker, *preload), user) as server:
        server.serve(CALLS)
        server.stop(getattr(signal, f"SIG{stop}"))
    assert len(rows_in(home)) == CALLS, server.said


@pytest.mark.soak("loading every instrumentation takes long; test_zero_code.py stands for it")
@pytest.mark.parametrize("start", ["opentelemetry-instrument", "spanledger run"])
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_gunicorn_without_a_line_of_code_in_the_application_is_recorded(home, user, start, preload):
    (user / "calls.py").write_text(CALLS_OF_A_USER)
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    with Server(gunicorn("sync", *preload, start=STARTS[start]), user, **exporters) as server:
        server.serve(CALLS)
        server.stop(signal.SIGQUIT)
    assert len(rows_in(home)) == CALLS, server.said


@pytest.mark.soak("the next test has such a call, too")
@pytest.mark.parametrize("worker", KINDS)
def test_a_call_made_before_the_workers_are_forked_is_the_masters_and_theirs_are_theirs(home, user, worker):
    (user / "calls.py").write_text(CONFIGURED + "\ncall()\n")  # threads and an outbox exist when gunicorn forks
    with Server(gunicorn(worker, "--preload"), user) as server:
        server.serve(CALLS)
        server.stop(signal.SIGTERM)
    assert len(rows_in(home)) == CALLS + 1, server.said


@pytest.mark.parametrize("worker", KINDS if SOAK else ["sync"])
def test_workers_that_gunicorn_replaces_after_some_requests_lose_nothing(home, user, worker):
    (user / "calls.py").write_text(CONFIGURED + "\ncall()\n")
    with Server(gunicorn(worker, "--preload", "--max-requests", "5"), user) as server:
        server.serve(CALLS)
        until(lambda: server.ask() or len(server.seen) > 2)  # uvicorn looks at its count once a while
        server.stop(signal.SIGTERM)
    assert len(server.seen) > 2
    assert len(rows_in(home)) == made(user) > CALLS, server.said


@pytest.mark.parametrize("worker", KINDS if SOAK else ["gthread"])
def test_workers_that_gunicorn_kills_after_its_grace_lose_nothing_they_served(home, user, worker):
    with Server(gunicorn(worker, "--preload", "--graceful-timeout", "1"), user) as server:
        server.serve(CALLS)
        with server.get_stuck():
            server.stop(signal.SIGTERM)
    assert len(rows_in(home)) == CALLS + 1, server.said  # the stuck request had made its call


@pytest.mark.parametrize("durability", ["sync", "async"] if SOAK else ["sync"])
@pytest.mark.parametrize("worker", KINDS if SOAK else ["sync"])
def test_gunicorn_workers_killed_by_sigkill_lose_nothing_that_was_committed(home, user, worker, durability):
    with Server(gunicorn(worker, "--preload"), user, SPANLEDGER_DURABILITY=durability) as server:
        server.serve(CALLS)
        if durability == "async":  # what is in the queue at a SIGKILL is the price of this mode
            until(lambda: len(rows_in(home)) == CALLS)
        for process in list(server.seen):
            os.kill(process, signal.SIGKILL)
        server.serve(10)
        server.stop(signal.SIGTERM)
    assert len(rows_in(home)) == made(user) >= CALLS + 10, server.said


def uvicorn(*options, start=()):
    return [*start, sys.executable, "-m", "uvicorn", "calls:asgi", "--uds", "s", "--log-level", "error", *options]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT] if SOAK else [signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"] if SOAK else ["2"])
def test_what_uvicorn_has_served_is_recorded_however_it_is_stopped(home, user, stop, workers):
    with Server(uvicorn("--workers", workers), user) as server:
        server.serve(CALLS)
        server.stop(stop)
    assert len(rows_in(home)) == CALLS, server.said


@pytest.mark.soak("a killed worker of gunicorn stands for it")
@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_uvicorn_worker_killed_by_sigkill_loses_nothing_that_was_committed(home, user, durability):
    with Server(uvicorn("--workers", "2"), user, SPANLEDGER_DURABILITY=durability) as server:
        server.serve(CALLS)
        if durability == "async":
            until(lambda: len(rows_in(home)) == CALLS)
        os.kill(server.seen.most_common(1)[0][0], signal.SIGKILL)
        server.serve(10)
        server.stop(signal.SIGTERM)
    assert len(rows_in(home)) == made(user) >= CALLS + 10, server.said


CELERY = """
import os
from celery import Celery

app = Celery("tasks", broker="filesystem://", backend=f"file://{os.getcwd()}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.01,
    },
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
)
"""
CELERY_TASKS = """
from calls import call
from queues import app
ask = app.task(call, name="ask")
"""
CELERY_CLIENT = """
import sys
from queues import app
asked = [app.send_task("ask") for _ in range(int(sys.argv[1]))]
for each in asked:
    each.get(timeout=60, interval=0.02)
print("seen", len(asked))
"""


@pytest.fixture
def celery(user):
    """The command of a worker, and a client that waits for the results of that many tasks."""
    (user / "queues.py").write_text(CELERY)
    (user / "tasks.py").write_text(CELERY_TASKS)
    (user / "client.py").write_text(CELERY_CLIENT)
    for name in ("queue", "control", "results"):
        (user / name).mkdir()

    def command(*options, start=()):
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
        return [*start, sys.executable, "-m", "celery", "-A", "tasks", "worker", *quiet, *options]

    return command


def tasks_done(user, times=CALLS, *more):
    with Family([sys.executable, "client.py", str(times), *more], user, SPANLEDGER_ENABLED="false") as client:
        client.end()
    assert f"seen {times}" in client.said, client.said


POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "a process a task": ("--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1"),
    "solo": ("--pool", "solo"),
    "threads": ("--pool", "threads", "--concurrency", "2"),
}


@pytest.mark.parametrize("stop", ["TERM", "INT", "QUIT"] if SOAK else ["TERM"])
@pytest.mark.parametrize("pool", POOLS if SOAK else ["prefork", "a process a task"])
def test_celery_tasks_with_a_result_are_recorded_when_the_worker_is_stopped(home, user, celery, pool, stop):
    tasks = 4 if pool == "a process a task" else CALLS  # a process that ends takes Celery a second
    with Family(celery(*POOLS[pool]), user) as worker:
        tasks_done(user, tasks)
        worker.stop(getattr(signal, f"SIG{stop}"))
    assert len(rows_in(home)) == tasks, worker.said


@pytest.mark.soak("loading every instrumentation takes long; test_zero_code.py stands for it")
@pytest.mark.parametrize("start", ["opentelemetry-instrument", "spanledger run"])
def test_celery_without_a_line_of_code_in_the_application_is_recorded(home, user, celery, start):
    (user / "calls.py").write_text(CALLS_OF_A_USER)
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    with Family(celery(*POOLS["prefork"], start=STARTS[start]), user, **exporters) as worker:
        tasks_done(user)
        worker.stop(signal.SIGTERM)
    assert len(rows_in(home)) == CALLS, worker.said


REDIS = """
from pathlib import Path
from fakeredis import FakeRedisConnection, TcpFakeServer

class Client(FakeRedisConnection):
    def read_response(self, **options):
        try:
            return super().read_response(**options)
        except Exception as error:
            return error  # an answer: the server would close the connection

class Server(TcpFakeServer):
    def get_request(self):
        connection, address = super().get_request()
        names = {"addr": "%s:%d" % address, "laddr": "%s:%d" % self.server_address}  # it would give tuples
        self.clients[address] = Client(server=self.fake_server, client_info=names, protocol=2)
        return connection, address

server = Server(("127.0.0.1", 0))
Path("port.new").write_text(str(server.server_address[1]))
Path("port.new").rename("port")
server.serve_forever()
"""
RQ_CLIENT = """
import sys, time
from redis import Redis
from rq import Queue
queue = Queue(connection=Redis.from_url(sys.argv[2]))
jobs = [queue.enqueue("calls.call") for _ in range(int(sys.argv[1]))]
while not all(job.get_status() == "finished" for job in jobs):
    time.sleep(0.02)
print("seen", len(jobs))
"""


@pytest.fixture
def redis(user):
    """The address of a server of its own: who is gone keeps waiting for a job in this one."""
    (user / "redis_server.py").write_text(REDIS)
    with Family([sys.executable, "redis_server.py"], user):
        until((user / "port").exists)
        yield f"redis://127.0.0.1:{(user / 'port').read_text()}"


RQ = {"a fork a job": "rq.Worker", "one process": "rq.worker.SimpleWorker", "a spawn a job": "rq.worker.SpawnWorker"}


@pytest.mark.parametrize("kind", RQ if SOAK else ["a fork a job"])
def test_rq_jobs_with_a_result_are_recorded(home, user, redis, kind):
    (user / "client.py").write_text(RQ_CLIENT)
    jobs = CALLS if kind == "one process" else 4
    command = [sys.executable, "-m", "rq.cli", "worker", "--quiet", "--url", redis, "-w", RQ[kind]]
    # The worker imports the application first: its jobs then are forks that have everything loaded.
    code = f"import calls, sys\nfrom rq.cli import main\nsys.argv[1:] = {command[3:]!r}\nmain()"
    with Family([sys.executable, "-c", code], user) as worker:
        tasks_done(user, jobs, redis)
        worker.stop(signal.SIGTERM)
    assert len(rows_in(home)) == jobs, worker.said


PROCESSES = """
import concurrent.futures, multiprocessing, sys
from calls import call

def calls(times, results):
    results.put([call() for _ in range(times)])

if __name__ == "__main__":
    kind, way, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    context = multiprocessing.get_context(way)
    if kind == "Process":
        results = context.SimpleQueue()
        children = [context.Process(target=calls, args=(times // 2, results)) for _ in range(2)]
        for child in children:
            child.start()
        done = [each for _ in children for each in results.get()]
        for child in children:
            child.join()
    elif kind == "Pool":
        with context.Pool(2) as pool:  # leaves by `terminate`, which is a SIGTERM for each worker
            done = pool.map(call, range(times))
    elif kind == "Pool, closed":
        pool = context.Pool(2)
        done = pool.map(call, range(times))
        pool.close()
        pool.join()
    elif kind == "a process a task":
        with context.Pool(2, maxtasksperchild=1) as pool:
            done = pool.map(call, range(times), chunksize=1)
    else:
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            done = list(pool.map(call, range(times)))
    print("seen", len(done))
"""
WAYS = ["fork", "forkserver", "spawn"]
POOLED = ["Process", "Pool", "Pool, closed", "a process a task", "ProcessPoolExecutor"]
SHORT_POOLED = [("Pool", "fork")]  # `Process` in test_durability.py


@pytest.mark.parametrize(("kind", "way"), list(itertools.product(POOLED, WAYS)) if SOAK else SHORT_POOLED)
def test_results_of_python_s_own_processes_are_recorded(home, user, kind, way):
    (user / "main.py").write_text(PROCESSES)
    times = 6 if kind == "a process a task" and way != "fork" else CALLS
    with Family([sys.executable, "main.py", kind, way, str(times)], user) as program:
        assert program.end() == 0, program.said
    assert f"seen {times}" in program.said, program.said
    assert len(rows_in(home)) == times, program.said


SIGNALLED = """
import signal, sys
from pathlib import Path
from calls import call

def mine(number, frame):
    print("mine", number)
    sys.exit(7)

if sys.argv[1] == "own":
    signal.signal(signal.SIGTERM, mine)
before = signal.getsignal(signal.SIGTERM)
for _ in range(int(sys.argv[2])):
    call()
assert signal.getsignal(signal.SIGTERM) is before
Path("seen").touch()
signal.pause()
"""


SIGTERMS = [("own", 7, "async"), ("none", -signal.SIGTERM, "sync")]


@pytest.mark.parametrize(("handler", "code", "durability"), SIGTERMS if SOAK else SIGTERMS[:1])
def test_sigterm_does_what_the_application_wants_and_its_calls_are_safe(home, user, handler, code, durability):
    (user / "main.py").write_text(SIGNALLED)
    # Unhandled it is as sudden as a SIGKILL: what is in the queue at that moment is the price of `async`.
    with Family([sys.executable, "main.py", handler, str(CALLS)], user, SPANLEDGER_DURABILITY=durability) as program:
        until((user / "seen").exists)
        assert program.stop(signal.SIGTERM) == code, program.said
    assert program.said == ("mine 15\n" if handler == "own" else "")
    assert len(rows_in(home)) == CALLS


EXITING = """
import os, signal, sys, threading, time
from calls import call

sync = os.fsync

def slow(descriptor):
    started.set()
    time.sleep(0.05)
    sync(descriptor)

def terminate():
    started.wait()
    while not exiting.is_set():
        time.sleep(0.001)
    time.sleep(0.03)
    os.kill(os.getpid(), signal.SIGTERM)

started, exiting = threading.Event(), threading.Event()
os.fsync = slow
threading.Thread(target=terminate, daemon=True).start()
call()
started.wait()
import atexit
atexit.register(exiting.set)
"""


def test_sigterm_in_the_middle_of_an_exit_does_not_cut_off_the_commit(home, user):
    (user / "main.py").write_text(EXITING)
    with Family([sys.executable, "main.py"], user) as program:
        assert program.end() == -signal.SIGTERM, program.said
    assert len(rows_in(home)) == 1
