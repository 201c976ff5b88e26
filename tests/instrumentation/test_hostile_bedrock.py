"""Whatever Bedrock answers, the application sees what bare botocore shows it, and one honest row tells of it."""

import asyncio
import base64
import binascii
import copy
import gc
import io
import json
import struct
from contextlib import AsyncExitStack
from importlib.metadata import version

import aiobotocore.session
import aiohttp
import boto3
import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiohttp.base_protocol import BaseProtocol
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from tests.instrumentation.hostile import COUNT, RUBBISH, Trial, as_object, many, name
from urllib3.response import HTTPResponse

MODEL = "anthropic.claude-tester-v1:0"
CONVERSE = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "How many?"}]}]}
INVOKE = {"modelId": MODEL, "body": b"{}"}
USAGE = {"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}
CLAUDE = {"input_tokens": 9, "output_tokens": 4}
STREAM = "application/vnd.amazon.eventstream"


# The ways an application asks, and how it reads the answer.


def conversed(client, see):
    see(client.converse(**CONVERSE))


def read(client, see):
    see(client.invoke_model(**INVOKE)["body"].read())


def read_in_pieces(client, see):
    body = client.invoke_model(**INVOKE)["body"]
    while data := body.read(5):
        see(data)
    see(body.tell())


def read_chunks(client, see):
    for data in client.invoke_model(**INVOKE)["body"].iter_chunks(7):
        see(data)


def read_lines(client, see):
    for line in client.invoke_model(**INVOKE)["body"].iter_lines(8):
        see(line)


def iterated(client, see):
    for data in client.invoke_model(**INVOKE)["body"]:
        see(data)


def all_lines(client, see):
    see(client.invoke_model(**INVOKE)["body"].readlines())


def read_into(client, see):
    body, buffer = client.invoke_model(**INVOKE)["body"], bytearray(6)
    while size := body.readinto(buffer):
        see(bytes(buffer[:size]))


def loaded(client, see):
    see(json.load(client.invoke_model(**INVOKE)["body"]))


def entered(client, see):
    with client.invoke_model(**INVOKE)["body"] as raw:
        see(raw.read())


def read_once(client, see):
    body = client.invoke_model(**INVOKE)["body"]
    see(body.read(3))
    body.close()


def unread(client, see):
    see(type(client.invoke_model(**INVOKE)["body"]))


def conversed_stream(client, see):
    for each in client.converse_stream(**CONVERSE)["stream"]:
        see(each)


def closed_stream(client, see):
    stream = client.converse_stream(**CONVERSE)["stream"]
    for each in stream:
        see(each)
        break
    stream.close()


def abandoned_stream(client, see):
    for each in client.converse_stream(**CONVERSE)["stream"]:
        see(each)
        break


def invoked_stream(client, see):
    for each in client.invoke_model_with_response_stream(**INVOKE)["body"]:
        see(each)


def closed_invoked_stream(client, see):
    with client.invoke_model_with_response_stream(**INVOKE)["body"] as stream:
        for each in stream:
            see(each)
            break


async def async_conversed(client, see):
    see(await client.converse(**CONVERSE))


async def async_read(client, see):
    see(await (await client.invoke_model(**INVOKE))["body"].read())


async def async_read_chunks(client, see):
    async for data in (await client.invoke_model(**INVOKE))["body"].iter_chunks(7):
        see(data)


async def async_read_lines(client, see):
    async for line in (await client.invoke_model(**INVOKE))["body"].iter_lines(8):
        see(line)


async def async_entered(client, see):
    async with (await client.invoke_model(**INVOKE))["body"] as body:
        see(await body.read(4))


async def async_conversed_stream(client, see):
    async for each in (await client.converse_stream(**CONVERSE))["stream"]:
        see(each)


async def async_closed_stream(client, see):
    stream = (await client.converse_stream(**CONVERSE))["stream"]
    async for each in stream:
        see(each)
        break
    stream.close()


async def async_invoked_stream(client, see):
    async for each in (await client.invoke_model_with_response_stream(**INVOKE))["body"]:
        see(each)


CONVERSED = (conversed, async_conversed)
READ_INTO = (read_into,) if Version(version("botocore")) >= Version("1.36") else ()  # older bodies have no `readinto`
WHOLE_BODY = (
    read, read_in_pieces, read_chunks, read_lines, iterated, all_lines, *READ_INTO, loaded, entered,
    async_read, async_read_chunks, async_read_lines,
)  # fmt: skip
BODIES = (*WHOLE_BODY, read_once, unread, async_entered)
CONVERSE_STREAMS = (conversed_stream, async_conversed_stream)
INVOKE_STREAMS = (invoked_stream, async_invoked_stream)
STREAMS = (
    *CONVERSE_STREAMS, closed_stream, abandoned_stream, async_closed_stream, *INVOKE_STREAMS, closed_invoked_stream,
)  # fmt: skip


class Answer:
    """What Bedrock answers, in pieces of a size."""

    def __init__(self, body, *, status=200, kind="application/json", size=10**9, headers=None, length=None):
        self.body = body
        self.pieces = [body[at : at + size] for at in range(0, len(body), size)]
        self.status = status
        length = len(body) if length is None else length
        self.headers = {"content-type": kind, "content-length": str(length), **(headers or {})}


class Pieces(io.RawIOBase):
    """A connection from which the pieces come as they are."""

    def __init__(self, pieces):
        self.left = [piece for piece in pieces if piece]

    def readable(self):
        return True

    def readinto(self, into):
        if not self.left:
            return 0
        piece = self.left[0][: len(into)]
        self.left[0] = self.left[0][len(piece) :]
        if not self.left[0]:
            del self.left[0]
        into[: len(piece)] = piece
        return len(piece)


class AsyncRaw:
    """As much of an aiohttp response as aiobotocore uses."""

    url = "http://provider.test"

    def __init__(self, pieces, headers):
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        loop = asyncio.get_running_loop()
        self.content = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
        for piece in pieces:
            self.content.feed_data(piece)
            self.content.feed_eof() if piece is pieces[-1] else None
        if not pieces:
            self.content.feed_eof()

    async def read(self):
        return await self.content.read()

    def close(self):
        pass


class Application:
    """The clients of an application. Their provider answers what it is told to."""

    def __init__(self):
        self.told = [None]
        self.options = {
            "region_name": "us-east-1",
            "aws_access_key_id": "unused",
            "aws_secret_access_key": "unused",
            "endpoint_url": "http://provider.test",
            "config": Config(retries={"total_max_attempts": 1}),
        }
        self.client = boto3.Session().client("bedrock-runtime", **self.options)
        self.client.meta.events.register("before-send.bedrock-runtime", self._answered)
        self.stack = AsyncExitStack()
        asyncio.run(self._connect())

    async def _connect(self):
        made = aiobotocore.session.get_session().create_client("bedrock-runtime", **self.options)
        self.async_client = await self.stack.enter_async_context(made)
        self.async_client.meta.events.register("before-send.bedrock-runtime", self._answered_async)

    def close(self):
        self.client.close()
        asyncio.run(self.stack.aclose())

    def _answered(self, request, **_):
        told = self.told[0]
        raw = HTTPResponse(Pieces(told.pieces), headers=told.headers, status=told.status, preload_content=False)
        return AWSResponse(request.url, told.status, told.headers, raw)

    async def _answered_async(self, request, **_):
        told = self.told[0]
        return AioAWSResponse(request.url, told.status, told.headers, AsyncRaw(told.pieces, told.headers))

    def fresh(self):
        return copy.copy(self)

    def outcome(self, way, answer):
        values, self.told[0] = [], answer
        try:
            if asyncio.iscoroutinefunction(way):
                asyncio.run(way(self.async_client, values.append))
            else:
                way(self.client, values.append)
        except Exception as error:
            return values, error
        finally:
            gc.collect()  # ends what was dropped
        return values, None


@pytest.fixture(scope="module")
def clients():
    made = Application(), Application()
    gc.collect()
    gc.freeze()  # what is here already need not be looked at again and again
    yield made
    gc.unfreeze()
    for each in made:
        each.close()


@pytest.fixture
def trial(clients, recording, ledger):
    return Trial(ledger, clients)


# What it answers.


def as_body(value, **more):
    return Answer(json.dumps(value).encode(), **more)


def converse_with(**changes):
    message = {"role": "assistant", "content": [{"text": "nine é"}]}
    body = {"output": {"message": message}, "stopReason": "end_turn", "usage": USAGE, "metrics": {"latencyMs": 1}}
    return {**body, **changes}


def claude_with(**changes):
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-tester", "content": []}
    return {**body, "stop_reason": "end_turn", "usage": CLAUDE, **changes}


def frame(payload, headers):
    head = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for key, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + head + payload
    return message + struct.pack(">I", binascii.crc32(message))


def event(kind, value):
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return frame(payload, {":message-type": "event", ":event-type": kind, ":content-type": "application/json"})


def exception(kind="throttlingException", payload=b'{"message":"slow down"}'):
    return frame(payload, {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"})


def error_frame():
    return frame(b"", {":message-type": "error", ":error-code": "InternalError", ":error-message": "no"})


def chunk(value):
    return event("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode()})


CONVERSATION = [
    event("messageStart", {"role": "assistant"}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "nine é"}}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("messageStop", {"stopReason": "end_turn"}),
    event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
]
CHUNKS = [
    chunk({"type": "message_start", "message": claude_with(usage={**CLAUDE, "output_tokens": 1}, stop_reason=None)}),
    chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "nine"}}),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
    chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 4}}),
]


def sane_for(way):
    return CHUNKS if "invoked" in name(way) else CONVERSATION


CONVERSE_USAGES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "inputTokens": COUNT,
            "outputTokens": COUNT,
            "totalTokens": COUNT,
            "cacheReadInputTokens": COUNT,
            "cacheWriteInputTokens": COUNT,
            "cacheDetails": RUBBISH | st.just([{"ttl": "1h", "inputTokens": 3}]),
        },
    ),
    st.builds(lambda some: {**as_object(some), **USAGE}, RUBBISH),
    RUBBISH,
)
NAMES = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "inputTokens", "prompt_tokens", "completion_tokens",
    "inputTokenCount", "outputTokenCount", "cache_creation", "server_tool_use", "service_tier",
)  # fmt: skip
INVOKE_USAGES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, COUNT | RUBBISH)) | RUBBISH
MODEL_BODIES = st.one_of(
    st.builds(lambda usage: claude_with(usage=usage), INVOKE_USAGES),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("inputTextTokenCount", "prompt_token_count", "generation_token_count"), COUNT | RUBBISH),
            "results": RUBBISH | st.lists(st.fixed_dictionaries({}, optional={"tokenCount": COUNT})),
            **dict.fromkeys(("id", "model", "stop_reason", "stopReason", "message", "metadata", "delta"), RUBBISH),
            "amazon-bedrock-invocationMetrics": INVOKE_USAGES,
            "usage": INVOKE_USAGES,
        },
    ),
    RUBBISH,
)
BYTES = st.one_of(
    st.binary(max_size=30),
    MODEL_BODIES.map(json.dumps).map(str.encode),
    st.sampled_from([b"[" * 3000, b'{"a":' * 3000, b"\xef\xbb\xbf{}", b"null", b"NaN", b'"', b"", b"\n\r\n", b"[{}]"]),
)
EVENTS = st.one_of(
    st.sampled_from(CONVERSATION),
    st.builds(lambda usage: event("metadata", {"usage": usage}), CONVERSE_USAGES),
    st.builds(event, st.sampled_from(["metadata", "messageStop", "messageStart", "unheardOf", ""]), RUBBISH | BYTES),
    st.builds(exception, st.sampled_from(["modelStreamErrorException", "unheardOf"]), BYTES),
    st.just(error_frame()),
    st.builds(frame, BYTES, st.just({})),
)
INVOKE_EVENTS = st.one_of(
    st.sampled_from(CHUNKS),
    st.builds(chunk, MODEL_BODIES),
    st.builds(lambda data: event("chunk", {"bytes": base64.b64encode(data).decode()}), BYTES),
    st.builds(lambda value: event("chunk", {"bytes": value}), RUBBISH | st.sampled_from(["é", "a", "====", "e30"])),
    st.builds(lambda value: event("chunk", value), RUBBISH | BYTES),
    st.builds(exception, st.sampled_from(["modelStreamErrorException", "unheardOf"]), BYTES),
    st.just(error_frame()),
    st.builds(frame, BYTES, st.just({":event-type": "chunk"})),
)


def test_any_usage_of_a_whole_answer(trial):
    @many(40)
    @given(usage=CONVERSE_USAGES, reason=RUBBISH, way=st.sampled_from(CONVERSED))
    def check(usage, reason, way):
        trial.row(way, as_body(converse_with(usage=usage, stopReason=reason)))

    check()


def test_any_body_status_and_content_type(trial):
    @many(40)
    @given(
        body=BYTES,
        status=st.sampled_from([200, 200, 204, 301, 400, 403, 404, 429, 500, 503]),
        kind=st.sampled_from(["application/json", STREAM, "text/html", ""]),
        way=st.sampled_from((*CONVERSED, *BODIES, *STREAMS)),
    )
    def check(body, status, kind, way):
        row, _, _ = trial.row(way, Answer(body, status=status, kind=kind))
        assert row["status"] == "error" or status < 300

    check()


def test_any_body_of_a_model_however_it_is_read(trial):
    @many(55)
    @given(
        body=BYTES,
        size=st.sampled_from([1, 3, 50, 10_000]),
        missing=st.sampled_from([0, 0, 0, 3]),
        counts=st.dictionaries(
            st.sampled_from(["input-token-count", "output-token-count"]),
            st.sampled_from(["9", "-1", "x", "", "٣", "²"]),
        ),
        way=st.sampled_from(BODIES),
    )
    def check(body, size, missing, counts, way):
        headers = {f"x-amzn-bedrock-{key}": value for key, value in counts.items()}
        trial.row(way, Answer(body, size=size, headers=headers, length=len(body) + missing))

    check()


def test_any_events_in_any_order(trial):
    @many(55)
    @given(
        drawn=st.sampled_from(STREAMS).flatmap(
            lambda way: st.tuples(
                st.just(way), st.lists(INVOKE_EVENTS if "invoked" in name(way) else EVENTS, max_size=6)
            )
        ),
        begun=st.booleans(),
        size=st.sampled_from([1, 5, 100, 10_000]),
    )
    def check(drawn, begun, size):
        way, events = drawn
        data = b"".join([*(sane_for(way)[:1] if begun else ()), *events])
        trial.row(way, Answer(data, kind=STREAM, size=size))

    check()


def test_frames_cut_anywhere_or_with_any_byte_changed(trial):
    @many(40)
    @given(
        way=st.sampled_from(STREAMS),
        place=st.floats(0, 1),
        change=st.one_of(st.none(), st.integers(1, 255)),
        size=st.sampled_from([1, 7, 10_000]),
    )
    def check(way, place, change, size):
        data = bytearray(b"".join(sane_for(way)))
        at = int(place * (len(data) - 1))
        if change is None:
            del data[at:]
        else:
            data[at] ^= change
        trial.row(way, Answer(bytes(data), kind=STREAM, size=size))

    check()


# Exactly.


@pytest.mark.parametrize("way", WHOLE_BODY, ids=name)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CLAUDE, ("reported", 9, 4)),
        ({}, ("missing", None, None)),
        ({"input_tokens": "9", "output_tokens": 4}, ("invalid", None, 4)),
        ({"input_tokens": 9, "output_tokens": 10**30}, ("invalid", 9, None)),
        ({"input_tokens": 9, "output_tokens": -4}, ("invalid", 9, None)),
    ],
    ids=str,
)
def test_a_count_that_is_garbage_is_never_stored(way, usage, expected, trial):
    row, _, _ = trial.row(way, as_body(claude_with(usage=usage)))
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == expected


@pytest.mark.parametrize("way", (*CONVERSE_STREAMS, *INVOKE_STREAMS), ids=name)
def test_an_exception_in_the_middle_of_a_stream_is_an_error_with_what_was_told(way, trial):
    row, _, error = trial.row(way, Answer(b"".join([*sane_for(way)[:2], exception()]), kind=STREAM))
    assert type(error).__name__ == "EventStreamError"
    assert (row["status"], row["error_type"]) == ("error", "botocore.exceptions.EventStreamError")
    told = ("partial", 9, None) if way in INVOKE_STREAMS else ("missing", None, None)
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == told


@pytest.mark.parametrize("way", (*CONVERSE_STREAMS, *INVOKE_STREAMS), ids=name)
def test_a_sane_stream_is_told(way, trial):
    row, _, _ = trial.row(way, Answer(b"".join(sane_for(way)), kind=STREAM))
    assert (row["status"], row["usage_status"], row["input_tokens"], row["output_tokens"]) == (
        "success",
        "reported",
        9,
        4,
    )
