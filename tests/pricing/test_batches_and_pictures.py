"""What batches cost, and what is billed by pictures, seconds and characters. Amounts by hand, in pico-USD."""

from datetime import UTC, datetime

import pytest
from genai_prices.data import providers

from spanledger.model import Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.offer import context_of

BOOK = PriceBook()
NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)
BEFORE = datetime(2026, 10, 13, 23, 59, tzinfo=UTC)
"""A minute before genai-prices' first price of a batch starts."""
MEGA = 10**6
GIGA = 10**9
HALVED = {"batch": "0.5"}
TEXT = {"input_tokens": 1000, "output_tokens": 100}
CLAUDE = {
    "input_tokens": 3100,
    "cache_read_tokens": 2000,
    "cache_write_tokens": 1000,
    "cache_write_long_tokens": 600,
    "output_tokens": 50,
    "web_searches": 2,
}
CLAUDE_BATCH = {  # 100, 2000, 400 and 600 of input and 50 of output, at half of 3, 0.3, 3.75, 6 and 15 USD; 10 USD/1000
    "input": 150 * MEGA,
    "cache_read": 300 * MEGA,
    "cache_write": 750 * MEGA,
    "cache_write_long": 1800 * MEGA,
    "output": 375 * MEGA,
    "web_search": 20 * GIGA,
}


def price(provider, model, counts, at=NOW, book=BOOK, **context):
    known = {name: count for name, count in counts.items() if name in Usage.__dataclass_fields__}
    other = {name: count for name, count in counts.items() if name not in known} or None
    usage = Usage(usage_status="reported", other_usage=other, **known)
    told = context_of(context.pop("tier", None), context)
    return book.price(usage, provider=provider, models=(model,), at=at, context=told)


def batch(*args, **context):
    return price(*args, tier="batch", **context)


@pytest.mark.parametrize(
    ("provider", "model", "at", "counts", "breakdown", "multipliers"),
    [
        # 2.5 and 10 USD: genai-prices has half of them from 2026-10-14 on, before that it is our multiplier.
        ("openai", "gpt-4o", NOW, TEXT, {"input": 1250 * MEGA, "output": 500 * MEGA}, None),
        ("openai", "gpt-4o", BEFORE, TEXT, {"input": 1250 * MEGA, "output": 500 * MEGA}, HALVED),
        # 1920 of 2006 cached, at half of 1.25 USD.
        (
            "openai",
            "gpt-4o",
            BEFORE,
            {"input_tokens": 2006, "cache_read_tokens": 1920, "output_tokens": 300},
            {"input": 107_500_000, "cache_read": 1200 * MEGA, "output": 1500 * MEGA},
            HALVED,
        ),
        # genai-prices has all of it: 0.625, 0.0625 and 5 USD.
        *(
            (
                "openai",
                "gpt-5",
                at,
                {"input_tokens": 2006, "cache_read_tokens": 1920, "output_tokens": 300},
                {"input": 53_750_000, "cache_read": 120 * MEGA, "output": 1500 * MEGA},
                multipliers,
            )
            for at, multipliers in ((NOW, None), (BEFORE, HALVED))
        ),
        # It has nothing: 2.5 and 10 USD.
        ("openai", "gpt-4o-search-preview", NOW, TEXT, {"input": 1250 * MEGA, "output": 500 * MEGA}, HALVED),
        ("openai", "text-embedding-3-small", NOW, {"input_tokens": MEGA}, {"input": 10 * GIGA}, HALVED),
        # Searches cost the same in a batch.
        (
            "openai",
            "o3-deep-research",
            NOW,
            {**TEXT, "web_searches": 2},
            {"input": 5 * GIGA, "output": 2 * GIGA, "web_search": 20 * GIGA},
            HALVED,
        ),
        ("anthropic", "claude-sonnet-4-5", NOW, CLAUDE, CLAUDE_BATCH, None),
        ("anthropic", "claude-sonnet-4-5", BEFORE, CLAUDE, CLAUDE_BATCH, HALVED),
        (
            "anthropic",
            "claude-sonnet-4-0",
            NOW,
            CLAUDE,
            CLAUDE_BATCH,
            HALVED,
        ),
    ],
)
def test_a_batch_costs_half_once_and_its_searches_cost_the_same(provider, model, at, counts, breakdown, multipliers):
    cost = batch(provider, model, counts, at=at)
    assert (cost.cost_status, cost.cost_breakdown, cost.price_multipliers) == ("priced", breakdown, multipliers)
    assert cost.cost_pusd == sum(breakdown.values())


def variants():
    """Models of which genai-prices says what a batch costs."""
    return [
        (provider.id, model.id)
        for provider in providers
        if provider.id in ("openai", "anthropic")
        for model in provider.models
        if any(each.when == {"processing": "batch"} for each in model.price_variants or ())
    ]


def test_no_model_with_a_batch_price_of_its_own_is_halved_again():
    alone = PriceBook(fixups=False)
    compared = 0
    for provider, model in variants():
        cost, theirs = (batch(provider, model, TEXT, book=book) for book in (BOOK, alone))
        if theirs.cost_pusd is not None:
            assert (cost.cost_pusd, cost.cost_status, cost.price_multipliers) == (theirs.cost_pusd, "priced", None), (
                model
            )
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_model_without_a_batch_price_of_its_own_is_halved(provider):
    whole = next(each for each in providers if each.id == provider)
    compared = 0
    for model in whole.models:
        once, halved = (price(provider, model.id, TEXT, tier=tier) for tier in (None, "batch"))
        if once.cost_pusd and (provider, model.id) not in variants():
            assert (halved.cost_pusd * 2, halved.price_multipliers) == (once.cost_pusd, HALVED), model.id
            compared += 1
    assert compared > 5


def test_without_our_corrections_a_batch_that_no_list_prices_is_partial_at_the_whole_price():
    cost = batch("openai", "gpt-4o-search-preview", TEXT, book=PriceBook(fixups=False))
    assert (cost.cost_pusd, cost.cost_status, cost.price_multipliers) == (3500 * MEGA, "partial", None)


def test_a_batch_in_the_us_is_halved_and_costs_a_tenth_more():
    told = {"inference_geo": "us"}
    own, ours = (batch("anthropic", model, TEXT, **told) for model in ("claude-sonnet-4-5", "claude-sonnet-4-0"))
    assert own.cost_pusd == ours.cost_pusd == 2_475 * MEGA  # (3000 + 1500) / 2, and a tenth more
    assert own.price_multipliers == {"inference_geo=us": "1.1"}
    assert ours.price_multipliers == {"batch": "0.5", "inference_geo=us": "1.1"}


def test_other_providers_batches_are_not_halved_by_our_rule():
    assert batch("mistral", "mistral-large-2512", TEXT).price_multipliers is None


HD = {"image_quality": "hd"}
PICTURES = [
    ("openai", "dall-e-3", 1, {}, 40),
    ("openai", "dall-e-3", 2, {"image_quality": "standard", "image_size": "1024x1024"}, 80),
    ("openai", "dall-e-3", 2, HD, 160),
    ("openai", "dall-e-3", 2, {"image_size": "1792x1024"}, 160),
    ("openai", "dall-e-3", 2, {"image_size": "1024x1792", "image_quality": "standard"}, 160),
    ("openai", "dall-e-3", 2, {**HD, "image_size": "1792x1024"}, 240),
    ("openai", "dall-e-3", 1, {**HD, "image_size": "1024x1792"}, 120),
    ("openai", "dall-e-2", 10, {}, 200),
    ("openai", "dall-e-2", 10, {"image_size": "512x512"}, 180),
    ("openai", "dall-e-2", 10, {"image_size": "256x256"}, 160),
    *(
        (provider, f"{prefix}imagen-4.0-{model}", 3, {}, 3 * each)
        for provider, prefix in (("gcp.gemini", ""), ("gcp.gemini", "models/"), ("gcp.vertex_ai", ""))
        for model, each in (("generate-001", 40), ("ultra-generate-001", 60), ("fast-generate-001", 20))
    ),
]


@pytest.mark.parametrize(("provider", "model", "count", "context", "thousandths"), PICTURES)
def test_pictures_are_billed_by_number_size_and_quality(provider, model, count, context, thousandths):
    cost = price(provider, model, {"output_images": count}, **context)
    assert (cost.cost_pusd, cost.cost_status) == (thousandths * GIGA, "priced")
    assert cost.cost_breakdown == {"output_images": thousandths * GIGA}


def test_a_model_that_bills_tokens_has_no_price_for_pictures():
    assert price("openai", "gpt-image-1", {"output_images": 2}).cost_status in ("unpriced", "partial")
    assert price("gcp.gemini", "imagen-9.0-generate-001", {"output_images": 2}).cost_status == "unpriced"


@pytest.mark.parametrize(
    ("model", "counts", "breakdown", "tier"),
    [
        # 60 of 100 input tokens are pictures at 10 USD, text is 5; all output is pictures at 40.
        (
            "gpt-image-1",
            {"input_tokens": 100, "input_image_tokens": 60, "output_tokens": 1056, "output_image_tokens": 1056},
            {"input": 200 * MEGA, "input_image": 600 * MEGA, "output_image": 42_240 * MEGA},
            None,
        ),
        (
            "gpt-image-1",
            {"input_tokens": 100, "input_image_tokens": 60, "output_tokens": 1056, "output_image_tokens": 1056},
            {"input": 100 * MEGA, "input_image": 300 * MEGA, "output_image": 21_120 * MEGA},
            "batch",
        ),
        # 0.36 USD an hour; a batch halves tokens only.
        ("whisper-1", {"input_audio_seconds": 9}, {"input_audio_seconds": 900 * MEGA}, None),
        ("whisper-1", {"input_audio_seconds": 9}, {"input_audio_seconds": 900 * MEGA}, "batch"),
        # 15 and 30 USD for a million characters.
        ("tts-1", {"input_characters": 1200}, {"input_characters": 18 * GIGA}, None),
        ("tts-1-hd", {"input_characters": 1200}, {"input_characters": 36 * GIGA}, None),
    ],
)
def test_what_media_cost(model, counts, breakdown, tier):
    cost = price("openai", model, counts, tier=tier)
    assert (cost.cost_status, cost.cost_breakdown, cost.cost_pusd) == ("priced", breakdown, sum(breakdown.values()))


@pytest.mark.parametrize("model", ["omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-007"])
def test_moderation_is_free(model):
    cost = price("openai", model, {"moderations": 3})
    assert (cost.cost_pusd, cost.cost_status, cost.cost_source) == (0, "free", "local")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({**TEXT, "advisor_input_tokens": 50, "advisor_output_tokens": 5}, (4500 * MEGA, "partial")),
        ({"cached_content_tokens": 4096}, (None, "unpriced")),
    ],
    ids=["beside what has a price", "alone"],
)
def test_what_no_list_has_a_unit_for_leaves_a_lower_bound_or_nothing(counts, expected):
    found = price("anthropic", "claude-sonnet-4-5", counts)  # 3 and 15 USD
    assert (found.cost_pusd, found.cost_status) == expected
