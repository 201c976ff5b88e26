"""OpenAI's Responses: whole, streamed, in the background, and compaction.

Sources: `Response`, `ResponseStreamEvent` and `CompactedResponse` of openai 3.54, and the recorded traffic of
OpenInference's tests.
"""

from __future__ import annotations

import itertools
import re
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


def response(request: Request) -> Answer:
    """A Response: whole, in events, or queued for later retrieval."""
    usage = given(request.asked, _usage(request))
    body = _body(request)
    if request.body.get("background"):
        with request.book.lock:
            request.book.store[body["id"]] = (body, usage, request.asked.get("retrievals", 1))
        return Json({**body, "status": "queued", "output": []})
    request.book.tell("responses", body["model"], body["id"], usage)
    if request.body.get("stream"):
        return Events(_events(body, usage, request.asked))
    return Json({**body, "usage": usage})


def _retrieve(request: Request) -> Answer:
    book, response_id = request.book, request.match["id"]
    with book.lock:
        known = book.store.get(response_id)
        if known is None:
            return Json({"error": {"message": "no such response", "type": "invalid_request_error"}}, 404)
        body, usage, left = known
        if left >= 0:
            book.store[response_id] = (body, usage, left - 1)
        if left > 0:
            return Json({**body, "status": "in_progress", "output": []})
        if left == 0:
            book.tell("responses", body["model"], body["id"], usage)
    return Json({**body, "usage": usage})


def _compact(request: Request) -> Answer:
    usage = given(request.asked, _usage(request))
    answer_id = request.asked.get("id") or f"resp_{next(request.book.numbers):08d}"
    request.book.tell("responses_compact", request.asked.get("model") or request.body.get("model"), answer_id, usage)
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "loopback"}
    return Json(
        {
            "id": answer_id,
            "object": "response.compaction",
            "created_at": CREATED,
            "output": [*(request.asked.get("output") or []), item],
            "usage": usage,
        }
    )


def _usage(request: Request) -> dict[str, Any]:
    prompt = tokens(request.body.get("input"))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": prompt // 5, "cache_write_tokens": 0},
        "output_tokens": _OUTPUT,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": prompt + _OUTPUT,
    }


def _body(request: Request) -> dict[str, Any]:
    asked = request.asked
    message = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": sentence(asked), "annotations": []}],
    }
    return {
        "id": asked.get("id") or f"resp_{next(request.book.numbers):08d}",
        "object": "response",
        "created_at": CREATED,
        "status": asked.get("state") or "completed",
        "background": bool(request.body.get("background")),
        "error": asked.get("error"),
        "incomplete_details": asked.get("incomplete_details"),
        "model": asked.get("model") or request.body.get("model"),
        "output": [*(asked.get("output") or []), message],
        "service_tier": asked.get("service_tier") or "default",
        **_SETTINGS,
    }


_SETTINGS: Final[dict[str, Any]] = {
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "usage": None,
}


def _events(body: dict[str, Any], usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    numbers = itertools.count()

    def event(kind: str, **rest: Any) -> tuple[str, Any]:
        return kind, {"type": kind, "sequence_number": next(numbers), **rest}

    begun = {**body, "status": "in_progress", "output": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    item = body["output"][-1]
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
    yield event("response.content_part.added", **place, part=empty)
    for word in words(asked):
        yield event("response.output_text.delta", **place, delta=word + " ", logprobs=[])
    yield event("response.output_text.done", **place, text=sentence(asked), logprobs=[])
    yield event("response.content_part.done", **place, part=item["content"][0])
    yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{body['status']}", response={**body, "usage": usage})


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/responses/compact"), _compact),
    ("POST", re.compile(r".*/responses"), response),
    ("GET", re.compile(r".*/responses/(?P<id>[^/]+)"), _retrieve),
)
