"""Costs that providers and gateways state themselves, to the pico-USD, and what is no cost at all."""

import decimal
import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanledger.usage.shape import Reader
from spanledger.usage.shapes import SHAPES
from spanledger.usage.shapes.openai import STATED
from spanledger.usage.stated import Stated, header_cost, stated_cost

USD = 10**12
NAMES = ("openai.chat", "openai.responses", "openai.embeddings", "openai.realtime")

BELIEVED = {
    "OpenRouter": ({"cost": 0.00014}, 140_000_000),
    "OpenRouter, with its own key": (
        {"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.25}},
        USD // 2,
    ),
    "OpenRouter, with a key of one's own": (
        {"cost": 0.005, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.1}},
        105 * USD // 1000,
    ),
    "OpenRouter, a key of one's own and no charge": (
        {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.1}},
        USD // 10,
    ),
    "OpenRouter, a key of one's own, upstream untold": (
        {"cost": 0.005, "is_byok": True, "cost_details": {"upstream_inference_cost": None}},
        5 * USD // 1000,
    ),
    "OpenRouter, is_byok is no text": (
        {"cost": 0.005, "is_byok": "true", "cost_details": {"upstream_inference_cost": 0.1}},
        5 * USD // 1000,
    ),
    "OpenRouter, a free model": ({"cost": 0}, 0),
    "OpenRouter, a free model as float": ({"cost": 0.0, "is_byok": False}, 0),
    "xAI": ({"cost_in_usd_ticks": 232_856_000}, 23_285_600_000),
    "xAI, one tick": ({"cost_in_usd_ticks": 1}, 100),
    "xAI before everything else": ({"cost": 5, "cost_in_usd_ticks": 1}, 100),
    "Perplexity Sonar": ({"cost": {"total_cost": 0.006, "request_cost": 0.005, "input_tokens_cost": 0.001}}, 6 * 10**9),
    "Perplexity Responses": ({"cost": {"currency": "USD", "total_cost": 0.00212}}, 2_120_000_000),
    "Logfire gateway": ({"logfire_ai_gateway": {"cost": "0.0038"}}, 3_800_000_000),
    "Logfire gateway, from its cache": ({"logfire_ai_gateway": {"cost": "0"}}, 0),
    "Logfire gateway, from its cache, spelt out": ({"logfire_ai_gateway": {"cost": "0.000000"}}, 0),
    "Logfire gateway, more digits than a double has": (
        {"logfire_ai_gateway": {"cost": "123456.789012345678"}},
        123_456_789_012_345_678,
    ),
    "Pydantic gateway": ({"pydantic_ai_gateway": {"cost_estimate": 0.000045}}, 45_000_000),
    "Pydantic gateway, text": ({"pydantic_ai_gateway": {"cost_estimate": "4.5e-05"}}, 45_000_000),
    "LiteLLM's last chunk": ({"cost": 1.1e-05}, 11_000_000),
    "an attribute of an object": (SimpleNamespace(cost=0.25, is_byok=None), USD // 4),
    "a float is what it is printed as": ({"cost": 0.1}, 10**11),
    "a sum that floats get wrong": (
        {"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}},
        3 * 10**11,
    ),
    "a million is the most": ({"cost": 10**6}, 10**18),
    "half a pico-dollar is rounded to even": ({"cost": "0.0000000000005"}, 0),
    "a pico-dollar and a half": ({"cost": "0.0000000000015"}, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", BELIEVED)
def test_a_stated_cost_is_taken_to_the_pico_dollar(case):
    raw, pusd = BELIEVED[case]
    for name in NAMES:
        assert Reader(SHAPES[name]).stated(raw) == pusd
    assert type(stated_cost(STATED, raw)) is int


REFUSED = {
    "nothing": {},
    "Perplexity in euros": {"cost": {"currency": "EUR", "total_cost": 0.006}},
    "Perplexity in a currency that is no text": {"cost": {"currency": 1, "total_cost": 0.006}},
    "Perplexity's interim zeros": {"cost": {"currency": "USD", "total_cost": 0.0, "input_tokens_cost": 0.0}},
    "Perplexity's interim zeros, whole": {"cost": {"total_cost": 0}},
    "xAI's zero": {"cost_in_usd_ticks": 0},
    "OpenRouter's null": {"cost": None, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.1}},
    "a gateway without a cost": {"logfire_ai_gateway": {}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_states_no_cost_that_can_be_believed(case):
    for name in NAMES:
        assert Reader(SHAPES[name]).stated(REFUSED[case]) is None


NO_AMOUNTS = [
    True,
    False,
    float("nan"),
    float("inf"),
    -float("inf"),
    -0.1,
    -1,
    "-0.1",
    "abc",
    "",
    " ",
    "NaN",
    "sNaN",
    "Infinity",
    "1e400",
    "1e999999",
    "1e99999999999999999999",
    "0.1 USD",
    "0,1",
    "$0.1",
    "\ud800",
    10**400,
    10**5000,
    Decimal("1e999999"),
    b"0.1",
    {"amount": 0.1},
    [0.1],
    (0.1,),
    [[]],
    {"total_cost": {"total_cost": {"total_cost": 0.1}}},
    object(),
]


def at_places(place, value):
    for path in place.path.split("|"):
        raw = value
        for name in reversed(path.split(".")):
            raw = {name: raw}
        yield raw


@pytest.mark.parametrize("value", NO_AMOUNTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("place", STATED, ids=lambda place: place.path)
def test_what_is_no_amount_is_no_cost(place, value):
    for raw in at_places(place, value):
        assert stated_cost(STATED, raw) is None


@pytest.mark.parametrize("usd", [10**7, 1e7, "10000000", Decimal(10**7), 1_000_000.01, "1000000.0001"])
@pytest.mark.parametrize("place", STATED, ids=lambda place: place.path)
def test_more_than_a_million_dollars_is_no_cost(place, usd):
    for raw in at_places(place, type(usd)(Decimal(str(usd)) * USD / place.unit)):
        assert stated_cost(STATED, raw) is None


def test_a_broken_amount_does_not_hide_one_at_another_place():
    assert stated_cost(STATED, {"cost_in_usd_ticks": "many", "cost": {"total_cost": 0.5}}) == USD // 2
    assert stated_cost(STATED, {"cost_in_usd_ticks": 0, "cost": 0.5}) == USD // 2


@pytest.mark.parametrize("upstream", [True, -1, "abc", {}, [1], float("nan"), 10**7])
def test_a_broken_upstream_cost_leaves_the_charge(upstream):
    raw = {"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": upstream}}
    assert stated_cost(STATED, raw) == USD // 2


@pytest.mark.parametrize("name", sorted(set(SHAPES) - set(NAMES)))
def test_who_states_no_cost_has_none(name):
    assert Reader(SHAPES[name]).stated({"cost": 1, "cost_in_usd_ticks": 1}) is None


def test_no_usage_states_no_cost():
    assert [Reader(SHAPES[name]).stated(None) for name in NAMES] == [None] * 4
    assert [stated_cost(STATED, raw) for raw in ("cost", 1, 0.5, True, [], [{"cost": 1}], b"cost")] == [None] * 7
    assert stated_cost((), {"cost": 1}) is None


HEADERS = [
    ({"x-litellm-response-cost": "0.0038"}, 3_800_000_000),
    ({"x-litellm-response-cost": "1.1e-05"}, 11_000_000),
    ({"x-litellm-response-cost": "3.0000000000000001e-06"}, 3_000_000),
    ({"x-litellm-response-cost": "1E-6"}, 1_000_000),
    ({"x-litellm-response-cost": "0.0"}, None),
    ({"x-litellm-response-cost": "0"}, None),
    ({"x-litellm-response-cost": "0e0"}, None),
    ({"x-litellm-response-cost": "None"}, None),
    ({"logfire-ai-gateway-cost": "0.0038USD"}, 3_800_000_000),
    ({"logfire-ai-gateway-cost": " 0.0038 USD "}, 3_800_000_000),
    ({"logfire-ai-gateway-cost": "0.0038"}, 3_800_000_000),
    ({"logfire-ai-gateway-cost": "1.1e-05USD"}, 11_000_000),
    ({"logfire-ai-gateway-cost": "0USD"}, 0),
    ({"logfire-ai-gateway-cost": "0.0USD"}, 0),
    ({"logfire-ai-gateway-cost": "0.0038EUR"}, None),
    ({"logfire-ai-gateway-cost": "USD"}, None),
    ({"x-litellm-response-cost": "0.0", "logfire-ai-gateway-cost": "0.5USD"}, USD // 2),
    ({"x-litellm-response-cost": "0.0", "logfire-ai-gateway-cost": "0USD"}, 0),
    ({"x-litellm-response-cost": "0.25", "logfire-ai-gateway-cost": "0.5USD"}, USD // 4),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "pusd"), HEADERS)
def test_gateways_state_a_cost_in_a_header(headers, pusd):
    assert header_cost(headers) == pusd


@pytest.mark.parametrize("name", ["x-litellm-response-cost", "logfire-ai-gateway-cost"])
@pytest.mark.parametrize(
    "value",
    ["-0.1", "nan", "inf", "abc", "", "e", "1e400", "1e999999", "1e99999999999999999999", "10000000", "1-1", "..", True,
     0.1, 1, b"0.1", None, ["0.1"]],
)  # fmt: skip
def test_a_header_that_is_no_amount_states_no_cost(name, value):
    assert header_cost({name: value}) is None


def test_a_header_counts_whatever_its_case():
    import openai

    headers = openai.DefaultHttpxClient(headers={"X-LiteLLM-Response-Cost": "0.5"}).headers
    assert header_cost(headers) == USD // 2


def test_the_decimal_context_of_the_application_has_no_say():
    with decimal.localcontext(prec=2, traps=[decimal.Inexact, decimal.Rounded, decimal.InvalidOperation]):
        assert stated_cost(STATED, {"cost": 1.23456789}) == 1_234_567_890_000
        assert stated_cost(STATED, {"cost": "abc"}) is None
        assert header_cost({"logfire-ai-gateway-cost": "1.23456789USD"}) == 1_234_567_890_000
    with decimal.localcontext(traps=[]):
        assert stated_cost(STATED, {"cost": "abc"}) is None
        assert header_cost({"logfire-ai-gateway-cost": "1e999999USD"}) is None


def test_a_zero_is_believed_only_where_it_means_one():
    assert stated_cost((Stated(path="a"),), {"a": 0}) is None
    assert stated_cost((Stated(path="a", zero=True),), {"a": 0}) == 0
    assert stated_cost((Stated(path="a"), Stated(path="b")), {"a": 0, "b": 1}) == USD


WORDS = ["cost", "total_cost", "currency", "cost_details", "upstream_inference_cost", "is_byok", "cost_in_usd_ticks",
         "logfire_ai_gateway", "pydantic_ai_gateway", "cost_estimate"]  # fmt: skip
NUMBERS_AS_TEXT = st.from_regex(r"[+-]?[0-9_]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,20})?", fullmatch=True)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), NUMBERS_AS_TEXT,
    st.sampled_from(["USD", "EUR", "NaN", "-Infinity", 10**6, 10**18, 0.1, 0, 1e-300, "1e999999", "0e-999999"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), inner)
    ),
    max_leaves=12,
)
USAGES = st.one_of(VALUES, st.fixed_dictionaries({}, optional=dict.fromkeys(WORDS, VALUES)))


def a_cost(found):
    return found is None or (type(found) is int and 0 <= found <= 10**18)


@given(raw=USAGES)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_is_stated_it_is_no_cost_or_one_below_a_million_dollars(raw):
    assert a_cost(stated_cost(STATED, raw))


@given(value=st.one_of(LEAVES, NUMBERS_AS_TEXT.map(lambda text: f"{text}USD")))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_a_header_says_it_is_no_cost_or_one_below_a_million_dollars(value):
    assert a_cost(header_cost({"x-litellm-response-cost": value}))
    assert a_cost(header_cost({"logfire-ai-gateway-cost": value}))


@given(amount=st.integers(0, 10**18))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_a_decimal_text_is_exact_and_a_float_is_as_printed(amount):
    text = format(Decimal(amount).scaleb(-12, decimal.Context(prec=40)), "f")
    assert stated_cost(STATED, {"cost": text}) == amount
    number = json.loads(text + ("" if "." in text else ".0"))
    exact = Decimal(repr(number)).scaleb(12, decimal.Context(prec=40))
    assert stated_cost(STATED, {"cost": number}) == int(exact.to_integral_value(decimal.ROUND_HALF_EVEN))
