"""Every shape of an OpenAI call makes the same row: whole, streamed, raw, by a helper, sync and async."""

import asyncio

import pytest

QUESTION = [{"role": "user", "content": "How many tokens are there?"}]
CHAT = {"model": "gpt-4o", "messages": QUESTION}
USAGE = {"stream_options": {"include_usage": True}}


def read(stream):
    return list(stream)


SHAPES = {
    "whole": lambda c: c.chat.completions.create(**CHAT),
    "streamed": lambda c: read(c.chat.completions.create(**CHAT, stream=True, **USAGE)),
    "streamed by next": lambda c: by_next(c.chat.completions.create(**CHAT, stream=True, **USAGE)),
    "streamed in a with": lambda c: in_with(c.chat.completions.create(**CHAT, stream=True, **USAGE)),
    "parsed": lambda c: c.chat.completions.parse(**CHAT),
    "helper": lambda c: in_with(c.chat.completions.stream(**CHAT, **USAGE)),
    "helper, final": lambda c: final(c.chat.completions.stream(**CHAT, **USAGE)),
    "raw": lambda c: c.chat.completions.with_raw_response.create(**CHAT).parse(),
    "raw, text only": lambda c: c.chat.completions.with_raw_response.create(**CHAT).text,
    "raw, streamed": lambda c: read(c.chat.completions.with_raw_response.create(**CHAT, stream=True, **USAGE).parse()),
    "raw, parsed": lambda c: c.chat.completions.with_raw_response.parse(**CHAT).parse(),
    "streaming response": lambda c: streaming(c, lambda r: r.parse()),
    "streaming response, lines": lambda c: streaming(c, lambda r: read(r.iter_lines())),
    "streaming response, bytes": lambda c: streaming(c, lambda r: r.read()),
    "streaming response, streamed": lambda c: streaming(c, lambda r: read(r.parse()), stream=True, **USAGE),
    "streaming response, streamed lines": lambda c: streaming(c, lambda r: read(r.iter_lines()), stream=True, **USAGE),
}


def by_next(stream):
    while True:
        try:
            next(stream)
        except StopIteration:
            return


def in_with(manager):
    with manager as stream:
        read(stream)


def final(manager):
    with manager as stream:
        stream.get_final_completion()


def streaming(client, consume, **more):
    with client.chat.completions.with_streaming_response.create(**CHAT, **more) as response:
        consume(response)


async def aread(stream):
    return [each async for each in stream]


async def astreaming(client, consume, **more):
    async with client.chat.completions.with_streaming_response.create(**CHAT, **more) as response:
        await consume(response)


async def in_awith(manager):
    async with manager as stream:
        await aread(stream)


async def araw(client, **more):
    raw = await client.chat.completions.with_raw_response.create(**CHAT, **more)
    parsed = raw.parse()
    if more:
        await aread(parsed)


async def aparsed(response):
    await aread(await response.parse())


async def astream(client):
    await aread(await client.chat.completions.create(**CHAT, stream=True, **USAGE))


ASYNC_SHAPES = {
    "whole": lambda c: c.chat.completions.create(**CHAT),
    "streamed": astream,
    "parsed": lambda c: c.chat.completions.parse(**CHAT),
    "helper": lambda c: in_awith(c.chat.completions.stream(**CHAT, **USAGE)),
    "raw": araw,
    "raw, streamed": lambda c: araw(c, stream=True, **USAGE),
    "streaming response": lambda c: astreaming(c, lambda r: r.parse()),
    "streaming response, bytes": lambda c: astreaming(c, lambda r: r.read()),
    "streaming response, streamed": lambda c: astreaming(c, aparsed, stream=True, **USAGE),
    "streaming response, streamed lines": lambda c: astreaming(
        c, lambda r: aread(r.iter_lines()), stream=True, **USAGE
    ),
}


COLUMNS = (
    "operation", "provider", "request_model", "response_model", "server_address", "service_tier", "status",
    "usage_status", "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "cost_pusd",
    "cost_status", "cost_source", "currency", "error_type", "source", "service_name", "environment", "weight",
)  # fmt: skip
# 9 prompt tokens, 2 of them cached; 9 completion tokens. gpt-4o: 2.50, 1.25 and 10 USD per million.
ROW = (
    "chat", "openai", "gpt-4o", "gpt-4o", "127.0.0.1", "default", "success",
    "reported", 9, 9, 2, 2, 7 * 2_500_000 + 2 * 1_250_000 + 9 * 10_000_000,
    "priced", "local", "USD", None, "spanledger", "tests", "test", 1,
)  # fmt: skip


NEEDS = {
    "parsed": "chat.completions.parse",
    "raw, parsed": "chat.completions.parse",
    "helper": "chat.completions.stream",
    "helper, final": "chat.completions.stream",
}


def those_of_the_sdk(shapes):
    return [pytest.param(name, marks=[pytest.mark.needs(NEEDS[name])] if name in NEEDS else []) for name in shapes]


@pytest.mark.parametrize("shape", those_of_the_sdk(SHAPES))
def test_every_sync_shape_makes_the_same_row(shape, client, ledger, recording):
    SHAPES[shape](client)
    assert ledger(*COLUMNS) == [ROW]
    assert ledger("stream") == [(int("streamed" in shape or "helper" in shape),)]
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in recording.spans] == [9]


@pytest.mark.parametrize("shape", those_of_the_sdk(ASYNC_SHAPES))
def test_every_async_shape_makes_the_same_row(shape, recording, provider, ledger):
    from openai import AsyncOpenAI

    async def trip():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
            await ASYNC_SHAPES[shape](client)

    asyncio.run(trip())
    assert ledger(*COLUMNS) == [ROW]
    assert [span.attributes["gen_ai.usage.output_tokens"] for span in recording.spans] == [9]


RESPONSES = {"model": "gpt-5.4", "input": "How many tokens are there?"}


def response_lines(client, **more):
    with client.responses.with_streaming_response.create(**RESPONSES, **more) as response:
        read(response.iter_lines())


RESPONSE_SHAPES = {
    "whole": lambda c: c.responses.create(**RESPONSES),
    "streamed": lambda c: read(c.responses.create(**RESPONSES, stream=True)),
    "parsed": lambda c: c.responses.parse(**RESPONSES),
    "helper": lambda c: in_with(c.responses.stream(**RESPONSES)),
    "raw": lambda c: c.responses.with_raw_response.create(**RESPONSES).parse(),
    "raw, streamed": lambda c: read(c.responses.with_raw_response.create(**RESPONSES, stream=True).parse()),
    "streaming response": response_lines,
    "streaming response, streamed": lambda c: response_lines(c, stream=True),
}


@pytest.mark.needs("responses")
@pytest.mark.parametrize("shape", RESPONSE_SHAPES)
def test_every_shape_of_a_response_makes_the_same_row(shape, client, ledger):
    RESPONSE_SHAPES[shape](client)
    columns = (
        "operation", "response_model", "status", "usage_status", "input_tokens", "output_tokens", "cache_read_tokens",
        "reasoning_tokens", "web_searches", "cost_pusd", "cost_status", "conversation_id",
    )  # fmt: skip
    # 9 input tokens, 1 of them cached; 9 output tokens. gpt-5.4: 2.50, 0.25 and 15 USD per million.
    cost = 8 * 2_500_000 + 1 * 250_000 + 9 * 15_000_000
    assert ledger(*columns) == [("chat", "gpt-5.4", "success", "reported", 9, 9, 1, 3, 0, cost, "priced", None)]


def test_a_legacy_completion_is_a_text_completion(client, ledger):
    client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time")
    read(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time", stream=True, **USAGE))
    columns = ("operation", "stream", "input_tokens", "output_tokens", "cost_pusd")
    cost = 8 * 1_500_000 + 9 * 2_000_000  # 1.50 and 2 USD per million
    assert ledger(*columns) == [("text_completion", 0, 8, 9, cost), ("text_completion", 1, 8, 9, cost)]


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_embeddings_have_input_only(client, ledger, encoding):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["one text", "another one"], **encoding)
    assert len(answer.data) == 2
    columns = ("operation", "input_tokens", "output_tokens", "usage_status", "cost_pusd", "cost_status", "response_id")
    assert ledger(*columns) == [("embeddings", 12, None, "reported", 12 * 20_000, "priced", None)]


@pytest.mark.needs("responses")
def test_searches_are_counted_and_priced_but_opened_pages_are_not(client, ledger):
    call = {"type": "web_search_call", "id": "ws", "status": "completed"}
    output = [
        {**call, "action": {"type": "search", "query": "x"}},
        {**call, "action": {"type": "open_page", "url": "https://example.org"}},
        {**call, "action": {"type": "search", "query": "y"}},
        {"type": "file_search_call", "id": "fs", "status": "completed", "queries": []},
    ]
    client.responses.create(**RESPONSES, extra_body={"loopback": {"output": output}})
    cost = 8 * 2_500_000 + 1 * 250_000 + 9 * 15_000_000 + 2 * 10 * 10**9 + 1 * 2_500 * 10**6
    assert ledger("web_searches", "other_usage", "cost_pusd", "cost_status") == [
        (2, '{"storage_searches":1}', cost, "priced")
    ]


@pytest.mark.needs("responses")
def test_the_service_tier_that_answered_sets_the_price(client, ledger):
    for tier, expected in (
        ("default", 2_500_000 * 8 + 250_000 + 15_000_000 * 9),
        ("priority", 5_000_000 * 8 + 500_000 + 30_000_000 * 9),
    ):
        client.responses.create(**RESPONSES, extra_body={"loopback": {"service_tier": tier}})
        assert ledger("service_tier", "cost_pusd")[-1] == (tier, expected)


def test_a_thousand_calls_with_one_response_id_are_a_thousand_rows(client, ledger):
    for _ in range(1000):
        client.chat.completions.create(**CHAT, extra_body={"loopback": {"id": "chatcmpl-always-me"}})
    rows = ledger("response_id", "record_id")
    assert len({record for _, record in rows}) == 1000
    assert {response for response, _ in rows} == {"chatcmpl-always-me"}


def test_a_method_that_calls_another_one_of_the_sdk_is_one_call(client, ledger, recording):
    beta = getattr(client.beta, "chat", None)
    # From 1.40 to 1.49 `parse` calls `create`; where it stands under `beta` no more, a method of ours does the same.
    parse = getattr(beta.completions, "parse", None) if beta is not None and hasattr(beta, "completions") else None
    if parse is None:
        from openai.resources.chat.completions import Completions

        from spanledger.instrumentation.patch import Watched

        watched = vars(Completions).get("parse") or vars(Completions)["create"]  # until 1.39 there is no `parse`
        outer = Watched(lambda self, **request: self.create(**request), watched._self_wrapper)
        answer = outer.__get__(client.chat.completions, Completions)(**CHAT)
    else:
        answer = parse(**CHAT)
    assert answer.usage.total_tokens == 18
    assert ledger(*COLUMNS) == [ROW]
    assert len(recording.spans) == 1
