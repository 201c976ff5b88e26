"""The usage API: the wire format of each record, and a delivery that keeps its promises."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import spanledger
from spanledger.export.formats.usage_api import bodies, plain_usd
from spanledger.export.sinks.http import seconds
from spanledger.export.sinks.usage_api import UsageApiSink
from spanledger.recording.sink import SinkError


class Api(ThreadingHTTPServer):
    """A usage API that answers as told: `answers` are (status, headers), then 200."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.answers = [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def bodies(self):
        return [body for _, body, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, body, dict(self.headers)))
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in {"content-length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def api():
    made = Api()
    yield made
    made.shutdown()
    made.server_close()


ROW = {
    "record_id": "r1", "message_id": "m1", "input_tokens": 150, "output_tokens": 75, "web_searches": None,
    "metadata": None, "cost_breakdown": '{"input":300000000,"cache_read":75000000,"output":750000000}',
}  # fmt: skip


def post(sink):
    try:
        sink.post(sink.parts(ROW)[0], "key")
    finally:
        sink.close()


def test_a_record_is_one_body_for_each_token_type_and_every_value_is_text():
    assert list(bodies(ROW)) == [
        {"message_id": "m1", "type": "prompt", "token": "150", "cost": "0.000375"},
        {"message_id": "m1", "type": "completion", "token": "75", "cost": "0.00075"},
    ]


def test_costs_are_plain_decimals():
    assert [plain_usd(pico) for pico in (0, 1, 750_000, 10**12, 40_000_000_000, 123 * 10**13)] == [
        "0.0", "0.000000000001", "0.00000075", "1.0", "0.04", "1230.0",
    ]  # fmt: skip


def test_unknown_is_not_sent_and_the_record_stands_in_for_a_message():
    row = {**ROW, "message_id": None, "output_tokens": None, "cost_breakdown": None, "metadata": '{"label":"Draft"}'}
    assert list(bodies(row)) == [{"message_id": "r1", "type": "prompt", "token": "150", "label": "Draft"}]
    assert list(bodies({**row, "input_tokens": None})) == []


def test_searches_are_tool_usage():
    row = {**ROW, "web_searches": 2, "cost_breakdown": '{"input":1,"output":1,"web_search":20000000000}'}
    assert list(bodies(row))[-1] == {"message_id": "m1", "type": "tool_usage", "token": "2", "cost": "0.02"}


def test_calls_arrive_at_the_api_with_their_message_off_the_call_path(api, provider, telemetry, ledger):
    from openai import OpenAI

    spanledger.configure(tracer_provider=telemetry.tracer_provider, sinks="usage_api", usage_api_url=api.url)
    with OpenAI(base_url=provider.base_url, api_key="x") as client, spanledger.attribution(message_id="m7"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert len(ledger()) == 1
    assert [(path, body) for path, body, _ in api.requests] == [
        ("/api/internal/v1/usages", {"message_id": "m7", "type": "prompt", "token": "5", "cost": "0.00001125"}),
        ("/api/internal/v1/usages", {"message_id": "m7", "type": "completion", "token": "9", "cost": "0.00009"}),
    ]
    assert len({headers["Idempotency-Key"] for _, _, headers in api.requests}) == 2


def test_totals_are_sent_only_where_they_are_asked_for():
    assert [body["type"] for body in bodies(ROW)] == ["prompt", "completion"]
    row = {**ROW, "cost_pusd": 1_125_000_000}
    assert list(bodies(row, totals=True))[-1] == {
        "message_id": "m1",
        "type": "total",
        "token": "225",
        "cost": "0.001125",
    }


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(400, True), (413, True), (422, True), (401, False), (403, False), (408, False), (429, False), (500, False)],
)
def test_a_refusal_is_permanent_only_where_the_row_is_to_blame(api, status, permanent):
    api.answers = [(status, {})]
    with pytest.raises(SinkError, match=str(status)) as error:
        post(UsageApiSink(api.url))
    assert error.value.permanent is permanent


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_neither_followed_nor_a_success(api, status):
    elsewhere = Api()
    api.answers = [(status, {"location": elsewhere.url})]
    with pytest.raises(SinkError, match="redirect") as error:
        post(UsageApiSink(api.url, headers={"x-tenant": "acme"}))
    assert (error.value.permanent, elsewhere.requests) == (False, [])
    elsewhere.shutdown()
    elsewhere.server_close()


def test_nobody_listening_keeps_the_records_pending_and_the_call_never_waits(provider, telemetry, ledger, home):
    from openai import OpenAI

    from spanledger.recording.survey import survey

    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, sinks="usage_api", usage_api_url="http://127.0.0.1:9"
    )
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        for _ in range(3):
            client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush(timeout=3) is False
    assert len(ledger(flush=False)) == 3
    assert [state.pending for state in survey(home / "outbox")] == [3]


def test_retry_after_is_read_in_both_its_forms():
    assert [seconds(text) for text in (None, "3", "0", "-1", "soon")] == [None, 3.0, 0.0, 0.0, None]
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < seconds(later) <= 60


def test_the_jsonl_sink_writes_rows_with_the_ledgers_names(provider, telemetry, home):
    from openai import OpenAI

    spanledger.configure(tracer_provider=telemetry.tracer_provider, sinks=["jsonl"], ledger_url="none")
    with OpenAI(base_url=provider.base_url, api_key="x") as client, spanledger.attribution(team="a"):
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert spanledger.flush()
    (row,) = [json.loads(line) for line in (home / "usage.jsonl").read_text().splitlines()]
    assert (row["operation"], row["input_tokens"], row["cost_pusd"], row["team"]) == ("embeddings", 5, 100_000, "a")
    assert (home / "usage.jsonl").stat().st_mode & 0o777 == 0o600
    assert not (home / "ledger.db").exists()
