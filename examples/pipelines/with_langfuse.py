"""Langfuse's OpenAI client: its generations carry cost and attribution, and the ledger has each call once.

pip install spanledger openai langfuse
python examples/pipelines/with_langfuse.py
spanledger report --by feature,model
"""

from langfuse import Langfuse
from langfuse.openai import OpenAI
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

import spanledger
from spanledger.testing import Loopback

# Yours: Langfuse(), with its keys in the environment.
langfuse = Langfuse(public_key="unused", secret_key="unused", span_exporter=ConsoleSpanExporter())  # noqa: S106

spanledger.configure()  # the one line: it joins the pipeline that Langfuse has made

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}

with (
    Loopback() as service,
    OpenAI(base_url=f"{service.root}/v1", api_key="unused") as client,
    spanledger.attribution(feature="answers"),
    langfuse.start_as_current_observation(name="question"),
):
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **STREAM))
langfuse.flush()
