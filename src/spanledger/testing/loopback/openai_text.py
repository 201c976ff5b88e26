"""OpenAI's chat completions, legacy completions, embeddings and moderations.

Sources: `ChatCompletion`, `ChatCompletionChunk`, `Completion`, `CreateEmbeddingResponse` and
`ModerationCreateResponse` of openai 3.54, and the recorded traffic of OpenInference's tests.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from typing import Any, Final

from spanledger.testing.loopback.exchange import (
    CREATED,
    Answer,
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
_CATEGORIES: Final = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)


def chat(request: Request) -> Answer:
    """A chat completion, whole or in chunks."""
    asked, body = request.asked, request.body
    usage = given(asked, _chat_usage(tokens(body.get("messages"))))
    head = _head("chatcmpl", "chat.completion", request)
    request.book.tell("chat", head["model"], head["id"], usage)
    if body.get("stream"):
        return Events(_chat_chunks({**head, "object": "chat.completion.chunk"}, usage, request))
    message = {"role": "assistant", "content": sentence(asked), "refusal": None}
    choices = [
        {"index": index, "message": message, "finish_reason": "stop", "logprobs": None}
        for index in range(body.get("n") or 1)
    ]
    return Json({**head, "choices": choices, "usage": usage})


def _chat_usage(prompt: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": _OUTPUT,
        "total_tokens": prompt + _OUTPUT,
        "prompt_tokens_details": {"cached_tokens": prompt // 4, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 2,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat_chunks(head: dict[str, Any], usage: Any, request: Request) -> Iterator[tuple[str, Any]]:
    wants_usage = (request.body.get("stream_options") or {}).get("include_usage")
    null_usage = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, str], reason: str | None) -> tuple[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return "", {**head, "choices": [choice], **null_usage}

    for number, word in enumerate(words(request.asked)):
        yield chunk({"content": word + " "} if number else {"role": "assistant", "content": word + " "}, None)
    yield chunk({}, "stop")
    if wants_usage:
        yield "", {**head, "choices": [], "usage": usage}
    yield "", "[DONE]"


def completion(request: Request) -> Answer:
    """A legacy completion, whole or in chunks."""
    asked = request.asked
    prompt = tokens(request.body.get("prompt"))
    computed = {"prompt_tokens": prompt, "completion_tokens": _OUTPUT, "total_tokens": prompt + _OUTPUT}
    usage = given(asked, computed)
    head = _head("cmpl", "text_completion", request)
    request.book.tell("text_completion", head["model"], head["id"], usage)
    choice = {"index": 0, "text": sentence(asked), "finish_reason": "stop", "logprobs": None}
    if not request.body.get("stream"):
        return Json({**head, "choices": [choice], "usage": usage})
    chunks = [("", {**head, "choices": [{**choice, "text": word, "finish_reason": None}]}) for word in words(asked)]
    chunks.append(("", {**head, "choices": [{**choice, "text": ""}]}))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        chunks.append(("", {**head, "choices": [], "usage": usage}))
    return Events(iter([*chunks, ("", "[DONE]")]))


def embeddings(request: Request) -> Answer:
    """Vectors, as numbers or in base64."""
    texts = request.body.get("input")
    texts = texts if isinstance(texts, list) else [texts]
    width = request.body.get("dimensions") or 8
    vector: Any = [((index * 37) % 101) / 101 for index in range(width)]
    if request.body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{width}f", *vector)).decode()
    count = tokens(texts)
    usage = given(request.asked, {"prompt_tokens": count, "total_tokens": count})
    model = request.asked.get("model") or request.body.get("model")
    request.book.tell("embeddings", model, None, usage)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(texts))]
    return Json({"object": "list", "model": model, "data": data, "usage": usage})


def _moderation(request: Request) -> Answer:
    model = request.asked.get("model") or request.body.get("model") or "omni-moderation-latest"
    answer_id = request.asked.get("id") or f"modr-{next(request.book.numbers):08d}"
    request.book.tell("moderations", model, answer_id, None)
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    texts = request.body.get("input")
    return Json({"id": answer_id, "model": model, "results": [result] * (len(texts) if isinstance(texts, list) else 1)})


def _head(prefix: str, kind: str, request: Request) -> dict[str, Any]:
    return {
        "id": request.asked.get("id") or f"{prefix}-{next(request.book.numbers):08d}",
        "object": kind,
        "created": CREATED,
        "model": request.asked.get("model") or request.body.get("model"),
        "service_tier": request.asked.get("service_tier") or "default",
        "system_fingerprint": "fp_loopback",
    }


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/chat/completions"), chat),
    ("POST", re.compile(r".*/completions"), completion),
    ("POST", re.compile(r".*/embeddings"), embeddings),
    ("POST", re.compile(r".*/moderations"), _moderation),
)
