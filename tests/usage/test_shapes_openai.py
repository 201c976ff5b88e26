"""OpenAI's usage objects, and those of everybody who speaks its APIs."""

from openai.types import CompletionUsage, create_embedding_response, images_response
from openai.types.audio import transcription
from openai.types.realtime import RealtimeResponseUsage
from openai.types.responses import ResponseUsage
from tests.usage.reading import numbered, reads, used

from spanledger.model import MOST_OF_A_COUNT

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
]  # fmt: skip
# Usage objects of openai.types.audio (`SpeechAudioDoneEvent`'s of the API specification for speech).
MEDIA = [
    *(
        ("openai.duration", {"type": "duration", "seconds": seconds}, used(other={"input_audio_seconds": whole}))
        for seconds, whole in ((8, 8), (8.47, 8), (8.5, 9), (8.51, 9), (8.0, 8), (0.5, 1), (3600.499, 3600))
    ),
    *(
        ("openai.duration", {"type": "duration", "seconds": odd}, used("invalid"))
        for odd in (-1, -0.6, "8.47", True, float("inf"), 2e9, [8])
    ),
    # Only seconds are rounded: half a token is none.
    ("openai.speech", {"input_tokens": 14.5, "output_tokens": 101}, used("invalid", output=101)),
    ("openai.speech", {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}, used(input=14, output=101)),
    ("openai.speech", {"input_tokens": 14}, used(input=14)),
    ("openai.speech", {}, used("missing")),
    ("openai.pictures", {}, used("missing")),
    ("openai.pictures", None, used("missing")),
    ("openai.moderation", {}, used("missing")),
    ("openai.moderation", None, used("missing")),
]
CASES = [
    *(("openai.chat", *case) for case in CHAT),
    *(("openai.responses", *case) for case in RESPONSES),
    *(("openai.realtime", *case) for case in REALTIME),
    *OTHERS,
    *MEDIA,
]


@numbered(CASES)
def test_usage_as_the_api_sends_it_is_read_and_stored_usage_to_the_same(shape, raw, usage):
    reads(shape, raw, usage)
