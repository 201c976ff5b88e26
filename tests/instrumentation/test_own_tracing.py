"""The SDK's own tracing beside ours: one span a call, whoever makes it, and nothing of a trace goes out unasked.

A global tracer provider can be set once, so each case is a process of its own.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("anthropic._tracing", reason="from anthropic 1.14 on it traces itself")

SDK = "com.anthropic.sdk.python"
SWITCHES = ("ANTHROPIC_OPEN_TELEMETRY", "ANTHROPIC_OPEN_TELEMETRY_PROPAGATION")
USED = {"input_tokens": 1000, "output_tokens": 100}
PUSD = 3_000_000_000 + 1_500_000_000  # claude-sonnet-4-6: 3 and 15 USD per million
BEGIN = """
import asyncio, importlib, json, os, sqlite3, sys
from pathlib import Path
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import spanledger
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
spanledger.configure()
import anthropic
http = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
USED = json.loads(sys.argv[1])
sent = []
def answer(request):
    sent.append(dict(request.headers))
    return http.Response(200, json={"id": f"msg_{len(sent)}", "type": "message", "role": "assistant",
        "model": "claude-sonnet-4-6", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": USED})
ASK = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
def client(**options):
    transport = http.MockTransport(answer)
    return anthropic.Anthropic(api_key="unused", http_client=http.Client(transport=transport), **options)
def client_async(**options):
    transport = http.MockTransport(answer)
    return anthropic.AsyncAnthropic(api_key="unused", http_client=http.AsyncClient(transport=transport), **options)
def switches():
    return {name: value for name, value in os.environ.items() if name.startswith("ANTHROPIC_OPEN_TELEMETRY")}
context.attach(baggage.set_baggage("customer", "ada"))
told = {}
"""
END = """
assert spanledger.shutdown()
spans = exporter.get_finished_spans()
told["scopes"] = [span.instrumentation_scope.name for span in spans]
told["headers"] = sorted({name.lower() for each in sent for name in each} & {"traceparent", "tracestate", "baggage"})
with sqlite3.connect(Path(os.environ["SPANLEDGER_STATE_DIR"]) / "ledger.db") as connection:
    told["rows"] = connection.execute("SELECT input_tokens, output_tokens, cost_pusd FROM usage_records").fetchall()
    told["traced"] = connection.execute("SELECT span_id FROM usage_records").fetchall()
told["spans"] = [[f"{span.context.span_id:016x}"] for span in spans]
told["sent"] = len(sent)
print(json.dumps(told))
"""


def run(body, **environment):
    """What a process tells that runs this with a global tracer provider and baggage in its context."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + body + END, json.dumps(USED)],
        check=False,
        capture_output=True,
        text=True,
        timeout=40,
        env={**clean, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


CALLS = """
made = client({options})
made.messages.create(**ASK)
made.beta.messages.create(**ASK)
made.with_options(timeout=9).messages.create(**ASK)
async def ask():
    async with client_async({options}) as made:
        await made.messages.create(**ASK)
asyncio.run(ask())
"""
ROW = [*USED.values(), PUSD]


def test_by_default_each_call_has_one_span_and_it_is_ours_and_nothing_of_it_goes_out():
    told = run(CALLS.format(options=""))
    assert told["scopes"] == ["spanledger"] * 4
    assert (told["rows"], told["sent"]) == ([ROW] * 4, 4)
    assert sorted(told["traced"]) == sorted(told["spans"])
    assert told["headers"] == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("", {"ANTHROPIC_OPEN_TELEMETRY": "true"}),
        ("", {"ANTHROPIC_OPEN_TELEMETRY": ""}),
        ("open_telemetry={}", {}),
        ("open_telemetry={'traces': {'enabled': True}}", {}),
        ("open_telemetry={}", {"ANTHROPIC_OPEN_TELEMETRY": "false"}),
    ],
)
def test_where_the_user_asks_for_the_sdks_spans_they_are_the_only_ones_and_each_call_is_a_row(options, environment):
    told = run(CALLS.format(options=options), **environment)
    assert told["scopes"] == [SDK] * 4
    assert (told["rows"], told["sent"]) == ([ROW] * 4, 4)
    assert told["headers"] == ["baggage", "traceparent"]  # the user's choice too


@pytest.mark.parametrize("options", ["open_telemetry=False", "open_telemetry={'traces': {'enabled': False}}"])
def test_a_client_that_is_not_to_trace_itself_is_traced_by_us(options):
    told = run(CALLS.format(options=options))
    assert (told["scopes"], told["rows"]) == (["spanledger"] * 4, [ROW] * 4)


def test_a_users_refusal_stays_and_only_ours_are_made():
    told = run("told['during'] = switches()\n" + CALLS.format(options="") + "spanledger.uninstrument()\n"
               "told['after'] = switches()\n", ANTHROPIC_OPEN_TELEMETRY="false")  # fmt: skip
    assert (told["scopes"], told["rows"]) == (["spanledger"] * 4, [ROW] * 4)
    assert told["during"] == told["after"] == {"ANTHROPIC_OPEN_TELEMETRY": "false"}


UNDONE = """
told["during"] = switches()
client().messages.create(**ASK)
{undo}
told["after"] = switches()
client().messages.create(**ASK)
{redo}
told["again"] = switches()
"""
OURS = dict.fromkeys(SWITCHES, "false")
CONTENT = "ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE"


@pytest.mark.parametrize(
    ("undo", "users", "during"),
    [
        ("spanledger.uninstrument()", {}, OURS),
        ("spanledger.uninstrument('anthropic')", {SWITCHES[1]: "true"}, {SWITCHES[0]: "false", SWITCHES[1]: "true"}),
        ("spanledger.uninstrument('anthropic')", {CONTENT: "metadata_only"}, {**OURS, CONTENT: "metadata_only"}),
    ],
)
def test_after_uninstrument_our_switches_are_gone_and_the_users_stand(undo, users, during):
    told = run(UNDONE.format(undo=undo, redo="spanledger.instrument('anthropic')"), **users)
    assert told["during"] == told["again"] == during
    assert told["after"] == users
    assert told["scopes"] == ["spanledger", SDK]
    assert told["rows"] == [ROW, ROW]  # the second one is read from the SDK's own span


def test_the_users_own_switch_is_untouched_by_us():
    mine = {"ANTHROPIC_OPEN_TELEMETRY": "true"}
    told = run(UNDONE.format(undo="spanledger.uninstrument()", redo="spanledger.instrument()"), **mine)
    assert told["during"] == told["after"] == told["again"] == mine
    assert (told["scopes"], told["rows"]) == ([SDK, SDK], [ROW, ROW])


@pytest.mark.parametrize("again", ["spanledger.instrument()", "spanledger.configure(debug=True)"])
def test_putting_on_twice_takes_our_switches_off_all_the_same(again):
    told = run(f"{again}\ntold['during'] = switches()\nclient().messages.create(**ASK)\n"
               "spanledger.uninstrument()\ntold['after'] = switches()\n")  # fmt: skip
    assert (told["during"], told["after"]) == (OURS, {})


def test_a_client_made_before_configure_keeps_what_it_was_told_and_each_call_has_one_span():
    told = run("spanledger.uninstrument()\nmade = client()\nspanledger.instrument()\n"
               "made.messages.create(**ASK)\n")  # fmt: skip
    assert (told["scopes"], told["rows"]) == ([SDK], [ROW])


def test_a_stream_of_a_client_that_traces_itself_is_one_span_and_one_row():
    body = """
def answer(request):
    sent.append(dict(request.headers))
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
         "model": "claude-sonnet-4-6", "stop_reason": None, "stop_sequence": None, "usage": USED}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USED},
        {"type": "message_stop"},
    ]
    text = "".join(f"event: {each['type']}\\ndata: {json.dumps(each)}\\n\\n" for each in events)
    return http.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})
list(client(open_telemetry={}).messages.create(**ASK, stream=True))
with client(open_telemetry={}).messages.stream(**ASK) as stream:
    stream.until_done()
"""
    told = run(body)
    assert (told["scopes"], told["rows"]) == ([SDK] * 2, [ROW] * 2)
