"""Whatever a provider answers, the application sees what the bare SDK shows it, and one honest row tells of it."""

import asyncio
import copy
import itertools
import json
import math
import time

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import httpx2
from tests.instrumentation.hostile import (
    ABSENT,
    COUNT,
    RUBBISH,
    TOKENS,
    Answer,
    Trial,
    as_events,
    as_json,
    as_object,
    event,
    many,
    name,
    told,
)

import spanledger
from spanledger.instrumentation import raw as watching

pytestmark = pytest.mark.needs("responses")

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How many?"}]}
RESPONSE = {"model": "gpt-5.4", "input": "How many?"}
EMBEDDING = {"model": "text-embedding-3-small", "input": "How many?", "encoding_format": "float"}
REQUESTS = {"chat": CHAT, "responses": RESPONSE, "embeddings": EMBEDDING}
RESOURCES = {
    "chat": lambda client: client.chat.completions,
    "responses": lambda client: client.responses,
    "embeddings": lambda client: client.embeddings,
}
COUNTS = {
    "chat": {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "cache_read_tokens": "prompt_tokens_details.cached_tokens",
        "cache_write_tokens": "prompt_tokens_details.cache_write_tokens",
        "input_audio_tokens": "prompt_tokens_details.audio_tokens",
        "reasoning_tokens": "completion_tokens_details.reasoning_tokens",
        "output_audio_tokens": "completion_tokens_details.audio_tokens",
    },
    "responses": {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cache_read_tokens": "input_tokens_details.cached_tokens",
        "cache_write_tokens": "input_tokens_details.cache_write_tokens",
        "reasoning_tokens": "output_tokens_details.reasoning_tokens",
    },
    "embeddings": {"input_tokens": "prompt_tokens"},
}
SECRET = "the patient's name is Ada"


# The ways an application asks, and how it reads the answer. `see` is told all it sees.


def whole(resource, request, see):
    see(resource.create(**request))


def streamed(resource, request, see):
    for chunk in resource.create(**request, stream=True):
        see(chunk)


def raw(resource, request, see):
    answer = resource.with_raw_response.create(**request)
    see(answer.text)
    see(answer.parse())


def raw_streamed(resource, request, see):
    for chunk in resource.with_raw_response.create(**request, stream=True).parse():
        see(chunk)


def streaming_response(resource, request, see):
    with resource.with_streaming_response.create(**request) as answer:
        see(answer.parse())


def streaming_response_lines(resource, request, see):
    with resource.with_streaming_response.create(**request) as answer:
        for line in answer.iter_lines():
            see(line)


def streamed_lines(resource, request, see):
    with resource.with_streaming_response.create(**request, stream=True) as answer:
        for line in answer.iter_lines():
            see(line)


async def async_whole(resource, request, see):
    see(await resource.create(**request))


async def async_streamed(resource, request, see):
    async for chunk in await resource.create(**request, stream=True):
        see(chunk)


async def async_raw(resource, request, see):
    answer = await resource.with_raw_response.create(**request)
    see(answer.text)
    see(answer.parse())


async def async_raw_streamed(resource, request, see):
    async for chunk in (await resource.with_raw_response.create(**request, stream=True)).parse():
        see(chunk)


async def async_streaming_response(resource, request, see):
    async with resource.with_streaming_response.create(**request) as answer:
        see(await answer.parse())


async def async_streamed_lines(resource, request, see):
    async with resource.with_streaming_response.create(**request, stream=True) as answer:
        async for line in answer.iter_lines():
            see(line)


PARSED_WHOLE = (whole, async_whole)
RAW_WHOLE = (raw, streaming_response, streaming_response_lines, async_raw, async_streaming_response)
WHOLE = (*PARSED_WHOLE, *RAW_WHOLE)
PARSED_STREAMED = (streamed, async_streamed)
RAW_STREAMED = (raw_streamed, streamed_lines, async_raw_streamed, async_streamed_lines)
STREAMED = (*PARSED_STREAMED, *RAW_STREAMED)
READS_BYTES = (streamed_lines, async_streamed_lines)
FEW = (whole, raw, async_streaming_response, async_streamed, streamed_lines)
"""The most different ways."""


def every_pair(*endpoints):
    return [
        (endpoint, way)
        for endpoint in endpoints
        for way in (WHOLE if endpoint == "embeddings" else (*WHOLE, *STREAMED))
    ]


def every_way(*endpoints, least=False):
    """Parameters; `least`: of the ways beside those of a chat only a few."""
    return [
        pytest.param(endpoint, way, id=f"{endpoint}-{name(way)}")
        for endpoint, way in every_pair(*endpoints)
        if not least or endpoint == "chat" or way in FEW
    ]


# The provider, in memory.


DONE = event("[DONE]")


def answer_with(endpoint, **changes):
    """A sane whole answer, but for the changes."""
    message = {"role": "assistant", "content": "nine"}
    text = {"type": "output_text", "text": "nine", "annotations": []}
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
    body = {
        "chat": {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "gpt-4o",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        },
        "responses": {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_790_000_000,
            "status": "completed",
            "model": "gpt-5.4",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        },
        "embeddings": {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
        },
    }[endpoint]
    return {key: value for key, value in {**body, **changes}.items() if value is not ABSENT}


def chunk_with(**changes):
    """A sane chunk of a chat, but for the changes."""
    choice = {"index": 0, "delta": {"content": "nine "}, "finish_reason": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "gpt-4o"}
    return {key: value for key, value in {**body, "choices": [choice], **changes}.items() if value is not ABSENT}


def last_event(usage, **changes):
    response = answer_with("responses", usage=usage, **changes)
    return {"type": "response.completed", "sequence_number": 9, "response": response}


def stream_with(endpoint, usage):
    """A sane stream of events, but for its usage."""
    if endpoint == "responses":
        delta = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0}
        return [
            event({**delta, "delta": "nine", "sequence_number": 1, "logprobs": []}, "response.output_text.delta"),
            event(last_event(usage), "response.completed"),
        ]
    stop = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    return [event(chunk_with()), event(chunk_with(choices=stop)), event(chunk_with(choices=[], usage=usage)), DONE]


def sane_usage(endpoint, given=9, made=4):
    if endpoint == "chat":
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    if endpoint == "responses":
        return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    return {"prompt_tokens": given, "total_tokens": given}


def answer_for(endpoint, way, usage):
    return as_events(*stream_with(endpoint, usage)) if way in STREAMED else as_json(answer_with(endpoint, usage=usage))


# What an honest row says.


def usable(value):
    """JSON does not tell 9.0 from 9, so a float that is whole is a count."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return type(value) is int and 0 <= value <= 10**9


def honest(endpoint, usage):
    """The statuses and the counts an honest row may have for a usage object, as plain JSON."""
    counts = dict.fromkeys(TOKENS)
    if usage is None:
        return {"missing"}, counts
    if not isinstance(usage, dict):
        return {"invalid"}, counts
    broken = odd = False
    for field, path in COUNTS[endpoint].items():
        value = usage
        for step in path.split("."):
            odd = odd or not isinstance(value, (dict, type(None)))  # details of which nobody can tell what they mean
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None and not usable(value):
            broken = True
        elif value is not None:
            counts[field] = int(value)
    if endpoint == "embeddings" and counts["input_tokens"] is None and usage.get("prompt_tokens") is None:
        total = usage.get("total_tokens")  # some hosts report nothing else
        broken = total is not None and not usable(total)
        counts["input_tokens"] = int(total) if usable(total) else None
    both = counts["input_tokens"] is not None and counts["output_tokens"] is not None
    if endpoint == "chat" and both and counts["reasoning_tokens"]:
        parts = counts["input_tokens"] + counts["output_tokens"]
        if usage.get("total_tokens") == parts + counts["reasoning_tokens"]:  # reasoning outside the output: xAI
            counts["output_tokens"] += counts["reasoning_tokens"]
    status = "invalid" if broken or contradictory(counts) else completeness(endpoint, counts)
    return {status, "invalid"} if odd else {status}, counts


def contradictory(counts):
    for of, parts in (
        ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
        ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
        ("output_tokens", ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")),
    ):
        if counts[of] is not None and counts[of] < sum(counts[part] or 0 for part in parts):
            return True
    return False


def completeness(endpoint, counts):
    if all(count is None for count in counts.values()):
        return "missing"
    needed = ("input_tokens",) if endpoint == "embeddings" else ("input_tokens", "output_tokens")
    return "partial" if any(counts[each] is None for each in needed) else "reported"


def usage_seen(endpoint, way, values):
    """The last usage the application was shown."""
    last = None
    for value in values:
        holder = getattr(value, "response", None) if endpoint == "responses" and way in STREAMED else value
        usage = getattr(holder, "usage", None)
        if usage is not None:
            last = usage
    return last.model_dump(warnings=False) if hasattr(last, "model_dump") else last


def usage_sent(endpoint, payloads):
    """The last usage in what was sent, as decoded JSON."""
    last = None
    for payload in payloads:
        holder = payload
        if endpoint == "responses" and isinstance(payload, dict):
            holder = payload.get("response")
        if isinstance(holder, dict) and holder.get("usage") is not None:
            last = holder["usage"]
    return last


class Application:
    """The clients of an application, sync and async. Their provider answers what it is told to."""

    def __init__(self, base_url):
        self.told = [None]
        transport = httpx2.MockTransport(self._answered)
        more = {"base_url": base_url, "api_key": "unused", "max_retries": 0}
        self.client = openai.OpenAI(http_client=httpx2.Client(transport=transport), **more)
        self.async_client = openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=transport), **more)

    def close(self):
        self.client.close()
        asyncio.run(self.async_client.close())

    def _answered(self, request):
        return self.told[0](request)

    def fresh(self):
        """New clients over the same transport: a client keeps the methods it once has bound."""
        made = copy.copy(self)
        made.client, made.async_client = self.client.copy(), self.async_client.copy()
        return made

    def outcome(self, endpoint, way, answer):
        """What was seen, and the error it ended with."""
        values, self.told[0] = [], answer
        try:
            if asyncio.iscoroutinefunction(way):
                asyncio.run(way(RESOURCES[endpoint](self.async_client), REQUESTS[endpoint], values.append))
            else:
                way(RESOURCES[endpoint](self.client), REQUESTS[endpoint], values.append)
        except Exception as error:
            return values, error
        return values, None


def applications(base_url):
    """One for the bare SDK, one for the watched."""
    made = Application(base_url), Application(base_url)
    yield made
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def clients():
    yield from applications("http://provider.test/v1")


@pytest.fixture(scope="module")
def asking_clients():
    """At a provider whose streams we ask for their usage behind the application's back."""
    yield from applications("https://api.openai.com/v1")


@pytest.fixture
def trial(clients, recording, ledger):
    return Trial(ledger, clients)


@pytest.fixture
def asking_trial(asking_clients, recording, ledger):
    return Trial(ledger, asking_clients)


def assert_honest(row, endpoint, *usages):
    """The row says what is honest of one of these usages."""
    for usage in usages:
        statuses, counts = honest(endpoint, usage)
        if row["usage_status"] in statuses and told(row) == counts:
            return
    assert (row["usage_status"], told(row)) == honest(endpoint, usages[0])


# Usage objects.


def odd_usages(endpoint):
    """Name → (usage, the status an honest row has where the bytes tell of it)."""
    given, made = COUNTS[endpoint]["input_tokens"], COUNTS[endpoint].get("output_tokens", "completion_tokens")
    alone = endpoint == "embeddings"

    def each(value):
        return {**sane_usage(endpoint), given: value}

    return {
        "sane": (sane_usage(endpoint), "reported"),
        "zero": (sane_usage(endpoint, 0, 0), "reported"),
        "absent": (ABSENT, "missing"),
        "null": (None, "missing"),
        "empty": ({}, "missing"),
        "nulls": ({given: None, made: None, "total_tokens": None}, "missing"),
        "list": ([], "invalid"),
        "list of usages": ([sane_usage(endpoint)], "invalid"),
        "text": ("nine", "invalid"),
        "number": (9, "invalid"),
        "zero number": (0, "invalid"),
        "true": (True, "invalid"),
        "false": (False, "invalid"),
        "float": (9.5, "invalid"),
        "nan": (math.nan, "invalid"),
        "negative count": (each(-1), "invalid"),
        "count that is not a number": (each(math.nan), "invalid"),
        "infinite count": (each(math.inf), "invalid"),
        "count without end": (each(10**30), "invalid"),
        "count just too large": (each(10**9 + 1), "invalid"),
        "largest count": (each(10**9), "reported"),
        "count as a bool": (each(True), "invalid"),
        "count as a text": (each("9"), "invalid"),
        "count as a list": (each([9]), "invalid"),
        "count as an object": (each({"n": 9}), "invalid"),
        "count with a fraction": (each(9.5), "invalid"),
        "count as a whole float": (each(9.0), "reported"),
        "no input": ({key: value for key, value in sane_usage(endpoint).items() if key != given},
                     "reported" if alone else "partial"),  # the total is left
        "input only": ({given: 9}, "reported" if alone else "partial"),
        "total only": ({"total_tokens": 9}, "reported" if endpoint == "embeddings" else "missing"),
        "only strange names": ({"tokens": 9, "": None, "_": [1], "é": {"a": {"b": {"c": {"d": [[1]]}}}}}, "missing"),
        "nested rubbish": ({**sane_usage(endpoint), "x": {"y": [{"z": math.nan}, [[["deep"]]]]}}, "reported"),
    }  # fmt: skip


@pytest.mark.parametrize(("endpoint", "way"), every_way("chat", "responses", "embeddings", least=True))
def test_every_odd_usage_is_seen_as_it_is_and_told_honestly(endpoint, way, trial):
    cases = odd_usages(endpoint)
    rows = trial.rows((endpoint, way, answer_for(endpoint, way, usage)) for usage, _ in cases.values())
    for (label, (usage, status)), (row, values, _) in zip(cases.items(), rows, strict=True):
        if way in PARSED_WHOLE or way in PARSED_STREAMED:  # the SDK has made 1 of true and 9 of "9" by now
            assert_honest(row, endpoint, usage_seen(endpoint, way, values))
        else:
            assert (label, row["usage_status"]) == (label, status)
            assert_honest(row, endpoint, None if usage is ABSENT else usage)


DETAILS = (
    ({"prompt_tokens_details": {"cached_tokens": 10}}, {"cache_read_tokens": 10}, "invalid"),
    ({"prompt_tokens_details": {"cached_tokens": -1}}, {}, "invalid"),
    ({"prompt_tokens_details": {"cached_tokens": 1.5}}, {}, "invalid"),
    ({"prompt_tokens_details": {"cached_tokens": {"n": 1}}}, {}, "invalid"),
    ({"prompt_tokens_details": {"cached_tokens": None}}, {}, "reported"),
    ({"prompt_tokens_details": {}}, {}, "reported"),
    ({"completion_tokens_details": {"reasoning_tokens": 5}}, {"reasoning_tokens": 5}, "invalid"),
    ({"completion_tokens_details": {"reasoning_tokens": 0}}, {"reasoning_tokens": 0}, "reported"),
    (
        {"prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5}},
        {"cache_read_tokens": 5, "cache_write_tokens": 5},
        "invalid",
    ),
)


@pytest.mark.parametrize("way", [*WHOLE, *STREAMED], ids=name)
def test_details_that_contradict_the_whole_or_are_no_counts_make_a_usage_invalid(way, trial):
    answers = [answer_for("chat", way, {**sane_usage("chat"), **details}) for details, _, _ in DETAILS]
    rows = trial.rows(("chat", way, answer) for answer in answers)
    for (_, made, status), (row, _, _) in zip(DETAILS, rows, strict=True):
        expected = {**dict.fromkeys(TOKENS), "input_tokens": 9, "output_tokens": 4, **made}
        assert (row["usage_status"], told(row)) == (status, expected)


@pytest.mark.parametrize("way", [whole, raw], ids=name)
@pytest.mark.parametrize("completion", [ABSENT, None, -1, "four"])
def test_an_output_nobody_reported_is_not_made_up_from_the_reasoning(way, completion, trial):
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": completion,
        "total_tokens": 8,
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    usage = {key: value for key, value in usage.items() if value is not ABSENT}
    row, _, _ = trial.row("chat", way, as_json(answer_with("chat", usage=usage)))
    assert row["output_tokens"] is None
    assert row["usage_status"] == ("partial" if completion in (ABSENT, None) else "invalid")


def usages(endpoint):
    top, nested = {"total_tokens": COUNT}, {}
    for path in COUNTS[endpoint].values():
        head, _, tail = path.partition(".")
        if tail:
            nested.setdefault(head, {})[tail] = COUNT
        else:
            top[head] = COUNT
    for head, inner in nested.items():
        top[head] = st.one_of(st.fixed_dictionaries({}, optional=inner), st.fixed_dictionaries(inner), RUBBISH)
    some, every = st.fixed_dictionaries({}, optional=top), st.fixed_dictionaries(top)
    return st.one_of(
        every, every, some, some, st.builds(lambda a, b: {**a, **b}, RUBBISH.map(as_object), some), RUBBISH
    )


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_any_usage_of_a_whole_answer_is_told_honestly(endpoint, trial):
    @many(30)
    @given(usage=usages(endpoint), way=st.sampled_from(WHOLE))
    def check(usage, way):
        row, values, error = trial.row(endpoint, way, as_json(answer_with(endpoint, usage=usage)))
        if way in PARSED_WHOLE and error is None:
            usage = usage_seen(endpoint, way, values)
        assert_honest(row, endpoint, usage)

    check()


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_any_usage_of_a_stream_is_told_honestly(endpoint, trial):
    @many(30)
    @given(usage=usages(endpoint), way=st.sampled_from(STREAMED))
    def check(usage, way):
        row, values, _ = trial.row(endpoint, way, as_events(*stream_with(endpoint, usage)))
        assert_honest(row, endpoint, usage_seen(endpoint, way, values) if way in PARSED_STREAMED else usage)

    check()


# Streams.


def payloads_of(data):
    """What the finished events of a stream say, and what its last line says besides."""
    finished, at_last = [], []
    *events, rest = data.split(b"\n\n")
    for group, into in ((events, finished), ([rest], at_last)):
        for line in b"\n".join(group).split(b"\n"):
            if line.startswith(b"data:"):
                try:
                    into.append(json.loads(line[5:]))
                except ValueError:
                    continue
    return finished, at_last


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_stream_may_be_cut_anywhere(endpoint, trial):
    usage = {**sane_usage(endpoint), "note": "é"}
    data = b"".join(stream_with(endpoint, usage)).replace(b"\\u00e9", "é".encode())

    @many(35)
    @given(
        cut=st.one_of(st.integers(0, len(data)), st.integers(len(data) - 80, len(data))),
        size=st.sampled_from([1, 2, 7, 64, 4096]),
        broken=st.booleans(),
        way=st.sampled_from(STREAMED),
    )
    def check(cut, size, broken, way):
        sent = data[:cut]
        pieces = [sent[start : start + size] for start in range(0, cut, size)]
        error = httpx2.ReadError("the peer has gone") if broken else None
        row, values, raised = trial.row(endpoint, way, as_events(*pieces, error=error))
        if way in PARSED_STREAMED:
            assert_honest(row, endpoint, usage_seen(endpoint, way, values))
        else:
            finished, at_last = payloads_of(sent)
            assert_honest(row, endpoint, usage_sent(endpoint, finished), usage_sent(endpoint, [*finished, *at_last]))
        if raised is not None:
            assert row["status"] in ("error", "success")  # a chat that had its usage had said its last word

    check()


ODD_CHOICES = [
    None, [], {}, "x", "", 7, 0, True, [None], [[]], ["x"], [1, 2], [{}], [{"delta": None}], [{"delta": "x"}],
    [{"finish_reason": 7}], [{"finish_reason": ["stop"]}], [{"finish_reason": {"a": 1}}], [{"index": "x"}], {"0": {}},
    [[{"finish_reason": "stop"}]], {"*": {"finish_reason": "stop"}}, ABSENT,
]  # fmt: skip
ODD_DATA = [
    "[]",
    "[1]",
    "[null]",
    '["usage"]',
    "{}",
    "null",
    "true",
    "3",
    "-0.5",
    '"text"',
    '""',
    "NaN",
]
ENDS = ['{"id":', "", "<html>", '{"error": {"message": "no"}}', '{"error": "no"}', '{"error": [1]}', "\u2028"]


@pytest.mark.parametrize("way", STREAMED, ids=name)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_chunks_that_are_no_objects_do_not_touch_the_usage(endpoint, way, trial):
    usage = sane_usage(endpoint)
    before, *rest = stream_with(endpoint, usage)
    orders = (lambda odd: [before, odd, *rest], lambda odd: [odd, before, *rest])
    cases = list(itertools.product(ODD_DATA, orders))
    rows = trial.rows((endpoint, way, as_events(*order(event(data)))) for data, order in cases)
    for (data, _), (row, _, _) in zip(cases, rows, strict=True):
        assert (data, row["usage_status"]) == (data, "reported")
        assert_honest(row, endpoint, usage)


@pytest.mark.parametrize("way", STREAMED, ids=name)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_chunk_that_is_no_object_after_the_usage_does_not_undo_it(endpoint, way, trial):
    usage = sane_usage(endpoint)
    events = [each for each in stream_with(endpoint, usage) if each != DONE]
    rows = trial.rows((endpoint, way, as_events(*events, event(data), DONE)) for data in ODD_DATA)
    for data, (row, _, _) in zip(ODD_DATA, rows, strict=True):
        assert (data, row["usage_status"]) == (data, "reported")
        assert_honest(row, endpoint, usage)


@pytest.mark.parametrize("way", STREAMED, ids=name)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_stream_without_usage_in_which_a_list_came_has_a_missing_usage(endpoint, way, trial):
    for data in ("[]", "[1]", '[{"usage": null}]', '{"type": "response.completed", "response": []}'):
        row, _, _ = trial.row(endpoint, way, as_events(event(data), DONE))
        assert (data, row["usage_status"]) == (data, "missing")


@pytest.mark.parametrize("way", STREAMED, ids=name)
def test_choices_of_odd_types_in_a_stream_do_not_touch_the_usage(way, trial):
    usage, cases = sane_usage("chat"), []
    for choices in ODD_CHOICES:
        odd, both = event(chunk_with(choices=choices)), event(chunk_with(choices=choices, usage=usage))
        cases += [[odd, *stream_with("chat", usage)], [event(chunk_with()), both, DONE], [both, odd, odd, DONE]]
    rows = trial.rows(("chat", way, as_events(*events)) for events in cases)
    for events, (row, _, _) in zip(cases, rows, strict=True):
        assert (events, row["usage_status"]) == (events, "reported")
        assert_honest(row, "chat", usage)


@pytest.mark.parametrize("way", WHOLE, ids=name)
def test_choices_of_odd_types_in_a_whole_answer_do_not_touch_the_usage(way, trial):
    answers = [as_json(answer_with("chat", usage=sane_usage("chat"), choices=choices)) for choices in ODD_CHOICES]
    for row, _, _ in trial.rows(("chat", way, answer) for answer in answers):
        assert_honest(row, "chat", sane_usage("chat"))
        assert row["status"] == "success"


@pytest.mark.parametrize("way", STREAMED, ids=name)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_events_that_end_a_stream_badly_leave_what_was_reported(endpoint, way, trial):
    usage = sane_usage(endpoint)
    events = [each for each in stream_with(endpoint, usage) if each != DONE]
    befores = ((usage, events), (None, events[:1]))
    cases = list(itertools.product(ENDS, (None, "thread.run.failed"), befores))
    rows = trial.rows((endpoint, way, as_events(*before, event(end, kind))) for end, kind, (_, before) in cases)
    for (_, _, (reported, _)), (row, _, error) in zip(cases, rows, strict=True):
        assert_honest(row, endpoint, reported)
        if error is not None and way in PARSED_STREAMED:
            assert row["status"] == "error"
            assert row["error_type"].endswith(type(error).__name__)


@pytest.mark.parametrize("way", STREAMED, ids=name)
def test_of_a_usage_that_comes_twice_the_last_one_counts(way, trial):
    first, second = sane_usage("chat", 1, 1), sane_usage("chat", 9, 4)
    for events in (
        [event(chunk_with(usage=first)), event(chunk_with(usage=second)), DONE],
        [event(chunk_with(usage=first)), *stream_with("chat", second)],
        [event(chunk_with(usage=first)), event(chunk_with(usage=second)), *[event(chunk_with())] * 40, DONE],
        [event(chunk_with(usage=second))] * 3,
        [event(chunk_with(usage=second)), event(chunk_with(usage=None))],
        [event(chunk_with(choices=[], usage=second))] * 2,
    ):
        row, _, _ = trial.row("chat", way, as_events(*events))
        assert row["usage_status"] == "reported"
        assert_honest(row, "chat", second)


@pytest.mark.parametrize("way", STREAMED, ids=name)
def test_a_usage_in_the_middle_of_a_stream_is_not_overlooked(way, trial):
    for place in (0, 1, 20, 49):
        chunks = [event(chunk_with()) for _ in range(50)]
        chunks[place] = event(chunk_with(usage=sane_usage("chat")))
        row, _, _ = trial.row("chat", way, as_events(*chunks, DONE))
        assert_honest(row, "chat", sane_usage("chat"))


CHUNKS = st.one_of(
    st.builds(lambda choices: chunk_with(choices=choices), st.sampled_from(ODD_CHOICES)).map(json.dumps),
    st.builds(lambda usage: chunk_with(usage=usage), usages("chat")).map(json.dumps),
    st.builds(lambda usage: chunk_with(choices=[], usage=usage), usages("chat")).map(json.dumps),
    st.builds(last_event, usages("responses")).map(json.dumps),
    st.builds(lambda response: {"type": "response.completed", "response": response}, RUBBISH).map(json.dumps),
    st.sampled_from(["{}", "null", "3", '"text"', "true", *ENDS]),
    RUBBISH.filter(lambda value: not isinstance(value, list)).map(json.dumps),  # lists have tests of their own
)


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_any_mixture_of_chunks_is_passed_on_as_it_is(endpoint, trial):
    @many(35)
    @given(chunks=st.lists(CHUNKS, max_size=6), size=st.sampled_from([3, 50, 10_000]), way=st.sampled_from(STREAMED))
    def check(chunks, size, way):
        data = b"".join(map(event, chunks))
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        row, values, _ = trial.row(endpoint, way, as_events(*pieces))
        if way in PARSED_STREAMED:
            assert_honest(row, endpoint, usage_seen(endpoint, way, values))
        elif way in READS_BYTES:
            assert_honest(row, endpoint, usage_sent(endpoint, payloads_of(data)[0]))

    check()


@pytest.mark.parametrize("way", STREAMED, ids=name)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_each_of_the_line_ends_of_server_sent_events_is_one(way, newline, trial):
    data = b"".join(stream_with("chat", sane_usage("chat"))).replace(b"\n", newline)
    for size in (1, 50, len(data)):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        row, _, _ = trial.row("chat", way, as_events(*pieces))
        assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("reported", 9, 4)


@pytest.mark.parametrize("way", STREAMED, ids=name)
def test_an_event_may_have_its_data_in_several_lines(way, trial):
    lines = json.dumps(chunk_with(choices=[], usage=sane_usage("chat")), indent=1).split("\n")
    spread = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    row, _, _ = trial.row(
        "chat", way, as_events(b": ping\n\n", event(chunk_with()), b"retry: 3\nid: 1\n", spread, DONE)
    )
    assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("reported", 9, 4)


@pytest.mark.parametrize("way", STREAMED, ids=name)
def test_a_huge_line_does_not_hide_the_usage_behind_it(way, trial, monkeypatch):
    monkeypatch.setattr(watching, "_MOST_BUFFERED", 2**18)
    choice = {"index": 0, "delta": {"content": "x" * 2**20}, "finish_reason": None}
    data = b"".join([event(chunk_with(choices=[choice])), *stream_with("chat", sane_usage("chat"))])
    for size in (2**14, len(data)):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        row, _, _ = trial.row("chat", way, as_events(*pieces))
        assert (row["usage_status"], row["input_tokens"], row["output_tokens"]) == ("reported", 9, 4)


@pytest.mark.parametrize("way", [streamed, streamed_lines], ids=name)
def test_a_huge_line_in_small_pieces_takes_no_time_that_grows_with_its_square(way, trial):
    choice = {"index": 0, "delta": {"content": "x" * 2**21}, "finish_reason": None}
    data = b"".join([event(chunk_with(choices=[choice])), *stream_with("chat", sane_usage("chat"))])
    answer = as_events(*[data[start : start + 1024] for start in range(0, len(data), 1024)])
    spanledger.uninstrument()
    begun = time.perf_counter()
    trial.bare.outcome("chat", way, answer)
    bare = time.perf_counter() - begun
    spanledger.instrument()
    begun = time.perf_counter()
    trial.watched.outcome("chat", way, answer)
    assert time.perf_counter() - begun < 3 * bare + 0.5


# Bodies.

DEEP = b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = {
    "HTML": Answer(f"<html><body>{SECRET}</body></html>".encode(), kind="text/html"),
    "HTML that calls itself JSON": Answer(b"<html></html>"),
    "HTML that calls itself events": Answer(b"<html>\n</html>\n", kind="text/event-stream"),
    "nothing": Answer(b""),
    "nothing of no kind": Answer(b"", kind=None),
    "nothing of events": Answer(b"", kind="text/event-stream"),
    "null": Answer(b"null"),
    "list": Answer(b"[]"),
    "list of objects": Answer(b'[{"id": "x"}, null, 3]'),
    "text": Answer(b'"usage"'),
    "number": Answer(b"3"),
    "NaN": Answer(b"NaN"),
    "true": Answer(b"true"),
    "object": Answer(b"{}"),
    "error": Answer(json.dumps({"error": {"message": SECRET, "code": 7}}).encode()),
    "half an object": Answer(b'{"id": "chatcmpl-1", "usage": {"prompt'),
    "no UTF-8": Answer(b'{"id": "\xff\xfe"}'),
    "NULs": Answer(b"\0\0\0\0"),
    "no usage, JSON of a strange kind": Answer(b'{"id": "x"}', kind="application/vnd.x+json; charset=latin-1"),
    "number of too many digits": Answer(b'{"id": ' + b"9" * 5000 + b"}"),
    "cut": Answer([b'{"id": "chatcmpl-1",'], error=httpx2.ReadError("the peer has gone")),
    "cut at once": Answer([], error=httpx2.RemoteProtocolError("the peer has gone")),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_without_a_usage_is_seen_as_it_is_and_its_usage_is_missing(body, trial):
    cases = every_pair("chat", "responses", "embeddings")
    rows = trial.rows((endpoint, way, BODIES[body]) for endpoint, way in cases)
    for (endpoint, way), (row, _, error) in zip(cases, rows, strict=True):
        assert (endpoint, name(way), row["usage_status"]) == (endpoint, name(way), "missing")
        assert SECRET not in str(row)
        if error is not None and way in (whole, async_whole, streamed, async_streamed):
            assert row["status"] == "error"
            assert row["error_type"].endswith(type(error).__name__)


@pytest.mark.parametrize(("endpoint", "way"), every_way("chat"))
def test_json_that_is_nested_too_deeply_is_the_business_of_the_application_only(endpoint, way, trial):
    answer = as_events(b"data: " + DEEP + b"\n\n", DONE) if way in STREAMED else Answer(DEEP)
    row, _, _ = trial.row(endpoint, way, answer)
    assert row["usage_status"] in ("missing", "invalid")
    assert told(row) == dict.fromkeys(TOKENS)


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_any_body_is_seen_as_it_is(endpoint, trial):
    bodies = st.one_of(
        st.binary(max_size=30),
        RUBBISH.filter(lambda value: not isinstance(value, list)).map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from(["id", "model", "choices", "output", "data", "object", "status", "error", "service_tier"]),
            RUBBISH,
        ).map(lambda value: json.dumps(value).encode()),
    )
    kinds = st.sampled_from(["application/json", "text/html", "text/event-stream", "", None])
    ways = WHOLE if endpoint == "embeddings" else (*WHOLE, *STREAMED)

    @many(30)
    @given(body=bodies, kind=kinds, way=st.sampled_from(ways))
    def check(body, kind, way):
        row, _, _ = trial.row(endpoint, way, Answer(body, kind=kind))
        assert row["usage_status"] == "missing"

    check()


# Names.


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_names_of_odd_types_are_none_and_the_usage_is_told_all_the_same(endpoint, trial):
    names = st.one_of(
        RUBBISH, st.sampled_from(["gpt-4o", "", " ", "\0", "priority", "é" * 300, "x" * 100_000, "'; --"])
    )
    fields = ("id", "model", "service_tier")
    changes = st.fixed_dictionaries({}, optional=dict.fromkeys((*fields, "object", "created", "created_at"), names))

    @many(30)
    @given(changes=changes, way=st.sampled_from(WHOLE))
    def check(changes, way):
        row, _, _ = trial.row(endpoint, way, as_json(answer_with(endpoint, usage=sane_usage(endpoint), **changes)))
        assert row["usage_status"] == "reported"
        assert_honest(row, endpoint, sane_usage(endpoint))
        for field, column in zip(fields, ("response_id", "response_model", "service_tier"), strict=True):
            value = changes.get(field)
            if field in changes and not (field in ("id", "service_tier") and endpoint == "embeddings"):
                assert row[column] == (value if isinstance(value, str) and value else None)

    check()


def test_names_no_database_can_store_do_not_lose_the_row(trial):
    changes = {"id": "a\ud800", "model": "\udfff", "service_tier": "\ud83d", "usage": sane_usage("chat")}
    whole_answer, in_events = as_json(answer_with("chat", **changes)), as_events(event(chunk_with(**changes)), DONE)
    for row, _, _ in trial.rows(
        ("chat", way, in_events if way in STREAMED else whole_answer) for way in (*WHOLE, *STREAMED)
    ):
        assert_honest(row, "chat", sane_usage("chat"))
        assert row["response_id"].startswith("a")


@pytest.mark.parametrize(
    "created",
    [None, "soon", [], {}, True, -1, -(10**30), 10**13, 10**30, 10**300, math.nan, math.inf, -math.inf, 0.5],
    ids=lambda value: repr(value)[:20],
)
def test_a_background_answer_made_at_an_odd_time_makes_a_row(created, trial):
    identities = itertools.count()
    for way, named in itertools.product((whole, raw, streamed, streamed_lines), (True, False)):
        number = next(identities)
        usage = sane_usage("responses")
        changes = {"created_at": created, "background": True, "id": f"resp_{number}" if named else number}
        if way in STREAMED:
            answer = as_events(event(last_event(usage, **changes), "response.completed"))
        else:
            answer = as_json(answer_with("responses", usage=usage, **changes))
        row, _, _ = trial.row("responses", way, answer)
        assert_honest(row, "responses", usage)


ODD_STATES = ["", "done", 7, None, [], ["completed"], {}, True, ABSENT]


@pytest.mark.parametrize("way", FEW, ids=name)
def test_a_response_whose_state_is_odd_keeps_its_usage(way, trial):
    odd = [{"status": state} for state in ODD_STATES]
    odd += [{"status": "failed", "error": error} for error in (None, "no", [], {}, {"code": 7}, {"code": []})]
    odd += [{"incomplete_details": each} for each in ("x", [], {"reason": 7}, [{"reason": "x"}])]
    odd += [{"output": each} for each in (None, {}, "x", 7, [None, 3, "x", []], [{"type": 7, "action": "x"}])]
    odd += [{"conversation": each} for each in ("x", [], {"id": 7}, [{"id": "x"}])]
    odd += [{"background": each} for each in ("x", 1, [], {}, None)]
    usage = sane_usage("responses")

    def answer(changes):
        if way in STREAMED:
            return as_events(event(last_event(usage, **changes), "response.completed"))
        return as_json(answer_with("responses", usage=usage, **changes))

    rows = trial.rows(("responses", way, answer(changes)) for changes in odd)
    for changes, (row, _, _) in zip(odd, rows, strict=True):
        assert (changes, row["usage_status"]) == (changes, "reported")
        assert_honest(row, "responses", usage)


# Errors.


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_an_http_error_makes_a_row_with_its_type_and_never_with_its_message(endpoint, trial, recording):
    bodies = (
        json.dumps({"error": {"message": SECRET, "type": SECRET, "code": SECRET, "param": SECRET}}).encode(),
        json.dumps({"error": SECRET, "usage": sane_usage(endpoint)}).encode(),
        f"<html>{SECRET}</html>".encode(),
        b"[]",
        b"null",
        b"",
        b"\xff",
    )
    ways = WHOLE if endpoint == "embeddings" else (*WHOLE, *STREAMED)
    few = (whole, streamed, raw)
    statuses = (400, 401, 403, 404, 409, 418, 422, 429, 500, 503, 599)
    answers = [
        (way, Answer(body, status=status))
        for way, body, status in itertools.product(ways, bodies, statuses)
        if (body is bodies[0] or status == 429) and (status in (429, 500) or way in few)
    ]
    for row, _, error in trial.rows((endpoint, way, answer) for way, answer in answers):
        assert isinstance(error, openai.APIStatusError)
        assert (row["status"], row["usage_status"]) == ("error", "missing")
        assert row["error_type"] == f"{type(error).__module__}.{type(error).__qualname__}"
        assert SECRET not in str(row)
    for span in recording.spans:
        assert SECRET not in span.to_json()


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError"])
def test_a_connection_that_fails_makes_a_row_with_the_type_of_the_error(error, trial):
    def fail(request):
        raise getattr(httpx2, error)(SECRET, request=request)

    for row, _, raised in trial.rows((*pair, fail) for pair in every_pair("chat", "responses", "embeddings")):
        assert isinstance(raised, openai.APIConnectionError)
        assert (row["status"], row["usage_status"]) == ("error", "missing")
        assert row["error_type"].endswith(type(raised).__name__)
        assert SECRET not in str(row)


# Helpers that read the answer themselves.


def test_an_answer_that_was_too_long_to_be_parsed_was_billed_all_the_same(trial):
    import pydantic

    class Count(pydantic.BaseModel):
        tokens: int

    message = {"role": "assistant", "content": '{"tok'}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]

    def parsed(resource, request, see):
        see(resource.parse(**request, response_format=Count))

    row, _, error = trial.row("chat", parsed, as_json(answer_with("chat", usage=sane_usage("chat"), choices=choices)))
    assert isinstance(error, openai.LengthFinishReasonError)
    assert row["status"] == "error"
    assert_honest(row, "chat", sane_usage("chat"))


# Streams we ask for their usage.


def on_request(always, asked, without=None):
    """A provider that says something else to those who ask for the usage."""

    def answer(request):
        wants = (json.loads(request.content).get("stream_options") or {}).get("include_usage")
        return as_events(*always, *(asked if wants else without or ()), DONE)(request)

    return answer


@pytest.mark.parametrize("way", PARSED_STREAMED, ids=name)
def test_a_usage_the_application_did_not_ask_for_is_not_seen_however_odd(way, asking_trial):
    given = [usage for usage, _ in odd_usages("chat").values() if usage is not ABSENT and usage is not None]
    answers = [on_request([event(chunk_with())], [event(chunk_with(choices=[], usage=usage))]) for usage in given]
    rows = asking_trial.rows(("chat", way, answer) for answer in answers)
    for usage, (row, _, _) in zip(given, rows, strict=True):
        assert row["usage_status"] != "missing" or usage_is_empty(usage)


def usage_is_empty(usage):
    return isinstance(usage, dict) and honest("chat", usage)[0] == {"missing"}


@pytest.mark.parametrize("way", PARSED_STREAMED, ids=name)
def test_an_answer_of_one_chunk_that_has_the_usage_in_it_is_reported(way, asking_trial):
    chunk = chunk_with()
    answer = on_request([], [event({**chunk, "usage": sane_usage("chat")})], [event(chunk)])
    row, _, _ = asking_trial.row("chat", way, answer)
    assert row["usage_status"] == "reported"
    assert_honest(row, "chat", sane_usage("chat"))


@pytest.mark.parametrize("way", PARSED_STREAMED, ids=name)
@pytest.mark.parametrize("choices", [[], None, ABSENT])
def test_the_chunk_with_nothing_but_the_usage_is_not_seen(way, choices, asking_trial):
    extra = event(chunk_with(choices=choices, usage=sane_usage("chat")))
    row, _, _ = asking_trial.row("chat", way, on_request([event(chunk_with())], [extra]))
    assert row["usage_status"] == "reported"


@pytest.mark.parametrize("way", PARSED_STREAMED, ids=name)
def test_odd_chunks_pass_where_the_usage_is_hidden(way, asking_trial):
    asked = [event(chunk_with(choices=[], usage=sane_usage("chat")))]
    answers = [on_request([event(chunk_with()), event(data)], asked) for data in [*ODD_DATA, *ENDS]]
    asking_trial.rows(("chat", way, answer) for answer in answers)
