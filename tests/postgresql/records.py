"""What the tests in here share: rows, questions, an outbox and its delivery, the command."""

import json
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner

from spanledger.cli.main import main
from spanledger.ledger import books
from spanledger.ledger.postgres import PostgresLedger
from spanledger.model import COLUMNS, Cost, Usage, UsageRecord, record_id_at, row_of
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Draft, Outbox
from spanledger.settings import read_settings

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


def row(number=0, **more):
    more.setdefault("cost", Cost(cost_pusd=1_500_000, cost_status="priced"))
    more.setdefault("usage", Usage(input_tokens=10, output_tokens=5, usage_status="reported"))
    more.setdefault("started_at", NOON + timedelta(seconds=number))
    more.setdefault("request_model", "gpt-4o")
    return row_of(
        UsageRecord(
            record_id=record_id_at(number * 10**6), operation="chat", provider="openai", source="test",
            duration_ns=120_400_000, **more,
        )
    )  # fmt: skip


def bare(number=0, **columns):
    """A row with no more in it than these columns, and what every row has."""
    known = {
        "record_id": record_id_at(number * 10**6), "source": "test", "operation": "chat", "provider": "openai",
        "started_at": NOON.isoformat(timespec="microseconds"), "stream": 0, "usage_status": "missing", "weight": 1,
        "cost_source": "none", "cost_status": "unpriced", "status": "success",
    }  # fmt: skip
    return {**dict.fromkeys(COLUMNS), **known, **columns}


def sink_at(url, **settings):
    return books.ledger_of(read_settings({"ledger_url": url, **settings}))


def put(url, rows):
    sink = sink_at(url)
    try:
        sink.send(rows)
    finally:
        sink.close()


def asked(url, statement, values=()):
    with books.reading(url) as connection:
        return [tuple(each) for each in connection.execute(statement, values)]


def count(url, table="usage_records"):
    return asked(url, f"SELECT count(*) FROM {table}")[0][0]


def outbox_with(home, rows, sinks=("ledger",)):
    """The outbox of a process that died with these rows in it."""
    made = Outbox.create(home / "outbox", sinks, full_sync=False, max_bytes=2**28)
    made.append([Draft.of(each) for each in rows])
    made._connection.close()
    made._lease.release()


class Courier:
    """Delivers what is in a home, with a clock of its own: no pause after a failure takes any time."""

    def __init__(self, home, url, *, sink=None, **settings):
        self.now = 0.0
        self.counted = []
        self.sink = sink or PostgresLedger(url, **settings)
        self._delivery = Delivery(
            [self.sink], home / "outbox", batch_size=500, flush_interval=0.01, clock=lambda: self.now,
            count=lambda name, amount, attributes: self.counted.append((name, amount)),
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._delivery.stop(5)

    def deliver(self):
        """Whether everything is home after one more attempt."""
        self.now += 400
        return self._delivery.drain(300)


def command(*arguments, expect=0, **environ):
    """The command, in this process: one of its own takes seconds to start."""
    done = CliRunner().invoke(main, [str(each) for each in arguments], env=environ)
    assert done.exit_code == expect, (done.stdout, done.stderr, done.exception)
    return done


def answer(*arguments, **how):
    return json.loads(command(*arguments, "--format", "json", **how).stdout)
