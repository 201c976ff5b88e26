"""What each answer of a receiver makes of a delivery: success, another try, or a row put aside."""

import itertools
import time
from email.utils import formatdate

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from tests.export.receiver import Answer, GrpcReceiver, Receiver, Round, records_in, row

from spanledger.export.sinks.table import sink_of
from spanledger.settings import read_settings

ROWS = [row(number) for number in range(3)]
IDS = [each["record_id"] for each in ROWS]
PARTS = ("prompt", "completion", "tool_usage")
HTTP_SINKS = ("usage_api", "tokentally", "openmeter", "otlp")
ONE_AT_A_TIME = {"usage_api": [(each, part) for each in IDS for part in PARTS], "tokentally": [0, 1, 2]}
ADDRESSES = ("usage_api_url", "tokentally_base_url", "openmeter_url")


def sink_to(name, receiver, monkeypatch, protocol="http/protobuf"):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    return sink_of(name, read_settings({"tokentally_api_key": "tt_x", **dict.fromkeys(ADDRESSES, receiver.url)}))


def keys_in(name, request):
    """What a request is about: a part of one record, or several records."""
    if name == "otlp":
        return records_in(request)
    if name == "openmeter":
        return [event["id"] for event in request.json]
    if name == "tokentally":
        return [request.json["metadata"]["n"]]
    return [(request.json["message_id"], request.json["type"])]


def keys(name):
    return ONE_AT_A_TIME.get(name, IDS)


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture
def at_once(monkeypatch):
    """No pause but the one that was asked for."""
    monkeypatch.setattr("spanledger.recording.courier.random.uniform", lambda low, high: 0.0)


@pytest.mark.parametrize("name", HTTP_SINKS)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 226])
def test_success_is_every_2xx_and_nothing_is_sent_again(name, status, receiver, tmp_path, monkeypatch):
    receiver.answer = lambda request: Answer(status)
    with Round(sink_to(name, receiver, monkeypatch), tmp_path, ROWS) as round_:
        assert round_.until_home() == 1
        assert [key for request in receiver.requests for key in keys_in(name, request)] == keys(name)
        assert (round_.dead, round_.count("spanledger.delivery.sent")) == ({}, 3)


PASSING = {
    **{str(status): (Answer(status), f"HTTP {status}") for status in (401, 402, 403, 404, 405, 408, 410, 429, 451)},
    **{str(status): (Answer(status), f"HTTP {status}") for status in (500, 501, 502, 503, 504, 599)},
    "304": (Answer(304), "HTTP 304: a redirect is not followed; correct the address"),
    "reset": (Answer(fault="reset"), "ConnectionError"),
    "hang": (Answer(fault="hang"), "ReadTimeout"),
    "cut": (Answer(200, body=b"{", fault="cut"), "ChunkedEncodingError"),
    "cut 500": (Answer(500, body=b"{", fault="cut"), "ChunkedEncodingError"),
}
"""An answer after which the same is tried again, and what the outbox says of it."""


@pytest.mark.parametrize("name", HTTP_SINKS)
@pytest.mark.parametrize("what", PASSING)
def test_a_failure_that_may_pass_is_tried_again_until_it_has(name, what, receiver, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr("spanledger.export.sinks.http._TIMEOUT", (0.5, 0.15))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.15")
    answer, said = PASSING[what]
    receiver.answers.extend([answer, answer])
    receiver.answer = lambda request: Answer(204)
    with Round(sink := sink_to(name, receiver, monkeypatch), tmp_path, ROWS) as round_:
        assert not round_.delivery.drain(60)
        assert round_.outbox.cursor(name).reason.startswith(said)
        assert round_.until_home() == 2
        sent = [keys_in(name, request) for request in receiver.requests]
        assert sent[:3] == [sent[0]] * 3
        assert [key for request in receiver.accepted for key in keys_in(name, request)] == keys(name)
        assert (round_.dead, round_.count("spanledger.delivery.failed")) == ({}, 2)
        if hasattr(sink, "post"):
            assert len({request.headers["idempotency-key"] for request in receiver.requests}) == len(keys(name))


@pytest.mark.parametrize("name", HTTP_SINKS)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_never_a_success(name, status, receiver, tmp_path, monkeypatch, at_once):
    with Receiver() as elsewhere, Round(sink_to(name, receiver, monkeypatch), tmp_path, ROWS) as round_:
        receiver.answers.extend([Answer(status, {"location": f"{elsewhere.url}/api/usage"})] * 2)
        assert not round_.delivery.drain(60)
        assert round_.outbox.cursor(name).reason == (f"HTTP {status}: a redirect is not followed; correct the address")
        assert round_.until_home() == 2
        assert [key for request in receiver.accepted for key in keys_in(name, request)] == keys(name)
        assert (elsewhere.seen, round_.dead) == ([], {})


@pytest.mark.parametrize("name", HTTP_SINKS)
@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_what_is_refused_for_good_is_dead_and_only_that(name, status, receiver, tmp_path, monkeypatch):
    bad = keys(name)[1]
    receiver.answer = lambda request: Answer(status if bad in keys_in(name, request) else 200)
    with Round(sink_to(name, receiver, monkeypatch), tmp_path, ROWS) as round_:
        assert round_.until_home() == 1
        accepted = [key for request in receiver.accepted for key in keys_in(name, request)]
        assert accepted == [key for key in keys(name) if key != bad]
        reason = {"usage_api": "request 2 of 3: ", "tokentally": "request 1 of 1: "}.get(name, "")
        assert round_.dead == {IDS[0 if name == "usage_api" else 1]: f"{reason}HTTP {status}"}
        assert round_.count("spanledger.delivery.failed") == 0


def in_seconds(number):
    return formatdate(time.time() + number, usegmt=True)


@pytest.mark.parametrize("name", HTTP_SINKS)
@pytest.mark.parametrize(
    ("status", "text", "least", "most"),
    [
        (429, lambda: "3", 3, 3),
        (429, lambda: "30", 30, 30),
        (429, lambda: "0", 0, 0),
        (429, lambda: "-5", 0, 0),
        (429, lambda: "soon", 0, 0),
        (429, lambda: in_seconds(20), 18, 20),
        (429, lambda: in_seconds(-20), 0, 0),
        (503, lambda: "0", 0, 0),
        (503, lambda: "7", 7, 7),
        (401, lambda: "7", 7, 7),
    ],
    ids=["3", "30", "0", "negative", "no number", "date", "past date", "503-0", "503-7", "401-7"],
)
def test_a_pause_that_is_asked_for_is_waited_for(
    name, status, text, least, most, receiver, tmp_path, monkeypatch, at_once
):
    told = [Answer(status, {"retry-after": text()})] * 2
    times = []

    def answer(request):
        times.append(round_.now)
        return told.pop() if told else Answer(200)

    receiver.answer = answer
    with Round(sink_to(name, receiver, monkeypatch), tmp_path, ROWS) as round_:
        round_.until_home(step=0.5)
        first, second, third = times[:3]
        assert least <= second - first <= most + 0.5
        assert least <= third - second <= most + 0.5
        assert [key for request in receiver.accepted for key in keys_in(name, request)] == keys(name)


@pytest.mark.parametrize("text", ["inf", "1e300", "31536000000"])
def test_no_receiver_can_ask_for_a_pause_without_end(text, receiver, tmp_path, monkeypatch, at_once):
    receiver.answers.append(Answer(429, {"retry-after": text}))
    with Round(sink_to("openmeter", receiver, monkeypatch), tmp_path, ROWS) as round_:
        round_.until_home(step=3600, rounds=48)


@pytest.mark.parametrize("name", HTTP_SINKS)
def test_without_a_pause_that_is_asked_for_the_pauses_grow_and_end_at_five_minutes(
    name, receiver, tmp_path, monkeypatch
):
    monkeypatch.setattr("spanledger.recording.courier.random.uniform", lambda low, high: high)
    times = []
    receiver.answer = lambda request: times.append(round_.now) or Answer(503 if len(times) < 12 else 200)
    with Round(sink_to(name, receiver, monkeypatch), tmp_path, ROWS[:1]) as round_:
        round_.until_home(step=1.0, rounds=2000)
    pauses = [later - sooner for sooner, later in itertools.pairwise(times[:12])]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


# OTLP: a success that is none.


def partial(rejected, message="too old"):
    told = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
    return ExportLogsServiceResponse(partial_success=told)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_records_that_a_partial_success_rejects_are_found_and_put_aside(protocol, tmp_path, monkeypatch):
    def judged(request):
        bad = records_in(request).count(IDS[1])
        return partial(bad, "too old") if bad else ExportLogsServiceResponse()

    over_http = protocol != "grpc"
    made = Receiver(lambda request: Answer(body=judged(request).SerializeToString())) if over_http else (
        GrpcReceiver(judged)
    )  # fmt: skip
    with made as receiver, Round(sink_to("otlp", receiver, monkeypatch, protocol), tmp_path, ROWS) as round_:
        assert round_.until_home() == 1
        assert [records_in(request) for request in receiver.requests] == [IDS, IDS[:1], IDS[1:], IDS[1:2], IDS[2:]]
        assert round_.dead == {IDS[1]: "1 of 1 records rejected: too old"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_partial_success_that_rejects_nothing_is_a_success(protocol, tmp_path, monkeypatch):
    warning = partial(0, "deprecated attribute")
    over_http = protocol != "grpc"
    made = (
        Receiver(lambda _: Answer(body=warning.SerializeToString())) if over_http else GrpcReceiver(lambda _: warning)
    )
    with made as receiver, Round(sink_to("otlp", receiver, monkeypatch, protocol), tmp_path, ROWS) as round_:
        assert round_.until_home() == 1
        assert ([records_in(request) for request in receiver.requests], round_.dead) == ([IDS], {})


@pytest.mark.parametrize("body", [b"", b"{}", b"ok\n", b'{"partialSuccess":{}}', b"<html></html>"])
def test_an_otlp_success_in_other_words_is_one(body, receiver, tmp_path, monkeypatch):
    receiver.answer = lambda request: Answer(body=body)
    with Round(sink_to("otlp", receiver, monkeypatch), tmp_path, ROWS) as round_:
        assert round_.until_home() == 1
        assert (len(receiver.seen), round_.dead) == (1, {})


# OTLP over gRPC. https://opentelemetry.io/docs/specs/otlp/#failures

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_only_an_invalid_argument_is_for_good_over_grpc(code, tmp_path, monkeypatch, at_once):
    with GrpcReceiver() as receiver:
        receiver.answer = lambda _: (code, ()) if len(receiver.seen) < 2 else ExportLogsServiceResponse()
        with Round(sink_to("otlp", receiver, monkeypatch, "grpc"), tmp_path, ROWS) as round_:
            round_.until_home()
            accepted = [each for told in receiver.accepted for each in records_in(told)]
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                assert (accepted, round_.dead) == (IDS[1:], {IDS[0]: "gRPC INVALID_ARGUMENT"})
            else:
                assert (accepted, round_.dead) == (IDS, {})


def asked(seconds):
    info = RetryInfo(retry_delay=Duration(seconds=seconds))
    status = Status()
    status.details.add().Pack(info)
    return {
        "status": (("grpc-status-details-bin", status.SerializeToString()),),
        "info": (("google.rpc.retryinfo-bin", info.SerializeToString()),),
    }


@pytest.mark.parametrize("form", ["status", "info"])
def test_a_pause_that_is_asked_for_over_grpc_is_waited_for(form, tmp_path, monkeypatch, at_once):
    times = []
    with GrpcReceiver() as receiver:

        def answer(_):
            times.append(round_.now)
            unavailable = (grpc.StatusCode.UNAVAILABLE, asked(9)[form])
            return unavailable if len(times) == 1 else ExportLogsServiceResponse()

        receiver.answer = answer
        with Round(sink_to("otlp", receiver, monkeypatch, "grpc"), tmp_path, ROWS) as round_:
            round_.until_home(step=0.5)
    assert times == [0.0, 9.0]


def test_a_grpc_receiver_that_hangs_or_is_not_there_loses_nothing(tmp_path, monkeypatch, at_once):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with GrpcReceiver() as receiver:
        receiver.answer = lambda _: time.sleep(0.5 if len(receiver.seen) < 1 else 0) or ExportLogsServiceResponse()
        with Round(sink_to("otlp", receiver, monkeypatch, "grpc"), tmp_path, ROWS) as round_:
            assert not round_.delivery.drain(60)
            assert round_.outbox.cursor("otlp").reason == "gRPC DEADLINE_EXCEEDED"
            round_.until_home()
            assert [records_in(told) for told in receiver.requests] == [IDS, IDS]
    gone = receiver
    with Round(sink_to("otlp", gone, monkeypatch, "grpc"), tmp_path, ROWS) as round_:
        assert not round_.delivery.drain(60)
        assert round_.outbox.cursor("otlp").reason in ("gRPC UNAVAILABLE", "gRPC DEADLINE_EXCEEDED")
        assert (round_.outbox.pending(), round_.dead) == (3, {})


def test_a_batch_too_large_for_a_grpc_receiver_is_split(tmp_path, monkeypatch):
    with GrpcReceiver(max_receive_message_length=4000) as receiver:
        rows = [row(number) for number in range(10)]
        with Round(sink_to("otlp", receiver, monkeypatch, "grpc"), tmp_path, rows) as round_:
            round_.until_home(rounds=4)
            accepted = [each for told in receiver.accepted for each in records_in(told)]
            assert accepted == [each["record_id"] for each in rows]
