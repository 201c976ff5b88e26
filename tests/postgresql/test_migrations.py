"""The ways to the tables, Alembic's, the command's, the SQL's and the delivery's, all lead to the same ones."""

import subprocess
import sys
import zipfile
from pathlib import Path

import psycopg
import pytest
from tests.postgresql.records import asked, command, count, put, row

from spanledger.ledger.postgres import newest

ALEMBIC = [sys.executable, "-m", "alembic"]
ROOT = Path(__file__).parents[2]

SCHEMA = {
    "columns": "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default,"
    " character_maximum_length, datetime_precision FROM information_schema.columns WHERE table_schema = 'public'",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "constraints": "SELECT conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "others": "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
}


def schema(url):
    with psycopg.connect(url) as connection:
        return {what: sorted(connection.execute(f"{statement} ORDER BY 1, 2" if "," in statement else statement),
            key=str) for what, statement in SCHEMA.items()}  # fmt: skip


def alembic(folder, *arguments, url=None, setting=None, monkeypatch):
    """Alembic in a directory of its own, with the ini that the command prints."""
    ini = command("ledger", "migrate", "--ini").stdout
    if url:
        ini = ini.replace("# sqlalchemy.url = postgresql://user:password@host/database", f"sqlalchemy.url = {url}")
    (folder / "alembic.ini").write_text(ini)
    if setting:
        monkeypatch.setenv("SPANLEDGER_LEDGER_URL", setting)
    done = subprocess.run([*ALEMBIC, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def expected(postgres, database):
    """What the delivery makes of an empty database."""
    url = postgres.create_database("as_the_delivery_does")
    put(url, [row()])
    yield schema(url)
    postgres.drop_database("as_the_delivery_does")


def test_what_the_delivery_makes(expected):
    assert {name for name, kind in expected["others"] if kind == "r"} == {
        "usage_records", "cost_adjustments", "pruned_days", "spanledger_schema",
    }  # fmt: skip
    assert {name for name, _ in expected["views"]} == {
        "current_costs", "token_ledger_events", "token_ledger_daily_costs", "token_ledger_user_costs",
        "token_ledger_team_costs", "token_ledger_cost_center_costs",
    }  # fmt: skip
    assert expected["functions"] == []


def test_alembic_with_the_ledger_of_the_environment_makes_the_same(tmp_path, database, expected, monkeypatch):
    setting = database.replace("postgresql://", "postgresql+asyncpg://")
    alembic(tmp_path, "upgrade", "head", setting=setting, monkeypatch=monkeypatch)
    assert schema(database) == expected


def test_alembic_with_a_url_in_its_ini_makes_the_same(tmp_path, database, expected, monkeypatch):
    alembic(
        tmp_path, "upgrade", "head", url=database, setting="postgresql://nobody@127.0.0.1:1/x", monkeypatch=monkeypatch
    )
    assert schema(database) == expected


def test_the_command_makes_the_same_and_again_changes_nothing(database, expected):
    for _ in range(2):
        assert command("ledger", "migrate", "--ledger", database).stdout == f"{database}: version {newest()}\n"
        assert schema(database) == expected


def test_the_sql_that_the_command_prints_makes_the_same(database, expected):
    printed = command("ledger", "migrate", "--sql").stdout
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(printed)
    assert schema(database) == expected
    put(database, [row()])
    assert count(database) == 1


def test_the_sql_that_is_printed_is_that_of_the_files():
    files = sorted((ROOT / "src/spanledger/ledger/migrations/sql").glob("*.sql"))
    printed = [line for line in command("ledger", "migrate", "--sql").stdout.splitlines() if line.strip()]
    written = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert sorted(printed) == sorted(written)
    assert (printed[0], printed[-1]) == ("BEGIN;", "COMMIT;")


def test_the_generated_sql_is_that_of_the_migrations(tmp_path, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_LEDGER_URL", "postgresql://nobody@127.0.0.1:1/x")
    (tmp_path / "alembic.ini").write_text(command("ledger", "migrate", "--ini").stdout)
    done = subprocess.run(
        [*ALEMBIC, "upgrade", "head", "--sql"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )

    def statements(text):
        return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("--")]

    (file,) = (ROOT / "src/spanledger/ledger/migrations/sql").glob("*.sql")
    assert statements(done.stdout) == statements(file.read_text())


def test_a_downgrade_takes_everything_away_and_the_delivery_makes_it_again(tmp_path, database, expected, monkeypatch):
    put(database, [row()])
    alembic(tmp_path, "downgrade", "base", setting=database, monkeypatch=monkeypatch)
    left = schema(database)
    assert left["others"] == [("spanledger_schema", "r"), ("spanledger_schema_pkc", "i")]
    assert asked(database, "SELECT count(*) FROM spanledger_schema") == [(0,)]
    put(database, [row()])
    assert schema(database) == expected
    assert count(database) == 1


def test_an_applications_own_alembic_is_left_alone(tmp_path, database, monkeypatch):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('theirs')")
        command("ledger", "migrate", "--ledger", database)
        put(database, [row()])
        assert asked(database, "SELECT version_num FROM spanledger_schema") == [("0001",)]
        alembic(tmp_path, "downgrade", "base", setting=database, monkeypatch=monkeypatch)
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("theirs",)]


def test_a_schema_of_a_later_spanledger_is_not_migrated_and_says_so(database):
    put(database, [row()])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE spanledger_schema SET version_num = '9999'")
    assert "9999" in command("ledger", "migrate", "--ledger", database, expect=1).stderr
    assert count(database) == 1


def test_the_wheel_has_the_migrations_and_their_sql(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("there is no uv beside this Python")
    subprocess.run([uv, "build", "--quiet", "--wheel", "-o", tmp_path, ROOT], timeout=110, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    folder = ROOT / "src/spanledger/ledger"
    wanted = {
        str(path.relative_to(ROOT / "src"))
        for path in (*folder.rglob("*.sql"), *(folder / "migrations").rglob("*.py"))
    }  # fmt: skip
    assert wanted <= names
    assert "spanledger/ledger/migrations/sql/0001_usage_records.sql" in wanted
