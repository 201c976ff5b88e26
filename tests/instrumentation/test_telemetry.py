"""What an OTLP backend sees: spans and metrics, with cost and attribution, by the official exporters."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from tests.conftest import Telemetry, httpx2, loaded_prices

import spanledger

QUESTION = [{"role": "user", "content": "How many tokens are there?"}]


def test_the_span_of_a_call_says_what_it_was_what_it_used_and_what_it_cost(client, recording):
    with spanledger.attribution(user_id="ada", session_id="s1", organization_id="acme", feature="answers", ticket=7):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION, temperature=0.5, max_tokens=100, seed=3)
    (span,) = recording.spans
    attributes = dict(span.attributes)
    assert attributes.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert attributes.pop("server.port") > 1023
    assert attributes.pop("spanledger.cost.basis").startswith("genai-prices/")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.seed": 3,
        "server.address": "127.0.0.1",
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.finish_reasons": ("stop",),
        "openai.response.service_tier": "default",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "spanledger.usage.status": "reported",
        "spanledger.cost.total": 0.00011,
        "spanledger.cost.input": 0.0000175,
        "spanledger.cost.cache_read": 0.0000025,
        "spanledger.cost.output": 0.00007,
        "spanledger.cost.reasoning": 0.00002,
        "spanledger.cost.currency": "USD",
        "spanledger.cost.source": "local",
        "spanledger.cost.status": "priced",
        "user.id": "ada",
        "session.id": "s1",
        "spanledger.organization.id": "acme",
        "spanledger.feature": "answers",
        "spanledger.metadata.ticket": 7,
    }
    assert (span.name, span.kind) == ("chat gpt-4o", trace.SpanKind.CLIENT)
    assert span.instrumentation_scope.name == "spanledger"


def test_the_ledger_row_names_the_span_and_its_parent(client, recording, ledger):
    tracer = recording.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("request"):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert trace.get_current_span().get_span_context().is_valid
    ours, parent = recording.spans
    assert ledger("trace_id", "span_id", "parent_span_id") == [
        (f"{ours.context.trace_id:032x}", f"{ours.context.span_id:016x}", f"{parent.context.span_id:016x}")
    ]
    assert ours.parent == parent.context


def test_spans_of_the_http_client_stand_below_ours(recording):
    from openai import OpenAI

    tracer = recording.tracer_provider.get_tracer("http")

    def answer(_):
        with tracer.start_as_current_span("POST"):
            return httpx2.Response(200, json={"id": "c", "model": "gpt-4o", "choices": [], "usage": None})

    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    http, ours = recording.spans
    assert http.parent == ours.context


def test_the_metrics_of_a_call_are_there_at_the_next_collection(client, recording):
    with spanledger.attribution(user_id="ada", feature="answers", team="support"):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True))
    tokens = {a["gen_ai.token.type"]: value for a, value in recording.points("gen_ai.client.token.usage")}
    assert tokens == {"input": (1, 9), "output": (1, 9)}
    ((attributes, (count, _)),) = recording.points("gen_ai.client.operation.duration")
    assert count == 2
    assert set(attributes) == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
        "server.address", "server.port",
    }  # fmt: skip
    assert [count for _, (count, _) in recording.points("gen_ai.client.operation.time_to_first_chunk")] == [1]
    assert recording.points("gen_ai.client.operation.time_per_output_chunk") == []
    usage = {a["spanledger.bucket"]: value for a, value in recording.points("spanledger.usage")}
    assert usage == {"input": 7, "cache_read": 2, "output": 7, "reasoning": 2}
    ((attributes, cost),) = recording.points("spanledger.cost")
    assert cost == pytest.approx(0.00011, rel=1e-12)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o",
        "spanledger.feature": "answers",
        "spanledger.team": "support",
    }
    assert sum(value for _, value in recording.points("spanledger.calls")) == 2
    assert [(a["spanledger.usage.status"], v) for a, v in recording.points("spanledger.usage.invalid")] == [
        ("missing", 1)
    ]
    assert [(a["spanledger.cost.status"], v) for a, v in recording.points("spanledger.cost.unpriced")] == [
        ("unpriced", 1)
    ]


def test_each_chunk_is_timed_only_where_that_is_asked_for(telemetry, provider):
    from openai import OpenAI

    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, chunk_histogram=True
    )
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True))
    ((_, (count, _)),) = telemetry.points("gen_ai.client.operation.time_per_output_chunk")
    assert count == len(chunks) - 1


def test_metric_values_of_attribution_are_bounded(telemetry, provider, ledger):
    from openai import OpenAI

    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, metric_values_limit=2
    )
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        for team in ("a", "b", "c", "d", "a"):
            with spanledger.attribution(team=team):
                client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    calls = {a["spanledger.team"]: value for a, value in telemetry.points("spanledger.calls")}
    assert calls == {"a": 2, "b": 1, "__other__": 2}
    assert sorted(ledger("team")) == [("a",), ("a",), ("b",), ("c",), ("d",)]


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.1)], ids=["always off", "one in ten"])
def test_what_the_sampler_drops_is_in_the_ledger_and_in_the_metrics(sampler, provider, ledger):
    from openai import OpenAI

    made = Telemetry(sampler)
    spanledger.configure(tracer_provider=made.tracer_provider, meter_provider=made.meter_provider)
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        for _ in range(20):
            client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    rows = ledger("input_tokens", "cost_pusd", "trace_id")
    assert [row[:2] for row in rows] == [(9, 110_000_000)] * 20
    assert len({row[2] for row in rows}) == 20
    assert len(made.spans) < 20
    assert sum(total for _, (_, total) in made.points("gen_ai.client.token.usage")) == 20 * 18
    assert sum(value for _, value in made.points("spanledger.usage")) == 20 * 18


def test_spans_never_means_never_and_usage_is_still_recorded(telemetry, provider, ledger):
    from openai import OpenAI

    spanledger.configure(tracer_provider=telemetry.tracer_provider, spans="never")
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert telemetry.spans == ()
    assert ledger("input_tokens", "trace_id", "span_id") == [(9, None, None)]


def test_only_allowed_attribution_stands_on_spans(telemetry, provider, ledger):
    from openai import OpenAI

    spanledger.configure(tracer_provider=telemetry.tracer_provider, span_attributes="feature")
    with (
        OpenAI(base_url=provider.base_url, api_key="x") as client,
        spanledger.attribution(user_id="ada", feature="f", x=1),
    ):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    (span,) = telemetry.spans
    assert {name for name in span.attributes if "user" in name or "spanledger.f" in name or "metadata" in name} == {
        "spanledger.feature"
    }
    assert ledger("user_id", "feature", "metadata") == [("ada", "f", '{"x":1}')]


def test_no_content_no_key_and_no_message_is_anywhere(telemetry, provider, ledger, home):
    import openai

    canaries = ("canary-prompt", "canary-key", "canary-header", "canary-tool")
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    with openai.OpenAI(
        base_url=provider.base_url, api_key="canary-key", default_headers={"x-mine": "canary-header"}, max_retries=0
    ) as client:
        messages = [{"role": "user", "content": "canary-prompt"}]
        tools = [{"type": "function", "function": {"name": "canary-tool", "parameters": {}}}]
        client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="gpt-4o", messages=messages, extra_body={"loopback": {"status": 400}})
    rows = ledger()
    assert [row["error_type"] for row in rows] == [None, "openai.BadRequestError"]
    seen = repr(rows) + "".join(span.to_json() for span in telemetry.spans) + repr(telemetry.reader.get_metrics_data())
    seen += "".join(file.read_bytes().decode("latin-1") for file in home.rglob("*") if file.is_file())
    assert not [canary for canary in canaries if canary in seen]
    assert "as asked" not in seen  # the provider's error message


class Receiver(HTTPServer):
    """An OTLP/HTTP receiver that keeps what it is sent."""

    def __init__(self):
        self.bodies = {"/v1/traces": [], "/v1/metrics": []}
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        import gzip

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies[self.path].append(body)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Quiet."""


def value_of(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes_of(thing):
    return {each.key: value_of(each.value) for each in thing.attributes}


def test_real_otlp_protobuf_carries_cost_and_attribution(provider):
    from openai import OpenAI
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{receiver.server_address[1]}"
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{url}/v1/metrics"), export_interval_millis=60_000)
    meters = MeterProvider([reader], shutdown_on_exit=False)
    spanledger.configure(tracer_provider=tracers, meter_provider=meters)
    loaded_prices()
    with (
        OpenAI(base_url=provider.base_url, api_key="x") as client,
        spanledger.attribution(user_id="ada", feature="search"),
    ):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    spanledger.flush()
    tracers.shutdown()
    meters.shutdown()
    receiver.shutdown()
    receiver.server_close()

    (body,) = receiver.bodies["/v1/traces"]
    ((scope,),) = [resource.scope_spans for resource in ExportTraceServiceRequest.FromString(body).resource_spans]
    (span,) = scope.spans
    attributes = attributes_of(span)
    assert (scope.scope.name, span.name) == ("spanledger", "chat gpt-4o")
    assert attributes["spanledger.cost.total"] == 0.00011
    assert (attributes["user.id"], attributes["spanledger.feature"]) == ("ada", "search")
    assert attributes["gen_ai.usage.input_tokens"] == 9

    found = {}
    for request in map(ExportMetricsServiceRequest.FromString, receiver.bodies["/v1/metrics"]):
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                found.update({metric.name: metric for metric in scope.metrics})
    (cost,) = found["spanledger.cost"].sum.data_points
    assert cost.as_double == 0.00011
    assert attributes_of(cost)["spanledger.feature"] == "search"
    assert "user.id" not in attributes_of(cost)
    assert sum(point.sum for point in found["gen_ai.client.token.usage"].histogram.data_points) == 18
    assert found["spanledger.usage"].unit == "{token}"


def test_a_call_that_ends_before_the_prices_are_there_is_priced_all_the_same_but_for_its_span(
    telemetry, provider, ledger, monkeypatch
):
    from openai import OpenAI

    from spanledger.pricing.loader import Prices

    gate = threading.Event()
    made = Prices._made

    def late(self):
        gate.wait(30)
        return made(self)

    monkeypatch.setattr(Prices, "_made", late)
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    with OpenAI(base_url=provider.base_url, api_key="x") as client:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        client.chat.completions.create(model="gpt-unheard-of", messages=QUESTION)
    assert ["spanledger.cost.total" in span.attributes for span in telemetry.spans] == [False, False]
    gate.set()
    assert ledger("cost_pusd", "cost_status", "cost_source") == [
        (110_000_000, "priced", "local"),
        (None, "unpriced", "none"),
    ]
    assert [value for _, value in telemetry.points("spanledger.cost")] == [0.00011]
