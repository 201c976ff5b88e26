"""Amazon Bedrock's Converse API. Its input leaves the cache out.

Fields: `TokenUsage` of the bedrock-runtime service in botocore 1.44.
"""

from __future__ import annotations

from typing import Final

from spanledger.usage.shape import Shape

CONVERSE: Final = Shape(
    name="bedrock.converse",
    counts={
        "input_tokens": ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        "output_tokens": ("outputTokens",),
        "cache_read_tokens": ("cacheReadInputTokens",),
        "cache_write_tokens": ("cacheWriteInputTokens",),
        "cache_write_long_tokens": ("cacheDetails[ttl=1h].inputTokens",),
    },
)
