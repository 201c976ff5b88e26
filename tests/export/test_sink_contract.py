"""Every sink keeps one contract: through a real outbox each row reaches the receiver or is dead with a reason."""

import contextlib
import json
import random
import sqlite3

import grpc
import pytest
from tests.export.receiver import Answer, GrpcReceiver, Receiver, Round, records_in, row

from spanledger.export.sinks.lines import JsonlSink
from spanledger.export.sinks.table import KINDS, sink_of
from spanledger.ledger.sqlite import SqliteLedger
from spanledger.recording.files import Lease
from spanledger.recording.outbox import Draft
from spanledger.settings import read_settings

ROWS = 24
RETRYABLE = (401, 403, 404, 408, 429, 500, 502, 503, 504)
PERMANENT = (400, 409, 413, 422)
PARTS = ("prompt", "completion", "tool_usage")


class Way:
    """One sink and how the test sees what it does: `flaky`: it fails now and then; `refused`: keys it never takes."""

    settings = ()
    """Keyword of `configure` and value; `None` for the address of the receiver."""

    def __init__(self, home, seed):
        self.home, self.random = home, random.Random(seed)
        self.flaky, self.refused, self.attempts = False, frozenset(), 0

    def keys_of(self, row):
        """What the receiver gets of a row, each to be seen once."""
        return [row["record_id"]]

    def fails(self):
        self.attempts += 1
        return self.flaky and (self.attempts == 1 or self.random.random() < 0.4)

    def poison(self, rows):
        """Make some of the rows such as this receiver never takes."""
        chosen = self.random.sample([key for each in rows for key in self.keys_of(each)], 6)
        self.refused = frozenset(chosen)
        return rows

    def __enter__(self):
        self.open = contextlib.ExitStack()
        self.sink = self.make()
        return self

    def __exit__(self, *_):
        self.sink.close()
        self.open.close()


class OverHttp(Way):
    def make(self):
        self.receiver = self.open.enter_context(Receiver(self.answer))
        given = {name: self.receiver.url if value is None else value for name, value in self.settings}
        return sink_of(self.name, read_settings(given, {}))

    def answer(self, request):
        if self.fails():
            status = self.random.choice((*RETRYABLE, "reset", "cut"))
            return Answer(fault=status) if isinstance(status, str) else Answer(status)
        if self.refused.intersection(self.keys_in(request)):
            return Answer(self.random.choice(PERMANENT))
        return Answer(self.random.choice((200, 201, 202, 204)))

    def taken(self):
        return [key for request in self.receiver.accepted for key in self.keys_in(request)]


class UsageApi(OverHttp):
    name = "usage_api"
    settings = (("usage_api_url", None),)

    def keys_of(self, row):
        return [(row["record_id"], part) for part in PARTS]

    def keys_in(self, request):
        return [(request.json["message_id"], request.json["type"])]


class TokenTally(OverHttp):
    name = "tokentally"
    settings = (("tokentally_base_url", None), ("tokentally_api_key", "tt_x"))

    def keys_of(self, row):
        return [json.loads(row["metadata"])["n"]]

    def keys_in(self, request):
        return [request.json["metadata"]["n"]]


class OpenMeter(OverHttp):
    name = "openmeter"
    settings = (("openmeter_url", None),)

    def keys_in(self, request):
        return [event["id"] for event in request.json]


class Otlp(OverHttp):
    name = "otlp"
    protocol = "http/protobuf"

    def make(self):
        self.receiver = self.open.enter_context(Receiver(self.answer))
        return self.of_the_environment()

    def of_the_environment(self):
        patch = self.open.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", self.receiver.url)
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", self.protocol)
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
        sink = sink_of(self.name, read_settings())
        sink.send([])  # the exporter reads its environment at the first use
        self.receiver.seen.clear()
        self.attempts = 0
        return sink

    def keys_in(self, request):
        return records_in(request)


class OtlpOverGrpc(Otlp):
    protocol = "grpc"

    def make(self):
        self.receiver = self.open.enter_context(GrpcReceiver())
        sink = self.of_the_environment()
        self.receiver.answer = self.answer
        return sink

    def answer(self, request):
        code = grpc.StatusCode
        if self.fails():
            return self.random.choice((code.UNAVAILABLE, code.ABORTED, code.UNAUTHENTICATED, code.INTERNAL)), ()
        if self.refused.intersection(self.keys_in(request)):
            return code.INVALID_ARGUMENT, ()
        return type(self.receiver).__init__.__defaults__[0](request)


class IntoFile(Way):
    """Something is in the way, or is not, before each attempt."""

    def __enter__(self):
        super().__enter__()
        send = self.sink.send
        self.sink.send = lambda rows: (self.before(), send(rows))
        return self


class Jsonl(IntoFile):
    """Fails while somebody else holds its lock, or while something stands where its file should be."""

    name = "jsonl"

    def make(self):
        self.path = self.home / "out" / "usage.jsonl"
        self.path.parent.mkdir()
        self.lease = Lease(self.path.with_name("usage.jsonl.lock"))
        return sink_of(self.name, read_settings({"jsonl_path": self.path, "jsonl_max_bytes": 30_000}, {}))

    def poison(self, rows):
        pytest.skip("a file refuses no row")

    def before(self):
        self.lease.release()
        aside = self.path.with_name("aside")
        if self.path.is_dir():
            self.path.rmdir()
            if aside.exists():
                aside.rename(self.path)
        if self.fails():
            if self.random.random() < 0.5:
                assert self.lease.acquire()
            else:
                if self.path.exists():
                    self.path.rename(aside)
                self.path.mkdir()

    def taken(self):
        files = sorted(file for file in self.path.parent.glob("usage.jsonl*") if file.suffix != ".lock")
        lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
        return [json.loads(line)["record_id"] for line in lines]


class Console(Way):
    name = "console"

    def make(self):
        self.written = self.home / "stderr"
        self.open.enter_context(contextlib.redirect_stderr(self.open.enter_context(self.written.open("w"))))
        return sink_of(self.name, read_settings({}, {}))

    def poison(self, rows):
        pytest.skip("a console refuses no row")

    def taken(self):
        lines = self.written.read_text().splitlines()
        return [json.loads(line.removeprefix("spanledger "))["record_id"] for line in lines]


class Ledger(IntoFile):
    """Refuses numbers that SQLite has no room for; fails while somebody else writes, or where its file can't be."""

    name = "ledger"

    def make(self):
        self.path = self.home / "out" / "ledger.db"
        patch = self.open.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("spanledger.ledger.sqlite.LEASE_WAIT", 0.0)
        self.path.parent.mkdir(mode=0o700)
        self.lease = Lease(self.path.with_name("ledger.db.lock"))
        return SqliteLedger(self.path)

    def poison(self, rows):
        chosen = self.random.sample(range(len(rows)), 6)
        self.refused = frozenset(rows[number]["record_id"] for number in chosen)
        return [{**each, "weight": 2**70} if each["record_id"] in self.refused else each for each in rows]

    def before(self):
        self.lease.release()
        if self.fails():
            assert self.lease.acquire()

    def taken(self):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [found for (found,) in connection.execute("SELECT record_id FROM usage_records ORDER BY record_id")]


WAYS = (UsageApi, TokenTally, OpenMeter, Otlp, OtlpOverGrpc, Jsonl, Console, Ledger)
by_way = pytest.mark.parametrize("kind", WAYS, ids=lambda kind: kind.__name__)


def test_every_kind_of_sink_is_here():
    assert {kind.name for kind in WAYS} == {*KINDS, "ledger"}


def delivered(kind, home, *, flaky=False, poisoned=False, seed=1):
    """Rows through an outbox; what the receiver has, what it should have, who is dead."""
    home.mkdir()
    with kind(home, seed) as way:
        way.flaky = flaky
        rows = [row(number) for number in range(ROWS)]
        if poisoned:
            rows = way.poison(rows)
        with Round(way.sink, home, rows, batch_size=7) as round_:
            round_.until_home()
            wanted = [key for each in rows for key in way.keys_of(each) if key not in way.refused]
            dead = {each["record_id"] for each in rows if way.refused.intersection(way.keys_of(each))}
            assert round_.outbox.pending() == 0
            assert set(round_.dead) == dead
            assert all(round_.dead.values())
            assert round_.outbox.cursor(way.name).attempts == 0
            return way.taken(), wanted, round_


@by_way
def test_what_always_works_arrives_once_and_in_order(kind, tmp_path):
    taken, wanted, round_ = delivered(kind, tmp_path / "x")
    assert taken == wanted
    assert round_.count("spanledger.delivery.sent") == ROWS
    assert round_.count("spanledger.delivery.failed") == 0


FLAKY = [kind for kind in WAYS if kind is not Console]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", FLAKY, ids=lambda kind: kind.__name__)
def test_failures_that_pass_lose_nothing_and_repeat_nothing_that_was_accepted(kind, seed, tmp_path):
    taken, wanted, round_ = delivered(kind, tmp_path / "x", flaky=True, seed=seed)
    assert taken == wanted
    assert round_.count("spanledger.delivery.failed") > 0
    assert round_.count("spanledger.delivery.dead") == 0


REFUSING = [kind for kind in FLAKY if kind is not Jsonl]


@pytest.mark.parametrize("kind", REFUSING, ids=lambda kind: kind.__name__)
def test_rows_refused_for_good_are_dead_with_the_reason_and_the_rest_arrives(kind, tmp_path):
    taken, wanted, round_ = delivered(kind, tmp_path / "x", poisoned=True)
    assert taken == wanted
    assert round_.count("spanledger.delivery.failed") == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", REFUSING, ids=lambda kind: kind.__name__)
def test_both_at_once_lose_nothing_either(kind, seed, tmp_path):
    taken, wanted, _ = delivered(kind, tmp_path / "x", flaky=True, poisoned=True, seed=seed)
    assert taken == wanted


def test_the_same_record_twice_is_one_in_the_ledger(tmp_path):
    same = [row(1), row(2)]
    with Ledger(tmp_path, 1) as way, Round(way.sink, tmp_path, [*same, *same], batch_size=3) as round_:
        round_.until_home()
        way.sink.send(same)
        assert way.taken() == [each["record_id"] for each in same]


def test_openmeter_gets_a_repeated_record_under_the_same_id_and_source(tmp_path):
    same = row(1)
    with OpenMeter(tmp_path, 1) as way, Round(way.sink, tmp_path, [same, same], batch_size=1) as round_:
        round_.until_home()
        first, second = (request.json for request in way.receiver.requests)
        assert first == second
        assert [(event["id"], event["source"]) for event in first] == [(same["record_id"], "shop")]


@pytest.mark.parametrize("kind", [OpenMeter, Otlp, OtlpOverGrpc], ids=lambda kind: kind.__name__)
def test_a_batch_that_was_sent_and_not_answered_is_repeated_as_it_was_whatever_comes_meanwhile(kind, tmp_path):
    with kind(tmp_path, 1) as way:
        rows = [row(number) for number in range(5)]
        with Round(way.sink, tmp_path, rows[:3]) as round_:
            way.flaky, way.fails = True, lambda: len(way.receiver.seen) < 2
            assert not round_.delivery.drain(5)
            round_.outbox.append([Draft.of(each) for each in rows[3:]])
            round_.until_home()
        sent = [way.keys_in(request) for request in way.receiver.requests]
        ids = [each["record_id"] for each in rows]
        assert sent == [ids[:3]] * 3 + [ids[3:]]


def test_the_ledger_and_jsonl_wait_where_something_stands_in_the_way(tmp_path):
    for kind, path in ((SqliteLedger, tmp_path / "ledger.db"), (JsonlSink, tmp_path / "usage.jsonl")):
        path.mkdir()
        with Round(sink := kind(path), tmp_path, [row(1), row(2)]) as round_:
            assert not round_.delivery.drain(5)
            cursor = round_.outbox.cursor(sink.name)
            assert (cursor.seq, cursor.attempts, round_.dead) == (0, 1, {})
            assert "Is a directory" in cursor.reason
            path.rmdir()
            assert round_.until_home() == 2
            assert path.stat().st_size > 0
