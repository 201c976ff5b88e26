"""What each receiver gets, whole; what a file looks like; what a log never shows."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.export.receiver import MOMENT, Answer, GrpcReceiver, Receiver, Round, records_in, row

from spanledger.export.formats.openmeter import event
from spanledger.export.formats.tokentally import body
from spanledger.export.sinks.http import masked, masked_url
from spanledger.export.sinks.lines import ConsoleSink, JsonlSink
from spanledger.export.sinks.table import sink_of
from spanledger.guard import failures
from spanledger.model import COLUMNS, Attribution, Cost, Usage, UsageRecord, at, row_of
from spanledger.recording.files import Lease
from spanledger.recording.sink import SinkError
from spanledger.settings import read_settings
from spanledger.version import __version__

FULL = row_of(
    UsageRecord(
        record_id="019f0000-0000-7000-8000-000000000001",
        started_at=at(1_790_000_000_123_456_000),
        operation="chat",
        provider="anthropic",
        source="tests",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        response_id="msg_1",
        duration_ns=1_500_000_000,
        time_to_first_chunk_ns=250_000_000,
        request_model="claude-sonnet-4-5",
        response_model="claude-sonnet-4-5-20250929",
        server_address="api.anthropic.com",
        stream=True,
        finish_reasons=("end_turn", "tool_use"),
        conversation_id="conv-1",
        status="error",
        error_type="RateLimitError",
        service_name="shop",
        service_version="1.2.3",
        environment="production",
        weight=2,
        usage=Usage(
            input_tokens=1000,
            output_tokens=50,
            cache_read_tokens=600,
            cache_write_tokens=100,
            cache_write_long_tokens=40,
            reasoning_tokens=20,
            web_searches=3,
            usage_status="reported",
        ),
        cost=Cost(
            cost_pusd=33_000_000_000,
            cost_breakdown={
                "input": 900_000_000,
                "cache_write": 1_000_000_000,
                "cache_write_long": 100_000_000,
                "output": 1_000_000_000,
                "web_search": 30_000_000_000,
            },
            currency="USD",
            cost_source="local",
            cost_status="priced",
            price_basis="genai-prices 0.2.3",
        ),
        attribution=Attribution(
            user_id="ada",
            session_id="s1",
            organization_id="acme",
            feature="search",
            team="core",
            project="apollo",
            cost_center="cc-1",
            message_id="m1",
            metadata={"label": "Draft", "depth": 2, "tags": ["a", "b"], "beta": True},
        ),
    )
)
"""A record in which everything is known."""
BARE = row_of(
    UsageRecord(record_id="019f0000-0000-7000-8000-000000000002", started_at=at(MOMENT), operation="chat",
                provider="openai", source="tests")
)  # fmt: skip
"""One of which nothing is known but that there was a call."""


def settings(address, **given):
    addresses = dict.fromkeys(("usage_api_url", "tokentally_base_url", "openmeter_url"), address)
    keys = {"tokentally_api_key": "tt_secret", "openmeter_api_key": "om_secret"}
    return read_settings({**addresses, **keys, "usage_api_headers": {"x-tenant": "te_secret"}, **given}, {})


def sent(name, rows, **given):
    """What arrives of the rows."""
    with Receiver() as receiver:
        sink = sink_of(name, settings(receiver.url, **given))
        if hasattr(sink, "post"):
            for each in rows:
                for number, part in enumerate(sink.parts(each)):
                    sink.post(part, f"key-{number}")
        else:
            sink.send(rows)
        sink.close()
        return receiver.requests


# TokenTally.


def test_the_whole_of_what_tokentally_gets():
    (request,) = sent("tokentally", [FULL])
    assert request.path == "/api/usage"
    assert request.json == {
        "tokens_in": 300,
        "tokens_out": 50,
        "model": "claude-sonnet-4-5-20250929",
        "provider": "anthropic",
        "metadata": {
            "application": "shop", "environment": "production",
            "label": "Draft", "depth": 2, "tags": ["a", "b"], "beta": True,
            "user_id": "ada", "session_id": "s1", "organization_id": "acme", "feature": "search", "team": "core",
            "project": "apollo", "cost_center": "cc-1", "message_id": "m1",
        },
        "cost_usd": 0.033,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 100,
        "runtime_ms": 1500,
        "timestamp": "2026-09-21T14:13:20.123456+00:00",
        "error_message": "RateLimitError",
        "stop_reason": "end_turn",
    }  # fmt: skip
    assert {name: request.headers[name] for name in ("content-type", "x-api-key", "idempotency-key", "user-agent")} == {
        "content-type": "application/json",
        "x-api-key": "tt_secret",
        "idempotency-key": "key-0",
        "user-agent": f"spanledger/{__version__}",
    }


def test_what_tokentally_gets_of_a_call_of_which_nothing_is_known():
    assert body(BARE) == {
        "tokens_in": 0,
        "tokens_out": 0,
        "model": "",
        "provider": "openai",
        "metadata": {},
        "timestamp": "2026-09-21T14:13:20.000000+00:00",
    }


def test_tokentally_counts_no_cache_twice_and_never_below_zero():
    assert body({**BARE, "input_tokens": 5, "cache_read_tokens": 9, "cache_write_tokens": 0})["tokens_in"] == 0
    assert "cache_creation_input_tokens" not in body({**BARE, "input_tokens": 5, "cache_write_tokens": 0})


# OpenMeter.


def test_the_whole_of_what_openmeter_gets():
    (request,) = sent("openmeter", [FULL, BARE])
    assert request.path == "/api/v1/events"
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert request.headers["authorization"] == "Bearer om_secret"
    assert request.json == [
        {
            "specversion": "1.0",
            "id": "019f0000-0000-7000-8000-000000000001",
            "source": "shop",
            "type": "spanledger.usage",
            "subject": "acme",
            "time": "2026-09-21T14:13:20.123456+00:00",
            "datacontenttype": "application/json",
            "data": {
                "provider": "anthropic", "request_model": "claude-sonnet-4-5",
                "response_model": "claude-sonnet-4-5-20250929", "model": "claude-sonnet-4-5-20250929",
                "operation": "chat", "status": "error", "service_name": "shop", "environment": "production",
                "input_tokens": 1000, "output_tokens": 50, "cache_read_tokens": 600, "cache_write_tokens": 100,
                "cache_write_long_tokens": 40, "reasoning_tokens": 20, "web_searches": 3, "duration_ms": 1500,
                "cost_status": "priced", "cost_source": "local", "weight": 2, "cost_usd": 0.033,
                "user_id": "ada", "session_id": "s1", "organization_id": "acme", "feature": "search", "team": "core",
                "project": "apollo", "cost_center": "cc-1", "message_id": "m1",
                "metadata": {"label": "Draft", "depth": 2, "tags": ["a", "b"], "beta": True},
            },
        },
        {
            "specversion": "1.0",
            "id": "019f0000-0000-7000-8000-000000000002",
            "source": "spanledger",
            "type": "spanledger.usage",
            "subject": "spanledger",
            "time": "2026-09-21T14:13:20.000000+00:00",
            "datacontenttype": "application/json",
            "data": {"provider": "openai", "operation": "chat", "status": "success", "weight": 1, "model": None},
        },
    ]  # fmt: skip


def test_the_subject_of_an_openmeter_event_is_the_organization_else_the_user_else_the_service():
    rows = ({"organization_id": "o", "user_id": "u", "service_name": "s"}, {"user_id": "u", "service_name": "s"})
    rows += ({"service_name": "s"}, {})
    assert [event({**BARE, **each})["subject"] for each in rows] == ["o", "u", "s", "spanledger"]


# OTLP.


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind)


def attributes(of):
    return {each.key: plain(each.value) for each in of.attributes}


def otlp(rows, monkeypatch, protocol="http/protobuf", **env):
    """The requests that arrive, decoded."""
    with GrpcReceiver() if protocol == "grpc" else Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        sink = sink_of("otlp", read_settings())
        sink.send(rows)
        sink.close()
        if protocol == "grpc":
            return receiver.requests
        assert {request.path for request in receiver.requests} == {"/v1/logs"}
        return [ExportLogsServiceRequest.FromString(request.body) for request in receiver.requests]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_whole_of_what_an_otlp_receiver_gets(protocol, monkeypatch):
    (request,) = otlp([FULL], monkeypatch, protocol)
    (resource,) = request.resource_logs
    assert attributes(resource.resource) == {
        "service.name": "shop",
        "service.version": "1.2.3",
        "deployment.environment.name": "production",
    }
    (scope,) = resource.scope_logs
    assert (scope.scope.name, scope.scope.version) == ("spanledger", __version__)
    (record,) = scope.log_records
    assert record.event_name == "spanledger.usage"
    assert record.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert record.span_id.hex() == "b7ad6b7169203331"
    assert record.time_unix_nano == 1_790_000_001_623_456_000
    assert abs(record.observed_time_unix_nano - time.time_ns()) < 60 * 10**9
    assert attributes(record) == {
        "spanledger.record.id": "019f0000-0000-7000-8000-000000000001",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.response.model": "claude-sonnet-4-5-20250929",
        "gen_ai.response.id": "msg_1",
        "gen_ai.conversation.id": "conv-1",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["end_turn", "tool_use"],
        "server.address": "api.anthropic.com",
        "error.type": "RateLimitError",
        "spanledger.status": "error",
        "spanledger.duration_ms": 1500,
        "spanledger.time_to_first_chunk_ms": 250,
        "spanledger.weight": 2,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cache_write.input_tokens": 100,
        "spanledger.usage.cache_write_long.input_tokens": 40,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "spanledger.usage.web_searches": 3,
        "spanledger.usage.status": "reported",
        "spanledger.cost.status": "priced",
        "spanledger.cost.source": "local",
        "spanledger.cost.basis": "genai-prices 0.2.3",
        "spanledger.cost.currency": "USD",
        "spanledger.cost.total": 0.033,
        "spanledger.cost.pico_usd": 33_000_000_000,
        "spanledger.cost.input": 0.0009,
        "spanledger.cost.cache_write": 0.0011,
        "spanledger.cost.output": 0.001,
        "spanledger.cost.web_search": 0.03,
        "spanledger.attribution.source": "scope",
        "user.id": "ada",
        "session.id": "s1",
        "spanledger.organization.id": "acme",
        "spanledger.feature": "search",
        "spanledger.team": "core",
        "spanledger.project": "apollo",
        "spanledger.cost_center": "cc-1",
        "spanledger.message.id": "m1",
        "spanledger.metadata.label": "Draft",
        "spanledger.metadata.depth": 2,
        "spanledger.metadata.tags": ["a", "b"],
        "spanledger.metadata.beta": True,
    }


def test_a_record_without_a_span_takes_none_from_whoever_sends_it(monkeypatch, telemetry):
    with telemetry.tracer_provider.get_tracer("tests").start_as_current_span("somebody's"):
        (request,) = otlp([BARE], monkeypatch)
    (resource,) = request.resource_logs
    (record,) = resource.scope_logs[0].log_records
    assert (record.trace_id, record.span_id, attributes(resource.resource)) == (b"", b"", {})
    assert attributes(record) == {
        "spanledger.record.id": "019f0000-0000-7000-8000-000000000002",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.stream": False,
        "spanledger.status": "success",
        "spanledger.weight": 1,
        "spanledger.usage.status": "missing",
    }


def test_each_service_is_a_resource_of_its_own(monkeypatch):
    rows = [row(1, service_name="a"), row(2, service_name="b"), row(3, service_name="a")]
    (request,) = otlp(rows, monkeypatch)
    found = [(attributes(each.resource), len(each.scope_logs[0].log_records)) for each in request.resource_logs]
    assert found == [({"service.name": "a"}, 2), ({"service.name": "b"}, 1)]
    assert records_in(request) == [rows[number]["record_id"] for number in (0, 2, 1)]


@pytest.mark.parametrize(
    ("value", "told"), [(2**70, str(2**70)), (-(2**63) - 1, str(-(2**63) - 1)), ("a\ud800b", "a?b"), (None, "null")]
)
def test_metadata_that_otlp_has_no_word_for_is_told_as_text(value, told, monkeypatch, caplog):
    (found,) = otlp([{**BARE, "metadata": json.dumps({"odd": value})}], monkeypatch)
    assert attributes(found.resource_logs[0].scope_logs[0].log_records[0])["spanledger.metadata.odd"] == told
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# JSON lines.


def names_in(path):
    return [json.loads(line)["record_id"] for line in path.read_text().splitlines()]


def test_a_line_is_the_whole_row_under_the_ledgers_names(tmp_path):
    path = tmp_path / "new" / "usage.jsonl"
    JsonlSink(path).send([FULL, BARE])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [FULL, BARE]
    assert set(FULL) == set(COLUMNS)
    assert [file.stat().st_mode & 0o777 for file in (path, path.parent)] == [0o600, 0o700]


def test_a_file_that_others_could_read_becomes_private_and_a_link_is_refused(tmp_path):
    path = tmp_path / "usage.jsonl"
    path.touch()
    path.chmod(0o666)
    JsonlSink(path).send([BARE])
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with pytest.raises(SinkError) as error:
        JsonlSink(link).send([BARE])
    assert (error.value.permanent, len(names_in(path))) == (False, 1)


def test_a_full_file_is_renamed_and_ten_are_kept(tmp_path):
    path = tmp_path / "usage.jsonl"
    sink = JsonlSink(path, max_bytes=1)
    rows = [row(number) for number in range(13)]
    for each in rows:
        sink.send([each])
    files = [path, *(tmp_path / f"usage.jsonl.{number}" for number in range(1, 11))]
    assert [names_in(file) for file in files] == [[each["record_id"]] for each in reversed(rows[2:])]
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "usage.jsonl.lock"])
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_file_is_renamed_only_once_it_is_full(tmp_path):
    path = tmp_path / "usage.jsonl"
    length = len(json.dumps(row(0), separators=(",", ":"))) + 1
    sink = JsonlSink(path, max_bytes=3 * length)
    for number in range(4):
        sink.send([row(number)])
    assert [len(names_in(file)) for file in (path, tmp_path / "usage.jsonl.1")] == [1, 3]


@pytest.mark.parametrize("torn", ["{", '{"record_id":"x","a":"' + "y" * 200_000])
@pytest.mark.parametrize("before", [0, 2])
def test_a_line_that_a_dead_writer_has_torn_is_cut_off(torn, before, tmp_path):
    path = tmp_path / "usage.jsonl"
    rows = [row(number) for number in range(before + 1)]
    if before:
        JsonlSink(path).send(rows[:before])
    with path.open("a") as file:
        file.write(torn)
    JsonlSink(path).send(rows[before:])
    assert names_in(path) == [each["record_id"] for each in rows]


def test_of_a_batch_that_could_not_be_written_whole_no_line_stays(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "usage.jsonl"
    rows = [row(number) for number in range(3)]
    JsonlSink(path).send(rows[:1])
    with monkeypatch.context() as patch:
        patch.setattr("spanledger.export.sinks.lines.os.fsync", full)
        with pytest.raises(SinkError, match="No space left") as error:
            JsonlSink(path).send(rows[1:])
    assert error.value.permanent is False
    JsonlSink(path).send(rows[1:])
    assert names_in(path) == [each["record_id"] for each in rows]


def test_while_another_writes_nothing_is_written(tmp_path):
    path = tmp_path / "usage.jsonl"
    sink, other = JsonlSink(path), Lease(tmp_path / "usage.jsonl.lock")
    assert other.acquire()
    with pytest.raises(SinkError, match="another process") as error:
        sink.send([BARE])
    assert (error.value.permanent, path.exists()) == (False, False)
    other.release()
    sink.send([BARE])
    assert len(names_in(path)) == 1


WRITER = """
import sys, time
from pathlib import Path
from spanledger.export.sinks.lines import JsonlSink
from spanledger.recording.sink import SinkError
from tests.export.receiver import row

def write(path, first):
    sink = JsonlSink(Path(path), max_bytes=100_000)
    for number in range(first, first + 60, 3):
        rows = [row(each, metadata="é" * 300) for each in range(number, number + 3)]
        while True:
            try:
                sink.send(rows)
            except SinkError:
                time.sleep(0.001)
            else:
                break

if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
"""


def test_writers_of_several_processes_and_threads_never_mix_their_lines(tmp_path):
    path = tmp_path / "out" / "usage.jsonl"
    program = {"__name__": "writer"}
    exec(WRITER, program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    root = Path(__file__).parents[2]
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], env=environment, cwd=root)
        for first in (0, 1000)
    ]
    while not path.exists():
        assert all(child.poll() in (None, 0) for child in children)
        time.sleep(0.01)
    threads = [threading.Thread(target=program["write"], args=(path, first)) for first in (2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(30) for child in children] == [0, 0]
    files = [file for file in path.parent.iterdir() if file.suffix != ".lock"]
    assert 1 < len(files) < 11
    found = [json.loads(line)["started_at"] for file in files for line in file.read_text().splitlines()]
    wanted = [row(first + number)["started_at"] for first in (0, 1000, 2000, 3000) for number in range(60)]
    assert sorted(found) == sorted(wanted)


# The console.


def test_the_console_prints_what_is_known_on_standard_error(capsys):
    sink = ConsoleSink()
    sink.send([BARE])
    sink.close()
    out, err = capsys.readouterr()
    known = {name: value for name, value in BARE.items() if value is not None}
    assert (out, err) == ("", f"spanledger {json.dumps(known, separators=(',', ':'))}\n")


def test_a_console_that_is_closed_is_no_mistake_of_ours(tmp_path, monkeypatch):
    with (tmp_path / "closed").open("w") as closed, Round(ConsoleSink(), tmp_path, [BARE]) as round_:
        closed.close()
        monkeypatch.setattr("sys.stderr", closed)
        assert not round_.delivery.drain(5)
        found = dict(failures)
        failures.clear()
        assert found == {}


# What a log shows.

SECRETS = ("tt_secret", "om_secret", "te_secret", "be_secret", "us_secret", "pw_secret", "qu_secret")
SHOWN = {
    "usage_api": '"type": "prompt"',
    "tokentally": '"tokens_in": 300',
    "openmeter": '"specversion": "1.0"',
    "otlp": "'gen_ai.usage.input_tokens': 1000",
}


@pytest.mark.parametrize("name", SHOWN)
def test_debugging_shows_what_is_sent_and_never_a_credential(name, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "spanledger")
    with Receiver() as receiver:
        receiver.answers.extend(
            [Answer(401), Answer(fault="reset"), Answer(302, {"location": "http://u:pw_secret@h/"})]
        )
        address = receiver.url + "/base"
        if name == "otlp":  # of the others, an address with a password or a query is refused
            address = address.replace("//", "//us_secret:pw_secret@")
        environ = {
            "SPANLEDGER_DEBUG": "1",
            "SPANLEDGER_USAGE_API_HEADERS": "x-tenant=te_secret,Authorization=Bearer%20be_secret",
            "LEXIA_API_BASE_URL": address,
            "TOKENTALLY_API_KEY": "tt_secret",
            "TOKENTALLY_BASE_URL": address,
            "OPENMETER_URL": address,
            "OPENMETER_API_KEY": "om_secret",
        }
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20be_secret")
        with Round(sink_of(name, read_settings({}, environ)), tmp_path, [FULL]) as round_:
            reasons = []
            while not round_.delivery.drain(5):
                reasons.append(round_.outbox.cursor(name).reason)
                round_.now += 301
            assert len(reasons) == 3
    assert SHOWN[name] in caplog.text
    if name != "otlp":
        assert f"POST http://127.0.0.1:{receiver.server_address[1]}/base" in caplog.text
    told = caplog.text + " ".join(reasons)
    assert [secret for secret in SECRETS if secret in told] == []


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_is_shown_where_nobody_debugs(name, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "spanledger")
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        with Round(sink_of(name, settings(receiver.url)), tmp_path, [FULL]) as round_:
            round_.until_home()
    assert [record for record in caplog.records if record.name == "spanledger"] == []


def test_only_headers_that_hold_no_credential_are_shown():
    headers = {
        "X-API-Key": "a", "authorization": "b", "x-tenant": "c", "Cookie": "d", "Proxy-Authorization": "e",
        "Content-Type": "f", "IDEMPOTENCY-KEY": "g", "User-Agent": "h", "Accept": "i",
    }  # fmt: skip
    assert masked(headers) == {**headers, **dict.fromkeys(list(headers)[:5], "***")}


def test_an_address_is_shown_without_user_password_and_query():
    assert masked_url("https://me:pw@host.example:8443/base/path?key=1#part") == "https://host.example:8443/base/path"
    assert masked_url("http://host/") == "http://host/"


# Credentials go to the receiver that they are for, and nowhere else.


@pytest.mark.parametrize("name", SHOWN)
def test_netrc_is_not_used(name, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20mine")
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        headers = {"authorization": "Bearer mine"}
        given = settings(receiver.url, openmeter_api_key="mine", usage_api_headers=headers)
        with Round(sink_of(name, given), tmp_path, [FULL]) as round_:
            round_.until_home()
        found = {each.headers.get("authorization") for each in receiver.requests}
    assert found == {None if name == "tokentally" else "Bearer mine"}


@pytest.mark.parametrize("name", ["usage_api", "tokentally", "openmeter"])
@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("http://collector.example", True),
        ("http://10.0.0.7:8080", True),
        ("https://collector.example", False),
        ("http://localhost:8080", False),
        ("http://127.0.0.1", False),
        ("http://[::1]:8080", False),
    ],
)
def test_credentials_without_tls_give_one_warning(name, address, warned, caplog):
    sink_of(name, settings(address)).close()
    said = [record.getMessage() for record in caplog.records]
    host = address.partition("//")[2].partition(":")[0]
    assert said == [f"{name} sends its credentials to {host} without TLS; use an https address."] * warned


@pytest.mark.parametrize("name", ["usage_api", "openmeter"])
def test_without_credentials_there_is_nothing_to_warn_of(name, caplog):
    given = read_settings(dict.fromkeys(("usage_api_url", "openmeter_url"), "http://collector.example"), {})
    sink_of(name, given).close()
    assert caplog.records == []


def test_an_otlp_header_that_cant_be_sent_kills_no_record(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=%E2%80%9Cmine")
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        with Round(sink_of("otlp", read_settings()), tmp_path, [FULL]) as round_:
            assert not round_.delivery.drain(5)
            assert (round_.outbox.pending(), round_.dead) == (1, {})


def test_a_header_that_cant_be_sent_is_a_failure_like_any_other(tmp_path):
    with Receiver() as receiver:
        given = settings(receiver.url, usage_api_headers={"x-key": "\u201cmine"})
        with Round(sink_of("usage_api", given), tmp_path, [FULL]) as round_:
            assert not round_.delivery.drain(5)
            found = dict(failures)
            failures.clear()
            assert (round_.outbox.pending(), round_.dead, found) == (1, {}, {})


@pytest.mark.parametrize(
    "address", ["https://u:p@host", "https://host?key=1", "https://host#here", "ftp://host", "host"]
)
def test_an_address_that_hides_credentials_is_refused_and_not_shown_whole(address, caplog):
    assert read_settings({}, {"OPENMETER_URL": address}).openmeter_url is None
    assert "OPENMETER_URL is not usable" in caplog.text
    assert address not in caplog.text
