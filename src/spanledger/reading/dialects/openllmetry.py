"""OpenLLMetry (Traceloop), 0.30 to 0.62."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import LEAVES, more
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

_SDKS: Final = (
    "openai*", "bedrock", "cohere", "google_generativeai", "groq", "mistralai", "ollama", "replicate", "sagemaker",
    "together", "transformers", "voyageai", "watsonx", "writer", "alephalpha",
)  # fmt: skip
_FRAMEWORKS: Final = ("langchain", "llamaindex", "haystack", "crewai", "agno", "openai_agents", "mcp")

OPENLLMETRY: Final = replace(
    SEMCONV,
    name="openllmetry",
    scopes={
        **{f"opentelemetry.instrumentation.{name}": Rank.SDK_LEVEL for name in _SDKS},
        **{f"opentelemetry.instrumentation.{name}": Rank.FRAMEWORK for name in _FRAMEWORKS},
        "opentelemetry.instrumentation.litellm": Rank.GATEWAY,
    },
    marks=("llm.request.type", "traceloop.span.kind"),
    operation=(conventions.OPERATION, "llm.request.type", "traceloop.span.kind"),
    operations={**LEAVES, "completion": conventions.TEXT_COMPLETION, "embedding": conventions.EMBEDDINGS},
    named={"openai.response": conventions.CHAT, "anthropic.chat": conventions.CHAT},
    begins=("openai.*", "*.chat", "*.completion"),
    fields=more(
        SEMCONV.fields,
        {
            "provider": ("llm.vendor",),
            "request_model": ("llm.request.model",),
            "response_model": ("llm.response.model",),
            "server_address": ("gen_ai.openai.api_base",),
        },
    ),
    usage=more(
        SEMCONV.usage,
        {
            "input_tokens": ("llm.usage.prompt_tokens",),
            "output_tokens": ("llm.usage.completion_tokens",),
            "reasoning_tokens": ("llm.usage.reasoning_tokens",),
            "total": ("llm.usage.total_tokens",),
        },
    ),
    stream=("gen_ai.is_streaming", "llm.is_streaming"),
    attribution=more(SEMCONV.attribution, {"feature": ("traceloop.workflow.name",)}),
    properties=("traceloop.association.properties.",),
    exclusive=frozenset({"aws.bedrock"}),
    thoughts_apart=frozenset({"gcp.gen_ai", "gcp.gemini", "gcp.vertex_ai"}),
    measures=("opentelemetry.instrumentation.*",),
)
OPENLLMETRY_ANTHROPIC: Final = replace(
    OPENLLMETRY,
    name="openllmetry_anthropic",
    scopes={"opentelemetry.instrumentation.anthropic": Rank.SDK_LEVEL},
    marks=(),
    # The output of a stream has the placeholder of its start in it.
    estimates={"gen_ai.is_streaming": frozenset({True}), "llm.is_streaming": frozenset({True})},
)
