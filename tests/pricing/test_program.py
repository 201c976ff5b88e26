"""Our integer programs against genai-prices' decimals, and against amounts worked out by hand."""

import decimal
import random
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import Usage as TheirUsage
from hypothesis import given, settings
from hypothesis import strategies as st

from spanledger.model import Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.program import UNIT_OF

BOOK = PriceBook(fixups=False)
NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)
TIERS = (None, "default", "flex", "priority", "fast", "unheard_of")
MOMENTS = (
    NOW,
    datetime(2026, 8, 1, 3, tzinfo=UTC),
    datetime(2026, 10, 12, tzinfo=UTC),
    datetime(2025, 1, 1, tzinfo=UTC),
)
MODELS = [(provider, model) for provider in providers for model in provider.models]
SNAPSHOT = DataSnapshot(providers=providers, from_auto_update=False)


def reference_of(provider, model):
    """A name that resolves to exactly this model, or None: patterns match many names, and an earlier model may win."""
    for name in (model.id, *texts(model.match)):
        if provider.find_model(name, all_providers=providers) is model:
            return name
    return None


def texts(clause):
    for name in ("equals", "starts_with", "ends_with", "contains"):
        if hasattr(clause, name):
            yield getattr(clause, name)
    for part in (*getattr(clause, "or_", ()), *getattr(clause, "and_", ())):
        yield from texts(part)


REFERENCES = [(provider, model, name) for provider, model in MODELS if (name := reference_of(provider, model))]


def random_usage(source):
    """Counts that do not contradict each other: parts are inside their whole, and do not overlap."""
    top = source.choice((1, 1000, 300_000, 2_000_000))
    cache_read, fresh, audio_in, image_in, short, long = (source.randint(0, top) for _ in range(6))
    text, reasoning, audio_out, image_out = (source.randint(0, top) for _ in range(4))
    counts = {"input_tokens": cache_read + fresh + audio_in + image_in + short + long}
    counts["output_tokens"] = text + reasoning + audio_out + image_out
    parts = {
        "cache_read_tokens": cache_read,
        "input_image_tokens": image_in,
        "input_audio_tokens": audio_in,
        "cache_write_tokens": short + long,
        "reasoning_tokens": reasoning,
        "output_audio_tokens": audio_out,
        "output_image_tokens": image_out,
        "web_searches": source.randint(0, 5),
    }
    counts.update({name: count for name, count in parts.items() if source.random() < 0.4})
    if "cache_write_tokens" in counts and source.random() < 0.5:
        counts["cache_write_long_tokens"] = long
    return counts


def test_nearly_every_model_of_the_data_is_reached():
    assert len(REFERENCES) > 2250
    assert len(MODELS) - len(REFERENCES) < 80


def test_every_model_costs_what_genai_prices_says_to_the_pico_dollar():
    source = random.Random(20261122)
    compared = 0
    for provider, model, name in REFERENCES:
        if provider.id == "groq" and "whisper" in model.id:
            continue  # its ten-second minimum is code in genai-prices, for seconds of audio
        for _ in range(10):
            counts, tier, moment = random_usage(source), source.choice(TIERS), source.choice(MOMENTS)
            theirs = TheirUsage(**{UNIT_OF[field]: count for field, count in counts.items()})
            context = {"service_tier": tier} if tier else None
            try:
                with decimal.localcontext(prec=80):  # its default of 28 digits rounds prices that do not divide evenly
                    found = SNAPSHOT.calc(theirs, name, provider.id, None, moment, context)
                    exact = int((found.total_price * 10**12).to_integral_value(decimal.ROUND_HALF_EVEN))
            except ValueError as error:
                # It refuses what it would have to guess, such as how much of the cached input was audio.
                assert str(error).startswith("Missing usage")
                continue
            ours = BOOK.price(
                Usage(usage_status="reported", **counts),
                provider=provider.id,
                models=(name,),
                at=moment,
                context=(("service_tier", tier),) if tier else (),
            )
            if ours.cost_pusd is None:  # nothing that was reported has a price: unknown with us, nothing with them
                assert exact == 0
                continue
            assert ours.cost_pusd == exact, (provider.id, name, counts, tier, moment)
            assert sum(ours.cost_breakdown.values()) == ours.cost_pusd
            compared += 1
    assert compared > 20_000


@given(
    counts=st.fixed_dictionaries({}, optional=dict.fromkeys(UNIT_OF, st.integers(0, 10**9))),
    model=st.sampled_from(["gpt-4o", "gpt-5.4", "gpt-audio", "gpt-6.1-sol", "text-embedding-3-small", "gpt-image-1"]),
)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_the_counts_the_parts_sum_to_the_total_and_nothing_is_negative(counts, model):
    cost = BOOK.price(Usage(usage_status="invalid", **counts), provider="openai", models=(model,), at=NOW)
    if cost.cost_pusd is not None:
        assert cost.cost_pusd == sum(cost.cost_breakdown.values())
        assert all(part >= 0 for part in cost.cost_breakdown.values())
        assert cost.cost_status == "partial"


def test_parts_that_exceed_their_whole_are_not_billed_beyond_it():
    usage = Usage(
        input_tokens=20, cache_read_tokens=1, output_tokens=4, reasoning_tokens=3, output_audio_tokens=4,
        usage_status="invalid",
    )  # fmt: skip
    cost = BOOK.price(usage, provider="openai", models=("gpt-4o-mini",), at=NOW)
    assert (cost.cost_pusd, cost.cost_status) == (19 * 150_000 + 75_000 + 4 * 600_000, "partial")
    assert sum(cost.cost_breakdown.values()) == cost.cost_pusd


# USD worked out by hand from published rates.
GOLDEN = [
    ("openai", "gpt-4o", {"input": 2006, "cache_read": 1920, "output": 300, "reasoning": 128}, "0.005615"),
    ("openai", "gpt-audio", {"input": 1000, "input_audio": 800, "output": 500, "output_audio": 400}, "0.0527"),
    ("openai", "gpt-5.4", {"input": 272_000, "output": 0}, "0.68"),
    ("openai", "gpt-5.4", {"input": 272_001, "output": 0}, "1.360005"),
    ("gcp.gemini", "gemini-2.5-pro", {"input": 200_000, "output": 0}, "0.25"),
    ("gcp.gemini", "gemini-2.5-pro", {"input": 200_001, "output": 0}, "0.5000025"),
    ("openai", "gpt-4o-mini", {"input": 1, "output": 1}, "0.00000075"),
    (
        "anthropic",
        "claude-sonnet-4-6",
        {"input": 130_213, "cache_read": 128_955, "cache_write": 1253, "output": 500},
        "0.05090025",
    ),
    (
        "anthropic",
        "claude-sonnet-4-5",
        {"input": 3100, "cache_read": 2000, "cache_write": 1000, "cache_write_long": 600, "output": 50, "searches": 2},
        "0.02675",
    ),
]


@pytest.mark.parametrize(("provider", "model", "counts", "usd"), GOLDEN)
def test_golden_amounts(provider, model, counts, usd):
    fields = {"web_searches" if name == "searches" else f"{name}_tokens": count for name, count in counts.items()}
    cost = BOOK.price(Usage(usage_status="reported", **fields), provider=provider, models=(model,), at=NOW)
    assert (Decimal(cost.cost_pusd).scaleb(-12), cost.cost_status) == (Decimal(usd), "priced")


def test_a_price_is_that_of_the_moment_of_the_call_and_of_the_tier_that_answered():
    usage = Usage(input_tokens=1_000_000, output_tokens=0, usage_status="reported")

    def usd(model, moment, tier=None):
        return (
            BOOK.price(
                usage, provider="openai", models=(model,), at=moment, context=(("service_tier", tier),) if tier else ()
            ).cost_pusd
            / 10**12
        )

    assert [usd("gpt-5", NOW, tier) for tier in (None, "flex", "default")] == [1.25, 0.625, 1.25]
    assert [usd("gpt-5.6-sol", moment) for moment in (datetime(2026, 8, 1, tzinfo=UTC), NOW)] == [10, 8]
    assert [usd("gpt-5.6-sol", moment) for moment in (NOW, datetime(2026, 8, 1, tzinfo=UTC))] == [8, 10]


@pytest.mark.parametrize(
    ("provider", "model", "status"),
    [
        ("openai", "gpt-9-imaginary", "unpriced"),
        ("nobody", "gpt-4o", "unpriced"),
        ("openai", None, "unpriced"),
        ("azure.ai.openai", "gpt-4o", "priced"),
        ("x_ai", "grok-4.3", "priced"),
        ("openai", "omni-moderation-latest", "unpriced"),
    ],
)
def test_no_price_is_a_state_and_never_a_zero(provider, model, status):
    usage = Usage(input_tokens=10, output_tokens=10, usage_status="reported")
    cost = BOOK.price(usage, provider=provider, models=(model,), at=NOW)
    assert (cost.cost_status, cost.cost_pusd is None) == (status, status == "unpriced")


def test_the_model_asked_for_counts_where_the_one_that_answered_has_no_price():
    usage = Usage(input_tokens=10, output_tokens=0, usage_status="reported")
    cost = BOOK.price(usage, provider="openai", models=("gpt-4o-2031-01-01", "gpt-4o"), at=NOW)
    assert cost.cost_pusd == 25_000_000


def test_a_search_without_a_price_makes_the_cost_a_lower_bound():
    usage = Usage(input_tokens=10, output_tokens=0, web_searches=3, usage_status="reported")
    cost = BOOK.price(usage, provider="openai", models=("gpt-3.5-turbo",), at=NOW)
    assert (cost.cost_status, cost.cost_pusd) == ("partial", 5_000_000)


def test_the_decimal_context_of_the_thread_has_no_say():
    found = []

    def price():
        decimal.getcontext().prec = 2
        book = PriceBook(fixups=False)
        usage = Usage(input_tokens=1_234_567, output_tokens=7_654_321, usage_status="reported")
        found.append(book.price(usage, provider="openai", models=("gpt-4o",), at=NOW).cost_pusd)

    thread = threading.Thread(target=price)
    thread.start()
    thread.join()
    assert found == [1_234_567 * 2_500_000 + 7_654_321 * 10_000_000]


def test_the_caches_stay_bounded():
    book = PriceBook(fixups=False)
    usage = Usage(input_tokens=10, output_tokens=0, usage_status="reported")
    for number in range(5000):
        book.price(usage, provider="openai", models=(f"made-up-{number}",), at=NOW)
    assert len(book._cache) <= 2048


def test_a_correction_of_ours_prices_what_the_data_lacks_and_can_be_switched_off():
    usage = Usage(input_tokens=1_000_000, cache_read_tokens=0, output_tokens=0, usage_status="reported")
    model = "ft:gpt-4.1-2025-04-14:acme::x"
    corrected = PriceBook().price(usage, provider="openai", models=(model,), at=NOW)
    assert (corrected.cost_pusd, "fixups:" in corrected.price_basis) == (3 * 10**12, True)
    assert BOOK.price(usage, provider="openai", models=(model,), at=NOW).cost_pusd is None
    assert "fixups:" not in BOOK.basis


def test_another_librarys_price_snapshot_never_reaches_us():
    from genai_prices.data_snapshot import set_custom_snapshot

    usage = Usage(input_tokens=1_000_000, output_tokens=0, usage_status="reported")
    set_custom_snapshot(DataSnapshot(providers=[], from_auto_update=True))
    try:
        assert PriceBook().price(usage, provider="openai", models=("gpt-4o",), at=NOW).cost_pusd == 2_500_000_000_000
    finally:
        set_custom_snapshot(None)
