"""A receiver of records on this machine, and a delivery to it on the test's own thread."""

import json
import socket
import struct
import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from spanledger.model import Attribution, Cost, Usage, UsageRecord, at, record_id_at, row_of
from spanledger.recording.delivery import Delivery
from spanledger.recording.outbox import Draft, Outbox

MOMENT = 1_790_000_000_000_000_000


@dataclass
class Request:
    """What arrived."""

    path: str
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    """What is sent back. `fault`: `reset` the connection, `hang` for ever, or `cut` the answer in the middle."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    fault: str | None = None

    @property
    def accepts(self):
        return self.fault is None and self.status // 100 == 2


class Receiver(ThreadingHTTPServer):
    """Answers with what is in `answers`, then as `answer(request)` says; `seen` is every (request, answer)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer=lambda request: Answer()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen, self.answers, self.answer = [], deque(), answer
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def requests(self):
        return [request for request, _ in self.seen]

    @property
    def accepted(self):
        return [request for request, answer in self.seen if answer.accepts]

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        answer = self.server.answers.popleft() if self.server.answers else self.server.answer(request)
        self.server.seen.append((request, answer))
        if answer.fault == "hang":
            self.server.over.wait(20)
        if answer.fault in ("hang", "reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        promised = len(answer.body) + (100 if answer.fault == "cut" else 0)
        self.send_response(answer.status)
        for name, value in {"content-length": str(promised), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = self.close_connection or answer.fault == "cut"

    def log_message(self, *_):
        """Quiet."""


class GrpcReceiver:
    """An OTLP receiver over gRPC: `answer(request)` gives a response, or a status code and trailing metadata."""

    def __init__(self, answer=lambda request: ExportLogsServiceResponse(), **options):
        self.seen, self.answer = [], answer
        self.server = grpc.server(
            futures.ThreadPoolExecutor(2), options=[(f"grpc.{name}", value) for name, value in options.items()]
        )
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(self, self.server)
        self.url = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request, context):  # noqa: N802  # the name of the method in the protocol
        answer = self.answer(request)
        accepts = isinstance(answer, ExportLogsServiceResponse)
        self.seen.append((request, answer))
        if not accepts:
            code, metadata = answer
            context.set_trailing_metadata(metadata)
            context.abort(code, "as told")
        return answer

    @property
    def requests(self):
        return [request for request, _ in self.seen]

    @property
    def accepted(self):
        return [request for request, answer in self.seen if isinstance(answer, ExportLogsServiceResponse)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait(5)


def row(number=0, **changes):
    """A priced record; its id, message and metadata tell it from every other."""
    record_id = record_id_at(MOMENT + number * 1_000_000)
    made = row_of(
        UsageRecord(
            record_id=record_id,
            started_at=at(MOMENT + number * 1_000_000),
            operation="chat",
            provider="openai",
            source="tests",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            request_model="gpt-4o",
            response_model="gpt-4o-2024-08-06",
            duration_ns=1_234_000_000,
            service_name="shop",
            usage=Usage(input_tokens=150, output_tokens=75, web_searches=2, usage_status="reported"),
            cost=Cost(
                cost_pusd=21_125_000_000,
                cost_breakdown={"input": 375_000_000, "output": 750_000_000, "web_search": 20_000_000_000},
                currency="USD",
                cost_source="local",
                cost_status="priced",
            ),
            attribution=Attribution(metadata={"n": number}),
        )
    )
    return {**made, **changes}


def records_in(request):
    """The ids of the records in an OTLP request, decoded or not."""
    if not isinstance(request, ExportLogsServiceRequest):
        request = ExportLogsServiceRequest.FromString(request.body)
    return [
        attribute.value.string_value
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        for attribute in record.attributes
        if attribute.key == "spanledger.record.id"
    ]


class Round:
    """An outbox with rows in it and a delivery to one sink, by a clock that only `until_home` moves."""

    def __init__(self, sink, directory, rows=(), batch_size=10):
        self.now = 0.0
        self.counted = []
        self.outbox = Outbox.create(directory / "state" / "outbox", [sink.name], full_sync=False, max_bytes=2**24)
        self.outbox.append([Draft.of(each) for each in rows])
        self.delivery = delivery(sink, self.outbox.path.parent, batch_size, lambda: self.now, self.counted)
        self.delivery._own = self.outbox
        self.sink = sink

    def until_home(self, step=301.0, rounds=500):
        """Drain, and let `step` seconds go by, until everything has been taken or refused. How often."""
        for number in range(1, rounds + 1):
            if self.delivery.drain(3600):
                return number
            self.now += step
        raise AssertionError(f"{self.outbox.pending()} rows still wait: {self.outbox.cursor(self.sink.name)}")

    @property
    def dead(self):
        """What was put aside: record id → reason."""
        found = self.outbox._connection.execute("SELECT body, reason FROM dead ORDER BY seq").fetchall()
        return {json.loads(body)["record_id"]: reason for body, reason in found}

    def count(self, name):
        return sum(amount for each, amount, _ in self.counted if each == name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.outbox._connection.execute("DELETE FROM dead")
        self.outbox.close()
        self.delivery.stop(0)


def delivery(sink, directory, batch_size, clock, counted):
    """A delivery without a thread."""
    return Delivery(
        [sink], directory, batch_size=batch_size, flush_interval=0.01, clock=clock,
        count=lambda *told: counted.append(told),
    )  # fmt: skip
