"""One table per way to spell usage."""

from __future__ import annotations

from typing import Final

from spanledger.usage.shape import Shape
from spanledger.usage.shapes.amazon import CONVERSE
from spanledger.usage.shapes.anthropic import MESSAGES
from spanledger.usage.shapes.google import GENERATE_CONTENT
from spanledger.usage.shapes.openai import CHAT, EMBEDDINGS, IMAGES, REALTIME, RESPONSES, SPOKEN, TRANSCRIPTION
from spanledger.usage.shapes.others import COHERE, LANGCHAIN, OCR

SHAPES: Final[dict[str, Shape]] = {
    shape.name: shape
    for shape in (
        CHAT, RESPONSES, EMBEDDINGS, IMAGES, TRANSCRIPTION, SPOKEN, REALTIME, MESSAGES, GENERATE_CONTENT, CONVERSE,
        COHERE, OCR, LANGCHAIN,
    )
}  # fmt: skip
