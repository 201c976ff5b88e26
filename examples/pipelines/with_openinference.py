"""OpenInference under a sampler: one call in ten is exported, every call is in the ledger.

pip install spanledger openai openinference-instrumentation-openai
python examples/pipelines/with_openinference.py
spanledger report --by source,feature
"""

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

import spanledger
from spanledger.testing import Loopback

sampler = ParentBased(TraceIdRatioBased(0.1))
provider = TracerProvider(sampler=spanledger.RecordUsage(sampler))  # sees what the sampler drops
provider.add_span_processor(spanledger.UsageSpanProcessor())
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))  # yours: Phoenix, Arize, OTLP
OpenAIInstrumentor().instrument(tracer_provider=provider)

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]

with Loopback() as service, OpenAI(base_url=f"{service.root}/v1", api_key="unused") as client:
    for number in range(10):
        with spanledger.attribution(feature="answers", user_id=f"user-{number}"):
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
