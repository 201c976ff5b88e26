"""Langfuse's own observations: usage as JSON, in the provider's names or in Langfuse's."""

from __future__ import annotations

from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import Dialect, more, provider_usage
from spanledger.reading.dialects.semconv import ATTRIBUTION
from spanledger.recording.telling import Rank

_USAGE: Final = "langfuse.observation.usage_details#"
_METADATA: Final = "langfuse.observation.metadata"

LANGFUSE: Final = Dialect(
    name="langfuse",
    scopes={"langfuse-sdk": Rank.SDK_LEVEL},
    marks=("langfuse.observation.type",),
    operation=("langfuse.observation.type",),
    operations={"generation": conventions.CHAT, "embedding": conventions.EMBEDDINGS},
    named={"OpenAI-generation": "generation", "OpenAI-embedding": "embedding"},
    begins=("OpenAI-*",),
    fields={
        "provider": (conventions.PROVIDER, "gen_ai.system", f"{_METADATA}.ls_provider#"),
        "request_model": ("langfuse.observation.model.name",),
        "response_model": (conventions.RESPONSE_MODEL,),
        "response_id": (conventions.RESPONSE_ID, f"{_METADATA}.id#"),
        "service_tier": ("langfuse.observation.model.parameters#service_tier",),
        "error_type": (conventions.ERROR_TYPE,),
    },
    providers={"OpenAI-*": "openai"},
    usage=more(
        {
            "input_tokens": (f"{_USAGE}prompt_tokens", f"{_USAGE}input_tokens"),
            "uncached": (f"{_USAGE}input",),
            "output_tokens": (f"{_USAGE}completion_tokens", f"{_USAGE}output_tokens", f"{_USAGE}output"),
        },
        provider_usage(_USAGE),
        {
            "cache_read_tokens": (f"{_USAGE}input_cached_tokens", f"{_USAGE}input_cache_read"),
            "cache_write_tokens": (f"{_USAGE}input_cache_creation",),
            "cache_write_long_tokens": (f"{_USAGE}input_cache_creation_1h",),
            "reasoning_tokens": (f"{_USAGE}output_reasoning_tokens", f"{_USAGE}output_reasoning"),
        },
    ),
    costs=("langfuse.observation.cost_details#total",),
    attribution=more({"user_id": ("langfuse.user.id",), "session_id": ("langfuse.session.id",)}, ATTRIBUTION),
    properties=("langfuse.trace.metadata.",),
)
