"""The PostgreSQL ledger beside the SQLite one: once per id, only ever enriched, the same rows whatever is in them."""

import itertools
import json
import logging
import re
import subprocess
import threading
import time
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.postgresql.records import NOON, Courier, asked, bare, command, count, outbox_with, put, row, sink_at
from tests.postgresql.server import _free_port

from spanledger.ledger import postgres as module
from spanledger.ledger.addresses import libpq_url, shown
from spanledger.ledger.postgres import PostgresLedger
from spanledger.model import AS_JSON, COLUMNS, Attribution, Cost, Usage, record_id_at
from spanledger.recording.sink import SinkError
from spanledger.recording.survey import survey


@pytest.fixture
def sink(url):
    made = sink_at(url)
    yield made
    made.close()


@pytest.fixture
def execute(database):
    """Runs a statement in the test's database as its owner."""

    def run(statement, values=None):
        with psycopg.connect(database, autocommit=True) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else None

    return run


# Once.


def test_its_columns_are_those_of_a_record_and_the_time_it_was_recorded(url, sink):
    sink.send([row()])
    (names,) = asked(url, "SELECT * FROM usage_records LIMIT 1")
    assert len(names) == len(COLUMNS) + 1
    ((found,),) = asked(url, f"SELECT count(*) FROM (SELECT {', '.join(COLUMNS)}, recorded_at FROM usage_records) AS a")
    assert found == 1


def test_the_same_record_twice_is_one_row(url, sink):
    first = row()
    sink.send([first, first])
    sink.send([first])
    assert asked(url, "SELECT count(*), sum(cost_pusd) FROM usage_records") == [(1, 1_500_000)]


def test_a_later_telling_fills_gaps_and_changes_nothing_that_is_known(url, sink):
    first = row(attribution=Attribution(team="a"))
    sink.send([first])
    sink.send([{**first, "team": "b", "user_id": "ada", "input_tokens": 999, "cost_pusd": 7}])
    found = asked(url, "SELECT team, user_id, input_tokens, cost_pusd FROM usage_records")
    assert found == [("a", "ada", 10, 1_500_000)]


ASKED = row(status="incomplete", usage=Usage(), cost=Cost(), attribution=Attribution(user_id="ada"))
ANSWERED = {
    **row(cost=Cost(7, {"input": 7}, "USD", "local", "priced"), response_model="gpt-4o-2024"),
    "record_id": ASKED["record_id"], "feature": "search",
}  # fmt: skip
BOTH = ("success", "reported", "priced", "local", 7, 10, "gpt-4o-2024", "ada", "search")
WHAT = (
    "SELECT status, usage_status, cost_status, cost_source, cost_pusd, input_tokens, response_model, user_id, feature"
    " FROM usage_records"
)


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_an_incomplete_and_a_final_telling_are_one_row_whatever_order_they_come_in(url, sink, together):
    orders = [order for length in (2, 3, 4) for order in itertools.product((ASKED, ANSWERED), repeat=length)]
    for number, order in enumerate(order for order in orders if len({each["status"] for each in order}) == 2):
        record_id = record_id_at((number + 1) * 10**6)
        tellings = [{**each, "record_id": record_id} for each in order]
        for batch in [tellings] if together else [[each] for each in tellings]:
            sink.send(batch)
        assert asked(url, f"{WHAT} WHERE record_id = ?", (record_id,)) == [BOTH], order
    assert count(url) == number + 1


def test_a_final_telling_does_not_change_another_one(url, sink):
    sink.send([ANSWERED])
    sink.send([{**ANSWERED, "status": "error", "usage_status": "partial", "cost_status": "free"}])
    assert asked(url, "SELECT status, usage_status, cost_status FROM usage_records") == [
        ("success", "reported", "priced")
    ]


# Whatever is in a row.

HOSTILE = {
    "tab": "a\tb", "newline": "a\nb", "return": "a\r\nb", "backslash": "a\\b", "null word": "\\N", "end of copy": "\\.",
    "backslash at the end": "a\\", "quotes": "'; DROP TABLE usage_records; --\"", "emoji": "\U0001f600 é", "empty": "",
    "escapes": "\\t\\n\\x41\\101", "separators": "\x1c\x85\u2028\v\f", "word": "NULL", "format": "%s %(a)s ? :name {}",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_texts_come_back_as_they_went_in(url, sink, text):
    sink.send([bare(user_id=text, metadata=json.dumps({text: [text, 1.5]}), finish_reasons=json.dumps([text]))])
    ((user, metadata, reasons),) = asked(url, "SELECT user_id, metadata, finish_reasons FROM usage_records")
    assert (user, json.loads(metadata), json.loads(reasons)) == (text, {text: [text, 1.5]}, [text])


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "a\udfffb", "\\u0000\0"], ids=["NUL", "high", "low", "both"])
def test_what_postgresql_has_no_word_for_is_replaced_in_texts_and_documents(database, text):
    kept = re.sub("[\0\ud800-\udfff]", "\ufffd", text)
    put(database, [bare(user_id=text, metadata=json.dumps({"k": text, text: {"deep": [text]}}))])
    ((user, metadata),) = asked(database, "SELECT user_id, metadata FROM usage_records")
    assert (user, json.loads(metadata)) == (kept, {"k": kept, kept: {"deep": [kept]}})


TEXTS = (
    "trace_id", "span_id", "response_id", "request_model", "response_model", "server_address", "service_tier",
    "currency", "price_basis", "user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center",
    "message_id", "error_type", "service_name", "merged_by", "usage_shape", "conversation_id",
)  # fmt: skip
NUMBERS = ("duration_ms", "input_tokens", "output_tokens", "cost_pusd", "local_cost_pusd", "web_searches", "attempts")
text = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(sorted(HOSTILE.values()))
number = st.integers(-(2**63), 2**63 - 1)
document = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
        | st.lists(document, max_size=3)
        | st.dictionaries(text, document, max_size=3)
    )
)
row_of_anything = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TEXTS, text),
        **dict.fromkeys(NUMBERS, number),
        **{name: document.map(json.dumps) for name in AS_JSON},
        "stream": st.sampled_from((0, 1, True, False)),
        "clock_suspect": st.sampled_from((1, None)),
        "status": st.sampled_from(("success", "error", "cancelled", "incomplete")),
        "weight": st.integers(1, 1000),
        "started_at": st.datetimes(timezones=st.just(module.UTC)).map(module.iso),
    },
)
fresh = itertools.count(1)


@given(rows=st.lists(row_of_anything, min_size=1, max_size=4))
@settings(
    max_examples=50, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_a_row_reads_back_the_same_from_either_ledger(both, rows):
    rows = [bare(next(fresh), **each) for each in rows]
    expected = [_plain(tuple(each[name] for name in COLUMNS)) for each in rows]
    for place, sink in both.items():
        sink.send(rows)
        marks = ", ".join("?" * len(rows))
        statement = f"SELECT {', '.join(COLUMNS)} FROM usage_records WHERE record_id IN ({marks})"
        found = {each[0]: _plain(each) for each in asked(place, statement, [each["record_id"] for each in rows])}
        assert [found[each["record_id"]] for each in rows] == expected


@pytest.fixture
def both(tmp_path, database):
    sinks = {place: sink_at(place) for place in (f"sqlite:///{tmp_path}/ledger.db", database)}
    yield sinks
    for sink in sinks.values():
        sink.close()


def _plain(values):
    """What a row says, apart from how a document is written down and from what PostgreSQL can't say."""
    return {
        name: _sayable(
            json.loads(value, parse_int=Decimal, parse_float=Decimal)  # jsonb keeps the digits, not how they stood
            if name in AS_JSON and value is not None
            else value
        )
        for name, value in zip(COLUMNS, values, strict=True)
    }


def _sayable(value):
    if isinstance(value, str):
        return re.sub("[\0\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {_sayable(key): _sayable(each) for key, each in value.items()}
    return [_sayable(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_holds_what_it_has_words_for(postgres, encoding):
    name = f"in_{encoding.lower()}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
    try:
        put(postgres.url(name), [bare(user_id="é")])
        assert asked(postgres.url(name), "SELECT user_id FROM usage_records") == [("é",)]
        if encoding == "LATIN1":
            with pytest.raises(SinkError) as refused:
                put(postgres.url(name), [bare(1, user_id="\U0001f600")])
            assert refused.value.permanent
    finally:
        postgres.drop_database(name)


# What can never be kept.

TOO_MUCH = {
    "a number": {"cost_pusd": 2**63}, "nothing": {"provider": None}, "no document": {"metadata": "{"},
    "an index entry": {"user_id": "".join(map(chr, range(0x100, 0x2000)))},
    "a document too deep": {"metadata": "[" * 100_000 + "]" * 100_000},
}  # fmt: skip


@pytest.mark.parametrize("columns", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_a_column_cant_hold_is_refused_for_good_and_holds_nothing_up(database, columns):
    sink = PostgresLedger(database)
    with pytest.raises(SinkError) as refused:
        sink.send([bare(1), bare(2, **columns)])
    assert refused.value.permanent
    sink.send([bare(1)])
    assert count(database) == 1
    sink.close()


def test_poison_among_a_thousand_good_rows_is_put_aside_with_its_reason(home, database):
    rows = [row(number) for number in range(1001)]
    rows[637]["cost_pusd"] = 2**63
    outbox_with(home, rows)
    with Courier(home, database) as courier:
        assert courier.deliver()
        assert count(database) == 1000
        (state,) = survey(home / "outbox")
        (reason,) = state.reasons
        assert (state.pending, state.dead) == (0, 1)
        assert reason.startswith("ledger: NumericValueOutOfRange: ")
        assert "out of range for type bigint" in reason
        assert sum(amount for name, amount in courier.counted if name == "spanledger.delivery.sent") == 1000


# The tables.


def test_the_first_delivery_makes_the_tables_in_an_empty_database(home, database):
    outbox_with(home, [row(number) for number in range(3)])
    with Courier(home, database) as courier:
        assert courier.deliver()
    assert (count(database), asked(database, "SELECT version_num FROM spanledger_schema")) == (3, [(module.newest(),)])


def test_eight_that_come_first_at_once_make_them_once(database):
    start = threading.Barrier(8)
    failed = []

    def deliver(number):
        sink = PostgresLedger(database)
        start.wait()
        try:
            sink.send([row(number)])
        except SinkError as error:
            failed.append(error)
        finally:
            sink.close()

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (count(database), count(database, "spanledger_schema")) == (8, 1)


def test_without_leave_to_make_tables_rows_wait_for_ledger_migrate(home, database, execute):
    outbox_with(home, [row(number) for number in range(3)])
    with Courier(home, database, auto_migrate="false") as courier:
        assert not courier.deliver()
        (state,) = survey(home / "outbox")
        assert (state.pending, state.dead, state.waiting[0].reason) == (
            3,
            0,
            (
                f"the ledger's schema in {database} is of version none, this spanledger needs 0001;"
                " run 'spanledger ledger migrate'"
            ),
        )
        assert execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
        command("ledger", "migrate", "--ledger", database)
        assert courier.deliver()
    assert count(database) == 3


@pytest.fixture
def later(monkeypatch):
    """A spanledger that has one more version of the schema, and needs it."""
    now = list(module.scripts())
    more = "ALTER TABLE usage_records ADD COLUMN novelty TEXT; UPDATE spanledger_schema SET version_num = '9999'"
    monkeypatch.setattr(module, "scripts", lambda: iter([*now, ("9999", more)]))


def version(database):
    return asked(database, "SELECT version_num FROM spanledger_schema")


def test_an_older_schema_waits_until_it_is_migrated(home, database, request):
    put(database, [row()])
    request.getfixturevalue("later")
    outbox_with(home, [row(1)])
    with Courier(home, database) as courier:
        assert not courier.deliver()
        (state,) = survey(home / "outbox")
        assert "is of version 0001, this spanledger needs 9999; run 'spanledger ledger migrate'" in (
            state.waiting[0].reason
        )
        assert (count(database), version(database)) == (1, [("0001",)])
        connection = module.connect(database)
        module.make_schema(connection)
        connection.close()
        assert courier.deliver()
    assert (count(database), version(database)) == (2, [("9999",)])


def test_an_older_schema_is_brought_up_to_date_by_the_delivery_where_always_is_set(database, request):
    put(database, [row()])
    request.getfixturevalue("later")
    sink = PostgresLedger(database, auto_migrate="always")
    sink.send([row(1)])
    sink.close()
    assert asked(database, "SELECT novelty FROM usage_records") == [(None,), (None,)]
    assert version(database) == [("9999",)]


def test_a_newer_schema_takes_records(database, execute):
    put(database, [row()])
    execute("ALTER TABLE usage_records ADD COLUMN novelty TEXT DEFAULT 'new'")
    execute("UPDATE spanledger_schema SET version_num = '9999'")
    put(database, [row(1)])
    assert asked(database, "SELECT count(*), min(novelty) FROM usage_records") == [(2, "new")]


def test_tables_that_are_dropped_under_a_delivery_are_made_again(database, execute):
    sink = PostgresLedger(database)
    sink.send([row()])
    execute("DROP VIEW current_costs CASCADE")
    execute("DROP TABLE usage_records, cost_adjustments, pruned_days, spanledger_schema")
    with pytest.raises(SinkError) as missing:
        sink.send([row(1)])
    assert not missing.value.permanent
    sink.send([row(1)])
    sink.close()
    assert count(database) == 1


def test_a_table_usage_records_of_somebody_else_is_never_touched(home, database, execute):
    execute("CREATE TABLE usage_records (record_id text PRIMARY KEY, mine int)")
    execute("INSERT INTO usage_records VALUES ('a', 1)")
    outbox_with(home, [row()])
    for how in ("true", "always", "false"):
        with Courier(home, database, auto_migrate=how) as courier:
            assert not courier.deliver()
        (state,) = survey(home / "outbox")
        assert (state.pending, state.waiting[0].reason) == (
            1, f"{database} has a table usage_records that is not spanledger's; name another database",
        )  # fmt: skip
    assert "can't be migrated" in command("ledger", "migrate", "--ledger", database, expect=1).stderr
    assert execute("SELECT * FROM usage_records") == [("a", 1)]
    assert execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'") == [
        ("usage_records",)
    ]


# A server that can't take records: nothing is lost, everything arrives after.


def all_arrive(home, url, mend, say, **settings):
    rows = [row(number) for number in range(1000)]
    outbox_with(home, rows)
    with Courier(home, url, **settings) as courier:
        assert not courier.deliver()
        (state,) = survey(home / "outbox")
        assert (state.pending, state.dead) == (1000, 0)
        assert re.search(say, state.waiting[0].reason), state.waiting[0].reason
        mend()
        while not courier.deliver():
            assert courier.now < 4000
    assert survey(home / "outbox") == []
    return sorted(each["record_id"] for each in rows)


def kept(url):
    return [record_id for (record_id,) in asked(url, "SELECT record_id FROM usage_records ORDER BY record_id")]


def test_a_server_that_is_down_at_the_start(home, postgres, database):
    postgres.stop()
    assert all_arrive(home, database, postgres.start, "OperationalError: .*refused") == kept(database)


def test_a_server_that_only_reads(home, database, execute):
    name = sql.Identifier(database.rpartition("/")[2])
    execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))

    def mend():
        with psycopg.connect(database, autocommit=True, options="-c default_transaction_read_only=off") as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))

    assert all_arrive(home, database, mend, "ReadOnlySqlTransaction: ") == kept(database)


def test_a_server_without_free_connections(home, database, execute):
    name = sql.Identifier(database.rpartition("/")[2])
    execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    execute("GRANT ALL ON SCHEMA public TO crowded")
    url = database.replace("postgres@", "crowded@")
    try:
        mend = lambda: execute("ALTER ROLE crowded CONNECTION LIMIT 5")  # noqa: E731
        assert all_arrive(home, url, mend, "too many connections for role") == kept(database)
    finally:
        execute(sql.SQL("DROP OWNED BY crowded"))
        execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM crowded").format(name))
        execute("DROP ROLE crowded")


def test_a_role_that_is_not_there_yet(home, database, execute):
    url = database.replace("postgres@", "newcomer@")
    try:
        mend = lambda: execute("CREATE ROLE newcomer SUPERUSER LOGIN")  # noqa: E731
        assert all_arrive(home, url, mend, 'role "newcomer" does not exist') == kept(database)
    finally:
        execute("DROP OWNED BY newcomer CASCADE")
        execute("DROP ROLE newcomer")


def test_a_database_that_is_not_there_yet(home, postgres, database):
    try:
        mend = lambda: postgres.create_database("to_come")  # noqa: E731
        found = all_arrive(home, postgres.url("to_come"), mend, 'database "to_come" does not exist')
        assert found == kept(postgres.url("to_come"))
    finally:
        postgres.drop_database("to_come")


def test_a_role_that_may_not_make_tables(home, database, execute):
    execute("CREATE ROLE small LOGIN")
    url = database.replace("postgres@", "small@")

    def mend():
        command("ledger", "migrate", "--ledger", database)
        execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO small")

    try:
        assert all_arrive(home, url, mend, "^InsufficientPrivilege: permission denied for schema public") == kept(url)
    finally:
        execute("DROP OWNED BY small")
        execute("DROP ROLE small")


class Interrupted(PostgresLedger):
    """Something happens before, while or after its third batch."""

    bulk = 100

    def __init__(self, url, event, when):
        super().__init__(url)
        self._event, self._when, self._batches = event, when, 0

    def send(self, rows):
        self._batches += 1
        third = self._batches == 3
        if third and self._when == "before":
            self._event()
        super().send(rows)
        if third and self._when == "after":
            self._event()
            raise SinkError("its answer was lost")

    def _transact(self, statements):
        def interrupted(connection):
            answer = statements(connection)
            if self._batches == 3 and self._when == "before its commit":
                self._event()
            return answer

        return super()._transact(interrupted)


@pytest.mark.parametrize("when", ["before", "before its commit", "after"])
def test_a_server_that_breaks_down_in_the_middle(home, postgres, database, when):
    rows = [row(number) for number in range(1000)]
    outbox_with(home, rows)
    sink = Interrupted(database, postgres.restart, when)
    with Courier(home, database, sink=sink) as courier:
        courier._delivery._couriers[0]._bulk = 100
        assert not courier.deliver()
        while not courier.deliver():
            assert courier.now < 4000
    assert kept(database) == sorted(each["record_id"] for each in rows)


def test_a_server_that_is_killed_in_the_middle_and_stays_away_for_a_while(home, postgres, database):
    rows = [row(number) for number in range(1000)]
    outbox_with(home, rows)
    sink = Interrupted(database, postgres.stop, "before its commit")
    with Courier(home, database, sink=sink) as courier:
        courier._delivery._couriers[0]._bulk = 100
        assert [courier.deliver() for _ in range(3)] == [False] * 3
        (state,) = survey(home / "outbox")
        assert 800 <= state.pending <= 1000
        postgres.start()
        assert courier.deliver()
    assert kept(database) == sorted(each["record_id"] for each in rows)


# Passwords.


@pytest.fixture
def locked(postgres, database, execute):
    """Makes a role whose password is really asked for; gives the URL with another password in it."""
    file = postgres.data / "pg_hba.conf"
    before = file.read_text()
    file.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{before}")
    execute("SELECT pg_reload_conf()")
    execute("CREATE ROLE locked SUPERUSER LOGIN")
    yield lambda password: database.replace("postgres@", f"locked:{password}@")
    file.write_text(before)
    execute("SELECT pg_reload_conf()")
    execute("DROP OWNED BY locked CASCADE")
    execute("DROP ROLE locked")


@pytest.mark.parametrize(
    "password", ["qxq", "qxq%65zkz%40", "qxq#zkz", "qxq?zkz", "qxq[zkz", "qxq%20zkz", "qxq%25zkz", "qxq+zkz&c=d"]
)
def test_a_wrong_password_loses_nothing_and_is_never_said(home, execute, locked, caplog, password):
    caplog.set_level(logging.DEBUG)
    url = locked(password)
    right = psycopg.conninfo.conninfo_to_dict(url)["password"]

    def mend():
        execute(sql.SQL("ALTER ROLE locked PASSWORD {}").format(sql.Literal(right)))

    assert all_arrive(home, url, mend, 'password authentication failed for user "locked"') == kept(url)
    outbox_with(home, [row(2000)])
    execute("ALTER ROLE locked PASSWORD 'another'")
    said = [caplog.text]
    for arguments, code in (
        (("report",), 1), (("doctor",), 1), (("ledger", "migrate"), 1), (("ledger", "status"), 1),
        (("outbox", "flush"), 1), (("outbox", "status"), 1),
    ):  # fmt: skip
        done = command(*arguments, expect=code, SPANLEDGER_LEDGER_URL=url)
        said += [done.stdout, done.stderr]
    assert [word for word in ("qxq", "zkz") if word in "\n".join(said)] == []


@pytest.mark.parametrize(
    ("url", "address", "may_be_shown"),
    [
        ("postgres://h/d", "postgresql://h/d", "postgres://h/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require",
         "postgresql+asyncpg://u:***@h/d"),
        ("postgresql://u:p@h:6543/d?ssl=true&pgbouncer=true", "postgresql://u:p@h:6543/d?sslmode=require",
         "postgresql://u:***@h:6543/d"),
        ("postgresql://h/d?pgbouncer=true&connection_limit=1", "postgresql://h/d", "postgresql://h/d"),
        ("postgresql:///d?host=/run/p&user=me&password=secret",
         "postgresql:///d?host=%2Frun%2Fp&user=me&password=secret", "postgresql:///d"),
        ("postgresql://u:a#b?c[d@h/d", "postgresql://u:a%23b%3Fc%5Bd@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u%40x:p%2Fw@h/d", "postgresql://u%40x:p%2Fw@h/d", "postgresql://u%40x:***@h/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql+psycopg2://a:1,b:2/d", "postgresql://a:1,b:2/d", "postgresql+psycopg2://a:1,b:2/d"),
    ],
)  # fmt: skip
def test_an_address_is_told_to_the_driver_in_its_words_and_to_people_without_password(url, address, may_be_shown):
    assert (libpq_url(url), shown(url)) == (address, may_be_shown)
    psycopg.conninfo.conninfo_to_dict(address)


# What a pooler in transaction mode can't give.

LOGGED = re.compile(r"LOG:  (?:statement|execute (\S+)): (.*)")
SESSION = re.compile(
    r"PREPARE|EXECUTE|DEALLOCATE|LISTEN|NOTIFY|DECLARE|LOAD|DISCARD|SET (?!LOCAL |TRANSACTION )"
    r"|CREATE (LOCAL |GLOBAL )?TEMP(?!.*ON COMMIT DROP)|SELECT .*(pg_advisory_lock|pg_try_advisory_lock|set_config)",
    re.IGNORECASE | re.DOTALL,
)


class Pooled(PostgresLedger):
    """Each transaction finds a session of which nobody knows anything any more."""

    def _transact(self, statements):
        if self._connection is not None:
            self._connection.execute("DISCARD ALL")
        return super()._transact(statements)


def test_nothing_is_ever_kept_in_a_session(postgres, database, execute):
    name = sql.Identifier(database.rpartition("/")[2])
    execute(sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(name))
    began = postgres.log.stat().st_size
    sink = PostgresLedger(database, retention_days=1)
    for number in range(10):
        first = row(number, started_at=NOON - timedelta(days=10))
        sink.send([first, {**first, "status": "error"}, row(number + 100)])
        sink.tidy()
    sink.close()
    put(database, [row(500)])
    for arguments in (("report",), ("ledger", "status"), ("ledger", "forget", "--user-id", "a"), ("ledger", "migrate")):
        command(*arguments, "--ledger", database)
    command("reprice", "--apply", "--ledger", database)

    logged = postgres.log.read_bytes()[began:].decode()
    found = [(name, each.strip()) for name, text in LOGGED.findall(logged) for each in text.split(";")]
    assert len(found) > 150
    assert {name for name, _ in found} == {"", "<unnamed>"}
    assert [text for _, text in found if SESSION.match(text)] == []
    assert [text for _, text in found if text.startswith("CREATE TEMP")] == [module._INCOMING] * 21


def test_a_session_that_forgets_everything_between_two_transactions_is_enough(home, database):
    rows = [row(number) for number in range(1000)]
    outbox_with(home, rows)
    with Courier(home, database, sink=Pooled(database, retention_days=400)) as courier:
        courier._delivery._couriers[0]._bulk = 100
        assert courier.deliver()
    assert kept(database) == sorted(each["record_id"] for each in rows)


POOLER = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
"""


@pytest.mark.wants("pgbouncer")
def test_eight_deliveries_through_pgbouncer_over_two_connections(postgres, database):
    port = _free_port()
    config = postgres.directory / "pgbouncer.ini"
    users = postgres.directory / "users.txt"
    users.write_text('"postgres" ""\n')
    config.write_text(POOLER.format(server=postgres.port, port=port, users=users))
    pooler = subprocess.Popen(["pgbouncer", "-q", config], cwd="/", **postgres._account)
    url = database.replace(f":{postgres.port}/", f":{port}/")
    try:
        deadline = time.monotonic() + 30
        while pooler.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        sinks = [PostgresLedger(url) for _ in range(8)]
        for batch in range(5):
            for number, sink in enumerate(sinks):
                first = row(batch * 100 + number)
                sink.send([first, {**first, "user_id": "ada"}, row(batch * 100 + number + 50)])
        assert asked(url, "SELECT count(*), count(user_id) FROM usage_records") == [(80, 40)]
        command("ledger", "migrate", "--ledger", url)
        command("reprice", "--apply", "--ledger", url)
        for sink in sinks:
            sink.close()
    finally:
        pooler.terminate()
        pooler.wait()
