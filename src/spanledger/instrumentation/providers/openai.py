"""OpenAI and what speaks its API: chat, Responses, legacy completions, embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.providers.openai_media import IMAGE, MODERATION, SPEECH, TRANSCRIPTION, TRANSLATION
from spanledger.instrumentation.spec import CHAT_REQUEST, Batch, Count, Endpoint, Provider, Target
from spanledger.pricing.hosts import OPENAI_COMPATIBLE, STATES_COST
from spanledger.usage.shapes import openai as shapes

CHAT: Final = Endpoint(
    operation=conventions.CHAT,
    usage=shapes.CHAT,
    usage_at=("usage", "x_groq.usage", "choices.0.usage"),  # the last is Moonshot's, in streams
    last_signals=("choices.0.finish_reason", "x_groq"),
    choices="n",
    tier_attribute=conventions.OPENAI_RESPONSE_SERVICE_TIER,
    error_carries="completion",  # openai.LengthFinishReasonError: cut short before it could be parsed, and billed
    finish_reasons="choices.*.finish_reason",
    stream_usage=True,
    user="safety_identifier|user",
    request={
        **CHAT_REQUEST,
        conventions.REQUEST_MAX_TOKENS: "max_tokens",
        conventions.REQUEST_REASONING_LEVEL: "reasoning_effort",
        conventions.OPENAI_REQUEST_SERVICE_TIER: "service_tier",
    },
)
COMPLETION: Final = replace(CHAT, operation=conventions.TEXT_COMPLETION)
RESPONSES: Final = Endpoint(
    operation=conventions.CHAT,
    usage=shapes.RESPONSES,
    counts={
        # An action of another type than `search` opens or reads a page and is not billed (OpenAI's pricing page).
        "web_searches": Count(items="output", where={"type": "web_search_call", "action.type": "search"}),
        "storage_searches": Count(items="output", where={"type": "file_search_call"}),
    },
    roots=("response",),
    signals=("response",),
    tier_attribute=conventions.OPENAI_RESPONSE_SERVICE_TIER,
    finish_reasons="incomplete_details.reason",
    conversation="conversation.id",
    state="status",
    states={
        "completed": "success",
        "incomplete": "success",  # cut short by a limit of the request, and billed as it is
        "failed": "error",
        "cancelled": "cancelled",
        "queued": "incomplete",
        "in_progress": "incomplete",
    },
    error="error.code",
    created_at="created_at",
    background="background",
    user="safety_identifier|user",
    request={
        conventions.REQUEST_TEMPERATURE: "temperature",
        conventions.REQUEST_TOP_P: "top_p",
        conventions.REQUEST_MAX_TOKENS: "max_output_tokens",
        conventions.REQUEST_PREVIOUS_RESPONSE: "previous_response_id",
        conventions.REQUEST_REASONING_LEVEL: "reasoning.effort",
        conventions.OPENAI_REQUEST_SERVICE_TIER: "service_tier",
    },
)
RETRIEVE: Final = replace(RESPONSES, operation=conventions.FETCH_RESPONSE, fetched=True, request={})
COMPACT: Final = Endpoint(
    operation=conventions.CHAT, usage=shapes.RESPONSES, counts=RESPONSES.counts, model="", service_tier=""
)
EMBEDDINGS: Final = Endpoint(
    operation=conventions.EMBEDDINGS,
    usage=shapes.EMBEDDINGS,
    id="",
    service_tier="",
    user="user",
    request={conventions.EMBEDDING_DIMENSIONS: "dimensions"},
)

RESULTS: Final = Batch(
    endpoints={"chat.completion": CHAT, "response": RESPONSES, "text_completion": COMPLETION, "list": EMBEDDINGS},
    kind="object",
    answer="response.body",
    id="id|custom_id",  # Azure's items have no id of their own
    batch_id="file_id",
    error="error.code|response.body.error.code|response.body.error.type",
    created_at="created|created_at",
    marks=frozenset({"custom_id", "response", "error"}),
)

_METHODS: Final = (
    ("chat.completions.completions", "Completions.create", CHAT, ">=1.63"),
    ("chat.completions.completions", "Completions.parse", CHAT, ">=1.92"),
    ("chat.completions", "Completions.create", CHAT, "<1.63"),
    ("beta.chat.completions", "Completions.parse", CHAT, ">=1.40,<1.92"),
    ("completions", "Completions.create", COMPLETION, ""),
    ("embeddings", "Embeddings.create", EMBEDDINGS, ""),
    ("responses.responses", "Responses.create", RESPONSES, ">=1.66"),
    ("responses.responses", "Responses.parse", RESPONSES, ">=1.66"),
    ("responses.responses", "Responses.retrieve", RETRIEVE, ">=1.66"),
    ("responses.responses", "Responses.compact", COMPACT, ">=2.9"),
    ("images", "Images.generate", IMAGE, ""),
    ("images", "Images.edit", IMAGE, ""),
    ("images", "Images.create_variation", IMAGE, ""),
    ("audio.transcriptions", "Transcriptions.create", TRANSCRIPTION, ""),
    ("audio.translations", "Translations.create", TRANSLATION, ""),
    ("audio.speech", "Speech.create", SPEECH, ""),
    ("moderations", "Moderations.create", MODERATION, ""),
    ("files", "Files.content", RESULTS, ""),
)

OPENAI: Final = Provider(
    name="openai",
    title="OpenAI, Azure OpenAI and what speaks their API",
    package="openai",
    imports="openai",
    requires=">=1.26,<4",
    oldest="1.26.0",
    targets=tuple(
        Target(module=f"openai.resources.{module}", name=prefix + name, endpoint=endpoint, versions=versions)
        for module, name, endpoint, versions in _METHODS
        for prefix in ("", "Async")
    ),
    clients={"AzureOpenAI": "azure.ai.openai", "AsyncAzureOpenAI": "azure.ai.openai"},
    hosts=OPENAI_COMPATIBLE,
    asks_usage_of=("openai", "azure.ai.openai"),
    traced_inside={"request": ("openinference.", "logfire.")},
    traced_after={
        f"{prefix}Responses.{name}": ("opentelemetry.instrumentation.openai.",)  # OpenLLMetry
        for prefix in ("", "Async")
        for name in ("create", "parse")
    },
    states_cost=STATES_COST,
    responses_pass=tuple(("openai._base_client", f"{kind}APIClient._process_response") for kind in ("Sync", "Async")),
    # Azure's API takes stream_options from this version on (Azure OpenAI REST reference, chat completions).
    asks_usage_from={"azure.ai.openai": ("_api_version", "2024-09-01-preview")},
)
