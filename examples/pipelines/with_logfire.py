"""Logfire: its spans carry cost and attribution, and the ledger has each call once, whole or streamed.

pip install spanledger openai logfire
python examples/pipelines/with_logfire.py
spanledger report --by feature,model
"""

import logfire
from openai import OpenAI
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import spanledger
from spanledger.testing import Loopback

logfire.configure(
    send_to_logfire=False,  # yours: leave it out
    additional_span_processors=[
        spanledger.UsageSpanProcessor(),  # puts the cost onto the copies that Logfire exports
        BatchSpanProcessor(ConsoleSpanExporter()),  # yours: leave it out
    ],
)
logfire.instrument_openai()

spanledger.configure()  # watches the SDK itself too

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}

with (
    Loopback() as service,
    OpenAI(base_url=f"{service.root}/v1", api_key="unused") as client,
    spanledger.attribution(feature="answers"),
):
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **STREAM))
