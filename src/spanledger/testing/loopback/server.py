"""The HTTP server behind `Loopback`: finds the format a path belongs to and sends what it answers.

Amazon event stream: the message format of the "Amazon Transcribe: event stream encoding" page of AWS's documentation,
as botocore 1.43's `botocore.eventstream` reads it.
"""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self, cast

from spanledger.testing.loopback import anthropic, bedrock, google, openai
from spanledger.testing.loopback.exchange import Answer, Book, Bytes, Events, Frames, Json, Request

_ROUTES: Final = tuple(
    (*route, getattr(format_, "error", openai.error))
    for format_ in (anthropic, google, bedrock, openai)  # OpenAI's fit any prefix: last
    for route in format_.ROUTES
)


class Loopback:
    """The server, in a thread of this process. `with Loopback() as provider: OpenAI(base_url=provider.base_url, …)`."""

    def __init__(self, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)

    @property
    def root(self) -> str:
        """Address without a path: what most SDKs take."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """Address for an OpenAI client."""
        return f"{self.root}/v1"

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
        self.book = Book()

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:  # the base class's name
        self._answer()

    def do_POST(self) -> None:  # the base class's name
        self._answer()

    def _answer(self) -> None:
        book = cast("_Server", self.server).book
        data = self._data()
        path, _, query = self.path.partition("?")
        if path == "/truth":
            self._send(Json(book.truth), {})
            return
        for method, pattern, function, error in _ROUTES:
            if method == self.command and (match := pattern.fullmatch(path)):
                request = self._request(data, match, query, book)
                asked = request.asked
                status = asked.get("status")
                self._send(_as_error(error, status) if status else function(request), asked)
                return
        self._send(Json({"error": {"message": "no such path", "type": "invalid_request_error"}}, 404), {})

    def _request(self, data: bytes, match: re.Match[str], query: str, book: Book) -> Request:
        body, files = _decoded(data, self.headers.get("content-type") or "")
        return Request(
            method=self.command,
            path=match.string,
            query=urllib.parse.parse_qs(query, keep_blank_values=True),
            headers=cast("Mapping[str, str]", self.headers),
            body=body,
            match=match,
            book=book,
            root=f"http://127.0.0.1:{cast('_Server', self.server).server_port}",
            files=files,
        )

    def _data(self) -> bytes:
        if "chunked" not in (self.headers.get("transfer-encoding") or ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            """A trailer."""
        return b"".join(parts)

    def _send(self, answer: Answer, asked: dict[str, Any]) -> None:
        headers = {**answer.headers, **(asked.get("headers") or {})}
        match answer:
            case Json():
                self._whole(answer.status, "application/json", json.dumps(answer.body).encode(), headers)
            case Bytes():
                self._whole(200, answer.content_type, answer.data, headers)
            case Events():
                self._stream("text/event-stream", map(_event, answer.events), headers, asked)
            case Frames():
                frames = (_frame(*each) for each in answer.frames)
                self._stream("application/vnd.amazon.eventstream", frames, headers, asked)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _whole(self, status: int, content_type: str, data: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {"content-type": content_type, "content-length": str(len(data)), **headers})
        self.wfile.write(data)

    def _stream(self, kind: str, chunks: Iterator[bytes], headers: Mapping[str, str], asked: dict[str, Any]) -> None:
        self._head(200, {"content-type": kind, "transfer-encoding": "chunked", **headers})
        try:
            for number, chunk in enumerate(chunks):
                if number == asked.get("cut_after"):
                    self.close_connection = True
                    self.wfile.flush()
                    self.connection.close()
                    return
                if asked.get("delay"):
                    time.sleep(asked["delay"])
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the reader has gone


def _as_error(error: Any, status: int) -> Json:
    body = error(status)
    return body if isinstance(body, Json) else Json(body, status)


def _decoded(data: bytes, content_type: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Body and files of a request, of a form too."""
    boundary = re.search(r'multipart/form-data;.*boundary="?([^";]+)', content_type)
    if boundary is None:
        body = json.loads(data) if data.lstrip()[:1] == b"{" else {}
        return body, {}
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in (b"\r\n" + data).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb' name="([^"]*)"', head)
        field = name[1].decode() if name else ""
        if b"filename=" in head:
            files[field if field not in files else f"{field}{len(files)}"] = content
            fields[field] = fields.get(field, 0) + len(content)
        else:
            fields[field] = content.decode()
    return fields, files


def _event(event: tuple[str, Any]) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n".encode()


def _frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message of an Amazon event stream: lengths and their checksum, headers, payload, checksum."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack(">I", zlib.crc32(message))
