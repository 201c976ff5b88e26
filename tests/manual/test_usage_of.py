"""`usage_of`: of every SDK's answer, and of its JSON, the numbers and the cost are those of the ledger's row."""

import contextlib
import json
from decimal import Decimal

import pytest
from openai import OpenAI

import spanledger

HELLO = [{"role": "user", "content": "What is a ledger, and who keeps it?"}]
CHAT = {
    "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 5},
}  # fmt: skip
RESPONSE = {
    "input_tokens": 2006, "input_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 0},
    "output_tokens": 300, "output_tokens_details": {"reasoning_tokens": 128}, "total_tokens": 2306,
}  # fmt: skip
MESSAGE = {
    "input_tokens": 176, "output_tokens": 340, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0}, "service_tier": "standard",
}  # fmt: skip
CONVERSE = {
    "inputTokens": 176, "outputTokens": 340, "totalTokens": 7516, "cacheReadInputTokens": 5000,
    "cacheWriteInputTokens": 2000,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 1500}, {"ttl": "1h", "inputTokens": 500}],
}  # fmt: skip
GENERATION = {
    "promptTokenCount": 1200, "candidatesTokenCount": 200, "thoughtsTokenCount": 140, "toolUsePromptTokenCount": 60,
    "cachedContentTokenCount": 1000, "totalTokenCount": 1600,
}  # fmt: skip
SEARCHES = [
    {"type": "web_search_call", "id": f"ws_{n}", "status": "completed", "action": {"type": "search", "query": "q"}}
    for n in range(3)
]


def answered(usage=None, **more):
    return {"loopback": {**({} if usage is None else {"usage": usage}), **more}}


def openai_client(provider):
    return OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0)


def root_of(provider):
    return provider.base_url.removesuffix("/v1")


def chat(provider):
    with openai_client(provider) as client:
        return client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body=answered(CHAT))


def completion(provider):
    with openai_client(provider) as client:
        return client.completions.create(model="gpt-3.5-turbo-instruct", prompt="What is a ledger?")


def response(provider):
    with openai_client(provider) as client:
        return client.responses.create(model="gpt-5", input="x", extra_body=answered(RESPONSE))


def searched(provider):
    tools, body = [{"type": "web_search"}], answered(RESPONSE, output=SEARCHES)
    with openai_client(provider) as client:
        return client.responses.create(model="gpt-5", input="x", tools=tools, extra_body=body)


def flex(provider):
    body = answered(RESPONSE, service_tier="flex")
    with openai_client(provider) as client:
        return client.responses.create(model="gpt-5", input="x", service_tier="flex", extra_body=body)


def embeddings(provider):
    with openai_client(provider) as client:
        return client.embeddings.create(model="text-embedding-3-small", input="What is a ledger?")


def image(provider):
    with openai_client(provider) as client:
        return client.images.generate(model="gpt-image-1", prompt="a red square")


def transcription(provider):
    heard = ("a.mp3", b"ID3" * 700, "audio/mpeg")
    with openai_client(provider) as client:
        return client.audio.transcriptions.create(model="gpt-4o-transcribe", file=heard)


def message(provider, **more):
    import anthropic

    with anthropic.Anthropic(base_url=root_of(provider), api_key="unused", max_retries=0) as client:
        asked = {"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": HELLO}
        return client.messages.create(**asked, extra_body=answered(MESSAGE, **more))


def generated(provider):
    from google import genai

    options = {"base_url": root_of(provider), "extra_body": answered(GENERATION)}
    with genai.Client(api_key="unused", http_options=options) as client:
        return client.models.generate_content(model="gemini-2.5-flash", contents="What is a ledger?")


CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def conversed(provider):
    import boto3

    client = boto3.client(
        "bedrock-runtime", endpoint_url=root_of(provider), region_name="us-east-1", aws_access_key_id="unused",
        aws_secret_access_key="unused",
    )  # fmt: skip
    asked = [{"role": "user", "content": [{"text": "What is a ledger?"}]}]
    with contextlib.closing(client):
        return client.converse(modelId=CLAUDE, messages=asked, additionalModelRequestFields=answered(CONVERSE))


ANSWERS = {
    "chat": (chat, {}),
    "completion": (completion, {}),
    "response": (response, {}),
    "response with searches": (searched, {}),
    "response, flex": (flex, {}),
    "embeddings": (embeddings, {}),
    "image": (image, {"model": "gpt-image-1"}),
    "transcription": (transcription, {"model": "gpt-4o-transcribe"}),
    "message": (message, {}),
    "generated": (generated, {}),
    "conversed": (conversed, {"model": CLAUDE}),
}
"""What is asked, and what its answer does not tell."""


def as_json(answer, way):
    if way == "object" or isinstance(answer, dict):
        return answer
    if way == "dump":
        return answer.model_dump()
    return json.loads(answer.model_dump_json(by_alias=True, exclude_none=True))


def parts_of(cost):
    return sum(part for name, part in cost._asdict().items() if name != "total_cost")


@pytest.mark.parametrize("way", ["object", "dump", "json"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_numbers_and_the_cost_are_those_of_the_row(recording, provider, ledger, name, way):
    ask, untold = ANSWERS[name]
    said = spanledger.usage_of(as_json(ask(provider), way), **untold)
    (row,) = ledger()
    assert row["cost_pusd"] > 0
    assert {
        "provider": said.provider, "input_tokens": said.prompt_tokens, "output_tokens": said.completion_tokens,
        "cache_read_tokens": said.cache_read_tokens, "cache_write_tokens": said.cache_write_tokens,
        "reasoning_tokens": said.reasoning_tokens, "web_searches": said.web_search_count,
        "usage_status": said.usage_status, "cost_status": said.cost_status,
        "cost_usd": said.cost_breakdown.total_cost, "parts": parts_of(said.cost_breakdown),
    } == {
        **{
            column: row[column]
            for column in (
                "provider", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
                "reasoning_tokens", "web_searches", "usage_status", "cost_status",
            )
        },
        "cost_usd": Decimal(row["cost_pusd"]).scaleb(-12),
        "parts": Decimal(row["cost_pusd"]).scaleb(-12),
    }  # fmt: skip
    assert said.total_tokens == (row["input_tokens"] or 0) + (row["output_tokens"] or 0)
    assert said.request_count == 1


def test_of_a_stream_the_final_answer_has_it_all(client):
    with client.chat.completions.stream(
        model="gpt-4o", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    *_, last = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert spanledger.usage_of(final) == spanledger.usage_of(last)
    assert spanledger.usage_of(last).prompt_tokens > 0


def test_each_part_of_the_cost_has_its_name(recording, provider):
    cost = spanledger.usage_of(message(provider)).cost_breakdown._asdict()
    assert {name: str(amount.normalize()) for name, amount in cost.items()} == {
        "prompt_cost": "0.000176", "completion_cost": "0.0017", "cache_read_cost": "0.0005",
        "cache_write_cost": "0.002875", "reasoning_cost": "0", "web_search_cost": "0.02", "other_cost": "0",
        "total_cost": "0.025251",
    }  # fmt: skip


def test_a_model_without_a_price_has_counts_and_no_cost(client):
    answer = client.chat.completions.create(model="nobody-knows-this", messages=HELLO)
    said = spanledger.usage_of(answer)
    assert (said.model, said.prompt_tokens, said.cost_status) == (
        "nobody-knows-this",
        answer.usage.prompt_tokens,
        "unpriced",
    )
    assert set(said.cost_breakdown) == {None}


def test_the_application_names_the_provider_and_the_model():
    answer = {"object": "chat.completion", "usage": CHAT}
    unknown = spanledger.usage_of(answer)
    named = spanledger.usage_of(answer, model="gpt-4o")
    elsewhere = spanledger.usage_of(answer, provider="azure", model="gpt-4o")
    assert (unknown.model, unknown.cost_status) == (None, "unpriced")
    assert (named.provider, named.model, named.cost_status) == ("openai", "gpt-4o", "priced")
    assert (elsewhere.provider, elsewhere.cost_status) == ("azure.ai.openai", "priced")


def test_a_cost_that_the_provider_states_is_the_cost(client, ledger):
    stated = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "cost": 0.00123}
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body=answered(stated))
    cost = spanledger.usage_of(answer).cost_breakdown
    assert ledger("cost_pusd", "cost_source") == [(1_230_000_000, "provider")]
    assert (cost.total_cost, parts_of(cost)) == (Decimal("0.001230000000"), Decimal("0.001230000000"))


@pytest.mark.parametrize(
    "nothing", [None, 5, "text", b"{}", [], {}, {"a": 1}, {"usage": None}, {"usage": {}}, object(), ValueError("x")]
)
def test_what_is_no_answer_is_a_type_error_that_says_what_may_be_one(nothing):
    with pytest.raises(TypeError, match=r"is no answer with a usage\. It may be one of the OpenAI, Anthropic, Google"):
        spanledger.usage_of(nothing)


def test_a_raw_answer_is_told_to_be_parsed(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    with pytest.raises(TypeError, match=r"of a raw answer pass \.parse\(\)"):
        spanledger.usage_of(raw)
    assert spanledger.usage_of(raw.parse()).prompt_tokens > 0


def test_a_stream_itself_is_a_type_error_and_stays_unread(client, ledger):
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    with pytest.raises(TypeError, match="of a stream the final one"):
        spanledger.usage_of(stream)
    assert len(list(stream)) > 1
    assert [status for (status,) in ledger("status")] == ["success"]


@pytest.mark.parametrize("count", [-1, "12", 1.5, True, 10**40, [], {}])
def test_a_count_that_is_none_makes_the_usage_invalid_and_raises_nothing(count):
    said = spanledger.usage_of(
        {"object": "chat.completion", "model": "gpt-4o", "usage": {"prompt_tokens": count, "completion_tokens": 5}}
    )
    assert (said.usage_status, said.prompt_tokens) == ("invalid", None)


def test_asking_records_nothing(recording, home):
    spanledger.usage_of({"object": "chat.completion", "model": "gpt-4o", "usage": CHAT})
    assert spanledger.flush()
    assert not (home / "ledger.db").exists()
    assert recording.spans == ()


def test_switched_off_it_still_tells(monkeypatch, home):
    monkeypatch.setenv("SPANLEDGER_ENABLED", "false")
    said = spanledger.usage_of({"object": "chat.completion", "model": "gpt-4o", "usage": CHAT})
    assert (said.prompt_tokens, said.cost_status) == (2006, "priced")
    assert not home.exists()
