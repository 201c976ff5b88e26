"""Anthropic's batches of messages: create, retrieve, and the results as JSON lines.

A request whose params carry the directive `status` has errored; if none does, the last one of several has. Truth names
each message when the batch is made, endpoint `batches`. The directive `retrievals` of the batch says how often it is
still in progress.

Sources: `MessageBatch`, `MessageBatchIndividualResponse`, `MessageBatchSucceededResult` and
`MessageBatchErroredResult` of anthropic 2.12.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from spanledger.testing.loopback.anthropic_messages import message
from spanledger.testing.loopback.exchange import Answer, Book, Bytes, Json, Request, Route

_BEGUN: Final = "2026-09-21T14:13:20+00:00"
_ENDED: Final = "2026-09-21T14:14:20+00:00"
_EXPIRES: Final = "2026-09-22T14:13:20+00:00"


def _create(request: Request) -> Answer:
    items = request.body.get("requests") or []
    failing = {item["custom_id"] for item in items if (item["params"].get("loopback") or {}).get("status")}
    if not failing and len(items) > 1:
        failing = {items[-1]["custom_id"]}
    lines = [_line(request, item, item["custom_id"] in failing) for item in items]
    batch_id = request.asked.get("id") or f"msgbatch_{next(request.book.numbers):08d}"
    batch = _batch(batch_id, {"processing": len(lines)})
    end = {
        **_batch(batch_id, {"succeeded": len(lines) - len(failing), "errored": len(failing)}),
        "processing_status": "ended",
        "ended_at": _ENDED,
        "results_url": f"{request.root}{request.path}/{batch_id}/results",
    }
    request.book.store[batch_id] = (batch, end, request.asked.get("retrievals", 0))
    request.book.store[f"{batch_id}/results"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return Json(batch)


def _batch(batch_id: str, counts: dict[str, int]) -> dict[str, Any]:
    none = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {**none, **counts},
        "created_at": _BEGUN,
        "expires_at": _EXPIRES,
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }


def _line(request: Request, item: dict[str, Any], fails: bool) -> dict[str, Any]:
    if fails:
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "as asked"}, "request_id": None}
        return {"custom_id": item["custom_id"], "result": {"type": "errored", "error": error}}
    own = Book()  # the answer's truth comes from there
    own.numbers = request.book.numbers
    directives = {"service_tier": "batch", **(item["params"].get("loopback") or {})}
    body = {**item["params"], "loopback": directives, "stream": False}
    answer = message(replace(request, body=body, book=own))
    for told in own.truth:
        request.book.tell("batches", told["model"], told["id"], told["usage"])
    content = answer.body if isinstance(answer, Json) else None
    return {"custom_id": item["custom_id"], "result": {"type": "succeeded", "message": content}}


def _retrieve(request: Request) -> Answer:
    book, batch_id = request.book, request.match["id"]
    with book.lock:
        if batch_id not in book.store:
            return _missing()
        batch, end, left = book.store[batch_id]
        book.store[batch_id] = (batch, end, left - 1)
    return Json(batch if left > 0 else end)


def _results(request: Request) -> Answer:
    data = request.book.store.get(f"{request.match['id']}/results")
    return Bytes(data, "application/x-jsonl") if data is not None else _missing()


def _missing() -> Json:
    error = {"type": "not_found_error", "message": "no such batch"}
    return Json({"type": "error", "error": error, "request_id": "req_loopback"}, 404)


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/messages/batches"), _create),
    ("GET", re.compile(r".*/messages/batches/(?P<id>[^/]+)"), _retrieve),
    ("GET", re.compile(r".*/messages/batches/(?P<id>[^/]+)/results"), _results),
)
