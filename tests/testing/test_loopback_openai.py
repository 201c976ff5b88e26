"""OpenAI's own SDK against the loopback: what it understands is what the provider says it has sent."""

import base64
import io
import json

import openai
import pydantic
import pytest
from openai.types import (
    Batch,
    FileObject,
    ImageEditStreamEvent,
    ImageGenStreamEvent,
    ImagesResponse,
    ModerationCreateResponse,
)
from openai.types.audio import Transcription, TranscriptionStreamEvent, TranscriptionVerbose, TranslationVerbose
from openai.types.chat import ChatCompletion
from openai.types.responses import CompactedResponse

PNG = ("a.png", b"\x89PNG", "image/png")
MP3 = ("a.mp3", b"ID3" * 700, "audio/mpeg")
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK's, of old methods
WAYS = ("sync", "async")
IMAGE = {"prompt": "a red square", "model": "gpt-image-1"}
HEARD = {"file": MP3, "model": "gpt-4o-transcribe"}


@pytest.fixture(scope="module")
def sdk(provider):
    return openai.OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0)


def strict(kind, value):
    """The SDK's type accepts the value without turning anything into something else."""
    data = value if isinstance(value, str) else value.to_json()
    return pydantic.TypeAdapter(kind).validate_json(data, strict=True)


def plain(usage):
    return None if usage is None else usage.to_dict()


async def drive(provider, way, path, **arguments):
    """The answer of one call; of a stream, its items."""
    kind = openai.OpenAI if way == "sync" else openai.AsyncOpenAI
    client = kind(base_url=provider.base_url, api_key="unused", max_retries=0)
    method = client
    for name in path.split("."):
        method = getattr(method, name)
    answer = method(**arguments)
    if way == "sync":
        answer = list(answer) if arguments.get("stream") else answer
        client.close()
        return answer
    answer = await answer
    answer = [item async for item in answer] if arguments.get("stream") else answer
    await client.close()
    return answer


CALLS = [
    ("chat.completions.create", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, ChatCompletion),
    ("images.generate", {**IMAGE, "n": 2}, ImagesResponse),
    ("images.generate", {"prompt": "x", "model": "dall-e-3"}, ImagesResponse),
    ("images.edit", {**IMAGE, "image": [PNG, PNG], "n": 2}, ImagesResponse),
    ("images.create_variation", {"image": PNG, "response_format": "b64_json"}, ImagesResponse),
    ("audio.transcriptions.create", HEARD, Transcription),
    ("audio.transcriptions.create", {"file": MP3, "model": "whisper-1"}, Transcription),
    (
        "audio.transcriptions.create",
        {"file": MP3, "model": "whisper-1", "response_format": "verbose_json"},
        TranscriptionVerbose,
    ),
    (
        "audio.translations.create",
        {"file": MP3, "model": "whisper-1", "response_format": "verbose_json"},
        TranslationVerbose,
    ),
    ("moderations.create", {"input": ["a", "b"]}, ModerationCreateResponse),
    ("responses.compact", {"model": "gpt-5", "input": "hello there"}, CompactedResponse),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "arguments", "kind"), CALLS)
@pytest.mark.anyio
async def test_a_whole_answer_has_the_type_and_the_usage_of_the_truth(provider, way, path, arguments, kind):
    answer = await drive(provider, way, path, **arguments)
    strict(kind, answer)
    assert plain(getattr(answer, "usage", None)) == provider.truth[-1]["usage"]


STREAMS = [
    ("images.generate", {**IMAGE, "partial_images": 2}, ImageGenStreamEvent),
    ("images.edit", {**IMAGE, "image": PNG, "partial_images": 1}, ImageEditStreamEvent),
    ("audio.transcriptions.create", HEARD, TranscriptionStreamEvent),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "arguments", "kind"), STREAMS)
@pytest.mark.anyio
async def test_the_last_event_of_a_stream_has_the_usage_of_the_truth(provider, way, path, arguments, kind):
    events = await drive(provider, way, path, **arguments, stream=True)
    for event in events:
        strict(kind, event)
    assert len(events) > 1
    assert plain(events[-1].usage) == provider.truth[-1]["usage"]


def test_a_form_is_read_field_by_field(provider, sdk):
    sdk.images.edit(**IMAGE, image=[PNG, PNG], n=2)
    usage = provider.truth[-1]["usage"]
    assert usage["input_tokens_details"] == {"image_tokens": 32, "text_tokens": 7}
    assert usage["output_tokens"] == 32


def test_speech_is_bytes_and_states_a_usage_only_in_events(provider, sdk):
    told = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Read this."}
    assert sdk.audio.speech.create(**told).content
    assert provider.truth[-1]["usage"] is None
    lines = sdk.audio.speech.create(**told, stream_format="sse").text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert base64.b64decode(events[0]["audio"])
    assert events[-1] == {"type": "speech.audio.done", "usage": provider.truth[-1]["usage"]}


def test_a_transcript_as_text_says_nothing_of_usage(provider, sdk):
    assert sdk.audio.transcriptions.create(**HEARD, response_format="text").startswith("The quick")
    assert provider.truth[-1]["usage"] is None


def batch_of(sdk, *bodies, **directives):
    requests = [
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    data = "\n".join(map(json.dumps, requests)).encode()
    file = sdk.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    assert strict(FileObject, file).bytes == len(data)
    return sdk.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"loopback": directives},
    )


def test_a_batch_answers_each_request_of_its_file(provider, sdk):
    question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    before = len(provider.truth)
    made = batch_of(sdk, question, {**question, "loopback": {"status": 400}}, {**question, "model": "m"}, retrievals=1)
    assert sdk.batches.retrieve(made.id).status == "in_progress"
    batch = strict(Batch, sdk.batches.retrieve(made.id))
    assert (batch.status, batch.request_counts.to_dict()) == ("completed", {"completed": 2, "failed": 1, "total": 3})
    lines = [json.loads(line) for line in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in lines] == [
        ("c0", 200),
        ("c1", 400),
        ("c2", 200),
    ]
    bodies = [line["response"]["body"] for line in lines if line["response"]["status_code"] == 200]
    for body in bodies:
        strict(ChatCompletion, json.dumps(body))
    told = provider.truth[before:]
    assert [(each["endpoint"], each["model"], each["usage"]) for each in told] == [
        ("batches", body["model"], body["usage"]) for body in bodies
    ]
    assert batch.usage.total_tokens == sum(body["usage"]["total_tokens"] for body in bodies)


def test_a_batch_of_an_unknown_file_has_made_up_requests(sdk):
    made = sdk.batches.create(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h")
    lines = sdk.files.content(sdk.batches.retrieve(made.id).output_file_id).text.splitlines()
    assert [json.loads(line)["response"]["status_code"] for line in lines] == [200, 200, 400]


@pytest.mark.parametrize("path", ["files.content", "batches.retrieve", "responses.retrieve"])
def test_what_is_not_there_is_not_found(sdk, path):
    room, name = path.split(".")
    with pytest.raises(openai.NotFoundError):
        getattr(getattr(sdk, room), name)("none")


@pytest.mark.parametrize("usage", [None, {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}])
def test_directives_come_by_header_too(provider, sdk, usage):
    asked = {"x-loopback": json.dumps({"usage": usage, "headers": {"x-request-id": "req_7"}})}
    raw = sdk.images.with_raw_response.edit(**IMAGE, image=PNG, extra_headers=asked)
    assert (json.loads(raw.text).get("usage"), raw.headers["x-request-id"]) == (usage, "req_7")
    assert provider.truth[-1]["usage"] == usage


def test_a_stream_breaks_and_a_call_fails_as_asked(sdk):
    cut = {"loopback": {"cut_after": 1}}
    kinds = []
    with pytest.raises(openai.APIConnectionError):
        kinds.extend(
            event.type for event in sdk.images.generate(**IMAGE, partial_images=2, stream=True, extra_body=cut)
        )
    assert kinds == ["image_generation.partial_image"]
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.images.generate(**IMAGE, extra_body={"loopback": {"status": 429}})
    assert caught.value.code == "as_asked"
