"""The composition root: the only place that knows all rooms. Entry points and the public functions live here."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from spanledger import conventions
from spanledger.attributes import written
from spanledger.context.carrier import hashed, key, key_of
from spanledger.context.threads import Propagation
from spanledger.guard import failed, log
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.instrumentor import Instrumentation
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.telemetry import SCOPE, Telemetry
from spanledger.instrumentation.watching import call_here
from spanledger.pricing.completion import Completion
from spanledger.pricing.loader import Prices
from spanledger.service import service_of
from spanledger.settings import Settings, read_settings
from spanledger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanledger.manual.desk import Desk
    from spanledger.reading.spans import Spans
    from spanledger.recording.delivery import Delivery
    from spanledger.recording.meters import Meters
    from spanledger.recording.outbox import Outbox
    from spanledger.recording.recorder import Recorder
    from spanledger.recording.sink import Poster, Sink


@dataclass(slots=True)
class Runtime:
    """Everything that is running in this process."""

    settings: Settings
    recorder: Recorder
    engine: Engine
    instrumentation: Instrumentation
    providers: tuple[Any, Any]
    completion: Completion
    configured: bool = False
    """Whether it was asked for, rather than made for a processor or an exporter."""
    given: dict[str, Any] = field(default_factory=dict)
    """The settings that were given by keyword."""
    noticed: Any = None
    """The tracer provider that was looked at last."""
    spans: Spans | None = None
    """Reads the spans of others; made when there is somebody who shows them."""
    desk: Desk | None = None
    """Takes what the application reports by hand; made for the first report."""


_runtime: Runtime | None = None
_brought: Final[dict[str, Any]] = {}
"""Settings that were brought along by `extend`."""
_instrumentation: Instrumentation | None = None
_propagation: Final = Propagation()
_lock: Final = threading.RLock()


def configure(*, tracer_provider: Any = None, meter_provider: Any = None, **settings: Any) -> None:
    """Set spanledger up and watch every model SDK, those included that are imported later.

    `settings` are those of docs/reference/settings.md; what is not given comes from the environment. Without providers
    the global ones are used. Calling it again with other settings replaces them, with the same ones does nothing.
    Raises `TypeError` for a setting there is none of.
    """
    with _lock:
        if settings.get("sinks") is not None and "sinks" in _brought:
            asked = settings["sinks"].split(",") if isinstance(settings["sinks"], str) else settings["sinks"]
            settings["sinks"] = (*asked, *_brought["sinks"])
        settings = {**_brought, **settings}
        read = read_settings(settings)
        if _runtime is None or not _runtime.configured or not _is_as(_runtime, read, tracer_provider, meter_provider):
            _set_up(read, settings, (tracer_provider, meter_provider), _allowed())


def extend(*, sinks: Sequence[str] = (), **settings: Any) -> None:
    """Change some settings of what is set up, now and whenever it is set up again, and have these sinks too.

    What is watched stays as it is. For those who bring settings along without being asked to set everything up.
    Raises `TypeError` as `configure` does.
    """
    with _lock:
        old = running()
        _brought.update(settings)
        if old is None:
            return
        if sinks:
            _brought["sinks"] = tuple(dict.fromkeys((*old.settings.sinks, *sinks)))
        given = {**old.given, **_brought}
        read = read_settings(given)
        if not _is_as(old, read, *old.providers):
            _set_up(read, given, old.providers, old.instrumentation.watched)


def is_brought(name: str) -> bool:
    """Whether a setting was given by keyword, to `configure` or `extend`."""
    return name in _brought or (_runtime is not None and name in _runtime.given)


def _is_as(runtime: Runtime, settings: Settings, tracer_provider: Any, meter_provider: Any) -> bool:
    return runtime.settings == settings and runtime.providers == (tracer_provider, meter_provider)


def _set_up(read: Settings, given: dict[str, Any], providers: tuple[Any, Any], watched: Sequence[str]) -> None:
    """Put another runtime in the place of the one there is."""
    global _runtime  # noqa: PLW0603  # one runtime per process is what this module is for
    old, _runtime = _runtime, None
    if old is not None:
        old.instrumentation.take_off()
    if not read.enabled:
        if old is not None:
            old.recorder.shutdown()
        _propagation.use("off")
        return
    _runtime = _build(read, *providers)
    if old is not None:
        _runtime.engine.open_streams.update(old.engine.open_streams)
        old.engine.open_streams = _runtime.engine.open_streams
        old.recorder.hand_over(_runtime.recorder)
    _runtime.configured, _runtime.given = True, given
    _runtime.engine.reported_after = old is not None and old.engine.reported_after
    _notice(_runtime)
    if watched:
        _runtime.instrumentation.put_on(*watched)


def instrument(*names: str) -> None:
    """Watch these SDKs (`"openai"`), every one without a name. Raises `ValueError` for a name there is none of."""
    runtime = running()
    if runtime is not None:
        _notice(runtime)
        _propagation.use(runtime.settings.propagate)
        runtime.instrumentation.put_on(*names)


def uninstrument(*names: str) -> None:
    """Stop watching these SDKs, every one without a name."""
    if _runtime is not None:
        _runtime.instrumentation.take_off(*names)
        if not names:
            _propagation.use("off")


def flush(timeout: float = 10.0) -> bool:
    """Commit and deliver everything recorded so far. True if it is home within `timeout` seconds. Never raises."""
    return _runtime is None or _runtime.recorder.flush(timeout)


def shutdown(timeout: float = 5.0) -> bool:
    """End open streams, deliver what goes within `timeout` seconds, stop watching. Never raises."""
    global _runtime  # see configure
    with _lock:
        old, _runtime = _runtime, None
        _brought.clear()
        if old is None:
            return True
        try:
            old.instrumentation.take_off()
            _propagation.use("off")
        except Exception as error:  # noqa: BLE001  # a door
            failed("the restoring of the SDKs", error)
        old.engine.end_open_streams()
        return old.recorder.shutdown(timeout)


def look(name: str) -> list[Any]:
    """What is watched of a provider, after importing its SDK: for `spanledger doctor`."""
    runtime = running()
    return [] if runtime is None else runtime.instrumentation.look(name)


def pre_instrument() -> None:
    """`opentelemetry_pre_instrument`: see to it that there is a provider to trace with, and read its spans.

    Never raises.
    """
    try:
        if not read_settings().enabled:
            return
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            log.warning(
                "OTEL_SDK_DISABLED=true: no spans and metrics, but usage is still recorded."
                " SPANLEDGER_ENABLED=false switches that off too."
            )
            return
        _configure_sdk_if_nobody_does()
        runtime = running()
        if runtime is not None:
            _notice(runtime)
    except Exception as error:  # noqa: BLE001  # an exception here would abort all instrumentation
        failed("the set-up of the OpenTelemetry SDK", error)


def _configure_sdk_if_nobody_does() -> None:
    from importlib.metadata import entry_points  # noqa: PLC0415  # only under opentelemetry-instrument

    if list(entry_points(group="opentelemetry_configurator")):
        return
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator  # noqa: PLC0415  # the SDK's own; nothing public is

    configurator: Any = _OTelSDKConfigurator
    configurator().configure(auto_instrumentation_version=__version__)


class ProviderInstrumentor:
    """What `opentelemetry_instrumentor` wants: a thing with `instrument` and `uninstrument`, for one provider."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self) -> ProviderInstrumentor:
        """The loader calls what it loads."""
        return self

    def instrument(self, **_: Any) -> None:
        """Watch the provider. Never raises."""
        try:
            instrument(self._name)
        except Exception as error:  # noqa: BLE001  # an exception here would abort the instrumentors after us
            failed(f"all calls of {self._name}", error)

    def uninstrument(self, **_: Any) -> None:
        """Stop watching the provider. Never raises."""
        try:
            uninstrument(self._name)
        except Exception as error:  # noqa: BLE001  # as above
            failed(f"the restoring of {self._name}", error)


openai_instrumentor: Final = ProviderInstrumentor("openai")
anthropic_instrumentor: Final = ProviderInstrumentor("anthropic")
google_genai_instrumentor: Final = ProviderInstrumentor("google_genai")
bedrock_instrumentor: Final = ProviderInstrumentor("bedrock")


def _notice(runtime: Runtime) -> None:
    """See the spans of whatever tracer provider is in force by now: applications set theirs early or late.

    Never raises.
    """
    provider = runtime.providers[0] or trace.get_tracer_provider()
    if provider is not runtime.noticed:
        runtime.noticed = provider
        if runtime.settings.read_spans == "auto" and "opentelemetry.sdk.trace" in sys.modules:
            try:
                _read_spans_of(provider)
            except Exception as error:  # noqa: BLE001  # a call goes on without
                failed("the spans of others", error)


def _read_spans_of(provider: Any) -> None:
    """See every span of a provider, sampled or not, if it is one that lets us."""
    inner = getattr(provider, "provider", provider)  # Logfire's stands before the SDK's
    if not hasattr(provider, "add_span_processor") or inner in _read:
        return
    from spanledger.reading.sampler import RecordUsage  # noqa: PLC0415  # these need the OpenTelemetry SDK

    _read.add(inner)
    _spans()
    from spanledger.reading.processor import ReadingSpanProcessor  # noqa: PLC0415  # as above

    provider.add_span_processor(ReadingSpanProcessor(_spans_if_wanted, flush))
    if not hasattr(inner, "sampler"):
        log.warning("The sampler of %s can't be wrapped: model spans it drops are not read.", type(provider).__name__)
        return
    inner.sampler = RecordUsage(inner.sampler)
    for scope, tracer in list(getattr(inner, "_tracers", {}).items()):  # made before: each has a sampler of its own
        if hasattr(tracer, "sampler") and scope.name != SCOPE:  # our calls are recorded without their spans
            tracer.sampler = inner.sampler


_read: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Tracer providers that have our processor."""

_FACES: Final = ("UsageSpanExporter", "UsageSpanProcessor", "RecordUsage")
"""Public classes made on demand: they need the OpenTelemetry SDK, which most imports don't."""


def __getattr__(name: str) -> Any:
    if name in _FACES:
        return _face(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _face(name: str) -> Any:
    if name not in globals():
        from spanledger.reading.exporter import ReadingSpanExporter  # noqa: PLC0415
        from spanledger.reading.processor import ReadingSpanProcessor  # noqa: PLC0415
        from spanledger.reading.sampler import RecordUsage  # noqa: PLC0415

        class UsageSpanExporter(ReadingSpanExporter):
            """Puts the model calls among the exported spans into the ledger. Best effort: sampled spans only.

            `OTEL_TRACES_EXPORTER=otlp,spanledger`, or by hand behind a `BatchSpanProcessor`. A call that the ledger
            has already, by our own watch or another span, makes no second row.
            """

            def __init__(self) -> None:
                super().__init__(_spans, flush)
                runtime = running()
                if runtime is not None:
                    runtime.recorder.prepare()

        class UsageSpanProcessor(ReadingSpanProcessor):
            """Puts every model call that others' spans tell of into the ledger, once, and its cost onto the span.

            `tracer_provider.add_span_processor(spanledger.UsageSpanProcessor())`. With `RecordUsage` around the
            provider's sampler it sees those, too, that are not sampled.
            """

            def __init__(self) -> None:
                super().__init__(_spans, flush)
                runtime = running()
                if runtime is not None:
                    runtime.engine.prices.warm()

        globals().update(
            UsageSpanExporter=UsageSpanExporter, UsageSpanProcessor=UsageSpanProcessor, RecordUsage=RecordUsage
        )
    return globals()[name]


def _spans() -> Spans | None:
    """What reads the spans of others."""
    runtime = _runtime  # not made again after a shutdown, though our processor is still there
    if runtime is None or runtime.spans is not None:
        return None if runtime is None else runtime.spans
    with _lock:
        return _make_spans(runtime)


def _make_spans(runtime: Runtime) -> Spans:
    if runtime.spans is None:
        from spanledger.reading.spans import Spans  # noqa: PLC0415

        settings, recorder = runtime.settings, runtime.recorder
        runtime.spans = Spans(
            tell=recorder.record,
            note=lambda outcome: recorder.count(conventions.METRIC_SPANS, {conventions.OUTCOME: outcome}),
            inside=call_here,
            price=runtime.completion.price_at_once,
            keys=written(settings.span_attributes, hashed),
            write=settings.spans == "auto",
        )
        runtime.engine.others, runtime.engine.shares_spans = runtime.spans, settings.spans == "auto"
    return runtime.spans


def _spans_if_wanted() -> Spans | None:
    """The same for the processor that we have added ourselves: the setting may have changed since."""
    return _spans() if _runtime is not None and _runtime.settings.read_spans == "auto" else None


def current() -> Runtime | None:
    """The runtime, if there is one."""
    return _runtime


def running() -> Runtime | None:
    """The runtime, built from the environment if nobody has configured one. `None` if switched off."""
    global _runtime  # noqa: PLW0603  # see configure
    with _lock:
        if _runtime is None:
            read = read_settings()
            if read.enabled:
                _runtime = _build(read, None, None)
        return _runtime


def _allowed() -> Sequence[str]:
    """Every provider but those the user has switched off by OpenTelemetry's own variable."""
    off = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    return [name for name in PROVIDERS if f"spanledger_{name}" not in off and "*" not in off]


def _build(settings: Settings, tracer_provider: Any, meter_provider: Any) -> Runtime:
    from spanledger.recording.losses import LOSSES, Losses  # noqa: PLC0415
    from spanledger.recording.recorder import Recorder  # noqa: PLC0415
    from spanledger.recording.writer import Plan  # noqa: PLC0415

    if settings.sinks:
        from spanledger.export.sinks.table import say_left_out  # noqa: PLC0415

        say_left_out(settings)
    if settings.sinks or not settings.ledger_url.startswith("sqlite:"):
        for name in sink_names(settings):  # what they import is imported now, and not by the first call
            _sink(name, settings)

    key.use(partial(key_of, settings.signing_key, settings.state_dir))
    _propagation.use(settings.propagate)
    prices = prices_of(settings)
    completion = Completion(prices, lambda: service_of(settings, tracer_provider))
    recorder = Recorder(
        Plan(
            outbox=(lambda: _outbox(settings)) if sink_names(settings) else None,
            delivery=lambda count: _delivery(settings, count, completion.price_row),
            meters=lambda pending: _meters(settings, meter_provider, pending),
            finish=completion.finish,
            price=completion.price,
            priced=lambda: completion.ready,
            others=_others,
            sync=settings.durability == "sync",
            losses=Losses(settings.state_dir / LOSSES),
            keeps_every=settings.sample_rate,
        )
    )
    engine = Engine(
        telemetry=Telemetry(tracer_provider, meter_provider, spans=settings.spans != "never"),
        prices=prices,
        record=recorder.record,
        later=recorder.later,
        span_keys=written(settings.span_attributes, hashed),
        request_user=settings.request_user,
        stream_usage=settings.stream_usage,
        chunk_histogram=settings.chunk_histogram,
    )
    runtime = Runtime(
        settings, recorder, engine, _instrumentation_of(engine), (tracer_provider, meter_provider), completion
    )
    engine.notice = partial(_notice, runtime)
    recorder.before_exit = engine.end_open_streams
    recorder.in_child = partial(_in_child, runtime)
    return runtime


def _in_child(runtime: Runtime) -> None:
    """Forget what is open: in a forked child it is the parent's."""
    runtime.engine.open_streams.clear()
    if runtime.spans is not None:
        runtime.spans.forget()


def _others() -> bool:
    """Whether anybody else makes spans of model calls in this process."""
    return _runtime is not None and _runtime.spans is not None and _runtime.spans.active


def prices_of(settings: Settings) -> Prices:
    """The prices the settings name, not loaded yet."""
    return Prices(fixups=settings.price_fixups == "on", files=settings.prices)


def _instrumentation_of(engine: Engine) -> Instrumentation:
    """The one instrumentation of this process: clients keep methods they have bound, whoever is told of their calls."""
    global _instrumentation  # noqa: PLW0603  # see configure
    if _instrumentation is None:
        _instrumentation = Instrumentation(engine)
    _instrumentation.use(engine)
    return _instrumentation


def sink_names(settings: Settings) -> list[str]:
    """The ledger, if there is one, and the sinks that have what they need."""
    from spanledger.export.sinks.table import usable  # noqa: PLC0415

    return [*(["ledger"] if settings.ledger_url != "none" else []), *usable(settings)]


def _outbox(settings: Settings) -> Outbox:
    from spanledger.recording.outbox import Outbox  # noqa: PLC0415

    return Outbox.create(
        settings.state_dir / "outbox",
        sink_names(settings),
        full_sync=settings.durability != "relaxed",
        max_bytes=settings.outbox_max_bytes,
    )


def _delivery(settings: Settings, count: Callable[..., None], complete: Callable[[Any], Any]) -> Delivery:
    return delivery_of(settings, [_sink(name, settings) for name in sink_names(settings)], count, complete)


def bring_home(settings: Settings, timeout: float) -> None:
    """Deliver to the ledger what processes that died have left. Other sinks' rows stay for those who have the sinks."""
    completion = Completion(prices_of(settings), dict)
    delivery_of(settings, [ledger_of(settings)], lambda *_: None, completion.price_row).stop(timeout)


def deliver_left(settings: Settings, timeout: float) -> bool:
    """Deliver what processes that ended have left, to every sink. True if all of it is home in time."""
    completion = Completion(prices_of(settings), dict)
    sinks = [_sink(name, settings) for name in sink_names(settings)]
    return delivery_of(settings, sinks, lambda *_: None, completion.price_row).stop(timeout)


def delivery_of(
    settings: Settings, sinks: Sequence[Sink | Poster], count: Callable[..., None], complete: Callable[[Any], Any]
) -> Delivery:
    """A delivery for these sinks over the outbox directory of the settings."""
    from spanledger.recording.delivery import Delivery  # noqa: PLC0415

    return Delivery(
        sinks,
        settings.state_dir / "outbox",
        batch_size=settings.batch_size,
        flush_interval=settings.flush_interval,
        count=count,
        complete=complete,
        meant_for=sink_names(settings),
    )


def _sink(name: str, settings: Settings) -> Sink | Poster:
    if name == "ledger":
        return ledger_of(settings)
    from spanledger.export.sinks.table import sink_of  # noqa: PLC0415

    return sink_of(name, settings)


def ledger_of(settings: Settings) -> Sink:
    """The ledger the settings name, as a sink."""
    from spanledger.ledger import books  # noqa: PLC0415

    return books.ledger_of(settings)


def _meters(settings: Settings, meter_provider: Any, pending: Callable[[], int]) -> Meters:
    from spanledger.recording.meters import Meters  # noqa: PLC0415

    return Meters(
        meter_provider,
        keys=settings.metric_attributes,
        limit=settings.metric_values_limit,
        pending=pending,
        version=__version__,
    )
