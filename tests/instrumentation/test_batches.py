"""Results of batches: every item is a row at the batch's rates, the same one whoever reads it and how often."""

import io
import json
import logging
import subprocess
import sys

import pytest
from tests.conftest import loaded_prices

import spanledger

anthropic = pytest.importorskip("anthropic")
openai = pytest.importorskip("openai")

USED = {"input_tokens": 1000, "cache_read_input_tokens": 2000, "output_tokens": 100, "service_tier": "batch"}
ASK = {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "why is it blue"}]}
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
CHAT_USED = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
COLUMNS = ("operation", "status", "error_type", "service_tier", "input_tokens", "output_tokens", "cost_pusd", "user_id")
# Half of 3, 0.3 and 15 USD for 1000, 2000 and 100.
CLAUDE_ROW = ("chat", "success", None, "batch", 3000, 100, 1_500_000_000 + 300_000_000 + 750_000_000, "ada")
CLAUDE_FAILED = ("chat", "error", "invalid_request_error", "batch", None, None, None, "ada")
# Half of 2.5 and 10 USD.
CHAT_ROW = ("chat", "success", None, "batch", 1000, 100, 1_250_000_000 + 500_000_000, "ada")
CHAT_FAILED = ("chat", "error", "as_asked", "batch", None, None, None, "ada")
ROOMS = ("messages", "beta.messages")
WAYS = ("sync", "async")


def batches_of(client, room):
    return (client.beta.messages if room.startswith("beta") else client.messages).batches


def claude(provider, kind=anthropic.Anthropic):
    return kind(base_url=provider.root, api_key="unused", max_retries=0)


def gpt(provider, kind=openai.OpenAI):
    return kind(base_url=provider.base_url, api_key="unused", max_retries=0)


def claude_batch(provider, answers=2):
    """A batch with so many answers and an item that failed after them."""
    good = {**ASK, "loopback": {"usage": USED}}
    requests = [{"custom_id": f"c{number}", "params": good} for number in range(answers)]
    requests.append({"custom_id": "bad", "params": {**ASK, "loopback": {"status": 400}}})
    with claude(provider) as client:
        return client.messages.batches.create(requests=requests).id


def gpt_batch(provider, *more, url="/v1/chat/completions"):
    """The output file of a batch with an answer, an item that failed, and these bodies."""
    bodies = more or ({**CHAT, "loopback": {"usage": CHAT_USED}}, {**CHAT, "loopback": {"status": 400}})
    lines = [
        {"custom_id": f"c{number}", "method": "POST", "url": url, "body": body} for number, body in enumerate(bodies)
    ]
    with gpt(provider) as client:
        file = client.files.create(
            file=("in.jsonl", io.BytesIO("\n".join(map(json.dumps, lines)).encode())), purpose="batch"
        )
        made = client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")
        return client.batches.retrieve(made.id).output_file_id


async def read_results(provider, way, room, batch_id, most=None):
    """The results read, as many as asked for; the batch is retrieved before, as it is with `retrieve` until it ends."""
    read = []
    if way == "sync":
        with claude(provider) as client:
            batches_of(client, room).retrieve(batch_id)
            for item in batches_of(client, room).results(batch_id):
                read.append(item)
                if len(read) == most:
                    break
        return read
    async with claude(provider, anthropic.AsyncAnthropic) as client:
        await batches_of(client, room).retrieve(batch_id)
        async for item in await batches_of(client, room).results(batch_id):
            read.append(item)
            if len(read) == most:
                break
    return read


async def read_file(provider, way, file_id):
    """The bytes of a file: read in that way."""
    if "async" in way:
        async with gpt(provider, openai.AsyncOpenAI) as client:
            if "raw" in way:
                return (await client.files.with_raw_response.content(file_id)).content
            return (await client.files.content(file_id)).content
    with gpt(provider) as client:
        return (client.files.with_raw_response if "raw" in way else client.files).content(file_id).content


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.anyio
async def test_each_result_of_anthropics_batch_is_a_row_at_half_the_price(provider, ledger, way, room):
    batch_id = claude_batch(provider)
    with spanledger.attribution(user_id="ada"):
        items = await read_results(provider, way, room, batch_id)
    assert [item.result.type for item in items] == ["succeeded", "succeeded", "errored"]
    assert sorted(ledger(*COLUMNS), key=str) == sorted([CLAUDE_ROW, CLAUDE_ROW, CLAUDE_FAILED], key=str)
    assert {row["response_id"] for row in ledger()} == {*(item.result.message.id for item in items[:2]), None}
    assert {row["started_at"] for row in ledger()} == {"2026-09-21T14:13:20.000000+00:00"}
    assert {row["cost_status"] for row in ledger()} == {"priced", "unpriced"}


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("way", ["sync", "async", "sync raw", "async raw"])
@pytest.mark.anyio
async def test_each_line_of_openais_output_file_is_a_row_at_half_the_price(provider, ledger, way):
    file_id = gpt_batch(provider)
    with spanledger.attribution(user_id="ada"):
        content = await read_file(provider, way, file_id)
    assert content.count(b"\n") == 2
    assert sorted(ledger(*COLUMNS), key=str) == sorted([CHAT_ROW, CHAT_FAILED], key=str)
    assert {row["cost_status"] for row in ledger()} == {"priced", "unpriced"}


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(
    ("url", "body", "operation", "model", "usage", "pusd"),
    [
        (
            "/v1/responses",
            {"model": "gpt-5", "input": "hi"},
            "chat",
            "gpt-5",
            {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
            625_000_000 + 500_000_000,
        ),
        (
            "/v1/embeddings",
            {"model": "text-embedding-3-small", "input": "hi"},
            "embeddings",
            "text-embedding-3-small",
            {"prompt_tokens": 1000, "total_tokens": 1000},
            10_000_000,
        ),
        (
            "/v1/completions",
            {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"},
            "text_completion",
            "gpt-3.5-turbo-instruct",
            CHAT_USED,
            750_000_000 + 100_000_000,
        ),
    ],
)
def test_a_line_is_read_as_what_it_is(provider, ledger, url, body, operation, model, usage, pusd):
    file_id = gpt_batch(provider, {**body, "loopback": {"usage": usage}}, url=url)
    with gpt(provider) as client:
        client.files.content(file_id)
    assert ledger("operation", "response_model", "cost_pusd", "cost_status") == [(operation, model, pusd, "priced")]


def restart(telemetry):
    spanledger.shutdown()
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    loaded_prices()


@pytest.mark.parametrize("sdk", ["anthropic", "openai"])
@pytest.mark.anyio
async def test_results_that_are_read_again_are_the_same_rows(provider, recording, ledger, sdk):
    known = claude_batch(provider) if sdk == "anthropic" else gpt_batch(provider)

    async def read(way):
        if sdk == "anthropic":
            await read_results(provider, way, "messages", known)
        else:
            await read_file(provider, way, known)

    await read("sync")
    before = ledger()
    await read("async")
    await read("sync")
    restart(recording)
    await read("sync")
    assert len(before) == (3 if sdk == "anthropic" else 2)
    assert ledger() == before


ELSEWHERE = """
import sys
import spanledger
spanledger.configure()
what, root, known = sys.argv[1:]
if what == "openai":
    import openai
    openai.OpenAI(base_url=root + "/v1", api_key="unused").files.content(known)
else:
    import anthropic
    client = anthropic.Anthropic(base_url=root, api_key="unused")
    if what == "anthropic, retrieved":
        client.messages.batches.retrieve(known)
    list(client.messages.batches.results(known))
assert spanledger.shutdown()
"""


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("what", ["openai", "anthropic, retrieved", "anthropic"])
def test_another_process_that_reads_the_results_makes_no_more_rows(provider, ledger, what):
    known = gpt_batch(provider) if what == "openai" else claude_batch(provider)
    with claude(provider) as client, gpt(provider) as other:
        if what == "openai":
            other.files.content(known)
        else:
            client.messages.batches.retrieve(known)
            list(client.messages.batches.results(known))
    before = ledger("record_id", *COLUMNS)
    arguments = [sys.executable, "-c", ELSEWHERE, what, provider.root, known]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert ledger("record_id", *COLUMNS) == before


@pytest.mark.usefixtures("recording")
def test_the_rows_are_the_readers_not_the_makers(provider, ledger):
    with spanledger.attribution(user_id="maker", feature="making"):
        batch_id = claude_batch(provider)
    with claude(provider) as client:
        with spanledger.attribution(user_id="reader", feature="reading"):
            results = client.messages.batches.results(batch_id)
        with spanledger.attribution(user_id="bystander"):
            list(results)
    assert set(ledger("user_id", "feature")) == {("reader", "reading")}


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.anyio
async def test_of_results_left_half_way_only_what_was_read_is_recorded(provider, ledger, way):
    with spanledger.attribution(user_id="ada"):
        assert len(await read_results(provider, way, "messages", claude_batch(provider, 4), most=2)) == 2
    assert ledger(*COLUMNS) == [CLAUDE_ROW] * 2


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("data", [b"", b"%PDF-1.7 \xff", b"{}", b'{"custom_id": "c0", "method": "POST"}\n' * 3])
def test_a_file_that_is_no_output_of_a_batch_records_nothing(provider, ledger, data):
    with gpt(provider) as client:
        file = client.files.create(file=("any", io.BytesIO(data)), purpose="user_data")
        assert client.files.content(file.id).content == data
        client.chat.completions.create(**CHAT)
    assert ledger("operation", "service_tier") == [("chat", "default")]


@pytest.mark.usefixtures("recording")
def test_broken_lines_of_an_output_file_are_passed_over(provider, ledger):
    body = {"object": "chat.completion", "usage": CHAT_USED}
    answer = {"id": "batch_req_1", "custom_id": "a", "response": {"body": body}, "error": None}
    odd = ['{"id": "batch_req_', "", "null", "[]", "3", '{"id": "batch_req_2", "response": null, "error": null}']
    data = "\n".join([json.dumps(answer), *odd, json.dumps({**answer, "id": "batch_req_3"})]).encode()
    with gpt(provider) as client:
        file = client.files.create(file=("any", io.BytesIO(data)), purpose="user_data")
        client.files.content(file.id)
    assert ledger("input_tokens", "output_tokens") == [(1000, 100)] * 2


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("created", [1e300, -1, "soon", None])
def test_an_answer_with_an_impossible_creation_time_is_a_row_all_the_same(provider, ledger, created):
    body = {"object": "chat.completion", "usage": CHAT_USED, "created": created}
    line = {"id": "batch_req_9", "custom_id": "a", "response": {"body": body}, "error": None}
    with gpt(provider) as client:
        file = client.files.create(file=("any", io.BytesIO(json.dumps(line).encode())), purpose="user_data")
        client.files.content(file.id)
    assert ledger("input_tokens", "output_tokens") == [(1000, 100)]


@pytest.mark.usefixtures("recording")
def test_results_that_do_not_exist_raise_as_they_do_and_record_nothing(provider, ledger):
    with claude(provider) as client, gpt(provider) as other:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.results("none")
        with pytest.raises(openai.NotFoundError):
            other.files.content("none")
        other.chat.completions.create(**CHAT)
    assert len(ledger()) == 1


@pytest.mark.parametrize("sdk", ["anthropic", "openai"])
def test_with_synchronous_durability_nothing_waits_for_itself(provider, telemetry, ledger, caplog, sdk):
    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, durability="sync"
    )
    loaded_prices()
    with caplog.at_level(logging.WARNING), spanledger.attribution(user_id="ada"):
        if sdk == "anthropic":
            batch_id = claude_batch(provider, 1)
            with claude(provider) as client:
                list(client.messages.batches.results(batch_id))
        else:
            file_id = gpt_batch(provider)
            with gpt(provider) as client:
                client.files.content(file_id)
        found = ledger(*COLUMNS)
    expected = [CLAUDE_ROW, CLAUDE_FAILED] if sdk == "anthropic" else [CHAT_ROW, CHAT_FAILED]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert "not committed" not in caplog.text


def test_making_and_reading_a_batch_makes_no_span(provider, recording, ledger):
    batch_id, file_id = claude_batch(provider), gpt_batch(provider)
    with claude(provider) as client, gpt(provider) as other:
        list(client.messages.batches.results(batch_id))
        other.files.content(file_id)
    assert len(ledger()) == 5
    assert recording.spans == ()


@pytest.mark.usefixtures("recording")
def test_switched_off_no_result_is_recorded(provider, ledger):
    batch_id = claude_batch(provider)
    spanledger.uninstrument("anthropic")
    with claude(provider) as client, gpt(provider) as other:
        assert len(list(client.messages.batches.results(batch_id))) == 3
        other.chat.completions.create(**CHAT)
    assert len(ledger()) == 1
