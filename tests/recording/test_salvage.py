"""Damaged outbox files: what can be read of them is delivered once, the rest is counted, and nobody waits for it."""

import random
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.recording.asking import asked

import spanledger
from spanledger import assembly
from spanledger.homes import private_directory
from spanledger.model import Cost, UsageRecord, at, record_id_at, row_of
from spanledger.recording import salvage as salvaging
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Draft, Outbox
from spanledger.recording.salvage import salvage
from spanledger.recording.survey import quarantined

ROWS, FEW = 20_000, 2_000
A_COMMIT = 500
PAGE = 4096
TRIALS = 25
ID = re.compile(rb'"record_id":"([0-9a-f-]{36})"')


def row(number):
    record_id = record_id_at(1_790_000_000_000_000_000 + number * 1_000_000)
    return row_of(
        UsageRecord(
            record_id=record_id, started_at=at(1_790_000_000_000_000_000), operation="chat", provider="openai",
            source=f"test {number}", cost=Cost(),
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Pristine:
    """A file of a dead process as it was before it was damaged. Its last half may be in its log still."""

    ids: tuple[str, ...]
    whole: bytes
    half: bytes
    log: bytes

    @property
    def pages(self):
        return len(self.whole) // PAGE

    def leaves(self):
        """The pages that hold rows."""
        return [number for number in range(1, self.pages) if self.whole[number * PAGE] == 0x0D and self.ids_on(number)]

    def ids_on(self, page):
        return [each.decode() for each in ID.findall(self.whole[page * PAGE : (page + 1) * PAGE])]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return made(tmp_path_factory.mktemp("pristine") / "state" / "outbox", ROWS)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The same with fewer rows, where it is not their number that matters."""
    return made(tmp_path_factory.mktemp("small") / "state" / "outbox", FEW)


def made(directory, rows):
    outbox = Outbox.create(directory, ["ledger"], full_sync=False, max_bytes=2**30)
    outbox._connection.execute("PRAGMA wal_autocheckpoint = 0")
    drafts = [Draft.of(row(number)) for number in range(rows)]
    for first in range(0, len(drafts), A_COMMIT):
        if first == len(drafts) // 2:
            outbox.checkpoint()
        outbox.append(drafts[first : first + A_COMMIT])
    half, log = outbox.path.read_bytes(), Path(f"{outbox.path}-wal").read_bytes()
    outbox.checkpoint()
    whole = outbox.path.read_bytes()
    outbox.taken("ledger", rows)
    outbox.close()
    return Pristine(tuple(draft.record_id for draft in drafts), whole, half, log)


def left(directory, content, log=None):
    """An outbox file as a dead process left it."""
    private_directory(directory.parent)
    private_directory(directory)
    path = directory / "a-process-that-died.db"
    path.write_bytes(content)
    if log is not None:
        Path(f"{path}-wal").write_bytes(log)
    return path


def overwritten(content, at, by):
    return content[:at] + by + content[at + len(by) :]


class Counting:
    """A sink that counts how often it was sent each record."""

    name, idempotent, bulk = "ledger", True, 5000

    def __init__(self):
        self.sent = []

    def send(self, rows):
        self.sent += [each["record_id"] for each in rows]

    def close(self):
        """Nothing is held."""


def delivered(directory, sink=None):
    """What a process that starts beside the files delivers of them, and what it counts as lost."""
    sink, lost = sink or Counting(), []

    def count(name, amount, attributes):
        if name == "spanledger.records.lost":
            lost.append((attributes["reason"], amount))

    made = Delivery([sink], directory, batch_size=100, flush_interval=0.01, count=count)
    for _ in range(2):  # what is saved by one round is delivered by the next
        made.drain(60)
    made.stop(1)
    return sink.sent, lost


# What is saved.


@pytest.mark.parametrize("seed", range(TRIALS))
def test_three_overwritten_pages_cost_the_rows_on_them_and_no_other(tmp_path, pristine, seed):
    source = random.Random(seed)
    pages = source.sample(pristine.leaves(), 3)
    content, gone = pristine.whole, set()
    for page in pages:
        content = overwritten(content, page * PAGE, source.randbytes(PAGE))
        gone.update(pristine.ids_on(page))
    path = left(tmp_path / "state" / "outbox", content)
    sent, lost = delivered(path.parent)
    assert (sorted(sent), lost) == (sorted(set(pristine.ids) - gone), [("outbox_damaged", len(gone))])
    assert len(sent) > 0.9975 * ROWS
    (kept,) = quarantined(path.parent)
    assert kept.name.startswith("a-process-that-died.db.corrupt-")
    assert kept.read_bytes() == content
    assert [each for each in path.parent.iterdir() if ".db.corrupt-" not in each.name] == []


def test_pages_that_lead_to_rows_may_be_gone_the_rows_are_found_without(tmp_path, pristine):
    leaves = set(pristine.leaves())
    content = pristine.whole
    for page in range(1, pristine.pages):
        if page not in leaves and content[page * PAGE] == 0x05:
            content = overwritten(content, page * PAGE, b"\x55" * PAGE)
    path = left(tmp_path / "state" / "outbox", content)
    sent, lost = delivered(path.parent)
    assert (sorted(sent), lost) == (sorted(pristine.ids), [])


def all_of(pristine):
    return set(pristine.ids), 0


def those_before(cut):
    """The rows on the pages before the cut, and how many are after it."""

    def known(pristine):
        found = {each for page in pristine.leaves() if page < cut(pristine) for each in pristine.ids_on(page)}
        return found, len(pristine.ids) - len(found)

    return known


DAMAGE = {
    "half of the file cut off": (
        lambda pristine: pristine.whole[: pristine.pages // 2 * PAGE],
        those_before(lambda pristine: pristine.pages // 2),
    ),
    "cut off in the middle of a page": (
        lambda pristine: pristine.whole[: 100 * PAGE + 77],
        those_before(lambda _: 100),
    ),
    "all zero": (lambda pristine: bytes(len(pristine.whole)), lambda _: (set(), 0)),
    "garbage for a header": (lambda pristine: overwritten(pristine.whole, 0, b"\xa5" * 100), all_of),
    "garbage for a first page": (lambda pristine: overwritten(pristine.whole, 0, b"\xa5" * PAGE), all_of),
    "user_version zeroed": (lambda pristine: overwritten(pristine.whole, 60, bytes(4)), all_of),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_process_beside_a_damaged_file_saves_it_into_the_ledger_and_doctor_says_so(
    home, client, ledger, recording, small, damage
):
    harm, expected = DAMAGE[damage]
    content = harm(small)
    path = left(home / "outbox", content)
    saved, gone = expected(small)
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush(60)
    assert spanledger.flush(60)
    found = [record_id for (record_id,) in ledger("record_id")]
    assert len(found) == len(set(found)) == len(saved) + 1
    assert set(found) >= saved
    lost = [({"reason": "outbox_damaged"}, gone)] if gone else []
    assert recording.points("spanledger.records.lost") == lost
    (kept,) = quarantined(path.parent)
    assert kept.read_bytes() == content
    status, said = asked("doctor")
    assert (status, f"1 damaged files were put aside: {kept.name}" in said) == (1, True)
    status, said = asked("outbox", "status")
    assert (status, f"{kept} was damaged and put aside" in said) == (1, True)


def test_an_empty_file_is_no_damage_and_goes(tmp_path):
    path = left(tmp_path / "state" / "outbox", b"")
    assert delivered(path.parent) == ([], [])
    assert list(path.parent.iterdir()) == []


def test_a_log_whose_file_is_empty_is_kept(tmp_path, pristine):
    path = left(tmp_path / "state" / "outbox", b"", pristine.log)
    delivered(path.parent)
    assert [each.stat().st_size for each in path.parent.glob("*.corrupt-*-wal")] == [len(pristine.log)]


@pytest.mark.parametrize("seed", range(5))
def test_of_a_log_that_was_cut_off_every_whole_commit_is_delivered(tmp_path, pristine, seed):
    cut = random.Random(seed).randrange(len(pristine.log))
    path = left(tmp_path / "state" / "outbox", pristine.half, pristine.log[:cut])
    sent, lost = delivered(path.parent)
    whole, rest = divmod(len(sent), A_COMMIT)
    assert (rest, whole >= ROWS // 2 // A_COMMIT, lost) == (0, True, [])
    assert sent == list(pristine.ids[: len(sent)])
    share = (len(sent) - ROWS // 2) / (ROWS // 2)
    assert share >= cut / len(pristine.log) - 2 * A_COMMIT / ROWS - 0.01
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE sqlite_sequence SET seq = 4611686018427387904",
        "UPDATE sqlite_sequence SET seq = -5",
        "UPDATE sqlite_sequence SET seq = 'many'",
        "UPDATE sqlite_sequence SET seq = x'00ff'",
        "DELETE FROM sqlite_sequence",
        "UPDATE cursors SET seq = 4611686018427387904",
        "UPDATE cursors SET seq = -4611686018427387904",
        "UPDATE cursors SET seq = 'many'",
        "UPDATE cursors SET sink = x'00ff'",
        "UPDATE records SET record_id = x'00ff' WHERE seq = 9",
        "INSERT INTO dead VALUES (x'00ff', 1.5, x'00ff', 'never', x'00ff')",
    ],
)
def test_numbers_that_make_no_sense_are_not_believed(tmp_path, nonsense):
    directory = tmp_path / "state" / "outbox"
    outbox = Outbox.create(directory, ["ledger"], full_sync=False, max_bytes=2**30)
    rows = [row(number) for number in range(2000)]
    outbox.append([Draft.of(each) for each in rows])
    outbox._connection.execute(nonsense)
    outbox._connection.execute("PRAGMA user_version = 0")
    outbox.abandon()
    sent, lost = delivered(directory)
    assert (sorted(sent), lost) == (sorted(each["record_id"] for each in rows), [])


# Nobody waits for it, and nothing is lost by a crash meanwhile.


def test_the_first_call_and_its_commit_do_not_wait_for_the_salvage(home, client, ledger, small, monkeypatch):
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert may_go_on.wait(60)
        return salvage(*arguments)

    monkeypatch.setattr("spanledger.recording.delivery.salvage", slow)
    left(home / "outbox", overwritten(small.whole, 0, b"\xa5" * 100))
    recorder = assembly._runtime.recorder
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert begun.wait(60)
    client.embeddings.create(model="text-embedding-3-small", input="x")
    assert recorder.commit(30)
    assert (recorder.committed, may_go_on.is_set()) == (2, False)
    assert spanledger.flush(0.1) is False
    may_go_on.set()
    assert spanledger.flush(60)
    assert spanledger.flush(60)
    assert len(ledger()) == FEW + 2


class CrashError(Exception):
    """The process is gone."""


def crash(*_):
    raise CrashError


@pytest.mark.parametrize("step", ["_read", "_first_page", "Outbox", "_set_aside"])
def test_a_salvage_that_breaks_off_loses_nothing(tmp_path, small, monkeypatch, step):
    path = left(tmp_path / "state" / "outbox", overwritten(small.whole, 0, b"\xa5" * 100))
    with monkeypatch.context() as broken:
        broken.setattr(salvaging, step, crash if step != "Outbox" else type("Broken", (Outbox,), {"of_saved": crash}))
        with pytest.raises(CrashError):
            salvage(path, ["ledger"])
    ledger = Counting()
    sent, lost = delivered(path.parent, ledger)
    assert (sorted(set(sent)), lost) == (sorted(small.ids), [])
    assert [each for each in path.parent.iterdir() if ".db.corrupt-" not in each.name] == []


KILLED = """
import os, pathlib, signal, sqlite3, sys
from spanledger.recording import outbox, salvage

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

step = sys.argv[2]
if step == "create":
    create = outbox.Outbox.create
    outbox.Outbox.create = classmethod(lambda cls, *a, **k: (create(*a, **k), die()) if not a[1] else die())
elif step == "transaction":
    outbox._Transaction.__exit__ = die
else:
    setattr(salvage, step, die)
salvage.salvage(pathlib.Path(sys.argv[1]), ["ledger"])
"""


@pytest.mark.parametrize("step", ["create", "transaction", "_set_aside"])
def test_a_process_killed_in_the_middle_of_a_salvage_loses_nothing(tmp_path, small, step):
    path = left(tmp_path / "state" / "outbox", overwritten(small.whole, 60, bytes(4)))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), step], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    sent, lost = delivered(path.parent)
    assert (sorted(set(sent)), lost) == (sorted(small.ids), [])
    assert [each for each in path.parent.iterdir() if ".db.corrupt-" not in each.name] == []


def test_of_two_that_come_at_once_one_saves_the_file(tmp_path, pristine):
    path = left(tmp_path / "state" / "outbox", overwritten(pristine.whole, 60, bytes(4)))
    done, failed = [], []

    def come():
        try:
            done.append(salvage(path, ["ledger"]))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (one,) = [each for each in done if each is not None]
    assert (one.saved, one.damaged, failed) == (ROWS, 0, [])


# A process's own file is damaged while it runs.


def harmed(path, what):
    """Overwrite pages under a living process; its log, where that is what is said."""
    target = Path(f"{path}-wal") if what == "log" else path
    size = target.stat().st_size
    with target.open("r+b") as file:
        if what == "cut off":
            file.truncate(PAGE)
        else:
            file.seek(0 if what == "everything" else 32 if what == "log" else PAGE)
            file.write(random.Random(1).randbytes(size - file.tell()))


@pytest.mark.lenient
@pytest.mark.parametrize("what", ["everything", "all but the first page", "log", "cut off"])
def test_damage_to_the_own_file_loses_no_later_row(home, client, ledger, what):
    for _ in range(20):
        client.embeddings.create(model="text-embedding-3-small", input="before")
    assert spanledger.flush()
    before = {record_id for (record_id,) in ledger("record_id")}
    own = assembly._runtime.recorder._writer._outbox
    own.checkpoint()
    if what == "log":
        own.settle([])  # so that there is one
        own.failed("ledger", "nothing")
    harmed(own.path, what)
    for _ in range(20):
        client.embeddings.create(model="text-embedding-3-small", input="after")
    spanledger.flush()
    for _ in range(20):
        client.embeddings.create(model="text-embedding-3-small", input="later")
    spanledger.shutdown(30)
    spanledger.configure()
    client.embeddings.create(model="text-embedding-3-small", input="another life")
    assert spanledger.flush(30)
    assert spanledger.flush(30)
    found = {record_id for (record_id,) in ledger("record_id")}
    assert (found >= before, len(found)) == (True, 61)
