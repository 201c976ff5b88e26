"""OpenLLMetry's instrumentations; spanledger reads their spans and leaves the SDKs alone.

pip install spanledger openai anthropic opentelemetry-instrumentation-openai opentelemetry-instrumentation-anthropic
python examples/pipelines/with_openllmetry.py
spanledger report --by source,feature,model
"""

from anthropic import Anthropic
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import spanledger
from spanledger.testing import Loopback

provider = TracerProvider()
provider.add_span_processor(spanledger.UsageSpanProcessor())  # the one line, by hand
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))  # yours: OTLPSpanExporter()
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()
AnthropicInstrumentor().instrument()  # Anthropic's SDK makes spans itself, too: still one row for a call

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]

with Loopback() as service, spanledger.attribution(feature="answers"):
    with OpenAI(base_url=f"{service.root}/v1", api_key="unused") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    with Anthropic(base_url=service.root, api_key="unused") as client:
        client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=MESSAGES)
