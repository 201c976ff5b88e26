"""Calls inside calls, copies of methods, and garbage collections at bad moments: each call is one row."""

import asyncio
import gc
import importlib
import subprocess
import sys

import openai
import pytest

import spanledger

httpx2 = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.usefixtures("recording")
def test_a_call_that_a_hook_makes_with_the_same_client_is_a_row_of_its_own(provider, ledger):
    asked = []

    def first_look(request):
        if not asked:
            asked.append(request)
            client.moderations.create(model="omni-moderation-latest", input="Hello")

    http_client = httpx2.Client(event_hooks={"request": [first_look]})
    with openai.OpenAI(base_url=provider.base_url, api_key="unused", http_client=http_client) as client:
        client.chat.completions.create(**CHAT)
    assert sorted(ledger("operation", "status")) == [("chat", "success"), ("moderation", "success")]


@pytest.mark.anyio
@pytest.mark.usefixtures("recording")
async def test_calls_of_a_task_that_was_made_during_a_call_are_rows_of_their_own(provider, ledger):
    tasks = []

    async def work():
        await asyncio.sleep(0.2)
        for _ in range(3):
            await client.chat.completions.create(**CHAT)

    async def start(_):
        if not tasks:
            tasks.append(asyncio.create_task(work()))

    http_client = httpx2.AsyncClient(event_hooks={"request": [start]})
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", http_client=http_client) as client:
        await client.chat.completions.create(**CHAT)
        await tasks[0]
    assert ledger("operation", "input_tokens") == [("chat", 5)] * 4


LATE = """
import sys
import anthropic, anthropic.lib.bedrock._beta_messages as bedrock
import spanledger
root, own = sys.argv[1], vars(bedrock.Messages)["create"]
spanledger.configure()
asked = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
vertex = anthropic.AnthropicVertex(base_url=root + "/v1", access_token="x", project_id="p", region="us-east5")
vertex.beta.messages.create(**asked)
keys = {"aws_region": "us-east-1", "aws_access_key": "test", "aws_secret_key": "test"}
anthropic.AnthropicBedrock(base_url=root, **keys).beta.messages.create(**asked)
assert spanledger.shutdown()
spanledger.uninstrument()
assert vars(bedrock.Messages)["create"] is own
"""


def test_methods_that_were_copied_before_we_came_are_watched_and_restored(provider, home, ledger):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LATE, provider.root],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    rows = ledger("provider", "input_tokens", flush=False, path=home / "ledger.db")
    assert [(name, count is not None) for name, count in sorted(rows)] == [
        ("aws.bedrock", True),
        ("gcp.vertex_ai", True),
    ]


def test_a_stream_found_by_the_collector_while_the_writer_starts_does_not_wait_for_it(provider, telemetry, monkeypatch):
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    writer = spanledger.assembly._runtime.recorder._writer
    meters = writer._make_meters

    def collecting():
        gc.collect()
        return meters()

    monkeypatch.setattr(writer, "_make_meters", collecting)
    with openai.OpenAI(base_url=provider.base_url, api_key="unused") as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(iter(stream))
        stream.itself = stream  # only the collector finds it
        del stream
        client.chat.completions.create(**CHAT)
    assert spanledger.flush()
