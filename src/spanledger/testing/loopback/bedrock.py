"""Bedrock Runtime's wire format: Converse and InvokeModel, whole and as event streams.

Wire shapes: Converse and the stream events from the service model bedrock-runtime of botocore 1.43 (`ConverseResponse`,
`ConverseStreamOutput`, `TokenUsage`, the exceptions) and the recorded traffic of OpenInference's tests, which also show
InvokeModel of Claude and Nova, its headers of counts and `amazon-bedrock-invocationMetrics` of the last chunk. The
bodies of Titan, Llama, Mistral and Cohere follow the pages "Inference request parameters and response fields for
foundation models" of the Amazon Bedrock User Guide.

Directives of these routes: `metrics` (the counts of InvokeModel's headers and last chunk, else they agree with
`usage`), `family` (for a model id that does not tell), `exception` (a stream ends with it, before its usage),
`invoked` (the model a prompt router took). `usage` has the shape of the family; where the body states no usage,
that of the invocation metrics.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from spanledger.testing.loopback.exchange import Answer, Frames, Json, Request, Route, given, sentence, tokens, words

_ERRORS: Final = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
_FAMILIES: Final = ("claude", "nova", "titan-embed", "titan", "llama", "cohere.embed", "cohere", "mistral")
_METRICS: Final = {
    "inputTokenCount": ("input_tokens", "inputTokens", "inputTextTokenCount", "prompt_token_count"),
    "outputTokenCount": ("output_tokens", "outputTokens", "tokenCount", "generation_token_count"),
    "cacheReadInputTokenCount": ("cache_read_input_tokens", "cacheReadInputTokens"),
    "cacheWriteInputTokenCount": ("cache_creation_input_tokens", "cacheWriteInputTokens"),
}
"""Count of the invocation metrics → its names in the bodies."""
_HEADERS: Final = {
    "inputTokenCount": "x-amzn-bedrock-input-token-count",
    "outputTokenCount": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokenCount": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokenCount": "x-amzn-bedrock-cache-write-input-token-count",
}
_COUNTS: Final = {
    "claude": ("input_tokens", "output_tokens"),
    "titan": ("inputTextTokenCount", "tokenCount"),
    "titan-embed": ("inputTextTokenCount",),
    "llama": ("prompt_token_count", "generation_token_count"),
    "cohere.embed": ("inputTokenCount",),
}
"""Family → what it calls its counts, where they are no invocation metrics."""
_VECTOR: Final = [0.25, -0.5, 0.75, 0.125]
_Part = dict[str, Any]


def error(status: int) -> Json:
    """The error body, whose kind is in a header."""
    return Json({"message": "as asked"}, status, {"x-amzn-errortype": _ERRORS.get(status, "InternalServerException")})


def _converse(request: Request) -> Answer:
    asked, body = request.asked, request.body
    usage = given(asked, _converse_usage(body, len(list(words(asked)))))
    heads = _identified(request)
    request.book.tell("converse", _model(request), heads["x-amzn-requestid"], usage)
    tier = asked.get("service_tier") or (body.get("serviceTier") or {}).get("type")
    end = {
        "usage": usage,
        "metrics": {"latencyMs": 42},
        **({"serviceTier": {"type": tier}} if tier else {}),
        **({"performanceConfig": body["performanceConfig"]} if "performanceConfig" in body else {}),
        **({"trace": {"promptRouter": {"invokedModelId": asked["invoked"]}}} if asked.get("invoked") else {}),
    }
    if usage is None:
        del end["usage"]
    if request.path.endswith("-stream"):
        return Frames(_converse_frames(asked, end), heads)
    message = {"role": "assistant", "content": [{"text": sentence(asked)}]}
    return Json({"output": {"message": message}, "stopReason": "end_turn", **end}, headers=heads)


def _converse_usage(body: _Part, made: int) -> _Part:
    prompt = tokens(body.get("messages")) + tokens(body.get("system"))
    points = re.search(r'"cachePoint": \{[^}]*?(?:"ttl": "(\w+)")?[^}"]*\}', json.dumps(body))
    if not points:
        return {"inputTokens": prompt, "outputTokens": made, "serverToolUsage": {}, "totalTokens": prompt + made}
    read, write = prompt // 4, prompt // 5
    return {
        "inputTokens": prompt - read - write,
        "outputTokens": made,
        "totalTokens": prompt + made,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": write,
        "cacheDetails": [{"ttl": points[1] or "5m", "inputTokens": write}],
        "serverToolUsage": {},
    }


def _converse_frames(asked: _Part, end: _Part) -> Iterator[tuple[Mapping[str, str], bytes]]:
    yield _frame("messageStart", {"role": "assistant"})
    for word in words(asked):
        yield _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word + " "}})
    yield _frame("contentBlockStop", {"contentBlockIndex": 0})
    if asked.get("exception"):
        yield _exception(asked["exception"])
        return
    yield _frame("messageStop", {"stopReason": "end_turn"})
    yield _frame("metadata", end)


def _frame(event: str, payload: _Part) -> tuple[Mapping[str, str], bytes]:
    heads = {":event-type": event, ":content-type": "application/json", ":message-type": "event"}
    return heads, json.dumps({**payload, "p": "abcdefgh"}).encode()


def _exception(name: str) -> tuple[Mapping[str, str], bytes]:
    heads = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return heads, b'{"message":"as asked"}'


def _invoke(request: Request) -> Answer:
    asked, heads = request.asked, _identified(request)
    family = _family(request)
    usage = given(asked, _usage(family, request.body, len(list(words(asked)))))
    metrics = asked["metrics"] if "metrics" in asked else _metrics(usage)
    ident = asked.get("id") or f"msg_bdrk_{heads['x-amzn-requestid']}"
    name = asked.get("model") or _own_name(_model(request))
    request.book.tell("invoke", name, ident if family == "claude" else heads["x-amzn-requestid"], usage)
    if request.path.endswith("-stream"):
        parts = _chunks(family, request, {"id": ident, "model": name}, usage)
        return Frames(
            _chunk_frames(asked, parts, metrics), {**heads, "x-amzn-bedrock-content-type": "application/json"}
        )
    counts = {_HEADERS[count]: str(value) for count, value in (metrics or {}).items() if count in _HEADERS}
    if family == "claude":
        body = _claude(request, {"id": ident, "model": name}, usage)
    else:
        body = _BODIES[family](request.body, usage, sentence(asked), "whole")
    return Json(body, headers={**heads, **counts, "x-amzn-bedrock-invocation-latency": "42"})


def _chunk_frames(asked: _Part, parts: Iterator[_Part], metrics: Any) -> Iterator[tuple[Mapping[str, str], bytes]]:
    *first, last = parts
    for part in first:
        yield _chunk(part)
    if asked.get("exception"):
        yield _exception(asked["exception"])
        return
    latencies = {"invocationLatency": 42, "firstByteLatency": 7}
    yield _chunk(last if metrics is None else {**last, "amazon-bedrock-invocationMetrics": {**metrics, **latencies}})


def _chunk(part: _Part) -> tuple[Mapping[str, str], bytes]:
    return _frame("chunk", {"bytes": base64.b64encode(json.dumps(part).encode()).decode()})


def _metrics(usage: Any) -> _Part:
    stated = usage if isinstance(usage, dict) else {}
    found = {count: [stated[each] for each in (count, *names) if each in stated] for count, names in _METRICS.items()}
    return {count: values[0] for count, values in found.items() if values}


# The families.


def _usage(family: str, body: _Part, made: int) -> _Part:
    prompt = sum(tokens(body.get(name)) for name in ("messages", "system", "prompt", "inputText", "message", "texts"))
    if family == "claude" and '"cache_control"' in json.dumps(body):
        read, write = prompt // 4, prompt // 5
        made_for = {"ephemeral_5m_input_tokens": write, "ephemeral_1h_input_tokens": 0}
        cache = {"cache_creation_input_tokens": write, "cache_read_input_tokens": read, "cache_creation": made_for}
        return {"input_tokens": prompt - read - write, **cache, "output_tokens": made}
    if family == "nova":
        cache = {"cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 0}
        return {"inputTokens": prompt, "outputTokens": made, "totalTokens": prompt + made, **cache}
    names = _COUNTS.get(family, ("inputTokenCount", "outputTokenCount"))
    return dict(zip(names, (prompt, made), strict=False))


def _claude(request: Request, head: _Part, usage: Any) -> _Part:
    content = [{"type": "text", "text": sentence(request.asked)}]
    message = {"type": "message", "role": "assistant", "content": content}
    return {**head, **message, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


def _claude_chunks(request: Request, head: _Part, usage: Any) -> Iterator[_Part]:
    early = {**usage, "output_tokens": 1} if isinstance(usage, dict) else usage
    late = {"output_tokens": usage.get("output_tokens")} if isinstance(usage, dict) else usage
    begun = {**_claude(request, head, early), "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in words(request.asked):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word + " "}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": late}
    yield {"type": "message_stop"}


def _nova_chunks(request: Request, usage: Any) -> Iterator[_Part]:
    yield {"messageStart": {"role": "assistant"}}
    for index, word in enumerate(words(request.asked)):
        yield {"contentBlockDelta": {"delta": {"text": word + " "}, "contentBlockIndex": index}}
        yield {"contentBlockStop": {"contentBlockIndex": index}}
    yield {"messageStop": {"stopReason": "end_turn"}}
    yield {"metadata": {"usage": usage, "metrics": {}, "trace": {}}}


def _chunks(family: str, request: Request, head: _Part, usage: Any) -> Iterator[_Part]:
    if family == "claude":
        return _claude_chunks(request, head, usage)
    if family == "nova":
        return _nova_chunks(request, usage)
    return _text_chunks(family, request, usage)


def _text_chunks(family: str, request: Request, usage: Any) -> Iterator[_Part]:
    texts = list(words(request.asked))
    for number, word in enumerate(texts, 1):
        place = "last" if number == len(texts) else "middle" if number > 1 else "first"
        sofar = usage
        if place != "last" and (usage or {}).get("generation_token_count"):
            sofar = {**usage, "generation_token_count": number}
        yield _BODIES[family](request.body, sofar, word, place)


def _nova(_: _Part, usage: Any, text: str, __: str) -> _Part:
    message = {"role": "assistant", "content": [{"text": text}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


def _titan(_: _Part, usage: Any, text: str, place: str) -> _Part:
    counts, ended = usage or {}, place in ("last", "whole")
    given_count, made, reason = counts.get("inputTextTokenCount"), counts.get("tokenCount"), "FINISH" if ended else None
    if place == "whole":
        results = [{"tokenCount": made, "outputText": text, "completionReason": reason}]
        return {"inputTextTokenCount": given_count, "results": results}
    totals = {"totalOutputTextTokenCount": made if ended else None, "inputTextTokenCount": given_count}
    return {"outputText": text, "index": 0, "completionReason": reason, **totals}


def _titan_embedding(_: _Part, usage: Any, __: str, ___: str) -> _Part:
    return {"embedding": _VECTOR, "embeddingsByType": {"float": _VECTOR}, **(usage or {})}


def _llama(_: _Part, usage: Any, text: str, place: str) -> _Part:
    counts = dict(usage or {})
    if place in ("middle", "last"):
        counts["prompt_token_count"] = None
    return {"generation": text, **counts, "stop_reason": "stop" if place in ("last", "whole") else None}


def _mistral(body: _Part, _: Any, text: str, place: str) -> _Part:
    reason = "stop" if place in ("last", "whole") else None
    if "messages" not in body:
        return {"outputs": [{"text": text, "stop_reason": reason}]}
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "stop_reason": reason}]}


def _cohere(body: _Part, _: Any, text: str, place: str) -> _Part:
    ended = place in ("last", "whole")
    reason = {"finish_reason": "COMPLETE"} if ended else {}
    if place == "whole" and "message" in body:
        return {"response_id": "r-1", "generation_id": "g-1", "text": text, "chat_history": [], **reason}
    if place == "whole":
        return {"id": "g-1", "prompt": body.get("prompt"), "generations": [{"id": "g-1", "text": text, **reason}]}
    kind = {"event_type": "stream-end" if ended else "text-generation"} if "message" in body else {"index": 0}
    return {"is_finished": ended, "text": text, **kind, **reason}


def _cohere_embedding(body: _Part, _: Any, __: str, ___: str) -> _Part:
    texts = body.get("texts") or []
    vectors = [_VECTOR for _ in texts]
    return {"id": "e-1", "embeddings": vectors, "response_type": "embeddings_floats", "texts": texts}


_BODIES: Final[dict[str, Callable[[_Part, Any, str, str], _Part]]] = {
    "nova": _nova,
    "titan-embed": _titan_embedding,
    "titan": _titan,
    "llama": _llama,
    "cohere.embed": _cohere_embedding,
    "cohere": _cohere,
    "mistral": _mistral,
}
"""Family → the whole body, or that of a chunk: from the request, usage, text and place of it."""


# What they share.


def _model(request: Request) -> str:
    return unquote(request.match["model"])


def _family(request: Request) -> str:
    if request.asked.get("family"):
        return str(request.asked["family"])
    known = next((family for family in _FAMILIES if family in _model(request)), None)
    return known or ("claude" if "anthropic_version" in request.body else "nova")


def _own_name(model: str) -> str:
    """What a model calls itself: `claude-3-haiku-20240307` of `us.anthropic.claude-3-haiku-20240307-v1:0`."""
    found = re.search(r"claude-[\w.-]+?(?=-v\d|:|$)", model)
    return found[0] if found else model


def _identified(request: Request) -> dict[str, str]:
    return {"x-amzn-requestid": request.asked.get("id") or f"loopback-{next(request.book.numbers):08d}"}


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r"/model/(?P<model>[^/]+)/converse(-stream)?"), _converse),
    ("POST", re.compile(r"/model/(?P<model>[^/]+)/invoke(-with-response-stream)?"), _invoke),
)
