"""OpenAI's files and batches: upload requests, run them as a batch, download the answers.

Truth names each answer when the batch is made, endpoint `batches`. A line may carry directives in its `body`, and the
directive `retrievals` of the batch says how often it is still in progress.

Sources: `FileObject`, `Batch` and `BatchUsage` of openai 3.54; `BatchRequestInput` and `BatchRequestOutput` of
OpenAI's published API specification for the lines.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from spanledger.testing.loopback import openai_responses, openai_text
from spanledger.testing.loopback.exchange import CREATED, Answer, Book, Bytes, Json, Request, Route

_RUNS: Final = {
    "/v1/chat/completions": openai_text.chat,
    "/v1/completions": openai_text.completion,
    "/v1/embeddings": openai_text.embeddings,
    "/v1/responses": openai_responses.response,
}
_QUESTION: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
_MADE_UP: Final = tuple(
    {"custom_id": f"request-{number}", "url": "/v1/chat/completions", "body": body}
    for number, body in enumerate((_QUESTION, _QUESTION, {**_QUESTION, "loopback": {"status": 400}}), 1)
)
"""The requests of a batch whose input file is not known."""


def _upload(request: Request) -> Answer:
    data = request.files.get("file") or b""
    file = _file(f"file-{next(request.book.numbers):08d}", data, str(request.body.get("purpose")))
    request.book.store[file["id"]] = data
    return Json(file)


def _file(file_id: str, data: bytes, purpose: str) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": len(data),
        "created_at": CREATED,
        "filename": "batch.jsonl",
        "purpose": purpose,
        "status": "processed",
    }


def _content(request: Request) -> Answer:
    data = request.book.store.get(request.match["id"])
    if data is None:
        return Json({"error": {"message": "no such file", "type": "invalid_request_error"}}, 404)
    return Bytes(data, "application/octet-stream")


def _create(request: Request) -> Answer:
    book, number = request.book, next(request.book.numbers)
    data = book.store.get(request.body.get("input_file_id") or "")
    inputs = [json.loads(line) for line in data.splitlines() if line.strip()] if data else _MADE_UP
    outputs = [_run(request, line) for line in inputs]
    output_id = f"file-output-{number:08d}"
    book.store[output_id] = b"".join(json.dumps(line).encode() + b"\n" for line in outputs)
    batch: dict[str, Any] = {
        "id": request.asked.get("id") or f"batch_{number:08d}",
        "object": "batch",
        "endpoint": request.body.get("endpoint"),
        "completion_window": request.body.get("completion_window"),
        "input_file_id": request.body.get("input_file_id"),
        "created_at": CREATED,
        "expires_at": CREATED + 86_400,
        "status": "validating",
        "metadata": request.body.get("metadata"),
    }
    book.store[batch["id"]] = (batch, _ended(outputs, output_id), request.asked.get("retrievals", 0))
    return Json(batch)


def _run(request: Request, line: dict[str, Any]) -> dict[str, Any]:
    """The line of the answer to a line of the input file."""
    own = Book()  # the answer's truth comes from there
    own.numbers = request.book.numbers
    status = (line["body"].get("loopback") or {}).get("status") or 200
    body: Any = {"error": {"message": "as asked", "type": "invalid_request_error", "param": None, "code": "as_asked"}}
    if status == 200:
        answer = _RUNS[line["url"]](replace(request, path=line["url"], body=line["body"], book=own))
        body = answer.body if isinstance(answer, Json) else None
        for told in own.truth:
            request.book.tell("batches", told["model"], told["id"], told["usage"])
    number = next(request.book.numbers)
    response = {"status_code": status, "request_id": f"req_{number:08d}", "body": body}
    return {"id": f"batch_req_{number:08d}", "custom_id": line["custom_id"], "response": response, "error": None}


def _ended(outputs: list[dict[str, Any]], output_id: str) -> dict[str, Any]:
    failed = sum(line["response"]["status_code"] != 200 for line in outputs)
    usages = [line["response"]["body"].get("usage") for line in outputs]

    def count(*names: str) -> int:
        return sum(usage.get(name) or 0 for usage in usages if isinstance(usage, dict) for name in names)

    taken, made = count("input_tokens", "prompt_tokens"), count("output_tokens", "completion_tokens")
    return {
        "status": "completed",
        "completed_at": CREATED + 60,
        "output_file_id": output_id,
        "request_counts": {"total": len(outputs), "completed": len(outputs) - failed, "failed": failed},
        "usage": {
            "input_tokens": taken,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": taken + made,
        },
    }


def _retrieve(request: Request) -> Answer:
    book, batch_id = request.book, request.match["id"]
    with book.lock:
        if batch_id not in book.store:
            return Json({"error": {"message": "no such batch", "type": "invalid_request_error"}}, 404)
        batch, end, left = book.store[batch_id]
        book.store[batch_id] = (batch, end, left - 1)
    return Json({**batch, "status": "in_progress"} if left > 0 else {**batch, **end})


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", re.compile(r".*/files"), _upload),
    ("GET", re.compile(r".*/files/(?P<id>[^/]+)/content"), _content),
    ("POST", re.compile(r".*/batches"), _create),
    ("GET", re.compile(r".*/batches/(?P<id>[^/]+)"), _retrieve),
)
