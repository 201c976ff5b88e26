"""LiteLLM's `otel` callback. It tells after the fact, from a thread of its own, and in a trace of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import LEAVES, more, provider_usage
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

_KEY: Final = "metadata.user_api_key"
_CALLS: Final = {
    "completion": conventions.CHAT,
    "responses": conventions.CHAT,
    "text_completion": conventions.TEXT_COMPLETION,
    "embedding": conventions.EMBEDDINGS,
}

LITELLM: Final = replace(
    SEMCONV,
    name="litellm",
    scopes={"litellm": Rank.GATEWAY},
    marks=(),
    operations={**LEAVES, **_CALLS, **{f"a{name}": operation for name, operation in _CALLS.items()}},
    begins=("litellm_request",),
    fields=more(
        SEMCONV.fields,
        # Embeddings have no `gen_ai.system`, but a model with the provider before it.
        {"server_address": ("hidden_params#api_base",), "provider": ("litellm.provider.model",)},
    ),
    own_ids=("litellm.call_id",),
    usage=more(SEMCONV.usage, provider_usage("metadata.usage_object#")),
    stream=(conventions.REQUEST_STREAM, "llm.is_streaming"),
    costs=("gen_ai.cost.total_cost", "litellm.cost.total"),
    attribution=more(
        SEMCONV.attribution,
        {
            "user_id": ("litellm.end_user.id", f"{_KEY}_end_user_id", f"{_KEY}_user_id"),
            "team": ("litellm.team.alias", f"{_KEY}_team_alias", "litellm.team.id", f"{_KEY}_team_id"),
            "organization_id": (f"{_KEY}_org_id",),
            "project": (f"{_KEY}_project_alias", f"{_KEY}_project_id"),
        },
    ),
    measures=(),  # only if switched on
)
