"""Tables in LiteLLM's format, written by hand: what each field becomes, and what becomes of odd ones."""

import decimal
import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from spanledger.pricing.litellm_table import is_litellm, offers_of
from spanledger.pricing.offer import Offer, Period, Variant
from spanledger.pricing.program import Rate

NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)


def decoded(text):
    return json.loads(text, parse_float=Decimal)


def rate(usd_per_million, tiers=()):
    """USD per million is pico-USD for one, times a million."""
    return Rate(pusd(usd_per_million), tuple((start, pusd(above)) for start, above in tiers))


def pusd(usd_per_million):
    return Fraction(usd_per_million) * 10**6


def period_of(fields, provider="openai"):
    """The prices of one entry with these fields."""
    (offer,) = offers_of({"m": {"litellm_provider": provider, **fields}}, "t.json").values()
    (period,) = offer.periods
    return period


def rates_of(fields):
    return period_of(fields).rates


TABLE = """{
  "sample_spec": {"litellm_provider": "one of …", "input_cost_per_token": 1.0, "mode": "chat"},
  "sol-6": {
    "litellm_provider": "openai",
    "mode": "chat",
    "max_input_tokens": 1000000,
    "supports_vision": true,
    "supported_endpoints": ["/v1/responses"],
    "input_cost_per_token": 2e-06,
    "input_cost_per_token_above_272k_tokens": 4e-06,
    "input_cost_per_token_batches": 1e-06,
    "input_cost_per_token_above_272k_tokens_batches": 2e-06,
    "input_cost_per_token_priority": 4e-06,
    "output_cost_per_token": 1e-05,
    "output_cost_per_token_flex": 5e-06,
    "cache_read_input_token_cost": 1e-07,
    "search_context_cost_per_query": {
      "search_context_size_low": 0.01, "search_context_size_medium": 0.025, "search_context_size_high": 0.05
    }
  },
  "bedrock/eu-west-1/lite": {"litellm_provider": "bedrock", "input_cost_per_token": 3e-07},
  "unknown": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0.0}
}"""


def test_a_table_becomes_offers_with_tiers_variants_and_their_source():
    bedrock = Offer("prices.json bedrock/eu-west-1/lite", (Period({"input_tokens": rate("0.3")}),))
    assert offers_of(decoded(TABLE), "prices.json") == {
        ("openai", "sol-6"): Offer(
            "prices.json sol-6",
            (
                Period(
                    {
                        "input_tokens": rate(2, [(272_000, 4)]),
                        "output_tokens": rate(10),
                        "cache_read_tokens": rate("0.1"),
                        "web_searches": rate(25_000),
                    },
                    variants=(
                        Variant({"processing": "batch"}, {"input_tokens": rate(1, [(272_000, 2)])}),
                        Variant({"service_tier": "flex"}, {"output_tokens": rate(5)}),
                        Variant({"service_tier": "priority"}, {"input_tokens": rate(4)}),
                    ),
                ),
            ),
        ),
        ("aws", "bedrock/eu-west-1/lite"): bedrock,
        ("aws", "eu-west-1/lite"): bedrock,
    }


@pytest.mark.parametrize(
    ("field", "unit"),
    [
        ("input_cost_per_token", "input_tokens"),
        ("output_cost_per_token", "output_tokens"),
        ("cache_read_input_token_cost", "cache_read_tokens"),
        ("cache_creation_input_token_cost", "cache_write_tokens"),
        ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_tokens"),
        ("cache_creation_input_token_cost_above_12hr", "cache_write_1h_tokens"),
        ("output_cost_per_reasoning_token", "output_reasoning_tokens"),
        ("input_cost_per_audio_token", "input_audio_tokens"),
        ("output_cost_per_audio_token", "output_audio_tokens"),
        ("cache_read_input_audio_token_cost", "cache_audio_read_tokens"),
        ("cache_read_input_token_cost_per_audio_token", "cache_audio_read_tokens"),
        ("input_cost_per_image_token", "input_image_tokens"),
        ("output_cost_per_image_token", "output_image_tokens"),
        ("input_cost_per_video_token", "input_video_tokens"),
        ("input_cost_per_character", "input_characters"),
        ("input_cost_per_second", "input_audio_seconds"),
        ("input_cost_per_audio_per_second", "input_audio_seconds"),
        ("output_cost_per_second", "output_audio_seconds"),
        ("input_cost_per_query", "rerank_searches"),
        ("code_interpreter_cost_per_session", "code_executions"),
        ("ocr_cost_per_page", "input_document_pages"),
        ("annotation_cost_per_page", "input_annotated_document_pages"),
    ],
)
def test_a_field_prices_one_of_its_unit(field, unit):
    from genai_prices.data_units import unit_data

    assert rates_of({field: Decimal("0.000003")}) == {unit: rate(3)}
    assert unit in unit_data


def test_file_searches_are_listed_by_the_thousand():
    assert rates_of({"file_search_cost_per_1k_calls": Decimal("2.5")}) == {"storage_searches": rate(2500)}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"search_context_size_low": 1, "search_context_size_medium": 2, "search_context_size_high": 3}, 2),
        ({"search_context_size_medium": "0.01"}, "0.01"),
        ({"search_context_size_low": 1, "search_context_size_high": 3}, None),
        ({"search_context_size_medium": {"usd": 1}}, None),
    ],
)
def test_a_search_costs_what_one_of_medium_size_does(sizes, expected):
    found = rates_of({"input_cost_per_token": 1, "search_context_cost_per_query": sizes}).get("web_searches")
    assert found == (None if expected is None else rate(Fraction(expected) * 10**6))


@pytest.mark.parametrize(
    "field",
    [
        "input_cost_per_token_cache_hit",
        "input_cost_per_token_ultrafast",
        "input_cost_per_token_flex_priority",
        "input_cost_per_token_flex_above_1k_tokens_priority",
        "input_cost_per_token_above_1000000000000_tokens",
        "input_cost_per_token_above_k_tokens",
        "input_cost_per_token_above_-1_tokens",
        "xinput_cost_per_token",
        "output_cost_per_second_1080p",
        "input_cost_per_video_per_second_above_8s_interval",
        "input_cost_per_image",
        "max_tokens",
        "_flex",
        "",
        "\n",
    ],
)
def test_other_fields_are_ignored(field):
    assert period_of({"output_cost_per_token": 1, field: 2}) == Period({"output_tokens": rate(10**6)})


def test_of_two_fields_for_one_unit_one_counts_with_its_own_tiers_only():
    seconds = {
        "input_cost_per_second": 1,
        "input_cost_per_second_above_128k_tokens": 5,
        "input_cost_per_audio_per_second": 2,
        "input_cost_per_audio_per_second_above_256k_tokens": 3,
    }
    writes = {"cache_creation_input_token_cost_above_12hr": 4, "cache_creation_input_token_cost_above_1hr": 3}
    assert rates_of(seconds | writes) == {
        "input_audio_seconds": rate(2 * 10**6, [(256_000, 3 * 10**6)]),
        "cache_write_1h_tokens": rate(3 * 10**6),
    }


def test_tiers_rise_whatever_the_order_of_the_fields_and_count_in_thousands_or_ones():
    found = rates_of(
        {
            "input_cost_per_token_above_256k_tokens": 3,
            "input_cost_per_token_above_32000_tokens": 2,
            "input_cost_per_token": 1,
        }
    )
    assert found == {"input_tokens": rate(10**6, [(32_000, 2 * 10**6), (256_000, 3 * 10**6)])}


def test_how_long_a_cache_lasts_is_no_tier_and_may_have_tiers():
    found = rates_of(
        {
            "cache_creation_input_token_cost": Decimal("3.75e-6"),
            "cache_creation_input_token_cost_above_200k_tokens": Decimal("7.5e-6"),
            "cache_creation_input_token_cost_above_1hr": Decimal("6e-6"),
            "cache_creation_input_token_cost_above_1hr_above_200k_tokens": Decimal("12e-6"),
        }
    )
    assert found == {
        "cache_write_tokens": rate("3.75", [(200_000, "7.5")]),
        "cache_write_1h_tokens": rate(6, [(200_000, 12)]),
    }


def test_a_tier_without_a_base_is_no_price():
    found = period_of(
        {
            "output_cost_per_token": 1,
            "input_cost_per_token_above_272k_tokens": 2,
            "output_cost_per_token_above_272k_tokens_priority": 3,
        }
    )
    assert found == Period({"output_tokens": rate(10**6)})


@pytest.mark.parametrize(
    "field", ["input_cost_per_token_above_9k_tokens_flex", "input_cost_per_token_flex_above_9k_tokens"]
)
def test_a_tier_of_a_variant_is_read_in_either_order_of_words(field):
    found = period_of({"input_cost_per_token": 4, "input_cost_per_token_flex": 2, field: 3})
    assert found.variants == (
        Variant({"service_tier": "flex"}, {"input_tokens": rate(2 * 10**6, [(9000, 3 * 10**6)])}),
    )


def test_a_variant_without_tiers_has_none():
    found = period_of(
        {"input_cost_per_token": 1, "input_cost_per_token_above_200k_tokens": 2, "input_cost_per_token_priority": 3}
    )
    (priority,) = found.variants
    assert priority.rates == {"input_tokens": rate(3 * 10**6)}


def test_a_region_multiplies_what_tokens_cost_and_nothing_else():
    found = period_of(
        {
            "input_cost_per_token": Decimal("2e-6"),
            "input_cost_per_token_above_272k_tokens": Decimal("4e-6"),
            "input_cost_per_second": Decimal("1e-4"),
            "search_context_cost_per_query": {"search_context_size_medium": Decimal("0.01")},
            "regional_processing_uplift_multiplier_eu": Decimal("1.1"),
            "regional_processing_uplift_multiplier_us": Decimal("1.2"),
        }
    )
    assert found.variants == (
        Variant({"region": "eu"}, {"input_tokens": rate("2.2", [(272_000, "4.4")])}),
        Variant({"region": "us"}, {"input_tokens": rate("2.4", [(272_000, "4.8")])}),
    )


def test_geography_speed_and_tier_of_one_call_multiply():
    document = {
        "opus": {
            "litellm_provider": "anthropic",
            "input_cost_per_token": Decimal("5e-6"),
            "output_cost_per_token": Decimal("25e-6"),
            "input_cost_per_token_priority": Decimal("7e-6"),
            "provider_specific_entry": {"us": Decimal("1.1"), "fast": 6, "titan_v2": "x"},
        }
    }
    offer = offers_of(document, "t.json")["anthropic", "opus"]

    def usd(**context):
        rates = offer.terms(NOW, tuple(context.items())).rates
        return [rates[unit].base / 10**6 for unit in ("input_tokens", "output_tokens")]

    assert usd() == [5, 25]
    assert usd(inference_geo="us") == [Fraction("5.5"), Fraction("27.5")]
    assert usd(inference_geo="eu") == [5, 25]
    assert usd(speed="fast") == [30, 150]
    assert usd(speed="fast", inference_geo="us") == [33, 165]
    assert usd(service_tier="priority") == [7, 25]
    assert usd(service_tier="priority", inference_geo="us") == [Fraction("7.7"), Fraction("27.5")]
    assert usd(service_tier="priority", inference_geo="us", speed="fast") == [Fraction("46.2"), 165]


@pytest.mark.parametrize("factor", [0, -1, True, None, "much", Decimal("NaN"), 1.1, [1.1], {"eu": 2}])
def test_a_factor_that_is_none_makes_no_variant(factor):
    found = period_of(
        {
            "input_cost_per_token": 1,
            "regional_processing_uplift_multiplier_eu": factor,
            "provider_specific_entry": {"us": factor, "fast": factor},
        }
    )
    assert found == Period({"input_tokens": rate(10**6)})
    assert period_of({"input_cost_per_token": 1, "provider_specific_entry": factor}) == found


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("gemini", "google"),
        ("vertex_ai", "google"),
        ("vertex_ai-anthropic_models", "google"),
        ("bedrock", "aws"),
        ("bedrock_converse", "aws"),
        ("azure", "azure"),
        ("azure_ai", "azure"),
        ("azure_text", "azure"),
        ("azurelike", "azurelike"),
        ("xai", "x-ai"),
        ("xai2", "xai2"),
        ("together_ai", "together"),
        ("fireworks_ai", "fireworks"),
        ("fireworks_ai-embedding-models", "fireworks"),
        ("voyage", "voyageai"),
        ("cohere", "cohere"),
        ("cohere_chat", "cohere"),
        ("moonshot", "moonshotai"),
        ("text-completion-openai", "openai"),
        ("groq", "groq"),
        ("house", "house"),
    ],
)
def test_providers_have_the_names_of_genai_prices(listed, found):
    document = {"m": {"litellm_provider": listed, "input_cost_per_token": 1}}
    assert list(offers_of(document, "t.json")) == [(found, "m")]


@pytest.mark.parametrize(
    ("key", "listed", "found"),
    [
        ("azure/gpt-x", "azure", {("azure", "azure/gpt-x"), ("azure", "gpt-x")}),
        ("azure/eu/gpt-x", "azure", {("azure", "azure/eu/gpt-x"), ("azure", "eu/gpt-x")}),
        ("vertex_ai/c", "vertex_ai-anthropic_models", {("google", "vertex_ai/c"), ("google", "c")}),
        ("groq/openai/oss", "groq", {("groq", "groq/openai/oss"), ("groq", "openai/oss")}),
        ("meta-llama/L-3", "together_ai", {("together", "meta-llama/L-3")}),
        ("openai/gpt-x", "openrouter", {("openrouter", "openai/gpt-x")}),
        ("groq/", "groq", {("groq", "groq/")}),
        ("mistral/m", None, {("mistral", "mistral/m"), ("mistral", "m")}),
        ("mistral/m", ["mistral"], {("mistral", "mistral/m"), ("mistral", "m")}),
        ("m", None, set()),
        ("m", "", set()),
        ("/m", None, set()),
    ],
)
def test_a_key_that_starts_with_its_provider_is_known_without_it_too(key, listed, found):
    assert set(offers_of({key: {"litellm_provider": listed, "input_cost_per_token": 1}}, "t.json")) == found


def test_a_plain_key_wins_over_a_stripped_one_wherever_it_stands():
    plain = {"g": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 1}}
    prefixed = {"gemini/g": {"litellm_provider": "gemini", "input_cost_per_token": 2}}
    for document in (plain | prefixed, prefixed | plain):
        found = offers_of(document, "t.json")
        assert {model: offer.source for (_, model), offer in found.items()} == {
            "g": "t.json g",
            "gemini/g": "t.json gemini/g",
        }


def test_of_two_stripped_keys_the_first_by_name_wins_wherever_it_stands():
    azure = {"azure/g": {"litellm_provider": "azure", "input_cost_per_token": 1}}
    foundry = {"azure_ai/g": {"litellm_provider": "azure_ai", "input_cost_per_token": 2}}
    for document in (azure | foundry, foundry | azure):
        assert offers_of(document, "t.json")["azure", "g"].source == "t.json azure/g"


@pytest.mark.parametrize(
    ("listed", "exact"),
    [
        ("5.0000000000000004E-8", "0.05"),
        ("9.499999999999999E-7", "0.95"),
        ("0.0000016000000000000001", "1.6"),
        ("0.000015000020000000002", "15.00002"),
        ("0.000283333333333", "283.333333333"),
        ("1.23456789012345e-6", "1.23456789012345"),
    ],
)
def test_the_noise_of_a_float_goes_and_fifteen_digits_stay(listed, exact):
    assert rates_of(decoded(f'{{"input_cost_per_token": {listed}}}')) == {"input_tokens": rate(exact)}


@pytest.mark.parametrize("amount", [Decimal("3e-6"), "3e-6", "0.000003", "3E-6", Decimal("3.000e-6")])
def test_amounts_are_decimals_or_decimal_text(amount):
    assert rates_of({"input_cost_per_token": amount}) == {"input_tokens": rate(3)}


ODD = [
    -1,
    Decimal("-1e-9"),
    "-0.1",
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    "NaN",
    "inf",
    True,
    False,
    None,
    "",
    "free",
    "1_0",
    "1e",
    "0x1",
    3e-6,
    float("nan"),
    [],
    [1],
    {},
    {"usd": 1},
    b"1",
    10**40,
    10**4000,
    Decimal("1e31"),
    Decimal("1e-31"),
    Decimal("1e999999999"),
    Decimal("1e-999999999"),
    Decimal("0e-999999999"),
    "1e999999999999999999999999",
    "1e-999999999999999999999999",
    type,
]


@pytest.mark.parametrize("amount", ODD, ids=lambda amount: repr(amount)[:30])
def test_an_odd_amount_costs_only_its_field(amount):
    found = period_of(
        {
            "input_cost_per_token": amount,
            "output_cost_per_token": 1,
            "output_cost_per_token_above_9k_tokens": amount,
            "output_cost_per_token_flex": amount,
            "search_context_cost_per_query": {"search_context_size_medium": amount},
        }
    )
    assert found == Period({"output_tokens": rate(10**6)})


def test_an_odd_entry_costs_only_itself():
    good = {"litellm_provider": "openai", "input_cost_per_token": 1}
    odd = {str(number): entry for number, entry in enumerate((None, [], "x", 7, True, {}, {"": None}, {"rules": [{}]}))}
    odd |= {"a/": {"litellm_provider": {}}, "": {"litellm_provider": 5, "input_cost_per_token": 1}}
    assert list(offers_of({**odd, "good": good}, "t.json")) == [("openai", "good")]


@pytest.mark.parametrize(
    "fields",
    [
        {"input_cost_per_token": 0, "output_cost_per_token": Decimal("0.0")},
        {"input_cost_per_token": 0, "input_cost_per_token_above_9k_tokens": 0, "input_cost_per_query": "0"},
        {"input_cost_per_token_batches": 1},
        {"mode": "chat"},
    ],
)
def test_zeros_alone_are_no_price(fields):
    assert offers_of({"m": {"litellm_provider": "openai", **fields}}, "t.json") == {}


def test_a_zero_beside_a_price_is_one():
    assert rates_of({"input_cost_per_token": Decimal("2e-8"), "output_cost_per_token": 0}) == {
        "input_tokens": rate("0.02"),
        "output_tokens": rate(0),
    }
    assert rates_of({"input_cost_per_token": 0, "input_cost_per_token_above_9k_tokens": 1}) == {
        "input_tokens": rate(0, [(9000, 10**6)])
    }


def test_the_decimal_context_of_the_thread_has_no_say():
    with decimal.localcontext(prec=2, Emax=3, Emin=-3, traps=[decimal.Inexact, decimal.FloatOperation]):
        found = rates_of({"input_cost_per_token": Decimal("1.234567e-6"), "output_cost_per_token": "7.654321e-6"})
    assert found == {"input_tokens": rate("1.234567"), "output_tokens": rate("7.654321")}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (decoded(TABLE), True),
        ({"m": {"litellm_provider": "openai"}}, True),
        ({"m": {"input_cost_per_token": 1}}, True),
        ({"m": {"output_cost_per_token_above_9k_tokens": 1}}, True),
        ({"odd": 1, "none": None, "m": {"litellm_provider": "openai"}}, True),
        ({"sample_spec": {"litellm_provider": "one of …", "input_cost_per_token": 1}}, False),
        ({"version": 1, "models": []}, False),
        ({"version": 1, "m": {"litellm_provider": "openai"}}, False),
        ({"m": {"input": 1, "output": 2}}, False),
        ({"litellm_provider": "openai", "input_cost_per_token": 1}, False),
        ({}, False),
        ([{"litellm_provider": "openai"}], False),
        ("litellm_provider", False),
        (None, False),
        (1, False),
    ],
)
def test_a_table_is_told_from_other_files(document, expected):
    assert is_litellm(document) is expected
