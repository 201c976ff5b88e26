"""How calls end at their edges: the exact rows, and objects that stay what the SDK made them."""

import asyncio
import base64
import copy
import gc
import json
import pickle
import warnings
from functools import partial

import anthropic
import pytest
from anthropic.types import Message
from google import genai
from google.genai import types
from tests.conftest import httpx2
from tests.instrumentation import test_hostile_anthropic as claude
from tests.instrumentation import test_hostile_bedrock as bedrock
from tests.instrumentation import test_hostile_google as gemini
from tests.instrumentation.hostile import Answer, as_events, as_json

TOLD = ("status", "usage_status", "input_tokens", "output_tokens")
EARLY = {"input_tokens": 9, "output_tokens": 1}
CUT = claude.SANE[:3]


class Hanging(httpx2.AsyncByteStream):
    """A body that comes to a halt."""

    def __init__(self, pieces, reached):
        self.pieces = pieces
        self.reached = reached

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        self.reached.set()
        await asyncio.Event().wait()


def anthropic_client(answer, **more):
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(http_client=http, base_url="http://provider.test", api_key="unused", **more)


def async_anthropic_client(answer):
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return anthropic.AsyncAnthropic(http_client=http, base_url="http://provider.test", api_key="unused", max_retries=0)


def google_client(answer):
    transport = httpx2.MockTransport(answer)
    options = types.HttpOptions(
        base_url="http://provider.test",
        httpx_client=httpx2.Client(transport=transport),
        httpx_async_client=httpx2.AsyncClient(transport=transport),
    )
    return genai.Client(api_key="unused", http_options=options)


def stream_of(client):
    return client.messages.create(**claude.REQUEST, stream=True)


# Anthropic.


def closed_stream(client):
    stream = stream_of(client)
    next(stream)
    stream.close()


def broken_off_stream(client):
    for _ in stream_of(client):
        break
    gc.collect()


def left_helper(client):
    with client.messages.stream(**claude.REQUEST) as stream:
        next(iter(stream))


def left_text(client):
    with client.messages.stream(**claude.REQUEST) as stream:
        next(iter(stream.text_stream))


@pytest.mark.parametrize("way", [closed_stream, broken_off_stream, left_helper, left_text])
def test_a_claude_stream_left_early_knows_its_input_only(way, recording, ledger):
    way(anthropic_client(as_events(*claude.SANE)))
    assert ledger(*TOLD) == [("incomplete", "partial", 9, None)]


def test_a_claude_stream_nobody_reads_is_a_row(recording, ledger):
    stream_of(anthropic_client(as_events(*claude.SANE)))
    gc.collect()
    assert ledger(*TOLD) == [("incomplete", "missing", None, None)]


def test_an_async_claude_stream_left_early_knows_its_input_only(recording, ledger):
    async def leave():
        async with await stream_of(async_anthropic_client(as_events(*claude.SANE))) as stream:
            async for _ in stream:
                break

    asyncio.run(leave())
    assert ledger(*TOLD) == [("incomplete", "partial", 9, None)]


def test_an_error_event_keeps_the_input(recording, ledger):
    client = anthropic_client(as_events(*CUT, *claude.sent(claude.FAILED)))
    with pytest.raises(anthropic.APIStatusError):
        list(stream_of(client))
    ((*told, kind),) = ledger(*TOLD, "error_type")
    assert told == ["error", "partial", 9, None]
    assert kind.startswith("anthropic.")


async def cancelled(start, reached):
    task = asyncio.ensure_future(start())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_task_cancelled_before_the_response_is_a_cancelled_call(recording, ledger):
    async def main():
        reached = asyncio.Event()

        async def answer(_):
            reached.set()
            await asyncio.Event().wait()

        client = async_anthropic_client(answer)
        await cancelled(partial(client.messages.create, **claude.REQUEST), reached)

    asyncio.run(main())
    assert ledger(*TOLD) == [("cancelled", "missing", None, None)]


def test_a_task_cancelled_in_the_middle_of_a_response_is_a_cancelled_call(recording, ledger):
    async def main():
        reached = asyncio.Event()

        def answer(_):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Hanging(CUT, reached))

        async def read():
            async for _ in await stream_of(async_anthropic_client(answer)):
                pass

        await cancelled(read, reached)

    asyncio.run(main())
    assert ledger(*TOLD) == [("cancelled", "partial", 9, None)]


def test_what_the_sdk_tries_again_is_one_call(recording, ledger, monkeypatch):
    monkeypatch.setattr("anthropic._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0)
    answers = iter([Answer(b"{}", status=500), Answer(b"{}", status=500), as_json(claude.message_with())])

    def answer(request):
        return next(answers)(request)

    anthropic_client(answer, max_retries=2).messages.create(**claude.REQUEST)
    assert ledger(*TOLD) == [("success", "reported", 9, 4)]


STREAMS = {
    "usage twice": ([claude.ended({"output_tokens": 2}), claude.ended({"output_tokens": 4})], ("reported", 9, 4)),
    "input that grows": ([claude.ended({"input_tokens": 90, "output_tokens": 4})], ("reported", 90, 4)),
    "empty usage": ([claude.ended({})], ("partial", 9, None)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_last_usage_of_a_claude_stream_wins(name, recording, ledger):
    ends, expected = STREAMS[name]
    events = claude.sent(claude.started(EARLY), *claude.BLOCK, *ends, claude.STOP)
    list(stream_of(anthropic_client(as_events(*events))))
    assert ledger(*TOLD) == [("success", *expected)]


def test_an_empty_usage_is_missing(recording, ledger):
    anthropic_client(as_json(claude.message_with(usage={}))).messages.create(**claude.REQUEST)
    assert ledger(*TOLD) == [("success", "missing", None, None)]


def test_what_a_compaction_used_is_added(recording, ledger):
    hour = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
    usage = {
        **claude.USAGE,
        "cache_creation_input_tokens": 3,
        "cache_creation": hour,
        "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 50, "cache_creation": hour},
            {"type": "message", "input_tokens": 9, "output_tokens": 4, "cache_creation": hour},
        ],
    }
    anthropic_client(as_json(claude.message_with(usage=usage))).beta.messages.create(**claude.REQUEST)
    counts = ledger(*TOLD, "cache_write_tokens", "cache_write_long_tokens")
    assert counts == [("success", "invalid", 112, 54, 3, 4)]


def test_a_stream_of_claude_stays_what_it_is(recording, ledger):
    client = anthropic_client(as_events(*claude.SANE))
    stream = stream_of(client)
    assert type(stream) is anthropic.Stream
    assert stream.response.status_code == 200
    assert iter(copy.copy(stream)) is not None
    with stream as entered:
        assert entered is stream
        assert next(stream).type == "message_start"
        assert len(list(stream)) == len(claude.SANE) - 1
    assert stream.response.is_closed
    assert ledger(*TOLD) == [("success", "reported", 9, 4)]


def test_a_message_can_be_pickled_and_copied(recording):
    message = anthropic_client(as_json(claude.message_with())).messages.create(**claude.REQUEST)
    assert type(message) is Message
    assert pickle.loads(pickle.dumps(message)) == message == copy.deepcopy(message)


def test_a_manager_that_is_never_entered_is_no_call_and_no_warning(recording, ledger):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        client = anthropic_client(as_events(*claude.SANE))
        client.messages.stream(**claude.REQUEST)
        with client.messages.stream(**claude.REQUEST) as stream:
            stream.get_final_message()
        gc.collect()
    assert heard == []
    assert ledger(*TOLD) == [("success", "reported", 9, 4)]


def test_a_manager_that_is_entered_twice_is_two_calls(recording, ledger):
    manager = anthropic_client(as_events(*claude.SANE)).messages.stream(**claude.REQUEST)
    for _ in range(2):
        with manager as stream:
            stream.get_final_message()
    assert ledger(*TOLD) == [("success", "reported", 9, 4)] * 2


# Gemini: every chunk says what was used so far.

GEMINI = pytest.mark.needs("types.HttpOptions(httpx_client)", of="google-genai")  # a provider in memory

SOFAR = {"promptTokenCount": 9, "candidatesTokenCount": 1}
BEGUN = gemini.chunk_with(candidates=[{"content": {"parts": [{"text": "nine"}]}}], usageMetadata=SOFAR)


def closed_gemini(client):
    stream = client.models.generate_content_stream(**gemini.REQUEST)
    next(stream)
    stream.close()


def broken_off_gemini(client):
    for _ in client.models.generate_content_stream(**gemini.REQUEST):
        break
    gc.collect()


def closed_aio_gemini(client):
    async def close():
        stream = await client.aio.models.generate_content_stream(**gemini.REQUEST)
        await anext(stream)
        await stream.aclose()

    asyncio.run(close())


def broken_off_aio_gemini(client):
    async def leave():
        async for _ in await client.aio.models.generate_content_stream(**gemini.REQUEST):
            break

    asyncio.run(leave())
    gc.collect()


@GEMINI
@pytest.mark.parametrize("way", [closed_gemini, broken_off_gemini, closed_aio_gemini, broken_off_aio_gemini])
def test_a_gemini_stream_left_early_is_incomplete(way, recording, ledger):
    way(google_client(as_events(*gemini.sent(BEGUN, gemini.chunk_with()))))
    ((status, _, given, made),) = ledger(*TOLD)
    assert status == "incomplete"
    assert (given, made) == (9, 1)


@GEMINI
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_gemini_stream_that_breaks_off_is_an_error_with_what_was_told(asynchronous, recording, ledger):
    client = google_client(as_events(*gemini.sent(BEGUN), error=httpx2.ReadError("the peer has gone")))

    async def read():
        async for _ in await client.aio.models.generate_content_stream(**gemini.REQUEST):
            pass

    with pytest.raises(httpx2.ReadError):
        asyncio.run(read()) if asynchronous else list(client.models.generate_content_stream(**gemini.REQUEST))
    ((status, _, given, made, kind),) = ledger(*TOLD, "error_type")
    assert (status, given, made) == ("error", 9, 1)
    assert kind.endswith("ReadError")


@GEMINI
def test_a_gemini_stream_whose_task_is_cancelled_is_a_cancelled_call(recording, ledger):
    async def main():
        reached = asyncio.Event()

        def answer(_):
            body = Hanging(gemini.sent(BEGUN), reached)
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

        async def read():
            async for _ in await google_client(answer).aio.models.generate_content_stream(**gemini.REQUEST):
                pass

        await cancelled(read, reached)

    asyncio.run(main())
    ((status, _, given, made),) = ledger(*TOLD)
    assert (status, given, made) == ("cancelled", 9, 1)


# Bedrock.


@pytest.fixture(scope="module")
def amazon():
    made = bedrock.Application()
    yield made
    made.close()


BODY = bedrock.as_body(bedrock.claude_with())
FRAMES = bedrock.Answer(b"".join(bedrock.CONVERSATION), kind=bedrock.STREAM)
BROKEN = bedrock.Answer(b"".join([*bedrock.CONVERSATION[:2], bedrock.exception()]), kind=bedrock.STREAM)
ENDS = {
    "converse stream closed": (bedrock.closed_stream, FRAMES, ("incomplete", "missing", None, None)),
    "converse stream abandoned": (bedrock.abandoned_stream, FRAMES, ("incomplete", "missing", None, None)),
    "converse stream closed, async": (bedrock.async_closed_stream, FRAMES, ("incomplete", "missing", None, None)),
    "exception frame": (bedrock.conversed_stream, BROKEN, ("error", "missing", None, None)),
    "body never read": (bedrock.unread, BODY, ("incomplete", "missing", None, None)),
    "body read in pieces": (bedrock.read_in_pieces, BODY, ("success", "reported", 9, 4)),
    "body closed early": (bedrock.read_once, BODY, ("incomplete", "missing", None, None)),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_is_left_of_bedrock_is_told(name, amazon, recording, ledger):
    way, answer, expected = ENDS[name]
    amazon.outcome(way, answer)
    assert ledger(*TOLD) == [expected]


def test_the_headers_tell_of_a_body_nobody_has_read(amazon, recording, ledger):
    counts = {"x-amzn-bedrock-input-token-count": "9", "x-amzn-bedrock-output-token-count": "4"}
    amazon.outcome(bedrock.unread, bedrock.as_body(bedrock.claude_with(), headers=counts))
    ((_, _, given, made),) = ledger(*TOLD)
    assert (given, made) == (9, 4)


@pytest.mark.parametrize("payload", [b"no json", b"", "é".encode()])
def test_a_chunk_that_is_no_json_is_passed_on(payload, amazon, recording, ledger):
    odd = bedrock.event("chunk", {"bytes": base64.b64encode(payload).decode()})
    answer = bedrock.Answer(b"".join([*bedrock.CHUNKS[:1], odd, *bedrock.CHUNKS[1:]]), kind=bedrock.STREAM)
    values, error = amazon.outcome(bedrock.invoked_stream, answer)
    assert error is None
    assert values[1] == {"chunk": {"bytes": payload}}
    assert json.loads(values[2]["chunk"]["bytes"])["type"] == "content_block_delta"
    assert ledger(*TOLD) == [("success", "reported", 9, 4)]
