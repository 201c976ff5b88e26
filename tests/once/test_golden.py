"""Golden spans: what each release of each tracing really writes, and the one record that comes of each call."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spanledger.reading.dialects import dialect_of
from spanledger.reading.reader import read
from spanledger.recording.settling import Settling

GOLDEN = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted(Path(__file__).with_name("golden").glob("*.json"))
}
CALLS = [(stack, call) for stack, golden in GOLDEN.items() for call in golden["calls"]]

NO_CACHE = "leaves the tokens of the cache out, and says nothing of them"
UNREAD = "does not read the usage of this stream"
LIMITS = {
    ("anthropic-logfire-4.10", "message_stream"): (None, None, "missing", UNREAD),
    ("anthropic-openinference-0.1.18", "message_stream"): (176, 340, "reported", NO_CACHE),
    ("anthropic-openlit-1.33", "message"): (176, 340, "partial", NO_CACHE),
    ("anthropic-openlit-1.33", "message_stream"): (176, 340, "estimated", NO_CACHE),
    ("anthropic-openlit-1.35", "message"): (176, 340, "partial", NO_CACHE),
    ("anthropic-openlit-1.35", "message_stream"): (176, 340, "estimated", NO_CACHE),
    ("anthropic-openllmetry-0.30", "message"): (5, 10, "reported", "counts the words itself"),
    ("anthropic-openllmetry-0.30", "message_stream"): (None, None, "missing", UNREAD),
    ("anthropic-openllmetry-0.30-enriched", "message"): (5, 10, "reported", "counts the words itself"),
    ("anthropic-openllmetry-0.30-enriched", "message_stream"): (5, 11, "estimated", "counts the words itself"),
    ("anthropic-openllmetry-0.47", "message_stream"): (None, None, "missing", UNREAD),
    ("anthropic-openllmetry-0.47-enriched", "message_stream"): (7176, 341, "estimated", "adds the start's placeholder"),
    ("anthropic-pydantic_ai-0.8", "message_stream"): (14352, 341, "reported", "adds the counts of two events"),
    ("bedrock-botocore-0.58", "converse"): (176, 340, "reported", NO_CACHE),
    ("bedrock-botocore-0.58", "converse_stream"): (176, 340, "reported", NO_CACHE),
    ("bedrock-botocore-official", "invoke_model"): (7176, 340, "reported", ""),
    ("bedrock-botocore", "invoke_model"): (176, 340, "partial", NO_CACHE),
    ("bedrock-botocore", "invoke_model_stream"): (176, 340, "partial", NO_CACHE),
    ("bedrock-openllmetry", "invoke_model_stream"): (176, 340, "reported", NO_CACHE),
    ("google-official", "generate"): (1200, 340, "reported", "leaves out what the prompts of tools take"),
    ("google-official", "generate_stream"): (1200, 340, "reported", "leaves out what the prompts of tools take"),
    ("google-openinference", "embed"): (None, None, "missing", "does not read the usage of embeddings"),
    ("google-openllmetry", "generate"): (
        1200,
        400,
        "estimated",
        "has no thoughts, only a total with tool prompts in it",
    ),
    ("google-openllmetry", "generate_stream"): (1200, 400, "estimated", "as above"),
    ("openai-openlit-1.33", "chat_stream_unstated"): (12, 23, "estimated", "counts the words itself"),
    ("openai-openlit-1.35", "chat_stream"): (12, 23, "estimated", "counts the words itself"),
    ("openai-openllmetry-0.30", "chat_stream"): (None, None, "missing", UNREAD),
}
"""What a release gets wrong by itself: the counts it gives, how they are marked, and why."""
UNTOLD = {("google-openllmetry", "embed")}
"""Calls that a release makes no span of."""


def as_span(written):
    """A finished span, as far as the reader looks at one."""
    parent = written["parent_span_id"]
    attributes = written["attributes"]
    return SimpleNamespace(
        name=written["name"],
        attributes={name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()},
        instrumentation_scope=SimpleNamespace(name=written["scope"], version=written["scope_version"]),
        context=SimpleNamespace(trace_id=int(written["trace_id"], 16), span_id=int(written["span_id"], 16)),
        parent=None if parent is None else SimpleNamespace(span_id=int(parent, 16)),
        start_time=written["start_time"],
        end_time=written["end_time"],
        status=SimpleNamespace(status_code=SimpleNamespace(name=written["status"])),
        events=(),
    )


def records_of(stack, call):
    """What becomes of the spans of a call, in the order in which they ended."""
    settling = Settling(lambda: True, lambda: 0.0)
    for written in GOLDEN[stack]["calls"][call]["spans"]:
        span = as_span(written)
        dialect = dialect_of(written["scope"])
        word = None if dialect is None else dialect.word(span.name, span.attributes)
        telling = read(span, dialect) if word is not None and word in dialect.operations else None
        if telling is not None:
            settling.admit(telling)
    return settling.due(all_of_them=True)


def truth(stack, call):
    """The provider's own usage in its one answer, under our names."""
    (answer,) = GOLDEN[stack]["calls"][call]["truth"]
    usage = answer["usage"]

    def first(*paths):
        for path in paths:
            value = usage
            for step in path.split("."):
                value = value.get(step) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None

    cached = first("cache_read_input_tokens", "cacheReadInputTokens")
    written = first("cache_creation_input_tokens", "cacheWriteInputTokens")
    given = first("prompt_tokens", "input_tokens", "inputTokens", "promptTokenCount")
    given += (cached or 0) + (written or 0) + (first("toolUsePromptTokenCount") or 0)
    answered = first("completion_tokens", "output_tokens", "outputTokens", "candidatesTokenCount")
    if answered is not None:
        answered += first("thoughtsTokenCount") or 0
    details = ("prompt_tokens_details", "input_tokens_details"), ("completion_tokens_details", "output_tokens_details")
    return {
        "input_tokens": given,
        "output_tokens": answered,
        "cache_read_tokens": first("cachedContentTokenCount", *(f"{each}.cached_tokens" for each in details[0]))
        if cached is None
        else cached,
        "cache_write_tokens": first(*(f"{each}.cache_write_tokens" for each in details[0]))
        if written is None
        else written,
        "reasoning_tokens": first(
            "thoughtsTokenCount",
            *(f"{each}.reasoning_tokens" for each in details[1]),
            "output_tokens_details.thinking_tokens",
        ),
    }


@pytest.mark.parametrize(("stack", "call"), CALLS)
def test_the_spans_of_a_call_become_one_record_with_the_providers_counts(stack, call):
    records = records_of(stack, call)
    if (stack, call) in UNTOLD:
        assert records == []
        return
    (record,) = records
    usage, wanted = record.usage, truth(stack, call)
    given, answered, status, _ = LIMITS.get((stack, call), (wanted["input_tokens"], wanted["output_tokens"], None, ""))
    if "no_usage" in call:
        given, answered, status = None, None, "missing"
    assert (usage.input_tokens, usage.output_tokens or None) == (given, answered)
    assert usage.usage_status == (status or "reported")
    if status in (None, "reported") and (stack, call) not in LIMITS:  # the parts: right, or not told at all
        for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            assert getattr(usage, name) in (None, wanted[name] or 0), name


@pytest.mark.parametrize(("stack", "call"), CALLS)
def test_a_call_has_its_providers_name_and_model(stack, call):
    for record in records_of(stack, call):
        wanted = {"openai": "openai", "anthropic": "anthropic", "bedrock": "aws.bedrock", "google": "gcp."}
        sdk = next((name for name in wanted if name in stack.split("-")[0] or name in stack), "openai")
        assert record.provider.startswith(wanted["openai" if stack.startswith(("langchain", "litellm")) else sdk])
        assert record.model


def test_every_dialect_has_golden_spans():
    seen = {
        dialect.name
        for golden in GOLDEN.values()
        for call in golden["calls"].values()
        for span in call["spans"]
        if (dialect := dialect_of(span["scope"])) is not None
    }
    from spanledger.reading.dialects import DIALECTS

    assert seen == {dialect.name for dialect in DIALECTS}
