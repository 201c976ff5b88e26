"""Frameworks that trace model calls themselves, alone and over a tracing of the SDK beneath them.

The usages are stated by the request, so that no two kinds of tokens share a number.
"""

import asyncio
import os
import time

from stack import Stack

QUESTION = "What is a ledger?"
MESSAGES = [{"role": "user", "content": QUESTION}]
CHAT = {
    "prompt_tokens": 1200,
    "completion_tokens": 340,
    "total_tokens": 1540,
    "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 100, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0},
}
RESPONSES = {
    "input_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 100},
    "output_tokens": 340,
    "output_tokens_details": {"reasoning_tokens": 128},
    "total_tokens": 1540,
}
EMBEDDING = {"prompt_tokens": 1200, "total_tokens": 1200}
ANTHROPIC = {
    "input_tokens": 176,
    "cache_creation_input_tokens": 2000,
    "cache_read_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    "output_tokens": 340,
    "output_tokens_details": {"thinking_tokens": 128},
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "service_tier": "standard",
    "inference_geo": "global",
}
SETTLE = 1.0
"""Seconds that LiteLLM gets to write its spans, which it does in the background, after the answer."""


def body(usage):
    return {"loopback": {"usage": usage, "service_tier": "default"}}


def genai_openai(tracers, meters):
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def openinference_openai(tracers, _meters):
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracers)


# LangChain


def genai_langchain(tracers, meters):
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def langchain_official(tracers, meters):
    """The tracing of the SDK makes no span here: it adds what it knows to LangChain's."""
    genai_langchain(tracers, meters)
    genai_openai(tracers, meters)


def langchain_openllmetry(tracers, meters):
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    LangchainInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    OpenAIInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def langchain_openinference(tracers, meters):
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=tracers)
    openinference_openai(tracers, meters)


def langchain_langsmith(tracers, meters):
    """LangSmith writes to the global tracer provider, and nothing to its own service."""
    settings = {
        "TRACING": "true",
        "TRACING_MODE": "otel",
        "API_KEY": "unused",
        "ENDPOINT": "http://127.0.0.1:9",
        "REVISION_ID": "unused",
    }
    os.environ.update({f"LANGSMITH_{name}": value for name, value in settings.items()})
    genai_openai(tracers, meters)


def chat_model(root, **settings):
    from langchain_openai import ChatOpenAI

    usage = RESPONSES if settings.get("use_responses_api") else CHAT
    return ChatOpenAI(
        model="gpt-4o-mini",
        base_url=f"{root}/v1",
        api_key="unused",
        max_retries=0,
        extra_body=body(usage),
        **settings,
    )


def in_a_loop(use, root, **settings):
    """LangChain's models share one asynchronous HTTP client, which would outlive the loop: each gets its own."""
    from openai import DefaultAsyncHttpxClient

    async def call():
        async with DefaultAsyncHttpxClient() as client:
            await use(chat_model(root, http_async_client=client, **settings))

    asyncio.run(call())


async def ainvoke(model):
    await model.ainvoke(QUESTION)


def chat_invoke(root):
    chat_model(root).invoke(QUESTION)


def chat_stream(root):
    list(chat_model(root, stream_usage=True).stream(QUESTION))


def chat_stream_no_usage(root):
    list(chat_model(root, stream_usage=False).stream(QUESTION))


def chat_ainvoke(root):
    in_a_loop(ainvoke, root)


def chat_astream(root):
    async def use(model):
        return [chunk async for chunk in model.astream(QUESTION)]

    in_a_loop(use, root, stream_usage=True)


def responses_invoke(root):
    chat_model(root, use_responses_api=True).invoke(QUESTION)


def responses_stream(root):
    list(chat_model(root, use_responses_api=True).stream(QUESTION))


def responses_ainvoke(root):
    in_a_loop(ainvoke, root, use_responses_api=True)


LANGCHAIN_CALLS = {
    call.__name__: call
    for call in (
        *(chat_invoke, chat_stream, chat_stream_no_usage, chat_ainvoke, chat_astream),
        *(responses_invoke, responses_stream, responses_ainvoke),
    )
}


def settled(call):
    """The call, and then LangSmith's background thread done."""

    def settle(root):
        from langchain_core.tracers.langchain import wait_for_all_tracers

        call(root)
        wait_for_all_tracers()

    return settle


def langchain(instrument, *packages, calls=LANGCHAIN_CALLS):
    sdks = ("langchain-core", "langchain-openai", "openai")
    return Stack(environment="langchain", packages=(*packages, *sdks), instrument=instrument, calls=calls)


# LiteLLM


def own_prices():
    """LiteLLM fetches its price list as it is imported, unless told to take the one it brings."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def litellm_otel(_tracers, _meters):
    """LiteLLM writes to the global tracer provider."""
    own_prices()
    import litellm

    litellm.callbacks = ["otel"]


def litellm_otel_semconv(tracers, meters):
    """The same callback, in the newer conventions that the environment asks for."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    litellm_otel(tracers, meters)


def litellm_otel_v2(tracers, meters):
    """The second form of the callback, which knows asynchronous calls only.

    Named as "otel" it would write to a tracer provider of its own.
    """
    own_prices()
    os.environ["LITELLM_OTEL_V2"] = "true"
    import litellm
    from litellm.integrations.otel.logger import OpenTelemetryV2

    litellm.callbacks = [OpenTelemetryV2(tracer_provider=tracers, meter_provider=meters)]


def litellm_otel_openinference(tracers, meters):
    litellm_otel(tracers, meters)
    openinference_openai(tracers, meters)


def litellm_openinference(tracers, meters):
    own_prices()
    from openinference.instrumentation.litellm import LiteLLMInstrumentor

    LiteLLMInstrumentor().instrument(tracer_provider=tracers)
    openinference_openai(tracers, meters)


def litellm_settings(root, **settings):
    return {
        "model": "openai/gpt-4o-mini",
        "messages": MESSAGES,
        "api_base": f"{root}/v1",
        "api_key": "unused",
        "extra_body": body(CHAT),
        **settings,
    }


def completion(root):
    import litellm

    litellm.completion(**litellm_settings(root))
    time.sleep(SETTLE)


def completion_stream(root):
    import litellm

    list(litellm.completion(**litellm_settings(root, stream=True, stream_options={"include_usage": True})))
    time.sleep(SETTLE)


def completion_stream_no_usage(root):
    import litellm

    list(litellm.completion(**litellm_settings(root, stream=True)))
    time.sleep(SETTLE)


def acompletion(root):
    import litellm

    async def call():
        await litellm.acompletion(**litellm_settings(root))
        await asyncio.sleep(SETTLE)

    asyncio.run(call())


def acompletion_stream(root):
    import litellm

    async def call():
        settings = litellm_settings(root, stream=True, stream_options={"include_usage": True})
        async for _ in await litellm.acompletion(**settings):
            pass
        await asyncio.sleep(SETTLE)

    asyncio.run(call())


def embedding(root):
    import litellm

    litellm.embedding(
        model="openai/text-embedding-3-small",
        input=[QUESTION],
        api_base=f"{root}/v1",
        api_key="unused",
        extra_body=body(EMBEDDING),
    )
    time.sleep(SETTLE)


LITELLM_CALLS = {
    call.__name__: call
    for call in (
        *(completion, completion_stream, completion_stream_no_usage),
        *(acompletion, acompletion_stream, embedding),
    )
}


def litellm(instrument, *packages, calls=LITELLM_CALLS):
    sdks = ("litellm", "openai")
    return Stack(environment="litellm", packages=(*packages, *sdks), instrument=instrument, calls=calls)


# Pydantic AI


def pydantic_ai_format(version=None):
    """Every agent is traced, in that version of Pydantic AI's format, or in its default."""

    def instrument(tracers, meters):
        from pydantic_ai import Agent, InstrumentationSettings

        chosen = {} if version is None else {"version": version}
        Agent.instrument_all(InstrumentationSettings(tracer_provider=tracers, meter_provider=meters, **chosen))

    return instrument


def openai_agent(root, *, responses=False):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{root}/v1", api_key="unused")
    model = OpenAIResponsesModel if responses else OpenAIChatModel
    settings = {"extra_body": body(RESPONSES if responses else CHAT)}
    return Agent(model("gpt-4o-mini", provider=provider), name="clerk", model_settings=settings)


def anthropic_agent(root):
    from anthropic import AsyncAnthropic
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=root, api_key="unused"))
    settings = {"max_tokens": 100, "extra_body": {"loopback": {"usage": ANTHROPIC}}}
    return Agent(AnthropicModel("claude-sonnet-4-5", provider=provider), name="clerk", model_settings=settings)


def stream(agent):
    async def call():
        async with agent.run_stream(QUESTION) as result:
            await result.get_output()

    asyncio.run(call())


def run(root):
    openai_agent(root).run_sync(QUESTION)


def run_stream(root):
    stream(openai_agent(root))


def run_responses(root):
    openai_agent(root, responses=True).run_sync(QUESTION)


def run_anthropic(root):
    anthropic_agent(root).run_sync(QUESTION)


def run_stream_anthropic(root):
    stream(anthropic_agent(root))


def pydantic_ai(sdk, calls, version=None):
    packages = ("pydantic-ai-slim", sdk)
    instrument = pydantic_ai_format(version)
    return Stack(environment="pydantic_ai", packages=packages, instrument=instrument, calls=calls)


OPENAI_RUNS = {"run": run, "run_stream": run_stream, "run_responses": run_responses}
ANTHROPIC_RUNS = {"run": run_anthropic, "run_stream": run_stream_anthropic}
GENAI_OPENAI = "opentelemetry-instrumentation-genai-openai"
GENAI_LANGCHAIN = "opentelemetry-instrumentation-genai-langchain"

STACKS = {
    "langchain-official": langchain(langchain_official, GENAI_LANGCHAIN, GENAI_OPENAI),
    "langchain-official-alone": langchain(genai_langchain, GENAI_LANGCHAIN),
    "langchain-openllmetry": langchain(
        langchain_openllmetry, "opentelemetry-instrumentation-langchain", "opentelemetry-instrumentation-openai"
    ),
    "langchain-openinference": langchain(
        langchain_openinference, "openinference-instrumentation-langchain", "openinference-instrumentation-openai"
    ),
    "langchain-langsmith": langchain(
        langchain_langsmith,
        "langsmith",
        GENAI_OPENAI,
        calls={name: settled(call) for name, call in LANGCHAIN_CALLS.items()},
    ),
    "litellm-otel": litellm(litellm_otel),
    "litellm-otel-semconv": litellm(litellm_otel_semconv),
    "litellm-otel-v2": litellm(
        litellm_otel_v2, calls={"acompletion": acompletion, "acompletion_stream": acompletion_stream}
    ),
    "litellm-otel-openinference": litellm(litellm_otel_openinference, "openinference-instrumentation-openai"),
    "litellm-openinference": litellm(
        litellm_openinference, "openinference-instrumentation-litellm", "openinference-instrumentation-openai"
    ),
    "pydantic_ai-openai": pydantic_ai("openai", OPENAI_RUNS),
    "pydantic_ai-anthropic": pydantic_ai("anthropic", ANTHROPIC_RUNS),
    **{f"pydantic_ai-openai-v{version}": pydantic_ai("openai", OPENAI_RUNS, version) for version in (2, 3, 4, 6)},
}
