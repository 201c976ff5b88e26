"""What `get_usage()` takes on a large ledger, SQLite and PostgreSQL. Medians.

python benchmarks/totals.py [rows]

PostgreSQL is one that this starts itself, as the tests do. The rows are made by the databases; they are as wide as real
ones, and come in the order of time: 6 providers, 48 models, 1000 users, 30 features, 12 teams, 300 days.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg
from tests.postgresql.server import Server

from spanledger.ledger.asking import usage
from spanledger.ledger.migrating import upgrade
from spanledger.ledger.sqlite import open_for_writing

ROUNDS = 5
NAMES = (
    "record_id, source, started_at, duration_ms, operation, provider, request_model, response_model, stream,"
    " input_tokens, output_tokens, cache_read_tokens, usage_status, cost_pusd, cost_breakdown, currency, cost_source,"
    " cost_status, user_id, feature, team, status, weight, raw_usage, recorded_at"
)
ROW = (
    "{id}, 'spanledger', {moment}, n % 5000, 'chat', 'provider-' || (n % 6), 'model-' || (n % 48), 'model-' || (n % 48)"
    ", {no}, 1000 + n % 7000, n % 900, n % 800, 'reported', 1000000 + n * 7919 % 90000000000, {parts}, 'USD', 'local',"
    " CASE WHEN n % 100 = 0 THEN 'unpriced' ELSE 'priced' END, 'user-' || (n * 31 % 1000), 'feature-' || (n * 17 % 30),"
    " 'team-' || (n * 13 % 12), 'success', 1, {raw}, {moment}"
)
PARTS = '{"input":2500000,"cache_read":1250000,"output":10000000,"reasoning":2000000}'
RAW = (
    '{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":400},'
    '"completion_tokens_details":{"reasoning_tokens":20}}'
)
QUESTIONS = {
    "get_usage()": {},
    "get_usage('30d')": {"start": "30d"},
    "get_usage(user_id=…)": {"where": {"user_id": "user-17"}},
    "get_usage(feature=…)": {"where": {"feature": "feature-3"}},
    "get_usage('30d', by='user_id')": {"start": "30d", "by": ("user_id",)},
    "get_usage(by='team')": {"by": ("team",)},
}


def sqlite_of(path, rows):
    connection = open_for_writing(path)
    connection.execute("PRAGMA synchronous = OFF")
    moment = f"strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now', '-' || (({rows} - m) * 25920000 / {rows}) || ' seconds')"
    row = ROW.format(id="printf('%08x-0000-7000-8000-%012x', n * 2654435761 % 4294967296, n)", moment=moment, no="0",
                     parts=f"'{PARTS}'", raw=f"'{RAW}'")  # fmt: skip
    connection.execute(
        f"WITH RECURSIVE numbers(m) AS (SELECT 1 UNION ALL SELECT m + 1 FROM numbers WHERE m < {rows})"
        f" INSERT INTO usage_records ({NAMES}) SELECT {row} FROM (SELECT m, m * 7919 AS n FROM numbers)"
    )
    connection.close()
    return f"sqlite:///{path}"


def postgres_of(url, rows):
    upgrade(url)
    moment = f"now() - ({rows} - m) * 25920000 / {rows} * interval '1 second'"
    row = ROW.format(id="gen_random_uuid()::text", moment=moment, no="false", parts=f"'{PARTS}'::jsonb",
                     raw=f"'{RAW}'::jsonb")  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO usage_records ({NAMES}) SELECT {row} FROM (SELECT m::bigint, m * 7919::bigint AS n"
            f" FROM generate_series(1, {rows}) AS m) AS numbers"
        )
        connection.execute("VACUUM ANALYZE usage_records")
    return url


def asked(url, start=None, by=(), where=None):
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        told = usage(url, start, None, by=by, period="month", timezone="UTC", where=where or {})
        took.append(time.perf_counter() - began)
    return statistics.median(took), told


def main(rows):
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        server.create_database("totals")
        for name, url in (
            ("SQLite", sqlite_of(Path(folder) / "ledger.db", rows)),
            ("PostgreSQL", postgres_of(server.url("totals"), rows)),
        ):
            print(f"{name}, {rows:,} rows")
            for question, how in QUESTIONS.items():
                seconds, told = asked(url, **how)
                print(f"  {question:<32} {seconds:7.3f} s, {told['total_requests']:,} requests", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
