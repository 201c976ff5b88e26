"""Anthropic's Messages API, also behind Bedrock, Vertex AI and Foundry.

Fields: `anthropic.types.Usage` and `anthropic.types.beta.BetaUsage` of anthropic 2.12.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.usage.shape import Shape

# What a compaction uses is billed beside the top level, which leaves it out; entries of other types repeat it or are of
# another model.
_ITERATIONS: Final = "iterations[type=compaction]"

_ADVISOR: Final = "iterations[type=advisor_message]"
_LONG: Final = "cache_creation.ephemeral_1h_input_tokens"

MESSAGES: Final = Shape(
    name="anthropic.messages",
    counts={
        "input_tokens": (
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            f"{_ITERATIONS}.input_tokens",
            f"{_ITERATIONS}.cache_read_input_tokens",
            f"{_ITERATIONS}.cache_creation_input_tokens",
        ),
        "output_tokens": ("output_tokens", f"{_ITERATIONS}.output_tokens"),
        "cache_read_tokens": ("cache_read_input_tokens", f"{_ITERATIONS}.cache_read_input_tokens"),
        "cache_write_tokens": ("cache_creation_input_tokens", f"{_ITERATIONS}.cache_creation_input_tokens"),
        "cache_write_long_tokens": (
            f"?{_LONG}",
            f"{_ITERATIONS}.{_LONG}",
        ),
        "reasoning_tokens": ("output_tokens_details.thinking_tokens",),
        # An adviser is another model, and no price list says what it costs here: the call is `partial`.
        "advisor_input_tokens": (
            f"{_ADVISOR}.input_tokens",
            f"{_ADVISOR}.cache_read_input_tokens",
            f"{_ADVISOR}.cache_creation_input_tokens",
        ),
        "advisor_output_tokens": (f"{_ADVISOR}.output_tokens",),
        "web_searches": ("server_tool_use.web_search_requests",),
        "code_executions": ("server_tool_use.code_execution_requests",),
    },
    context={"service_tier": "service_tier", "speed": "speed", "inference_geo": "inference_geo"},
)
COMPACTED: Final = replace(
    MESSAGES,
    name="anthropic.messages.compacted",
    counts={
        **MESSAGES.counts,
        # The details of a stream's first message are those of the compaction.
        "cache_write_long_tokens": (f"?iterations[type=message].{_LONG}|{_LONG}", f"{_ITERATIONS}.{_LONG}"),
    },
)
_DECLINED: Final = "iterations[type=message]"
FALLEN_BACK: Final = replace(
    MESSAGES,
    name="anthropic.messages.fallback",
    counts={
        **MESSAGES.counts,
        # The top level is that of the model that answered; whether the one that declined is billed, nobody says.
        "declined_input_tokens": (
            f"{_DECLINED}.input_tokens",
            f"{_DECLINED}.cache_read_input_tokens",
            f"{_DECLINED}.cache_creation_input_tokens",
        ),
        "declined_output_tokens": (f"{_DECLINED}.output_tokens",),
    },
)
SPELLED: Final = {"iterations[type=fallback_message]": FALLEN_BACK, "iterations[type=compaction]": COMPACTED}
"""What only some usage objects have → the table they are read by."""
