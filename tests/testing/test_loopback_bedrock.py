"""The loopback's Bedrock formats, read by the real SDKs without instrumentation: what they parsed is what was told."""

import asyncio
import functools
import itertools
import json

import aiobotocore.session
import anthropic
import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from spanledger.testing import Loopback

KEYS = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
CLAUDE = "us.anthropic.claude-3-haiku-20240307-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "How are you?"}]}]
CACHED = [{"role": "user", "content": [{"text": "one two three four"}, {"cachePoint": {"type": "default"}}]}]
OWN = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
COUNTS = {
    "inputTokenCount": "x-amzn-bedrock-input-token-count",
    "outputTokenCount": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokenCount": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokenCount": "x-amzn-bedrock-cache-write-input-token-count",
}


@pytest.fixture(scope="module")
def server():
    with Loopback() as server:
        yield server


@pytest.fixture
def provider(server):
    server._server.book.truth.clear()
    return server


SESSION = aiobotocore.session.get_session()


@functools.cache
def client_of(root):
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client("bedrock-runtime", endpoint_url=root, config=config, **KEYS)


def called(provider, way, method, **call):
    """The response and its events, by boto3 or aiobotocore."""
    if not way.startswith("async"):
        response = getattr(client_of(provider.root), method)(**call)
        events = response.get("stream") or response.get("body")
        return response, list(events) if "stream" in way else events and events.read()

    async def run():
        client = SESSION.create_client("bedrock-runtime", endpoint_url=provider.root, **KEYS)
        async with client as opened:
            response = await getattr(opened, method)(**call)
            events = response.get("stream") or response.get("body")
            if "stream" in way:
                return response, [event async for event in events]
            return response, events and await events.read()

    return asyncio.run(run())


WAYS = pytest.mark.parametrize("way", ["whole", "stream", "async", "async stream"])


@WAYS
@pytest.mark.parametrize("model", [CLAUDE, PROFILE, "mistral.devstral-2-123b"])
@pytest.mark.parametrize(
    ("messages", "asked"),
    [(MESSAGES, {}), (CACHED, {}), (MESSAGES, {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}})],
)
def test_converse(provider, way, model, messages, asked):
    method = "converse_stream" if "stream" in way else "converse"
    directives = {"additionalModelRequestFields": {"loopback": asked}} if asked else {}
    response, events = called(provider, way, method, modelId=model, messages=messages, **directives)
    end = next(event["metadata"] for event in events if "metadata" in event) if "stream" in way else response
    (told,) = provider.truth
    assert end["usage"] == {name: value for name, value in told["usage"].items() if name != "serverToolUsage"}
    assert (told["model"], told["id"]) == (model, response["ResponseMetadata"]["RequestId"])


FAMILIES = {
    CLAUDE: OWN,
    PROFILE: OWN,
    "amazon.nova-lite-v1:0": {"messages": MESSAGES},
    "amazon.titan-text-express-v1": {"inputText": "Hello"},
    "meta.llama3-8b-instruct-v1:0": {"prompt": "Hello"},
    "mistral.mistral-7b-instruct-v0:2": {"prompt": "Hello"},
    "mistral.mistral-large-2407-v1:0": {"messages": [{"role": "user", "content": "Hello"}]},
    "cohere.command-text-v14": {"prompt": "Hello"},
    "cohere.command-r-v1:0": {"message": "Hello"},
}


def stated(chunks):
    """The usage that the bodies state, by the documentation of each family."""
    found = {}
    for body in chunks:
        usage = body.get("usage") or (body.get("message") or {}).get("usage") if body.get("type") else body.get("usage")
        found |= usage or (body.get("metadata") or {}).get("usage") or {}
        for name in ("prompt_token_count", "inputTextTokenCount"):
            found |= {name: body[name]} if body.get(name) is not None else {}
        made = body.get("generation_token_count")
        found |= {"generation_token_count": made} if made else {}
        made = body.get("totalOutputTextTokenCount") or (body.get("results") or [{}])[0].get("tokenCount")
        found |= {"tokenCount": made} if made else {}
    return found


@pytest.mark.parametrize(
    ("model", "way"), [*itertools.product(FAMILIES, ["whole", "stream"]), (CLAUDE, "async"), (CLAUDE, "async stream")]
)
def test_invoked_models(provider, way, model):
    method = "invoke_model_with_response_stream" if "stream" in way else "invoke_model"
    response, body = called(provider, way, method, modelId=model, body=json.dumps(FAMILIES[model]))
    if "stream" in way:
        chunks = [json.loads(event["chunk"]["bytes"]) for event in body]
        metrics = chunks[-1].pop("amazon-bedrock-invocationMetrics")
        counts = {name: metrics.get(name) for name in COUNTS if name in metrics}
    else:
        chunks = [json.loads(body)]
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        counts = {name: int(headers[header]) for name, header in COUNTS.items() if header in headers}
    (told,) = provider.truth
    assert stated(chunks) in ({}, told["usage"])
    assert stated(chunks) == told["usage"] or counts == told["usage"]
    assert list(told["usage"].values())[:2] == [counts["inputTokenCount"], counts["outputTokenCount"]]


@pytest.mark.parametrize(
    ("model", "body", "count"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "one two"}, 6),
        ("cohere.embed-english-v3", {"texts": ["one two", "three"], "input_type": "search_query"}, 11),
    ],
)
def test_embeddings(provider, model, body, count):
    response, answer = called(provider, "whole", "invoke_model", modelId=model, body=json.dumps(body))
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    assert int(headers[COUNTS["inputTokenCount"]]) == count
    assert COUNTS["outputTokenCount"] not in headers
    assert list(provider.truth[-1]["usage"].values()) == [json.loads(answer).get("inputTextTokenCount", count)]


@pytest.mark.parametrize("model", [CLAUDE, PROFILE])
@pytest.mark.parametrize("cache", [{}, {"cache_control": {"type": "ephemeral"}}])
@WAYS
def test_anthropics_client(provider, model, cache, way):
    keys = {"aws_region": "us-east-1", "aws_access_key": "test", "aws_secret_key": "test", "base_url": provider.root}
    message = {"role": "user", "content": [{"type": "text", "text": "one two three four", **cache}]}
    call = {"model": model, "max_tokens": 9, "messages": [message]}

    async def run():
        async with anthropic.AsyncAnthropicBedrock(**keys) as client:
            if way == "async":
                return await client.messages.create(**call)
            async with client.messages.stream(**call) as stream:
                return await stream.get_final_message()

    if way.startswith("async"):
        answer = asyncio.run(run())
    else:
        client = anthropic.AnthropicBedrock(**keys)
        if way == "whole":
            answer = client.messages.create(**call)
        else:
            with client.messages.stream(**call) as stream:
                answer = stream.get_final_message()
    (told,) = provider.truth
    assert answer.usage.model_dump(exclude_none=True) == told["usage"]
    assert (answer.id, answer.model) == (told["id"], told["model"])
    assert answer.model == "claude-3-haiku-20240307"


@pytest.mark.parametrize(("status", "kind"), [(400, "ValidationException"), (429, "ThrottlingException")])
def test_errors(provider, status, kind):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        called(provider, "whole", "invoke_model", modelId=CLAUDE, body=json.dumps({"loopback": {"status": status}}))
    assert caught.value.response["Error"] == {"Message": "as asked", "Code": kind}
    assert provider.truth == []


def test_a_stream_that_fails(provider):
    asked = {"loopback": {"exception": "modelStreamErrorException"}}
    client = client_of(provider.root)
    stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES, additionalModelRequestFields=asked)["stream"]
    with pytest.raises(botocore.exceptions.EventStreamError, match="modelStreamErrorException"):
        list(stream)
    stream.close()


def test_counts_may_differ_from_the_body(provider):
    body = {**OWN, "loopback": {"usage": {"input_tokens": 1, "output_tokens": 2}, "metrics": {"inputTokenCount": 9}}}
    response, answer = called(provider, "whole", "invoke_model", modelId=CLAUDE, body=json.dumps(body))
    assert json.loads(answer)["usage"] == provider.truth[-1]["usage"] == {"input_tokens": 1, "output_tokens": 2}
    assert response["ResponseMetadata"]["HTTPHeaders"][COUNTS["inputTokenCount"]] == "9"
