"""OpenAI beyond text: images, transcriptions, translations, speech, moderations."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.spec import Count, Endpoint, Length
from spanledger.usage.shapes import openai as shapes

IMAGE: Final = Endpoint(
    operation=conventions.GENERATE_CONTENT,
    usage=shapes.PICTURES,
    spelled={"input_tokens": shapes.IMAGES},
    counts={"output_images": Count(items="data", instead=True)},
    context={"image_size": "size", "image_quality": "quality"},
    id="",
    model="",
    service_tier="",
)
TRANSCRIPTION: Final = Endpoint(
    operation="transcription",
    usage=shapes.SPOKEN,
    spelled={"input_tokens": shapes.TRANSCRIPTION},
    merges=True,
    loose={"seconds": "duration"},  # of `verbose_json`; a usage object says the same as `seconds`
    id="",
    model="",
    service_tier="",
)
TRANSLATION: Final = replace(TRANSCRIPTION, operation="translation")
SPEECH: Final = Endpoint(
    operation="speech",
    usage=shapes.SPEECH,
    lengths={"input_characters": Length(path="input")},
    id="",
    model="",
    service_tier="",
)
MODERATION: Final = Endpoint(
    operation="moderation",
    usage=shapes.MODERATION,
    counts={"moderations": Count(items="results")},
    service_tier="",
)
