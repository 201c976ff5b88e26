"""A record that is several requests: whoever dies between two of them, only what was not accepted is sent again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.export.receiver import Answer, Receiver, Round, delivery, row

from spanledger.export.sinks.usage_api import UsageApiSink
from spanledger.recording.outbox import Outbox
from spanledger.recording.survey import revive

PARTS = ("prompt", "completion", "tool_usage")
ROWS = [row(number) for number in range(3)]
KEYS = [(each["record_id"], part) for each in ROWS for part in PARTS]

CHILD = """
import sys
from pathlib import Path
from spanledger.export.sinks.usage_api import UsageApiSink
from tests.export.receiver import Round, row
Round(UsageApiSink(sys.argv[1]), Path(sys.argv[2]), [row(number) for number in range(3)]).delivery.drain(60)
"""


def keys_in(requests):
    return [(request.json["message_id"], request.json["type"]) for request in requests]


def adopted(directory, sink):
    """Let another process's delivery take up what is in the directory."""
    made = delivery(sink, directory, 10, lambda: 0.0, [])
    assert made.drain(60)
    made.stop(0)


@pytest.mark.parametrize("before", [1, 2, 3, 4, 6, 9])
def test_killed_between_two_requests_it_goes_on_at_the_one_that_was_not_accepted(before, tmp_path):
    def answer(request):
        if len(receiver.seen) + 1 == before and child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            return Answer(fault="reset")
        return Answer()

    with Receiver(answer) as receiver:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, receiver.url, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=Path(__file__).parents[2],
        )
        assert child.wait(30) == -signal.SIGKILL
        assert len(receiver.seen) == before
        adopted(tmp_path / "state" / "outbox", UsageApiSink(receiver.url))
        positions = [request.json["type"] for request in receiver.accepted]
        assert positions == list(PARTS) * 3
        assert len(set(keys_in(receiver.accepted))) == 9
        repeated = [request.headers["idempotency-key"] for request in receiver.requests]
        assert repeated[before - 1] == repeated[before]
        assert len(set(repeated)) == 9
    assert list((tmp_path / "state" / "outbox").iterdir()) == []


def abandoned(sink, directory):
    """A process that sends until it fails, and is gone without a word."""
    round_ = Round(sink, directory, ROWS)
    assert not round_.delivery.drain(60)
    round_.outbox.abandon()
    sink.close()


@pytest.mark.parametrize("accepted", range(9))
def test_a_file_left_after_any_request_is_taken_up_at_the_next(accepted, tmp_path):
    with Receiver() as receiver:
        receiver.answers.extend([Answer(204)] * accepted + [Answer(503)])
        abandoned(UsageApiSink(receiver.url), tmp_path)
        assert len(receiver.seen) == accepted + 1
        adopted(tmp_path / "state" / "outbox", UsageApiSink(receiver.url))
        assert keys_in(receiver.accepted) == KEYS
        assert keys_in(receiver.requests) == [*KEYS[: accepted + 1], *KEYS[accepted:]]


def test_a_file_left_again_and_again_repeats_only_the_request_that_failed(tmp_path):
    with Receiver() as receiver:
        abandoned_at = [Answer(), Answer(500), Answer(), Answer(), Answer(500), Answer(500), Answer(), Answer(500)]
        receiver.answers.extend(abandoned_at)
        abandoned(UsageApiSink(receiver.url), tmp_path)
        for _ in range(3):
            (path,) = (tmp_path / "state" / "outbox").glob("*.db")
            outbox = Outbox.adopt(path)
            sink = UsageApiSink(receiver.url)
            made = delivery(sink, tmp_path / "nowhere", 10, lambda: 0.0, [])
            made._own = outbox
            assert not made.drain(60)
            outbox.abandon()
            made._own = None
            made.stop(0)
        adopted(tmp_path / "state" / "outbox", UsageApiSink(receiver.url))
        assert keys_in(receiver.accepted) == KEYS


def test_a_refused_request_does_not_take_the_others_of_its_record_with_it(tmp_path):
    with Receiver() as receiver:
        receiver.answers.extend([Answer(), Answer(422), Answer(503)])
        with Round(UsageApiSink(receiver.url), tmp_path, ROWS) as round_:
            assert not round_.delivery.drain(60)
            assert round_.outbox.cursor("usage_api").parts == 2
            round_.until_home()
            assert keys_in(receiver.accepted) == [key for key in KEYS if key != KEYS[1]]
            assert round_.dead == {ROWS[0]["record_id"]: "request 2 of 3: HTTP 422"}


def test_a_record_of_which_nothing_was_taken_counts_once_as_dead_and_never_as_sent(tmp_path):
    with Receiver(lambda _: Answer(422)) as receiver, Round(UsageApiSink(receiver.url), tmp_path, ROWS[:1]) as round_:
        round_.until_home()
        assert round_.dead == {
            ROWS[0]["record_id"]: "request 1 of 3: HTTP 422; request 2 of 3: HTTP 422; request 3 of 3: HTTP 422"
        }
        counted = (round_.count("spanledger.delivery.dead"), round_.count("spanledger.delivery.sent"))
        assert counted == (1, 0)


def test_a_row_damaged_between_two_of_its_requests_leaves_the_next_row_whole(tmp_path):
    with Receiver() as receiver:
        receiver.answers.extend([Answer(), Answer(503)])
        with Round(UsageApiSink(receiver.url), tmp_path, ROWS) as round_:
            assert not round_.delivery.drain(60)
            round_.outbox._connection.execute("UPDATE records SET crc = crc + 1 WHERE seq = 1")
            round_.now += 301
            round_.until_home()
            assert keys_in(receiver.accepted) == [KEYS[0], *KEYS[3:]]


def test_a_revived_record_repeats_only_the_request_that_was_refused(tmp_path):
    with Receiver() as receiver:
        receiver.answers.extend([Answer(), Answer(422)])
        with Round(UsageApiSink(receiver.url), tmp_path, ROWS[:1]) as round_:
            round_.until_home()
            round_.outbox.abandon()
            directory = round_.outbox.path.parent
            round_.outbox = Outbox.create(directory, [], full_sync=False, max_bytes=2**20)
        assert revive(directory) == 1
        adopted(directory, UsageApiSink(receiver.url))
        assert sorted(keys_in(receiver.accepted)) == sorted(KEYS[:3])


def test_where_one_request_in_ten_fails_the_pauses_do_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("spanledger.recording.courier.random.uniform", lambda low, high: high)
    rows = [row(number) for number in range(60)]
    with Receiver(lambda _: Answer(503 if len(receiver.seen) % 10 == 9 else 200)) as receiver:
        with Round(UsageApiSink(receiver.url), tmp_path, rows, batch_size=500) as round_:
            round_.until_home(step=1.0, rounds=10_000)
        assert round_.now < 60


def test_a_flush_ends_in_time_however_slow_the_receiver_is(tmp_path):
    """On a thread of its own a courier that is stopped goes on as long; without one, the caller waits."""

    def answer(_):
        round_.now += 10
        return Answer()

    with Receiver(answer) as receiver, Round(UsageApiSink(receiver.url), tmp_path, ROWS) as round_:
        assert not round_.delivery.drain(25)
        assert len(receiver.seen) == 3
