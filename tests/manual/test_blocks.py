"""Blocks of `track_usage` where applications really have them: threads, tasks, generators, streams that go on after
them, other tracers' spans, retries, forks, and processes that are killed."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import spanledger
from spanledger.recording import settling

HELLO = [{"role": "user", "content": "How many tokens are there?"}]
GPT = {"provider": "openai", "model": "gpt-4o"}
STREAM = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
BOTH = '["spanledger","spanledger.manual"]'


def label_of(row):
    return (row["metadata"] or "").partition('"label":"')[2].partition('"')[0] or None


def ask(client, counts=None, **more):
    if counts is not None:
        usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
        more["extra_body"] = {"loopback": {"usage": usage}}
    return client.chat.completions.create(model="gpt-4o", messages=HELLO, **more)


@pytest.fixture
def rows(ledger):
    """Of each row: who is its source, tokens, label, and whether it was enriched by a report."""

    def read():
        return [
            (row["source"], row["input_tokens"], row["output_tokens"], label_of(row), row["told_by"] == BOTH)
            for row in ledger()
        ]

    return read


def outcomes(recording):
    return {
        dict(attributes)["spanledger.outcome"]: value for attributes, value in recording.points("spanledger.reports")
    }


# Threads.


def test_a_job_of_an_executor_is_in_the_block_it_was_submitted_in(client, rows):
    with ThreadPoolExecutor(2) as pool, spanledger.track_usage(**GPT) as call:
        pool.submit(ask, client).result()
        call.set_usage(input_tokens=9, output_tokens=9, label="job")
    assert rows() == [("spanledger", 9, 9, "job", True)]


def test_a_bare_threads_call_is_not_in_the_block(client, rows):
    with spanledger.track_usage(**GPT) as call:
        thread = threading.Thread(target=ask, args=(client,))
        thread.start()
        thread.join()
        call.set_usage(input_tokens=9, output_tokens=9, label="mine")
    assert sorted(rows(), key=str) == [("spanledger", 9, 9, None, False), ("spanledger.manual", 9, 9, "mine", False)]


def test_an_executors_worker_takes_nothing_of_a_block_along(client, rows):
    with ThreadPoolExecutor(1) as pool:
        with spanledger.track_usage(**GPT, label="first") as call:
            pool.submit(ask, client).result()
            call.set_usage(input_tokens=9, output_tokens=9)
        pool.submit(ask, client).result()
    assert rows() == [("spanledger", 9, 9, "first", True), ("spanledger", 9, 9, None, False)]


def test_blocks_of_many_threads_at_a_time_keep_to_themselves(client, rows):
    def work(number):
        with spanledger.track_usage(**GPT) as call:
            ask(client)
            call.set_usage(input_tokens=9, output_tokens=9, label=f"t{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert sorted(rows()) == sorted(("spanledger", 9, 9, f"t{number}", True) for number in range(40))


def test_many_threads_that_report_to_one_block_add_nothing(client, rows):
    with ThreadPoolExecutor(8) as pool, spanledger.track_usage(**GPT) as call:

        def work(number):
            ask(client)
            call.set_usage(input_tokens=9, output_tokens=9, label=f"t{number}")

        list(pool.map(work, range(20)))
    found = rows()
    assert [row[:3] for row in found] == [("spanledger", 9, 9)] * 20
    assert sum(row[4] for row in found) == 1


def test_what_is_said_after_the_block_is_of_its_call(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
    call.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens") == [("spanledger", 9)]


# Tasks.


@pytest.fixture
def concurrently(recording, provider):
    """Run so many of a coroutine function at a time, each with a client."""
    from openai import AsyncOpenAI

    def run(work, times):
        async def main():
            async with AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
                await asyncio.gather(*(work(client, number) for number in range(times)))

        asyncio.run(main())

    return run


def test_a_hundred_tasks_with_equal_counts_are_a_hundred_rows_each_with_its_own_label(concurrently, recording, rows):
    async def work(client, number):
        async with spanledger.track_usage(**GPT) as call:
            answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            await asyncio.sleep(0)
            call.set_usage(
                input_tokens=answer.usage.prompt_tokens,
                output_tokens=answer.usage.completion_tokens,
                label=f"n{number}",
            )

    concurrently(work, 100)
    assert sorted(rows()) == sorted(("spanledger", 9, 9, f"n{number}", True) for number in range(100))
    assert outcomes(recording) == {"merged": 200}
    assert len(recording.spans) == 100


def test_tasks_gathered_inside_one_block_are_all_in_it(concurrently, recording, rows):
    async def one(client):
        await client.chat.completions.create(model="gpt-4o", messages=HELLO)

    async def work(client, _):
        async with spanledger.track_usage(**GPT) as call:
            await asyncio.gather(*(one(client) for _ in range(10)))
            call.set_usage(input_tokens=90, output_tokens=90)

    concurrently(work, 1)
    assert rows() == [("spanledger", 9, 9, None, False)] * 10
    assert outcomes(recording) == {"summed": 1, "repeated": 1}


def test_a_task_that_outlives_its_block_is_not_in_the_block_of_the_next(concurrently, rows):
    async def work(client, _):
        go = asyncio.Event()

        async def late():
            await go.wait()
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)

        async with spanledger.track_usage(**GPT, label="a") as call:
            task = asyncio.create_task(late())
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            call.set_usage(input_tokens=9, output_tokens=9)
        async with spanledger.track_usage(**GPT, label="b") as call:
            go.set()
            await task
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            call.set_usage(input_tokens=9, output_tokens=9)

    concurrently(work, 1)
    assert sorted(rows(), key=str) == [
        ("spanledger", 9, 9, "a", True), ("spanledger", 9, 9, "b", True), ("spanledger", 9, 9, None, False),
    ]  # fmt: skip


def test_a_task_that_is_cancelled_inside_its_block_is_one_row(concurrently, ledger):
    async def work(client, _):
        async def cancelled():
            async with spanledger.track_usage(**GPT):
                await client.chat.completions.create(
                    model="gpt-4o", messages=HELLO, extra_body={"loopback": {"delay": 30}}, stream=True
                )
                await asyncio.sleep(60)

        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    concurrently(work, 1)
    assert ledger("status") == [("cancelled",)]


# Nested, and in generators.


def test_a_call_is_of_the_innermost_block(client, rows):
    with spanledger.track_usage(**GPT) as outer:
        ask(client, (5, 5))
        with spanledger.track_usage(**GPT, label="inner") as inner:
            ask(client, (7, 7))
            inner.set_usage(input_tokens=7, output_tokens=7)
        outer.set_usage(input_tokens=5, output_tokens=5, label="outer")
    assert rows() == [("spanledger", 5, 5, "outer", True), ("spanledger", 7, 7, "inner", True)]


def test_after_an_inner_block_calls_are_of_the_outer_one_again(client, rows):
    with spanledger.track_usage(**GPT) as outer:
        with spanledger.track_usage(**GPT) as inner:
            ask(client, (7, 7))
            inner.set_usage(input_tokens=7, output_tokens=7, label="inner")
        ask(client, (5, 5))
        outer.set_usage(input_tokens=5, output_tokens=5, label="outer")
    assert rows() == [("spanledger", 7, 7, "inner", True), ("spanledger", 5, 5, "outer", True)]


def test_attribution_inside_a_block_keeps_the_block(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        with spanledger.attribution(user_id="ada"):
            ask(client)
        call.set_usage(input_tokens=9, output_tokens=9, feature="search")
    assert ledger("user_id", "feature", "told_by") == [("ada", "search", BOTH)]


def test_a_generator_that_is_read_in_a_block_is_in_it(client, rows):
    def answers():
        for number in (3, 4):
            yield ask(client, (number, number))

    with spanledger.track_usage(**GPT) as call:
        list(answers())
        call.set_usage(input_tokens=4, output_tokens=4, label="second")
    assert rows() == [("spanledger", 3, 3, None, False), ("spanledger", 4, 4, "second", True)]


def test_a_block_inside_a_generator_that_is_left_half_read_ends_with_it(client, rows):
    def answers():
        with spanledger.track_usage(**GPT) as call:
            ask(client)
            call.set_usage(input_tokens=9, output_tokens=9, label="generator")
            yield 1
            yield 2

    half = answers()
    assert next(half) == 1
    half.close()
    ask(client, (4, 4))
    assert rows() == [("spanledger", 9, 9, "generator", True), ("spanledger", 4, 4, None, False)]


# Streams.


def test_a_stream_that_is_read_inside_is_described(client, rows):
    with spanledger.track_usage(**GPT) as call:
        *_, last = client.chat.completions.create(**STREAM)
        call.set_usage(input_tokens=last.usage.prompt_tokens, output_tokens=last.usage.completion_tokens, label="s")
    assert rows() == [("spanledger", 9, 9, "s", True)]


def test_a_stream_read_after_its_block_adds_nothing_to_its_report(client, ledger):
    with spanledger.track_usage(**GPT, label="s") as call:
        stream = client.chat.completions.create(**STREAM)
        call.set_usage(input_tokens=9, output_tokens=9)
    list(stream)
    assert ledger("input_tokens", "output_tokens") == [(9, 9)]


def test_a_stream_dropped_after_its_block_adds_nothing_to_its_report(client, ledger):
    with spanledger.track_usage(**GPT, label="s") as call:
        stream = client.chat.completions.create(**STREAM)
        next(iter(stream))
        call.set_usage(input_tokens=9, output_tokens=9)
    del stream
    gc.collect()
    assert ledger("input_tokens", "output_tokens") == [(9, 9)]


# Other tracers.

SDK, FRAMEWORK = "opentelemetry.instrumentation.openai_v2", "pydantic-ai"


def chat(counts=(9, 9), **more):
    return {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06", "gen_ai.response.id": "r",
        "gen_ai.usage.input_tokens": counts[0], "gen_ai.usage.output_tokens": counts[1],
        **more,
    }  # fmt: skip


def test_a_call_that_only_a_foreign_span_tells_of_is_described(recording, ledger):
    tracer = recording.tracer_provider.get_tracer(SDK)
    with spanledger.track_usage(**GPT) as call:
        tracer.start_span("chat gpt-4o", attributes=chat()).end()
        call.set_usage(input_tokens=9, output_tokens=9, label="theirs", cost_usd="0.5")
    ((source, told_by, merged_by, cost, status),) = ledger("source", "told_by", "merged_by", "cost_pusd", "cost_source")
    assert (source, told_by, merged_by) == (SDK, f'["{SDK}","spanledger.manual"]', "report")
    assert (cost, status) == (500_000_000_000, "manual")


def test_a_foreign_call_with_other_counts_stands(recording, ledger):
    tracer = recording.tracer_provider.get_tracer(SDK)
    with spanledger.track_usage(**GPT) as call:
        tracer.start_span("chat gpt-4o", attributes=chat()).end()
        call.set_usage(input_tokens=100, output_tokens=100)
    assert ledger("source", "input_tokens", "output_tokens") == [(SDK, 9, 9)]


def test_a_framework_around_our_wrapper_in_a_block_is_one_row_of_three_tellers(client, recording, ledger):
    tracer = recording.tracer_provider.get_tracer(FRAMEWORK)
    with spanledger.track_usage(**GPT) as call:
        with tracer.start_as_current_span("chat gpt-4o", attributes=chat(**{"gen_ai.response.id": ""})):
            ask(client)
        call.set_usage(input_tokens=9, output_tokens=9, label="three")
    (row,) = ledger()
    assert (row["source"], row["input_tokens"], label_of(row)) == ("spanledger", 9, "three")
    assert row["told_by"].count(",") == 2


def test_a_foreign_span_that_ends_after_the_block_adds_nothing(recording, ledger):
    tracer = recording.tracer_provider.get_tracer(SDK)
    with spanledger.track_usage(**GPT) as call:
        span = tracer.start_span("chat gpt-4o", attributes=chat())
        call.set_usage(input_tokens=9, output_tokens=9, label="theirs")
    span.end()
    assert [(row["input_tokens"], label_of(row)) for row in ledger()] == [(9, "theirs")]


# Several calls in a block.


def test_a_retry_inside_the_block_is_an_error_row_and_the_described_one(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        with contextlib.suppress(Exception):
            client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body={"loopback": {"status": 500}})
        answer = ask(client)
        call.set_usage(input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens)
    assert ledger("status", "input_tokens", "told_by") == [("error", None, None), ("success", 9, BOTH)]


def test_a_report_of_a_block_whose_only_call_failed_is_a_row_of_its_own(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        with contextlib.suppress(Exception):
            client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body={"loopback": {"status": 500}})
        call.set_usage(input_tokens=9, output_tokens=9)
    assert sorted(ledger("source", "status", "input_tokens"), key=str) == [
        ("spanledger", "error", None), ("spanledger.manual", "success", 9),
    ]  # fmt: skip


def test_an_embedding_beside_a_chat_is_not_taken_for_it(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        client.embeddings.create(model="text-embedding-3-small", input="some text")
        answer = ask(client)
        call.set_usage(
            input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens, label="chat"
        )
    assert [(row["operation"], label_of(row), row["told_by"]) for row in ledger()] == [
        ("embeddings", None, None), ("chat", "chat", BOTH),
    ]  # fmt: skip


def test_an_embedding_that_is_described_stands_beside_a_chat(client, ledger):
    with spanledger.track_usage(provider="openai", model="text-embedding-3-small", operation="embeddings") as call:
        ask(client)
        answer = client.embeddings.create(model="text-embedding-3-small", input="some text")
        call.set_usage(input_tokens=answer.usage.prompt_tokens, label="embedding")
    assert [(row["operation"], label_of(row), row["told_by"]) for row in ledger()] == [
        ("chat", None, None), ("embeddings", "embedding", BOTH),
    ]  # fmt: skip


# Reports at odd moments.


def test_a_report_before_its_call_with_the_same_counts_is_one_row(client, recording, rows):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(input_tokens=9, output_tokens=9, label="before")
        ask(client)
    (row,) = rows()
    assert row[:4] == ("spanledger", 9, 9, "before")
    assert sum(value for _, value in recording.points("spanledger.calls")) == 1


def test_counts_in_parts_are_one_report(client, rows):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        call.set_usage(input_tokens=9)
        call.set_usage(output_tokens=9, label="parts")
    assert rows() == [("spanledger", 9, 9, "parts", True)]


def test_growing_counts_of_calls_one_after_the_other_add_nothing(client, rows):
    with spanledger.track_usage(**GPT) as call:
        for number in range(1, 4):
            ask(client)
            call.set_usage(input_tokens=9 * number, output_tokens=9 * number)
    assert [row[:3] for row in rows()] == [("spanledger", 9, 9)] * 3


def test_growing_counts_of_a_call_nobody_sees_are_one_row_with_the_last(recording, rows):
    with spanledger.track_usage(**GPT) as call:
        for count in (1, 5, 9):
            call.set_usage(input_tokens=count, output_tokens=count)
    assert rows() == [("spanledger.manual", 9, 9, None, False)]


def test_right_counts_first_and_wrong_ones_later_leave_the_call_as_it_is(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        call.set_usage(input_tokens=9, output_tokens=9, cost_usd="0.25")
        call.set_usage(input_tokens=1, output_tokens=1)
    assert ledger("source", "input_tokens", "cost_source") == [("spanledger", 9, "local")]


def test_flush_in_the_middle_of_a_block_makes_nothing_twice(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        assert spanledger.flush()
        call.set_usage(input_tokens=9, output_tokens=9)
        assert spanledger.flush()
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(input_tokens=7, output_tokens=7)
        assert spanledger.flush()
        ask(client, (7, 7))
    assert sorted(ledger("input_tokens", "output_tokens")) == [(7, 7), (9, 9)]


def test_a_block_longer_than_records_are_held_makes_nothing_twice(client, ledger, monkeypatch):
    monkeypatch.setattr(settling, "HELD", 0.0)
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        assert ledger("input_tokens") == [(9,)]
        call.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens") == [("spanledger", 9)]


def test_shutdown_inside_a_block_makes_nothing_twice(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        call.set_usage(input_tokens=9, output_tokens=9, label="s")
        assert spanledger.shutdown()
    assert [(row["input_tokens"], label_of(row)) for row in ledger(flush=False)] == [(9, "s")]
    assert ledger("input_tokens") == [(9,)]


# Processes.

BODY = """
import os, signal, sys
import spanledger
from openai import OpenAI
from spanledger import assembly
spanledger.configure()
assembly._runtime.engine.prices.wait()
client = OpenAI(base_url=sys.argv[1], api_key="x", max_retries=0)
def ask():
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello there"}])
"""
FORKED = """
with spanledger.track_usage(provider="openai", model="gpt-4o", label="parent") as call:
    usage = ask().usage
    child = os.fork()
    if child == 0:
        ask()
        spanledger.flush()
        os._exit(0)
    os.waitpid(child, 0)
    call.set_usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, feature="reported")
"""
LEFT_BY_BOTH = """
for _ in range(5):
    with spanledger.track_usage(provider="openai", model="gpt-4o") as call:
        usage = ask().usage
        call.set_usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
        child = os.fork()
    if child == 0:
        spanledger.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def run(provider, script, status=0):
    done = subprocess.run(
        [sys.executable, "-c", BODY + script, provider.base_url], env=os.environ, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, "")


def test_a_forked_childs_call_is_not_in_its_parents_block(provider, ledger):
    run(provider, FORKED)
    assert sorted((row["feature"], row["told_by"]) for row in ledger() if row["feature"]) == [("reported", BOTH)]
    assert len(ledger()) == 2


def test_a_block_that_parent_and_child_both_leave_is_of_one_call(provider, recording, ledger):
    run(provider, LEFT_BY_BOTH)
    assert ledger("source", "told_by") == [("spanledger", BOTH)] * 5


@pytest.mark.parametrize(
    "done",
    ["ask()", "usage = ask().usage; call.set_usage(input_tokens=usage.prompt_tokens, output_tokens=9)",
     "call.set_usage(input_tokens=9, output_tokens=9)"],
)  # fmt: skip
def test_what_was_committed_in_a_block_of_a_killed_process_is_delivered_once(provider, recording, ledger, done):
    script = f"""
with spanledger.track_usage(provider="openai", model="gpt-4o") as call:
    {done}
    import contextlib, glob, sqlite3, time
    waiting = 0
    while not waiting:
        time.sleep(0.01)
        for path in glob.glob(os.environ["SPANLEDGER_STATE_DIR"] + "/outbox/*.db"):
            with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(path) as connection:
                (waiting,) = connection.execute("SELECT count(*) FROM records").fetchone()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    run(provider, script, -signal.SIGKILL)
    rows = ledger("status")
    assert rows == [("success",)]
