"""What the tests share: a fresh home, a provider on this machine, in-memory OpenTelemetry, a recording spanledger."""

import functools
import importlib
import inspect
import operator
import os
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

import botocore.session
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from packaging.version import Version

import spanledger
from spanledger import guard
from spanledger.testing import Loopback

httpx2 = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
"""The HTTP library this version of the SDK uses: httpx, or httpx2 from 3.0 on."""

ROOT = Path(__file__).parents[1]
SOAK = bool(os.environ.get("SPANLEDGER_SOAK"))


SINCE = {
    "openai": {
        "audio.speech.create(stream_format)": "1.91",
        "audio.transcriptions.create(stream)": "1.68",
        "chat.completions.parse": "1.92",  # under `beta` from 1.40 on
        "chat.completions.stream": "1.92",  # as above
        "images.edit(stream)": "1.97",
        "images.generate(stream)": "1.97",
        "responses": "1.66",
        "responses.compact": "2.9",
        "responses.create(background)": "1.80",
    },
    "anthropic": {
        "AnthropicFoundry": "0.74",
        "beta.messages.parse": "0.73",
        "beta.messages.tool_runner": "0.68",
        "messages.parse": "0.77",
    },
    "google-genai": {
        "interactions": "1.55",
        "models.recontext_image": "1.30",
        "models.segment_image": "1.32",
        "types.EmbedContentResponse(usage_metadata)": "3.4",
        "types.GenerateContentConfig(should_return_http_response)": "1.22",
        "types.GenerateContentResponse(response_id)": "1.10",
        "types.GenerateContentResponseUsageMetadata(thoughts_token_count)": "1.10",
        "types.HttpOptions(httpx_client)": "1.46",
    },
    "botocore": {"TokenUsage(cacheReadInputTokens)": "1.36", "TokenUsage(cacheDetails)": "1.43"},
}
"""What the oldest SDKs we promise lack: a method, a class, or in parentheses a parameter or a field → the version by
which they have it."""
MODULES = {"openai": "openai", "anthropic": "anthropic", "google-genai": "google.genai"}
CLIENTS = {"openai": "OpenAI", "anthropic": "Anthropic", "google-genai": "Client"}


def _has(path, of):
    where, _, part = path.rstrip(")").partition("(")
    if of == "botocore":
        return part in botocore.session.get_session().get_service_model("bedrock-runtime").shape_for(where).members
    root = importlib.import_module(MODULES[of])
    if not any(step[0].isupper() for step in where.split(".")):
        root = getattr(root, CLIENTS[of])(api_key="unused")
    try:
        found = operator.attrgetter(where)(root)
    except AttributeError:
        return False
    return not part or part in getattr(found, "model_fields", ()) or part in inspect.signature(found).parameters


@functools.cache
def lacking(path, of="openai"):
    """What to say if the installed SDK is too old to have this; one that should have it and doesn't fails."""
    if _has(path, of):
        return None
    assert Version(version(of)) < Version(SINCE[of][path]), f"{path} has gone from {of}"
    return f"{of} {version(of)} has no {path}"


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "needs(path, of=package): only for SDKs that have this method, class or parameter"
    )
    config.addinivalue_line("markers", "soak(why): only in the long form; why something else stands for it")
    config.addinivalue_line("markers", "wants(program): only where this program is installed")


def pytest_collection_modifyitems(config, items):
    """The short form leaves out what the long one adds to it."""
    left_out = [item for item in items if not _belongs(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _belongs(item)]


def _belongs(item):
    wanted = [mark.args[0] for mark in item.iter_markers("wants")]
    soak = item.get_closest_marker("soak") is None or SOAK
    return soak and all(shutil.which(program) for program in wanted)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Tests of lone surrogates log them; a report that holds one can't be handed over between processes."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def the_sdk_has_it(request):
    """A test of a method leaves out the SDKs that lack it."""
    for mark in request.node.iter_markers("needs"):
        if missing := lacking(*mark.args, **mark.kwargs):
            pytest.skip(missing)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Every test has a state directory of its own and an environment without settings."""
    for name in list(os.environ):
        if name.startswith(("SPANLEDGER_", "OTEL_", "TOKENLEDGER_", "OPENAI_", "LEXIA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SPANLEDGER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def no_failures_of_ours(request, monkeypatch):
    """A guarded failure fails the test, also on our own threads, unless it is what the test is about."""
    if request.node.get_closest_marker("lenient"):
        monkeypatch.setenv("SPANLEDGER_LENIENT", "1")
    guard.failures.clear()
    yield
    spanledger.shutdown()
    if not request.node.get_closest_marker("lenient"):
        assert not guard.failures
    guard.failures.clear()


@pytest.fixture(scope="session")
def provider():
    with Loopback() as running:
        yield running


class Telemetry:
    """In-memory OpenTelemetry."""

    def __init__(self, sampler=None):
        resource = Resource({"service.name": "tests", "deployment.environment.name": "test"})
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], resource=resource, shutdown_on_exit=False)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def points(self, name):
        """The points of a metric as (attributes, value): the sum of a counter, (count, sum) of a histogram."""
        found = []
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            value = point.value if hasattr(point, "value") else (point.count, point.sum)
                            found.append((dict(point.attributes), value))
        return found


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.tracer_provider.shutdown()
    made.meter_provider.shutdown()


@pytest.fixture
def ledger(home):
    """The rows of this test's ledger, after everything has been delivered."""

    def rows(*columns, path=None, flush=True):
        if flush:
            assert spanledger.flush()
        connection = sqlite3.connect(path or home / "ledger.db")
        connection.row_factory = sqlite3.Row
        try:
            found = [
                dict(row) for row in connection.execute("SELECT * FROM usage_records ORDER BY started_at, record_id")
            ]
        finally:
            connection.close()
        return [tuple(row[name] for name in columns) for row in found] if columns else found

    return rows


@pytest.fixture
def recording(telemetry):
    """spanledger at work, with in-memory telemetry."""
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    loaded_prices()
    return telemetry


def loaded_prices():
    """Wait for the price list: a call that ends before it is there has no cost on its span."""
    spanledger.assembly._runtime.engine.prices.wait()


@pytest.fixture
def client(recording, provider):
    from openai import OpenAI

    with OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as made:
        yield made
