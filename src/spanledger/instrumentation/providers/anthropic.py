"""Anthropic: Messages, their streams and helpers, legacy completions; also behind Bedrock, Vertex AI and Foundry."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.spec import Announcement, Batch, Endpoint, Provider, Target
from spanledger.usage.shapes.anthropic import MESSAGES as SHAPE
from spanledger.usage.shapes.anthropic import SPELLED

MESSAGES: Final = Endpoint(
    operation=conventions.CHAT,
    usage=SHAPE,
    spelled=SPELLED,
    # `message_start` has the input, `message_delta` all counts so far; with server tools the input grows, too.
    merges=True,
    roots=("message", ""),
    placeholders={"message": ("output_tokens",)},
    signals=("usage",),
    last_signals=("delta.stop_reason",),
    usage_ends=False,
    service_tier="usage.service_tier",
    finish_reasons="stop_reason|delta.stop_reason",
    user="metadata.user_id",
    request={
        conventions.REQUEST_TEMPERATURE: "temperature",
        conventions.REQUEST_TOP_P: "top_p",
        conventions.REQUEST_TOP_K: "top_k",
        conventions.REQUEST_MAX_TOKENS: "max_tokens",
        conventions.REQUEST_REASONING_LEVEL: "output_config.effort",
    },
)
STREAM: Final = replace(MESSAGES, streams=True)
COMPLETION: Final = replace(
    MESSAGES,
    operation=conventions.TEXT_COMPLETION,
    signals=("stop_reason",),
    last_signals=(),
    request={**MESSAGES.request, conventions.REQUEST_MAX_TOKENS: "max_tokens_to_sample"},
)

RESULTS: Final = Batch(
    endpoints={"message": MESSAGES},
    kind="type",
    answer="result.message",
    id="custom_id",
    batch_id="message_batch_id",
    error="result.error.error.type",
)

_METHODS: Final = (
    ("messages.messages", "Messages.create", MESSAGES, ""),
    ("messages.messages", "Messages.stream", STREAM, ""),
    ("messages.messages", "Messages.parse", MESSAGES, ">=0.77"),
    ("beta.messages.messages", "Messages.create", MESSAGES, ""),
    ("beta.messages.messages", "Messages.stream", STREAM, ""),
    ("beta.messages.messages", "Messages.parse", MESSAGES, ">=0.73"),
    ("completions", "Completions.create", COMPLETION, "<1"),
    ("messages.batches", "Batches.retrieve", Announcement(), ""),
    ("messages.batches", "Batches.results", RESULTS, ""),
    ("beta.messages.batches", "Batches.retrieve", Announcement(), ""),
    ("beta.messages.batches", "Batches.results", RESULTS, ""),
)

ANTHROPIC: Final = Provider(
    name="anthropic",
    title="Anthropic, also behind Bedrock, Vertex AI and Foundry",
    package="anthropic",
    imports="anthropic",
    requires=">=0.43,<3",
    oldest="0.43.0",
    targets=tuple(
        Target(
            module=f"anthropic.resources.{module}",
            name=prefix + name,
            endpoint=endpoint,
            versions=versions,
            opens="__api_request" if endpoint is STREAM else "",
        )
        for module, name, endpoint, versions in _METHODS
        for prefix in ("", "Async")
    ),
    clients={
        f"{prefix}{name}": provider
        for name, provider in (
            ("AnthropicBedrock", "aws.bedrock"),
            ("AnthropicBedrockMantle", "aws.bedrock"),
            ("AnthropicVertex", "gcp.vertex_ai"),
            ("AnthropicFoundry", "azure.ai.inference"),
            # Anthropic's own platform, sold through the clouds.
            ("AnthropicAWS", "anthropic"),
            ("AnthropicGoogleCloud", "anthropic"),
        )
        for prefix in ("", "Async")
    },
    hosts={
        "*.anthropic.com": "anthropic",
        "*.amazonaws.com": "aws.bedrock",
        "*.api.aws": "aws.bedrock",
        "*.googleapis.com": "gcp.vertex_ai",
        "*.services.ai.azure.com": "azure.ai.inference",
        "openrouter.ai": "openrouter",
    },
    states_cost=("openrouter",),
    copies=("anthropic.lib.bedrock._beta_messages", "anthropic.lib.vertex._beta_messages"),
    responses_pass=tuple(
        ("anthropic._base_client", f"{kind}APIClient._process_response") for kind in ("Sync", "Async")
    ),
    # From 1.14 on it makes spans, and sends trace context and baggage along.
    traced_inside={"request": ("logfire.",)},
    own_tracing=("ANTHROPIC_OPEN_TELEMETRY", "ANTHROPIC_OPEN_TELEMETRY_PROPAGATION"),
    traces_itself_at="_open_telemetry.traces.enabled",
)
