"""Amazon Bedrock: the Converse API, and what InvokeModel's bodies, headers and metrics say. Input leaves the cache out.

Fields: `TokenUsage` of the bedrock-runtime service in botocore 1.44; the bodies of Claude, Nova, Titan and Llama in
Bedrock's user guide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.usage.shape import Shape

_CONVERSE_READ: Final = "cacheReadInputTokens|cacheReadInputTokenCount"
_CONVERSE_WRITTEN: Final = "cacheWriteInputTokens|cacheWriteInputTokenCount"

CONVERSE: Final = Shape(
    name="bedrock.converse",
    counts={
        "input_tokens": ("inputTokens", _CONVERSE_READ, _CONVERSE_WRITTEN),
        "output_tokens": ("outputTokens",),
        "cache_read_tokens": (_CONVERSE_READ,),
        "cache_write_tokens": (_CONVERSE_WRITTEN,),
        "cache_write_long_tokens": ("cacheDetails[ttl=1h].inputTokens",),
    },
    adds_up_to="totalTokens",  # botocore leaves out what its version does not know, such as the cache
)

# What the model itself says comes first; last are Bedrock's own metrics, which are there for every model.
_READ: Final = "cache_read_input_tokens|cacheReadInputTokens|cacheReadInputTokenCount"
_WRITTEN: Final = "cache_creation_input_tokens|cacheWriteInputTokens|cacheWriteInputTokenCount"

INVOKE: Final = Shape(
    name="bedrock.invoke",
    counts={
        "input_tokens": (
            "input_tokens|inputTokens|inputTextTokenCount|prompt_token_count|inputTokenCount",
            _READ,
            _WRITTEN,
        ),
        "output_tokens": (
            "output_tokens|outputTokens|tokenCount|totalOutputTextTokenCount|generation_token_count|outputTokenCount",
        ),
        "cache_read_tokens": (_READ,),
        "cache_write_tokens": (_WRITTEN,),
        "cache_write_long_tokens": ("cache_creation.ephemeral_1h_input_tokens|cacheDetails[ttl=1h].inputTokens",),
        "reasoning_tokens": ("output_tokens_details.thinking_tokens",),
        "web_searches": ("server_tool_use.web_search_requests",),
    },
    context={"service_tier": "service_tier", "speed": "speed", "inference_geo": "inference_geo"},
)
INVOKE_EMBEDDINGS: Final = replace(INVOKE, name="bedrock.invoke_embeddings", requires=("input_tokens",))
