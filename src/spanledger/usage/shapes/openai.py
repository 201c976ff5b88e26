"""OpenAI's APIs, and those of everybody who speaks them: Azure, Groq, DeepSeek, xAI, Mistral, Perplexity, OpenRouter.

Fields: openai.types of openai 3.54 (`CompletionUsage`, `ResponseUsage`, `CreateEmbeddingResponse`, `ImagesResponse`,
`audio.Transcription`, `realtime`); what others add is named where it stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.usage.shape import Shape
from spanledger.usage.stated import Stated

STATED: Final = (
    Stated(path="cost_in_usd_ticks", unit=100),  # xAI: 1 tick is 10⁻¹⁰ USD (xai_sdk.cost of xai-sdk 1.21)
    Stated(path="cost.total_cost", currency="cost.currency"),  # Perplexity; interim chunks hold zeros
    Stated(path="logfire_ai_gateway.cost|pydantic_ai_gateway.cost_estimate", zero=True),
    # OpenRouter: with a key of one's own `cost` is only its charge, the model's provider bills the rest.
    Stated(path="cost", plus="cost_details.upstream_inference_cost", plus_if="is_byok", zero=True),
)

CHAT: Final = Shape(
    name="openai.chat",
    counts={
        "input_tokens": ("prompt_tokens",),
        "output_tokens": ("completion_tokens", "citation_tokens"),  # the second is Perplexity's, billed beside
        # The alternatives are DeepSeek's and Together's.
        "cache_read_tokens": ("prompt_tokens_details.cached_tokens|prompt_cache_hit_tokens|num_cached_tokens",),
        # The second is a gateway's name for the same.
        "cache_write_tokens": ("prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens",),
        "cache_write_long_tokens": ("prompt_tokens_details.cache_write_tokens_details.ttl_12h_tokens",),
        # At the top it is Perplexity's.
        "reasoning_tokens": ("completion_tokens_details.reasoning_tokens|reasoning_tokens",),
        "input_audio_tokens": ("prompt_tokens_details.audio_tokens",),
        "output_audio_tokens": ("completion_tokens_details.audio_tokens",),
        "input_image_tokens": ("prompt_tokens_details.image_tokens",),
        # OpenRouter's, and Perplexity's.
        "web_searches": (
            "server_tool_use_details.web_search_requests|server_tool_use.web_search_requests|num_search_queries",
        ),
        "output_citation_tokens": ("citation_tokens",),
        "input_audio_seconds": ("prompt_audio_seconds",),  # Mistral's
    },
    total="total_tokens",
    beside="reasoning_tokens",
    stated=STATED,
)
RESPONSES: Final = Shape(
    name="openai.responses",
    counts={
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        # The alternatives here are Perplexity's.
        "cache_read_tokens": ("input_tokens_details.cached_tokens|input_tokens_details.cache_read_input_tokens",),
        "cache_write_tokens": (
            "input_tokens_details.cache_write_tokens|input_tokens_details.cache_creation_input_tokens",
        ),
        "cache_write_long_tokens": ("input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",),
        "reasoning_tokens": ("output_tokens_details.reasoning_tokens",),
        "web_searches": ("tool_calls_details.search_web.invocation",),
    },
    stated=STATED,
)
EMBEDDINGS: Final = Shape(
    name="openai.embeddings",
    counts={"input_tokens": ("prompt_tokens|total_tokens",)},
    requires=("input_tokens",),
    stated=STATED,
)
IMAGES: Final = Shape(
    name="openai.images",
    counts={
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "input_image_tokens": ("input_tokens_details.image_tokens",),
        "output_image_tokens": ("output_tokens_details.image_tokens",),
    },
)
TRANSCRIPTION: Final = Shape(
    name="openai.transcription",
    counts={
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "input_audio_tokens": ("input_token_details.audio_tokens",),
    },
)
SPOKEN: Final = Shape(name="openai.duration", counts={"input_audio_seconds": ("seconds",)}, requires=())
"""A transcription that is billed by its length."""
SPEECH: Final = Shape(
    name="openai.speech",
    counts={"input_tokens": ("input_tokens",), "output_tokens": ("output_tokens",)},
    requires=(),
)
"""Speech is billed by the characters of its text, or by tokens, which only its events tell."""
PICTURES: Final = Shape(name="openai.pictures", counts={}, requires=())
"""Pictures that are billed by number, and counted in the answer."""
MODERATION: Final = Shape(name="openai.moderation", counts={}, requires=())
REALTIME: Final = replace(
    RESPONSES,
    name="openai.realtime",
    counts={
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "cache_read_tokens": ("input_token_details.cached_tokens",),
        "input_audio_tokens": ("input_token_details.audio_tokens",),
        "output_audio_tokens": ("output_token_details.audio_tokens",),
        "input_image_tokens": ("input_token_details.image_tokens",),
        "cache_audio_read_tokens": ("input_token_details.cached_tokens_details.audio_tokens",),
        "cache_image_read_tokens": ("input_token_details.cached_tokens_details.image_tokens",),
    },
)
