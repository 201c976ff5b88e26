"""LangChain, traced by itself and by its SDK: two tell of each call, the ledger has it once.

pip install spanledger langchain-openai openinference-instrumentation-langchain openinference-instrumentation-openai
python examples/pipelines/with_langchain.py
spanledger report --by feature,model
"""

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import spanledger
from spanledger.testing import Loopback

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))  # yours: Phoenix, Arize, OTLP
trace.set_tracer_provider(provider)
LangChainInstrumentor().instrument()
OpenAIInstrumentor().instrument()

spanledger.configure()  # the one line: it joins the pipeline that is there

with Loopback() as service, spanledger.attribution(feature="answers"):
    model = ChatOpenAI(model="gpt-4o-mini", base_url=f"{service.root}/v1", api_key="unused", stream_usage=True)
    chain = ChatPromptTemplate.from_messages([("human", "What is a {thing}?")]) | model
    chain.invoke({"thing": "ledger"})
    list(chain.stream({"thing": "trial balance"}))
