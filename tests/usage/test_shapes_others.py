"""The usage objects of Anthropic, Amazon Bedrock, Cohere, Mistral's OCR and LangChain."""

from tests.usage.reading import numbered, reads, used

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
    # A compaction is billed beside the top level; other iterations repeat it, or are of another model at its own price.
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
                {
                    "type": "advisor_message",
                    "model": "claude-opus-4-7",
                    "input_tokens": 7000,
                    "cache_creation_input_tokens": 70,
                    "cache_read_input_tokens": 700,
                    "output_tokens": 8888,
                },
                {
                    "type": "compaction",
                    "input_tokens": 1,
                    "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 3,
                    "output_tokens": 4,
                },
            ],
        },
        used(
            input=60 + 1500 + 6, output=444, cache_read=333, cache_write=222,
            other={"advisor_input_tokens": 7770, "advisor_output_tokens": 8888},
        ),
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
    # Nova's spelling.
    (
        {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokenCount": 300, "cacheWriteInputTokenCount": 700},
        used(input=1010, output=20, cache_read=300, cache_write=700),
    ),
    # Both spellings say the same once.
    (
        {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 300, "cacheReadInputTokenCount": 300,
         "cacheWriteInputTokens": 7, "cacheWriteInputTokenCount": 7},
        used(input=317, output=20, cache_read=300, cache_write=7),
    ),
    ({"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}, used(input=10, output=20)),
    ({"inputTokens": 10, "cacheDetails": {"ttl": "1h"}}, used("partial", input=10)),
    ({"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": "3"}, used("invalid", output=20)),
]  # fmt: skip
CLAUDE_INVOKED = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 700,
    "cache_read_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 500},
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
    "server_tool_use": {"web_search_requests": 1},
    "service_tier": "standard",
    "speed": "standard",
    "inference_geo": "global",
}
CLAUDE_USED = used(
    input=1010, output=20, cache_read=300, cache_write=700, cache_write_long=500, reasoning=5, web_searches=1
)
# Bodies of Bedrock's user guide (inference parameters of the models), and `amazon-bedrock-invocationMetrics`.
INVOKED = [
    (CLAUDE_INVOKED, CLAUDE_USED),
    # Bedrock's metrics contradict the body: the model's own word counts.
    (
        {
            **CLAUDE_INVOKED,
            "inputTokenCount": 91,
            "outputTokenCount": 92,
            "cacheReadInputTokenCount": 93,
            "cacheWriteInputTokenCount": 94,
        },
        CLAUDE_USED,
    ),
    (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 20,
            "inputTokenCount": 10,
            "outputTokenCount": 20,
            "cacheReadInputTokenCount": 93,
        },
        used(input=10, output=20, cache_read=0, cache_write=0),
    ),
    # Only the metrics, which every model has in a stream.
    (
        {"inputTokenCount": 10, "outputTokenCount": 20, "invocationLatency": 1234, "firstByteLatency": 200,
         "cacheReadInputTokenCount": 300, "cacheWriteInputTokenCount": 700},
        used(input=1010, output=20, cache_read=300, cache_write=700),
    ),
    # Nova.
    (
        {"inputTokens": 10, "outputTokens": 20, "totalTokens": 330, "cacheReadInputTokenCount": 300,
         "cacheWriteInputTokenCount": 0},
        used(input=310, output=20, cache_read=300, cache_write=0),
    ),
    (
        {
            "inputTokens": 10,
            "outputTokens": 20,
            "cacheReadInputTokens": 300,
            "cacheWriteInputTokens": 700,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 500}, {"ttl": "5m", "inputTokens": 200}],
        },
        used(input=1010, output=20, cache_read=300, cache_write=700, cache_write_long=500),
    ),
    # Titan: whole, and the last chunk of a stream.
    ({"inputTextTokenCount": 5, "tokenCount": 39}, used(input=5, output=39)),
    ({"inputTextTokenCount": 5, "totalOutputTextTokenCount": 39}, used(input=5, output=39)),
    # Llama; a stream's last chunk has no prompt, but metrics.
    ({"prompt_token_count": 25, "generation_token_count": 7}, used(input=25, output=7)),
    (
        {"generation_token_count": 7, "inputTokenCount": 25, "outputTokenCount": 8},
        used(input=25, output=7),
    ),
    ({"prompt_token_count": 25, "inputTokenCount": 26, "outputTokenCount": 8}, used(input=25, output=8)),
    ({"generation_token_count": 7}, used("partial", output=7)),
    ({"inputTokenCount": "25", "outputTokenCount": 8}, used("invalid", output=8)),
    ({"invocationLatency": 1234}, used("missing")),
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
OTHERS = [
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
    (
        "manual",
        {
            "input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 100, "cache_write_tokens": 200,
            "cache_write_long_tokens": 50, "reasoning_tokens": 150, "input_audio_tokens": 10, "output_audio_tokens": 20,
            "input_image_tokens": 5, "output_image_tokens": 15, "web_searches": 2,
        },
        used(
            input=1000, output=200, cache_read=100, cache_write=200, cache_write_long=50, reasoning=150, input_audio=10,
            output_audio=20, input_image=5, output_image=15, web_searches=2,
        ),
    ),
    ("manual", {"input_tokens": 7}, used(input=7)),
    ("manual", {"input_tokens": -7, "output_tokens": 2}, used("invalid", output=2)),
]  # fmt: skip
COMPACTED = [
    # A stream's first message shows the compaction's writes: the message's own are among the iterations.
    (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
            "output_tokens": 40,
            "iterations": [
                {
                    "type": "compaction",
                    "input_tokens": 100,
                    "cache_creation_input_tokens": 200,
                    "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
                    "output_tokens": 4,
                },
                {
                    "type": "message",
                    "input_tokens": 10,
                    "cache_creation_input_tokens": 20,
                    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
                    "output_tokens": 40,
                },
            ],
        },
        used(input=330, output=44, cache_read=0, cache_write=220, cache_write_long=155),
    ),
]
PLAIN_ANTHROPIC = [case for case in ANTHROPIC if "'message'" not in str(case[0])]
FALLEN_BACK = [
    # Another model answered than the one that was asked and declined.
    (
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "output_tokens": 40,
            "iterations": [
                {
                    "type": "message",
                    "model": "claude-opus-4-7",
                    "input_tokens": 5,
                    "cache_read_input_tokens": 3,
                    "cache_creation_input_tokens": 100,
                    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100},
                    "output_tokens": 2,
                },
                {"type": "fallback_message", "model": "claude-sonnet-4-5", "input_tokens": 10, "output_tokens": 40},
                {
                    "type": "advisor_message",
                    "model": "claude-opus-4-7",
                    "input_tokens": 1,
                    "cache_read_input_tokens": 2,
                    "cache_creation_input_tokens": 3,
                    "output_tokens": 4,
                },
            ],
        },
        used(
            input=10,
            output=40,
            cache_read=0,
            cache_write=0,
            other={
                "advisor_input_tokens": 6,
                "advisor_output_tokens": 4,
                "declined_input_tokens": 108,
                "declined_output_tokens": 2,
            },
        ),
    ),
]
CASES = [
    *(("anthropic.messages", *case) for case in ANTHROPIC),
    *(("anthropic.messages.compacted", *case) for case in (*ANTHROPIC, *COMPACTED)),
    *(("anthropic.messages.fallback", *case) for case in (*PLAIN_ANTHROPIC, *FALLEN_BACK)),
    *(("bedrock.converse", *case) for case in BEDROCK),
    *(("bedrock.invoke", *case) for case in INVOKED),
    *(("bedrock.invoke_embeddings", *case) for case in INVOKED),
    ("bedrock.invoke_embeddings", {"inputTextTokenCount": 7}, used(input=7)),
    *(("cohere", *case) for case in COHERE),
    *OTHERS,
]


@numbered(CASES)
def test_usage_as_the_api_sends_it_is_read_and_stored_usage_to_the_same(shape, raw, usage):
    reads(shape, raw, usage)
