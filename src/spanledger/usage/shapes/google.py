"""Gemini, by the Gemini API and by Vertex AI, whole, streamed and live.

Fields: `google.genai.types.GenerateContentResponseUsageMetadata` and `UsageMetadata` of google-genai 3.4, and the same
in the API's own spelling; `Usage` of its interactions. Thoughts stand beside the candidates, tool results beside the
prompt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger.usage.shape import Shape

_PROMPT: Final = "prompt_tokens_details|promptTokensDetails"
_TOOLS: Final = "tool_use_prompt_tokens_details|toolUsePromptTokensDetails"
_CACHE: Final = "cache_tokens_details|cacheTokensDetails"
_ANSWER: Final = (
    "candidates_tokens_details|candidatesTokensDetails|response_tokens_details|responseTokensDetails"  # live: response
)


def _of(details: str, modality: str) -> str:
    return "|".join(
        f"{name}[modality={modality}].{'token_count' if '_' in name else 'tokenCount'}" for name in details.split("|")
    )


GENERATE_CONTENT: Final = Shape(
    name="google.generate_content",
    counts={
        "input_tokens": (
            "prompt_token_count|promptTokenCount",
            "tool_use_prompt_token_count|toolUsePromptTokenCount",
        ),
        "output_tokens": (
            "?candidates_token_count|candidatesTokenCount|response_token_count|responseTokenCount",
            "thoughts_token_count|thoughtsTokenCount",
        ),
        "cache_read_tokens": ("cached_content_token_count|cachedContentTokenCount",),
        "reasoning_tokens": ("thoughts_token_count|thoughtsTokenCount",),
        "input_audio_tokens": ("?" + _of(_PROMPT, "AUDIO"), _of(_TOOLS, "AUDIO")),
        # A page of a document is billed as an image.
        "input_image_tokens": (
            "?" + _of(_PROMPT, "IMAGE"),
            _of(_PROMPT, "DOCUMENT"),
            _of(_TOOLS, "IMAGE"),
            _of(_TOOLS, "DOCUMENT"),
        ),
        "input_video_tokens": ("?" + _of(_PROMPT, "VIDEO"), _of(_TOOLS, "VIDEO")),
        "cache_audio_read_tokens": (_of(_CACHE, "AUDIO"),),
        "cache_image_read_tokens": ("?" + _of(_CACHE, "IMAGE"), _of(_CACHE, "DOCUMENT")),
        "cache_video_read_tokens": (_of(_CACHE, "VIDEO"),),
        "output_audio_tokens": (_of(_ANSWER, "AUDIO"),),
        "output_image_tokens": (_of(_ANSWER, "IMAGE"),),
    },
    adds_up_to="total_token_count|totalTokenCount",  # google-genai 1.0 has no thoughts
    context={"service_tier": "traffic_type|trafficType|service_tier|serviceTier"},
)
EMBED_CONTENT: Final = replace(
    GENERATE_CONTENT,
    name="google.embed_content",
    counts={
        **GENERATE_CONTENT.counts,
        # The second is Vertex AI's: a number for each text, summed.
        "input_tokens": ("prompt_token_count|promptTokenCount|token_count",),
    },
    requires=("input_tokens",),
    adds_up_to="",
)
CACHED_CONTENT: Final = Shape(
    name="google.cached_content", counts={"cached_content_tokens": ("total_token_count|totalTokenCount",)}, requires=()
)
"""What is put into a cache, and then billed by the hour, which no answer tells."""
IMAGES: Final = Shape(name="google.images", counts={}, requires=())
"""Pictures are counted in the answer."""

_READ: Final = "input_tokens_by_modality"
_READ_BY_TOOLS: Final = "tool_use_tokens_by_modality"
_CACHED: Final = "cached_tokens_by_modality"
_WRITTEN: Final = "output_tokens_by_modality"


def _tokens(modality: str, *details: str) -> tuple[str, ...]:
    first, *more = (f"{name}[modality={modality}].tokens" for name in details)
    return ("?" + first, *more)


INTERACTIONS: Final = Shape(
    name="google.interactions",
    counts={
        "input_tokens": ("total_input_tokens", "total_tool_use_tokens"),
        "output_tokens": ("?total_output_tokens", "total_thought_tokens|total_reasoning_tokens"),
        "cache_read_tokens": ("total_cached_tokens",),
        "reasoning_tokens": ("total_thought_tokens|total_reasoning_tokens",),
        "input_audio_tokens": _tokens("audio", _READ, _READ_BY_TOOLS),
        "input_image_tokens": (
            *_tokens("image", _READ, _READ_BY_TOOLS),
            *(path.lstrip("?") for path in _tokens("document", _READ, _READ_BY_TOOLS)),
        ),
        "input_video_tokens": _tokens("video", _READ, _READ_BY_TOOLS),
        "cache_audio_read_tokens": _tokens("audio", _CACHED),
        "cache_image_read_tokens": (*_tokens("image", _CACHED), _tokens("document", _CACHED)[0].lstrip("?")),
        "cache_video_read_tokens": _tokens("video", _CACHED),
        "output_audio_tokens": _tokens("audio", _WRITTEN),
        "output_image_tokens": _tokens("image", _WRITTEN),
        "web_searches": ("grounding_tool_count[type=google_search].count",),
    },
)
