"""The official OpenTelemetry instrumentations, with cost and attribution on their spans.

pip install spanledger openai anthropic opentelemetry-instrumentation-genai-openai \
    opentelemetry-instrumentation-genai-anthropic
python examples/pipelines/with_official.py
spanledger report --by feature,model
"""

from anthropic import Anthropic
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import spanledger
from spanledger.testing import Loopback

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))  # yours: OTLPSpanExporter()
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()
AnthropicInstrumentor().instrument()

spanledger.configure()  # the one line: it joins the pipeline that is there

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]

with Loopback() as service, spanledger.attribution(feature="answers"):
    with OpenAI(base_url=f"{service.root}/v1", api_key="unused") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    with Anthropic(base_url=service.root, api_key="unused") as client:
        client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=MESSAGES)
