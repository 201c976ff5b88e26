"""Anthropic's Messages, whole and streamed, counting of tokens, and the legacy completions.

Further directives: `tool` names a tool that the answer calls (until its result has come), `arguments` what it is called
with. `state` is the stop reason; `error` ends a stream with an `error` event.

Sources: `Message`, `Usage`, `MessageDeltaUsage`, `RawMessageStreamEvent` and `MessageTokensCount` of anthropic 2.12;
the recorded traffic of OpenInference's tests for the order of events, for which counts stand in `message_start`, and
for the legacy completions, which anthropic 2.12 no longer has.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any, Final

from spanledger.testing.loopback.exchange import Answer, Events, Json, Request, Route, given, sentence, tokens, words

_OUTPUT: Final = 9
"""Output tokens of every answer."""
_AT_END: Final = ("output_tokens_details", "server_tool_use", "iterations", "fallback_credit")
"""Counts that a stream states in `message_delta` only."""
_TWICE: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Counts that a stream states in `message_start`, and again in `message_delta`."""
_SAMPLES: Final = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def message(request: Request) -> Answer:
    """A message, whole or in events."""
    asked, usage = request.asked, given(request.asked, _usage(request))
    content = [*(asked.get("output") or []), *_content(request)]
    calls = content[-1]["type"] == "tool_use"
    answer: dict[str, Any] = {
        "model": _model(request),
        "id": asked.get("id") or f"msg_{next(request.book.numbers):08d}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": asked.get("state") or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "stop_details": None,
    }
    request.book.tell("messages", answer["model"], answer["id"], usage)
    if request.body.get("stream"):
        return Events(_events(answer, usage, asked))
    return Json({**answer, "usage": usage})


def _model(request: Request) -> str | None:
    named = request.match.groupdict().get("model")
    model: str | None = request.asked.get("model") or request.body.get("model")
    return model or (urllib.parse.unquote(named) if named else None)


def _usage(request: Request) -> dict[str, Any]:
    prompt = _prompt(request)
    kinds = [str(tool.get("type")) for tool in request.body.get("tools") or []]
    return {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 2 * (prompt // 4) + 1,
        "cache_read_input_tokens": prompt // 3,
        "cache_creation": {"ephemeral_5m_input_tokens": prompt // 4, "ephemeral_1h_input_tokens": prompt // 4 + 1},
        "output_tokens": _OUTPUT,
        "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": {
            "web_search_requests": sum(kind.startswith("web_search") for kind in kinds),
            "web_fetch_requests": sum(kind.startswith("web_fetch") for kind in kinds),
        },
        "service_tier": request.asked.get("service_tier") or "standard",
        "inference_geo": "global",
    }


def _prompt(request: Request) -> int:
    return tokens(request.body.get("system")) + tokens(request.body.get("messages"))


def _content(request: Request) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if (request.body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        blocks.append({"type": "thinking", "thinking": "A pangram.", "signature": "bG9vcGJhY2s="})
    blocks.append({"type": "text", "text": sentence(request.asked)})
    tool = next((each for each in request.body.get("tools") or [] if each["name"] == request.asked.get("tool")), None)
    if tool is None or _has_result(request.body.get("messages") or []):
        return blocks
    call = {
        "type": "tool_use",
        "id": f"toolu_{next(request.book.numbers):08d}",
        "name": tool["name"],
        "input": request.asked.get("arguments") or _arguments(tool.get("input_schema") or {}),
        "caller": {"type": "direct"},
    }
    return [*blocks, call]


def _has_result(messages: list[dict[str, Any]]) -> bool:
    content = messages[-1].get("content") if messages else None
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """A value for each argument that the tool requires."""
    properties = schema.get("properties") or {}
    return {name: _SAMPLES.get(properties.get(name, {}).get("type")) for name in schema.get("required") or []}


def _events(answer: dict[str, Any], usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    def event(kind: str, **rest: Any) -> tuple[str, Any]:
        return kind, {"type": kind, **rest}

    first, last = _split(usage)
    yield event("message_start", message={**answer, "content": [], "stop_reason": None, "usage": first})
    for index, block in enumerate(answer["content"]):
        empty, deltas = _pieces(block, asked)
        yield event("content_block_start", index=index, content_block=empty)
        if not index:
            yield event("ping")
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    if asked.get("error"):
        yield event("error", error=asked["error"])
        return
    ending = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield event("message_delta", delta=ending, usage=last)
    yield event("message_stop")


def _pieces(block: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A content block as it begins, and what is then added to it."""
    match block["type"]:
        case "text":
            texts = [word + " " for word in words(asked)] if block["text"] == sentence(asked) else [block["text"]]
            return {**block, "text": ""}, [{"type": "text_delta", "text": text} for text in texts]
        case "thinking":
            deltas = [{"type": f"{name}_delta", name: block[name]} for name in ("thinking", "signature")]
            return {**block, "thinking": "", "signature": ""}, deltas
        case "tool_use":
            text = json.dumps(block["input"])
            parts = ("", text[: len(text) // 2], text[len(text) // 2 :])
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
        case _:
            return block, []


def _split(usage: Any) -> tuple[Any, Any]:
    """What of a usage `message_start` says, its output a placeholder, and what `message_delta` says."""
    if not isinstance(usage, dict):
        return usage, usage
    first = {name: 1 if name == "output_tokens" else value for name, value in usage.items() if name not in _AT_END}
    last = {name: value for name, value in usage.items() if name in (*_TWICE, *_AT_END, "output_tokens")}
    return first, last


def _count(request: Request) -> Answer:
    return Json({"input_tokens": _prompt(request)})


def _completion(request: Request) -> Answer:
    asked = request.asked
    answer_id = asked.get("id") or f"compl_{next(request.book.numbers):08d}"
    head = {"type": "completion", "id": answer_id, "model": _model(request), "log_id": answer_id}
    request.book.tell("complete", head["model"], answer_id, None)
    end = {"stop_reason": "stop_sequence", "stop": "\n\nHuman:"}
    if not request.body.get("stream"):
        return Json({**head, "completion": sentence(asked), **end})
    going = {"stop_reason": None, "stop": None}
    pieces = [("completion", {**head, "completion": f" {word}", **going}) for word in words(asked)]
    return Events(iter([*pieces, ("ping", {"type": "ping"}), ("completion", {**head, "completion": "", **end})]))


_VERTEX: Final = r".*/publishers/anthropic/models/"
ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/messages/count_tokens"), _count),
    ("POST", re.compile(_VERTEX + r"count-tokens:rawPredict"), _count),
    ("POST", re.compile(_VERTEX + r"(?P<model>[^/:]+):(stream)?[rR]awPredict"), message),
    ("POST", re.compile(r"(/anthropic)?/v1/messages"), message),
    ("POST", re.compile(r".*/v1/complete"), _completion),
)
