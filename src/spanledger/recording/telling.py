"""What one teller says of one call, whether two tell of the same call, and what they say together.

A teller is whoever makes spans or records of model calls: our wrapper, an SDK itself, an instrumentation, a gateway, a
framework. Two tellings are only ever of one call if they are by different tellers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple

from spanledger.conventions import CHAT, EMBEDDINGS, TEXT_COMPLETION
from spanledger.model import ATTRIBUTION_KEYS, NOBODY, Attribution, Cost, Usage, UsageRecord
from spanledger.recording.bracket import Bracket, Heard

_MOST_METADATA: Final = 16


class Rank(IntEnum):
    """Whose numbers are taken where two tellers differ: the nearer to the wire, the higher."""

    MANUAL = 0
    FRAMEWORK = 1
    GATEWAY = 2
    SDK_LEVEL = 3
    SDK_NATIVE = 4
    OURS = 5


@dataclass(frozen=True, slots=True)
class Telling:
    """A record with what it takes to see whether somebody else has told of the same call."""

    record: UsageRecord
    rank: Rank = Rank.OURS
    within: str | None = None
    """Span id (hex) of the nearest model span around it, as the process has seen it."""
    final: bool = True
    """False for a call whose answer is still to come, in another telling: it is kept at once and counted later."""
    bracket: Bracket | None = None
    """What the call is reported in by hand."""


class Facts(NamedTuple):
    """What is compared; small, because it outlives its record."""

    provider: str
    models: frozenset[str]
    response_id: str | None
    trace_id: str | None
    span_id: str | None
    within: str | None
    started_at: datetime
    ended_at: datetime
    usage: Usage
    failed: bool
    by_hand: bool
    operation: str
    cost_pusd: int | None


def facts_heard(heard: Heard, around: Facts) -> Facts:
    """The facts of a call that has ended in a bracket, at the time and place of a report of it."""
    return around._replace(
        provider=heard.provider,
        models=bare_models(*heard.models),
        usage=heard.usage,
        failed=heard.failed,
        by_hand=False,
    )


def facts_of(telling: Telling) -> Facts:
    """The facts of a telling."""
    record = telling.record
    return Facts(
        provider=record.provider,
        models=bare_models(record.request_model, record.response_model),
        response_id=record.response_id,
        trace_id=record.trace_id,
        span_id=record.span_id,
        within=telling.within or record.parent_span_id,
        started_at=record.started_at,
        ended_at=record.started_at + timedelta(microseconds=(record.duration_ns or 0) // 1000),
        usage=record.usage,
        failed=record.status == "error",
        by_hand=telling.rank is Rank.MANUAL,
        operation=record.operation,
        cost_pusd=None if record.cost is None else record.cost.cost_pusd,
    )


# The same call?

_SPEAKS: Final = {
    "anthropic": frozenset({"anthropic"}),
    "aws.bedrock": frozenset({"anthropic"}),
    "azure.ai.inference": frozenset({"openai", "anthropic", "azure.ai.openai"}),
    "gcp.gemini": frozenset({"gcp.gen_ai"}),
    "gcp.gen_ai": frozenset({"gcp.gemini", "gcp.vertex_ai"}),
    "gcp.vertex_ai": frozenset({"gcp.gemini", "gcp.gen_ai", "anthropic"}),
}
"""Provider → whose SDKs it is reached with: a teller that only knows the SDK names the provider by it.

Every other provider is reached with OpenAI's, and a gateway stands for any (opentelemetry-instrumentation-genai-*
1.3b0)."""
_OPENAI: Final = frozenset({"openai"})
_ANY: Final = frozenset({"litellm", "langchain", "openrouter", "portkey", "unknown", "_other"})
_HOST_PREFIX: Final = re.compile(
    r"^(?:[a-z]{2,6}(?:-[a-z]+)?\.)?(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek)\."
)
_VERSION: Final = re.compile(r"^(?:-latest|-preview|[-@:]v?\d.*)$")


def same_provider(one: str, other: str) -> bool:
    """Whether two provider names may stand for one provider."""
    if one == other or one in _ANY or other in _ANY:
        return True
    return one in _SPEAKS.get(other, _OPENAI) or other in _SPEAKS.get(one, _OPENAI)


def stands_for(name: str, provider: str) -> bool:
    """Whether a name may stand for a provider: its own, that of the SDK it is reached with, or a gateway's."""
    return name == provider or name in _ANY or name in _SPEAKS.get(provider, _OPENAI)


def same_model(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether some name of one may be some name of the other: with its version or without. Unknown fits any."""
    if not one or not other:
        return True
    return any(_versions(a, b) or _versions(b, a) for a in one for b in other)


def _versions(short: str, full: str) -> bool:
    return full == short or (full.startswith(short) and _VERSION.match(full[len(short) :]) is not None)


def bare_models(*models: str | None) -> frozenset[str]:
    """Models without the names of those they are reached through: `models/`, `openai/`, `us.anthropic.`."""
    return frozenset(_HOST_PREFIX.sub("", model.lower().rpartition("/")[2]) for model in models if model)


def same_counts(one: Usage, other: Usage) -> bool:
    """Whether two usages may be of one call: equal where both know, or different in a way tellers are known for."""
    if one.usage_status != "reported" or other.usage_status != "reported":
        return True
    cached = {0, *_sums(one.cache_read_tokens, one.cache_write_tokens)}
    cached |= _sums(other.cache_read_tokens, other.cache_write_tokens)
    thought = {one.reasoning_tokens or 0, other.reasoning_tokens or 0}
    return _close(one.input_tokens, other.input_tokens, cached, 0) and _close(
        one.output_tokens, other.output_tokens, thought, _PLACEHOLDER
    )


ROWS: Final = "rows"
"""In a usage object: what was reported in the words of the usage API, which it is told in."""
TOOL: Final = "execute_tool"
"""The operation of a report of something that is no model's."""
_SPOKEN: Final = frozenset({CHAT, TEXT_COMPLETION, EMBEDDINGS})
"""Operations that are reported by their tokens."""
_PLACEHOLDER: Final = 8
"""OpenLLMetry adds the placeholder of an Anthropic stream's start, 1 to 8 tokens, to its output."""


def _sums(read: int | None, written: int | None) -> set[int]:
    return {read or 0, written or 0, (read or 0) + (written or 0)}


def _close(one: int | None, other: int | None, left_out: Iterable[int], slack: int) -> bool:
    if one is None or other is None:
        return True
    difference = abs(one - other)
    return difference <= slack or difference in left_out


def _is_thing(call: Facts) -> bool:
    """Whether a call made a picture, a sound or the like, of which nobody counts tokens."""
    writes = call.usage.output_tokens and not call.usage.output_image_tokens
    return not (call.failed or call.by_hand or writes or call.operation in _SPOKEN)


def _alike(stated: int | None, ours: int | None) -> bool:
    """Whether a stated cost may be that of a call that we price: at most twice ours, and at least half."""
    return stated is not None and ours is not None and stated <= 2 * ours and ours <= 2 * stated


def same_request(one: Facts, other: Facts) -> bool:
    """Whether nothing but the counts speaks against two tellings being of one call."""
    if one.response_id and other.response_id and one.response_id != other.response_id:
        return False
    return same_provider(one.provider, other.provider) and same_model(one.models, other.models)


def nested(one: Facts, other: Facts) -> bool:
    """Whether one span is the nearest model span around the other."""
    return _inside(one, other) or _inside(other, one)


def _inside(one: Facts, other: Facts) -> bool:
    return (
        one.within is not None
        and one.trace_id is not None
        and (one.trace_id, one.within)
        == (
            other.trace_id,
            other.span_id,
        )
    )


def contradict(one: Facts, other: Facts) -> bool:
    """Whether two tellings can't be of one call. What stands inside another may be a part of what that sums up."""
    return not same_request(one, other) or not (nested(one, other) or same_counts(one.usage, other.usage))


def overlap(one: Facts, other: Facts) -> bool:
    """Whether two calls were under way at the same time."""
    return one.started_at <= other.ended_at and other.started_at <= one.ended_at


def encloses(one: Facts, other: Facts) -> bool:
    """Whether one was under way all the time the other was; clocks of two spans may differ by a little."""
    return one.started_at - _JITTER <= other.started_at and other.ended_at <= one.ended_at + _JITTER


_JITTER: Final = timedelta(milliseconds=20)


def may_be_of(report: Facts, call: Facts) -> bool:
    """Whether a report by hand may be of a call, though its counts are others."""
    if TOOL in (report.operation, call.operation):
        return False
    if call.failed or not (stands_for(report.provider, call.provider) or call.provider in _ANY):
        return False
    writes = call.usage.output_tokens is not None or not report.usage.output_tokens
    return writes and same_model(report.models, call.models)


def reports(report: Facts, call: Facts) -> bool:
    """Whether what was reported by hand is the usage of a call: equal, as far as it was said and the call knows it."""
    if report.operation == TOOL:  # a picture, say, with a cost of its own and tokens that nobody counted
        return _is_thing(call) and _alike(report.cost_pusd, call.cost_pusd)
    if call.failed or not (stands_for(report.provider, call.provider) or call.provider in _ANY):
        return False
    said, known = report.usage, call.usage
    lacks = known.usage_status == "missing" or (said.input_tokens, said.output_tokens) == (None, None)
    if (report.provider not in _ANY or lacks) and not same_model(report.models, call.models):
        return False
    if lacks:
        return True
    cached = _sums(known.cache_read_tokens, known.cache_write_tokens)
    return (said.input_tokens is None or _close(said.input_tokens, known.input_tokens or 0, cached, 0)) and (
        said.output_tokens is None
        or _close(said.output_tokens, known.output_tokens or 0, {0, known.reasoning_tokens or 0}, 0)
    )


# What they say together.

_BETTER: Final = ("missing", "invalid", "estimated", "partial", "reported")
_INPUT_PARTS: Final = (
    "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens", "input_audio_tokens", "input_image_tokens",
)  # fmt: skip
_OUTPUT_PARTS: Final = ("reasoning_tokens", "output_audio_tokens", "output_image_tokens")
_FILLED: Final = (
    "response_id", "duration_ns", "time_to_first_chunk_ns", "request_model", "response_model", "server_address",
    "attempts", "finish_reasons", "service_tier", "conversation_id", "price_context", "claimed_cost_pusd",
)  # fmt: skip
_PRICED_BY: Final = {"service_tier", "price_context"}
_PLACE: Final = ("trace_id", "span_id", "parent_span_id")


def merged(tellings: Sequence[Telling], reason: str) -> UsageRecord:
    """One record of several tellings of a call, the same in whatever order they came, but for its id: the first one's.

    Nothing is ever added. The highest rank is the record, the others fill in what it lacks, and the numbers are those
    of the highest rank that knows them best. The price is open where the usage is another than it was priced for.
    """
    ranked = sorted(tellings, key=lambda each: (-each.rank, each.record.source))
    records = [each.record for each in ranked]
    first = records[0]
    filled = {
        name: value
        for name in _FILLED
        if getattr(first, name) is None
        and (value := next((got for each in records[1:] if (got := getattr(each, name)) is not None), None)) is not None
    }
    if first.provider == "unknown":
        filled["provider"] = next((each.provider for each in records if each.provider != "unknown"), "unknown")
    if first.status == "error" and first.error_type is None:
        filled["error_type"] = next((each.error_type for each in records if each.error_type is not None), None)
    if first.span_id is None:
        place = next((each for each in records if each.span_id is not None), first)
        filled.update({name: getattr(place, name) for name in _PLACE})
    rich = max(ranked, key=_knows).record
    usage = rich.usage
    for other in records:
        usage = _completed(usage, other.usage)
    priced = first.cost
    if priced is not None and priced.cost_source != "provider":
        stands = priced.cost_status in ("priced", "free") and usage == first.usage and not filled.keys() & _PRICED_BY
        priced = priced if stands else None
    by_hand = next((cost for each in records[1:] if (cost := each.cost) and cost.cost_source == "manual"), None)
    unpriced = priced is not None and priced.cost_pusd is None
    if by_hand is not None and (unpriced or by_hand.cost_status != "partial"):  # `partial`: of one part of it only
        priced = _beside(by_hand, priced)
    attribution = first.attribution
    for other in records[1:]:
        attribution = _together(attribution, other.attribution)
    label = next((found for each in reversed(ranked) if each.rank is Rank.MANUAL and (found := _label(each))), None)
    if label is not None:
        attribution = attribution._replace(metadata={**(attribution.metadata or {}), "label": label})
    said = next((each.record for each in ranked if each.rank is Rank.MANUAL and each.record.operation == TOOL), None)
    raw = said or (rich if rich.raw_usage else first)
    words = next(
        (each.record.raw_usage for each in ranked if each.record.raw_usage and ROWS in each.record.raw_usage), {}
    )
    return replace(
        first,
        **filled,
        record_id=tellings[0].record.record_id,
        usage=usage,
        raw_usage=raw.raw_usage and {**raw.raw_usage, **{name: words[name] for name in (ROWS,) if name in words}},
        usage_shape=raw.usage_shape,
        cost=priced,
        stream=any(each.stream for each in records),
        attribution=attribution,
        told_by=tuple(each.record.source for each in tellings),
        merged_by=reason,
    )


def _knows(telling: Telling) -> tuple[bool, int, int]:
    """How good its numbers are. Whoever sees the answer itself is believed before all others: what others report of a
    stream that was broken off is a placeholder."""  # noqa: D205, D209
    status = telling.record.usage.usage_status
    sees = telling.rank >= Rank.SDK_NATIVE and status in ("reported", "partial")
    return sees, telling.rank if sees else _BETTER.index(status), telling.rank


def _completed(usage: Usage, other: Usage) -> Usage:
    """A usage with the parts that only the other knows, where both agree on the whole."""
    names = [name for name in ("web_searches", "other_usage") if getattr(usage, name) is None]
    for whole, parts in (("input_tokens", _INPUT_PARTS), ("output_tokens", _OUTPUT_PARTS)):
        if getattr(usage, whole) is not None and getattr(usage, whole) == getattr(other, whole):
            names += [name for name in parts if getattr(usage, name) is None]
    if "invalid" in (usage.usage_status, other.usage_status):
        return usage
    known = {name: value for name in names if (value := getattr(other, name)) is not None}
    return replace(usage, **known) if known else usage


def _label(report: Telling) -> Any:
    """The label of a report; that of the scope around a call may be an earlier one."""
    return (report.record.attribution.metadata or {}).get("label")


def _beside(by_hand: Cost, ours: Cost | None) -> Cost:
    """The cost that the application states, with ours beside it: it knows of its contract."""
    if ours is None or ours.cost_pusd is None:
        return by_hand
    local = ours.local_cost_pusd if ours.cost_source == "provider" else ours.cost_pusd
    return by_hand._replace(price_basis=ours.price_basis, local_cost_pusd=local)


def _together(first: Attribution, second: Attribution) -> Attribution:
    if second == first or second is NOBODY:
        return first
    if first is NOBODY:
        return second
    keys = {
        name: value
        for name in ATTRIBUTION_KEYS
        if getattr(first, name) is None and (value := getattr(second, name)) is not None
    }
    metadata = dict(first.metadata or {})
    for name, value in (second.metadata or {}).items():
        if len(metadata) < _MOST_METADATA:
            metadata.setdefault(name, value)
    source = second.attribution_source if "user_id" in keys or first.attribution_source is None else None
    return first._replace(**keys, metadata=metadata or None, attribution_source=source or first.attribution_source)


assert {each.name for each in fields(Usage)} >= {*_INPUT_PARTS, *_OUTPUT_PARTS}  # noqa: S101  # names checked at import
