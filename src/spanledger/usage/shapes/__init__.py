"""One table per way to spell usage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from spanledger.model import Usage
from spanledger.usage.shape import Reader, Shape
from spanledger.usage.shapes.amazon import CONVERSE, INVOKE, INVOKE_EMBEDDINGS
from spanledger.usage.shapes.anthropic import COMPACTED, FALLEN_BACK, MESSAGES
from spanledger.usage.shapes.google import CACHED_CONTENT, EMBED_CONTENT, GENERATE_CONTENT, INTERACTIONS
from spanledger.usage.shapes.google import IMAGES as GOOGLE_IMAGES
from spanledger.usage.shapes.openai import (
    CHAT,
    EMBEDDINGS,
    IMAGES,
    MODERATION,
    PICTURES,
    REALTIME,
    RESPONSES,
    SPEECH,
    SPOKEN,
    TRANSCRIPTION,
)
from spanledger.usage.shapes.others import COHERE, LANGCHAIN, MANUAL, OCR

SHAPES: Final[dict[str, Shape]] = {
    shape.name: shape
    for shape in (
        CHAT, RESPONSES, EMBEDDINGS, IMAGES, PICTURES, TRANSCRIPTION, SPOKEN, SPEECH, MODERATION, REALTIME,
        MESSAGES, COMPACTED, FALLEN_BACK, GENERATE_CONTENT, EMBED_CONTENT, CACHED_CONTENT, GOOGLE_IMAGES, INTERACTIONS,
        CONVERSE, INVOKE, INVOKE_EMBEDDINGS, COHERE, OCR, LANGCHAIN, MANUAL,
    )
}  # fmt: skip

ITEMS: Final = ("web_searches",)
"""Fields of `Usage` that may have been counted in the answer itself."""


def read_again(shape: str | None, raw: Any, known: Usage) -> Usage:
    """The usage in a stored usage object, by today's table; what it can't hold (searches seen in an answer) as known.

    `known` itself where nothing can be read.
    """
    if shape not in SHAPES or not isinstance(raw, Mapping):
        return known
    counts, found = SHAPES[shape].counts, _reader(shape).usage(raw)
    items = {name: getattr(known, name) for name in ITEMS if getattr(found, name) is None}
    items |= {name: count for name, count in (known.other_usage or {}).items() if name not in counts}
    found = _reader(shape).usage(raw, {name: count for name, count in items.items() if count is not None})
    return known if found.usage_status == "missing" else found


@cache
def _reader(shape: str) -> Reader:
    return Reader(SHAPES[shape])
