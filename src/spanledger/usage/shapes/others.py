"""Cohere, Mistral's OCR, LangChain's own spelling, and ours.

Fields: `cohere.types.Usage` of cohere 7.3, `mistralai.models.OCRUsageInfo` of mistralai 3.7,
`langchain_core.messages.ai.UsageMetadata`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from spanledger.model import Usage
from spanledger.usage.shape import Shape

COHERE: Final = Shape(
    name="cohere",
    counts={
        # `tokens` counts a hidden preamble too, which is not billed.
        "input_tokens": ("billed_units.input_tokens",),
        "output_tokens": ("billed_units.output_tokens",),
        "input_image_tokens": ("billed_units.image_tokens",),
        "rerank_searches": ("billed_units.search_units",),
    },
    requires=(),
)
OCR: Final = Shape(
    name="mistral.ocr",
    counts={"input_document_pages": ("pages_processed",)},
    requires=(),
)
LANGCHAIN: Final = Shape(
    name="langchain",
    counts={
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "cache_read_tokens": ("input_token_details.cache_read",),
        "cache_write_tokens": ("input_token_details.cache_creation",),
        "cache_write_long_tokens": ("input_token_details.ephemeral_1h_input_tokens",),
        "reasoning_tokens": ("output_token_details.reasoning",),
        "input_audio_tokens": ("input_token_details.audio",),
        "output_audio_tokens": ("output_token_details.audio",),
    },
)
MANUAL: Final = Shape(
    name="manual",
    counts={each.name: (each.name,) for each in fields(Usage) if each.name not in ("usage_status", "other_usage")},
    requires=(),
)
"""What an application reports itself."""
