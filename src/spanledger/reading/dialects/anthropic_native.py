"""The Anthropic SDK's own spans (anthropic >= 1.14): all but what web searches, speed and place add to the price."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.reading.dialect import more
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

ANTHROPIC_NATIVE: Final = replace(
    SEMCONV,
    name="anthropic_native",
    scopes={"com.anthropic.sdk.python*": Rank.SDK_NATIVE},
    marks=(),
    fields=more({"service_tier": ("anthropic.response.service_tier",)}, SEMCONV.fields),
    usage=more(
        {"cache_write_long_tokens": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",)}, SEMCONV.usage
    ),
    adds={
        "input_tokens": ("anthropic.usage.compaction.input_tokens",),
        "output_tokens": ("anthropic.usage.compaction.output_tokens",),
    },
    measures=(),
)
