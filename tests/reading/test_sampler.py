"""The sampler: a model call that the inner one drops is recorded, and nobody else can tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import spanledger
from spanledger import RecordUsage
from spanledger.reading.dialects import MARKS, NAMED
from spanledger.reading.sampler import sampler_named

SDK = "opentelemetry.instrumentation.openai_v2"
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.id": "r",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
STATE = TraceState([("vendor", "x")])


class Fixed(Sampler):
    """Always decides the same, and remembers what it was asked."""

    def __init__(self, decision):
        self.result = SamplingResult(decision, {"its": "own"}, STATE)
        self.asked = []

    def should_sample(self, *args):
        self.asked.append(args)
        return self.result

    def get_description(self):
        return "Fixed"


ASKED = (otel_context.Context(), 7, "chat gpt-4o", SpanKind.CLIENT, CHAT, [Link(SpanContext(1, 2, False))], STATE)


def test_a_dropped_model_call_is_recorded_only_with_its_attributes_and_the_tracestate():
    inner = Fixed(Decision.DROP)
    result = RecordUsage(inner).should_sample(*ASKED)
    assert (result.decision, dict(result.attributes), result.trace_state) == (Decision.RECORD_ONLY, CHAT, STATE)
    assert inner.asked == [ASKED]


@pytest.mark.parametrize("decision", [Decision.RECORD_ONLY, Decision.RECORD_AND_SAMPLE])
@pytest.mark.parametrize("attributes", [None, CHAT])
def test_what_the_inner_one_keeps_is_its_own_result(decision, attributes):
    inner = Fixed(decision)
    assert RecordUsage(inner).should_sample(None, 7, "chat", None, attributes) is inner.result


@pytest.mark.parametrize("name", ["GET /", "chatter", "openai", "agent run it", ""])
@pytest.mark.parametrize("attributes", [None, {}, {"http.request.method": "GET"}])
def test_what_is_no_model_call_stays_dropped(name, attributes):
    assert not NAMED.fullmatch(name)
    inner = Fixed(Decision.DROP)
    assert RecordUsage(inner).should_sample(None, 7, name, None, attributes) is inner.result


@pytest.mark.parametrize("mark", sorted(MARKS))
def test_every_mark_is_a_model_call(mark):
    assert RecordUsage(ALWAYS_OFF).should_sample(None, 7, "x", None, {mark: "y"}).decision is Decision.RECORD_ONLY


@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.floats()), st.sampled_from(list(Decision)))
def test_a_name_that_is_no_text_never_raises_into_the_application(name, decision):
    assert RecordUsage(Fixed(decision)).should_sample(None, 7, name, None, None) is not None


def test_wrapping_twice_is_wrapping_once():
    inner = Fixed(Decision.DROP)
    twice = RecordUsage(RecordUsage(inner))
    assert twice.inner is inner
    assert twice.get_description() == "RecordUsage{Fixed}"
    assert twice.should_sample(*ASKED).decision is Decision.RECORD_ONLY
    assert len(inner.asked) == 1


@pytest.mark.parametrize(
    ("argument", "description"),
    [
        (None, "ParentBased{root:AlwaysOnSampler"),
        ("", "ParentBased{root:AlwaysOnSampler"),
        ("always_off", "AlwaysOffSampler"),
        ("always_on", "AlwaysOnSampler"),
        (" TraceIdRatio=0.5 ", "TraceIdRatioBased{0.5}"),
        ("parentbased_traceidratio=0.25", "ParentBased{root:TraceIdRatioBased{0.25}"),
        ("parentbased_always_off", "ParentBased{root:AlwaysOffSampler"),
    ],
)
def test_a_sampler_by_name(argument, description):
    made = sampler_named(argument)
    assert isinstance(made, RecordUsage)
    assert made.get_description().startswith(f"RecordUsage{{{description}")


@pytest.mark.parametrize("argument", ["nonsense", "traceidratio=many", "traceidratio=7", "parentbased_nonsense", "="])
def test_a_sampler_that_there_is_none_of_samples_everything_and_says_so(argument, caplog):
    assert sampler_named(argument).get_description().startswith("RecordUsage{ParentBased{root:AlwaysOnSampler")
    assert "is not usable" in caplog.text


# In a provider.


@pytest.fixture
def made():
    """A provider that samples nothing, with spanledger on it, and what another exporter of it sees."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    early = provider.get_tracer(SDK)
    spanledger.configure(tracer_provider=provider)
    yield provider, exporter, early
    provider.shutdown()


@pytest.mark.parametrize("early", [True, False])
def test_an_unsampled_model_call_is_a_row_and_seen_by_nobody_else(made, ledger, early):
    provider, exporter, before = made
    tracer = before if early else provider.get_tracer(SDK)
    with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT) as span:
        assert span.is_recording()
        assert not span.get_span_context().trace_flags.sampled
        carrier = {}
        TraceContextTextMapPropagator().inject(carrier)
        assert not int(carrier["traceparent"][-2:], 16) & 1
        with tracer.start_as_current_span("GET /") as child:
            assert not child.is_recording()
            assert not child.get_span_context().trace_flags.sampled
    assert ledger("source", "input_tokens") == [(SDK, 100)]
    assert exporter.get_finished_spans() == ()


def test_an_inbound_unsampled_trace_does_not_switch_accounting_off(ledger):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spanledger.configure(tracer_provider=provider)
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00", "tracestate": "vendor=x"}
    around = TraceContextTextMapPropagator().extract(headers)
    span = provider.get_tracer(SDK).start_span("chat gpt-4o", context=around, attributes=CHAT)
    span.end()
    assert span.get_span_context().trace_state == STATE
    assert not span.get_span_context().trace_flags.sampled
    assert ledger("trace_id", "parent_span_id") == [("a" * 32, "b" * 16)]
    assert exporter.get_finished_spans() == ()
    provider.shutdown()


def test_what_is_exported_is_what_the_inner_sampler_alone_lets_through(ledger):
    """The same tree under the inner sampler alone and under ours: same flags, same exported names."""

    class ByName(Sampler):
        def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, state=None):
            return SamplingResult(Decision.DROP if name.endswith("-") else Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self):
            return "ByName"

    found = []
    for watched in (False, True):
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(ByName()), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        if watched:
            spanledger.configure(tracer_provider=provider)
        tracer, flags = provider.get_tracer(SDK), []
        for names in (("app", "chat", "GET"), ("app-", "chat", "GET"), ("chat-", "GET", "chat"), ("app", "chat-")):
            tokens = []
            for name in names:
                attributes = {**CHAT, "gen_ai.response.id": str(names)} if "chat" in name else {}
                span = tracer.start_span(name, attributes=attributes)
                flags.append(span.get_span_context().trace_flags.sampled)
                tokens.append((span, otel_context.attach(trace.set_span_in_context(span))))
            for span, token in reversed(tokens):
                otel_context.detach(token)
                span.end()
        found.append((flags, [span.name for span in exporter.get_finished_spans()]))
        provider.shutdown()
    assert found[0] == found[1]
    assert len(ledger()) == 5


def test_configuring_again_wraps_the_sampler_once(telemetry):
    spanledger.configure(tracer_provider=telemetry.tracer_provider)
    sampler = telemetry.tracer_provider.sampler
    assert isinstance(sampler, RecordUsage)
    spanledger.shutdown()
    spanledger.configure(tracer_provider=telemetry.tracer_provider)
    assert telemetry.tracer_provider.sampler is sampler
    assert not isinstance(sampler.inner, RecordUsage)


def test_a_record_only_span_gets_no_cost_written_onto_it(made, ledger):
    provider, _, _ = made
    span = provider.get_tracer(SDK).start_span("chat gpt-4o", attributes=CHAT)
    span.end()
    assert len(ledger()) == 1
    assert dict(span.attributes) == CHAT


def test_an_unsampled_remote_parent_under_a_foreign_span_of_ours_is_still_one_row(made, ledger):
    provider, exporter, _ = made
    remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0))
    around = trace.set_span_in_context(NonRecordingSpan(remote))
    for scope in ("pydantic-ai", SDK):
        provider.get_tracer(scope).start_span("chat gpt-4o", context=around, attributes=CHAT).end()
    assert ledger("source", "told_by") == [(SDK, '["pydantic-ai","opentelemetry.instrumentation.openai_v2"]')]
    assert exporter.get_finished_spans() == ()


class Begun(SpanProcessor):
    """The scopes of the spans that have begun."""

    def __init__(self):
        self.scopes = []

    def on_start(self, span, parent_context=None):
        self.scopes.append(span.instrumentation_scope.name)


def test_a_call_of_our_own_that_is_not_sampled_is_recorded_without_a_span(provider, ledger):
    from openai import OpenAI

    begun, tracers = Begun(), TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    tracers.add_span_processor(begun)
    spanledger.configure(tracer_provider=tracers)
    with OpenAI(base_url=provider.base_url, api_key="unused") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    tracers.get_tracer(SDK).start_span("chat gpt-4o", attributes=CHAT).end()
    assert ledger("source") == [("spanledger",), (SDK,)]
    assert begun.scopes == [SDK]
