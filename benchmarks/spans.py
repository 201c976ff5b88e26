"""What reading the spans of others adds to the thread that makes them: CPU of `on_start` and `on_end`, µs, medians.

python benchmarks/spans.py

A span that is no model call, a model call that is read, and one that gets its cost written onto it too.
"""

import os
import statistics
import tempfile
import time

from opentelemetry.sdk.trace import TracerProvider

import spanledger

ROUNDS, PAUSE_EVERY = 2000, 50
HTTP = {
    "http.request.method": "POST", "url.full": "https://example.com/", "server.address": "example.com",
    "server.port": 443, "http.response.status_code": 200, "network.protocol.version": "1.1",
}  # fmt: skip
ASKED = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
    "server.address": "api.openai.com",
}  # fmt: skip
ANSWERED = {
    "gen_ai.response.model": "gpt-4o-2024-08-06", "gen_ai.usage.input_tokens": 2006, "gen_ai.usage.output_tokens": 300,
    "gen_ai.usage.cache_read.input_tokens": 1920,
}  # fmt: skip


def measure(scope, asked, answered, **settings):
    """Medians of CPU of `on_start` and `on_end`, in µs."""
    os.environ["SPANLEDGER_STATE_DIR"] = tempfile.mkdtemp()
    spanledger.shutdown()
    watched, bare = TracerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    spanledger.configure(tracer_provider=watched, **settings)
    spanledger.assembly._runtime.engine.prices.wait()
    processor = watched._active_span_processor._span_processors[-1]
    tracer = bare.get_tracer(scope)
    started, ended = [], []
    for number in range(ROUNDS):
        span = tracer.start_span("POST", attributes=asked)
        started.append(timed(lambda span=span: processor.on_start(span)))
        span.set_attributes({**answered, "gen_ai.response.id": f"r{number}"} if answered else {})
        span.end()
        finished = span._readable_span()
        ended.append(timed(lambda finished=finished: processor.on_end(finished)))
        if number % PAUSE_EVERY == 0:
            time.sleep(0.005)  # the writer's turn
    clock = statistics.median(timed(lambda: None) for _ in range(ROUNDS))
    return statistics.median(started) - clock, statistics.median(ended) - clock


def timed(call):
    before = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - before) / 1000


if __name__ == "__main__":
    print(f"{'span':<42}{'on_start':>10}{'on_end':>10}")
    for what, *case, settings in (
        ("no model call", "opentelemetry.instrumentation.httpx", HTTP, {}, {}),
        ("model call, read", "opentelemetry.instrumentation.genai.openai", ASKED, ANSWERED, {"spans": "always"}),
        ("model call, read, and its cost written", "opentelemetry.instrumentation.genai.openai", ASKED, ANSWERED, {}),
    ):
        start, end = measure(*case, **settings)
        print(f"{what:<42}{start:>10.1f}{end:>10.1f}")
    spanledger.shutdown()
