"""`usage_of`: what an answer that the application holds has used, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from spanledger.instrumentation.answer import Answer
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.providers import anthropic, bedrock, google_genai, openai, openai_media
from spanledger.instrumentation.spec import Endpoint
from spanledger.model import UNPRICED, Cost, Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.hosts import provider_named
from spanledger.pricing.offer import context_of
from spanledger.pricing.places import models_of
from spanledger.usage.paths import at_path

_KINDS: Final[tuple[tuple[str, object, str, Endpoint], ...]] = (
    ("object", "chat.completion", "openai", openai.CHAT),
    ("object", "chat.completion.chunk", "openai", openai.CHAT),
    ("object", "text_completion", "openai", openai.COMPLETION),
    ("object", "response", "openai", openai.RESPONSES),
    ("object", "list", "openai", openai.EMBEDDINGS),
    ("type", "message", "anthropic", anthropic.MESSAGES),
    ("usage_metadata|usageMetadata", None, "gcp.gemini", google_genai.GENERATE),
    ("usage.inputTokens", None, "aws.bedrock", bedrock.CONVERSE),
    ("usage.prompt_tokens", None, "openai", openai.CHAT),
    ("usage.input_tokens_details.text_tokens", None, "openai", openai_media.IMAGE),
    ("usage.input_token_details|usage.seconds", None, "openai", openai_media.TRANSCRIPTION),
    ("usage.cache_read_input_tokens", None, "anthropic", anthropic.MESSAGES),
    ("usage.input_tokens", None, "openai", openai.RESPONSES),
)
"""What an answer has at a path (`None`: anything) → whose it is, if nothing else says so, and how it is read. The first
that fits counts."""
_PLANS: Final = tuple((path, wanted, provider, Plan(endpoint)) for path, wanted, provider, endpoint in _KINDS)


class CostBreakdown(NamedTuple):
    """What an answer costs, in USD; its parts sum to `total_cost`. All are `None` where there is no price."""

    prompt_cost: Decimal | None = None
    completion_cost: Decimal | None = None
    cache_read_cost: Decimal | None = None
    cache_write_cost: Decimal | None = None
    reasoning_cost: Decimal | None = None
    web_search_cost: Decimal | None = None
    other_cost: Decimal | None = None
    """Of what has no name here, and a cost that the provider states without parts."""
    total_cost: Decimal | None = None


class ResponseUsage(NamedTuple):
    """What an answer has used: tokens, `None` where the provider did not say, and what that costs."""

    provider: str
    model: str | None
    prompt_tokens: int | None
    """Cache reads and writes included."""
    completion_tokens: int | None
    """Reasoning included."""
    total_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    web_search_count: int | None
    request_count: int
    usage_status: str
    cost_status: str
    cost_breakdown: CostBreakdown
    usage: Usage
    """All of it, as the ledger has it."""


_PARTS: Final = {
    "input": "prompt_cost", "input_audio": "prompt_cost", "input_image": "prompt_cost",
    "cache_read": "cache_read_cost", "cache_read_audio": "cache_read_cost",
    "cache_write": "cache_write_cost", "cache_write_long": "cache_write_cost",
    "output": "completion_cost", "output_audio": "completion_cost", "output_image": "completion_cost",
    "reasoning": "reasoning_cost",
    "web_search": "web_search_cost",
}  # fmt: skip
"""Bucket of a cost → the part it is told in."""


def usage_of(
    response: Any, book: PriceBook | None, *, provider: str | None = None, model: str | None = None
) -> ResponseUsage:
    """The usage of an answer of a model SDK, or of its JSON.

    Raises `TypeError` for what is none.
    """
    known, answer = _read(response)
    provider = provider_named(provider, None) if provider else known
    usage, model = answer.usage(), model or answer.values.get("model")
    stated = answer.plan.reader(answer.raw).stated(answer.raw)
    cost = UNPRICED
    if book is not None:
        cost = book.price(
            usage,
            provider=provider,
            models=models_of(provider, answered=answer.values.get("model"), asked=model),
            at=datetime.now(UTC),
            context=context_of(answer.values.get("service_tier"), answer.context()),
            stated=stated,
        )
    return ResponseUsage(
        provider=provider,
        model=model,
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=_total(usage),
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        web_search_count=usage.web_searches,
        request_count=1,
        usage_status=usage.usage_status,
        cost_status=cost.cost_status,
        cost_breakdown=_breakdown(cost),
        usage=usage,
    )


def _read(response: Any) -> tuple[str, Answer]:
    for path, wanted, provider, plan in _PLANS:
        found = at_path(response, path)
        if found is not None and (wanted is None or found == wanted):
            answer = Answer(plan)
            answer.read(response)
            if answer.raw is not None or path == "object":
                return provider, answer
    kind = "a mapping" if isinstance(response, Mapping) else type(response).__name__
    raise TypeError(
        f"{kind} is no answer with a usage. It may be one of the OpenAI, Anthropic, Google or Bedrock SDK, or its JSON;"
        " of a raw answer pass .parse(), of a stream the final one."
    )


def _total(usage: Usage) -> int | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _breakdown(cost: Cost) -> CostBreakdown:
    if cost.cost_pusd is None:
        return CostBreakdown()
    parts = dict.fromkeys(CostBreakdown._fields, 0)
    for bucket, amount in (cost.cost_breakdown or {}).items():
        parts[_PARTS.get(bucket, "other_cost")] += amount
    parts["total_cost"] = cost.cost_pusd
    return CostBreakdown(**{name: Decimal(pusd).scaleb(-12) for name, pusd in parts.items()})
