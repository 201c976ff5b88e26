"""The GenAI semantic conventions, today's names first and every older spelling after them.

The official instrumentations speak it, and whoever else writes these attributes by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import LEAVES, Dialect
from spanledger.recording.telling import Rank

ATTRIBUTION: Final = {
    **{key: (name,) for key, name in conventions.ATTRIBUTION.items()},
    "user_id": (conventions.USER_ID, "enduser.id", "gen_ai.user.id", "gen_ai.user", "gen_ai.request.user", "llm.user"),
}
SEMCONV: Final = Dialect(
    name="semconv",
    scopes={
        "opentelemetry.instrumentation.genai.*": Rank.SDK_LEVEL,
        "opentelemetry.instrumentation.genai.langchain": Rank.FRAMEWORK,
        "opentelemetry.instrumentation.genai.llama_index": Rank.FRAMEWORK,
        "opentelemetry.instrumentation.genai.portkey": Rank.GATEWAY,
        "opentelemetry.instrumentation.openai_v2": Rank.SDK_LEVEL,
        "opentelemetry.instrumentation.google_genai": Rank.SDK_LEVEL,
        "opentelemetry.instrumentation.vertexai": Rank.SDK_LEVEL,
    },
    marks=(conventions.OPERATION,),
    operation=(conventions.OPERATION,),
    fields={
        "provider": (conventions.PROVIDER, "gen_ai.system"),
        "request_model": (conventions.REQUEST_MODEL,),
        "response_model": (conventions.RESPONSE_MODEL,),
        "response_id": (conventions.RESPONSE_ID,),
        "server_address": (conventions.SERVER_ADDRESS,),
        "conversation_id": (conventions.CONVERSATION_ID,),
        "service_tier": (conventions.OPENAI_RESPONSE_SERVICE_TIER, "gen_ai.openai.response.service_tier"),
        "error_type": (conventions.ERROR_TYPE,),
    },
    usage={
        **{name: (attribute,) for name, attribute in conventions.USAGE.items()},
        "input_tokens": (conventions.INPUT_TOKENS, "gen_ai.usage.prompt_tokens"),
        "output_tokens": (conventions.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens"),
        "cache_read_tokens": (conventions.CACHE_READ_TOKENS, "gen_ai.usage.cache_read_input_tokens"),
        "cache_write_tokens": (conventions.CACHE_WRITE_TOKENS, conventions.CACHE_CREATION_TOKENS,
                               "gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.cache_write_input_tokens"),
        "reasoning_tokens": (conventions.REASONING_TOKENS, "gen_ai.usage.reasoning_tokens"),
        "total": ("gen_ai.usage.total_tokens",),
    },
    costs=("gen_ai.usage.cost.amount", "gen_ai.usage.cost", "gen_ai.usage.total_cost", "operation.cost"),
    attribution=ATTRIBUTION,
    measures=("opentelemetry.instrumentation.genai.*", "opentelemetry.instrumentation.openai_v2",
              "opentelemetry.instrumentation.google_genai"),
)  # fmt: skip
BEDROCK: Final = replace(
    SEMCONV,
    name="botocore",
    # Both hand Bedrock's `inputTokens` on, which leave the cache out (genai-bedrock 1.3b0, botocore 0.58b0 to 0.66b2).
    scopes={
        "opentelemetry.instrumentation.genai.bedrock": Rank.SDK_LEVEL,
        "opentelemetry.instrumentation.botocore*": Rank.SDK_LEVEL,
        "opentelemetry.instrumentation.aiobotocore*": Rank.SDK_LEVEL,
    },
    marks=(),
    operations=LEAVES,
    exclusive=frozenset({"*"}),
    leaves_out={"rpc.method": frozenset({"InvokeModel", "InvokeModelWithResponseStream"})},
    measures=("opentelemetry.instrumentation.*",),
)
