"""Stacks of older releases of OpenTelemetry instrumentations for model SDKs, and of OpenLIT."""

import asyncio
import json
import tempfile
from pathlib import Path

from stack import Stack

CHAT = "gpt-4o-mini"
EMBEDDING = "text-embedding-3-small"
CLAUDE = "claude-sonnet-4-5"
NOVA = "us.amazon.nova-lite-v1:0"
MESSAGES = [{"role": "user", "content": "What is a ledger?"}]

CHAT_USAGE = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920},
    "completion_tokens_details": {"reasoning_tokens": 128},
}
RESPONSES_USAGE = {
    "input_tokens": 2006,
    "input_tokens_details": {"cached_tokens": 1920},
    "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 128},
    "total_tokens": 2306,
}
MESSAGE_USAGE = {
    "input_tokens": 176,
    "output_tokens": 340,
    "cache_read_input_tokens": 5000,
    "cache_creation_input_tokens": 2000,
}
CONVERSE_USAGE = {
    "inputTokens": 176,
    "outputTokens": 340,
    "totalTokens": 7516,
    "cacheReadInputTokens": 5000,
    "cacheWriteInputTokens": 2000,
}


def answering(usage):
    return {"loopback": {"usage": usage}}


# OpenAI's calls


def openai_client(root):
    import openai

    return openai.OpenAI(base_url=f"{root}/v1", api_key="unused", max_retries=0)


def openai_chat(root):
    with openai_client(root) as client:
        client.chat.completions.create(model=CHAT, messages=MESSAGES, extra_body=answering(CHAT_USAGE))


def openai_chat_stream(root):
    with openai_client(root) as client:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        extra = answering(CHAT_USAGE)
        for _ in client.chat.completions.create(model=CHAT, messages=MESSAGES, extra_body=extra, **options):
            pass


def openai_chat_stream_unstated(root):
    """A stream that does not state its usage, because nobody asked it to."""
    with openai_client(root) as client:
        extra = answering(CHAT_USAGE)
        for _ in client.chat.completions.create(model=CHAT, messages=MESSAGES, extra_body=extra, stream=True):
            pass


def openai_embeddings(root):
    with openai_client(root) as client:
        client.embeddings.create(model=EMBEDDING, input="What is a ledger?", encoding_format="float")


def openai_responses(root):
    with openai_client(root) as client:
        client.responses.create(model=CHAT, input="What is a ledger?", extra_body=answering(RESPONSES_USAGE))


OPENAI = {"chat": openai_chat, "chat_stream": openai_chat_stream, "embeddings": openai_embeddings}
OPENAI_RESPONSES = OPENAI | {"responses": openai_responses}
OPENAI_UNSTATED = {
    "chat": openai_chat,
    "chat_stream_unstated": openai_chat_stream_unstated,
    "embeddings": openai_embeddings,
    "responses": openai_responses,
}
"""OpenLIT 1.33 breaks the caller's stream at the chunk that states the usage: it has no choices."""


# Anthropic's calls


def anthropic_client(root):
    import anthropic

    return anthropic.Anthropic(base_url=root, api_key="unused", max_retries=0)


def anthropic_message(root):
    with anthropic_client(root) as client:
        extra = answering(MESSAGE_USAGE)
        client.messages.create(model=CLAUDE, max_tokens=400, messages=MESSAGES, extra_body=extra)


def anthropic_message_stream(root):
    with anthropic_client(root) as client:
        extra = answering(MESSAGE_USAGE)
        for _ in client.messages.create(model=CLAUDE, max_tokens=400, messages=MESSAGES, extra_body=extra, stream=True):
            pass


ANTHROPIC = {"message": anthropic_message, "message_stream": anthropic_message_stream}


# Bedrock's calls


def bedrock_client(root):
    import boto3
    from botocore.config import Config

    keys = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused", "region_name": "us-east-1"}
    once = Config(retries={"total_max_attempts": 1})
    return boto3.client("bedrock-runtime", endpoint_url=root, config=once, **keys)


def bedrock_question():
    messages = [{"role": "user", "content": [{"text": "What is a ledger?"}]}]
    return {"modelId": NOVA, "messages": messages, "additionalModelRequestFields": answering(CONVERSE_USAGE)}


def bedrock_converse(root):
    bedrock_client(root).converse(**bedrock_question())


def bedrock_converse_stream(root):
    for _ in bedrock_client(root).converse_stream(**bedrock_question())["stream"]:
        pass


BEDROCK = {"converse": bedrock_converse, "converse_stream": bedrock_converse_stream}


# OpenLIT


def openlit_prices():
    """A price file, so that `openlit.init` does not fetch one: dollars per thousand tokens."""
    chat = {
        CHAT: {"promptPrice": 0.00015, "completionPrice": 0.0006, "cacheReadPrice": 0.000075},
        CLAUDE: {
            "promptPrice": 0.003,
            "completionPrice": 0.015,
            "cacheReadPrice": 0.0003,
            "cacheCreationPrice": 0.00375,
        },
    }
    prices = {"chat": chat, "embeddings": {EMBEDDING: 0.00002}, "images": {}, "audio": {}}
    file = Path(tempfile.mkdtemp()) / "prices.json"
    file.write_text(json.dumps(prices), encoding="utf-8")
    return file


def openlit(tracers, meters):
    import openlit

    openlit.init(application_name="golden", environment="test", pricing_json=str(openlit_prices()))


# OpenLLMetry


def openllmetry_openai(tracers, meters):
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def openllmetry_anthropic(tracers, meters):
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def openllmetry_anthropic_enriched(tracers, meters):
    """As its SDK puts it on; without, streams have no counts."""
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor(enrich_token_usage=True).instrument(tracer_provider=tracers, meter_provider=meters)


# OpenTelemetry's own


def official_openai(tracers, meters):
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def official_botocore(tracers, meters):
    from opentelemetry.instrumentation.botocore import BotocoreInstrumentor

    BotocoreInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


# OpenInference


def openinference_openai(tracers, meters):
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracers)


def openinference_anthropic(tracers, meters):
    from openinference.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument(tracer_provider=tracers)


# Pydantic AI: the calls are an agent's


def pydantic_ai(tracers, meters):
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings

    Agent.instrument_all(InstrumentationSettings(tracer_provider=tracers, meter_provider=meters))


def pydantic_ai_openai(root, model, usage, *, stream=False):
    import openai
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="unused", max_retries=0)
    model = getattr(models, model)(CHAT, provider=OpenAIProvider(openai_client=client))
    asyncio.run(ask_agent(client, model, usage, stream=stream))


def pydantic_ai_anthropic(root, *, stream=False):
    import anthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = anthropic.AsyncAnthropic(base_url=root, api_key="unused", max_retries=0)
    model = AnthropicModel(CLAUDE, provider=AnthropicProvider(anthropic_client=client))
    asyncio.run(ask_agent(client, model, MESSAGE_USAGE, stream=stream))


async def ask_agent(client, model, usage, *, stream):
    from pydantic_ai import Agent

    agent = Agent(model, model_settings={"extra_body": answering(usage)})
    async with client:
        if not stream:
            await agent.run("What is a ledger?")
            return
        async with agent.run_stream("What is a ledger?") as answer:
            async for _ in answer.stream_text():
                pass


PYDANTIC_AI_OPENAI = {
    "chat": lambda root: pydantic_ai_openai(root, "OpenAIChatModel", CHAT_USAGE),
    "chat_stream": lambda root: pydantic_ai_openai(root, "OpenAIChatModel", CHAT_USAGE, stream=True),
    "responses": lambda root: pydantic_ai_openai(root, "OpenAIResponsesModel", RESPONSES_USAGE),
}
PYDANTIC_AI_ANTHROPIC = {
    "message": pydantic_ai_anthropic,
    "message_stream": lambda root: pydantic_ai_anthropic(root, stream=True),
}


# Logfire: its `configure` brings its own providers, so the one that notes is put on as a further processor


def logfire_configured(tracers):
    import logfire

    noting = {"additional_span_processors": [tracers._active_span_processor]}
    logfire.configure(send_to_logfire=False, console=False, metrics=False, inspect_arguments=False, **noting)
    return logfire


def logfire_openai(tracers, meters):
    logfire_configured(tracers).instrument_openai()


def logfire_anthropic(tracers, meters):
    logfire_configured(tracers).instrument_anthropic()


STACKS = {
    "openai-openlit": Stack(
        environment="openlit", packages=("openlit", "openai"), instrument=openlit, calls=OPENAI_RESPONSES
    ),
    "anthropic-openlit": Stack(
        environment="openlit", packages=("openlit", "anthropic"), instrument=openlit, calls=ANTHROPIC
    ),
    "openai-openllmetry-0.30": Stack(
        environment="older_openllmetry_030",
        packages=("opentelemetry-instrumentation-openai", "openai"),
        instrument=openllmetry_openai,
        calls=OPENAI,
    ),
    "anthropic-openllmetry-0.30": Stack(
        environment="older_openllmetry_030",
        packages=("opentelemetry-instrumentation-anthropic", "anthropic"),
        instrument=openllmetry_anthropic,
        calls=ANTHROPIC,
    ),
    "openai-openllmetry-0.47": Stack(
        environment="older_openllmetry_047",
        packages=("opentelemetry-instrumentation-openai", "openai"),
        instrument=openllmetry_openai,
        calls=OPENAI_RESPONSES,
    ),
    "anthropic-openllmetry-0.47": Stack(
        environment="older_openllmetry_047",
        packages=("opentelemetry-instrumentation-anthropic", "anthropic"),
        instrument=openllmetry_anthropic,
        calls=ANTHROPIC,
    ),
    "anthropic-openllmetry-0.30-enriched": Stack(
        environment="older_openllmetry_030",
        packages=("opentelemetry-instrumentation-anthropic", "anthropic"),
        instrument=openllmetry_anthropic_enriched,
        calls=ANTHROPIC,
    ),
    "anthropic-openllmetry-0.47-enriched": Stack(
        environment="older_openllmetry_047",
        packages=("opentelemetry-instrumentation-anthropic", "anthropic"),
        instrument=openllmetry_anthropic_enriched,
        calls=ANTHROPIC,
    ),
    "openai-openai_v2-2.1": Stack(
        environment="older_official",
        packages=("opentelemetry-instrumentation-openai-v2", "openai"),
        instrument=official_openai,
        calls={"chat": openai_chat, "chat_stream": openai_chat_stream},
    ),
    "bedrock-botocore-0.58": Stack(
        environment="older_official",
        packages=("opentelemetry-instrumentation-botocore", "boto3"),
        instrument=official_botocore,
        calls=BEDROCK,
    ),
    "openai-openinference-0.1.30": Stack(
        environment="older_openinference",
        packages=("openinference-instrumentation-openai", "openai"),
        instrument=openinference_openai,
        calls=OPENAI_RESPONSES,
    ),
    "anthropic-openinference-0.1.18": Stack(
        environment="older_openinference",
        packages=("openinference-instrumentation-anthropic", "anthropic"),
        instrument=openinference_anthropic,
        calls=ANTHROPIC,
    ),
    "openai-openlit-1.33": Stack(
        environment="older_openlit", packages=("openlit", "openai"), instrument=openlit, calls=OPENAI_UNSTATED
    ),
    "anthropic-openlit-1.33": Stack(
        environment="older_openlit", packages=("openlit", "anthropic"), instrument=openlit, calls=ANTHROPIC
    ),
    "openai-openlit-1.35": Stack(
        environment="older_openlit_135", packages=("openlit", "openai"), instrument=openlit, calls=OPENAI_RESPONSES
    ),
    "anthropic-openlit-1.35": Stack(
        environment="older_openlit_135", packages=("openlit", "anthropic"), instrument=openlit, calls=ANTHROPIC
    ),
    "openai-pydantic_ai-0.8": Stack(
        environment="older_pydantic_ai",
        packages=("pydantic-ai-slim", "genai-prices", "openai"),
        instrument=pydantic_ai,
        calls=PYDANTIC_AI_OPENAI,
    ),
    "anthropic-pydantic_ai-0.8": Stack(
        environment="older_pydantic_ai",
        packages=("pydantic-ai-slim", "genai-prices", "anthropic"),
        instrument=pydantic_ai,
        calls=PYDANTIC_AI_ANTHROPIC,
    ),
    "openai-pydantic_ai-1.0": Stack(
        environment="older_pydantic_ai_10",
        packages=("pydantic-ai-slim", "genai-prices", "openai"),
        instrument=pydantic_ai,
        calls=PYDANTIC_AI_OPENAI,
    ),
    "anthropic-pydantic_ai-1.0": Stack(
        environment="older_pydantic_ai_10",
        packages=("pydantic-ai-slim", "genai-prices", "anthropic"),
        instrument=pydantic_ai,
        calls=PYDANTIC_AI_ANTHROPIC,
    ),
    "anthropic-pydantic_ai-1.0-prices-0.2": Stack(
        environment="older_pydantic_ai_10_prices_02",
        packages=("pydantic-ai-slim", "genai-prices", "anthropic"),
        instrument=pydantic_ai,
        calls=PYDANTIC_AI_ANTHROPIC,
    ),
    "openai-logfire-4.10": Stack(
        environment="older_logfire",
        packages=("logfire", "openai"),
        instrument=logfire_openai,
        calls=OPENAI_RESPONSES,
    ),
    "anthropic-logfire-4.10": Stack(
        environment="older_logfire", packages=("logfire", "anthropic"), instrument=logfire_anthropic, calls=ANTHROPIC
    ),
}
