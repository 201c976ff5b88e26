"""Instrumentations of the model SDKs themselves: the official ones, OpenInference's, OpenLLMetry's, Logfire, Langfuse.

Anthropic's SDK traces by itself: its spans are there in each of its stacks, as they are for a user.

Into the environment `sdks` also goes `environments/sdks_no_deps.txt`, by `pip install --no-deps`: Logfire wants a
certifi that not every registry has yet.
"""

import asyncio
import json
from importlib import import_module

from stack import Stack

QUESTION = "What is a ledger?"
MESSAGES = [{"role": "user", "content": QUESTION}]
NOWHERE = "http://127.0.0.1:9"
"""Where nothing listens."""

# The calls. Every usage has parts that are easily lost or counted twice.

CHAT = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 32, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 5},
}
RESPONSE = {
    "input_tokens": 2006,
    "input_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 32},
    "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 128},
    "total_tokens": 2306,
}
EMBEDDING = {"prompt_tokens": 17, "total_tokens": 17}
MESSAGE = {
    "input_tokens": 176,
    "output_tokens": 340,
    "cache_read_input_tokens": 5000,
    "cache_creation_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    "output_tokens_details": {"thinking_tokens": 128},
    "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
    "service_tier": "standard",
}
CONVERSE = {
    "inputTokens": 176,
    "outputTokens": 340,
    "totalTokens": 7516,
    "cacheReadInputTokens": 5000,
    "cacheWriteInputTokens": 2000,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 1500}, {"ttl": "1h", "inputTokens": 500}],
}
GENERATION = {
    "promptTokenCount": 1200,
    "candidatesTokenCount": 200,
    "thoughtsTokenCount": 140,
    "toolUsePromptTokenCount": 60,
    "cachedContentTokenCount": 1000,
    "totalTokenCount": 1600,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1200}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 200}],
}


def answered(usage):
    """What a body says for the loopback to answer with this usage."""
    return {"loopback": {"usage": usage}}


def openai_client(root, kind="OpenAI"):
    return getattr(import_module("openai"), kind)(base_url=f"{root}/v1", api_key="unused", max_retries=0)


def chat(root):
    with openai_client(root) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, extra_body=answered(CHAT))


def chat_stream(root):
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    with openai_client(root) as client:
        list(
            client.chat.completions.create(
                model="gpt-4o-mini", messages=MESSAGES, extra_body=answered(CHAT), **streamed
            )
        )


def chat_async(root):
    async def run():
        async with openai_client(root, "AsyncOpenAI") as client:
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, extra_body=answered(CHAT))

    asyncio.run(run())


def responses(root):
    with openai_client(root) as client:
        client.responses.create(model="gpt-4o-mini", input=QUESTION, extra_body=answered(RESPONSE))


def responses_stream(root):
    with openai_client(root) as client:
        list(client.responses.create(model="gpt-4o-mini", input=QUESTION, stream=True, extra_body=answered(RESPONSE)))


def embeddings(root):
    with openai_client(root) as client:
        client.embeddings.create(model="text-embedding-3-small", input=QUESTION, extra_body=answered(EMBEDDING))


OPENAI = {
    "chat": chat,
    "chat_stream": chat_stream,
    "chat_async": chat_async,
    "responses": responses,
    "responses_stream": responses_stream,
    "embeddings": embeddings,
}

ASKED = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1000,
    "messages": MESSAGES,
    "extra_body": answered(MESSAGE),
}


def anthropic_client(root, kind="Anthropic"):
    return getattr(import_module("anthropic"), kind)(base_url=root, api_key="unused", max_retries=0)


def message(root):
    with anthropic_client(root) as client:
        client.messages.create(**ASKED)


def message_stream(root):
    with anthropic_client(root) as client:
        list(client.messages.create(**ASKED, stream=True))


def message_stream_helper(root):
    with anthropic_client(root) as client, client.messages.stream(**ASKED) as stream:
        stream.get_final_message()


def message_async(root):
    async def run():
        async with anthropic_client(root, "AsyncAnthropic") as client:
            await client.messages.create(**ASKED)

    asyncio.run(run())


ANTHROPIC = {
    "message": message,
    "message_stream": message_stream,
    "message_stream_helper": message_stream_helper,
    "message_async": message_async,
}

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CONVERSED = {
    "modelId": CLAUDE,
    "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
    "inferenceConfig": {"maxTokens": 1000},
    "additionalModelRequestFields": answered(CONVERSE),
}
INVOKED = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1000, "messages": MESSAGES, **answered(MESSAGE)}


def bedrock_client(root):
    return import_module("boto3").client(
        "bedrock-runtime",
        endpoint_url=root,
        region_name="us-east-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        config=import_module("botocore.config").Config(retries={"total_max_attempts": 1}),
    )


def converse(root):
    bedrock_client(root).converse(**CONVERSED)


def converse_stream(root):
    list(bedrock_client(root).converse_stream(**CONVERSED)["stream"])


def invoke_model(root):
    bedrock_client(root).invoke_model(modelId=CLAUDE, body=json.dumps(INVOKED))["body"].read()


def invoke_model_stream(root):
    list(bedrock_client(root).invoke_model_with_response_stream(modelId=CLAUDE, body=json.dumps(INVOKED))["body"])


BEDROCK = {
    "converse": converse,
    "converse_stream": converse_stream,
    "invoke_model": invoke_model,
    "invoke_model_stream": invoke_model_stream,
}


def google_client(root, usage):
    options = {"base_url": root, "extra_body": answered(usage)}
    return import_module("google.genai").Client(api_key="unused", http_options=options)


def generate(root):
    with google_client(root, GENERATION) as client:
        client.models.generate_content(model="gemini-2.5-flash", contents=QUESTION)


def generate_stream(root):
    with google_client(root, GENERATION) as client:
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents=QUESTION))


def embed(root):
    with google_client(root, {"promptTokenCount": 17, "totalTokenCount": 17}) as client:
        client.models.embed_content(model="gemini-embedding-2", contents=QUESTION)


GOOGLE = {"generate": generate, "generate_stream": generate_stream, "embed": embed}


# The tracing.


def untouched(_tracers, _meters):
    """The SDK's own tracing takes the global provider."""


def instrumented(*names):
    """Put on instrumentors, each "module:class"."""

    def instrument(tracers, meters):
        for name in names:
            module, kind = name.split(":")
            getattr(import_module(module), kind)().instrument(tracer_provider=tracers, meter_provider=meters)

    return instrument


def logfire(sdk):
    """Logfire makes the global provider itself and takes further processors when it is configured.

    Were the global provider not its own, it could not suppress the tracing of Anthropic's SDK, as it does for a user.
    """

    def instrument(tracers, _meters):
        trace, once = import_module("opentelemetry.trace"), import_module("opentelemetry.util._once")
        trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, once.Once()
        module = import_module("logfire")
        ours = import_module("spanledger").UsageSpanProcessor()
        theirs = tracers._active_span_processor._span_processors[0]
        module.configure(send_to_logfire=False, console=False, metrics=False, additional_span_processors=[ours, theirs])
        getattr(module, f"instrument_{sdk}")()

    return instrument


def langfuse(tracers, _meters):
    memory = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    import_module("langfuse").Langfuse(
        public_key="unused", secret_key="unused", base_url=NOWHERE, tracer_provider=tracers, span_exporter=memory
    )


def langfuse_openai(tracers, meters):
    langfuse(tracers, meters)
    import_module("langfuse.openai")  # patches openai itself


def stack(calls, instrument, *packages, environment="sdks"):
    return Stack(environment=environment, packages=packages, instrument=instrument, calls=calls)


_GENAI, _CONTRIB, _INFERENCE = (
    "opentelemetry.instrumentation.genai",
    "opentelemetry.instrumentation",
    "openinference.instrumentation",
)
_OFFICIAL_BEDROCK, _BOTOCORE = f"{_GENAI}.bedrock:BedrockInstrumentor", f"{_CONTRIB}.botocore:BotocoreInstrumentor"
_OFFICIAL, _INFERRED = "opentelemetry-instrumentation-genai-", "openinference-instrumentation-"
_INSTRUMENTATION = "opentelemetry-instrumentation-"
_LOGFIRE = ("logfire", "logfire-sdk")

STACKS = {
    "anthropic-native": stack(ANTHROPIC, untouched, "anthropic"),
    "anthropic-official": stack(
        ANTHROPIC, instrumented(f"{_GENAI}.anthropic:AnthropicInstrumentor"), "anthropic", f"{_OFFICIAL}anthropic"
    ),
    "anthropic-openinference": stack(
        ANTHROPIC, instrumented(f"{_INFERENCE}.anthropic:AnthropicInstrumentor"), "anthropic", f"{_INFERRED}anthropic"
    ),
    "anthropic-openllmetry": stack(
        ANTHROPIC,
        instrumented(f"{_CONTRIB}.anthropic:AnthropicInstrumentor"),
        "anthropic",
        f"{_INSTRUMENTATION}anthropic",
    ),
    "anthropic-logfire": stack(ANTHROPIC, logfire("anthropic"), "anthropic", *_LOGFIRE),
    "anthropic-langfuse": stack(ANTHROPIC, langfuse, "anthropic", "langfuse"),
    "openai-official": stack(
        OPENAI, instrumented(f"{_GENAI}.openai:OpenAIInstrumentor"), "openai", f"{_OFFICIAL}openai"
    ),
    "openai-openinference": stack(
        OPENAI, instrumented(f"{_INFERENCE}.openai:OpenAIInstrumentor"), "openai", f"{_INFERRED}openai"
    ),
    "openai-openllmetry": stack(
        OPENAI, instrumented(f"{_CONTRIB}.openai:OpenAIInstrumentor"), "openai", f"{_INSTRUMENTATION}openai"
    ),
    "openai-logfire": stack(OPENAI, logfire("openai"), "openai", *_LOGFIRE),
    "openai-langfuse": stack(OPENAI, langfuse_openai, "openai", "langfuse"),
    "bedrock-official": stack(BEDROCK, instrumented(_OFFICIAL_BEDROCK), "boto3", f"{_OFFICIAL}bedrock"),
    "bedrock-botocore": stack(BEDROCK, instrumented(_BOTOCORE), "boto3", f"{_INSTRUMENTATION}botocore"),
    "bedrock-botocore-official": stack(
        BEDROCK,
        instrumented(_BOTOCORE, _OFFICIAL_BEDROCK),
        "boto3",
        f"{_INSTRUMENTATION}botocore",
        f"{_OFFICIAL}bedrock",
    ),
    "bedrock-openinference": stack(
        BEDROCK, instrumented(f"{_INFERENCE}.bedrock:BedrockInstrumentor"), "boto3", f"{_INFERRED}bedrock"
    ),
    "bedrock-openllmetry": stack(
        BEDROCK, instrumented(f"{_CONTRIB}.bedrock:BedrockInstrumentor"), "boto3", f"{_INSTRUMENTATION}bedrock"
    ),
    "google-official": stack(
        GOOGLE,
        instrumented(f"{_CONTRIB}.google_genai:GoogleGenAiSdkInstrumentor"),
        "google-genai",
        f"{_INSTRUMENTATION}google-genai",
        environment="sdks_google",  # it refuses google-genai 3
    ),
    "google-openinference": stack(
        GOOGLE,
        instrumented(f"{_INFERENCE}.google_genai:GoogleGenAIInstrumentor"),
        "google-genai",
        f"{_INFERRED}google-genai",
    ),
    "google-openllmetry": stack(
        GOOGLE,
        instrumented(f"{_CONTRIB}.google_generativeai:GoogleGenerativeAiInstrumentor"),
        "google-genai",
        f"{_INSTRUMENTATION}google-generativeai",
    ),
}
