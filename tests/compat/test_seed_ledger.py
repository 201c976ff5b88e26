"""TokenLedger's quick start runs with only its import lines changed, on a real PostgreSQL, and its SQL as it stands.

Each block runs with every SDK watched beforehand, and with none but those that the block itself patches.
"""

import gc
import json
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from psycopg.rows import dict_row
from tests.compat.conftest import OLD_MODELS
from tests.compat.seeds import Program, billed, every, statements

import spanledger
from spanledger.compat import tokenledger
from spanledger.compat.tokenledger import LLMEvent, attribution

pytestmark = OLD_MODELS
HELLO = [{"role": "user", "content": "Hello! How are you?"}]


@pytest.fixture(autouse=True)
def left_open():
    """The documents close no client: that must not be another test's warning."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def call():
    """What a document leaves to its reader: a call of a model."""
    with OpenAI() as client:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)


def program(text, database):
    """A program of TokenLedger's: its database is ours, what it leaves out is a call, and Anthropic gets its bound."""
    filled = [
        (r'"postgresql://[^"]*"', json.dumps(database)),
        (r"^    \.\.\.$", "    call()"),
        (r'(model="claude-3-5-sonnet-20241022"),$', r"\1, max_tokens=100,"),
    ]
    return Program(text, {"call": call}, filled)


@pytest.fixture
def rows(database):
    """The rows of the ledger by TokenLedger's names, oldest first."""

    def found(*columns):
        assert spanledger.flush()
        with psycopg.connect(database, row_factory=dict_row) as connection:
            rows = connection.execute("SELECT * FROM token_ledger_events ORDER BY timestamp").fetchall()
        return [tuple(row[name] for name in columns) for row in rows] if columns else rows

    return found


COUNTS = ("input_tokens", "output_tokens")
WHOSE = (
    "user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center", "metadata_extra",
)  # fmt: skip


def whose(**said):
    return tuple(said.get(name) for name in WHOSE)


@every("tokenledger")
@pytest.mark.parametrize(("number", "whose_sdk"), [(0, "openai"), (1, "anthropic")])
def test_two_lines(text, number, whose_sdk, watching, database, rows, truth):
    program(text, database).run(number)
    (row,) = rows()
    assert [(row["input_tokens"], row["output_tokens"])] == billed(truth())
    assert (row["provider"], row["status"], row["cost_usd"] > 0, row["duration_ms"] > 0) == (
        whose_sdk,
        "success",
        True,
        True,
    )


@every("tokenledger")
def test_without_the_bound_that_anthropic_asks_for_its_sdk_says_so_and_nothing_is_billed(
    text, watching, database, truth
):
    made = program(text, database)
    made.filled[2] = (r", max_tokens=100", "")
    with pytest.raises(TypeError, match="max_tokens"):
        made.run(1)
    assert spanledger.flush()
    assert truth() == []


@every("tokenledger")
def test_attribution_around_a_call(text, watching, database, rows, truth):
    program(text, database).run(2)
    assert rows(*COUNTS) == billed(truth())
    assert rows(*WHOSE) == [whose(user_id="user_123", feature="summarize")]


@every("tokenledger")
def test_attribution_of_a_function(text, watching, database, rows, truth):
    made = program(text, database).run(2, 3)
    answer = made.handle_chat("ada", "How much is it?")
    assert answer.usage.total_tokens == sum(billed(truth())[1])
    assert rows(*COUNTS) == billed(truth())
    assert rows(*WHOSE)[1] == whose(user_id="ada", feature="chat", team="product")
    assert len(truth()) == 2


@every("tokenledger")
def test_all_that_can_be_attributed(text, watching, database, rows, truth):
    program(text, database).run(2, 4)
    assert rows(*COUNTS) == billed(truth())
    assert rows(*WHOSE)[1] == whose(
        user_id="user_123", session_id="sess_abc", organization_id="org_456", feature="summarize", team="ml",
        project="api-v2", cost_center="CC-001", metadata_extra={"custom_field": "value"},
    )  # fmt: skip


@every("tokenledger")
def test_a_service_whose_calls_are_those_of_the_headers(text, watching, database, rows, truth):
    app = program(text, database).run(5).app
    client = TestClient(app)
    sent = {"X-User-ID": "ada", "X-Feature": "chat", "X-Team": "web", "X-Cost-Center": "CC-7"}
    assert [client.post("/chat", headers=each).status_code for each in (sent, {})] == [200, 200]
    assert rows(*COUNTS) == billed(truth())
    extra = {"page": "/chat", "http_method": "POST"}
    assert rows(*WHOSE, "app_name", "environment") == [
        (*whose(user_id="ada", feature="chat", team="web", cost_center="CC-7", metadata_extra=extra), *SERVICE),
        (*whose(metadata_extra=extra), *SERVICE),
    ]
    assert len(truth()) == 2


SERVICE = ("my-api", "production")


@every("tokenledger")
def test_an_event_by_hand(text, watching, database, rows, truth):
    program(text, database).run(5, 6)
    assert truth() == []
    (row,) = rows()
    known = {
        "provider": "custom", "model": "my-model", "input_tokens": 100, "output_tokens": 50, "total_tokens": 150,
        "cached_tokens": 0, "duration_ms": 250.0, "status": "success", "cost_usd": None, "user_id": "user_123",
        "feature": "custom", "request_type": "chat", "app_name": "my-api",
    }  # fmt: skip
    assert {name: row[name] for name in known} == known


@every("tokenledger")
def test_an_event_of_a_coroutine(text, watching, database, rows, truth):
    program(text, database).run(7)
    assert truth() == []
    known = ("openai", "gpt-4o", 100, 50, "user_123", "batch-process", Decimal("0.00075"))
    assert rows("provider", "model", *COUNTS, "user_id", "feature", "cost_usd") == [known]


@every("tokenledger")
def test_a_hosted_database(text, watching, database, rows, truth):
    program(text, database).run(0, 8)
    call()
    assert rows(*COUNTS) == billed(truth())
    assert len(truth()) == 2


# The queries.

NOW = datetime.now(UTC)
PEOPLE = (
    # user, feature, team, days ago, input, output, ms
    ("ada", "search", "ml", 0.001, 9000, 0, 250),
    ("ada", "search", "ml", 3, 1000, 0, 350),
    ("ada", "chat", "ml", 4, 1000, 0, 250),
    ("bob", "chat", "web", 0.001, 400, 10, 100),
    ("bob", "chat", "web", 2, 400, 10, 100),
    ("bob", "search", "web", 5, 800, 0, 400),
    (None, "chat", "web", 20, 2000, 0, 50),
    ("ada", "search", "ml", 40, 100_000, 0, 250),
)
PRICES = Decimal("2.5") / 10**6, Decimal(10) / 10**6
"""USD for a token of gpt-4o, in and out."""


@pytest.fixture
def filled(database):
    """A ledger of ours with events of some weeks; what each of them is, with its cost."""
    tokenledger.configure(database_url=database)
    events = []
    for user, feature, team, ago, taken, made, duration in PEOPLE:
        event = LLMEvent(
            provider="openai", model="gpt-4o", input_tokens=taken, output_tokens=made, duration_ms=float(duration),
            timestamp=NOW - timedelta(days=ago), feature=feature, team=team,
        )  # fmt: skip
        with attribution(user_id=user):
            tokenledger.get_tracker().track(event)
        cost = taken * PRICES[0] + made * PRICES[1]
        events.append((user, feature, team, event.timestamp, cost, duration, taken + made))
    assert spanledger.flush()
    return events


def of_days(events, days):
    return [each for each in events if each[3] >= NOW - timedelta(days=days)]


def grouped(events, *places):
    """Events by what they have at some places."""
    found = {}
    for each in events:
        found.setdefault(tuple(each[place] for place in places), []).append(each)
    return found


def cost_of(events):
    return sum(each[4] for each in events)


def by_cost(rows, place=-1):
    return sorted(rows, key=lambda row: -row[place])


def expected(events):
    """What each statement of the document says, worked out here."""
    month, week = of_days(events, 30), of_days(events, 7)
    features = by_cost((*key, cost_of(of)) for key, of in grouped(month, 1).items())
    teams = {(*key, cost_of(of), len(of)) for key, of in grouped(month, 2).items()}
    users = by_cost((*key, cost_of(of)) for key, of in grouped(week, 0, 1).items())
    dated = [(*each, each[3].date()) for each in events]
    days = sorted(
        (
            (day, "openai", "gpt-4o", len(of), sum(each[6] for each in of), cost_of(of))
            for (day,), of in grouped(dated, 7).items()
        ),
        reverse=True,
    )
    leaders = by_cost((user or "anonymous", len(of), cost_of(of)) for (user,), of in grouped(events, 0).items())
    both = by_cost(
        (
            (*key, cost_of(of), len(of), sum(each[5] for each in of) / len(of))
            for key, of in grouped(week, 1, 2).items()
        ),
        place=2,
    )
    daily = {key: cost_of(of) for key, of in grouped(dated, 0, 7).items()}
    strange = set()
    for (user, day), cost in daily.items():
        of_user = [each for (who, when), each in daily.items() if who == user and (NOW.date() - when).days <= 30]
        average = sum(of_user) / len(of_user) if of_user else 0
        if user and day >= NOW.date() - timedelta(days=1) and cost > 2 * average:
            strange.add((user, day, cost, round(average, 12)))
    return features, teams, users, days, leaders, both, strange


def asked(url, statement):
    """As psql would: nothing set but what the server has."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement).fetchall()


def picked(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


@every("tokenledger")
def test_every_statement_of_the_document_runs_as_it_stands(text, database, filled):
    features, teams, users, days, leaders, both, strange = expected(filled)
    first, second, third, fourth, fifth, sixth, seventh = (asked(database, each) for each in statements(text))
    assert by_cost(picked(first, "feature", "cost")) == features
    assert {*picked(second, "team", "cost", "requests")} == teams
    own = "who" if "who" in third[0] else "user_id"
    assert by_cost(picked(third, own, "feature", "cost")) == users
    assert picked(fourth, "date", "provider", "model", "request_count", "total_tokens", "total_cost") == days
    assert picked(fifth, "user_id", "request_count", "total_cost") == leaders
    assert picked(sixth, "feature", "team", "cost", "requests", "avg_latency_ms") == both
    found = picked(seventh, "user_id", "date", "daily_cost", "avg_daily")
    assert {(*row[:3], round(row[3], 12)) for row in found} == strange
    assert [user for user, *_ in strange] == ["ada"]


@every("tokenledger")
def test_the_statements_say_of_watched_calls_what_the_provider_billed(text, database, truth, rows):
    tokenledger.configure(database_url=database)
    tokenledger.patch_openai()
    for user, team in (("ada", "ml"), ("ada", "ml"), ("bob", "web")):
        with attribution(user_id=user, team=team, feature="chat"):
            call()
    counts = billed(truth())
    cost = sum(
        (prompt - cached) * PRICES[0] + cached * PRICES[0] / 2 + output * PRICES[1]
        for (prompt, output), cached in zip(
            counts, (each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in truth()), strict=True
        )
    )
    assert rows(*COUNTS) == counts
    first, second, *_ = (asked(database, each) for each in statements(text))
    assert picked(first, "feature", "cost") == [("chat", cost)]
    assert {*picked(second, "team", "requests")} == {("ml", 2), ("web", 1)}
