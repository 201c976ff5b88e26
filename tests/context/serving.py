"""An ASGI and a WSGI application behind OpenTelemetry's server instrumentation: run by test_spoof.py.

Arguments: the provider's address, "asgi" or "wsgi", and the headers of a request as JSON.
"""

import asyncio
import json
import sys
from wsgiref.util import setup_testing_defaults

import openai
from opentelemetry import baggage, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as Asgi
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as Wsgi
from opentelemetry.sdk.trace import SpanProcessor

import spanledger

URL, KIND, HEADERS = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


class Copying(SpanProcessor):
    """Copies all baggage onto every span."""

    def on_start(self, span, parent_context=None):
        for name, value in baggage.get_all(parent_context).items():
            span.set_attribute(name, value)


def calls():
    assert len(baggage.get_all()) > 100, "no baggage came in"
    with openai.OpenAI(base_url=URL, api_key="x") as client:
        client.chat.completions.create(**ASKED)
        with spanledger.attribution(user_id="ada"):
            client.chat.completions.create(**ASKED)
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
    tracer = trace.get_tracer("opentelemetry.instrumentation.openai_v2")
    with tracer.start_as_current_span("chat gpt-4o", attributes=attributes) as span:
        span.set_attributes({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 9})


async def asgi_app(scope, receive, send):
    calls()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ, start_response):
    calls()
    start_response("200 OK", [])
    return [b""]


async def serve_asgi():
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        """It goes nowhere."""

    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    scope = {
        "type": "http", "method": "POST", "path": "/ask", "headers": headers, "query_string": b"", "scheme": "http",
        "client": ("10.0.0.9", 1234), "server": ("127.0.0.1", 80), "http_version": "1.1",
    }  # fmt: skip
    await Asgi(asgi_app)(scope, receive, send)


def serve_wsgi():
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}
    setup_testing_defaults(environ)
    list(Wsgi(wsgi_app)(environ, lambda *_: None))


trace.get_tracer_provider().add_span_processor(Copying())
if KIND == "asgi":
    asyncio.run(serve_asgi())
else:
    serve_wsgi()
