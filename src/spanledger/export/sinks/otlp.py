"""The sink `otlp`: usage records as OTLP log records, which no sampler touches.

The official exporters make the connection, from the OTEL_EXPORTER_OTLP_* variables as ever. What counts as success is
ours: they take a redirect and a partial success for one, and give up after ten seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Final

import requests
from opentelemetry import trace
from opentelemetry._logs import LogRecord
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from spanledger.export.formats.otlp import EVENT, attributes_of, by_resource, ended_ns
from spanledger.export.sinks.http import as_it_is, check
from spanledger.guard import log
from spanledger.recording.sink import Row, SinkError
from spanledger.version import __version__

_SCOPE: Final = InstrumentationScope("spanledger", __version__)


class OtlpSink:
    """Sends to the OTLP endpoint of the environment, by gRPC or `http/protobuf` as the environment says."""

    name = "otlp"

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        self._http = (protocol or "grpc") != "grpc"
        self._way: _OverHttp | _OverGrpc | None = None

    def send(self, rows: Sequence[Row]) -> None:
        """Send the rows in one request. Raises `SinkError`."""
        if self._way is None:
            self._way = _OverHttp() if self._http else _OverGrpc()
        try:
            records = records_of(rows)
        except (KeyError, TypeError, ValueError) as error:
            raise SinkError(f"{type(error).__name__}: a row can't be told as a log record", permanent=True) from error
        if self._debug:
            for record in records:
                log.info("otlp: %s", dict(record.log_record.attributes or {}))
        rejected, message = self._way.export(records)
        if rejected:  # it doesn't say which: alone, a bad row shows
            raise SinkError(f"{rejected} of {len(rows)} records rejected: {message[:200]}", permanent=True)

    def close(self) -> None:
        """Close the connection."""
        if self._way is not None:
            self._way.exporter.shutdown()
            self._way = None


def records_of(rows: Sequence[Row]) -> list[ReadableLogRecord]:
    """The rows as log records, each with the resource of its service."""
    now = time.time_ns()
    found = []
    for resource, of_it in by_resource(rows).items():
        whose = Resource(dict(resource))
        for row in of_it:
            record = LogRecord(
                timestamp=ended_ns(row),
                observed_timestamp=now,
                context=_span_of(row),
                event_name=EVENT,
                attributes=attributes_of(row),
            )
            found.append(ReadableLogRecord(record, whose, _SCOPE))
    return found


def _span_of(row: Row) -> Context:
    """The span of the call. None at all would let the span in of whoever runs this."""
    span = trace.SpanContext(int(row.get("trace_id") or "0", 16), int(row.get("span_id") or "0", 16), is_remote=False)
    return trace.set_span_in_context(trace.NonRecordingSpan(span))


class _Once(requests.Session):
    """A session that posts once, follows no redirect, and keeps the answer for us."""

    answer: requests.Response | Exception | None = None

    def request(self, method: str, url: str, **how: Any) -> requests.Response:  # type: ignore[override]
        """The exporter is told of success, so that it neither tries again nor logs."""
        how["allow_redirects"] = False
        if how.get("verify") is None:  # or REQUESTS_CA_BUNDLE wins over OTEL_EXPORTER_OTLP_CERTIFICATE
            how["verify"] = self.verify
        try:
            self.answer = super().request(method, url, **how)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not the records' fault
            self.answer = error
        seen = requests.Response()
        seen.status_code, seen._content = 200, b""  # noqa: SLF001  # there is no other way to make one
        return seen


class _OverHttp:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # noqa: PLC0415  # as needed

        self._session = _Once()
        self._session.auth = as_it_is
        self.exporter = OTLPLogExporter(session=self._session)

    def export(self, records: Sequence[ReadableLogRecord]) -> tuple[int, str]:
        """How many were rejected, and why."""
        from google.protobuf.message import DecodeError  # noqa: PLC0415  # as needed
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415  # as needed
            ExportLogsServiceResponse,
        )

        self._session.answer = None
        self.exporter.export(records)
        answer = self._session.answer
        if answer is None:
            raise SinkError("the exporter could not encode the records", permanent=True)
        if isinstance(answer, Exception):
            raise SinkError(type(answer).__name__)
        check(answer)
        try:
            told = ExportLogsServiceResponse.FromString(answer.content).partial_success
        except DecodeError:  # a receiver that answers in JSON, or in its own words
            return 0, ""
        return told.rejected_log_records, told.error_message


class _OverGrpc:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter  # noqa: PLC0415  # as needed

        self.exporter = OTLPLogExporter()

    def export(self, records: Sequence[ReadableLogRecord]) -> tuple[int, str]:
        """How many were rejected, and why."""
        import grpc  # noqa: PLC0415  # as needed

        exporter: Any = self.exporter  # its own loop gives up after ten seconds, what is beneath it is private
        try:
            told = exporter._client.Export(  # noqa: SLF001  # as above
                exporter._translate_data(records),  # noqa: SLF001  # as above
                metadata=exporter._headers,  # noqa: SLF001  # as above
                timeout=exporter._timeout,  # noqa: SLF001  # as above
            ).partial_success
        except grpc.RpcError as error:
            code = error.code().name
            too_large = code == "RESOURCE_EXHAUSTED" and "larger than max" in (error.details() or "")
            raise SinkError(
                f"gRPC {code}", permanent=too_large or code == "INVALID_ARGUMENT", retry_after=_asked(error)
            ) from error
        return told.rejected_log_records, told.error_message


def _asked(error: Any) -> float | None:
    """The pause that a gRPC answer asks for, in seconds."""
    from google.rpc.error_details_pb2 import RetryInfo  # noqa: PLC0415  # as needed
    from google.rpc.status_pb2 import Status  # noqa: PLC0415  # as needed

    told = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    for detail in Status.FromString(told.get("grpc-status-details-bin", b"")).details:
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    if told.get("google.rpc.retryinfo-bin"):
        info = RetryInfo.FromString(told["google.rpc.retryinfo-bin"])
        return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
