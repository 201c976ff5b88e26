"""Costs that a provider or a gateway states: in the usage object, or in a header of the HTTP response."""

import asyncio
import json
import threading
from decimal import Decimal

import pytest
from tests.conftest import httpx2

import spanledger
from spanledger.instrumentation.patch import Watched

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How many tokens are there?"}]}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
LOCAL = 9 * 2_500_000 + 9 * 10_000_000  # gpt-4o: 2.50 and 10 USD per million
PERPLEXITY = {"input_tokens_cost": 2e-06, "output_tokens_cost": 0.000379, "request_cost": 0.005}

STATEMENTS = {
    "OpenRouter": ({"cost": 0.00123}, {}, 1_230_000_000),
    "OpenRouter, own key": (
        {"cost": 0.0000615, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.00123}}, {}, 1_291_500_000,
    ),
    "OpenRouter, its key": (
        {"cost": 0.00123, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.001}}, {}, 1_230_000_000,
    ),
    "xAI": ({"cost_in_usd_ticks": 37_756_001}, {}, 3_775_600_100),
    "Perplexity": ({"cost": {**PERPLEXITY, "total_cost": 0.005381}}, {}, 5_381_000_000),
    "LiteLLM": ({}, {"x-litellm-response-cost": "0.00012345678901"}, 123_456_789),
    "LiteLLM, small": ({}, {"X-LiteLLM-Response-Cost": "1.05e-05"}, 10_500_000),
    "Logfire": ({}, {"logfire-ai-gateway-cost": "0.000230USD"}, 230_000_000),
}  # fmt: skip
"""Who states a cost → what is in the usage object, the headers, and the cost in pico-USD."""


def asked(usage=None, headers=None, **more):
    """A request that makes the loopback answer with this usage and these headers."""
    return {"extra_body": {"loopback": {"usage": {**USAGE, **(usage or {})}, "headers": headers or {}, **more}}}


def within(client, consume, **request):
    with client.chat.completions.with_streaming_response.create(**request) as response:
        consume(response)


SHAPES = {
    "whole": lambda c, r: c.chat.completions.create(**r),
    "streamed": lambda c, r: list(c.chat.completions.create(**r, **STREAM)),
    "raw": lambda c, r: c.chat.completions.with_raw_response.create(**r).parse(),
    "raw, streamed": lambda c, r: list(c.chat.completions.with_raw_response.create(**r, **STREAM).parse()),
    "streaming response": lambda c, r: within(c, lambda response: response.parse(), **r),
    "streaming response, bytes": lambda c, r: within(c, lambda response: response.read(), **r),
    "streaming response, streamed": lambda c, r: within(c, lambda response: list(response.parse()), **r, **STREAM),
}


async def aread(stream):
    return [each async for each in stream]


async def astreamed(client, request):
    return await aread(await client.chat.completions.create(**request, **STREAM))


async def araw(client, request, **more):
    raw = await client.chat.completions.with_raw_response.create(**request, **more)
    return await aread(raw.parse()) if more else raw.parse()


async def awithin(client, request, **more):
    async with client.chat.completions.with_streaming_response.create(**request, **more) as response:
        parsed = await response.parse()
        return await aread(parsed) if more else parsed


ASYNC_SHAPES = {
    "whole": lambda c, r: c.chat.completions.create(**r),
    "streamed": astreamed,
    "raw": araw,
    "raw, streamed": lambda c, r: araw(c, r, **STREAM),
    "streaming response": awithin,
    "streaming response, streamed": lambda c, r: awithin(c, r, **STREAM),
}


def check(ledger, recording, stated, local=LOCAL):
    """The row, the span and the metric of one call that states its cost."""
    ((source, status, currency, pusd, ours, breakdown, basis),) = ledger(
        "cost_source", "cost_status", "currency", "cost_pusd", "local_cost_pusd", "cost_breakdown", "price_basis"
    )
    assert (source, status, currency, pusd, ours) == ("provider", "priced", "USD", stated, local)
    assert sum(json.loads(breakdown).values()) == stated
    assert basis.startswith("genai-prices/")
    (span,) = recording.spans
    assert span.attributes["spanledger.cost.total"] == stated / 1e12
    assert span.attributes["spanledger.cost.source"] == "provider"
    assert span.attributes["spanledger.cost.local"] == local / 1e12
    ((attributes, drift),) = recording.points("spanledger.cost.drift")
    assert drift == pytest.approx(abs(stated - local) / 1e12, rel=1e-9)
    assert attributes["gen_ai.request.model"] == CHAT["model"]
    ((_, cost),) = recording.points("spanledger.cost")
    assert cost == pytest.approx(stated / 1e12, rel=1e-9)


@pytest.mark.parametrize("who", STATEMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stated_cost_counts_in_every_sync_shape(shape, who, client, ledger, recording):
    usage, headers, stated = STATEMENTS[who]
    SHAPES[shape](client, {**CHAT, **asked(usage, headers)})
    check(ledger, recording, stated)


@pytest.mark.parametrize("who", STATEMENTS)
@pytest.mark.parametrize("shape", ASYNC_SHAPES)
def test_a_stated_cost_counts_in_every_async_shape(shape, who, provider, ledger, recording):
    from openai import AsyncOpenAI

    usage, headers, stated = STATEMENTS[who]

    async def trip():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
            await ASYNC_SHAPES[shape](client, {**CHAT, **asked(usage, headers)})

    asyncio.run(trip())
    check(ledger, recording, stated)


COSTS = ("cost_source", "cost_pusd", "local_cost_pusd", "cost_status")


@pytest.mark.needs("responses")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("usage", "headers"), [({"cost": 0.002}, {}), ({}, {"x-litellm-response-cost": "0.002"})], ids=["usage", "header"]
)
def test_a_response_may_state_its_cost(client, ledger, streamed, usage, headers):
    counts = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18, **usage}
    body = {"loopback": {"usage": counts, "headers": headers}}
    answer = client.responses.create(model="gpt-4o", input="Hello", extra_body=body, stream=streamed)
    if streamed:
        list(answer)
    assert ledger(*COSTS) == [("provider", 2 * 10**9, LOCAL, "priced")]


def test_embeddings_and_legacy_completions_may_too(client, ledger):
    header = {"extra_body": {"loopback": {"headers": {"x-litellm-response-cost": "0.002"}}}}
    client.embeddings.create(model="text-embedding-3-small", input="one text", **header)
    client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", **header)
    body = {"loopback": {"usage": {"prompt_tokens": 5, "total_tokens": 5, "cost": 0.003}}}
    client.embeddings.create(model="text-embedding-3-small", input="one text", extra_body=body)
    assert ledger("cost_source", "cost_pusd") == [("provider", 2 * 10**9)] * 2 + [("provider", 3 * 10**9)]


def test_what_the_usage_says_goes_before_a_header(client, ledger):
    client.chat.completions.create(**CHAT, **asked({"cost": 0.001}, {"x-litellm-response-cost": "0.002"}))
    assert ledger(*COSTS) == [("provider", 10**9, LOCAL, "priced")]


@pytest.mark.parametrize(
    ("usage", "headers"), [({"cost": 0.001}, {}), ({}, {"x-litellm-response-cost": "0.001"})], ids=["usage", "header"]
)
def test_without_a_price_of_ours_there_is_no_drift(client, ledger, recording, usage, headers):
    client.chat.completions.create(**{**CHAT, "model": "gpt-imaginary"}, **asked(usage, headers))
    assert ledger(*COSTS, "price_basis") == [("provider", 10**9, None, "priced", None)]
    (span,) = recording.spans
    assert span.attributes["spanledger.cost.total"] == 0.001
    assert "spanledger.cost.local" not in span.attributes
    assert recording.points("spanledger.cost.drift") == []
    assert recording.points("spanledger.cost.unpriced") == []


def test_without_tokens_the_stated_cost_still_counts(client, ledger):
    client.chat.completions.create(
        **CHAT, extra_body={"loopback": {"usage": None, "headers": {"x-litellm-response-cost": "0.001"}}}
    )
    assert ledger(*COSTS, "usage_status") == [("provider", 10**9, None, "priced", "missing")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zero", ["0", "0.0", "0e0"])
def test_a_zero_of_litellm_means_that_it_does_not_know(client, ledger, recording, shape, zero):
    SHAPES[shape](client, {**CHAT, **asked(headers={"x-litellm-response-cost": zero})})
    assert ledger(*COSTS) == [("local", LOCAL, None, "priced")]
    (span,) = recording.spans
    assert span.attributes["spanledger.cost.source"] == "local"
    assert span.attributes["spanledger.cost.total"] == LOCAL / 1e12
    assert "spanledger.cost.local" not in span.attributes
    assert recording.points("spanledger.cost.drift") == []


@pytest.mark.parametrize(
    ("usage", "headers"), [({"cost": 0}, {}), ({}, {"logfire-ai-gateway-cost": "0"})], ids=["OpenRouter", "Logfire"]
)
def test_a_zero_that_is_meant_is_free(client, ledger, recording, usage, headers):
    client.chat.completions.create(**CHAT, **asked(usage, headers))
    assert ledger(*COSTS, "cost_breakdown") == [("provider", 0, LOCAL, "free", "{}")]
    ((_, drift),) = recording.points("spanledger.cost.drift")
    assert drift == pytest.approx(LOCAL / 1e12)


@pytest.mark.parametrize("name", ["x-litellm-response-cost", "logfire-ai-gateway-cost"])
@pytest.mark.parametrize(
    "value",
    [
        "", "free", "nan", "inf", "-inf", "-0.01", "--1", "1,5", "0x10", "0.1 EUR", "0.1 0.2", "1e7", "1e400",
        "-", "e", ".", "None", "1e-99999", "9" * 5000, "0." + "0" * 5000 + "1",
    ],
)  # fmt: skip
def test_a_header_that_is_no_amount_changes_nothing(client, ledger, name, value):
    client.chat.completions.create(**CHAT, **asked(headers={name: value}))
    assert ledger(*COSTS) == [("local", LOCAL, None, "priced")]


@pytest.mark.parametrize("cost", ["free", None, True, [], {}, {"total_cost": None}, -1, 1e300, 10**30, "NaN"])
def test_a_cost_that_is_no_amount_changes_nothing(client, ledger, cost):
    client.chat.completions.create(**CHAT, **asked({"cost": cost}))
    assert ledger(*COSTS) == [("local", LOCAL, None, "priced")]


def test_a_cost_in_another_currency_is_none(client, ledger):
    client.chat.completions.create(**CHAT, **asked({"cost": {"total_cost": 0.01, "currency": "EUR"}}))
    assert ledger(*COSTS) == [("local", LOCAL, None, "priced")]


def fake(base_url, usage=None, headers=None, during=None):
    """A client of a host that is not there: the transport answers."""
    from openai import OpenAI

    def answer(_):
        if during is not None:
            during()
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
        body = {
            "id": base_url, "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice],
            "usage": {**USAGE, **(usage or {})},
        }  # fmt: skip
        return httpx2.Response(200, json=body, headers=headers or {})

    return OpenAI(
        api_key="x", base_url=base_url, max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
    )


@pytest.mark.parametrize(
    ("usage", "headers"), [({"cost": 5}, {}), ({}, {"x-litellm-response-cost": "5"})], ids=["usage", "header"]
)
@pytest.mark.parametrize(
    ("url", "source", "pusd"),
    [
        ("https://api.openai.com/v1", "local", LOCAL),
        ("https://eu.api.openai.com/v1", "local", LOCAL),
        ("https://openrouter.ai/api/v1", "provider", 5 * 10**12),
        ("https://llm.example.org/v1", "provider", 5 * 10**12),
    ],
)
def test_a_host_we_know_states_a_cost_only_if_it_is_one_that_does(recording, ledger, usage, headers, url, source, pusd):
    fake(url, usage, headers).chat.completions.create(**CHAT)
    assert ledger("cost_source", "cost_pusd") == [(source, pusd)]


def cost_header(pusd):
    return {"x-litellm-response-cost": str(Decimal(pusd).scaleb(-12))}


def by_id(ledger):
    return dict(ledger("response_id", "cost_pusd"))


def test_a_call_inside_another_ones_transport_has_headers_of_its_own(recording, ledger):
    inner = fake("https://inner.example.org/v1", headers=cost_header(2000))
    silent = fake("https://silent.example.org/v1")

    def during():
        inner.chat.completions.create(**CHAT)
        silent.chat.completions.create(**CHAT)

    fake("https://outer.example.org/v1", headers=cost_header(1000), during=during).chat.completions.create(**CHAT)
    fake("https://mute.example.org/v1", during=during).chat.completions.create(**CHAT)
    assert sorted(ledger("response_id", "cost_pusd")) == sorted(
        [
            ("https://inner.example.org/v1", 2000), ("https://inner.example.org/v1", 2000),
            ("https://silent.example.org/v1", LOCAL), ("https://silent.example.org/v1", LOCAL),
            ("https://outer.example.org/v1", 1000), ("https://mute.example.org/v1", LOCAL),
        ]
    )  # fmt: skip


def test_threads_do_not_mix_up_headers(recording, provider, ledger):
    from openai import OpenAI

    with (
        OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as one,
        OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as two,
    ):
        barrier = threading.Barrier(8)

        def work(thread):
            barrier.wait()
            for number in range(15):
                client = (one, two)[(thread + number) % 2]
                pusd = 1 + thread * 1000 + number
                shape = SHAPES[list(SHAPES)[number % len(SHAPES)]]
                shape(client, {**CHAT, **asked(headers=cost_header(pusd), id=f"call-{pusd}")})

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = {1 + thread * 1000 + number for thread in range(8) for number in range(15)}
    assert by_id(ledger) == {f"call-{pusd}": pusd for pusd in expected}


def test_tasks_do_not_mix_up_headers(recording, provider, ledger):
    from openai import AsyncOpenAI

    async def trip():
        async with (
            AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as one,
            AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as two,
        ):
            shapes = list(ASYNC_SHAPES.values())
            await asyncio.gather(
                *(
                    shapes[number % len(shapes)](
                        (one, two)[number // len(shapes) % 2],
                        {**CHAT, **asked(headers=cost_header(1 + number), id=f"call-{1 + number}", delay=0.002)},
                    )
                    for number in range(60)
                )
            )

    asyncio.run(trip())
    assert by_id(ledger) == {f"call-{1 + number}": 1 + number for number in range(60)}


def test_a_call_without_a_header_does_not_get_the_last_ones(client, ledger):
    client.chat.completions.create(**CHAT, **asked(headers=cost_header(1000)))
    client.chat.completions.create(**CHAT, **asked())
    assert ledger("cost_source", "cost_pusd") == [("provider", 1000), ("local", LOCAL)]


def test_an_answer_that_is_an_error_costs_nothing(client, ledger):
    with pytest.raises(Exception, match="as asked"):
        client.chat.completions.create(
            **CHAT, extra_body={"loopback": {"status": 500, "headers": {"x-litellm-response-cost": "0.001"}}}
        )
    assert ledger("status", "cost_pusd") == [("error", None)]


def passing():
    from openai import _base_client as module

    return {kind.__name__: vars(kind)["_process_response"] for kind in (module.SyncAPIClient, module.AsyncAPIClient)}


def test_uninstrument_restores_what_responses_pass(client, ledger):
    watched = passing()
    assert all(isinstance(method, Watched) for method in watched.values())
    spanledger.uninstrument()
    bare = passing()
    assert bare == {name: method.__wrapped__ for name, method in watched.items()}
    assert not any(isinstance(method, Watched) for method in bare.values())
    request = {**CHAT, **asked(headers=cost_header(1000))}
    assert client.chat.completions.create(**request).usage.total_tokens == 18
    spanledger.instrument()
    assert all(method is watched[name] for name, method in passing().items())
    client.chat.completions.create(**request)
    assert ledger("cost_pusd") == [(1000,)]
