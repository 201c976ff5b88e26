"""Google's wire formats: the Gemini API, Vertex AI and Interactions.

Wire shapes: generateContent, streamGenerateContent, batchEmbedContents, cachedContents and Interactions (whole, its
event names and usage) from the recorded traffic of OpenInference's tests; `GenerateContentResponseUsageMetadata`,
`GroundingMetadata` and `CountTokensResponse` of google-genai 3.4; Vertex embeddings and images as its
`_EmbedContentResponse_from_vertex` and `_GenerateImagesResponse_from_vertex` read them; `Usage` and the stream events
of its `_gaos.types.interactions`; errors as its `errors.APIError` reads them.

Directives of these routes: `tool` (true or {name, args}: a function is called until its response comes), `searches`
(queries of Google Search), `finish`, `usages` (usageMetadata of each chunk), `images` and `filtered` (how many
pictures come and how many are withheld), `state` (of an interaction), `retrievals` (how often it is still in
progress), `progress` (the name under which step.delta tells its usage: recorded `usage`, in the SDK `total_usage`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from spanledger.testing.loopback.exchange import Answer, Events, Json, Request, Route, given, sentence, tokens, words

_CREATED: Final = "2026-09-21T13:33:20Z"
_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
_VECTOR: Final = [0.25, -0.5, 0.75, 0.125]
_FLAT: Final = {"image": 258, "audio": 32, "video": 263, "application": 258}
"""First word of a media type → tokens of one such part."""
_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_Part = dict[str, Any]


def error(status: int) -> _Part:
    """The error body."""
    return {"error": {"code": status, "message": "as asked", "status": _STATUSES.get(status, "UNKNOWN")}}


# Content.


def _generate(request: Request) -> Answer:
    asked, tool = request.asked, _called(request)
    texts = ["" if tool else sentence(asked)]
    if request.path.endswith(":streamGenerateContent"):
        texts = [""] if tool else [word + " " for word in words(asked)]
    head = {"modelVersion": asked.get("model") or _model(request), "responseId": _id(request)}
    usage = given(asked, _usage(request, 1 if tool else len(list(words(asked)))))
    request.book.tell("generate_content", head["modelVersion"], head["responseId"], usage)
    chunks = []
    for number, text in enumerate(texts, 1):
        stated = asked["usages"][number - 1] if "usages" in asked else _part_of(usage, number, len(texts))
        candidates = _candidates(request, tool or {"text": text}, last=number == len(texts))
        chunks.append({"candidates": candidates, **({"usageMetadata": stated} if stated is not None else {}), **head})
    if request.query.get("alt") == ["sse"]:
        return Events(("", chunk) for chunk in chunks)
    return Json(chunks[0] if request.path.endswith(":generateContent") else chunks)


def _called(request: Request) -> _Part | None:
    """The part that calls a function, where that was asked for and no response of it is there yet."""
    declared = [each for tool in request.body.get("tools") or [] for each in tool.get("functionDeclarations") or []]
    contents = request.body.get("contents") or [{}]
    answered = any("functionResponse" in part for part in contents[-1].get("parts") or [])
    tool = request.asked.get("tool")
    if not tool or not declared or answered:
        return None
    return {"functionCall": {"name": declared[0]["name"], "args": {}, **(tool if isinstance(tool, dict) else {})}}


def _candidates(request: Request, part: _Part, *, last: bool) -> list[_Part]:
    asked = request.asked
    ending: _Part = {"finishReason": asked.get("finish") or "STOP"} if last else {}
    if last and asked.get("searches"):
        queries = [{"web": {"uri": "https://example.com", "title": query}} for query in asked["searches"]]
        ending["groundingMetadata"] = {"webSearchQueries": asked["searches"], "groundingChunks": queries}
    count = (request.body.get("generationConfig") or {}).get("candidateCount") or 1
    return [{"content": {"parts": [part], "role": "model"}, "index": index, **ending} for index in range(count)]


def _usage(request: Request, made: int) -> _Part:
    """Counts of zero are left out; thoughts are outside the candidates, a tool's prompt outside the prompt."""
    body, asked = request.body, request.asked
    stored = (request.book.store.get(str(body.get("cachedContent"))) or {}).get("totalTokenCount", 0)
    details = _by_modality(body, stored)
    prompt = sum(row["tokenCount"] for row in details)
    cached = stored or prompt // 4
    searched = 5 * len(asked.get("searches") or [])
    row = {"modality": "TEXT"}
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": made,
        "totalTokenCount": prompt + made + 3 + searched,
        "cachedContentTokenCount": cached,
        "promptTokensDetails": details,
        "cacheTokensDetails": [{**row, "tokenCount": cached}] if cached else None,
        "candidatesTokensDetails": [{**row, "tokenCount": made}],
        "thoughtsTokenCount": 3,
        "toolUsePromptTokenCount": searched,
        "toolUsePromptTokensDetails": [{**row, "tokenCount": searched}] if searched else None,
        **_tier(request),
    }
    return {name: value for name, value in counts.items() if value}


def _tier(request: Request) -> _Part:
    stated = request.asked.get("service_tier")
    return {"trafficType": stated or "ON_DEMAND"} if _on_vertex(request) else {"serviceTier": stated or "standard"}


def _by_modality(body: _Part, stored: int = 0) -> list[_Part]:
    found = {"TEXT": stored + tokens(body.get("contents")) + tokens(body.get("systemInstruction"))}
    for content in body.get("contents") or []:
        for part in content.get("parts") or []:
            media = part.get("inlineData") or part.get("fileData")
            if media:
                kind = str(media.get("mimeType") or media.get("mime_type")).split("/")[0]
                name = "DOCUMENT" if kind == "application" else kind.upper()
                found[name] = found.get(name, 0) + _FLAT.get(kind, 258)
    return [{"modality": name, "tokenCount": count} for name, count in found.items() if count]


def _part_of(usage: Any, number: int, of: int) -> Any:
    """What a chunk states: the candidates so far, everything else as at the end."""
    made = usage.get("candidatesTokenCount") if isinstance(usage, dict) else None
    if number == of or not isinstance(made, int):
        return usage
    sofar = {"candidatesTokenCount": made * number // of}
    if isinstance(usage.get("totalTokenCount"), int):
        sofar["totalTokenCount"] = usage["totalTokenCount"] - made + sofar["candidatesTokenCount"]
    details = {"candidatesTokensDetails"} if sofar["candidatesTokenCount"] else {*sofar} - {"totalTokenCount"}
    return {name: value for name, value in {**usage, **sofar}.items() if name not in details}


def _count(request: Request) -> Answer:
    details = _by_modality(request.body)
    return Json({"totalTokens": sum(row["tokenCount"] for row in details), "promptTokensDetails": details})


def _cache(request: Request) -> Answer:
    scope, model = request.path.split("/", 2)[2], request.asked.get("model") or request.body.get("model")
    name = f"{scope}/{request.asked.get('id') or _id(request)}"
    usage = given(request.asked, {"totalTokenCount": sum(row["tokenCount"] for row in _by_modality(request.body))})
    request.book.store[name] = usage
    request.book.tell("cached_contents", model, name, usage)
    times = dict.fromkeys(("createTime", "updateTime", "expireTime"), _CREATED)
    return Json({"name": name, "model": model, **times, "usageMetadata": usage})


# Embeddings and pictures.


def _embed(request: Request) -> Answer:
    body, model = request.body, request.asked.get("model") or _model(request)
    rows = body.get("requests") or [body]
    prompt = sum(tokens(row.get("content")) for row in rows)
    details = [{"modality": "TEXT", "tokenCount": prompt}]
    stated = {"promptTokenCount": prompt, "totalTokenCount": prompt, "promptTokensDetails": details}
    silent = "embedding-001" in model and not _on_vertex(request)  # as recorded
    usage = given(request.asked, None if silent else stated)
    request.book.tell("embed_content", model, None, usage)
    vectors = [{"values": _VECTOR} for _ in rows]
    found: _Part = {"embeddings": vectors} if "requests" in body else {"embedding": vectors[0]}
    return Json({**found, **({} if usage is None else {"usageMetadata": usage})})


def _predict(request: Request) -> Answer:
    """Embeddings of Vertex where the instances have content, else pictures."""
    rows, model = request.body.get("instances") or [{}], request.asked.get("model") or _model(request)
    rows = rows if isinstance(rows, list) else [rows]  # google-genai 1.0 sends a picture's as it is
    if "content" not in rows[0]:
        return _pictures(request, model)
    stated = [given(request.asked, {"truncated": False, "token_count": tokens(row["content"])}) for row in rows]
    request.book.tell("predict", model, None, stated)
    predictions = [{"embeddings": {"values": _VECTOR, "statistics": each}} for each in stated]
    letters = sum(len(row["content"].replace(" ", "")) for row in rows)
    return Json({"predictions": predictions, "metadata": {"billableCharacterCount": letters}})


def _pictures(request: Request, model: str) -> Answer:
    count = request.asked.get("images", (request.body.get("parameters") or {}).get("sampleCount", 4))
    request.book.tell("predict", model, None, {"images": count})
    picture = {"bytesBase64Encoded": _PIXEL, "mimeType": "image/png"}
    withheld = {"raiFilteredReason": "as asked"}
    return Json({"predictions": [picture] * count + [withheld] * request.asked.get("filtered", 0)})


# Interactions.


def _interact(request: Request) -> Answer:
    asked, body = request.asked, request.body
    who = {name: asked.get("model") or body[name] for name in ("model", "agent") if body.get(name)}
    times = {"created": _CREATED, "updated": _CREATED, "object": "interaction"}
    head = {"id": _id(request), "status": asked.get("state") or "completed", **times, **who}
    usage = given(asked, _interaction_usage(request))
    answer = {**head, "service_tier": asked.get("service_tier") or "standard", "usage": usage}
    background = bool(body.get("background"))
    with request.book.lock:
        left = asked.get("retrievals", 1) if background else -1
        request.book.store[head["id"]] = [answer, asked, left]
    if background and not body.get("stream"):
        return Json({**head, "status": "in_progress"})
    _told(request, request.book.store[head["id"]])
    return Events(_events(answer, asked)) if body.get("stream") else Json({**answer, "steps": _steps(asked)})


def _retrieve(request: Request) -> Answer:
    kept = request.book.store.get(request.match["id"])
    if not isinstance(kept, list):
        return Json(error(404), 404)
    answer, asked, left = kept
    if left > 0:
        kept[2] -= 1
        hidden = ("usage", "service_tier")
        return Json({**{k: v for k, v in answer.items() if k not in hidden}, "status": "in_progress"})
    if left == 0:
        _told(request, kept)
    if request.query.get("stream") == ["true"]:
        return Events(_events(answer, asked))
    return Json({**answer, "steps": _steps(asked)})


def _told(request: Request, kept: list[Any]) -> None:
    """Tell an interaction's usage once, however often it is read."""
    answer, kept[2] = kept[0], -1
    request.book.tell("interactions", answer.get("model") or answer.get("agent"), answer["id"], answer["usage"])


def _interaction_usage(request: Request) -> _Part:
    body, searches = request.body, request.asked.get("searches") or []
    prompt = tokens(body.get("input")) + tokens(body.get("system_instruction"))
    made, tool = len(list(words(request.asked))), 5 * len(searches)
    counted = {"grounding_tool_count": [{"type": "google_search", "count": len(searches)}]} if searches else {}
    return {
        "total_tokens": prompt + made + tool + 3,
        "total_input_tokens": prompt,
        "input_tokens_by_modality": [{"modality": "text", "tokens": prompt}],
        "total_cached_tokens": prompt // 4,
        "total_output_tokens": made,
        "total_tool_use_tokens": tool,
        "total_thought_tokens": 3,
        **counted,
    }


def _steps(asked: _Part) -> list[_Part]:
    text = {"text": sentence(asked), "type": "text"}
    return [{"signature": "c2lnbmVk", "type": "thought"}, {"content": [text], "type": "model_output"}]


def _events(answer: _Part, asked: _Part) -> Iterator[tuple[str, Any]]:
    def event(kind: str, **rest: Any) -> tuple[str, Any]:
        return kind, {**rest, "event_type": kind}

    begun = {name: answer[name] for name in ("id", "object", "model", "agent") if name in answer}
    yield event("interaction.created", interaction={**begun, "status": "in_progress"})
    yield event("interaction.status_update", interaction_id=answer["id"], status="in_progress")
    yield event("step.start", index=0, step={"type": "thought"})
    yield event("step.delta", index=0, delta={"signature": "c2lnbmVk", "type": "thought_signature"})
    yield event("step.stop", index=0)
    yield event("step.start", index=1, step={"type": "model_output"})
    progress = {"metadata": {asked["progress"]: answer["usage"]}} if asked.get("progress") else {}
    for word in words(asked):
        yield event("step.delta", index=1, delta={"text": word + " ", "type": "text"}, **progress)
    yield event("step.stop", index=1)
    yield event("interaction.completed", interaction=answer)
    yield "done", "[DONE]"


# What they share.


def _model(request: Request) -> str:
    return unquote(request.match["model"])


def _id(request: Request) -> str:
    return request.asked.get("id") or f"loopback-{next(request.book.numbers):08d}"


def _on_vertex(request: Request) -> bool:
    return request.match["publisher"] is not None or "/projects/" in request.path


_SCOPE: Final = r"/v1(?:alpha|beta1?)?(?:/projects/[^/]+/locations/[^/]+)?"
_MODEL: Final = _SCOPE + r"(?P<publisher>/publishers/[^/]+)?/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):"

ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(_MODEL + "(generateContent|streamGenerateContent)"), _generate),
    ("POST", re.compile(_MODEL + "(embedContent|batchEmbedContents)"), _embed),
    ("POST", re.compile(_MODEL + "predict"), _predict),
    ("POST", re.compile(_MODEL + "countTokens"), _count),
    ("POST", re.compile(_SCOPE + "/cachedContents"), _cache),
    ("POST", re.compile(_SCOPE + "/interactions"), _interact),
    ("GET", re.compile(_SCOPE + "/interactions/(?P<id>[^/]+)"), _retrieve),
)
