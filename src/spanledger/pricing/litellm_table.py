"""Price tables in LiteLLM's JSON format, which a user supplies: one flat map of model → fields, in USD per unit.

A field is a base name, maybe `_above_<N>k_tokens` for calls with more than so much input, and maybe a kind of
processing: `cache_read_input_token_cost_above_272k_tokens_priority`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from operator import itemgetter
from typing import Any, Final

from spanledger.model import PICO_USD
from spanledger.pricing.offer import Offer, Period, Variant
from spanledger.pricing.program import Rate

_BASES: Final = (
    ("input_cost_per_token", "input_tokens", 1),
    ("output_cost_per_token", "output_tokens", 1),
    ("cache_read_input_token_cost", "cache_read_tokens", 1),
    ("cache_creation_input_token_cost", "cache_write_tokens", 1),
    ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_tokens", 1),
    ("cache_creation_input_token_cost_above_12hr", "cache_write_1h_tokens", 1),
    ("output_cost_per_reasoning_token", "output_reasoning_tokens", 1),
    ("input_cost_per_audio_token", "input_audio_tokens", 1),
    ("output_cost_per_audio_token", "output_audio_tokens", 1),
    ("cache_read_input_audio_token_cost", "cache_audio_read_tokens", 1),
    ("cache_read_input_token_cost_per_audio_token", "cache_audio_read_tokens", 1),
    ("input_cost_per_image_token", "input_image_tokens", 1),
    ("output_cost_per_image_token", "output_image_tokens", 1),
    ("input_cost_per_video_token", "input_video_tokens", 1),
    ("input_cost_per_character", "input_characters", 1),
    ("input_cost_per_audio_per_second", "input_audio_seconds", 1),
    ("input_cost_per_second", "input_audio_seconds", 1),
    ("output_cost_per_second", "output_audio_seconds", 1),
    ("input_cost_per_query", "rerank_searches", 1),
    ("search_context_cost_per_query", "web_searches", 1),
    ("file_search_cost_per_1k_calls", "storage_searches", 1000),
    ("code_interpreter_cost_per_session", "code_executions", 1),
    ("ocr_cost_per_page", "input_document_pages", 1),
    ("annotation_cost_per_page", "input_annotated_document_pages", 1),
)
"""(base name, unit of genai-prices, how many units the amount is for). Of two names of one unit the first counts."""

_PROCESSING: Final[Mapping[str, Mapping[str, str]]] = {
    "": {},
    "batches": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
_FACTORS: Final[tuple[tuple[str | None, str, Mapping[str, str]], ...]] = (
    (None, "regional_processing_uplift_multiplier_eu", {"region": "eu"}),
    (None, "regional_processing_uplift_multiplier_us", {"region": "us"}),
    ("provider_specific_entry", "us", {"inference_geo": "us"}),
    ("provider_specific_entry", "fast", {"speed": "fast"}),
)
"""(object inside the entry, field, context): factors on what tokens cost in that context."""

_PROVIDERS: Final = (
    ("gemini|vertex_ai.*", "google"),
    ("bedrock.*", "aws"),
    ("azure|azure_ai|azure_text", "azure"),
    ("fireworks_ai.*", "fireworks"),
    ("together_ai", "together"),
    ("xai", "x-ai"),
    ("voyage", "voyageai"),
    ("moonshot", "moonshotai"),
    ("cohere_chat", "cohere"),
    ("text-completion-openai", "openai"),
)
"""(pattern of `litellm_provider`, genai-prices' id), where the two differ: there is `vertex_ai-anthropic_models`."""

# Tables have spelled both `_flex_above_272k_tokens` and `_above_272k_tokens_flex`.
_PROCESSED: Final = "(?:_(batches|flex|priority))?"
_FIELD: Final = re.compile(rf"(.+?){_PROCESSED}(?:_above_([0-9]{{1,9}})(k?)_tokens)?{_PROCESSED}")
_FROM_THE_FIRST: Final = -1

# A double keeps any decimal of 15 digits, so what stands beyond them in 5.0000000000000004E-8 is noise of a float that
# was printed in full. No traps: text that is no number becomes NaN. Not the thread's context, which is not ours.
_DIGITS: Final = Context(prec=15, rounding=ROUND_HALF_EVEN, traps=[])


def is_litellm(document: Any) -> bool:
    """Whether a decoded JSON document looks like LiteLLM's table, and not like an override file of ours."""
    if not isinstance(document, Mapping) or "version" in document:
        return False
    return any(field == "litellm_provider" or "_cost" in field for _, entry in _entries(document) for field in entry)


def offers_of(document: Mapping[str, Any], name: str) -> dict[tuple[str, str], Offer]:
    """(genai-prices' provider id, model) → offer, for the table in the file of that name.

    `document` is decoded with `parse_float=Decimal`; a float is no amount. What cannot be read is left out field by
    field, as LiteLLM's own table holds odd values, and never raises.
    """
    whole: dict[tuple[str, str], Offer] = {}
    stripped: dict[tuple[str, str], Offer] = {}
    # In the order of their names, which puts `azure/` before `azure_ai/` and does not hang on the file's.
    for key, entry in sorted(_entries(document), key=itemgetter(0)):
        prefix, slash, model = key.partition("/")
        listed = entry.get("litellm_provider")
        provider = _provider_id(listed if isinstance(listed, str) else prefix if slash else "")
        cards = _cards(entry)
        # A table of zeros has no prices: LiteLLM lists 0/0 where it does not know (78 chat models in November 2026).
        if not provider or not any(rate.base or any(dict(rate.tiers).values()) for rate in cards[""].values()):
            continue
        offer = Offer(f"{name} {key}", (Period(cards[""], variants=_variants(entry, cards)),))
        whole[provider, key] = offer
        if model and _provider_id(prefix) == provider:
            stripped.setdefault((provider, model), offer)
    return stripped | whole


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The models of the table. `sample_spec` is the explanation it starts with."""
    return ((key, entry) for key, entry in document.items() if key != "sample_spec" and isinstance(entry, Mapping))


def _provider_id(listed: str) -> str:
    return next((found for pattern, found in _PROVIDERS if re.fullmatch(pattern, listed)), listed)


def _cards(entry: Mapping[str, Any]) -> dict[str, dict[str, Rate]]:
    """Kind of processing → unit → rate."""
    steps: dict[str, dict[str, dict[int, Fraction]]] = {}  # base name → processing → more than so much input → USD
    for field, value in entry.items():
        amount = _amount(value.get("search_context_size_medium") if isinstance(value, Mapping) else value)
        if amount is not None and (found := _FIELD.fullmatch(field)) and not (found[2] and found[5]):
            start = int(found[3]) * (1000 if found[4] else 1) if found[3] else _FROM_THE_FIRST
            steps.setdefault(found[1], {}).setdefault(found[2] or found[5] or "", {})[start] = amount
    cards: dict[str, dict[str, Rate]] = {processing: {} for processing in _PROCESSING}
    for base, unit, divisor in _BASES:
        for processing, amounts in steps.get(base, {}).items():
            tiers = {start: usd * PICO_USD / divisor for start, usd in amounts.items()}
            first = tiers.pop(_FROM_THE_FIRST, None)
            if first is not None:  # on tiers alone, a shorter call would have no price
                cards[processing].setdefault(unit, Rate(first, tuple(sorted(tiers.items()))))
    return cards


def _variants(entry: Mapping[str, Any], cards: Mapping[str, Mapping[str, Rate]]) -> tuple[Variant, ...]:
    """The other cards, and every card times each factor and times those that go together with it."""
    found = [Variant(when, cards[processing]) for processing, when in _PROCESSING.items() if cards[processing]]
    for place, field, when in _FACTORS:
        holder = entry if place is None else entry.get(place)
        factor = _amount(holder.get(field)) if isinstance(holder, Mapping) else None
        if factor:
            others = [variant for variant in found if not variant.when.keys() & when.keys()]
            found += [Variant({**other.when, **when}, _scaled(other.rates, factor)) for other in others]
    return tuple(variant for variant in found if variant.when and variant.rates)


def _scaled(rates: Mapping[str, Rate], factor: Fraction) -> dict[str, Rate]:
    """What tokens cost, times the factor."""
    return {
        unit: Rate(rate.base * factor, tuple((start, above * factor) for start, above in rate.tiers))
        for unit, rate in rates.items()
        if unit.endswith("_tokens")
    }


def _amount(value: Any) -> Fraction | None:
    """USD, or a factor, to 15 digits; `None` for what cannot be one: negative, not finite, absurdly large or small."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        return None
    amount = _DIGITS.create_decimal(value)
    return Fraction(amount) if amount.is_finite() and amount >= 0 and abs(amount.adjusted()) <= 30 else None
