"""OpenLIT, 1.33 to 1.45."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanledger import conventions
from spanledger.reading.dialect import more
from spanledger.reading.dialects.semconv import SEMCONV
from spanledger.recording.telling import Rank

OPENLIT: Final = replace(
    SEMCONV,
    name="openlit",
    scopes={
        "openlit.*": Rank.SDK_LEVEL,
        "openlit.instrumentation.langchain": Rank.FRAMEWORK,
        "openlit.instrumentation.llamaindex": Rank.FRAMEWORK,
        "openlit.instrumentation.pydantic_ai": Rank.FRAMEWORK,
        "openlit.instrumentation.litellm": Rank.GATEWAY,
    },
    marks=(),
    named={"chat *": conventions.CHAT, "embeddings *": conventions.EMBEDDINGS},
    usage=more(
        SEMCONV.usage,
        {
            "input_tokens": ("gen_ai.token.usage.input",),
            "output_tokens": ("gen_ai.token.usage.output",),
            "total": ("gen_ai.client.token.usage",),
        },
    ),
    stream=("gen_ai.request.stream", "gen_ai.request.is_stream"),
    exclusive=frozenset({"anthropic", "aws.bedrock"}),
    thoughts_apart=frozenset({"gcp.gemini", "gcp.vertex_ai"}),
    measures=("openlit.*",),
)
OPENLIT_OLD: Final = replace(
    OPENLIT,
    name="openlit_old",
    scopes={"openlit.otel.tracing": Rank.SDK_LEVEL},
    estimates={"gen_ai.request.is_stream": frozenset({True})},  # counted from the text, whatever the answer says
    leaves_out={"gen_ai.system": frozenset({"anthropic"})},
)
