"""OpenInference (Arize). What it has no attribute for stands in the answer's JSON, where that is not hidden."""

from __future__ import annotations

from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import Dialect, more, provider_usage
from spanledger.reading.dialects.semconv import ATTRIBUTION
from spanledger.recording.telling import Rank

_KIND: Final = "openinference.span.kind"
_COUNT: Final = "llm.token_count"
_LANGCHAIN: Final = "output.value#generations.0.0.message.kwargs"

OPENINFERENCE: Final = Dialect(
    name="openinference",
    scopes={
        "openinference.instrumentation.*": Rank.FRAMEWORK,
        **{
            f"openinference.instrumentation.{name}": Rank.SDK_LEVEL
            for name in ("openai", "anthropic", "bedrock", "google_genai", "groq", "mistralai", "vertexai", "cohere",
                         "together", "ollama")
        },
        "openinference.instrumentation.litellm": Rank.GATEWAY,
        "openinference.instrumentation.portkey": Rank.GATEWAY,
    },
    marks=(_KIND,),
    operation=(_KIND,),
    operations={"LLM": conventions.CHAT, "EMBEDDING": conventions.EMBEDDINGS},
    named={"messages.count_tokens": "COUNT"},
    begins=("bedrock.*", "Chat*", "AzureChat*", "messages.*"),
    fields={
        "provider": ("llm.provider", "llm.system", conventions.PROVIDER, "gen_ai.system"),
        "request_model": ("llm.request.model_name", "llm.model_name", "embedding.model_name"),
        "response_model": ("llm.response.model_name", "output.value#model"),
        "response_id": (conventions.RESPONSE_ID, "output.value#id", f"{_LANGCHAIN}.response_metadata.id"),
        "service_tier": ("output.value#service_tier", "output.value#usage.service_tier",
                         f"{_LANGCHAIN}.response_metadata.service_tier"),
        "conversation_id": (conventions.CONVERSATION_ID,),
        "server_address": (conventions.SERVER_ADDRESS,),
        "error_type": (conventions.ERROR_TYPE,),
    },
    providers={
        "openinference.instrumentation.openai": "openai",
        "openinference.instrumentation.anthropic": "anthropic",
        "openinference.instrumentation.bedrock": "aws.bedrock",
        "openinference.instrumentation.google_genai": "gcp.gemini",
        "openinference.instrumentation.groq": "groq",
        "openinference.instrumentation.mistralai": "mistral_ai",
        "openinference.instrumentation.vertexai": "gcp.vertex_ai",
    },
    usage=more(
        {
            "input_tokens": (f"{_COUNT}.prompt",),
            "output_tokens": (f"{_COUNT}.completion",),
            "cache_read_tokens": (f"{_COUNT}.prompt_details.cache_read", f"{_COUNT}.prompt_details.cache_input"),
            "cache_write_tokens": (f"{_COUNT}.prompt_details.cache_write",),
            "reasoning_tokens": (f"{_COUNT}.completion_details.reasoning",),
            "input_audio_tokens": (f"{_COUNT}.prompt_details.audio",),
            "output_audio_tokens": (f"{_COUNT}.completion_details.audio",),
            "web_searches": ("metadata#server_tool_use.web_search_requests",),
        },
        provider_usage("output.value#usage"),
    ),
    costs=("llm.cost.total",),
    attribution=more(ATTRIBUTION, {"metadata": ("metadata",)}),
)  # fmt: skip
