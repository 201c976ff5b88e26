"""The loopback's Google formats, read by the real SDK without instrumentation: what it parsed is what was told."""

import asyncio
import base64

import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from spanledger.testing import Loopback

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
MODEL = "gemini-2.5-flash"
ASKED = {"usage": {"promptTokenCount": 7, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 14}}


@pytest.fixture(scope="module")
def server():
    with Loopback() as server:
        yield server


@pytest.fixture
def provider(server):
    server._server.book.truth.clear()
    return server


def client_of(mode, root):
    options = types.HttpOptions(base_url=root)
    if mode == "gemini":
        return genai.Client(api_key="test", http_options=options)
    if mode == "express":
        return genai.Client(vertexai=True, api_key="test", http_options=options)
    credentials = Credentials(token="test")
    return genai.Client(vertexai=True, project="p", location="l", credentials=credentials, http_options=options)


MODES = pytest.mark.parametrize("mode", ["gemini", "vertex", "express"])


def wire(usage):
    """The parsed usage, under the names of the wire; what the SDK has no field for is missing."""
    return usage.model_dump(mode="json", by_alias=True, exclude_none=True)


def told(provider):
    return {name: value for name, value in provider.truth[-1]["usage"].items() if name != "serviceTier"}


def asking(**asked):
    return types.HttpOptions(extra_body={"loopback": asked})


def run(client, function):
    """What the asynchronous function gives, with its connections closed."""

    async def closing():
        try:
            return await function()
        finally:
            await client.aio.aclose()

    return asyncio.run(closing())


def content(client, way, **config):
    call = {"model": MODEL, "contents": "How are you?", "config": types.GenerateContentConfig(**config)}

    async def whole():
        return [await client.aio.models.generate_content(**call)]

    async def streamed():
        return [chunk async for chunk in await client.aio.models.generate_content_stream(**call)]

    if way == "whole":
        return [client.models.generate_content(**call)]
    if way == "stream":
        return list(client.models.generate_content_stream(**call))
    return run(client, whole if way == "async" else streamed)


@pytest.mark.parametrize("way", ["whole", "stream", "async", "async stream"])
@pytest.mark.parametrize(
    ("mode", "asked"), [("gemini", {}), ("vertex", {}), ("express", {}), ("gemini", ASKED), ("vertex", {"usage": None})]
)
def test_content(provider, mode, way, asked):
    chunks = content(client_of(mode, provider.root), way, http_options=asking(**asked))
    assert provider.truth[-1]["model"] == chunks[-1].model_version == MODEL
    assert provider.truth[-1]["id"] == chunks[-1].response_id
    if provider.truth[-1]["usage"] is None:
        assert chunks[-1].usage_metadata is None
    else:
        assert wire(chunks[-1].usage_metadata) == told(provider)
        made = [chunk.usage_metadata.candidates_token_count or 0 for chunk in chunks]
        assert made == sorted(made)
    assert len(provider.truth) == 1


@pytest.mark.parametrize(("mode", "traffic"), [("gemini", None), ("vertex", types.TrafficType.ON_DEMAND)])
def test_details(provider, mode, traffic):
    picture = types.Part.from_bytes(data=b"0", mime_type="image/png")
    client = client_of(mode, provider.root)
    config = types.GenerateContentConfig(candidate_count=2, http_options=asking(searches=["a", "b"]))
    answer = client.models.generate_content(model=MODEL, contents=["Hello", picture], config=config)
    assert answer.usage_metadata.traffic_type == traffic
    assert [row.modality.value for row in answer.usage_metadata.prompt_tokens_details] == ["TEXT", "IMAGE"]
    assert answer.candidates[1].grounding_metadata.web_search_queries == ["a", "b"]
    assert wire(answer.usage_metadata) == told(provider)


@pytest.mark.parametrize("way", ["whole", "stream", "async", "async stream"])
def test_functions_are_called(provider, way):
    def weather(city: str) -> str:
        return f"Fine in {city}."

    options = asking(tool={"args": {"city": "Bern"}})
    chunks = content(client_of("gemini", provider.root), way, tools=[weather], http_options=options)
    assert len(provider.truth) == 2
    assert "".join(chunk.text or "" for chunk in chunks)


@pytest.mark.parametrize(
    ("mode", "model", "texts", "count"),
    [
        ("gemini", "gemini-embedding-2", ["one two"], 6),
        ("gemini", "gemini-embedding-001", ["one two"], None),
        ("vertex", "gemini-embedding-2", ["one two"], 6),
        ("vertex", "gemini-embedding-2", ["one two", "three"], 11),
        ("vertex", "text-embedding-005", ["one two", "three"], 11),
        ("express", "text-embedding-005", ["one two"], 6),
    ],
)
def test_embeddings(provider, mode, model, texts, count):
    contents = [types.Content(parts=[types.Part(text=text)]) for text in texts]
    client = client_of(mode, provider.root)
    answer = client.models.embed_content(model=model, contents=contents)
    same = run(client, lambda: client.aio.models.embed_content(model=model, contents=contents))
    told = provider.truth[-1]["usage"]
    assert same.embeddings == answer.embeddings
    assert len(answer.embeddings) == len(texts)
    if provider.truth[-1]["endpoint"] == "predict":
        assert [each.statistics.token_count for each in answer.embeddings] == [each["token_count"] for each in told]
        assert sum(each["token_count"] for each in told) == count
    else:
        assert answer.usage_metadata is None if count is None else answer.usage_metadata.prompt_token_count == count
        assert told is None if count is None else told["promptTokenCount"] == count


EXPERIMENTAL = pytest.mark.filterwarnings("ignore::google.genai._common.ExperimentalWarning")
"""Which the SDK says of pictures, once in a process."""


@EXPERIMENTAL
def test_pictures(provider):
    client = client_of("vertex", provider.root)
    config = types.GenerateImagesConfig(number_of_images=2, http_options=asking(filtered=1))
    answer = client.models.generate_images(model="imagen-4.0-generate-001", prompt="A dog", config=config)
    withheld = [picture.rai_filtered_reason for picture in answer.generated_images]
    assert withheld == [None, None, "as asked"]
    assert provider.truth[-1]["usage"] == {"images": 2}


@EXPERIMENTAL
def test_edited_pictures(provider):
    image = types.Image(image_bytes=base64.b64decode("AAAA"), mime_type="image/png")
    reference = types.RawReferenceImage(reference_id=1, reference_image=image)
    config = types.EditImageConfig(number_of_images=1)
    client = client_of("vertex", provider.root)
    answer = client.models.edit_image(model="imagen-3", prompt="A cat", reference_images=[reference], config=config)
    assert len(answer.generated_images) == provider.truth[-1]["usage"]["images"] == 1


@pytest.mark.parametrize("mode", ["gemini", "vertex"])
def test_cached_contents(provider, mode):
    client = client_of(mode, provider.root)
    config = types.CreateCachedContentConfig(contents=["a long text"], ttl="300s")
    cache = client.caches.create(model=MODEL, config=config)
    assert cache.usage_metadata.total_token_count == provider.truth[-1]["usage"]["totalTokenCount"] == 7
    (answer,) = content(client, "whole", cached_content=cache.name)
    assert answer.usage_metadata.cached_content_token_count == 7
    assert answer.usage_metadata.prompt_token_count > 7


@MODES
def test_counted_tokens(provider, mode):
    assert client_of(mode, provider.root).models.count_tokens(model=MODEL, contents="one two").total_tokens == 6
    assert provider.truth == []


@pytest.mark.parametrize("status", [400, 429, 500])
def test_errors(provider, status):
    with pytest.raises(errors.APIError) as caught:
        content(client_of("gemini", provider.root), "whole", http_options=asking(status=status))
    assert (caught.value.code, caught.value.message) == (status, "as asked")
    assert provider.truth == []


def interacted(client, way, **call):
    call = {"input": "How are you?", "model": MODEL, **call}

    async def streamed():
        return [event async for event in await client.aio.interactions.create(**call, stream=True)]

    async def whole():
        return await client.aio.interactions.create(**call)

    if way == "whole":
        return client.interactions.create(**call)
    if way == "async":
        return run(client, whole)
    events = list(client.interactions.create(**call, stream=True)) if way == "stream" else run(client, streamed)
    assert [event.event_type for event in events if event.event_type != "step.delta"] == [
        "interaction.created",
        "interaction.status_update",
        *["step.start", "step.stop"] * 2,
        "interaction.completed",
    ]
    return events[-1].interaction


@pytest.mark.parametrize("way", ["whole", "stream", "async", "async stream"])
@pytest.mark.parametrize(
    ("mode", "asked"),
    [("gemini", {"searches": ["a"]}), ("vertex", {}), ("gemini", {"usage": {"total_input_tokens": 3}})],
)
def test_interactions(provider, mode, way, asked):
    client = client_of(mode, provider.root)
    interaction = interacted(client, way, extra_body={"loopback": asked})
    again = client.interactions.get(interaction.id)
    parsed = interaction.usage.model_dump(exclude_none=True)
    parsed.pop("initial_input_tokens", None)  # the SDK's own, of its continuation loop
    assert parsed == provider.truth[-1]["usage"]
    assert again.usage.model_dump(exclude_none=True) == parsed
    assert (interaction.id, interaction.model) == (provider.truth[-1]["id"], provider.truth[-1]["model"])
    assert len(provider.truth) == 1


def test_an_interaction_in_the_background_is_told_when_it_is_complete(provider):
    client = client_of("gemini", provider.root)
    begun = client.interactions.create(input="Research", agent="deep-research-pro-preview-12-2025", background=True)
    states = [client.interactions.get(begun.id).status for _ in range(3)]
    assert begun.usage is None
    assert states == ["in_progress", "completed", "completed"]
    assert [each["model"] for each in provider.truth] == ["deep-research-pro-preview-12-2025"]
