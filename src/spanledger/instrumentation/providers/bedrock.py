"""Amazon Bedrock by boto3 and aiobotocore: Converse, InvokeModel, and both streamed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.spec import Endpoint, Provider, Target
from spanledger.usage.shapes.amazon import CONVERSE as CONVERSE_SHAPE
from spanledger.usage.shapes.amazon import INVOKE as INVOKE_SHAPE
from spanledger.usage.shapes.amazon import INVOKE_EMBEDDINGS as EMBEDDINGS_SHAPE
from spanledger.usage.shapes.openai import CHAT as OPENAI_SHAPE

CONVERSE: Final = Endpoint(
    operation=conventions.CHAT,
    usage=CONVERSE_SHAPE,
    request_model="modelId",
    id="",
    model="",
    service_tier="serviceTier.type",
    finish_reasons="stopReason",
    request={
        conventions.REQUEST_TEMPERATURE: "inferenceConfig.temperature",
        conventions.REQUEST_TOP_P: "inferenceConfig.topP",
        conventions.REQUEST_MAX_TOKENS: "inferenceConfig.maxTokens",
    },
)
CONVERSE_STREAM: Final = replace(
    CONVERSE,
    streams=True,
    usage_at=("metadata.usage",),
    service_tier="metadata.serviceTier.type",
    finish_reasons="messageStop.stopReason",
    signals=("metadata",),
    last_signals=("messageStop",),
)
INVOKE: Final = Endpoint(
    operation=conventions.CHAT,
    usage=INVOKE_SHAPE,
    spelled={"prompt_tokens": OPENAI_SHAPE},  # models that answer as OpenAI does
    merges=True,
    usage_at=("amazon-bedrock-invocationMetrics", "usage", "metadata.usage"),
    loose={
        "inputTextTokenCount": "inputTextTokenCount",  # Titan
        "tokenCount": "results.tokenCount",
        "totalOutputTextTokenCount": "totalOutputTextTokenCount",
        "prompt_token_count": "prompt_token_count",  # Llama
        "generation_token_count": "generation_token_count",
    },
    request_model="modelId",
    finish_reasons=(
        "stop_reason|delta.stop_reason"  # Claude, Llama
        "|stopReason|messageStop.stopReason"  # Nova
        "|results.completionReason|completionReason"  # Titan
        "|outputs.stop_reason|choices.finish_reason"  # Mistral, what answers as OpenAI does
        "|finish_reason|generations.finish_reason"  # Cohere
    ),
)
INVOKE_STREAM: Final = replace(
    INVOKE,
    streams=True,
    roots=("message", ""),  # the rest is Claude's
    placeholders={"message": ("output_tokens",)},
    signals=("message",),
    last_signals=("usage", *INVOKE.usage_at, *INVOKE.loose.values(), INVOKE.finish_reasons),
    usage_ends=False,
    end="amazon-bedrock-invocationMetrics",
)

EMBED: Final = replace(INVOKE, operation=conventions.EMBEDDINGS, usage=EMBEDDINGS_SHAPE)

_OPERATIONS: Final = {
    "Converse": CONVERSE,
    "ConverseStream": CONVERSE_STREAM,
    "InvokeModel": replace(INVOKE, variants={"embed": EMBED}),
    "InvokeModelWithResponseStream": INVOKE_STREAM,
}

BEDROCK: Final = Provider(
    name="aws.bedrock",
    title="Amazon Bedrock by boto3 and aiobotocore",
    package="botocore",
    requires=">=1.34.116,<2",
    oldest="1.34.131",
    targets=(
        Target(module="botocore.client", name="BaseClient._make_api_call", endpoint=_OPERATIONS),
        Target(
            module="aiobotocore.client",
            name="AioBaseClient._make_api_call",
            endpoint=_OPERATIONS,
            package="aiobotocore",
        ),
    ),
    client_at="",
    base_url_at="meta.endpoint_url",
    answers="aws",
    hosts={"*.amazonaws.com": "aws.bedrock", "*.amazonaws.com.cn": "aws.bedrock", "*.api.aws": "aws.bedrock"},
)
