"""OpenAI and what speaks its API: chat, Responses, legacy completions, embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.providers.hosts import OPENAI_COMPATIBLE, STATES_COST
from spanledger.instrumentation.spec import CHAT_REQUEST, Count, Endpoint, Provider, Target
from spanledger.usage.shapes import openai as shapes

CHAT: Final = Endpoint(
    operation=conventions.CHAT,
    usage=shapes.CHAT,
    usage_at=("usage", "x_groq.usage", "choices.0.usage"),  # the last is Moonshot's, in streams
    signals=("usage", "choices.0.finish_reason", "x_groq"),
    choices="n",
    error_carries="completion",  # openai.LengthFinishReasonError: cut short before it could be parsed, and billed
    finish_reasons="choices.*.finish_reason",
    stream_usage=True,
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
    ends=("response.completed", "response.incomplete", "response.failed", "[DONE]"),
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
EMBEDDINGS: Final = Endpoint(
    operation=conventions.EMBEDDINGS,
    usage=shapes.EMBEDDINGS,
    id="",
    request={conventions.EMBEDDING_DIMENSIONS: "dimensions"},
)

_METHODS: Final = (
    ("chat.completions.completions", "Completions.create", CHAT, True),
    ("chat.completions.completions", "Completions.parse", CHAT, True),
    # Until 1.62 chat.completions was one module, until 1.91 `parse` stood under `beta`.
    ("chat.completions", "Completions.create", CHAT, True),
    ("beta.chat.completions", "Completions.parse", CHAT, True),
    ("completions", "Completions.create", COMPLETION, False),
    ("embeddings", "Embeddings.create", EMBEDDINGS, False),
    ("responses.responses", "Responses.create", RESPONSES, True),
    ("responses.responses", "Responses.parse", RESPONSES, True),
    ("responses.responses", "Responses.retrieve", RETRIEVE, True),
)

OPENAI: Final = Provider(
    name="openai",
    package="openai",
    requires=">=1.26,<4",
    oldest="1.26.0",
    targets=tuple(
        Target(module=f"openai.resources.{module}", name=prefix + name, endpoint=endpoint, optional=optional)
        for module, name, endpoint, optional in _METHODS
        for prefix in ("", "Async")
    ),
    clients={"AzureOpenAI": "azure.ai.openai", "AsyncAzureOpenAI": "azure.ai.openai"},
    hosts=OPENAI_COMPATIBLE,
    asks_usage_of=("openai", "azure.ai.openai"),
    states_cost=STATES_COST,
    responses_pass=tuple(("openai._base_client", f"{kind}APIClient._process_response") for kind in ("Sync", "Async")),
    # Azure's API takes stream_options from this version on (Azure OpenAI REST reference, chat completions).
    asks_usage_from={"azure.ai.openai": ("_api_version", "2024-09-01-preview")},
)
