"""The PostgreSQL ledger: a sink that keeps every record once, and a connection that answers as SQLite's does.

Written for a pooler in transaction mode (PgBouncer, Supabase): nothing is kept in a session but what one transaction
makes, no statement is prepared, locks are those of a transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, Final, TypeVar

from spanledger.guard import log
from spanledger.ledger.addresses import libpq_url, secrets_in, shown
from spanledger.ledger.erasure import Pruned, prune, said
from spanledger.ledger.rows import COLUMNS, Asked, enriched
from spanledger.model import AS_JSON, iso
from spanledger.recording.sink import Row, SinkError

Answer = TypeVar("Answer")
VERSION_TABLE: Final = "spanledger_schema"
_LOCK: Final = 0x7370616E  # "span": one number that all of us agree on
_CONNECT: Final = {
    "autocommit": True,
    "prepare_threshold": None,
    "connect_timeout": 5,
    "client_encoding": "UTF8",  # whatever the database stores its texts in
    "application_name": "spanledger",
    "keepalives_idle": 30,
    "tcp_user_timeout": 20_000,
}
_IN_TRANSACTION: Final = "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '10s'"
_INCOMING: Final = "CREATE TEMPORARY TABLE spanledger_incoming (LIKE usage_records) ON COMMIT DROP"
_NAMES: Final = ", ".join((*COLUMNS, "recorded_at"))
_COPY: Final = f"COPY spanledger_incoming ({_NAMES}) FROM STDIN"
_MERGE: Final = (
    f"INSERT INTO usage_records ({_NAMES}) SELECT {_NAMES} FROM spanledger_incoming"
    " ORDER BY record_id"  # two that carry the same records must not wait for each other
    f" ON CONFLICT (record_id) DO UPDATE SET {enriched(COLUMNS)}"
)
_STATE: Final = (
    "SELECT to_regclass('usage_records') IS NOT NULL, to_regclass('spanledger_schema') IS NOT NULL,"
    " (SELECT relkind::text FROM pg_class WHERE oid = to_regclass('token_ledger_events'))"
)
_JSON: Final = frozenset(AS_JSON)
_FLAGS: Final = frozenset({"stream", "clock_suspect"})
_PLACES: Final = {name: place for place, name in enumerate(COLUMNS)}
_SPECIAL: Final = re.compile(r"[\\\n\r\t\x00\ud800-\udfff]")
_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSTORABLE: Final = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)


class PostgresLedger:
    """The sink `ledger` in a PostgreSQL database. Connects when the first record comes.

    `auto_migrate`: `true` makes the tables in a database that has none, `always` brings an older schema up to date too,
    `false` waits for `spanledger ledger migrate` in both cases.
    """

    name = "ledger"
    idempotent = True
    bulk = 5000

    def __init__(
        self,
        url: str,
        *,
        auto_migrate: str = "true",
        retention_days: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = url
        self._auto_migrate = auto_migrate
        self._retention_days = retention_days
        self._clock = clock
        self._connection: Any = None

    def send(self, rows: Sequence[Row]) -> None:
        """Keep the rows in one transaction; a row that is there already is completed, never doubled.

        Raises `SinkError`.
        """
        now = iso(self._clock())
        try:
            turns = ["".join(_line(row, now) for row in turn) for turn in _turns(rows)]
        except (ValueError, TypeError) as error:  # it is a row
            raise SinkError(f"{type(error).__name__}: a row can't be written as text", permanent=True) from error

        def merge(connection: Any) -> None:
            for lines in turns:
                connection.execute(_INCOMING)
                with connection.cursor().copy(_COPY) as copy:
                    copy.write(lines)
                connection.execute(_MERGE)
                if len(turns) > 1:
                    connection.execute("DROP TABLE spanledger_incoming")

        self._transact(merge)

    def write(self, statements: Callable[[Asked], Answer]) -> Answer:
        """Run statements in one transaction. Raises `SinkError`."""
        return self._transact(lambda connection: statements(PostgresReader(connection)))

    def tidy(self) -> None:
        """Prune what is too old. Raises `SinkError`."""
        if self._retention_days is None or self._connection is None:
            return
        before = self._clock() - timedelta(days=self._retention_days)

        def prune_in_turn(asked: Asked) -> list[Pruned]:
            (mine,) = asked.execute("SELECT pg_try_advisory_xact_lock(?)", (_LOCK,)).fetchone()
            return prune(asked, before, "retention_days", before) if mine else []

        said(self.write(prune_in_turn), "retention_days")

    def scrub(self) -> None:
        """PostgreSQL overwrites what was there when it vacuums; nothing to do."""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transact(self, statements: Callable[[Any], Answer]) -> Answer:
        psycopg = _psycopg()
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.transaction():
                self._connection.execute(_IN_TRANSACTION)
                return statements(self._connection)
        except SinkError:
            self.close()
            raise
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            self.close()  # dropped, or older than this spanledger: the next attempt looks at the schema again
            raise SinkError(told(error, self._url)) from error
        except (psycopg.DataError, psycopg.IntegrityError, *_too_much(psycopg)) as error:
            raise SinkError(told(error, self._url), permanent=True) from error
        except (psycopg.Error, OSError) as error:
            self.close()
            raise SinkError(told(error, self._url)) from error

    def _connect(self) -> Any:
        connection = connect(self._url)
        try:
            self._look_at_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _look_at_schema(self, connection: Any) -> None:
        state = schema_of(connection)
        if state.foreign:
            raise SinkError(
                f"{shown(self._url)} has a table usage_records that is not spanledger's; name another database"
            )
        if state.version is None and self._auto_migrate != "false":
            make_schema(connection)
            log.info("The ledger's tables were made in %s.", shown(self._url))
        elif state.behind and (state.version is None or self._auto_migrate != "always"):
            raise SinkError(
                f"the ledger's schema in {shown(self._url)} is of version {state.version or 'none'}, this spanledger"
                f" needs {newest()}; run 'spanledger ledger migrate'"
            )
        elif state.behind:
            make_schema(connection)
        if state.token_ledger:
            log.warning(
                "%s has a table token_ledger_events of TokenLedger's. It is left alone, so the token_ledger_* views are"
                " not made; 'spanledger ledger import tokenledger' copies its rows.",
                shown(self._url),
            )


class Schema:
    """What a database has of the ledger's schema."""

    def __init__(self, version: str | None, *, foreign: bool, token_ledger: bool) -> None:
        self.version = version
        self.foreign = foreign
        """Whether there is a table `usage_records` that we have not made."""
        self.token_ledger = token_ledger
        """Whether there is a table `token_ledger_events`: somebody's TokenLedger."""

    @property
    def behind(self) -> bool:
        """Whether it lacks what this version of spanledger writes. A later one has more than that."""
        return self.version is None or self.version < newest()


def schema_of(connection: Any) -> Schema:
    """What a database has of the ledger's schema. Raises `psycopg.Error`."""
    records, versions, kind = connection.execute(_STATE).fetchone()
    found = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() if versions else None
    version = None if found is None else str(found[0])
    return Schema(version, foreign=records and version is None, token_ledger=kind in ("r", "p"))


def make_schema(connection: Any) -> None:
    """Make the tables, or bring them up to date, by the SQL of the migrations. One process at a time.

    Raises `psycopg.Error`.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        version = schema_of(connection).version or ""  # somebody else may have been first
        if not version:  # empty: what Alembic leaves of a downgrade
            connection.execute(f"DROP TABLE IF EXISTS {VERSION_TABLE}")
        for number, script in scripts():
            if number > version:
                connection.execute(script)


def scripts() -> Iterator[tuple[str, str]]:
    """Version → the SQL that leads to it from the one before, without its transaction."""
    folder = resources.files("spanledger.ledger.migrations").joinpath("sql")
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            yield file.name.partition("_")[0], re.sub(r"^(BEGIN|COMMIT);$", "", text, flags=re.MULTILINE)


def texts() -> Iterator[str]:
    """The SQL of every migration, each in its transaction."""
    for _, script in scripts():
        yield f"BEGIN;\n{script.strip()}\nCOMMIT;\n"


def is_view_of_ours(connection: Any, name: str) -> bool:
    """Whether a name is a view that reads our records: token_ledger_events does, and the others read that one."""
    events = "token_ledger_events"
    if name != events and not is_view_of_ours(connection, events):
        return False
    found = connection.execute(
        "SELECT 1 FROM pg_rewrite JOIN pg_depend ON pg_depend.objid = pg_rewrite.oid"
        " WHERE pg_rewrite.ev_class = to_regclass(%s) AND pg_depend.classid = 'pg_rewrite'::regclass"
        " AND pg_depend.refobjid = to_regclass(%s)",
        (name, "current_costs" if name == events else events),
    ).fetchone()
    return found is not None


def newest() -> str:
    """The version of the schema that this spanledger writes."""
    return max(version for version, _ in scripts())


def connect(url: str) -> Any:
    """A connection, in autocommit. Raises `SinkError` where there is no driver, `psycopg.Error`."""
    return _psycopg().connect(libpq_url(url), **_CONNECT)


def _psycopg() -> Any:
    try:
        import psycopg  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise SinkError(
            f"the PostgreSQL driver can't be loaded ({error}); pip install 'spanledger[postgres]'"
        ) from error
    return psycopg


def _too_much(psycopg: Any) -> tuple[Any, ...]:
    """What says that a value is too large or too deep for a database."""
    return psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex


def told(error: BaseException, url: str) -> str:
    """What a database error may say in a log: its primary message, which holds none of our texts, and no password."""
    message = getattr(getattr(error, "diag", None), "message_primary", None) or str(error).partition("\n")[0]
    for secret in secrets_in(url):
        message = message.replace(secret, "***")
    return f"{type(error).__name__}: {message[:300]}"


def _turns(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in such parts that none has a record twice: one statement can't touch a row twice."""
    turns: list[dict[str, Row]] = []
    for row in rows:
        for turn in turns:
            if row["record_id"] not in turn:
                turn[row["record_id"]] = row
                break
        else:
            turns.append({row["record_id"]: row})
    return [list(turn.values()) for turn in turns]


def _line(row: Row, now: str) -> str:
    """A row in COPY's text format."""
    fields = ["\\N"] * (len(COLUMNS) + 1)
    for name, value in row.items():
        place = _PLACES.get(name)
        if value is None or place is None:
            continue
        if isinstance(value, str):
            if name in _JSON and _UNSTORABLE.search(value):
                value = json.dumps(_storable(json.loads(value)))  # noqa: PLW2901  # jsonb has no word for them
            fields[place] = _SPECIAL.sub(_escaped, value) if _SPECIAL.search(value) else value
        else:
            fields[place] = ("t" if value else "f") if name in _FLAGS else str(value)
    fields[-1] = row.get("recorded_at") or now
    return "\t".join(fields) + "\n"


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0], "\ufffd")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\x00\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


# Asking.


class PostgresReader:
    """A connection that is asked in SQLite's way and answers in it: `?` and `:name`, texts for times and JSON."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        _answer_like_sqlite(connection)
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """A cursor whose rows are read by number or by name. Raises `psycopg.Error`."""
        return self._connection.cursor(row_factory=_named).execute(_translated(statement), values)


class _Row(tuple[Any, ...]):
    """A row that is read by number or by name."""

    __slots__ = ()
    names: Sequence[str]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)

    def keys(self) -> Sequence[str]:
        return self.names


def _named(cursor: Any) -> Callable[[Sequence[Any]], _Row]:
    names = [column.name for column in cursor.description or ()]
    return type("Row", (_Row,), {"names": names, "__slots__": ()})


def _translated(statement: str) -> str:
    text = statement.replace("%", "%%").replace("?", "%s")
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", text)


def _answer_like_sqlite(connection: Any) -> None:
    from psycopg.adapt import Loader  # noqa: PLC0415  # an extra
    from psycopg.types.datetime import TimestamptzLoader  # noqa: PLC0415  # as above

    class Text(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Moment(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._time = TimestamptzLoader(oid, context)

        def load(self, data: Any) -> str:
            return iso(self._time.load(data))

    class Number(Loader):
        def load(self, data: Any) -> int | float:
            text = bytes(data)
            return float(text) if b"." in text else int(text)

    class Flag(Loader):
        def load(self, data: Any) -> int:
            return int(bytes(data) == b"t")

    for kind, loader in (("jsonb", Text), ("timestamptz", Moment), ("numeric", Number), ("bool", Flag)):
        connection.adapters.register_loader(kind, loader)


@contextmanager
def reading(url: str) -> Iterator[PostgresReader]:
    """A connection for questions, in one read-only transaction that sees one state. Raises `psycopg.Error`."""
    connection = connect(url)
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield PostgresReader(connection)
    finally:
        connection.close()
