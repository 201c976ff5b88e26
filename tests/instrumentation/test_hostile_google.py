"""Whatever Gemini answers, the application sees what the bare SDK shows it, and one honest row tells of it."""

import asyncio
import copy
import json

import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
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

pytestmark = pytest.mark.needs("types.HttpOptions(httpx_client)", of="google-genai")  # a provider in memory

REQUEST = {"model": "gemini-2.5-flash", "contents": "How many?"}
USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}


# The ways an application asks, and how it reads the answer.


def whole(models, see):
    see(models.generate_content(**REQUEST))


def unparsed(models, see):
    config = types.GenerateContentConfig(should_return_http_response=True)
    see(models.generate_content(**REQUEST, config=config))


def text(models, see):
    see(models.generate_content(**REQUEST).text)


def streamed(models, see):
    for each in models.generate_content_stream(**REQUEST):
        see(each)


def left(models, see):
    for each in models.generate_content_stream(**REQUEST):
        see(each)
        break


def closed(models, see):
    stream = models.generate_content_stream(**REQUEST)
    see(next(stream, None))
    stream.close()
    see(next(stream, None))


def unread(models, see):
    see(type(models.generate_content_stream(**REQUEST)))


def embedded(models, see):
    see(models.embed_content(model="gemini-embedding-001", contents=["How many?", "Nine"]))


async def async_whole(models, see):
    see(await models.generate_content(**REQUEST))


async def async_unparsed(models, see):
    config = types.GenerateContentConfig(should_return_http_response=True)
    see(await models.generate_content(**REQUEST, config=config))


async def async_streamed(models, see):
    async for each in await models.generate_content_stream(**REQUEST):
        see(each)


async def async_left(models, see):
    async for each in await models.generate_content_stream(**REQUEST):
        see(each)
        break


async def async_closed(models, see):
    stream = await models.generate_content_stream(**REQUEST)
    see(await anext(stream, None))
    await stream.aclose()
    see(await anext(stream, None))


async def async_embedded(models, see):
    see(await models.embed_content(model="gemini-embedding-001", contents=["How many?", "Nine"]))


PARSED_WHOLE = (whole, text, async_whole)
UNPARSED = (unparsed, async_unparsed)
WHOLE = (*PARSED_WHOLE, *UNPARSED)
READ = (streamed, async_streamed)
STREAMED = (*READ, left, closed, async_left, async_closed)
EMBEDDED = (embedded, async_embedded)


class Application:
    """The client of an application. Its provider answers what it is told to."""

    def __init__(self):
        self.told = [None]
        transport = httpx2.MockTransport(self._answered)
        self.options = {
            "base_url": "http://provider.test",
            "httpx_client": httpx2.Client(transport=transport),
            "httpx_async_client": httpx2.AsyncClient(transport=transport),
        }
        self.client = self.connected()

    def _answered(self, request):
        return self.told[0](request)

    def connected(self):
        return genai.Client(api_key="unused", http_options=types.HttpOptions(**self.options))

    def close(self):
        self.options["httpx_client"].close()
        asyncio.run(self.options["httpx_async_client"].aclose())

    def fresh(self):
        return copy.copy(self)

    def outcome(self, way, answer):
        values, self.told[0] = [], answer
        try:
            if asyncio.iscoroutinefunction(way):
                asyncio.run(way(self.client.aio.models, values.append))
            else:
                way(self.client.models, values.append)
        except Exception as error:
            return values, error
        return values, None


@pytest.fixture(scope="module")
def clients():
    made = Application(), Application()
    yield made
    for each in made:
        each.close()


@pytest.fixture
def trial(clients, recording, ledger):
    return Trial(ledger, clients)


# What it answers.


def chunk_with(**changes):
    candidate = {"content": {"role": "model", "parts": [{"text": "nine é"}]}, "finishReason": "STOP", "index": 0}
    body = {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "gemini-2.5-flash", "responseId": "r-1"}
    return {key: value for key, value in {**body, **changes}.items() if value is not ABSENT}


def sent(*chunks):
    return [event(each) for each in chunks]


DETAILS = RUBBISH | st.lists(
    st.fixed_dictionaries(
        {}, optional={"modality": st.sampled_from(["TEXT", "AUDIO", "IMAGE", "?"]), "tokenCount": COUNT}
    )
)
USAGES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "promptTokenCount": COUNT,
            "candidatesTokenCount": COUNT,
            "thoughtsTokenCount": COUNT,
            "toolUsePromptTokenCount": COUNT,
            "cachedContentTokenCount": COUNT,
            "promptTokensDetails": DETAILS,
            "cacheTokensDetails": DETAILS,
            "trafficType": RUBBISH | st.sampled_from(["ON_DEMAND", "PROVISIONED_THROUGHPUT"]),
        },
    ),
    st.builds(lambda some, more: {**as_object(some), **USAGE, **more}, RUBBISH, st.dictionaries(st.text(), RUBBISH)),
    RUBBISH,
)
WORDS = RUBBISH | st.sampled_from(["r-1", "", " ", "\0", "é" * 300, "x" * 100_000, "'; --"])
CANDIDATES = RUBBISH | st.lists(
    st.fixed_dictionaries(
        {}, optional={"content": RUBBISH, "finishReason": WORDS, "index": WORDS, "groundingMetadata": RUBBISH}
    ),
    max_size=2,
)
MEMBERS = {
    "candidates": CANDIDATES | st.just(ABSENT),
    "usageMetadata": USAGES | st.just(ABSENT),
    "modelVersion": WORDS,
    "responseId": WORDS,
    "promptFeedback": RUBBISH,
    "createTime": WORDS,
    "error": RUBBISH,
}
CHUNKS = st.one_of(
    st.builds(lambda changes: chunk_with(**changes), st.fixed_dictionaries({}, optional=MEMBERS)),
    st.builds(lambda usage: chunk_with(usageMetadata=usage), USAGES),
    st.just({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}),
    RUBBISH,
)
SANE = sent(chunk_with(candidates=[{"content": {"parts": [{"text": "nine "}]}}]), chunk_with())


def broken_count(usage, field):
    value = usage.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value is not None and not (type(value) is int and 0 <= value <= 10**9)


def test_any_usage_of_a_whole_answer(trial):
    @many(45)
    @given(usage=USAGES, way=st.sampled_from(WHOLE))
    def check(usage, way):
        row, _, _ = trial.row(way, as_json(chunk_with(usageMetadata=usage)))
        if way in UNPARSED and isinstance(usage, dict) and broken_count(usage, "promptTokenCount"):
            assert (row["usage_status"], row["input_tokens"]) == ("invalid", None)

    check()


def test_any_member_of_a_whole_answer(trial):
    @many(45)
    @given(changes=st.fixed_dictionaries({}, optional=MEMBERS), way=st.sampled_from(WHOLE))
    def check(changes, way):
        trial.row(way, as_json(chunk_with(**changes)))

    check()


def test_any_embedding(trial):
    statistics = st.fixed_dictionaries({}, optional={"tokenCount": COUNT, "truncated": RUBBISH}) | RUBBISH
    embeddings = RUBBISH | st.lists(st.fixed_dictionaries({}, optional={"values": RUBBISH, "statistics": statistics}))

    @many(45)
    @given(embeddings=embeddings, usage=USAGES, way=st.sampled_from(EMBEDDED))
    def check(embeddings, usage, way):
        trial.row(way, as_json({"embeddings": embeddings, "usageMetadata": usage}))

    check()


def test_any_body_status_and_content_type(trial):
    bodies = st.one_of(
        st.binary(max_size=30),
        RUBBISH.map(json.dumps).map(str.encode),
        st.lists(CHUNKS, max_size=3).map(json.dumps).map(str.encode),
        st.sampled_from([b"[" * 3000, b'{"a":' * 3000, b"\xef\xbb\xbf{}", b"null", b"NaN", b'"', b"", b"\xff", *SANE]),
        st.sampled_from([b'[{"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}]', b'{"error": "no"}']),
    )

    @many(45)
    @given(
        body=bodies,
        status=st.sampled_from([200, 200, 204, 302, 400, 404, 429, 500, 503]),
        kind=st.sampled_from(["application/json", "text/event-stream", "text/html", "", None]),
        way=st.sampled_from((*WHOLE, *STREAMED, *EMBEDDED)),
    )
    def check(body, status, kind, way):
        row, _, _ = trial.row(way, Answer(body, status=status, kind=kind))
        assert row["status"] == "error" or status < 400

    check()


def test_any_chunks_in_any_order(trial):
    @many(70)
    @given(
        chunks=st.lists(CHUNKS, max_size=6),
        size=st.sampled_from([1, 3, 50, 10_000]),
        newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
        way=st.sampled_from(STREAMED),
    )
    def check(chunks, size, newline, way):
        data = b"".join(sent(*chunks)).replace(b"\n", newline)
        trial.row(way, as_events(*(data[at : at + size] for at in range(0, len(data), size))))

    check()


def test_a_stream_cut_anywhere_whether_it_breaks_off_or_ends(trial):
    data = b"".join(SANE).replace(b"\\u00e9", "é".encode())

    @many(45)
    @given(
        cut=st.integers(0, len(data)),
        size=st.sampled_from([1, 2, 7, 64, 4096]),
        broken=st.booleans(),
        way=st.sampled_from(STREAMED),
    )
    def check(cut, size, broken, way):
        pieces = [data[:cut][at : at + size] for at in range(0, cut, size)]
        row, _, _ = trial.row(way, as_events(*pieces, error=httpx2.ReadError("the peer has gone") if broken else None))
        assert (row["input_tokens"], row["output_tokens"]) in ((9, 4), (None, None))

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
            st.sampled_from([b"[{}]\n", b'{"error": {"code": 500}}\n', b"data: \xff\n\n", b"data: [1]\n\n"]),
            st.just(b"data: " + b"[" * 3000 + b"\n\n"),
        ),
        way=st.sampled_from(STREAMED),
    )
    def check(at, rubbish, way):
        trial.row(way, as_events(data[:at] + rubbish + data[at:]))

    check()


# Exactly.


@pytest.mark.parametrize("way", UNPARSED, ids=name)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, ("reported", 9, 4)),
        ({}, ("missing", None, None)),
        (None, ("missing", None, None)),
        ({"promptTokenCount": "9", "candidatesTokenCount": 4}, ("invalid", None, 4)),
        ({"promptTokenCount": -1, "candidatesTokenCount": 4}, ("invalid", None, 4)),
        ({"promptTokenCount": 9, "candidatesTokenCount": 10**30}, ("invalid", 9, None)),
        ({"promptTokenCount": 9, "candidatesTokenCount": float("nan")}, ("invalid", 9, None)),
    ],
    ids=str,
)
def test_a_count_that_is_garbage_is_never_stored(way, usage, expected, trial):
    row, _, _ = trial.row(way, as_json(chunk_with(usageMetadata=usage)))
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == expected


@pytest.mark.parametrize("way", READ, ids=name)
def test_the_last_usage_of_a_stream_counts(way, trial):
    early = chunk_with(usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 1})
    row, _, _ = trial.row(way, as_events(*sent(early, chunk_with(), chunk_with(usageMetadata=ABSENT))))
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("reported", 9, 4)
