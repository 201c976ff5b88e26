"""A stream ends once, however it ends, and its row says how."""

import asyncio
import gc
import pickle
import subprocess
import sys
import threading

import pytest
from tests.conftest import httpx2

import spanledger

QUESTION = [{"role": "user", "content": "Tell me something long."}]
STREAM = {"model": "gpt-4o", "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
COLUMNS = ("status", "usage_status", "output_tokens", "cost_pusd", "error_type", "stream")
COMPLETE = ("success", "reported", 9, 107_500_000, None, 1)
CUT_SHORT = ("incomplete", "missing", None, None, None, 1)


def start(client, **asked):
    return client.chat.completions.create(**STREAM, extra_body={"loopback": asked})


def test_exhaustion_ends_it_as_a_success(client, ledger, recording):
    assert len(list(start(client))) == 11
    assert ledger(*COLUMNS) == [COMPLETE]
    assert len(recording.spans) == 1


def test_close_in_the_middle_ends_it_as_incomplete(client, ledger):
    stream = start(client)
    next(stream)
    stream.close()
    stream.close()
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_close_after_the_end_changes_nothing(client, ledger):
    stream = start(client)
    list(stream)
    stream.close()
    del stream
    gc.collect()
    assert ledger(*COLUMNS) == [COMPLETE]


def test_leaving_its_with_early_ends_it_as_incomplete(client, ledger):
    with start(client) as stream:
        for _ in stream:
            break
    assert ledger(*COLUMNS) == [CUT_SHORT]


@pytest.mark.needs("chat.completions.stream")
def test_leaving_the_with_of_the_helper_early_ends_it_at_once(client, ledger):
    with client.chat.completions.stream(model="gpt-4o", messages=QUESTION) as stream:
        next(iter(stream))
    assert ledger(*COLUMNS) == [CUT_SHORT]
    del stream
    gc.collect()
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_break_and_garbage_collection_end_it_as_incomplete(client, ledger):
    for _ in start(client):
        break
    gc.collect()
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_a_stream_that_nobody_reads_is_incomplete(client, ledger):
    start(client)
    gc.collect()
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_streams_still_open_at_shutdown_are_recorded(client, ledger):
    stream = start(client)
    next(stream)
    spanledger.shutdown()
    assert ledger(*COLUMNS, flush=False) == [CUT_SHORT]
    stream.close()


def broken(client, **asked):
    """The error of a stream whose connection breaks, by name: the SDK's own from 3.0 on, the HTTP library's before."""
    import openai

    with pytest.raises(Exception) as raised:
        list(start(client, **asked))
    found = type(raised.value)
    assert found in (openai.APIConnectionError, httpx2.RemoteProtocolError)
    return f"{found.__module__}.{found.__qualname__}"


def test_a_connection_that_breaks_is_an_error_that_reaches_the_application(client, ledger):
    error = broken(client, cut_after=4)
    assert ledger(*COLUMNS) == [("error", "missing", None, None, error, 1)]


def test_an_error_after_the_usage_keeps_the_usage(client, ledger, recording):
    error = broken(client, cut_after=11)
    assert ledger(*COLUMNS) == [("error", "reported", 9, 107_500_000, error, 1)]
    (span,) = recording.spans
    assert span.attributes["error.type"] == error
    assert not span.status.is_ok
    assert span.status.description is None
    assert not span.events


def test_an_exception_thrown_by_the_reader_ends_it_as_incomplete(client, ledger):
    with pytest.raises(ZeroDivisionError), start(client) as stream:
        for _ in stream:
            raise ZeroDivisionError
    assert ledger(*COLUMNS) == [CUT_SHORT]


def trip(provider, work):
    from openai import AsyncOpenAI

    async def run():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
            await work(client)

    asyncio.run(run())


async def astart(client, **asked):
    return await client.chat.completions.create(**STREAM, extra_body={"loopback": asked})


def test_a_cancelled_task_ends_its_stream_as_cancelled(recording, provider, ledger):
    async def work(client):
        stream = await astart(client, delay=0.2)

        async def read():
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    trip(provider, work)
    assert ledger(*COLUMNS) == [("cancelled", "missing", None, None, None, 1)]


def test_a_call_cancelled_before_its_answer_is_cancelled(recording, provider, ledger):
    async def work(client):
        call = client.chat.completions.create(
            model="gpt-4o", messages=QUESTION, stream=True, extra_body={"loopback": {"delay": 5}}
        )
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    trip(provider, work)
    assert ledger("status", "usage_status", "error_type") in ([], [("cancelled", "missing", None)])


def test_an_async_stream_dropped_in_the_middle_is_incomplete(recording, provider, ledger):
    async def work(client):
        async for _ in await astart(client):
            break
        gc.collect()
        await asyncio.sleep(0)

    trip(provider, work)
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_an_async_with_left_early_is_incomplete(recording, provider, ledger):
    async def work(client):
        async with await astart(client) as stream:
            async for _ in stream:
                break

    trip(provider, work)
    assert ledger(*COLUMNS) == [CUT_SHORT]


def test_a_coroutine_nobody_awaits_is_no_call(recording, provider, ledger):
    async def work(client):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION).close()
        await client.chat.completions.create(model="gpt-4o", messages=QUESTION)

    trip(provider, work)
    assert len(ledger()) == 1


def test_threads_that_race_to_close_one_stream_make_one_row(client, ledger):
    for _ in range(20):
        stream = start(client)
        next(stream)
        gate = threading.Barrier(4)

        def close(stream=stream, gate=gate):
            gate.wait()
            stream.close()

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ledger(*COLUMNS) == [CUT_SHORT] * 20


def test_a_stream_keeps_its_type_and_its_parts(client):
    from openai import Stream

    stream = start(client)
    assert type(stream) is Stream
    assert stream.response.status_code == 200
    assert iter(stream) is not None
    chunks = list(stream)
    assert pickle.loads(pickle.dumps(chunks[-1])).usage.completion_tokens == 9


def test_two_choices_have_two_finish_reasons_in_a_stream(recording, ledger):
    import json

    from openai import OpenAI

    def chunk(index, reason, **rest):
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": reason}
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o",
            "choices": [choice],
            **rest,
        }

    chunks = [chunk(0, None), chunk(0, "stop"), *[chunk(1, None) for _ in range(40)], chunk(1, "length")]
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"

    def answer(_):
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, n=2, stream=True))
    assert ledger("finish_reasons", "status", "usage_status") == [('["stop","length"]', "success", "missing")]


FORK = """
import os, sys
import spanledger
from openai import OpenAI
spanledger.configure()
client = OpenAI(base_url=sys.argv[1], api_key="x")
stream = client.chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], stream=True, stream_options={"include_usage": True}
)
next(stream)
child = os.fork()
if child == 0:
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "from the child"}])
    spanledger.shutdown()
    os._exit(0)
os.waitpid(child, 0)
list(stream)
spanledger.shutdown()
"""


def test_in_a_forked_child_an_open_stream_is_the_parents(provider, ledger):
    subprocess.run([sys.executable, "-c", FORK, provider.base_url], check=True, timeout=60)
    rows = sorted(ledger("request_model", "status", "usage_status", flush=False))
    assert rows == [("gpt-4o", "success", "reported"), ("gpt-4o-mini", "success", "reported")]
