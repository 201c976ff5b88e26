"""What comes in with a request is nobody's word: it attributes nothing, counts nothing and hides nothing."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import SpanProcessor
from tests.conftest import httpx2, loaded_prices

import spanledger

sys.path.insert(0, str(Path(__file__).parents[1] / "once"))

from environments import programs_of  # lies there

SERVING = Path(__file__).with_name("serving.py")
QUESTION = [{"role": "user", "content": "Hello"}]
FOREIGN = "opentelemetry.instrumentation.openai_v2"
MALLORY = {
    "user.id": "mallory",
    "session.id": "hijacked",
    "spanledger.organization.id": "victim",
    "spanledger.feature": "free",
    "spanledger.team": "victims",
    "spanledger.metadata.note": "mallory",
    "gen_ai.usage.input_tokens": "999999",
    "gen_ai.usage.output_tokens": "999999",
    "gen_ai.usage.cache_read.input_tokens": "999998",
    "gen_ai.usage.cost": "0",
    "spanledger.cost.total": "0",
    "spanledger.cost.status": "free",
    "spanledger.usage.status": "estimated",
}
IDENTITY = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o",
}
"""What a call is of: anybody can guess it."""
MANY = {f"k{number}": f"v{number}" for number in range(300)}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
JUNK = "user.id=mallory,=,spanledger=" + "x" * 300 + ",\x7f"
IDS = {
    "x-user-id": "mallory", "x-session-id": "hijacked", "x-organization-id": "victim", "x-feature": "free",
    "x-team": "victims", "x-project": "victims", "x-cost-center": "victims",
}  # fmt: skip


def inbound(said=MALLORY, flags="01"):
    entries = ",".join(f"{name}={value}" for name, value in said.items())
    return {**IDS, "baggage": entries, "traceparent": f"{TRACE}-{flags}", "tracestate": JUNK}


class Copying(SpanProcessor):
    """Copies all baggage onto every span, as opentelemetry-processor-baggage does with ALLOW_ALL_BAGGAGE_KEYS."""

    def on_start(self, span, parent_context=None):
        for name, value in baggage.get_all(parent_context).items():
            span.set_attribute(name, value)


@pytest.fixture(params=["nobody copies", "copied before us", "copied after us"])
def recording(request, telemetry):
    """spanledger at work, and a processor that copies baggage onto spans."""
    if request.param == "copied before us":
        telemetry.tracer_provider.add_span_processor(Copying())
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    if request.param == "copied after us":
        telemetry.tracer_provider.add_span_processor(Copying())
    loaded_prices()
    return telemetry


@contextmanager
def request(recording, headers):
    """A server's span, in the context that a request brings."""
    token = otel_context.attach(propagate.extract(headers))
    try:
        with recording.tracer_provider.get_tracer("server").start_as_current_span("POST /ask"):
            yield
    finally:
        otel_context.detach(token)


def wrapper(recording, provider):
    """A call that our own wrapper sees: door 1."""
    from openai import OpenAI

    with OpenAI(base_url=provider.base_url, api_key="x", max_retries=0) as client:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)


def foreign(recording, provider, scope=FOREIGN, at_start=True):
    """A call that somebody else's span tells of: door 2."""
    start = {name: value for name, value in IDENTITY.items() if "response" not in name}
    tracer = recording.tracer_provider.get_tracer(scope)
    with tracer.start_as_current_span("chat gpt-4o", attributes=start if at_start else None) as span:
        if not at_start:
            span.set_attributes(start)
        answer = {name: value for name, value in IDENTITY.items() if "response" in name}
        span.set_attributes({**answer, "gen_ai.response.id": "r1"})
        span.set_attributes({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 9})


DOORS = {"our wrapper": wrapper, "a span of others": foreign}
COST = {"our wrapper": 4 * 2_500_000 + 1_250_000 + 9 * 10_000_000, "a span of others": 5 * 2_500_000 + 9 * 10_000_000}
WHOSE = (
    "user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center", "message_id",
    "metadata", "attribution_source",
)  # fmt: skip
WHAT = ("operation", "provider", "request_model", "input_tokens", "output_tokens", "usage_status", "cost_pusd")
NOBODY = (None,) * len(WHOSE)
ADA = ("ada", None, "acme", None, None, None, None, None, '{"ticket":7}', "scope")
SCOPES = {"in a scope": ADA, "without one": NOBODY}


def scope(name):
    return spanledger.attribution(user_id="ada", organization_id="acme", ticket=7) if SCOPES[name] is ADA else (
        nullcontext()
    )  # fmt: skip


def what(door):
    return ("chat", "openai", "gpt-4o", 5, 9, "reported", COST[door])


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize("owner", SCOPES)
@pytest.mark.parametrize("door", DOORS)
def test_baggage_and_headers_change_neither_whose_a_call_is_nor_what_it_used(
    door, owner, flags, recording, provider, ledger
):
    with request(recording, inbound(flags=flags)), scope(owner):
        assert baggage.get_all()["user.id"] == "mallory"  # it did come in
        DOORS[door](recording, provider)
    assert ledger(*WHAT, *WHOSE) == [(*what(door), *SCOPES[owner])]
    assert ledger("trace_id") == [(TRACE[3:35],)]


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize("door", DOORS)
def test_hundreds_of_baggage_entries_hide_no_call(door, flags, recording, provider, ledger, home):
    with request(recording, inbound({**MALLORY, **MANY}, flags)), scope("in a scope"):
        assert len(baggage.get_all()) > 128
        DOORS[door](recording, provider)
    spanledger.flush()
    assert (home / "ledger.db").exists()
    assert ledger(*WHAT, *WHOSE) == [(*what(door), *ADA)]


@pytest.mark.parametrize("tracer", [FOREIGN, "an.application"])
@pytest.mark.parametrize("at_start", [True, False], ids=["said at its start", "said later"])
def test_baggage_that_says_what_the_call_is_hides_no_call(tracer, at_start, recording, provider, ledger, home):
    with request(recording, inbound({**MALLORY, **IDENTITY})), scope("in a scope"):
        foreign(recording, provider, tracer, at_start)
    spanledger.flush()
    assert (home / "ledger.db").exists()
    rows = ledger("source", *WHAT)
    assert [row for row in rows if row[0] == tracer] == [(tracer, *what("a span of others"))]


@pytest.mark.parametrize("owner", SCOPES)
def test_a_span_that_says_late_what_it_is_belongs_to_nobody_in_the_baggage(owner, recording, provider, ledger):
    with request(recording, inbound()), scope(owner):
        foreign(recording, provider, "an.application", at_start=False)
    (row,) = ledger(*WHAT, *WHOSE)
    assert row in [(*what("a span of others"), *whose) for whose in (SCOPES[owner], NOBODY)]


def test_baggage_that_says_what_the_call_is_changes_nothing_for_our_wrapper(recording, provider, ledger):
    with request(recording, inbound({**MALLORY, **IDENTITY})), scope("in a scope"):
        wrapper(recording, provider)
    rows = ledger("source", *WHAT, *WHOSE)
    assert [row[1:] for row in rows if row[0] == "spanledger"] == [(*what("our wrapper"), *ADA)]


def test_baggage_that_describes_a_call_makes_none(recording, ledger, home):
    tracer = recording.tracer_provider.get_tracer("a.database")
    with request(recording, inbound({**MALLORY, **IDENTITY})), tracer.start_as_current_span("SELECT"):
        pass
    spanledger.flush()
    assert ([] if not (home / "ledger.db").exists() else ledger("source", *WHAT)) == []


@pytest.mark.parametrize("owner", SCOPES)
def test_our_own_span_says_what_the_ledger_says(owner, recording, provider, ledger):
    with request(recording, inbound()), scope(owner):
        wrapper(recording, provider)
    (span,) = [each for each in recording.spans if each.instrumentation_scope.name == "spanledger"]
    said = {
        name: span.attributes.get(name)
        for name in ("user.id", "spanledger.organization.id", "spanledger.metadata.ticket", "gen_ai.usage.input_tokens",
                     "gen_ai.usage.output_tokens", "spanledger.cost.total", "spanledger.cost.status",
                     "spanledger.usage.status")
    }  # fmt: skip
    usage = {
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 9,
        "spanledger.cost.total": COST["our wrapper"] / 1e12,
        "spanledger.cost.status": "priced",
        "spanledger.usage.status": "reported",
    }
    whose = {"user.id": "ada", "spanledger.organization.id": "acme", "spanledger.metadata.ticket": 7}
    if owner == "without one":  # what the application copies onto all spans is its own affair
        said = {name: value for name, value in said.items() if name in usage}
        whose = {}
    assert said == {**whose, **usage}


def test_a_span_of_others_says_whose_the_call_is_as_the_ledger_does(recording, provider, ledger):
    with request(recording, inbound()), scope("in a scope"):
        foreign(recording, provider)
    (span,) = [each for each in recording.spans if each.instrumentation_scope.name == FOREIGN]
    names = ("user.id", "spanledger.organization.id", "spanledger.metadata.ticket", "spanledger.cost.total")
    assert [span.attributes.get(name) for name in names] == ["ada", "acme", 7, COST["a span of others"] / 1e12]


@pytest.mark.parametrize("fail", [False, True], ids=["answered", "failed"])
def test_our_own_spans_attributes_survive_300_of_the_applications(fail, telemetry, ledger):
    from openai import InternalServerError, OpenAI

    def answer(_):
        span = trace.get_current_span()
        for number in range(300):
            span.set_attribute(f"app.{number}", number)
        usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
        body = {"id": "c", "model": "gpt-4o", "choices": [], "usage": usage}
        return httpx2.Response(500 if fail else 200, json=body)

    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    loaded_prices()
    with ExitStack() as stack:
        http = httpx2.Client(transport=httpx2.MockTransport(answer))
        client = stack.enter_context(OpenAI(api_key="x", http_client=http, max_retries=0))
        stack.enter_context(scope("in a scope"))
        if fail:
            stack.enter_context(pytest.raises(InternalServerError))
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    (span,) = telemetry.spans
    assert len(span.attributes) == 128
    expected = {
        "user.id": "ada",
        "spanledger.organization.id": "acme",
        "spanledger.metadata.ticket": 7,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "spanledger.usage.status": "missing" if fail else "reported",
        "gen_ai.usage.input_tokens": None if fail else 5,
        "gen_ai.usage.output_tokens": None if fail else 9,
        "spanledger.cost.total": None if fail else COST["a span of others"] / 1e12,
    }
    assert {name: span.attributes.get(name) for name in expected} == expected
    assert ledger("user_id", "input_tokens") == [("ada", None if fail else 5)]


@pytest.mark.timeout(900)  # it makes its environment
@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_behind_instrumented_servers_calls_belong_to_scopes_and_to_nobody_else(kind, flags, home, provider):
    programs = programs_of("wire")
    headers = json.dumps(inbound({**MALLORY, **MANY}, flags))
    done = subprocess.run(
        [programs / "opentelemetry-instrument", programs / "python", SERVING, provider.base_url, kind, headers],
        env=dict(os.environ), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whose = "trace_id, user_id, organization_id, feature, metadata, attribution_source"
    columns = f"{whose}, input_tokens, output_tokens, usage_status"
    connection = sqlite3.connect(home / "ledger.db")
    rows = connection.execute(f"SELECT {columns} FROM usage_records ORDER BY started_at, record_id").fetchall()
    connection.close()
    inside = TRACE[3:35]
    nobodys = (inside, None, None, None, None, None, 5, 9, "reported")
    assert rows == [nobodys, (inside, "ada", None, None, None, "scope", 5, 9, "reported"), nobodys]


DEFAULT = "feature,team,project,cost_center"


def counted(keys, spread, users):
    command = [sys.executable, Path(__file__).with_name("populous.py"), keys, spread, str(users)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("keys", [DEFAULT, f"{DEFAULT},user_id"])
def test_a_hundred_thousand_users_are_a_hundred_values_and_one_for_the_others(keys):
    found = counted(keys, "same", 100_000)
    assert found.pop("mib") < 20
    assert found == {"values": dict.fromkeys(keys.split(","), 101), "points": 2 * 101, "calls": 100_000}


def test_keys_that_combine_freely_make_no_more_points_than_opentelemetry_allows():
    found = counted(DEFAULT, "crossed", 20_000)
    assert found["calls"] == 20_000
    assert found["points"] <= 2 * 2000  # OpenTelemetry's own default for the sets of attributes of an instrument
    assert found["mib"] < 20
