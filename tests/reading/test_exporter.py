"""The span exporter: calls that only foreign spans tell of become rows; those we recorded ourselves don't, twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import spanledger

COLUMNS = (
    "source", "operation", "provider", "request_model", "response_model", "response_id", "input_tokens",
    "output_tokens", "cache_read_tokens", "cost_pusd", "cost_status", "usage_status", "status", "user_id", "team",
)  # fmt: skip


@pytest.fixture
def foreign():
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spanledger.UsageSpanExporter()))
    yield provider.get_tracer("somebody.elses")
    provider.shutdown()


CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.response.id": "chatcmpl-foreign",
    "gen_ai.usage.input_tokens": 2006,
    "gen_ai.usage.output_tokens": 300,
    "gen_ai.usage.cache_read.input_tokens": 1920,
    "user.id": "ada",
    "spanledger.team": "support",
}


def test_a_foreign_span_becomes_a_priced_and_attributed_row(foreign, ledger):
    with foreign.start_as_current_span("chat gpt-4o", attributes=CHAT) as span:
        own = f"{span.get_span_context().span_id:016x}"
    assert ledger(*COLUMNS) == [
        (
            "somebody.elses", "chat", "openai", "gpt-4o", "gpt-4o-2024-08-06", "chatcmpl-foreign", 2006, 300, 1920,
            5_615_000_000, "priced", "reported", "success", "ada", "support",
        )
    ]  # fmt: skip
    assert ledger("span_id") == [(own,)]


def test_older_spellings_are_read_too(foreign, ledger):
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 2,
        "gen_ai.usage.cache_creation.input_tokens": 4,
    }
    foreign.start_span("x", attributes=attributes).end()
    assert ledger("provider", "input_tokens", "output_tokens", "cache_write_tokens") == [("openai", 10, 2, 4)]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.request.method": "POST"},
        {**CHAT, "gen_ai.operation.name": "invoke_agent"},
        {**CHAT, "gen_ai.operation.name": "fetch_response"},
    ],
)
def test_what_is_no_billed_call_is_no_row(foreign, recording, ledger, attributes):
    foreign.start_span("x", attributes=attributes).end()
    assert spanledger.flush()
    assert not Path(os.environ["SPANLEDGER_STATE_DIR"], "ledger.db").exists()


def test_a_call_we_recorded_is_not_a_second_row_when_another_instrumentation_tells_of_it(client, foreign, ledger):
    with foreign.start_as_current_span("chat gpt-4o", attributes={**CHAT}) as span:
        answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
        assert spanledger.flush()
        span.set_attribute("gen_ai.response.id", answer.id)
    assert ledger("source", "response_id") == [("spanledger", answer.id)]


def test_an_embedding_has_no_id_and_is_known_by_the_span_around_it(client, recording, ledger):
    recording.tracer_provider.add_span_processor(SimpleSpanProcessor(spanledger.UsageSpanExporter()))
    theirs = recording.tracer_provider.get_tracer("somebody.elses")
    attributes = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
    }
    with theirs.start_as_current_span("embeddings", attributes=attributes):
        client.embeddings.create(model="text-embedding-3-small", input="x")
        assert spanledger.flush()
    assert ledger("source", "operation") == [("spanledger", "embeddings")]


APP = """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="x")
client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
"""


@pytest.mark.parametrize("disabled", ["", "spanledger_openai"])
def test_by_name_it_adds_nothing_to_what_our_own_wrapper_records(provider, tmp_path, ledger, disabled):
    (tmp_path / "app.py").write_text(APP)
    environ = {
        **os.environ,
        "OTEL_TRACES_EXPORTER": "spanledger",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"openai,{disabled}",
    }
    command = [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable, tmp_path / "app.py"]
    done = subprocess.run(
        [*command, provider.base_url], env=environ, check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stderr == ""
    state = Path(os.environ["SPANLEDGER_STATE_DIR"])
    assert ((state / "ledger.db").exists() and len(ledger(flush=False))) == (not disabled)
