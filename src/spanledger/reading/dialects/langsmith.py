"""LangSmith in its OpenTelemetry mode: LangChain's runs as spans, without the provider's id for the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import more
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

_USAGE: Final = "langsmith.metadata.usage_metadata"
_ANSWER: Final = "gen_ai.completion#generations.0.0.message.kwargs.response_metadata"

LANGSMITH: Final = replace(
    SEMCONV,
    name="langsmith",
    scopes={"langsmith": Rank.FRAMEWORK},
    marks=("langsmith.span.kind",),
    operation=("langsmith.span.kind",),
    operations={"llm": conventions.CHAT, "embedding": conventions.EMBEDDINGS},
    begins=("Chat*", "AzureChat*"),
    fields=more(SEMCONV.fields, {"response_id": (f"{_ANSWER}.id",), "service_tier": (f"{_ANSWER}.service_tier",)}),
    usage=more(
        SEMCONV.usage,
        {
            "cache_read_tokens": (f"{_USAGE}#input_token_details.cache_read",
                                  "gen_ai.usage.input_token_details#cache_read"),
            "cache_write_tokens": (f"{_USAGE}#input_token_details.cache_creation",
                                   "gen_ai.usage.input_token_details#cache_creation"),
            "reasoning_tokens": (f"{_USAGE}#output_token_details.reasoning",
                                 "gen_ai.usage.output_token_details#reasoning"),
        },
    ),
    attribution=more(SEMCONV.attribution, {"session_id": ("langsmith.trace.session_id",)}),
    measures=(),
)  # fmt: skip
