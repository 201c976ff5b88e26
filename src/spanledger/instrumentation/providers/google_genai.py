"""google-genai, for the Gemini API and Vertex AI.

What is watched makes one HTTP request each, so every turn of automatic function calling counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.instrumentation.spec import Count, Endpoint, Provider, Target
from spanledger.usage.shapes.google import CACHED_CONTENT, EMBED_CONTENT, GENERATE_CONTENT, IMAGES, INTERACTIONS

_SEARCHES: Final = "candidates.0.grounding_metadata.web_search_queries|candidates.0.groundingMetadata.webSearchQueries"

GENERATE: Final = Endpoint(
    operation=conventions.GENERATE_CONTENT,
    usage=GENERATE_CONTENT,
    usage_at=("usage_metadata|usageMetadata",),
    counts={"web_searches": Count(items=_SEARCHES)},
    id="response_id|responseId",
    model="model_version|modelVersion",
    service_tier="usage_metadata.traffic_type|usageMetadata.trafficType",
    finish_reasons="candidates.*.finish_reason|candidates.*.finishReason",
    request={
        conventions.REQUEST_TEMPERATURE: "config.temperature",
        conventions.REQUEST_TOP_P: "config.top_p",
        conventions.REQUEST_TOP_K: "config.top_k",
        conventions.REQUEST_MAX_TOKENS: "config.max_output_tokens",
        conventions.REQUEST_CHOICES: "config.candidate_count",
        conventions.REQUEST_SEED: "config.seed",
        conventions.REQUEST_FREQUENCY_PENALTY: "config.frequency_penalty",
        conventions.REQUEST_PRESENCE_PENALTY: "config.presence_penalty",
    },
)
STREAM: Final = replace(
    GENERATE,
    streams=True,
    usage_ends=False,  # every chunk has one, the last counts
    signals=("candidates.0.grounding_metadata",),
    last_signals=("usage_metadata",),
    kept=4,
)
EMBED: Final = Endpoint(
    operation=conventions.EMBEDDINGS,
    usage=EMBED_CONTENT,
    merges=True,
    usage_at=("usage_metadata|usageMetadata",),
    loose={"token_count": "embeddings.statistics.token_count"},
    id="",
    model="",
    service_tier="",
    request={conventions.EMBEDDING_DIMENSIONS: "config.output_dimensionality"},
)
IMAGE: Final = Endpoint(
    operation=conventions.GENERATE_CONTENT,
    usage=IMAGES,
    usage_at=("usage_metadata",),
    counts={"output_images": Count(items="generated_images.image|generated_masks.mask")},
    id="",
    model="",
    service_tier="",
)
CACHE: Final = Endpoint(
    operation="create_cache", usage=CACHED_CONTENT, usage_at=("usage_metadata",), id="name", service_tier=""
)
INTERACTION: Final = Endpoint(
    operation=conventions.CHAT,
    usage=INTERACTIONS,
    roots=("interaction", ""),
    signals=("interaction",),
    usage_ends=False,
    state="status",
    states={
        "completed": "success",
        "incomplete": "success",  # cut short by a limit of the request, and billed as it is
        "requires_action": "success",
        "requires_continuation": "success",
        "budget_exceeded": "success",
        "failed": "error",
        "cancelled": "cancelled",
        "queued": "incomplete",
        "in_progress": "incomplete",
    },
)

_METHODS: Final = (
    ("models", "Models._generate_content", GENERATE, ""),
    ("models", "Models._generate_content_stream", STREAM, ""),
    ("models", "Models._embed_content", EMBED, ">=1.75"),
    ("models", "Models.embed_content", EMBED, "<1.75"),
    ("models", "Models._generate_images", IMAGE, ">=1.10"),
    ("models", "Models.generate_images", IMAGE, "<1.10"),
    ("models", "Models._edit_image", IMAGE, ">=1.10"),
    ("models", "Models.edit_image", IMAGE, "<1.10"),
    ("models", "Models._upscale_image", IMAGE, ""),
    ("models", "Models.recontext_image", IMAGE, ">=1.30"),
    ("models", "Models.segment_image", IMAGE, ">=1.32"),
    ("caches", "Caches.create", CACHE, ""),
)
_INTERACTIONS: Final = (
    ("google.genai._gaos.interactions", "Interactions.create", ">=2.12"),
    ("google.genai._interactions.resources.interactions", "InteractionsResource.create", ">=1.55,<2.12"),
)

GOOGLE_GENAI: Final = Provider(
    name="gcp.gemini",
    title="Google's Gemini API and Vertex AI by google-genai",
    package="google-genai",
    imports="google.genai",
    requires=">=1.0,<4",
    oldest="1.0.0",
    targets=tuple(
        Target(module=f"google.genai.{module}", name=prefix + name, endpoint=endpoint, versions=versions)
        for module, name, endpoint, versions in _METHODS
        for prefix in ("", "Async")
    )
    + tuple(
        Target(module=module, name=prefix + name, endpoint=INTERACTION, versions=versions)
        for module, name, versions in _INTERACTIONS
        for prefix in ("", "Async")
    ),
    client_at="_api_client|sdk_configuration|_client",
    base_url_at="_http_options.base_url|server_url|_base_url",
    answers="google",
    # The second is how an interaction's client gets at the same.
    told_by={"vertexai": "gcp.vertex_ai", "security._access_token._api_client.vertexai": "gcp.vertex_ai"},
    hosts={"generativelanguage.googleapis.com": "gcp.gemini", "*.googleapis.com": "gcp.vertex_ai"},
)
