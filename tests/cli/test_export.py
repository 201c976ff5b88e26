"""`spanledger export` as a process: files that are whole or not there, pipes that close, little memory."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.cli.test_commands import BIN, command, record

from spanledger.cli import formats
from spanledger.ledger.sqlite import SqliteLedger, open_for_writing
from spanledger.model import Attribution

MANY = 50_000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def fill(home, rows):
    home.mkdir(mode=0o700, exist_ok=True)
    sink = SqliteLedger(home / "ledger.db")
    sink.send(rows)
    sink.close()


@pytest.fixture
def filled(home):
    fill(home, [record(1, 5 * 10**12, attribution=Attribution(team="a")), record(2, None, day=2)])
    return home


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """A ledger of `MANY` calls, by SQL."""
    home = tmp_path_factory.mktemp("many") / "state"
    fill(home, [record(1, 5 * 10**12, attribution=Attribution(team="a", metadata={"page": "x" * 200}))])
    connection = open_for_writing(home / "ledger.db")
    names = [name for _, name, *_ in connection.execute("PRAGMA table_info(usage_records)") if name != "record_id"]
    connection.execute(
        f"INSERT INTO usage_records (record_id, {', '.join(names)}) WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL"
        f" SELECT i + 1 FROM n WHERE i < {MANY}) SELECT printf('made-%d', i), {', '.join(names)} FROM usage_records, n"
    )
    connection.close()
    return f"sqlite:///{home}/ledger.db"


def names_in(directory):
    return sorted(each.name for each in directory.iterdir())


def test_a_file_is_private_and_whole(filled, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    done = command("export", "--columns", "team,cost_usd", "--output", folder / "usage.csv")
    assert (done.stdout, done.stderr) == ("", "")
    assert names_in(folder) == ["usage.csv"]
    assert (folder / "usage.csv").read_bytes() == b"team,cost_usd\r\na,5.000000000000\r\n,\r\n"
    assert stat.S_IMODE((folder / "usage.csv").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_replaced_only_when_asked_to(filled, tmp_path):
    target = tmp_path / "usage.csv"
    target.write_text("mine")
    done = command("export", "--output", target, expect=2)
    assert done.stderr == f"spanledger: {target} is there already; --force replaces it\n"
    assert target.read_text() == "mine"
    command("export", "--columns", "team", "--output", target, "--force")
    assert target.read_bytes() == b'team\r\na\r\n""\r\n'


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_what_is_no_plain_file_is_never_replaced(filled, tmp_path, kind):
    target = tmp_path / "target"
    {"directory": target.mkdir, "link": lambda: target.symlink_to("x"), "fifo": lambda: os.mkfifo(target)}[kind]()
    done = command("export", "--output", target, "--force", expect=2)
    assert done.stderr == f"spanledger: {target} is no plain file; name another with --output\n"


def test_a_directory_that_is_not_there_is_said(filled, tmp_path):
    done = command("export", "--output", tmp_path / "no" / "usage.csv", expect=1)
    said = f"{tmp_path}/no/usage.csv can't be written (No such file or directory); nothing was changed"
    assert done.stderr == f"spanledger: {said}\n"


def test_a_full_disk_leaves_what_was_there_and_no_half_file(many, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "usage.csv").write_text("mine")
    limit = 1 << 20

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [BIN / "spanledger", "export", "--ledger", many, "--output", folder / "usage.csv", "--force"],
        capture_output=True, text=True, timeout=60, check=False, preexec_fn=small,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"spanledger: {folder}/usage.csv can't be written (File too large); nothing was changed\n"
    assert names_in(folder) == ["usage.csv"]
    assert (folder / "usage.csv").read_text() == "mine"


@pytest.mark.parametrize(("form", "how", "code"), [("csv", signal.SIGINT, 1), ("parquet", signal.SIGTERM, 143)])
def test_an_export_that_is_interrupted_leaves_no_half_file(many, tmp_path, form, how, code):
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [BIN / "spanledger", "export", "--format", form, "--ledger", many, "--output", folder / "usage"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not names_in(folder) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert names_in(folder)[0].startswith(".spanledger-")
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert names_in(folder) == []


def test_a_reader_that_closes_the_pipe_early_ends_it_quietly(many):
    for form in ("csv", "jsonl", "json"):
        done = subprocess.run(
            ["bash", "-c", 'set -o pipefail; "$0" export --format "$1" --ledger "$2" | head -n 2',
             BIN / "spanledger", form, many],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")  # noqa: PTH110  # asked at import
def test_a_stdout_that_is_full_is_said():
    program = "from spanledger.cli.export import _stdout\nwith _stdout() as out: out.write(b'x')"
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert "stdout can't be written (No space left on device)" in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux")  # noqa: PTH110  # asked at import
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_memory_does_not_grow_with_the_ledger(many, tmp_path, form):
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from click.testing import CliRunner\n"
        "from spanledger.cli.main import main\n"
        "form, url, out = sys.argv[1:]\n"
        "for more in (['--where', 'team=nobody'], []):\n"
        "    arguments = ['export', '--format', form, '--ledger', url, '--output', out, '--force', *more]\n"
        "    assert CliRunner().invoke(main, arguments).exit_code == 0\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    out = tmp_path / "usage"
    done = subprocess.run(
        [sys.executable, "-c", program, form, many, out], capture_output=True, text=True, timeout=110, check=True
    )
    before, after = map(int, done.stdout.split())
    with out.open() as file:
        assert sum(1 for _ in file) == MANY + {"csv": 1, "json": 2, "jsonl": 0}[form]
    assert out.stat().st_size > 20_000_000
    assert after - before < 25_000


def test_parquet_is_written_in_row_groups(many, tmp_path):
    from pyarrow import parquet

    command("export", "--format", "parquet", "--ledger", many, "--output", tmp_path / "usage.parquet")
    found = parquet.ParquetFile(tmp_path / "usage.parquet").metadata
    assert found.num_rows == MANY
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [32_000, 18_000]


def test_parquet_needs_a_file(filled):
    done = command("export", "--format", "parquet", expect=2)
    assert done.stderr == "spanledger: Parquet is no text for a terminal or a pipe; name a file with --output\n"


def test_without_pyarrow_it_is_said_what_to_install(filled, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(formats.NotWell) as raised:
        formats.loaded_pyarrow()
    assert raised.value.exit_code == 1
    assert raised.value.message.endswith("; pip install 'spanledger[parquet]'")
    assert "\n" not in raised.value.message


def test_an_unknown_format_is_wrong_use(filled):
    assert "'focus' is not one of" in command("export", "--format", "focus", expect=2).stderr


def test_seconds_of_a_period_are_half_open(home):
    fill(home, [record(1, 1), record(2, 2, day=2)])
    start, end = datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2026, 11, 2, 12, tzinfo=UTC)
    done = command("export", "--columns", "cost_pusd", "--since", start.isoformat(), "--until", end.isoformat())
    assert done.stdout == "cost_pusd\n1\n"
    later = (start + timedelta(microseconds=1)).isoformat()
    assert command("export", "--columns", "cost_pusd", "--since", later).stdout == "cost_pusd\n2\n"
