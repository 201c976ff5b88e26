"""One and the same usage makes one and the same row, in whatever shape an SDK hands the answer over."""

import asyncio
import dataclasses
import inspect
import io
import json
import operator
import re
import typing
from importlib.metadata import version

import anthropic
import boto3
import openai
import pytest
from aiobotocore.session import get_session
from botocore.config import Config
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from tests.conftest import lacking

import spanledger
from spanledger import guard
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.providers import PROVIDERS

pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .* method is deprecated"),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Calls that make the same row."""

    of: str
    """Provider."""
    covers: tuple[str, ...]
    """Names of the targets it is about, without `Async`; all if `*`."""
    ways: dict[str, typing.Callable]
    """Name of a shape → what makes the call, given the loopback."""
    row: dict[str, typing.Any]
    truth: typing.Any = None
    """The usage the provider says it has sent, where it does."""
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    """Part of the name of a way → what its SDK must have."""
    dropped: dict[str, dict[str, typing.Any]] = dataclasses.field(default_factory=dict)
    """What an old SDK has no place for in its answers → how the row then differs."""


USAGE_COLUMNS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens",
    "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens",
    "web_searches", "other_usage",
)  # fmt: skip
COLUMNS = (
    "operation", "provider", "request_model", "response_model", "status", "finish_reasons", "service_tier",
    "usage_status", *USAGE_COLUMNS, "cost_pusd", "cost_status", "response_id",
)  # fmt: skip


def row(operation, provider, model, **more):
    """A row: what is not named is not known."""
    known = {"operation": operation, "provider": provider, "request_model": model, "response_model": model}
    rest = {"status": "success", "usage_status": "reported", "cost_status": "priced", "response_id": True}
    return {**dict.fromkeys(COLUMNS), **known, **rest, **more}


# The SDKs that Stainless generates: the same shapes for every method.


def read(answer):
    """Read a stream to its end; anything else is there already."""
    return list(answer) if hasattr(answer, "__next__") else answer


async def aread(answer):
    return [each async for each in answer] if hasattr(answer, "__anext__") else answer


def at(client, path, how=""):
    resource, _, method = path.rpartition(".")
    return operator.attrgetter(f"{resource}.{how}.{method}" if how else path)(client)


def parsed(response):
    """The answer in a raw response, or its bytes where it has none."""
    return response.parse() if "json" in response.headers["content-type"] else response.read()


def stainless(clients, path, asked, streamed=None, *, body=True):
    """Every shape of a method; `streamed`: what else is asked for where the answer comes in parts."""
    sync, asynchronous = clients
    ways = {}

    def calls(name, ask):
        def whole(provider):
            with sync(provider) as client:
                return read(at(client, path)(**ask))

        def raw(provider):
            with sync(provider) as client:
                return read(at(client, path, "with_raw_response")(**ask).parse())

        def streaming(provider):
            with sync(provider) as client, at(client, path, "with_streaming_response")(**ask) as response:
                return list(response.iter_lines()) if name else response.read()

        async def awhole(provider):
            async with asynchronous(provider) as client:
                return await aread(await at(client, path)(**ask))

        async def araw(provider):
            async with asynchronous(provider) as client:
                response = (await at(client, path, "with_raw_response")(**ask)).parse()
                return await aread(await response if inspect.isawaitable(response) else response)

        async def astreaming(provider):
            async with (
                asynchronous(provider) as client,
                at(client, path, "with_streaming_response")(**ask) as response,
            ):
                return [line async for line in response.iter_lines()] if name else await response.read()

        for way in (whole, raw, streaming, awhole, araw, astreaming):
            ways[f"{way.__name__}{name}"] = way

    calls("", asked)
    if streamed is not None:
        calls(", streamed", {**asked, **streamed})
    return ways


def openai_clients():
    def made(name):
        return lambda provider: getattr(openai, name)(base_url=provider.base_url, api_key="unused", max_retries=0)

    return made("OpenAI"), made("AsyncOpenAI")


def anthropic_clients(platform=""):
    settings = {
        "": lambda provider: {"base_url": provider.root, "api_key": "unused"},
        "Vertex": lambda provider: {
            "base_url": provider.base_url, "access_token": "unused", "project_id": "p", "region": "us-east5",
        },
        "Foundry": lambda provider: {"base_url": f"{provider.root}/anthropic/", "api_key": "unused"},
        "Bedrock": lambda provider: {
            "base_url": provider.root, "aws_region": "us-east-1", "aws_access_key": "unused",
            "aws_secret_key": "unused",
        },
    }[platform]  # fmt: skip

    def made(name):
        return lambda provider: getattr(anthropic, name)(**settings(provider), max_retries=0)

    return made(f"Anthropic{platform}"), made(f"AsyncAnthropic{platform}")


def helper(clients, path, asked):
    """The helper that streams, and its final answer."""
    sync, asynchronous = clients

    def events(provider):
        with sync(provider) as client, at(client, path)(**asked) as stream:
            return list(stream)

    async def aevents(provider):
        async with asynchronous(provider) as client, at(client, path)(**asked) as stream:
            return [each async for each in stream]

    return {"helper": events, "async helper": aevents}


def only_whole(ways):
    return {name: way for name, way in ways.items() if "streaming" not in name}


def directed(**asked):
    return {"extra_body": {"loopback": asked}}


def by_header(**asked):
    return {"extra_headers": {"x-loopback": json.dumps(asked)}}


MESSAGES = [{"role": "user", "content": "Hello"}]
PNG = ("a.png", b"0", "image/png")
WAV = ("a.wav", b"0", "audio/wav")
OPENAI = openai_clients()
ASKS_USAGE = {"stream": True, "stream_options": {"include_usage": True}}

CHAT_USAGE = {
    "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 50, "audio_tokens": 0},
}  # fmt: skip
CHAT = {"model": "gpt-4o", "messages": MESSAGES, **directed(usage=CHAT_USAGE)}
RESPONSE_USAGE = {
    "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 200, "output_tokens_details": {"reasoning_tokens": 50}, "total_tokens": 1200,
}  # fmt: skip
RESPONSE = {"model": "gpt-5.4", "input": "Hello", **directed(usage=RESPONSE_USAGE)}
COMPLETION_USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
PROMPT = {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello", **directed(usage=COMPLETION_USAGE)}
PICTURE_USAGE = {
    "input_tokens": 60, "input_tokens_details": {"image_tokens": 40, "text_tokens": 20}, "output_tokens": 100,
    "total_tokens": 160,
}  # fmt: skip
HEARD_USAGE = {
    "type": "tokens", "input_tokens": 50, "input_token_details": {"text_tokens": 10, "audio_tokens": 40},
    "output_tokens": 20, "total_tokens": 70,
}  # fmt: skip
HEARD = {"model": "gpt-4o-transcribe", "file": WAV, **by_header(usage=HEARD_USAGE)}
SPEECH_USAGE = {"input_tokens": 30, "output_tokens": 500, "total_tokens": 530}
SPOKEN = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello"}

CLAUDE = "claude-sonnet-4-6"
CLAUDE_USAGE = {
    "input_tokens": 100, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}, "output_tokens": 70,
    "output_tokens_details": {"thinking_tokens": 60}, "service_tier": "standard", "inference_geo": "global",
    "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
}  # fmt: skip
BATCH_USAGE = {**CLAUDE_USAGE, "service_tier": "batch"}
MESSAGE = {"model": CLAUDE, "max_tokens": 99, "messages": MESSAGES, **directed(usage=CLAUDE_USAGE)}


COMPLETE = {"model": "claude-2.1", "max_tokens_to_sample": 99, "prompt": "\n\nHuman: Hello\n\nAssistant:"}


def claude(clients, *rooms):
    """Every shape of a message."""
    ways = {}
    for room in rooms:
        for name, way in stainless(clients, f"{room}.create", MESSAGE, {"stream": True}).items():
            ways[f"{room} {name}"] = way
        for name, way in helper(clients, f"{room}.stream", MESSAGE).items():
            ways[f"{room} {name}"] = way
    return ways


def both(clients, path, asked):
    """Whole, sync and async."""
    return {name: way for name, way in stainless(clients, path, asked).items() if name in ("whole", "awhole", "raw")}


def cooked(clients, path, asked):
    """The same of a method that has no raw answers."""
    return {f"{path} {name}": way for name, way in both(clients, path, asked).items() if name != "raw"}


def openai_batch(provider):
    body = {"model": "gpt-4o", "messages": MESSAGES, "loopback": {"usage": CHAT_USAGE}}
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body}
    with OPENAI[0](provider) as client:
        file = client.files.create(file=("in.jsonl", io.BytesIO(json.dumps(line).encode())), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **directed(retrievals=0)
        )
        return client.batches.retrieve(made.id).output_file_id


def read_file(provider):
    made = openai_batch(provider)
    with OPENAI[0](provider) as client:
        return client.files.content(made).text


async def aread_file(provider):
    made = openai_batch(provider)
    async with OPENAI[1](provider) as client:
        return (await client.files.content(made)).text


def retrieved(provider):
    with OPENAI[0](provider) as client:
        made = client.responses.create(**RESPONSE, background=True)
        for _ in range(3):
            found = client.responses.retrieve(made.id)
        return found


async def aretrieved(provider):
    async with OPENAI[1](provider) as client:
        made = await client.responses.create(**RESPONSE, background=True)
        for _ in range(3):
            found = await client.responses.retrieve(made.id)
        return found


PLAIN = anthropic_clients()


def results(room):
    asked = {"model": CLAUDE, "max_tokens": 99, "messages": MESSAGES, "loopback": {"usage": BATCH_USAGE}}

    def sync(provider):
        with PLAIN[0](provider) as client:
            batches = operator.attrgetter(room)(client).batches
            made = batches.create(requests=[{"custom_id": "c", "params": asked}])
            batches.retrieve(made.id)
            return list(batches.results(made.id))

    async def asynchronous(provider):
        async with PLAIN[1](provider) as client:
            batches = operator.attrgetter(room)(client).batches
            made = await batches.create(requests=[{"custom_id": "c", "params": asked}])
            await batches.retrieve(made.id)
            return [each async for each in await batches.results(made.id)]

    return {f"{room} sync": sync, f"{room} async": asynchronous}


def tool_runner(provider):
    with PLAIN[0](provider) as client:
        return client.beta.messages.tool_runner(**MESSAGE, tools=[]).until_done()


# google-genai.

GEMINI = "gemini-2.5-flash"
GEMINI_USAGE = {
    "promptTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 30, "totalTokenCount": 150,
    "cachedContentTokenCount": 40,
}  # fmt: skip
INTERACTION_USAGE = {
    "total_tokens": 150, "total_input_tokens": 100, "total_cached_tokens": 40, "total_output_tokens": 20,
    "total_tool_use_tokens": 0, "total_thought_tokens": 30,
}  # fmt: skip


def google_client(provider, vertex=False):
    options = types.HttpOptions(base_url=provider.root)
    if not vertex:
        return genai.Client(api_key="test", http_options=options)
    credentials = Credentials(token="test")
    return genai.Client(vertexai=True, project="p", location="l", credentials=credentials, http_options=options)


def on_google(ask, vertex=False):
    """What asks a client: `ask` may give a coroutine of its `aio`, whose connections are then closed."""

    def call(provider):
        client = google_client(provider, vertex)

        async def closing(found):
            try:
                return await aread(await found)
            finally:
                if hasattr(client.aio, "aclose"):
                    await client.aio.aclose()

        found = ask(client)
        return closing(found) if inspect.isawaitable(found) else read(found)

    return call


def options(**asked):
    return {"http_options": {"headers": {"x-loopback": json.dumps(asked)}}}


def contents(vertex):
    config = options(usage=GEMINI_USAGE)
    http = {**config, "should_return_http_response": True}
    call = {"model": GEMINI, "contents": "Hello", "config": config}
    asks = {
        "whole": lambda c: c.models.generate_content(**call),
        "streamed": lambda c: c.models.generate_content_stream(**call),
        "async": lambda c: c.aio.models.generate_content(**call),
        "async streamed": lambda c: c.aio.models.generate_content_stream(**call),
        "http": lambda c: c.models.generate_content(**{**call, "config": http}),
        "chat": lambda c: c.chats.create(model=GEMINI, config=config).send_message("Hello"),
        "chat streamed": lambda c: c.chats.create(model=GEMINI, config=config).send_message_stream("Hello"),
        "async chat": lambda c: c.aio.chats.create(model=GEMINI, config=config).send_message("Hello"),
    }
    return {name: on_google(ask, vertex) for name, ask in asks.items()}


def twice(name, vertex=False, **call):
    """A method of `models`, and the same of `aio.models`."""
    return {
        "sync": on_google(lambda c: getattr(c.models, name)(**call), vertex),
        "async": on_google(lambda c: getattr(c.aio.models, name)(**call), vertex),
    }


def interactions(vertex):
    call = {"input": "Hello", "model": GEMINI, **directed(usage=INTERACTION_USAGE)}
    asks = {
        "whole": lambda c: c.interactions.create(**call),
        "streamed": lambda c: c.interactions.create(**call, stream=True),
        "async": lambda c: c.aio.interactions.create(**call),
        "async streamed": lambda c: c.aio.interactions.create(**call, stream=True),
        "raw": lambda c: c.interactions.with_raw_response.create(**call).parse(),
    }
    return {name: on_google(ask, vertex) for name, ask in asks.items()}


CACHED = {"contents": ["Hello"], **options(usage={"totalTokenCount": 5000})}
IMAGE = types.Image(image_bytes=b"0", mime_type="image/png")
REFERENCE = types.RawReferenceImage(reference_id=1, reference_image=IMAGE)


# Bedrock.


def bedrock(method, **call):
    """A call of boto3's and the same of aiobotocore's."""
    keys = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}

    def sync(provider):
        config = Config(retries={"total_max_attempts": 1})
        client = boto3.client("bedrock-runtime", endpoint_url=provider.root, config=config, **keys)
        found = getattr(client, method)(**call)
        events = found.get("stream") or found.get("body")
        return events.read() if hasattr(events, "read") else list(events or ())

    async def asynchronous(provider):
        async with get_session().create_client("bedrock-runtime", endpoint_url=provider.root, **keys) as client:
            found = await getattr(client, method)(**call)
            events = found.get("stream") or found.get("body")
            if hasattr(events, "read"):
                return await events.read()
            return [event async for event in events] if events is not None else found

    return {method: sync, f"async {method}": asynchronous}


def converse(model, usage):
    call = {
        "modelId": model,
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
        "additionalModelRequestFields": {"loopback": {"usage": usage}},
    }
    return {**bedrock("converse", **call), **bedrock("converse_stream", **call)}


def invoke(model, body, **asked):
    call = {"modelId": model, "body": json.dumps({**body, "loopback": asked})}
    return {**bedrock("invoke_model", **call), **bedrock("invoke_model_with_response_stream", **call)}


CONVERSE_USAGE = {
    "inputTokens": 100, "outputTokens": 20, "totalTokens": 180, "cacheReadInputTokens": 40,
    "cacheWriteInputTokens": 20, "cacheDetails": [{"ttl": "1h", "inputTokens": 5}],
}  # fmt: skip
INVOKED_USAGE = {"inputTokenCount": 100, "outputTokenCount": 20}
HAIKU = "us.anthropic.claude-3-5-haiku-20241022-v1:0"
NOVA = "amazon.nova-lite-v1:0"


CASES = {
    "openai chat": Case(
        of="openai",
        covers=("Completions.create", "Completions.parse"),
        ways={
            **stainless(OPENAI, "chat.completions.create", CHAT, ASKS_USAGE),
            **{f"parse {name}": way for name, way in both(OPENAI, "chat.completions.parse", CHAT).items()},
            **helper(OPENAI, "chat.completions.stream", {**CHAT, "stream_options": {"include_usage": True}}),
        },
        # gpt-4o: 2.50, 1.25 and 10 USD per million.
        row=row(
            "chat", "openai", "gpt-4o", service_tier="default", finish_reasons='["stop"]', input_tokens=1000,
            output_tokens=200, cache_read_tokens=400, reasoning_tokens=50, input_audio_tokens=0,
            output_audio_tokens=0, cost_pusd=600 * 2_500_000 + 400 * 1_250_000 + 200 * 10_000_000,
        ),
        truth=CHAT_USAGE,
        needs={"parse": "chat.completions.parse", "helper": "chat.completions.stream"},
    ),
    "openai responses": Case(
        of="openai",
        covers=("Responses.create", "Responses.parse", "Responses.retrieve"),
        ways={
            **stainless(OPENAI, "responses.create", RESPONSE, {"stream": True}),
            **{f"parse {name}": way for name, way in both(OPENAI, "responses.parse", RESPONSE).items()},
            **helper(OPENAI, "responses.stream", RESPONSE),
            "background": retrieved,
            "async background": aretrieved,
        },
        # gpt-5.4: 2.50, 0.25 and 15 USD per million.
        row=row(
            "chat", "openai", "gpt-5.4", service_tier="default", input_tokens=1000, output_tokens=200,
            cache_read_tokens=400, cache_write_tokens=0, reasoning_tokens=50, web_searches=0,
            cost_pusd=600 * 2_500_000 + 400 * 250_000 + 200 * 15_000_000,
        ),
        truth=RESPONSE_USAGE,
        needs={"": "responses", "background": "responses.create(background)"},
    ),
    "openai compaction": Case(
        of="openai",
        covers=("Responses.compact",),
        ways=stainless(OPENAI, "responses.compact", RESPONSE),
        row=row(
            "chat", "openai", "gpt-5.4", response_model=None, input_tokens=1000, output_tokens=200,
            cache_read_tokens=400, cache_write_tokens=0, reasoning_tokens=50, web_searches=0,
            cost_pusd=600 * 2_500_000 + 400 * 250_000 + 200 * 15_000_000,
        ),
        truth=RESPONSE_USAGE,
        needs={"": "responses.compact"},
    ),
    "openai completions": Case(
        of="openai",
        covers=("Completions.create",),
        ways=stainless(OPENAI, "completions.create", PROMPT, ASKS_USAGE),
        # gpt-3.5-turbo-instruct: 1.50 and 2 USD per million.
        row=row(
            "text_completion", "openai", "gpt-3.5-turbo-instruct", service_tier="default", finish_reasons='["stop"]',
            input_tokens=10, output_tokens=20, cost_pusd=10 * 1_500_000 + 20 * 2_000_000,
        ),
        truth=COMPLETION_USAGE,
    ),
    "openai embeddings": Case(
        of="openai",
        covers=("Embeddings.create",),
        ways=stainless(
            OPENAI,
            "embeddings.create",
            {
                "model": "text-embedding-3-small",
                "input": "Hello",
                **directed(usage={"prompt_tokens": 12, "total_tokens": 12}),
            },
        ),
        # 0.02 USD per million.
        row=row(
            "embeddings", "openai", "text-embedding-3-small", response_id=None, input_tokens=12, cost_pusd=12 * 20_000
        ),
        truth={"prompt_tokens": 12, "total_tokens": 12},
    ),
    "openai pictures": Case(
        of="openai",
        covers=("Images.generate", "Images.edit"),
        ways={
            **stainless(
                OPENAI,
                "images.generate",
                {"model": "gpt-image-1", "prompt": "x", **directed(usage=PICTURE_USAGE)},
                {"stream": True},
            ),
            **{
                f"edit {name}": way
                for name, way in stainless(
                    OPENAI,
                    "images.edit",
                    {"model": "gpt-image-1", "prompt": "x", "image": PNG, **by_header(usage=PICTURE_USAGE)},
                    {"stream": True},
                ).items()
            },
        },
        # gpt-image-1: 5 USD per million of text, 10 of pictures read, 40 of pictures made.
        row=row(
            "generate_content", "openai", "gpt-image-1", response_model=None, response_id=None, input_tokens=60,
            output_tokens=100, input_image_tokens=40,
            cost_pusd=20 * 5_000_000 + 40 * 10_000_000 + 100 * 40_000_000,
        ),
        truth=PICTURE_USAGE,
        needs={", streamed": "images.generate(stream)"},
    ),
    "openai variations": Case(
        of="openai",
        covers=("Images.create_variation",),
        ways=stainless(OPENAI, "images.create_variation", {"model": "dall-e-2", "image": PNG, "size": "1024x1024"}),
        # dall-e-2: 0.02 USD for a picture of this size.
        row=row(
            "generate_content", "openai", "dall-e-2", response_model=None, response_id=None,
            other_usage='{"output_images":1}', cost_pusd=20_000_000_000,
        ),
    ),
    "openai transcriptions": Case(
        of="openai",
        covers=("Transcriptions.create",),
        ways=stainless(OPENAI, "audio.transcriptions.create", HEARD, {"stream": True}),
        # gpt-4o-transcribe: 2.50 USD per million of text, 6 of audio, 10 written.
        row=row(
            "transcription", "openai", "gpt-4o-transcribe", response_model=None, response_id=None, input_tokens=50,
            output_tokens=20, input_audio_tokens=40, cost_pusd=10 * 2_500_000 + 40 * 6_000_000 + 20 * 10_000_000,
        ),
        truth=HEARD_USAGE,
        needs={", streamed": "audio.transcriptions.create(stream)"},
    ),
    "openai translations": Case(
        of="openai",
        covers=("Translations.create",),
        ways=stainless(
            OPENAI,
            "audio.translations.create",
            {"model": "whisper-1", "file": WAV, "response_format": "verbose_json"},
        ),
        # whisper-1: 0.006 USD a minute.
        row=row(
            "translation", "openai", "whisper-1", response_model=None, response_id=None,
            other_usage='{"input_audio_seconds":1}', cost_pusd=100_000_000,
        ),
    ),
    "openai speech": Case(
        of="openai",
        covers=("Speech.create",),
        ways=stainless(OPENAI, "audio.speech.create", {**SPOKEN, "model": "tts-1"}),
        # tts-1: 15 USD per million characters.
        row=row(
            "speech", "openai", "tts-1", response_model=None, response_id=None,
            other_usage='{"input_characters":5}', cost_pusd=5 * 15_000_000,
        ),
    ),
    "openai speech in events": Case(
        of="openai",
        covers=("Speech.create",),
        ways=stainless(
            OPENAI, "audio.speech.create", {**SPOKEN, "stream_format": "sse", **directed(usage=SPEECH_USAGE)}
        ),
        # gpt-4o-mini-tts: 0.60 USD per million read, 12 of audio.
        row=row(
            "speech", "openai", "gpt-4o-mini-tts", response_model=None, response_id=None, input_tokens=30,
            output_tokens=500, cost_pusd=30 * 600_000 + 500 * 12_000_000,
        ),
        truth=SPEECH_USAGE,
        needs={"": "audio.speech.create(stream_format)"},
    ),
    "openai moderations": Case(
        of="openai",
        covers=("Moderations.create",),
        ways=stainless(OPENAI, "moderations.create", {"model": "omni-moderation-latest", "input": "x"}),
        row=row(
            "moderation", "openai", "omni-moderation-latest", other_usage='{"moderations":1}', cost_pusd=0,
            cost_status="free",
        ),
    ),
    "openai batches": Case(
        of="openai",
        covers=("Files.content",),
        ways={"sync": read_file, "async": aread_file},
        # Half of gpt-4o's prices.
        row=row(
            "chat", "openai", "gpt-4o", request_model=None, service_tier="batch", finish_reasons='["stop"]',
            input_tokens=1000, output_tokens=200, cache_read_tokens=400, reasoning_tokens=50, input_audio_tokens=0,
            output_audio_tokens=0, cost_pusd=600 * 1_250_000 + 400 * 625_000 + 200 * 5_000_000,
        ),
        truth=CHAT_USAGE,
    ),
    **{
        f"claude by {provider}": Case(
            of="anthropic",
            covers=covers,
            ways=ways,
            # claude-sonnet-4-6: 3 USD per million, read from the cache 0.30, written 3.75 and for an hour 6, made 15;
            # 10 USD per thousand searches.
            row=row(
                "chat", provider, CLAUDE, service_tier="standard", finish_reasons='["end_turn"]', input_tokens=180,
                output_tokens=70, cache_read_tokens=50, cache_write_tokens=30, cache_write_long_tokens=20,
                reasoning_tokens=60, web_searches=1,
                cost_pusd=100 * 3_000_000 + 50 * 300_000 + 10 * 3_750_000 + 20 * 6_000_000 + 70 * 15_000_000 + 10**10,
            ),
            truth=CLAUDE_USAGE,
            needs=needs,
        )
        for provider, covers, ways, needs in (
            (
                "anthropic",
                ("Messages.create", "Messages.stream", "Messages.parse"),
                {
                    **claude(PLAIN, "messages", "beta.messages"),
                    **cooked(PLAIN, "messages.parse", MESSAGE),
                    **cooked(PLAIN, "beta.messages.parse", MESSAGE),
                    "tool runner": tool_runner,
                },
                {
                    "beta.messages.parse": "beta.messages.parse",
                    "messages.parse": "messages.parse",
                    "tool runner": "beta.messages.tool_runner",
                },
            ),
            ("azure.ai.inference", (), claude(anthropic_clients("Foundry"), "messages"), {"": "AnthropicFoundry"}),
        )
    },
    "claude by its SDK on bedrock": Case(
        of="anthropic",
        covers=(),
        ways=claude(anthropic_clients("Bedrock"), "messages"),
        # As above and 10 % more for a region; nobody says what a search costs there.
        row=row(
            "chat", "aws.bedrock", CLAUDE, service_tier="standard", finish_reasons='["end_turn"]', input_tokens=180,
            output_tokens=70, cache_read_tokens=50, cache_write_tokens=30, cache_write_long_tokens=20,
            reasoning_tokens=60, web_searches=1, cost_status="partial",
            cost_pusd=(100 * 3_000_000 + 50 * 300_000 + 10 * 3_750_000 + 20 * 6_000_000 + 70 * 15_000_000) * 11 // 10,
        ),
        truth=CLAUDE_USAGE,
    ),
    "claude by its SDK on vertex": Case(
        of="anthropic",
        covers=(),
        ways=claude(anthropic_clients("Vertex"), "messages"),
        # Nobody says what a search costs there.
        row=row(
            "chat", "gcp.vertex_ai", CLAUDE, service_tier="standard", finish_reasons='["end_turn"]', input_tokens=180,
            output_tokens=70, cache_read_tokens=50, cache_write_tokens=30, cache_write_long_tokens=20,
            reasoning_tokens=60, web_searches=1, cost_status="partial",
            cost_pusd=100 * 3_000_000 + 50 * 300_000 + 10 * 3_750_000 + 20 * 6_000_000 + 70 * 15_000_000,
        ),
        truth=CLAUDE_USAGE,
    ),
    **(
        {
            "claude completions": Case(
                of="anthropic",
                covers=("Completions.create",),
                ways=stainless(PLAIN, "completions.create", COMPLETE, {"stream": True}),
                row=row(
                    "text_completion", "anthropic", "claude-2.1", finish_reasons='["stop_sequence"]',
                    usage_status="missing", cost_status="unpriced",
                ),
            ),
        }
        if Version(version("anthropic")) < Version("1")  # then they have gone
        else {}
    ),
    "claude in batches": Case(
        of="anthropic",
        covers=("Batches.retrieve", "Batches.results"),
        ways={**results("messages"), **results("beta.messages")},
        # Half of the prices, but for searches.
        row=row(
            "chat", "anthropic", CLAUDE, request_model=None, service_tier="batch", finish_reasons='["end_turn"]',
            input_tokens=180, output_tokens=70, cache_read_tokens=50, cache_write_tokens=30,
            cache_write_long_tokens=20, reasoning_tokens=60, web_searches=1,
            cost_pusd=100 * 1_500_000 + 50 * 150_000 + 10 * 1_875_000 + 20 * 3_000_000 + 70 * 7_500_000 + 10**10,
        ),
        truth=BATCH_USAGE,
    ),
    **{
        f"contents by {provider}": Case(
            of="google_genai",
            covers=("Models._generate_content", "Models._generate_content_stream"),
            ways=contents(vertex),
            # gemini-2.5-flash: 0.30, 0.03 and 2.50 USD per million.
            row=row(
                "generate_content", provider, GEMINI, finish_reasons='["STOP"]', input_tokens=100, output_tokens=50,
                cache_read_tokens=40, reasoning_tokens=30,
                cost_pusd=60 * 300_000 + 40 * 30_000 + 50 * 2_500_000,
            ),
            truth=GEMINI_USAGE,
            needs={"http": "types.GenerateContentConfig(should_return_http_response)"},
            dropped={
                "types.GenerateContentResponse(response_id)": {"response_id": None},
                "types.GenerateContentResponseUsageMetadata(thoughts_token_count)": {
                    "usage_status": "partial", "cost_status": "partial",  # the total says that there was more
                    "output_tokens": 20, "reasoning_tokens": None,
                    "cost_pusd": 60 * 300_000 + 40 * 30_000 + 20 * 2_500_000,
                },
            },
        )
        for provider, vertex in (("gcp.gemini", False), ("gcp.vertex_ai", True))
    },
    "embeddings by gemini": Case(
        of="google_genai",
        covers=("Models._embed_content",),
        ways=twice(
            "embed_content",
            model="gemini-embedding-001",
            contents="Hello",
            config=options(usage={"promptTokenCount": 12}),
        ),
        # 0.15 USD per million.
        row=row(
            "embeddings", "gcp.gemini", "gemini-embedding-001", response_model=None, response_id=None,
            input_tokens=12, cost_pusd=12 * 150_000,
        ),
        truth={"promptTokenCount": 12},
        dropped={
            "types.EmbedContentResponse(usage_metadata)": {
                "usage_status": "missing", "input_tokens": None, "cost_pusd": None, "cost_status": "unpriced",
            },
        },
    ),
    "caches of gemini": Case(
        of="google_genai",
        covers=("Caches.create",),
        ways={
            "sync": on_google(lambda c: c.caches.create(model=GEMINI, config=CACHED)),
            "async": on_google(lambda c: c.aio.caches.create(model=GEMINI, config=CACHED)),
        },
        row=row(
            "create_cache", "gcp.gemini", GEMINI, response_model=f"models/{GEMINI}",
            other_usage='{"cached_content_tokens":5000}', cost_status="unpriced",
        ),
        truth={"totalTokenCount": 5000},
    ),
    "pictures by vertex": Case(
        of="google_genai",
        covers=("Models._generate_images",),
        ways=twice(
            "generate_images",
            True,
            model="imagen-4.0-generate-001",
            prompt="x",
            config={"number_of_images": 2},
        ),
        # 0.04 USD a picture.
        row=row(
            "generate_content", "gcp.vertex_ai", "imagen-4.0-generate-001", response_model=None, response_id=None,
            other_usage='{"output_images":2}', cost_pusd=2 * 40_000_000_000,
        ),
        truth={"images": 2},
    ),
    **{
        f"interactions by {provider}": Case(
            of="google_genai",
            covers=("Interactions.create", "InteractionsResource.create"),
            ways=interactions(vertex),
            row=row(
                "chat", provider, GEMINI, service_tier="standard", input_tokens=100, output_tokens=50,
                cache_read_tokens=40, reasoning_tokens=30,
                cost_pusd=60 * 300_000 + 40 * 30_000 + 50 * 2_500_000,
            ),
            truth=INTERACTION_USAGE,
            needs={"": "interactions"},
        )
        for provider, vertex in (("gcp.gemini", False), ("gcp.vertex_ai", True))
    },
    **{
        f"{name} by vertex": Case(
            of="google_genai",
            covers=(f"Models.{prefix}{name}",),
            ways=twice(name, True, **call),
            row=row(
                "generate_content", "gcp.vertex_ai", call["model"], response_model=None, response_id=None,
                other_usage=f'{{"output_images":{made}}}', cost_status="unpriced",
            ),
            needs={} if prefix else {"": f"models.{name}"},
        )
        for made, name, prefix, call in (
            (1, "edit_image", "_", {"model": "imagen-3.0-capability-001", "prompt": "x",
                                 "reference_images": [REFERENCE],
                                 "config": {"number_of_images": 1}}),
            (1, "upscale_image", "_", {"model": "imagen-4.0-upscale-preview", "image": IMAGE, "upscale_factor": "x2"}),
            (1, "recontext_image", "", {"model": "imagen-product-recontext-preview-06-30",
                                     "source": {"prompt": "x"},
                                     "config": {"number_of_images": 1}}),
            (4, "segment_image", "", {"model": "image-segmentation-001",
                                   "source": {"image": IMAGE},
                                   "config": {"mode": "FOREGROUND", "max_predictions": 1}}),
        )
    },
    "converse": Case(
        of="bedrock",
        covers=("*",),
        ways=converse(NOVA, CONVERSE_USAGE),
        row=row(
            "chat", "aws.bedrock", NOVA, response_model=None, response_id=None, finish_reasons='["end_turn"]',
            input_tokens=160, output_tokens=20, cache_read_tokens=40, cache_write_tokens=20, cache_write_long_tokens=5,
            # Nova Lite: 0.06 USD per million, 0.015 from the cache, 0.24 made.
            cost_pusd=120 * 60_000 + 40 * 15_000 + 20 * 240_000,
        ),
        truth=CONVERSE_USAGE,
        dropped={
            "TokenUsage(cacheDetails)": {"cache_write_long_tokens": None},
            "TokenUsage(cacheReadInputTokens)": {
                "usage_status": "partial", "cost_status": "partial",
                "input_tokens": 100, "cache_read_tokens": None, "cache_write_tokens": None,
                "cost_pusd": 100 * 60_000 + 20 * 240_000,
            },
        },
    ),
    **{
        f"invoke {model}": Case(
            of="bedrock",
            covers=("*",),
            ways=invoke(model, body, **asked),
            row=row(
                "chat", "aws.bedrock", model,
                **{"response_model": None, "response_id": None, "input_tokens": 100, "output_tokens": 20, **more},
            ),
        )
        for model, body, asked, more in (
            # USD per million: 0.80 and 4; 0.06 and 0.24; 0.15 and 0.20; 0.30 and 0.60; 0.15 and 0.20.
            (HAIKU, {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": MESSAGES},
             {"usage": {"input_tokens": 100, "output_tokens": 20}},
             {"response_model": "claude-3-5-haiku-20241022", "response_id": True, "finish_reasons": '["end_turn"]',
              "cost_pusd": 100 * 800_000 + 20 * 4_000_000}),
            (NOVA, {"messages": []}, {"usage": {"inputTokens": 100, "outputTokens": 20}},
             {"finish_reasons": '["end_turn"]', "cost_pusd": 100 * 60_000 + 20 * 240_000}),
            ("amazon.titan-text-lite-v1", {"inputText": "hi"},
             {"usage": {"inputTextTokenCount": 100, "tokenCount": 20}},
             {"finish_reasons": '["FINISH"]', "cost_pusd": 100 * 150_000 + 20 * 200_000}),
            ("meta.llama3-8b-instruct-v1:0", {"prompt": "hi"},
             {"usage": {"prompt_token_count": 100, "generation_token_count": 20}},
             {"finish_reasons": '["stop"]', "cost_pusd": 100 * 300_000 + 20 * 600_000}),
            ("mistral.mistral-7b-instruct-v0:2", {"prompt": "hi"}, {"metrics": INVOKED_USAGE},
             {"finish_reasons": '["stop"]', "cost_pusd": 100 * 150_000 + 20 * 200_000}),
            ("cohere.command-r-v1:0", {"message": "hi"}, {"metrics": INVOKED_USAGE},
             {"finish_reasons": '["COMPLETE"]', "cost_status": "unpriced"}),
        )
    },
}  # fmt: skip


def required(case, way):
    """The marks of what a way needs: the longest name that is part of its own decides."""
    parts = sorted((part for part in case.needs if part in way), key=len)
    return [pytest.mark.needs(case.needs[part], of=PROVIDERS[case.of].package) for part in parts[-1:]]


ALL = [
    pytest.param(case, way, id=f"{name}: {way}", marks=required(case, way))
    for name, case in CASES.items()
    for way in case.ways
]


def made(way, provider):
    """What the call gives."""
    found = way(provider)
    if not inspect.isawaitable(found):
        return found

    async def awaiting():
        return await found

    return asyncio.run(awaiting())


@pytest.mark.parametrize(("case", "way"), ALL)
def test_every_shape_of_a_call_makes_the_same_row(case, way, recording, provider, ledger):
    before = len(provider.truth)
    made(case.ways[way], provider)
    (told,) = provider.truth[before:]
    (found,) = ledger(*COLUMNS)
    found = dict(zip(COLUMNS, found, strict=True))
    assert found["response_id"] in (told["id"], None)
    found["response_id"] = found["response_id"] is not None or None
    expected = dict(case.row)
    for path, differs in case.dropped.items():
        # Of Bedrock's streams we read the bytes, of which no SDK drops anything.
        if lacking(path, PROVIDERS[case.of].package) and not way.endswith("converse_stream"):
            expected.update(differs)
    assert {name: (found[name], wanted) for name, wanted in expected.items() if found[name] != wanted} == {}
    assert told["usage"] == case.truth or case.truth is None


def test_every_method_of_every_table_has_a_case():
    for name, provider in PROVIDERS.items():
        covered = {each for case in CASES.values() if case.of == name for each in case.covers}
        for target in provider.targets:
            package = target.package or provider.package
            if SpecifierSet(target.versions).contains(version(package), prereleases=True):
                bare = target.name.replace("Async", "")
                assert "*" in covered or bare in covered or f"Models._{bare[7:]}" in covered, (name, target.name)


@pytest.mark.lenient
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_mistake_of_ours_does_not_reach_the_application(name, recording, provider, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr(Plan, "find_usage", broken)
    case = next(case for case in CASES.values() if case.of == name)
    for way in [*case.ways.values()][:2]:
        guard.failures.clear()
        watched = made(way, provider)
        assert sum(guard.failures.values()) >= 1
        spanledger.uninstrument(name)
        bare = made(way, provider)
        spanledger.instrument(name)
        assert type(watched) is type(bare)
        assert worth(watched) == worth(bare)


def worth(answer):
    """What an answer says, but for its number."""
    return re.sub(r"(loopback|chatcmpl|msg)[-_]\w+|HTTP date", "", re.sub(r"'date': '[^']*'", "", str(answer)))
