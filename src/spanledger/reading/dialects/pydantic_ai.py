"""Pydantic AI, 0.8 to 2.68, in all its formats; its agents repeat the usage of their calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.reading.dialect import more
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

_DETAILS: Final = "gen_ai.usage.details"

PYDANTIC_AI: Final = replace(
    SEMCONV,
    name="pydantic_ai",
    scopes={"pydantic-ai": Rank.FRAMEWORK},
    marks=(),
    named={"agent run": "invoke_agent"},
    usage=more(
        SEMCONV.usage,
        {
            # Beside a genai-prices it does not know, 1.0 writes nothing but the details (Anthropic's own names).
            "uncached": (f"{_DETAILS}.input_tokens",),
            "output_tokens": (f"{_DETAILS}.output_tokens",),
            "cache_read_tokens": (f"{_DETAILS}.cache_read_tokens", f"{_DETAILS}.cache_read_input_tokens"),
            "cache_write_tokens": (f"{_DETAILS}.cache_write_tokens", f"{_DETAILS}.cache_creation_input_tokens"),
            "cache_write_long_tokens": (f"{_DETAILS}.cache_write_1h_tokens", f"{_DETAILS}.ephemeral_1h_input_tokens"),
            "reasoning_tokens": (f"{_DETAILS}.reasoning_tokens", f"{_DETAILS}.thinking_tokens"),
            "input_audio_tokens": (f"{_DETAILS}.input_audio_tokens",),
            "output_audio_tokens": (f"{_DETAILS}.output_audio_tokens",),
            "web_searches": (f"{_DETAILS}.web_search_requests",),
        },
    ),
    costs=("operation.cost",),
    measures=("pydantic-ai",),
)
