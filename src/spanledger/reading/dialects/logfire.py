"""Logfire, 4 and 5. A stream has two spans: the one that ends first has neither usage nor id."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import more, provider_usage
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

LOGFIRE: Final = replace(
    SEMCONV,
    name="logfire",
    scopes={
        "logfire.openai": Rank.SDK_LEVEL,
        "logfire.anthropic": Rank.SDK_LEVEL,
        "logfire.google_genai": Rank.SDK_LEVEL,
        "logfire.litellm": Rank.GATEWAY,
    },
    marks=(),
    named={
        "Chat Completion with *": conventions.CHAT,
        "Responses API with *": conventions.CHAT,
        "Message with *": conventions.CHAT,
        "Completion with *": conventions.TEXT_COMPLETION,
        "Embedding Creation with *": conventions.EMBEDDINGS,
        "streaming response from *": conventions.CHAT,
    },
    begins=("Message with *",),
    in_pairs={"logfire.span_type": frozenset({"span"})},
    fields=more(
        SEMCONV.fields,
        {
            "request_model": ("request_data#model",),
            "response_id": ("response_data#id",),
            "service_tier": ("gen_ai.usage.raw#service_tier", "response_data#usage.service_tier"),
        },
    ),
    providers={"logfire.openai": "openai", "logfire.anthropic": "anthropic"},
    usage=more(
        SEMCONV.usage,
        provider_usage("gen_ai.usage.raw#"),
        {
            "input_tokens": ("response_data#usage.prompt_tokens",),
            "uncached": ("response_data#usage.input_tokens",),
            "output_tokens": ("response_data#usage.completion_tokens", "response_data#usage.output_tokens"),
        },
        provider_usage("response_data#usage"),
    ),
    costs=("operation.cost",),
    measures=(),
)
