"""OpenAI's audio: transcriptions (billed by token or by second), translations and speech.

Sources: `Transcription`, `TranscriptionVerbose`, `TranscriptionTextDeltaEvent`, `TranscriptionTextDoneEvent`,
`Translation` and `TranslationVerbose` of openai 3.54; `SpeechAudioDeltaEvent` and `SpeechAudioDoneEvent` of OpenAI's
published API specification, as the SDK has no type for them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, Final

from spanledger.testing.loopback.exchange import (
    Answer,
    Bytes,
    Events,
    Json,
    Request,
    Route,
    given,
    sentence,
    tokens,
    words,
)

_OUTPUT: Final = 9
"""Output tokens of every answer."""
_TEXTS: Final = ("text", "srt", "vtt")


def _transcription(request: Request) -> Answer:
    body, asked = request.body, request.asked
    model = asked.get("model") or body.get("model")
    plain = body.get("response_format") in _TEXTS
    by_second = str(model).startswith("whisper")
    usage = given(asked, None if plain else _duration(request) if by_second else _token_usage(request))
    request.book.tell("audio_transcriptions", model, None, usage)
    if body.get("stream") in (True, "true") and not by_second:
        return Events(_transcript_events(usage, asked))
    if plain:
        return Bytes(sentence(asked).encode(), "text/plain; charset=utf-8")
    answer = {"text": sentence(asked), "usage": usage}
    if body.get("response_format") == "verbose_json":
        answer = {"task": "transcribe", **_verbose(request), **answer}
    return Json(answer)


def _seconds(request: Request) -> int:
    """The length of the audio: a second for each 1,000 bytes begun."""
    return 1 + sum(map(len, request.files.values())) // 1000


def _duration(request: Request) -> dict[str, Any]:
    return {"type": "duration", "seconds": _seconds(request)}


def _token_usage(request: Request) -> dict[str, Any]:
    text, audio = tokens(request.body.get("prompt")), 10 * _seconds(request)
    return {
        "type": "tokens",
        "input_tokens": text + audio,
        "input_token_details": {"text_tokens": text, "audio_tokens": audio},
        "output_tokens": _OUTPUT,
        "total_tokens": text + audio + _OUTPUT,
    }


def _verbose(request: Request) -> dict[str, Any]:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": float(_seconds(request)),
        "text": sentence(request.asked),
        "tokens": [50364, 440, 50700],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
    }
    return {"language": "english", "duration": float(_seconds(request)), "segments": [segment]}


def _transcript_events(usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for word in words(asked):
        yield "", {"type": "transcript.text.delta", "delta": word + " "}
    yield "", {"type": "transcript.text.done", "text": sentence(asked), "usage": usage}


def _translation(request: Request) -> Answer:
    request.book.tell("audio_translations", request.body.get("model"), None, None)
    kind = request.body.get("response_format")
    if kind in _TEXTS:
        return Bytes(sentence(request.asked).encode(), "text/plain; charset=utf-8")
    answer = {"text": sentence(request.asked)}
    return Json({"task": "translate", **_verbose(request), **answer} if kind == "verbose_json" else answer)


def _speech(request: Request) -> Answer:
    body, asked = request.body, request.asked
    streamed = body.get("stream_format") == "sse"
    text = tokens(body.get("input"))
    audio = 5 * text
    computed = {"input_tokens": text, "output_tokens": audio, "total_tokens": text + audio}
    usage = given(asked, computed) if streamed else None
    request.book.tell("audio_speech", asked.get("model") or body.get("model"), None, usage)
    if streamed:
        return Events(_speech_events(usage, asked))
    return Bytes(b"\xff\xfb\x90\x00" * 64, "audio/mpeg")


def _speech_events(usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for word in words(asked):
        yield "", {"type": "speech.audio.delta", "audio": base64.b64encode(word.encode()).decode()}
    yield "", {"type": "speech.audio.done", "usage": usage}


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/audio/transcriptions"), _transcription),
    ("POST", re.compile(r".*/audio/translations"), _translation),
    ("POST", re.compile(r".*/audio/speech"), _speech),
)
