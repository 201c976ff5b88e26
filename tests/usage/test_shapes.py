"""Usage as each API sends it, read into one meaning: against tables by hand, genai-prices' extractors, and bills."""

import enum
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CompletionUsage, create_embedding_response, images_response
from openai.types.audio import transcription
from openai.types.realtime import RealtimeResponseUsage
from openai.types.responses import ResponseUsage

from spanledger.model import MOST_OF_A_COUNT, Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.program import UNIT_OF
from spanledger.pricing.units import UNITS
from spanledger.usage import shapes
from spanledger.usage.paths import compiled, plain, walk
from spanledger.usage.shape import Reader
from spanledger.usage.shapes import SHAPES, read_again

READERS = {name: Reader(shape) for name, shape in SHAPES.items()}
NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)


def used(status="reported", *, other=None, **counts):
    """`input=3` is `input_tokens=3`; searches are counted as they are."""
    fields = {name if name == "web_searches" else f"{name}_tokens": count for name, count in counts.items()}
    return Usage(usage_status=status, other_usage=other, **fields)


class Modality(str, enum.Enum):  # noqa: UP042  # that is what theirs is
    """As in google.genai.types: an enum of texts."""

    TEXT = "TEXT"
    AUDIO = "AUDIO"
    IMAGE = "IMAGE"
    VIDEO = "VIDEO"
    DOCUMENT = "DOCUMENT"


class TrafficType(enum.Enum):
    ON_DEMAND_FLEX = "ON_DEMAND_FLEX"


def camel(**members):
    """Google's JSON: camelCase, details as lists of dicts."""
    return {
        (head := name.split("_"))[0] + "".join(map(str.title, head[1:])): [
            {"modality": modality, "tokenCount": count} for modality, count in value
        ]
        if isinstance(value, list)
        else value
        for name, value in members.items()
    }


def typed(**members):
    """Google's SDK: snake_case objects, modalities as enums."""
    return SimpleNamespace(
        **{
            name: [SimpleNamespace(modality=Modality(modality), token_count=count) for modality, count in value]
            if isinstance(value, list)
            else value
            for name, value in members.items()
        }
    )


ALL_OF_GOOGLE = {
    "prompt_token_count": 1000,
    "cached_content_token_count": 400,
    "thoughts_token_count": 70,
    "tool_use_prompt_token_count": 30,
    "total_token_count": 1400,
    "prompt_tokens_details": [
        ("TEXT", 400), ("AUDIO", 200), ("AUDIO", 50), ("IMAGE", 100), ("DOCUMENT", 40), ("VIDEO", 210),
    ],
    "tool_use_prompt_tokens_details": [("TEXT", 5), ("AUDIO", 10), ("IMAGE", 4), ("DOCUMENT", 3), ("VIDEO", 8)],
    "cache_tokens_details": [("TEXT", 200), ("AUDIO", 80), ("IMAGE", 30), ("DOCUMENT", 20), ("VIDEO", 70)],
}  # fmt: skip
ALL_OF_ANSWER = [("TEXT", 100), ("AUDIO", 80), ("IMAGE", 60), ("IMAGE", 60)]
GOOGLE_USED = used(
    input=1030, output=370, reasoning=70, cache_read=400, input_audio=260, input_image=147, output_audio=80,
    output_image=120,
    other={
        "input_video_tokens": 218,
        "cache_audio_read_tokens": 80,
        "cache_image_read_tokens": 50,
        "cache_video_read_tokens": 70,
    },
)  # fmt: skip
GOOGLE = [
    case
    for spelt in (camel, typed)
    for case in (
        (
            spelt(**ALL_OF_GOOGLE, candidates_token_count=300, candidates_tokens_details=ALL_OF_ANSWER),
            GOOGLE_USED,
        ),
        (spelt(**ALL_OF_GOOGLE, response_token_count=300, response_tokens_details=ALL_OF_ANSWER), GOOGLE_USED),
        (spelt(prompt_token_count=5, candidates_token_count=7, total_token_count=12), used(input=5, output=7)),
        # All of it went into thinking: there are no candidates.
        (
            spelt(prompt_token_count=5, thoughts_token_count=9, total_token_count=14),
            used(input=5, output=9, reasoning=9),
        ),
        (spelt(prompt_token_count=5, total_token_count=5), used("partial", input=5)),
        (
            spelt(prompt_token_count=5, tool_use_prompt_token_count=100, candidates_token_count=1),
            used(input=105, output=1),
        ),
        (spelt(prompt_token_count=None, candidates_token_count=None), used("missing")),
        (
            spelt(
                prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[("AUDIO", None), ("AUDIO", 2)]
            ),
            used(input=5, output=3, input_audio=2),
        ),
        (
            spelt(prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[("AUDIO", -1)]),
            used("invalid", input=5, output=3),
        ),
        (
            spelt(prompt_token_count=5, candidates_token_count=3, candidates_tokens_details=[("AUDIO", 4)]),
            used("invalid", input=5, output=3, output_audio=4),
        ),
        (spelt(prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[]), used(input=5, output=3)),
    )
]

CHAT = [
    (
        CompletionUsage(
            prompt_tokens=2006,
            completion_tokens=300,
            total_tokens=2306,
            prompt_tokens_details={"cached_tokens": 1920, "audio_tokens": 0},
            completion_tokens_details={
                "reasoning_tokens": 128,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 10,
            },
        ),
        used(input=2006, output=300, cache_read=1920, reasoning=128, input_audio=0, output_audio=0),
    ),
    (
        CompletionUsage.model_validate(
            {
                "prompt_tokens": 1000,
                "completion_tokens": 500,
                "total_tokens": 1500,
                "prompt_tokens_details": {
                    "audio_tokens": 300,
                    "image_tokens": 200,
                    "cache_write_tokens": 400,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 300, "ttl_12h_tokens": 100},
                },
                "completion_tokens_details": {"audio_tokens": 400},
            }
        ),
        used(
            input=1000, output=500, input_audio=300, input_image=200, cache_write=400, cache_write_long=100,
            output_audio=400,
        ),
    ),
    (CompletionUsage(prompt_tokens=1, completion_tokens=0, total_tokens=1), used(input=1, output=0)),
    # An API that leaves out what the type requires, as the SDK reads it.
    (CompletionUsage.construct(prompt_tokens=7), used("partial", input=7)),
    # Azure and Groq; nulls for details.
    (
        {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None, "queue_time": 0.02},
        used(input=9, output=4),
    ),
    # DeepSeek: hits and misses instead of details.
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "completion_tokens_details": {"reasoning_tokens": 30},
        },
        used(input=100, output=50, cache_read=64, reasoning=30),
    ),
    # DeepSeek with both.
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 64},
            "prompt_cache_hit_tokens": 64,
        },
        used(input=100, output=50, cache_read=64),
    ),
    # Together.
    ({"prompt_tokens": 10, "completion_tokens": 5, "num_cached_tokens": 8}, used(input=10, output=5, cache_read=8)),
    # A gateway's word for cache writes.
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cache_creation_tokens": 8}},
        used(input=10, output=5, cache_write=8),
    ),
    # xAI: reasoning beside the completion, told by the total.
    (
        {
            "prompt_tokens": 10120,
            "completion_tokens": 1499,
            "total_tokens": 14428,
            "prompt_tokens_details": {"cached_tokens": 128, "text_tokens": 10120, "audio_tokens": 0, "image_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2809, "audio_tokens": 0},
            "num_sources_used": 0,
            "cost_in_usd_ticks": 232856000,
        },
        used(
            input=10120, output=4308, cache_read=128, reasoning=2809, input_audio=0, input_image=0, output_audio=0
        ),
    ),
    # The same numbers with the reasoning inside, as the total says.
    (
        {
            "prompt_tokens": 10120,
            "completion_tokens": 4308,
            "total_tokens": 14428,
            "completion_tokens_details": {"reasoning_tokens": 2809},
        },
        used(input=10120, output=4308, reasoning=2809),
    ),
    # More reasoning than output, and no total to tell why: a contradiction, kept.
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6}},
        used("invalid", input=10, output=5, reasoning=6),
    ),
    # Perplexity's deep research: reasoning and citations beside the completion, and not in the total.
    (
        {
            "prompt_tokens": 33,
            "completion_tokens": 7163,
            "total_tokens": 7196,
            "citation_tokens": 20016,
            "num_search_queries": 18,
            "reasoning_tokens": 73997,
            "search_context_size": "low",
            "cost": {"total_cost": 0.4, "currency": "USD"},
        },
        used(
            input=33, output=7163 + 20016 + 73997, reasoning=73997, web_searches=18,
            other={"output_citation_tokens": 20016},
        ),
    ),
    # The same with fewer thoughts than citations: still more than the completion can hold.
    (
        {
            "prompt_tokens": 33,
            "completion_tokens": 7163,
            "total_tokens": 7196,
            "citation_tokens": 20016,
            "reasoning_tokens": 20000,
        },
        used(input=33, output=7163 + 20016 + 20000, reasoning=20000, other={"output_citation_tokens": 20016}),
    ),
    # Perplexity's Sonar without research.
    (
        {"prompt_tokens": 9, "completion_tokens": 80, "citation_tokens": 0, "num_search_queries": 1},
        used(input=9, output=80, web_searches=1),
    ),
    # OpenRouter, whose search counts have had two names.
    (
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "server_tool_use_details": {"web_search_requests": 2},
            "cost": 0.5,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 0.25},
        },
        used(input=9, output=8, web_searches=2),
    ),
    (
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "server_tool_use": {"web_search_requests": 3},
            "logfire_ai_gateway": {"cost": "0.1"},
        },
        used(input=9, output=8, web_searches=3),
    ),
    # Mistral's audio.
    (
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_audio_seconds": 12,
            "pydantic_ai_gateway": {"cost_estimate": 0.1},
        },
        used(input=9, output=8, other={"input_audio_seconds": 12}),
    ),
    ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_audio_seconds": {}}, used("invalid", input=9, output=8)),
    ({}, used("missing")),
    (None, used("missing")),
    ({"prompt_tokens": None, "completion_tokens": None}, used("missing")),
    ({"prompt_tokens": 0, "completion_tokens": 0}, used(input=0, output=0)),
    ({"prompt_tokens": 5.0, "completion_tokens": 2.0}, used(input=5, output=2)),
    ({"completion_tokens": 5}, used("partial", output=5)),
    # Citations without a completion are no output.
    ({"prompt_tokens": 5, "citation_tokens": 2}, used("partial", input=5, other={"output_citation_tokens": 2})),
    ({"prompt_tokens": MOST_OF_A_COUNT, "completion_tokens": 1}, used(input=10**9, output=1)),
    *(
        ({"prompt_tokens": odd, "completion_tokens": 5}, used("invalid", output=5))
        for odd in (-1, MOST_OF_A_COUNT + 1, 10**30, True, False, "12", 1.5, float("nan"), float("inf"), [], [3], {})
    ),
    *(
        ({"prompt_tokens": 3, "completion_tokens": 5, "citation_tokens": odd}, used("invalid", input=3))
        for odd in (-1, 10**30, True, "12")
    ),
    ({"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
     used("invalid", input=5, output=5, cache_read=6)),
    ({"prompt_tokens": 5, "completion_tokens": 5,
      "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3}},
     used("invalid", input=5, output=5, cache_read=3, cache_write=3)),
    ({"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 3, "image_tokens": 3}},
     used("invalid", input=5, output=5, input_audio=3, input_image=3)),
    # Cached audio is in both counts.
    ({"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 5, "cached_tokens": 5}},
     used(input=5, output=5, input_audio=5, cache_read=5)),
    ({"prompt_tokens": 5, "completion_tokens": 5,
      "completion_tokens_details": {"audio_tokens": 3, "reasoning_tokens": 3}},
     used("invalid", input=5, output=5, output_audio=3, reasoning=3)),
    *((odd, used("invalid")) for odd in ("12", b"12", 12, 1.5, True, [], [{"prompt_tokens": 1}], ())),
    (object(), used("missing")),
]  # fmt: skip

RESPONSES = [
    (
        ResponseUsage(
            input_tokens=1000,
            input_tokens_details={
                "cached_tokens": 300,
                "cache_write_tokens": 500,
                "cache_write_tokens_details": {"ttl_30m_tokens": 400, "ttl_12h_tokens": 100},
            },
            output_tokens=200,
            output_tokens_details={"reasoning_tokens": 150},
            total_tokens=1200,
        ),
        used(input=1000, output=200, cache_read=300, cache_write=500, cache_write_long=100, reasoning=150),
    ),
    # Reasoning is inside whatever the total.
    (
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 15},
            "total_tokens": 45,
            "cost_in_usd_ticks": 1,
        },
        used(input=10, output=20, reasoning=15),
    ),
    # Perplexity.
    (
        {
            "input_tokens": 100,
            "input_tokens_details": {"cache_read_input_tokens": 40, "cache_creation_input_tokens": 30},
            "output_tokens": 20,
            "tool_calls_details": {"search_web": {"invocation": 3}, "fetch_url": {"invocation": 1}},
            "cost": {"currency": "USD", "total_cost": 0.5},
        },
        used(input=100, output=20, cache_read=40, cache_write=30, web_searches=3),
    ),
    (ResponseUsage.construct(input_tokens=10, output_tokens=None), used("partial", input=10)),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "input_tokens_details": {"cache_write_tokens": 3, "cache_write_tokens_details": {"ttl_12h_tokens": 4}},
        },
        used("invalid", input=10, output=5, cache_write=3, cache_write_long=4),
    ),
]
ANTHROPIC = [
    (
        {
            "input_tokens": 100,
            "cache_creation_input_tokens": 1000,
            "cache_read_input_tokens": 2000,
            "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
            "output_tokens": 50,
            "output_tokens_details": {"thinking_tokens": 20},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1, "code_execution_requests": 4},
            "service_tier": "standard",
            "speed": "fast",
            "inference_geo": "us",
        },
        used(
            input=3100, output=50, cache_read=2000, cache_write=1000, cache_write_long=600, reasoning=20,
            web_searches=2, other={"code_executions": 4},
        ),
    ),
    # No breakdown by age.
    (
        {
            "input_tokens": 5,
            "cache_creation_input_tokens": 1253,
            "cache_read_input_tokens": 128_955,
            "cache_creation": None,
            "output_tokens": 500,
            "server_tool_use": None,
        },
        used(input=130_213, output=500, cache_read=128_955, cache_write=1253),
    ),
    (
        {
            "input_tokens": 5,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "output_tokens": 6,
        },
        used(input=5, output=6),
    ),
    # A compaction is billed beside the top level; other iterations repeat it, or are of another model.
    (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30,
            "output_tokens": 40,
            "iterations": [
                {
                    "type": "compaction",
                    "input_tokens": 1000,
                    "cache_creation_input_tokens": 200,
                    "cache_read_input_tokens": 300,
                    "output_tokens": 400,
                },
                {"type": "message", "input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 40},
                {"type": "advisor_message", "model": "claude-opus-4-7", "input_tokens": 7777, "output_tokens": 8888},
                {
                    "type": "compaction",
                    "input_tokens": 1,
                    "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 3,
                    "output_tokens": 4,
                },
            ],
        },
        used(input=60 + 1500 + 6, output=444, cache_read=333, cache_write=222),
    ),
    # What a compaction writes for an hour costs what such writes cost.
    (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 40,
            "iterations": [
                {
                    "type": "compaction",
                    "input_tokens": 100,
                    "cache_creation_input_tokens": 200,
                    "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
                    "cache_read_input_tokens": 0,
                    "output_tokens": 4,
                },
            ],
        },
        used(input=330, output=44, cache_read=0, cache_write=220, cache_write_long=150),
    ),
    ({"input_tokens": 10, "output_tokens": 1, "iterations": None}, used(input=10, output=1)),
    ({"input_tokens": 10, "output_tokens": 1, "iterations": []}, used(input=10, output=1)),
    # A stream that ended after `message_start`, before any output.
    ({"input_tokens": 10, "cache_read_input_tokens": 5}, used("partial", input=15, cache_read=5)),
    ({"cache_read_input_tokens": 5, "output_tokens": 1}, used("partial", output=1, cache_read=5)),
    (
        {"input_tokens": 10, "cache_read_input_tokens": -5, "output_tokens": 1},
        used("invalid", output=1),
    ),
    (
        {"input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 1,
         "cache_creation": {"ephemeral_1h_input_tokens": 6}},
        used("invalid", input=15, output=1, cache_write=5, cache_write_long=6),
    ),
    (
        {"input_tokens": 10, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}},
        used("invalid", input=10, output=1, reasoning=2),
    ),
]  # fmt: skip
BEDROCK = [
    (
        {
            "inputTokens": 10,
            "outputTokens": 20,
            "totalTokens": 1030,
            "cacheReadInputTokens": 300,
            "cacheWriteInputTokens": 700,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 500}, {"ttl": "5m", "inputTokens": 200}],
        },
        used(input=1010, output=20, cache_read=300, cache_write=700, cache_write_long=500),
    ),
    (
        {"inputTokens": 10, "outputTokens": 20, "cacheWriteInputTokens": 7,
         "cacheDetails": [{"ttl": "5m", "inputTokens": 7}]},
        used(input=17, output=20, cache_write=7),
    ),
    ({"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}, used(input=10, output=20)),
    ({"inputTokens": 10, "cacheDetails": {"ttl": "1h"}}, used("partial", input=10)),
    ({"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": "3"}, used("invalid", output=20)),
]  # fmt: skip
COHERE = [
    (
        {
            "billed_units": {"input_tokens": 12.0, "output_tokens": 34.0, "search_units": 1.0, "image_tokens": 5.0},
            "tokens": {"input_tokens": 512.0, "output_tokens": 36.0},
            "cached_tokens": 496.0,
        },
        used(input=12, output=34, input_image=5, other={"rerank_searches": 1}),
    ),
    # A hidden preamble is in `tokens`, and only there.
    ({"tokens": {"input_tokens": 512.0, "output_tokens": 36.0}}, used("missing")),
    ({"billed_units": {"search_units": 2}}, used(other={"rerank_searches": 2})),
    ({"billed_units": {"input_tokens": 12.0}}, used(input=12)),
    ({"billed_units": {"input_tokens": 12.5, "output_tokens": 1.0}}, used("invalid", output=1)),
]
REALTIME = [
    (
        RealtimeResponseUsage.model_validate(
            {
                "input_tokens": 1000,
                "output_tokens": 500,
                "total_tokens": 1500,
                "input_token_details": {
                    "text_tokens": 100,
                    "audio_tokens": 700,
                    "image_tokens": 200,
                    "cached_tokens": 640,
                    "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 448, "image_tokens": 128},
                },
                "output_token_details": {"text_tokens": 100, "audio_tokens": 400},
            }
        ),
        used(
            input=1000, output=500, cache_read=640, input_audio=700, input_image=200, output_audio=400,
            other={"cache_audio_read_tokens": 448, "cache_image_read_tokens": 128},
        ),
    ),
    (RealtimeResponseUsage(), used("missing")),
]  # fmt: skip
OTHERS = [
    (
        "openai.embeddings",
        create_embedding_response.Usage(prompt_tokens=8, total_tokens=8),
        used(input=8),
    ),
    ("openai.embeddings", {"total_tokens": 9}, used(input=9)),
    ("openai.embeddings", {"prompt_tokens": None, "total_tokens": 9}, used(input=9)),
    ("openai.embeddings", {"completion_tokens": 9}, used("missing")),
    (
        "openai.images",
        images_response.Usage(
            input_tokens=100,
            input_tokens_details={"image_tokens": 60, "text_tokens": 40},
            output_tokens=1056,
            output_tokens_details={"image_tokens": 1000, "text_tokens": 56},
            total_tokens=1156,
        ),
        used(input=100, output=1056, input_image=60, output_image=1000),
    ),
    (
        "openai.transcription",
        transcription.UsageTokens(
            type="tokens",
            input_tokens=14,
            input_token_details={"audio_tokens": 10, "text_tokens": 4},
            output_tokens=45,
            total_tokens=59,
        ),
        used(input=14, output=45, input_audio=10),
    ),
    (
        "openai.duration",
        transcription.UsageDuration(type="duration", seconds=9),
        used(other={"input_audio_seconds": 9}),
    ),
    ("openai.duration", {"type": "duration"}, used("missing")),
    ("mistral.ocr", {"pages_processed": 3, "doc_size_bytes": 1234}, used(other={"input_document_pages": 3})),
    ("mistral.ocr", {"doc_size_bytes": 1234}, used("missing")),
    ("mistral.ocr", {"pages_processed": -3}, used("invalid")),
    (
        "langchain",
        {
            "input_tokens": 1000,
            "output_tokens": 200,
            "total_tokens": 1200,
            "input_token_details": {
                "audio": 10, "cache_creation": 200, "cache_read": 100, "ephemeral_1h_input_tokens": 50,
            },
            "output_token_details": {"audio": 20, "reasoning": 150},
        },
        used(
            input=1000, output=200, cache_read=100, cache_write=200, cache_write_long=50, reasoning=150, input_audio=10,
            output_audio=20,
        ),
    ),
    ("langchain", {"input_tokens": 1, "output_tokens": 2, "input_token_details": {}}, used(input=1, output=2)),
]  # fmt: skip
CASES = [
    *(("openai.chat", *case) for case in CHAT),
    *(("openai.responses", *case) for case in RESPONSES),
    *(("openai.realtime", *case) for case in REALTIME),
    *(("anthropic.messages", *case) for case in ANTHROPIC),
    *(("google.generate_content", *case) for case in GOOGLE),
    *(("bedrock.converse", *case) for case in BEDROCK),
    *(("cohere", *case) for case in COHERE),
    *OTHERS,
]
"""Shape, usage as the API sends it, what it means."""
NUMBERED = [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("shape", "raw", "usage"), NUMBERED)
def test_usage_as_the_api_sends_it_is_read(shape, raw, usage):
    assert READERS[shape].usage(raw) == usage


@pytest.mark.parametrize(("shape", "raw", "usage"), NUMBERED)
def test_stored_usage_is_read_again_to_the_same(shape, raw, usage):
    stored = json.loads(json.dumps(plain(raw), allow_nan=False))
    known = used(input=999_999, output=1)
    if usage.usage_status == "missing" or not isinstance(stored, dict):
        assert read_again(shape, stored, known) is known
    else:
        assert read_again(shape, stored, known) == usage


def test_what_the_answer_itself_counted_goes_with_the_usage():
    raw = {"input_tokens": 1, "output_tokens": 2}
    items = {"web_searches": 3, "storage_searches": 4, "code_interpreter_sessions": 0}
    assert READERS["openai.responses"].usage(raw, items) == used(
        input=1, output=2, web_searches=3, other={"storage_searches": 4}
    )
    assert READERS["openai.responses"].usage(None, items) == used(
        "missing", web_searches=3, other={"storage_searches": 4}
    )


@pytest.mark.parametrize("shape", ["openai.chat", "openai.responses", "anthropic.messages"])
def test_searches_counted_in_the_answer_are_kept_though_the_usage_could_count_them(shape):
    raw = {"input_tokens": 1, "output_tokens": 2, "prompt_tokens": 1, "completion_tokens": 2}
    known = used(input=1, output=3, web_searches=3, other={"storage_searches": 4})
    assert read_again(shape, raw, known) == used(input=1, output=2, web_searches=3, other={"storage_searches": 4})


def test_searches_counted_elsewhere_are_kept():
    known = used("partial", input=1, web_searches=3, other={"storage_searches": 4, "input_video_tokens": 5})
    raw = {"promptTokenCount": 7, "candidatesTokenCount": 2}
    kept = used(input=7, output=2, web_searches=3, other={"storage_searches": 4})
    assert read_again("google.generate_content", raw, known) == kept


@pytest.mark.parametrize("known", [used(), used(input=1, output=2, web_searches=3), used("missing")])
def test_what_cannot_be_read_again_stays_as_it_is_known(known):
    raw = {"prompt_tokens": 3, "completion_tokens": 4}
    for shape in (None, "", "openai.chats", "OpenAI.Chat"):
        assert read_again(shape, raw, known) is known
    for unreadable in (None, {}, {"tokens": 3}, [], [raw], "raw", 3, True):
        assert read_again("openai.chat", unreadable, known) is known
    assert read_again("openai.chat", raw, Usage()) == used(input=3, output=4)


CONTEXTS = [
    (
        "anthropic.messages",
        {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
        {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
    ),
    ("anthropic.messages", {"service_tier": None, "speed": 3, "inference_geo": ""}, {}),
    ("google.generate_content", {"trafficType": "ON_DEMAND"}, {"service_tier": "ON_DEMAND"}),
    (
        "google.generate_content",
        SimpleNamespace(traffic_type=TrafficType.ON_DEMAND_FLEX),
        {"service_tier": "ON_DEMAND_FLEX"},
    ),
    ("google.generate_content", {"serviceTier": "priority"}, {"service_tier": "priority"}),
    ("google.generate_content", SimpleNamespace(service_tier="flex"), {"service_tier": "flex"}),
    ("openai.chat", {"service_tier": "flex"}, {}),
    ("openai.chat", None, {}),
]


@pytest.mark.parametrize(("shape", "raw", "context"), CONTEXTS)
def test_what_a_price_depends_on_is_read(shape, raw, context):
    assert READERS[shape].context(raw) == context


# Contract of the tables.

EXAMPLES = {shape: [raw for name, raw, *_ in (*CASES, *CONTEXTS) if name == shape] for shape in SHAPES}


def leads(alternative, raw):
    found = walk(raw, (alternative,))
    return any(each is not None for each in found) if isinstance(found, list) else found is not None


@pytest.mark.parametrize("shape", SHAPES)
def test_every_path_leads_to_a_value_of_an_example(shape):
    table = SHAPES[shape]
    paths = {path.lstrip("?") for paths in table.counts.values() for path in paths}
    paths.update(path for path in (table.total, table.beside, *table.context.values()) if path)
    astray = [
        alternative
        for path in paths
        for alternative in compiled(path)
        if not any(leads(alternative, raw) for raw in EXAMPLES[shape])
    ]
    assert not astray


def test_every_place_of_a_stated_cost_leads_to_a_value_of_an_example():
    for place in {each for shape in SHAPES.values() for each in shape.stated}:
        raws = [raw for name, shape in SHAPES.items() if place in shape.stated for raw in EXAMPLES[name]]
        for path in filter(None, (place.path, place.plus, place.plus_if, place.currency)):
            for alternative in compiled(path):
                assert any(leads(alternative, raw) for raw in raws), path


def test_every_shape_has_a_name_of_its_own():
    tables = [each for module in SHAPE_MODULES for each in vars(module).values() if type(each) is shapes.Shape]
    assert len({id(table) for table in tables}) == len({table.name for table in tables}) == len(SHAPES)
    assert all(SHAPES[table.name] is table for table in tables)


SHAPE_MODULES = [shapes.amazon, shapes.anthropic, shapes.google, shapes.openai, shapes.others]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_count_is_a_field_of_the_usage_or_a_unit_of_genai_prices(shape):
    assert {UNIT_OF.get(name, name) for name in SHAPES[shape].counts} <= set(UNITS)
    assert set(SHAPES[shape].requires) <= set(SHAPES[shape].counts)


# Against genai-prices' own extractors.


def parts(source, *names, most=5000):
    """Counts for some of the names, others are 0."""
    return [source.choice((0, source.randint(0, most))) for _ in names]


def some(source, **members):
    """Members of an object, of which an API may leave some out where they are 0 or have a default."""
    return {name: value for name, value in members.items() if value or source.random() < 0.5}


def chat(source, *, beside=False):
    fresh, cached, written, audio = parts(source, "fresh", "cached", "written", "audio")
    told, thought, spoken = parts(source, "told", "thought", "spoken")
    said = told + spoken + (0 if beside else thought)
    prompt = fresh + cached + written + audio
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said + (thought if beside else 0),
        "prompt_tokens_details": some(source, cached_tokens=cached, cache_write_tokens=written, audio_tokens=audio),
        "completion_tokens_details": some(source, reasoning_tokens=thought, audio_tokens=spoken),
    }


def xai(source):
    return chat(source, beside=True)


def perplexity(source):
    prompt, said, cited, extra = parts(source, "prompt", "said", "cited", "extra")
    thought = source.choice((0, said + cited + 1 + extra))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        **some(source, reasoning_tokens=thought, citation_tokens=cited, num_search_queries=source.randint(0, 9)),
    }


def responses(source):
    fresh, cached, written, told, thought = parts(source, *"abcde")
    return {
        "input_tokens": fresh + cached + written,
        "input_tokens_details": some(source, cached_tokens=cached, cache_write_tokens=written),
        "output_tokens": told + thought,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": fresh + cached + written + told + thought,
    }


def anthropic(source):
    fresh, cached, short, long, told, thought, searches = parts(source, *"abcdefg")
    return {
        "input_tokens": fresh,
        "output_tokens": told + thought,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        **some(
            source,
            cache_read_input_tokens=cached,
            cache_creation_input_tokens=short + long,
            output_tokens_details={"thinking_tokens": thought},
            server_tool_use={"web_search_requests": searches},
        ),
    }


def google(source):
    kinds = ("TEXT", "AUDIO", "IMAGE", "VIDEO", "DOCUMENT")
    fresh, cached = parts(source, *kinds), parts(source, *kinds)
    answer = parts(source, *kinds[:3])
    thought, tool = parts(source, "thought", "tool")

    def details(counts):
        return [{"modality": kind, "tokenCount": count} for kind, count in zip(kinds, counts, strict=False) if count]

    prompt = [new + old for new, old in zip(fresh, cached, strict=True)]
    return {
        "promptTokenCount": sum(prompt),
        "promptTokensDetails": details(prompt),
        "candidatesTokenCount": sum(answer),
        **some(
            source,
            cachedContentTokenCount=sum(cached),
            cacheTokensDetails=details(cached),
            candidatesTokensDetails=details(answer),
            thoughtsTokenCount=thought,
            toolUsePromptTokenCount=tool,
        ),
    }


def bedrock(source):
    fresh, cached, short, long, told = parts(source, *"abcde")
    rows = [{"ttl": ttl, "inputTokens": count} for ttl, count in (("5m", short), ("1h", long)) if count]
    source.shuffle(rows)
    return {
        "inputTokens": fresh,
        "outputTokens": told,
        **some(source, cacheReadInputTokens=cached, cacheWriteInputTokens=short + long, cacheDetails=rows),
    }


def cohere(source):
    told, asked = parts(source, "told", "asked")
    return {
        "billed_units": {"input_tokens": float(asked), "output_tokens": float(told)},
        "tokens": {"input_tokens": asked + 500.0, "output_tokens": told + 2.0},
    }


REST = "what remains of the whole is that: a unit of its own would say the same twice"
TOOL = "billed as other input is"
UNHEARD = "no model answers with it"
FLAVOURS = {
    ("openai", "chat"): ("openai.chat", chat, {}),
    ("openai", "responses"): ("openai.responses", responses, {}),
    ("anthropic", "default"): ("anthropic.messages", anthropic, {"cache_write_5m_tokens": REST}),
    ("google", "default"): (
        "google.generate_content",
        google,
        {
            "input_text_tokens": REST,
            "cache_text_read_tokens": REST,
            "output_text_tokens": REST,
            "output_video_tokens": UNHEARD,
            "input_tool_tokens": TOOL,
            "input_text_tool_tokens": TOOL,
            "input_audio_tool_tokens": TOOL,
            "input_image_tool_tokens": TOOL,
            "input_video_tool_tokens": TOOL,
        },
    ),
    ("aws", "default"): ("bedrock.converse", bedrock, {"cache_write_5m_tokens": REST}),
    ("cohere", "default"): ("cohere", cohere, {}),
    ("perplexity", "default"): ("openai.chat", perplexity, {}),
    ("x-ai", "chat"): ("openai.chat", xai, {}),
    ("mistral", "default"): ("openai.chat", chat, {}),
    ("groq", "default"): ("openai.chat", chat, {}),
}
"""Provider and flavour of genai-prices → our shape, usages to compare, and its units that we leave out, with reasons.

Values too differ on purpose, where the usages here never go; see `OTHERWISE`.
"""


def theirs(provider, flavour, raw):
    found = next(each for each in providers if each.id == provider)
    extractor = next(each for each in found.extractors if each.api_flavor == flavour)
    response = raw
    for name in reversed([extractor.root] if isinstance(extractor.root, str) else extractor.root[:1]):
        response = {name: response}
    counts = found.extract_usage({"model": "m", **response}, api_flavor=flavour)[1]
    units = {mapping.dest for mapping in extractor.mappings}
    return {unit: counts.__dict__.get(unit, 0) for unit in units}


def ours(shape, raw):
    usage = READERS[shape].usage(raw)
    counts = {unit: getattr(usage, name) or 0 for name, unit in UNIT_OF.items()}
    return usage.usage_status, {**counts, **(usage.other_usage or {})}


@pytest.mark.parametrize(("provider", "flavour"), [pytest.param(*each, id="-".join(each)) for each in FLAVOURS])
def test_our_tables_agree_with_genai_prices_extractors(provider, flavour):
    shape, make, left_out = FLAVOURS[provider, flavour]
    known = {UNIT_OF.get(name, name) for name in SHAPES[shape].counts}
    source = random.Random(f"{provider} {flavour}")
    for _ in range(200):
        raw = make(source)
        expected = theirs(provider, flavour, raw)
        status, found = ours(shape, raw)
        assert expected.keys() - known == left_out.keys()
        assert {unit: found.get(unit, 0) for unit in expected.keys() & known} == {
            unit: count for unit, count in expected.items() if unit in known
        }, raw
        assert status == "reported", raw


OTHERWISE = {
    "several rows of a modality are summed; theirs takes the first": (
        ("google", "default"),
        camel(
            prompt_token_count=9, candidates_token_count=1, prompt_tokens_details=[("AUDIO", 4), ("AUDIO", 5)]
        ),
        {"input_audio_tokens": (9, 4)},
    ),
    "a compaction is billed; theirs does not see it": (
        ("anthropic", "default"),
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "iterations": [{"type": "compaction", "input_tokens": 10, "output_tokens": 20}],
        },
        {"input_tokens": (11, 1), "output_tokens": (22, 2)},
    ),
    "xAI's total says when reasoning is inside; theirs always adds it": (
        ("x-ai", "chat"),
        {
            "prompt_tokens": 1,
            "completion_tokens": 9,
            "total_tokens": 10,
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        {"output_tokens": (9, 14)},
    ),
    "Perplexity's reasoning that the completion can hold is in it; theirs always adds it": (
        ("perplexity", "default"),
        {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10, "reasoning_tokens": 5},
        {"output_tokens": (9, 14)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", OTHERWISE)
def test_where_we_differ_from_genai_prices_on_purpose(why):
    flavour, raw, different = OTHERWISE[why]
    expected, found = theirs(*flavour, raw), ours(FLAVOURS[flavour][0], raw)[1]
    both = {unit for unit in expected if unit in found}
    assert {unit: (found[unit], expected[unit]) for unit in both if found[unit] != expected[unit]} == different


# From the usage as it is sent to the bill.

BOOK = PriceBook(fixups=False)
AUGUST = datetime(2026, 8, 1, tzinfo=UTC)
CHAT_1M = {"prompt_tokens": 1_000_000, "completion_tokens": 0}


def prompt(count):
    return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}


GOLDEN = [
    ("x_ai", "grok-4.20", "openai.chat", CHAT[9][0], "0.0232856", {}),
    (
        "anthropic",
        "claude-sonnet-4-5",
        "anthropic.messages",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
            "output_tokens": 50,
            "server_tool_use": {"web_search_requests": 2},
        },
        "0.02675",
        {},
    ),
    ("anthropic", "claude-sonnet-4-6", "anthropic.messages", ANTHROPIC[1][0], "0.05090025", {}),
    ("openai", "gpt-4o", "openai.chat", CHAT[0][0], "0.005615", {}),
    (
        "openai",
        "gpt-audio",
        "openai.chat",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "prompt_tokens_details": {"audio_tokens": 800, "text_tokens": 200},
            "completion_tokens_details": {"audio_tokens": 400, "text_tokens": 100},
        },
        "0.0527",
        {},
    ),
    ("openai", "gpt-5.4", "openai.chat", prompt(272_000), "0.68", {}),
    ("openai", "gpt-5.4", "openai.chat", prompt(272_001), "1.360005", {}),
    *(
        ("gcp.gemini", "gemini-2.5-pro", "google.generate_content", spelt(prompt_token_count=count), usd, {})
        for spelt in (camel, typed)
        for count, usd in ((200_000, "0.25"), (200_001, "0.5000025"))
    ),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "1.25", {}),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "0.625", {"context": (("service_tier", "flex"),)}),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "0.625", {"context": (("service_tier", "batch"),)}),
    ("openai", "gpt-5.6-sol", "openai.chat", CHAT_1M, "10", {"at": AUGUST}),
    ("openai", "gpt-5.6-sol", "openai.chat", CHAT_1M, "8", {}),
    ("openai", "gpt-4o-mini", "openai.chat", {"prompt_tokens": 1, "completion_tokens": 1}, "0.00000075", {}),
]


@pytest.mark.parametrize(("provider", "model", "shape", "raw", "usd", "more"), GOLDEN)
def test_from_raw_usage_to_the_golden_amounts(provider, model, shape, raw, usd, more):
    usage = READERS[shape].usage(raw)
    cost = BOOK.price(usage, provider=provider, models=(model,), **{"at": NOW, **more})
    assert Decimal(cost.cost_pusd).scaleb(-12) == Decimal(usd)
    stated = READERS[shape].stated(raw)
    if stated is not None:
        assert stated == cost.cost_pusd  # the provider's own bill


def test_xais_own_bill_is_taken_and_ours_is_beside_it():
    raw = CHAT[9][0]
    cost = BOOK.price(
        READERS["openai.chat"].usage(raw),
        provider="x_ai",
        models=("grok-4.20",),
        at=NOW,
        stated=READERS["openai.chat"].stated(raw),
    )
    assert (cost.cost_pusd, cost.local_cost_pusd, cost.cost_source) == (23_285_600_000, 23_285_600_000, "provider")


# Whatever is sent.

NAMES = sorted({step for shape in SHAPES.values() for paths in shape.counts.values() for path in paths
                for steps in compiled(path.lstrip("?")) for step in steps if isinstance(step, str)})  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2 * 10**9), st.integers(), st.floats(),
    st.sampled_from(["AUDIO", "1h", "compaction", "3", ""]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NAMES, "modality", "type", "ttl"]), inner, max_size=6),
    ),
    max_leaves=20,
)


@given(
    raw=st.one_of(VALUES, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12)),
    shape=st.sampled_from([*SHAPES]),
)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_is_sent_every_count_is_a_whole_number_and_reads_again(raw, shape):
    usage = READERS[shape].usage(raw)
    assert usage.usage_status in {"reported", "partial", "missing", "invalid"}
    counts = [getattr(usage, name) for name in UNIT_OF]
    for count in (*filter(lambda count: count is not None, counts), *(usage.other_usage or {}).values()):
        assert type(count) is int
        assert 0 <= count <= 20 * MOST_OF_A_COUNT
    if isinstance(raw, dict) and usage.usage_status != "missing":
        assert read_again(shape, raw, Usage()) == usage
