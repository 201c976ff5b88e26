"""Every attribute and metric name, once.

GenAI names follow open-telemetry/semantic-conventions-genai as of 2026-10-31, in the spelling that
opentelemetry-util-genai 1.3b0 (October 2026) emits; that repository has no tagged release yet, so the names live here
as plain constants. Our own names stand in the namespace `spanledger.` and are published in `semconv/registry.yaml`.
"""

from __future__ import annotations

from typing import Final

SNAPSHOT: Final = "semantic-conventions-genai 2026-10-31 (opentelemetry-util-genai 1.3b0)"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
"""What util-genai 1.3b0 declares; the GenAI conventions have no schema URL of their own."""

# General conventions.
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
RESEND_COUNT: Final = "http.request.resend_count"
USER_ID: Final = "user.id"
SESSION_ID: Final = "session.id"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
ENVIRONMENT: Final = "deployment.environment.name"

# GenAI conventions: the call.
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
EMBEDDING_DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
REQUEST_PREVIOUS_RESPONSE: Final = "gen_ai.request.previous_response.id"
REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"

# GenAI conventions: usage. Input includes cache, output includes reasoning.
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
"""The older spelling of `CACHE_WRITE_TOKENS`: read, never written."""
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
INPUT_AUDIO_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
OUTPUT_AUDIO_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
INPUT_IMAGE_TOKENS: Final = "gen_ai.usage.image.input_tokens"
OUTPUT_IMAGE_TOKENS: Final = "gen_ai.usage.image.output_tokens"

USAGE: Final = {
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cache_read_tokens": CACHE_READ_TOKENS,
    "cache_write_tokens": CACHE_WRITE_TOKENS,
    "cache_write_long_tokens": "spanledger.usage.cache_write_long.input_tokens",
    "reasoning_tokens": REASONING_TOKENS,
    "input_audio_tokens": INPUT_AUDIO_TOKENS,
    "output_audio_tokens": OUTPUT_AUDIO_TOKENS,
    "input_image_tokens": INPUT_IMAGE_TOKENS,
    "output_image_tokens": OUTPUT_IMAGE_TOKENS,
    "web_searches": "spanledger.usage.web_searches",
}
"""Field of `model.Usage` → span attribute."""
MODALITIES: Final = frozenset(
    {"input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens"}
)
"""Counts that say something on a span only where they are not zero."""

# Ours.
USAGE_STATUS: Final = "spanledger.usage.status"
COST_TOTAL: Final = "spanledger.cost.total"
COST_CURRENCY: Final = "spanledger.cost.currency"
COST_SOURCE: Final = "spanledger.cost.source"
COST_STATUS: Final = "spanledger.cost.status"
COST_BASIS: Final = "spanledger.cost.basis"
COST_LOCAL: Final = "spanledger.cost.local"
COST_PUSD: Final = "spanledger.cost.pico_usd"
COST_PARTS: Final = {
    "input": "spanledger.cost.input",
    "cache_read": "spanledger.cost.cache_read",
    "cache_write": "spanledger.cost.cache_write",
    "cache_write_long": "spanledger.cost.cache_write",
    "output": "spanledger.cost.output",
    "reasoning": "spanledger.cost.reasoning",
    "input_audio": "spanledger.cost.audio",
    "output_audio": "spanledger.cost.audio",
    "input_image": "spanledger.cost.image",
    "output_image": "spanledger.cost.image",
    "web_search": "spanledger.cost.web_search",
}
"""Bucket of a cost → span attribute; several buckets may share one, which then carries their sum."""

ATTRIBUTION: Final = {
    "user_id": USER_ID,
    "session_id": SESSION_ID,
    "organization_id": "spanledger.organization.id",
    "feature": "spanledger.feature",
    "team": "spanledger.team",
    "project": "spanledger.project",
    "cost_center": "spanledger.cost_center",
    "message_id": "spanledger.message.id",
}
"""Attribution key → span and metric attribute."""
METADATA_PREFIX: Final = "spanledger.metadata."
ATTRIBUTION_CHANGE: Final = "spanledger.attribution.change"
ATTRIBUTION_SOURCE: Final = "spanledger.attribution.source"
BUCKET: Final = "spanledger.bucket"
CALL_STATUS: Final = "spanledger.status"
REASON: Final = "reason"
SINK: Final = "sink"
METHOD: Final = "spanledger.method"
OUTCOME: Final = "spanledger.outcome"
RECORD_ID: Final = "spanledger.record.id"
DURATION_MS: Final = "spanledger.duration_ms"
FIRST_CHUNK_MS: Final = "spanledger.time_to_first_chunk_ms"
WEIGHT: Final = "spanledger.weight"

# Metrics: name, unit, what it says.
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  # an attribute name
METRIC_TOKENS: Final = "gen_ai.client.token.usage"
METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_PER_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
METRIC_USAGE: Final = "spanledger.usage"
METRIC_COST: Final = "spanledger.cost"
METRIC_CALLS: Final = "spanledger.calls"
METRIC_DRIFT: Final = "spanledger.cost.drift"
METRIC_LOST: Final = "spanledger.records.lost"
METRIC_PENDING: Final = "spanledger.outbox.pending"
METRIC_SENT: Final = "spanledger.delivery.sent"
METRIC_FAILED: Final = "spanledger.delivery.failed"
METRIC_DEAD: Final = "spanledger.delivery.dead"
METRIC_INVALID: Final = "spanledger.usage.invalid"
METRIC_UNPRICED: Final = "spanledger.cost.unpriced"
METRIC_MISSING: Final = "spanledger.methods.missing"
METRIC_SPANS: Final = "spanledger.spans"
METRIC_REPORTS: Final = "spanledger.reports"
METRIC_ATTRIBUTIONS: Final = "spanledger.attributions"
METRIC_TRIMMED: Final = "spanledger.attribution.trimmed"

METRICS: Final = {
    METRIC_TOKENS: ("histogram", "{token}", "Number of input and output tokens used"),
    METRIC_DURATION: ("histogram", "s", "GenAI operation duration"),
    METRIC_FIRST_CHUNK: ("histogram", "s", "Time until the first chunk of a streamed answer"),
    METRIC_PER_CHUNK: ("histogram", "s", "Time between two chunks of a streamed answer"),
    METRIC_USAGE: ("counter", "{token}", "Tokens used, by bucket; the buckets are disjoint, so their sum is the total"),
    METRIC_COST: ("counter", "{USD}", "Cost of the calls that could be priced"),
    METRIC_CALLS: ("counter", "{call}", "Model calls recorded"),
    METRIC_DRIFT: ("counter", "{USD}", "Difference between the cost a provider stated and our own figure for it"),
    METRIC_INVALID: ("counter", "{call}", "Calls whose reported usage was missing, partial or impossible"),
    METRIC_UNPRICED: ("counter", "{call}", "Calls without an exact price"),
    METRIC_MISSING: ("counter", "{method}", "Methods of an SDK that should be watched and are not there"),
    METRIC_SPANS: ("counter", "{span}", "Model spans of others that were read, by what became of them"),
    METRIC_REPORTS: ("counter", "{report}", "Usage that the application reported by hand, by what became of it"),
    METRIC_ATTRIBUTIONS: ("counter", "{call}", "Model calls recorded, by how it is known whose they are"),
    METRIC_TRIMMED: ("counter", "{value}", "Attribution values that were too long, too many or not to be believed"),
    METRIC_LOST: ("counter", "{record}", "Records that could not be kept"),
    METRIC_PENDING: ("gauge", "{record}", "Records in this process's outbox that a sink has not taken yet"),
    METRIC_SENT: ("counter", "{record}", "Records a sink has taken"),
    METRIC_FAILED: ("counter", "{attempt}", "Deliveries that failed and will be tried again"),
    METRIC_DEAD: ("counter", "{record}", "Records a sink refused for good"),
}

TOKEN_BOUNDARIES: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
DURATION_BOUNDARIES: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip

# Operations.
CHAT: Final = "chat"
GENERATE_CONTENT: Final = "generate_content"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
FETCH_RESPONSE: Final = "fetch_response"
