"""A provider on this machine that speaks OpenAI's wire format: chat, Responses, completions, embeddings.

Wire shapes: openai.types of openai 3.54 (`ChatCompletion`, `ChatCompletionChunk`, `Response`, `ResponseStreamEvent`,
`Completion`, `CreateEmbeddingResponse`) and the recorded traffic of OpenInference's tests. It answers `GET /truth` with
every answer it gave: endpoint, model, id and the usage exactly as it was sent.

A request may direct the answer by a field `loopback` in its body: `usage` (sent instead of the computed one, whatever
it is), `id`, `status` (HTTP), `chunks`, `cut_after` (chunks before the connection breaks), `delay` (seconds between
chunks), `retrievals` (how often a background response is still in progress), `output` (items of a Response), `model`
and `service_tier` (what the answer says of itself), `headers` (of the HTTP response).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

CREATED: Final = 1_790_000_000
"""Creation time of every answer (Unix seconds): the same at each run."""
_WORDS: Final = ("The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog.")


class Loopback:
    """The server, in a thread of this process. `with Loopback() as provider: OpenAI(base_url=provider.base_url, …)`."""

    def __init__(self, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """Address for an OpenAI client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def truth(self) -> list[dict[str, Any]]:
        """What was answered, in order."""
        return list(self._server.book.truth)

    def serve(self) -> None:
        """Answer until interrupted."""
        self._server.serve_forever()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="loopback", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.book = _Book()

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


class _Book:
    """What all requests share."""

    def __init__(self) -> None:
        self.truth: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.background: dict[str, tuple[dict[str, Any], Any, int]] = {}
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    _asked_headers: Mapping[str, str] = {}  # never written

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    @property
    def _book(self) -> _Book:
        return self.server.book  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:  # the base class's name
        if self.path == "/truth":
            self._json(200, self._book.truth)
        elif self.path.startswith("/v1/responses/"):
            self._retrieve(self.path.split("?")[0].rsplit("/", 1)[1])
        else:
            self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    def do_POST(self) -> None:  # the base class's name
        request = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        asked = request.get("loopback") or {}
        self._asked_headers = asked.get("headers") or {}
        if asked.get("status"):
            self._json(asked["status"], {"error": {"message": "as asked", "type": "loopback", "code": "as_asked"}})
            return
        path = self.path.split("?")[0]
        for ending, answer in (
            ("/chat/completions", self._chat),
            ("/responses", self._response),
            ("/completions", self._completion),
            ("/embeddings", self._embeddings),
        ):
            if path.endswith(ending):
                answer(request, asked)
                return
        self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    # The four endpoints.

    def _chat(self, request: dict[str, Any], asked: dict[str, Any]) -> None:
        prompt = _tokens(request.get("messages"))
        details = {"cached_tokens": prompt // 4, "audio_tokens": 0}
        usage = _given(
            asked,
            {
                "prompt_tokens": prompt,
                "completion_tokens": len(_WORDS),
                "total_tokens": prompt + len(_WORDS),
                "prompt_tokens_details": details,
                "completion_tokens_details": {
                    "reasoning_tokens": 2,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
        )
        head = self._head("chatcmpl", "chat.completion", request, asked)
        self._told("chat", head, usage)
        if not request.get("stream"):
            message = {"role": "assistant", "content": _sentence(asked), "refusal": None}
            choices = [
                {"index": index, "message": message, "finish_reason": "stop", "logprobs": None}
                for index in range(request.get("n") or 1)
            ]
            self._json(200, {**head, "choices": choices, "usage": usage})
            return
        wants_usage = (request.get("stream_options") or {}).get("include_usage")
        head["object"] = "chat.completion.chunk"
        self._events(self._chat_chunks(head, usage, wants_usage, asked), asked)

    @staticmethod
    def _chat_chunks(head: Any, usage: Any, wants_usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        null_usage = {"usage": None} if wants_usage else {}
        for number, word in enumerate(_words(asked)):
            delta = {"content": word + " "} if number else {"role": "assistant", "content": word + " "}
            choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
            yield "", {**head, "choices": [choice], **null_usage}
        yield (
            "",
            {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}], **null_usage},
        )
        if wants_usage:
            yield "", {**head, "choices": [], "usage": usage}
        yield "", "[DONE]"

    def _completion(self, request: dict[str, Any], asked: dict[str, Any]) -> None:
        prompt = _tokens(request.get("prompt"))
        total = prompt + len(_WORDS)
        usage = _given(asked, {"prompt_tokens": prompt, "completion_tokens": len(_WORDS), "total_tokens": total})
        head = self._head("cmpl", "text_completion", request, asked)
        self._told("text_completion", head, usage)
        choice = {"index": 0, "text": _sentence(asked), "finish_reason": "stop", "logprobs": None}
        if request.get("stream"):
            chunks = [
                ("", {**head, "choices": [{**choice, "text": word, "finish_reason": None}]}) for word in _words(asked)
            ]
            chunks.append(("", {**head, "choices": [{**choice, "text": ""}]}))
            if (request.get("stream_options") or {}).get("include_usage"):
                chunks.append(("", {**head, "choices": [], "usage": usage}))
            self._events(iter([*chunks, ("", "[DONE]")]), asked)
        else:
            self._json(200, {**head, "choices": [choice], "usage": usage})

    def _embeddings(self, request: dict[str, Any], asked: dict[str, Any]) -> None:
        texts = request.get("input")
        texts = texts if isinstance(texts, list) else [texts]
        width = request.get("dimensions") or 8
        vector: Any = [((index * 37) % 101) / 101 for index in range(width)]
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{width}f", *vector)).decode()
        count = _tokens(texts)
        usage = _given(asked, {"prompt_tokens": count, "total_tokens": count})
        head = {"object": "list", "model": asked.get("model") or request.get("model")}
        self._told("embeddings", {**head, "id": None}, usage)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(texts))]
        self._json(200, {**head, "data": data, "usage": usage})

    def _response(self, request: dict[str, Any], asked: dict[str, Any]) -> None:
        prompt = _tokens(request.get("input"))
        usage = _given(
            asked,
            {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": prompt // 5, "cache_write_tokens": 0},
                "output_tokens": len(_WORDS),
                "output_tokens_details": {"reasoning_tokens": 3},
                "total_tokens": prompt + len(_WORDS),
            },
        )
        response = self._response_body(request, asked)
        if request.get("background"):
            with self._book.lock:
                self._book.background[response["id"]] = (response, usage, asked.get("retrievals", 1))
            self._json(200, {**response, "status": "queued", "output": []})
            return
        self._told("responses", response, usage)
        if request.get("stream"):
            self._events(_response_events(response, usage, asked), asked)
        else:
            self._json(200, {**response, "usage": usage})

    def _response_body(self, request: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        message = {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": _sentence(asked), "annotations": []}],
        }
        return {
            "id": asked.get("id") or f"resp_{next(self._book.numbers):08d}",
            "object": "response",
            "created_at": CREATED,
            "status": asked.get("state") or "completed",
            "background": bool(request.get("background")),
            "error": asked.get("error"),
            "incomplete_details": asked.get("incomplete_details"),
            "instructions": None,
            "metadata": {},
            "model": asked.get("model") or request.get("model"),
            "output": [*(asked.get("output") or []), message],
            "parallel_tool_calls": True,
            "service_tier": asked.get("service_tier") or "default",
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None,
        }

    def _retrieve(self, response_id: str) -> None:
        with self._book.lock:
            known = self._book.background.get(response_id)
            if known is None:
                self._json(404, {"error": {"message": "no such response", "type": "invalid_request_error"}})
                return
            response, usage, left = known
            if left > 0:
                self._book.background[response_id] = (response, usage, left - 1)
                self._json(200, {**response, "status": "in_progress", "output": []})
                return
            if left == 0:
                self._told("responses", response, usage)
                self._book.background[response_id] = (response, usage, -1)
        self._json(200, {**response, "usage": usage})

    # What they share.

    def _head(self, prefix: str, kind: str, request: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": asked.get("id") or f"{prefix}-{next(self._book.numbers):08d}",
            "object": kind,
            "created": CREATED,
            "model": asked.get("model") or request.get("model"),
            "service_tier": asked.get("service_tier") or "default",
            "system_fingerprint": "fp_loopback",
        }

    def _told(self, endpoint: str, head: dict[str, Any], usage: Any) -> None:
        self._book.truth.append({"endpoint": endpoint, "model": head["model"], "id": head["id"], "usage": usage})

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self._more_headers()
        self.end_headers()
        self.wfile.write(data)

    def _more_headers(self) -> None:
        for name, value in self._asked_headers.items():
            self.send_header(name, value)

    def _events(self, events: Iterator[tuple[str, Any]], asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self._more_headers()
        self.end_headers()
        try:
            for number, (name, data) in enumerate(events):
                if number == asked.get("cut_after"):
                    self.close_connection = True
                    self.wfile.flush()
                    self.connection.close()
                    return
                if asked.get("delay"):
                    time.sleep(asked["delay"])
                text = data if isinstance(data, str) else json.dumps(data)
                event = f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n".encode()
                self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the reader has gone


def _response_events(response: dict[str, Any], usage: Any, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    numbers = itertools.count()

    def event(kind: str, **rest: Any) -> tuple[str, Any]:
        return kind, {"type": kind, "sequence_number": next(numbers), **rest}

    begun = {**response, "status": "in_progress", "output": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    item = response["output"][-1]
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
    yield event("response.content_part.added", **place, part=empty)
    for word in _words(asked):
        yield event("response.output_text.delta", **place, delta=word + " ", logprobs=[])
    yield event("response.output_text.done", **place, text=_sentence(asked), logprobs=[])
    yield event("response.content_part.done", **place, part=item["content"][0])
    yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{response['status']}", response={**response, "usage": usage})


def _given(asked: dict[str, Any], computed: Any) -> Any:
    return asked.get("usage", computed)


def _words(asked: dict[str, Any]) -> Iterator[str]:
    return itertools.islice(itertools.cycle(_WORDS), asked.get("chunks") or len(_WORDS))


def _sentence(asked: dict[str, Any]) -> str:
    return " ".join(_words(asked))


def _tokens(value: Any) -> int:
    """A made-up count that depends on the request: its words, and four for each part."""
    if isinstance(value, str):
        return 4 + len(value.split())
    if isinstance(value, dict):
        return sum(_tokens(each) for name, each in value.items() if name in ("content", "text"))
    if isinstance(value, list):
        return sum(_tokens(each) for each in value)
    return 0


def main() -> None:
    """Serve until interrupted; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(description="A provider on this machine that speaks OpenAI's wire format.")
    parser.add_argument("--port", type=int, default=0)
    server = Loopback(parser.parse_args().port)
    sys.stdout.write(server.base_url + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()


if __name__ == "__main__":
    main()
