"""The spans of others, end to end: every call once, in the ledger and in the counters, however it is told."""

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

import spanledger
from spanledger import assembly
from spanledger.conventions import COST_TOTAL, METRIC_CALLS, METRIC_COST, METRIC_SPANS, METRIC_UNPRICED, METRIC_USAGE
from spanledger.reading import spans as module

SDK = "opentelemetry.instrumentation.openai_v2"
FRAMEWORK = "pydantic-ai"
GATEWAY = "litellm"


def chat(**more):
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "r",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return {name: value for name, value in attributes.items() if value is not None}


@pytest.fixture
def tracers(recording):
    return {scope: recording.tracer_provider.get_tracer(scope) for scope in (SDK, FRAMEWORK, GATEWAY)}


def outcomes(recording):
    return {attributes["spanledger.outcome"]: value for attributes, value in recording.points(METRIC_SPANS)}


def counted(recording):
    """What the counters say: calls, tokens, pico-USD."""
    values = [sum(value for _, value in recording.points(name)) for name in (METRIC_CALLS, METRIC_USAGE, METRIC_COST)]
    return values[0], values[1], round(values[2] * 1e12)


def summed(ledger):
    rows = ledger("input_tokens", "output_tokens", "cost_pusd")
    return len(rows), sum((a or 0) + (b or 0) for a, b, _ in rows), sum(c or 0 for *_, c in rows)


def told_by(row):
    return json.loads(row["told_by"]) if row["told_by"] else [row["source"]]


# Once.


def test_a_framework_around_an_sdk_is_one_row_with_the_sdks_numbers(recording, tracers, ledger):
    with (
        tracers[FRAMEWORK].start_as_current_span("chat gpt-4o", attributes=chat(user__id="ada")),
        tracers[SDK].start_as_current_span("chat gpt-4o", attributes=chat()) as inner,
    ):
        pass
    (row,) = ledger()
    assert (row["source"], told_by(row), row["merged_by"], row["user_id"]) == (
        SDK,
        [SDK, FRAMEWORK],
        "response_id",
        "ada",
    )
    assert row["span_id"] == f"{inner.get_span_context().span_id:016x}"
    assert summed(ledger) == counted(recording)
    assert outcomes(recording) == {"recorded": 1, "merged": 1}


def test_a_child_that_ends_after_its_parent_is_of_the_same_call(recording, tracers, ledger):
    outer = tracers[FRAMEWORK].start_span("chat gpt-4o", attributes=chat(gen_ai__response__id=None))
    with trace.use_span(outer):
        inner = tracers[SDK].start_span("chat gpt-4o", attributes=chat())
    outer.end()
    inner.end()
    (row,) = ledger()
    assert (told_by(row), row["response_id"]) == ([FRAMEWORK, SDK], "r")
    assert summed(ledger) == counted(recording)


def test_two_calls_inside_one_framework_span_are_two_rows(tracers, ledger):
    with tracers[FRAMEWORK].start_as_current_span("chat gpt-4o", attributes=chat(gen_ai__response__id=None)):
        for each in ("r1", "r2"):
            tracers[SDK].start_span("chat gpt-4o", attributes=chat(gen_ai__response__id=each)).end()
    assert sorted(ledger("response_id")) == [("r1",), ("r2",)]


def test_our_wrapper_inside_a_foreign_span_with_a_plain_span_between_is_one_row(client, recording, ledger):
    theirs, plain = (recording.tracer_provider.get_tracer(name) for name in (FRAMEWORK, "app"))
    asked = {"gen_ai.operation.name": "chat"}
    with theirs.start_as_current_span("chat", attributes=asked), plain.start_as_current_span("retry"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    (row,) = ledger()
    assert row["source"] == "spanledger"
    assert summed(ledger) == counted(recording)


def test_the_same_without_spans_of_ours(telemetry, provider, ledger):
    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, spans="never"
    )
    from openai import OpenAI

    theirs, plain = (telemetry.tracer_provider.get_tracer(name) for name in (FRAMEWORK, "app"))
    with OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
        for asked in ({"gen_ai.operation.name": "chat"}, chat(gen_ai__usage__input_tokens=None)):
            with theirs.start_as_current_span("chat", attributes=asked) as span, plain.start_as_current_span("retry"):
                answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
                if len(asked) > 1:
                    span.set_attribute("gen_ai.response.id", answer.id)
    assert [told_by(row) for row in ledger()] == [["spanledger", FRAMEWORK]] * 2
    assert not any(COST_TOTAL in (span.attributes or {}) for span in telemetry.spans)


def test_many_threads_traces_and_tellers_in_any_order_make_exactly_one_row_a_call(recording, tracers, ledger):
    threads, calls = 8, 60
    source = random.Random(3)
    tellings = []
    for call in range(threads * calls):
        told = source.sample([SDK, FRAMEWORK, GATEWAY], source.choice([2, 3]))
        tellings += [(scope, call) for scope in told]
    source.shuffle(tellings)
    empty = otel_context.Context()

    def run(part):
        for scope, call in part:
            attributes = chat(gen_ai__response__id=f"r{call}", gen_ai__usage__input_tokens=call + 1)
            tracers[scope].start_span("chat gpt-4o", context=empty, attributes=attributes).end()

    running = [threading.Thread(target=run, args=(tellings[n::threads],)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    total = threads * calls
    rows = ledger()
    assert len(rows) == total
    assert sorted(row["input_tokens"] for row in rows) == list(range(1, total + 1))
    assert summed(ledger) == counted(recording)
    found = outcomes(recording)  # late is who comes when two seconds are over already, on a slow machine
    assert (found["recorded"], found["merged"] + found.get("late", 0)) == (total, len(tellings) - total)
    assert sum(len(told_by(row)) for row in rows) == total + found["merged"]


def test_the_processor_twice_and_the_exporter_too_are_once(recording, tracers, ledger):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    recording.tracer_provider.add_span_processor(spanledger.UsageSpanProcessor())
    recording.tracer_provider.add_span_processor(SimpleSpanProcessor(spanledger.UsageSpanExporter()))
    tracers[SDK].start_span("chat gpt-4o", attributes=chat()).end()
    agent = {"gen_ai.operation.name": "invoke_agent"}
    tracers[SDK].start_span("invoke_agent x", attributes=agent).end()
    assert ledger("source", "told_by") == [(SDK, None)]
    assert outcomes(recording) == {"recorded": 1, "skipped_aggregate": 1}


def test_an_exporter_of_another_process_order_is_repeated_not_recorded(recording, tracers, ledger):
    tracers[SDK].start_span("chat gpt-4o", attributes=chat()).end()
    exporter = spanledger.UsageSpanExporter()
    assembly._runtime.spans._ended.clear()
    exporter.export(recording.spans)
    exporter.export(recording.spans)
    assert len(ledger()) == 1
    assert outcomes(recording) == {"recorded": 1, "repeated": 2}


def test_a_span_started_before_the_processor_was_added_is_read(telemetry, ledger):
    span = telemetry.tracer_provider.get_tracer(SDK).start_span("chat gpt-4o", attributes=chat())
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    span.end()
    assert ledger("source", "input_tokens") == [(SDK, 100)]


@pytest.mark.parametrize("operation", ["invoke_agent", "execute_tool", "invoke_workflow", "chain", "fetch_response"])
def test_aggregates_are_no_rows_and_are_counted(recording, tracers, home, operation):
    tracers[SDK].start_span("x", attributes=chat(gen_ai__operation__name=operation)).end()
    assert spanledger.flush()
    assert outcomes(recording) == {"skipped_aggregate": 1}
    assert recording.points(METRIC_CALLS) == []
    assert not (home / "ledger.db").exists()


@pytest.mark.parametrize(
    ("said", "kept"),
    [(0, None), (0.0, None), ("0", None), (-1.0, None), (float("nan"), None), (float("inf"), None), (True, None),
     (0.25, 250_000_000_000), ("0.25", 250_000_000_000), (1e9, None)],
)  # fmt: skip
def test_a_cost_of_theirs_is_kept_beside_ours_and_zero_is_never_believed(tracers, ledger, said, kept):
    tracers[FRAMEWORK].start_span("chat gpt-4o", attributes=chat(**{"operation.cost": said})).end()
    assert ledger("claimed_cost_pusd", "cost_pusd", "cost_source") == [(kept, 350_000_000, "local")]


def test_an_unknown_provider_is_a_row_without_a_price(recording, tracers, ledger):
    tracers[SDK].start_span("x", attributes=chat(gen_ai__provider__name="acme", gen_ai__response__model="m")).end()
    assert ledger("provider", "cost_pusd", "cost_status") == [("acme", None, "unpriced")]
    assert [value for _, value in recording.points(METRIC_UNPRICED)] == [1]


# The window.


def in_outbox(home):
    rows = []
    for path in (home / "outbox").glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows += connection.execute("SELECT settle_at > 0 FROM records").fetchall()
    return [bool(unsettled) for (unsettled,) in rows]


def test_the_window_is_in_the_outbox_and_counters_move_once_when_it_ends(recording, tracers, ledger, home):
    tracers[SDK].start_span("chat", attributes=chat()).end()
    assert recording.points(METRIC_CALLS) == []  # collecting commits what was told, and settles nothing
    assert in_outbox(home) == [True]
    tracers[FRAMEWORK].start_span("chat", attributes=chat()).end()
    assert recording.points(METRIC_USAGE) == []
    assert in_outbox(home) == [True]
    assert summed(ledger) == (1, 110, 350_000_000) == counted(recording)
    tracers[GATEWAY].start_span("chat", attributes=chat()).end()
    assert summed(ledger) == (1, 110, 350_000_000) == counted(recording)
    assert outcomes(recording) == {"recorded": 1, "merged": 1, "late": 1}


def test_it_ends_by_itself(recording, tracers, ledger):
    import time

    tracers[SDK].start_span("chat", attributes=chat()).end()
    deadline = time.monotonic() + 10
    while not recording.points(METRIC_CALLS) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted(recording) == (1, 110, 350_000_000)
    assert summed(ledger) == (1, 110, 350_000_000)


def test_ours_settles_at_once_where_nobody_else_tells(client, recording, home):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert counted(recording)[0] == 1
    assert True not in in_outbox(home)


KILLED = """
import os, signal
from opentelemetry.sdk.trace import TracerProvider
import spanledger
from spanledger import assembly

provider = TracerProvider()
spanledger.configure(tracer_provider=provider, flush_interval=0.01)
USAGE = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}
for n in range(5):
    for scope in ("pydantic-ai", "opentelemetry.instrumentation.openai_v2"):
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.response.id": f"r{n}",
                      "gen_ai.request.model": "gpt-4o", **USAGE}
        provider.get_tracer(scope).start_span("chat", attributes=attributes).end()
assembly._runtime.recorder._writer.observe()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_in_the_window_loses_nothing(recording, tracers, ledger, home):
    assert (
        subprocess.run([sys.executable, "-c", KILLED], timeout=60, env=dict(os.environ), check=False).returncode == -9
    )
    assert in_outbox(home) == [True] * 5
    assert not (home / "ledger.db").exists()
    tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id="here")).end()
    assert sorted((row["response_id"], tuple(told_by(row)), row["input_tokens"]) for row in ledger()) == [
        ("here", (SDK,), 100),
        *((f"r{n}", (FRAMEWORK, SDK), 100) for n in range(5)),
    ]
    assert len(list((home / "outbox").glob("*.db"))) == 1


# Its life.


def test_a_provider_that_is_shut_down_has_delivered_and_later_spans_count_still(recording, tracers, ledger):
    tracers[SDK].start_span("chat", attributes=chat()).end()
    recording.tracer_provider.shutdown()
    assert len(ledger(flush=False)) == 1
    tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id="later")).end()
    assert len(ledger()) == 2


def test_after_a_shutdown_spans_are_nobodys_and_nothing_comes_back(recording, tracers, ledger):
    open_one = tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id="open"))
    tracers[SDK].start_span("chat", attributes=chat()).end()
    assert spanledger.shutdown()
    open_one.end()
    tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id="later")).end()
    assert recording.tracer_provider.force_flush()
    recording.tracer_provider.shutdown()
    assert assembly._runtime is None
    assert ledger("response_id", flush=False) == [("r",)]


def test_read_spans_off_reads_none(telemetry, home):
    spanledger.configure(tracer_provider=telemetry.tracer_provider, read_spans="off")
    sampler = telemetry.tracer_provider.sampler
    telemetry.tracer_provider.get_tracer(SDK).start_span("chat", attributes=chat()).end()
    assert spanledger.flush()
    assert not (home / "ledger.db").exists()
    assert not isinstance(sampler, spanledger.RecordUsage)


def test_read_spans_switched_off_later_reads_none_either(telemetry, home):
    spanledger.configure(tracer_provider=telemetry.tracer_provider)
    spanledger.configure(tracer_provider=telemetry.tracer_provider, read_spans="off")
    telemetry.tracer_provider.get_tracer(SDK).start_span("chat", attributes=chat()).end()
    assert spanledger.flush()
    assert not (home / "ledger.db").exists()


def test_a_processor_added_by_hand_reads_whatever_read_spans_says(telemetry, ledger):
    spanledger.configure(tracer_provider=telemetry.tracer_provider, read_spans="off")
    telemetry.tracer_provider.add_span_processor(spanledger.UsageSpanProcessor())
    telemetry.tracer_provider.get_tracer(SDK).start_span("chat", attributes=chat()).end()
    assert len(ledger()) == 1


def test_spans_never_reads_and_writes_nothing_onto_them(telemetry, ledger):
    spanledger.configure(tracer_provider=telemetry.tracer_provider, spans="never")
    with spanledger.attribution(team="t"):
        telemetry.tracer_provider.get_tracer(SDK).start_span("chat", attributes=chat()).end()
    assert ledger("input_tokens", "team") == [(100, "t")]
    (span,) = telemetry.spans
    assert dict(span.attributes) == chat()


def test_the_cost_stands_on_the_nearest_span_only(recording, tracers, ledger):
    with (
        tracers[FRAMEWORK].start_as_current_span("chat gpt-4o", attributes=chat()),
        tracers[SDK].start_as_current_span("chat gpt-4o", attributes=chat()),
    ):
        pass
    costs = [span.attributes.get(COST_TOTAL) for span in recording.spans]
    assert [cost is not None for cost in costs] == [True, False]


# Hostile.


def str_of(value):
    return "huge" if isinstance(value, int) else ascii(value)


def test_never_ended_spans_are_forgotten_and_forgotten_ones_are_still_read(recording, tracers, ledger, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 50)
    spans = [tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id=f"r{n}")) for n in range(300)]
    room = assembly._runtime.spans
    assert len(room._open) == 50
    for span in spans:
        span.end()
    assert [len(each) <= 50 for each in (room._open, room._ended, room._costed, room._uncosted)] == [True] * 4
    assert len(ledger()) == 300


def test_a_full_memory_is_no_race_between_threads(recording, tracers, ledger, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 4)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors = []

    def run(thread):
        try:
            for n in range(100):
                tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id=f"{thread}-{n}")).end()
        except Exception as error:
            errors.append(error)

    try:
        running = [threading.Thread(target=run, args=(n,)) for n in range(4)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert len(ledger()) == 400


class SameSpanIds(RandomIdGenerator):
    """As in a test suite that wants stable output: traces differ, spans don't."""

    def generate_span_id(self):
        return 7


def provider_with(generator, telemetry):
    made = TracerProvider(id_generator=generator, shutdown_on_exit=False)
    spanledger.configure(tracer_provider=made, meter_provider=telemetry.meter_provider)
    return made


def test_a_span_is_known_by_its_trace_too(telemetry, ledger):
    tracer = provider_with(SameSpanIds(), telemetry).get_tracer(SDK)
    for n in range(3):
        tracer.start_span("chat", context=otel_context.Context(), attributes=chat(gen_ai__response__id=f"r{n}")).end()
    assert len(ledger()) == 3


@pytest.mark.timeout(3)
def test_a_span_with_the_id_of_its_parent_does_not_hang_the_application(telemetry, ledger):
    made = provider_with(SameSpanIds(), telemetry)
    tracer, ours = made.get_tracer(SDK), made.get_tracer("spanledger")
    with (
        tracer.start_as_current_span("chat", attributes=chat(gen_ai__response__id="r1")),
        tracer.start_as_current_span("chat", attributes=chat(gen_ai__response__id="r2")),
        ours.start_as_current_span("chat"),
    ):
        pass
    assert ledger("provider")[0] == ("openai",)


def test_names_of_ten_thousand_characters_are_a_row(tracers, recording, ledger):
    long = "x" * 10_000
    attributes = chat(
        gen_ai__request__model=long, gen_ai__provider__name=long, gen_ai__response__id=long, user__id=long
    )
    recording.tracer_provider.get_tracer(long).start_span(long, attributes=attributes).end()
    (row,) = ledger()
    assert (row["input_tokens"], row["cost_status"]) == (100, "unpriced")
    assert row["user_id"].startswith("sha256:")


def test_a_lone_surrogate_in_any_text_is_delivered_and_holds_up_nobody(tracers, ledger):
    bad = "x\ud800y"
    texts = ("request.model", "response.model", "response.id", "provider.name", "conversation.id")
    attributes = chat(**{f"gen_ai.{name}": bad for name in texts}, **{"server.address": bad, "error.type": bad})
    attributes |= {"user.id": bad, "gen_ai.response.finish_reasons": [bad], "metadata": json.dumps({bad: bad})}
    tracers[SDK].start_span("chat", attributes=attributes).end()
    tracers[SDK].start_span("chat", attributes=chat()).end()
    rows = ledger("input_tokens", "response_id")
    assert len(rows) == 2
    assert (100, "r") in rows


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anthropic.usage.compaction.input_tokens", 10**18),
        ("anthropic.usage.compaction.output_tokens", 10**30),
        ("gen_ai.response.time_to_first_chunk", float("nan")),
        ("gen_ai.response.time_to_first_chunk", float("inf")),
        ("gen_ai.response.time_to_first_chunk", -5.0),
        ("gen_ai.response.time_to_first_chunk", 1e300),
        ("user.id", 10**5000),
        ("gen_ai.usage.input_tokens", 10**30),
        ("gen_ai.usage.output_tokens", -1),
        ("gen_ai.usage.cost", 10**5000),
        ("gen_ai.usage.cost", "1e999999999"),
        ("gen_ai.usage.cost", "\ud800"),
    ],
    ids=str_of,
)
def test_an_absurd_number_is_a_row_with_numbers_in_bounds_and_holds_up_nobody(recording, ledger, name, value):
    tracer = recording.tracer_provider.get_tracer("com.anthropic.sdk.python")
    tracer.start_span("chat", attributes=chat(**{name: value})).end()
    tracer.start_span("chat", attributes=chat(gen_ai__response__id="next")).end()
    rows = ledger("input_tokens", "output_tokens", "time_to_first_chunk_ms", "claimed_cost_pusd", "duration_ms")
    assert len(rows) == 2
    assert all(each is None or 0 <= each <= 10**9 for row in rows for each in row)


@pytest.mark.parametrize(("started", "ended"), [(10**18, 10**17), (-5, 5), (0, 0), (10**20, 10**21), (0, 10**30)])
def test_absurd_times_are_a_row(tracers, ledger, started, ended):
    tracers[SDK].start_span("chat", attributes=chat(), start_time=started).end(end_time=ended)
    tracers[SDK].start_span("chat", attributes=chat(gen_ai__response__id="next")).end()
    rows = ledger("response_id", "duration_ms")
    assert sorted(each for each, _ in rows) == ["next", "r"]
    assert all(duration >= 0 for _, duration in rows)


def test_without_attributes_scope_and_with_a_remote_parent_that_nobody_knows(recording, tracers, ledger):
    remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    around = trace.set_span_in_context(NonRecordingSpan(remote))
    tracers[SDK].start_span("chat gpt-4o", context=around).end()
    recording.tracer_provider.get_tracer("").start_span("", context=around).end()
    recording.tracer_provider.get_tracer("").start_span("x", context=around, attributes=chat()).end()
    assert ledger("source", "parent_span_id") == [("unknown", f"{2:016x}")]


def test_an_error_on_the_span_is_an_error_in_the_row(tracers, ledger):
    span = tracers[SDK].start_span("chat", attributes=chat(gen_ai__usage__input_tokens=None))
    span.record_exception(ValueError("no"))
    span.set_status(Status(StatusCode.ERROR))
    span.end()
    assert ledger("status", "error_type") == [("error", "ValueError")]
