"""Anthropic's own SDK against the loopback: what it understands is what the provider says it has sent."""

import json
import urllib.request

import pydantic
import pytest

anthropic = pytest.importorskip("anthropic")

from anthropic.types import Message, RawMessageStreamEvent  # noqa: E402
from anthropic.types.beta import BetaMessage  # noqa: E402
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse  # noqa: E402

ASK = {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "why is it blue"}]}
TOOL = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
STATED = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 70,
    "output_tokens_details": {"thinking_tokens": 60},
    "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
    "service_tier": "priority",
    "inference_geo": "us",
}
PLATFORMS = ("Anthropic", "AnthropicVertex", "AnthropicFoundry")


def opened(provider, name):
    settings = {
        "Anthropic": {"base_url": provider.root, "api_key": "unused"},
        "AnthropicVertex": {
            "base_url": provider.base_url,
            "access_token": "unused",
            "project_id": "p",
            "region": "us-east5",
        },
        "AnthropicFoundry": {"base_url": f"{provider.root}/anthropic/", "api_key": "unused"},
    }[name.replace("Async", "")]
    return getattr(anthropic, name)(**settings, max_retries=0)


@pytest.fixture(scope="module")
def sdk(provider):
    return opened(provider, "Anthropic")


def strict(kind, value):
    """The SDK's type accepts the value without turning anything into something else."""
    return pydantic.TypeAdapter(kind).validate_json(value if isinstance(value, str) else value.to_json(), strict=True)


def directed(**asked):
    return {"extra_body": {"loopback": asked}}


DIRECTIVES = [{}, {"usage": STATED, "id": "msg_x", "model": "other"}, {"service_tier": "batch", "state": "max_tokens"}]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("asked", DIRECTIVES)
def test_a_message_has_the_usage_of_the_truth(provider, platform, asked):
    with opened(provider, platform) as client:
        answer = client.messages.create(**ASK, **directed(**asked))
        assert answer.usage.to_dict() == provider.truth[-1]["usage"]
        with client.messages.stream(**ASK, **directed(**asked)) as stream:
            events = [event for event in stream if event.type == "message_start"]
            final = stream.get_final_message()
    told = provider.truth[-1]
    strict(Message, answer)
    assert (final.usage.to_dict(), final.id, final.model) == (told["usage"], told["id"], told["model"])
    assert final.stop_reason == answer.stop_reason == asked.get("state", "end_turn")
    assert final.content[0].text.strip() == answer.content[0].text
    assert len(events) == 1


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.anyio
async def test_the_async_clients_say_the_same(provider, platform):
    async with opened(provider, "Async" + platform) as client:
        answer = await client.messages.create(**ASK)
        assert answer.usage.to_dict() == provider.truth[-1]["usage"]
        async with client.messages.stream(**ASK, **directed(usage=STATED)) as stream:
            final = await stream.get_final_message()
        assert final.usage.to_dict() == STATED
        beta = await client.beta.messages.create(**ASK)
        assert strict(BetaMessage, beta).usage.to_dict() == provider.truth[-1]["usage"]


@pytest.mark.parametrize("more", [{}, {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}])
def test_a_stream_states_its_counts_where_anthropic_does(sdk, more):
    events = list(sdk.messages.create(**{**ASK, **more}, stream=True, **directed(usage=STATED, chunks=3)))
    for event in events:
        strict(RawMessageStreamEvent, event)
    start, delta = events[0].message.usage.to_dict(), events[-2].usage.to_dict()
    assert start == {
        name: 1 if name == "output_tokens" else STATED[name]
        for name in STATED
        if name not in ("output_tokens_details", "server_tool_use")
    }
    assert delta == {
        name: STATED[name] for name in STATED if name not in ("cache_creation", "service_tier", "inference_geo")
    }
    texts = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert texts == [*(["thinking_delta", "signature_delta"] if more else []), *["text_delta"] * 3]


def test_counting_matches_the_message(provider, sdk):
    asked = {name: ASK[name] for name in ("model", "messages")}
    with opened(provider, "AnthropicVertex") as vertex:
        counts = [client.messages.count_tokens(**asked).input_tokens for client in (sdk, vertex)]
    assert counts == [sdk.messages.create(**ASK).usage.input_tokens] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_until_its_result_has_come(provider, sdk, stream):
    seen = []

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather there."""
        seen.append(city)
        return "dry"

    before = len(provider.truth)
    runner = sdk.beta.messages.tool_runner(
        **ASK, tools=[weather], stream=stream, **directed(tool="weather", arguments={"city": "Oslo"})
    )
    answers = [part.get_final_message() if stream else part for part in runner]
    assert [answer.stop_reason for answer in answers] == ["tool_use", "end_turn"]
    assert seen == ["Oslo"]
    assert [answer.usage.to_dict() for answer in answers] == [told["usage"] for told in provider.truth[before:]]


def test_a_tool_is_given_what_it_requires(sdk):
    answer = sdk.messages.create(**ASK, tools=[TOOL], **directed(tool="weather"))
    assert answer.content[-1].input == {"city": "x"}
    assert sdk.messages.create(**ASK, tools=[TOOL]).stop_reason == "end_turn"


@pytest.mark.parametrize("room", ["messages", "beta.messages"])
def test_a_batch_ends_with_results(provider, sdk, room):
    rooms = sdk.beta.messages.batches if "beta" in room else sdk.messages.batches
    before = len(provider.truth)
    requests = [{"custom_id": f"c{number}", "params": ASK} for number in range(3)]
    made = rooms.create(requests=requests, **directed(retrievals=1))
    assert rooms.retrieve(made.id).processing_status == "in_progress"
    batch = rooms.retrieve(made.id)
    pydantic.TypeAdapter(MessageBatch).validate_json(batch.to_json())
    assert (batch.processing_status, batch.request_counts.succeeded, batch.request_counts.errored) == ("ended", 2, 1)
    results = list(rooms.results(made.id))
    assert [result.result.type for result in results] == ["succeeded", "succeeded", "errored"]
    for result in results:
        strict(MessageBatchIndividualResponse, result)
    usages = [result.result.message.usage.to_dict() for result in results[:2]]
    assert usages == [told["usage"] for told in provider.truth[before:]]
    assert {usage["service_tier"] for usage in usages} == {"batch"}


def test_an_item_of_a_batch_fails_as_asked(sdk):
    failing = {**ASK, "loopback": {"status": 400}}
    made = sdk.messages.batches.create(
        requests=[{"custom_id": "bad", "params": failing}, {"custom_id": "good", "params": ASK}]
    )
    assert [item.result.type for item in sdk.messages.batches.results(made.id)] == ["errored", "succeeded"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (529, "overloaded_error"), (500, "api_error"), (404, "not_found_error")],
)
def test_an_error_is_anthropics_own(sdk, status, kind):
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(**ASK, **directed(status=status))
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, kind)


def test_a_stream_ends_with_an_error_as_asked(sdk):
    asked = directed(error={"type": "overloaded_error", "message": "Overloaded"}, chunks=2)
    kinds = []
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        kinds.extend(event.type for event in sdk.messages.create(**ASK, stream=True, **asked))
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.retrieve("none")


@pytest.mark.parametrize("stream", [False, True])
def test_legacy_completions_answer_as_recorded(provider, stream):
    body = {"model": "claude-2.1", "prompt": "\n\nHuman: hi\n\nAssistant:", "max_tokens_to_sample": 9, "stream": stream}
    request = urllib.request.Request(f"{provider.base_url}/complete", json.dumps(body).encode(), {})
    with urllib.request.urlopen(request) as response:
        text = response.read().decode()
    parts = (
        [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        if stream
        else [json.loads(text)]
    )
    pieces = [part for part in parts if part["type"] == "completion"]
    assert "".join(piece["completion"] for piece in pieces).startswith(" The" if stream else "The")
    assert (pieces[-1]["stop_reason"], pieces[-1]["log_id"]) == ("stop_sequence", provider.truth[-1]["id"])
    assert provider.truth[-1]["usage"] is None
