"""Whatever Anthropic answers, the application sees what the bare SDK shows it, and one honest row tells of it."""

import asyncio
import copy
import gc
import inspect
import json
from importlib.metadata import version

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from tests.conftest import httpx2
from tests.instrumentation.hostile import (
    ABSENT,
    COUNT,
    RUBBISH,
    Answer,
    Trial,
    as_events,
    as_json,
    as_object,
    event,
    many,
    name,
)

CYCLES = Version(version("anthropic")) < Version("1")  # a stream that is dropped ends with the next collection only
REQUEST = {"model": "claude-tester", "max_tokens": 64, "messages": [{"role": "user", "content": "How many?"}]}
USAGE = {"input_tokens": 9, "output_tokens": 4}


# The ways an application asks, and how it reads the answer.


def whole(messages, see):
    see(messages.create(**REQUEST))


def raw(messages, see):
    answer = messages.with_raw_response.create(**REQUEST)
    see(answer.text())
    see(answer.parse())


def streaming_response(messages, see):
    with messages.with_streaming_response.create(**REQUEST) as answer:
        see(answer.parse())


def streaming_response_lines(messages, see):
    with messages.with_streaming_response.create(**REQUEST) as answer:
        for line in answer.iter_lines():
            see(line)


def streamed(messages, see):
    for each in messages.create(**REQUEST, stream=True):
        see(each)


def raw_streamed(messages, see):
    for each in messages.with_raw_response.create(**REQUEST, stream=True).parse():
        see(each)


def streamed_lines(messages, see):
    with messages.with_streaming_response.create(**REQUEST, stream=True) as answer:
        for line in answer.iter_lines():
            see(line)


def streamed_bytes(messages, see):
    with messages.with_streaming_response.create(**REQUEST, stream=True) as answer:
        for data in answer.iter_bytes(5):
            see(data)


def left(messages, see):
    with messages.create(**REQUEST, stream=True) as stream:
        for each in stream:
            see(each)
            break
    see(stream.response.is_closed)


def abandoned(messages, see):
    see(next(iter(messages.create(**REQUEST, stream=True)), None))


def unread(messages, see):
    see(type(messages.create(**REQUEST, stream=True)))


def helped(messages, see):
    with messages.stream(**REQUEST) as stream:
        for each in stream:
            see(each)
        see(stream.get_final_message())


def helped_text(messages, see):
    with messages.stream(**REQUEST) as stream:
        for each in stream.text_stream:
            see(each)
        see(stream.current_message_snapshot)


def helped_message(messages, see):
    with messages.stream(**REQUEST) as stream:
        see(stream.get_final_message())


def helped_left(messages, see):
    with messages.stream(**REQUEST) as stream:
        see(next(iter(stream), None))


async def async_whole(messages, see):
    see(await messages.create(**REQUEST))


async def parsed(answer):
    found = answer.parse()
    return await found if inspect.isawaitable(found) else found  # of raw responses it is from 1.0 on


async def async_raw(messages, see):
    answer = await messages.with_raw_response.create(**REQUEST)
    see(await answer.text())
    see(await parsed(answer))


async def async_streaming_response(messages, see):
    async with messages.with_streaming_response.create(**REQUEST) as answer:
        see(await answer.parse())


async def async_streamed(messages, see):
    async for each in await messages.create(**REQUEST, stream=True):
        see(each)


async def async_raw_streamed(messages, see):
    async for each in await parsed(await messages.with_raw_response.create(**REQUEST, stream=True)):
        see(each)


async def async_streamed_lines(messages, see):
    async with messages.with_streaming_response.create(**REQUEST, stream=True) as answer:
        async for line in answer.iter_lines():
            see(line)


async def async_left(messages, see):
    async with await messages.create(**REQUEST, stream=True) as stream:
        async for each in stream:
            see(each)
            break
    see(stream.response.is_closed)


async def async_helped(messages, see):
    async with messages.stream(**REQUEST) as stream:
        async for each in stream:
            see(each)
        see(await stream.get_final_message())


async def async_helped_text(messages, see):
    async with messages.stream(**REQUEST) as stream:
        async for each in stream.text_stream:
            see(each)
        see(stream.current_message_snapshot)


PARSED_WHOLE = (whole, async_whole)
RAW_WHOLE = (raw, streaming_response, streaming_response_lines, async_raw, async_streaming_response)
WHOLE = (*PARSED_WHOLE, *RAW_WHOLE)
RAW_STREAMED = (streamed_lines, streamed_bytes, async_streamed_lines)
HELPED = (helped, helped_text, helped_message, async_helped, async_helped_text)
READ = (streamed, raw_streamed, async_streamed, async_raw_streamed, *RAW_STREAMED)
LEFT = (left, abandoned, unread, helped_left, async_left)
STREAMED = (*READ, *HELPED, *LEFT)
SURFACES = ("messages", "beta")


class Application:
    """The clients of an application. Their provider answers what it is told to."""

    def __init__(self):
        self.told = [None]
        transport = httpx2.MockTransport(self._answered)
        more = {"base_url": "http://provider.test", "api_key": "unused", "max_retries": 0}
        self.client = anthropic.Anthropic(http_client=httpx2.Client(transport=transport), **more)
        self.async_client = anthropic.AsyncAnthropic(http_client=httpx2.AsyncClient(transport=transport), **more)

    def _answered(self, request):
        return self.told[0](request)

    def close(self):
        self.client.close()
        asyncio.run(self.async_client.close())

    def fresh(self):
        made = copy.copy(self)
        made.client, made.async_client = self.client.copy(), self.async_client.copy()
        return made

    def outcome(self, surface, way, answer):
        values, self.told[0] = [], answer
        asynchronous = asyncio.iscoroutinefunction(way)
        client = self.async_client if asynchronous else self.client
        messages = client.messages if surface == "messages" else client.beta.messages
        try:
            result = way(messages, values.append)
            if asynchronous:
                asyncio.run(result)
        except Exception as error:
            return values, error
        finally:
            if CYCLES:
                gc.collect()
        return values, None


@pytest.fixture(scope="module")
def clients():
    made = Application(), Application()
    if CYCLES:
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


def message_with(**changes):
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-tester",
        "content": [{"type": "text", "text": "nine"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }
    return {key: value for key, value in {**body, **changes}.items() if value is not ABSENT}


def started(usage, **changes):
    message = message_with(**{"usage": usage, "content": [], "stop_reason": None, **changes})
    return {"type": "message_start", "message": message}


def ended(usage, reason="end_turn"):
    body = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    return {key: value for key, value in body.items() if value is not ABSENT}


def sent(*events):
    return [event(each, as_object(each).get("type", "message_delta")) for each in events]


BLOCK = (
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "nine é"}},
    {"type": "content_block_stop", "index": 0},
)
STOP = {"type": "message_stop"}
FAILED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def stream_with(early, late):
    return sent(started(early), *BLOCK, ended(late), STOP)


SANE = stream_with({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 4})


USAGES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": COUNT,
            "output_tokens": COUNT,
            "cache_read_input_tokens": COUNT,
            "cache_creation_input_tokens": COUNT,
            "cache_creation": st.fixed_dictionaries({}, optional={"ephemeral_1h_input_tokens": COUNT}) | RUBBISH,
            "server_tool_use": st.fixed_dictionaries({}, optional={"web_search_requests": COUNT}) | RUBBISH,
            "service_tier": RUBBISH,
            "iterations": RUBBISH
            | st.lists(st.fixed_dictionaries({"type": st.just("compaction")}, optional={"input_tokens": COUNT})),
        },
    ),
    st.builds(lambda some, more: {**as_object(some), **USAGE, **more}, RUBBISH, st.dictionaries(st.text(), RUBBISH)),
    RUBBISH,
)
WORDS = RUBBISH | st.sampled_from(["msg_1", "", " ", "\0", "é" * 300, "x" * 100_000, "'; --"])
EVENTS = st.one_of(
    st.builds(started, USAGES),
    st.builds(ended, USAGES | st.just(ABSENT)),
    st.builds(ended, USAGES, WORDS),
    st.sampled_from([*BLOCK, STOP, FAILED, {"type": "ping"}, {"type": "error"}, {"type": "error", "error": "no"}]),
    st.builds(lambda message: {"type": "message_start", "message": message}, RUBBISH),
    st.builds(lambda delta: {"type": "message_delta", "delta": delta, "usage": USAGE}, RUBBISH),
    st.builds(lambda block: {**BLOCK[0], "content_block": block}, RUBBISH),
    RUBBISH,
)


def broken_count(usage, field):
    value = usage.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value is not None and not (type(value) is int and 0 <= value <= 10**9)


def assert_no_garbage(row, usage):
    """Of what was sent as bytes: a count that is none is not stored, and the row says so."""
    if not isinstance(usage, dict):
        assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("missing", None, None)
    elif broken_count(usage, "input_tokens") or broken_count(usage, "output_tokens"):
        assert row["usage_status"] == "invalid"
        assert row["input_tokens"] is None or not broken_count(usage, "input_tokens")


def test_any_usage_of_a_whole_answer(trial):
    @many(45)
    @given(usage=USAGES, surface=st.sampled_from(SURFACES), way=st.sampled_from(WHOLE))
    def check(usage, surface, way):
        row, _, _ = trial.row(surface, way, as_json(message_with(usage=usage)))
        if way in RAW_WHOLE:
            assert_no_garbage(row, usage)

    check()


def test_any_member_of_a_whole_answer(trial):
    members = ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "container", "error")

    @many(30)
    @given(
        changes=st.fixed_dictionaries({}, optional=dict.fromkeys(members, WORDS | st.just(ABSENT))),
        way=st.sampled_from(WHOLE),
    )
    def check(changes, way):
        row, _, _ = trial.row("messages", way, as_json(message_with(**changes)))
        if way in RAW_WHOLE:
            assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("reported", 9, 4)

    check()


def test_any_body_status_and_content_type(trial):
    bodies = st.one_of(
        st.binary(max_size=30),
        RUBBISH.map(json.dumps).map(str.encode),
        st.sampled_from([b"[" * 3000, b'{"a":' * 3000, b"\xef\xbb\xbf{}", b"null", b"NaN", b'"', b"", b"\xff"]),
        st.sampled_from([json.dumps(FAILED).encode(), b"".join(SANE)]),
    )

    @many(45)
    @given(
        body=bodies,
        status=st.sampled_from([200, 200, 204, 302, 400, 401, 404, 413, 429, 500, 529]),
        kind=st.sampled_from(["application/json", "text/event-stream", "text/html", "", None]),
        way=st.sampled_from((*WHOLE, *STREAMED)),
    )
    def check(body, status, kind, way):
        row, _, _ = trial.row("messages", way, Answer(body, status=status, kind=kind))
        assert row["status"] == "error" or status < 300

    check()


@pytest.mark.parametrize("ways", [READ, HELPED, LEFT], ids=["read", "helped", "left"])
def test_any_usages_of_a_stream(ways, trial):
    @many(30)
    @given(early=USAGES, late=USAGES, surface=st.sampled_from(SURFACES), way=st.sampled_from(ways))
    def check(early, late, surface, way):
        trial.row(surface, way, as_events(*stream_with(early, late)))

    check()


def test_any_events_in_any_order(trial):
    @many(50)
    @given(
        events=st.lists(EVENTS, max_size=7),
        begun=st.booleans(),
        size=st.sampled_from([1, 3, 50, 10_000]),
        newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
        way=st.sampled_from(STREAMED),
    )
    def check(events, begun, size, newline, way):
        data = b"".join([*SANE[:1], *sent(*events)] if begun else sent(*events)).replace(b"\n", newline)
        trial.row("messages", way, as_events(*(data[at : at + size] for at in range(0, len(data), size))))

    check()


def test_a_stream_cut_anywhere_whether_it_breaks_off_or_ends(trial):
    data = b"".join(SANE).replace(b"\\u00e9", "é".encode())

    @many(50)
    @given(
        cut=st.integers(0, len(data)),
        size=st.sampled_from([1, 2, 7, 64, 4096]),
        broken=st.booleans(),
        way=st.sampled_from(STREAMED),
    )
    def check(cut, size, broken, way):
        pieces = [data[:cut][at : at + size] for at in range(0, cut, size)]
        error = httpx2.ReadError("the peer has gone") if broken else None
        row, _, _ = trial.row("messages", way, as_events(*pieces, error=error))
        assert row["input_tokens"] in (9, None)
        assert row["output_tokens"] in (4, None)

    check()


def test_a_stream_with_any_bytes_in_it(trial):
    data = b"".join(SANE)

    @many(45)
    @given(
        at=st.integers(0, len(data)),
        rubbish=st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [b"\n", b"\r", b"\r\n\r\n", b": ping\n\n", b"data:\n\n", b"data: {\n\n", b"data: [DONE]\n\n"]
            ),
            st.sampled_from([b"retry: x\n\n", b"event: error\n\n", b"id: 7\0\n\n", b"data: \xff\n\n", b"data\n\n"]),
            st.sampled_from([b"event: error\ndata: no\n\n", b"data: " + b"[" * 3000 + b"\n\n"]),
        ),
        way=st.sampled_from(STREAMED),
    )
    def check(at, rubbish, way):
        trial.row("messages", way, as_events(data[:at] + rubbish + data[at:]))

    check()


def test_any_bytes_that_claim_to_be_frames_of_amazon(trial):
    @many(25)
    @given(
        body=st.binary(max_size=60)
        | st.sampled_from([b"\0\0\0\x12\0\0\0\0\0\0\0\0{}\0\0\0\0", b"\0\0\0\x11" + b"\0" * 13]),
        size=st.sampled_from([1, 7, 100]),
        way=st.sampled_from((streamed_bytes, streamed_lines, async_streamed_lines)),
    )
    def check(body, size, way):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        trial.row("messages", way, Answer(pieces, kind="application/vnd.amazon.eventstream"))

    check()


# Exactly.


@pytest.mark.parametrize("way", RAW_WHOLE, ids=name)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, ("reported", 9, 4)),
        ({}, ("missing", None, None)),
        (None, ("missing", None, None)),
        ({"input_tokens": 9}, ("partial", 9, None)),
        ({"input_tokens": "9", "output_tokens": 4}, ("invalid", None, 4)),
        ({"input_tokens": -1, "output_tokens": 4}, ("invalid", None, 4)),
        ({"input_tokens": 9, "output_tokens": 10**30}, ("invalid", 9, None)),
        ({"input_tokens": 9, "output_tokens": float("nan")}, ("invalid", 9, None)),
        ({"input_tokens": True, "output_tokens": [4]}, ("invalid", None, None)),
        ({"input_tokens": 9.0, "output_tokens": 4}, ("reported", 9, 4)),
    ],
    ids=str,
)
def test_a_count_that_is_garbage_is_never_stored(way, usage, expected, trial):
    row, _, _ = trial.row("messages", way, as_json(message_with(usage=usage)))
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == expected


@pytest.mark.parametrize("way", READ, ids=name)
@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ({"output_tokens": 4}, ("reported", 9, 4)),
        (ABSENT, ("partial", 9, None)),
        ({"output_tokens": -4}, ("invalid", 9, None)),
        ({"output_tokens": {"n": 4}}, ("invalid", 9, None)),
    ],
    ids=str,
)
def test_the_last_count_of_a_stream_is_told_honestly(way, late, expected, trial):
    events = stream_with({"input_tokens": 9, "output_tokens": 1}, late)
    row, _, _ = trial.row("messages", way, as_events(*events))
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == expected
