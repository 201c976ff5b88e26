"""Asking for the usage of streams: who is asked, and that the application can't tell."""

import json

import pytest
from openai import AzureOpenAI, OpenAI
from tests.conftest import httpx2

import spanledger

QUESTION = [{"role": "user", "content": "Hello"}]
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "service_tier": "default"}
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def service(seen):
    """Streams as OpenAI does: usage null on every chunk and a chunk of its own at the end, where it is asked for."""

    def answer(request):
        body = json.loads(request.content)
        seen.append(body)
        asked = (body.get("stream_options") or {}).get("include_usage")
        more = {"usage": None} if asked else {}
        choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None, "logprobs": None}
        chunks = [
            {**HEAD, "choices": [], "prompt_filter_results": [], **more},  # Azure's first chunk
            {**HEAD, "choices": [choice], **more},
            {**HEAD, "choices": [{**choice, "delta": {}, "finish_reason": "stop"}], **more},
        ]
        if asked:
            chunks.append({**HEAD, "choices": [], "usage": USAGE})
        text = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        return httpx2.Response(200, content=text + b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"})

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def openai(seen, base_url="https://api.openai.com/v1"):
    return OpenAI(api_key="x", base_url=base_url, http_client=service(seen))


def azure(seen, version):
    return AzureOpenAI(
        api_key="x", azure_endpoint="https://mine.openai.azure.com", api_version=version, http_client=service(seen)
    )


def dumped(client, **more):
    stream = client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True, **more)
    return [(chunk.model_dump(exclude_unset=True), chunk.model_dump(), chunk.to_json()) for chunk in stream]


def bare(client, **more):
    spanledger.uninstrument()
    try:
        return dumped(client, **more)
    finally:
        spanledger.instrument()


@pytest.mark.parametrize(
    "client",
    [openai, lambda seen: openai(seen, "https://eu.api.openai.com/v1"), lambda seen: azure(seen, "2024-10-21")],
    ids=["openai", "openai in Europe", "azure"],
)
def test_a_known_service_is_asked_and_the_application_sees_no_difference(recording, ledger, client):
    seen = []
    assert dumped(client(seen)) == bare(client(seen))
    assert [body.get("stream_options") for body in seen] == [{"include_usage": True}, None]
    assert ledger("usage_status", "input_tokens", "output_tokens", "status") == [("reported", 8, 2, "success")]


@pytest.mark.needs("chat.completions.stream")
def test_the_helper_accumulates_what_it_would_without_us(recording, ledger):
    def final(client):
        with client.chat.completions.stream(model="gpt-4o", messages=QUESTION) as stream:
            return stream.get_final_completion().model_dump(exclude_unset=True)

    ours = final(openai([]))
    spanledger.uninstrument()
    assert ours == final(openai([]))
    assert ledger("input_tokens") == [(8,)]


def test_other_stream_options_stay(recording):
    seen = []
    dumped(openai(seen), stream_options={"include_obfuscation": False})
    assert seen[0]["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("wish", [True, False])
def test_what_the_application_says_itself_stands(recording, ledger, wish):
    seen = []
    options = {"stream_options": {"include_usage": wish}}
    assert dumped(openai(seen), **options) == bare(openai(seen), **options)
    assert seen[0] == seen[1]
    assert ledger("usage_status") == [("reported" if wish else "missing",)]


@pytest.mark.parametrize(
    "client",
    [
        lambda seen: openai(seen, "http://127.0.0.1:9/v1"),
        lambda seen: openai(seen, "https://llm.example.org/v1"),
        lambda seen: openai(seen, "https://api.deepseek.com/v1"),
        lambda seen: azure(seen, "2024-02-01"),
    ],
    ids=["loopback", "unknown host", "another provider", "old azure"],
)
def test_nobody_else_is_asked(recording, ledger, client):
    seen = []
    dumped(client(seen))
    assert "stream_options" not in seen[0]
    assert ledger("usage_status", "status") == [("missing", "success")]


@pytest.mark.parametrize("raw", ["with_raw_response", "with_streaming_response"])
def test_raw_answers_are_never_altered(recording, raw):
    seen = []
    completions = getattr(openai(seen).chat.completions, raw)
    answer = completions.create(model="gpt-4o", messages=QUESTION, stream=True)
    if raw == "with_raw_response":
        list(answer.parse())
    else:
        with answer as response:
            list(response.iter_lines())
    assert "stream_options" not in seen[0]


def test_never_asks_nobody_and_always_asks_everybody(telemetry, ledger, monkeypatch):
    seen = []
    spanledger.configure(tracer_provider=telemetry.tracer_provider, stream_usage="never")
    dumped(openai(seen))
    spanledger.configure(tracer_provider=telemetry.tracer_provider, stream_usage="always")
    assert dumped(openai(seen, "http://127.0.0.1:9/v1")) == bare(openai(seen, "http://127.0.0.1:9/v1"))
    assert ["stream_options" in body for body in seen] == [False, True, False]


def test_asking_is_said_once(recording, caplog):
    caplog.set_level("INFO", "spanledger")
    client = openai([])
    dumped(client)
    dumped(client)
    said = [record.message for record in caplog.records if "asked for their usage" in record.message]
    assert said == ["Streams of openai are asked for their usage; the application sees no difference."]
