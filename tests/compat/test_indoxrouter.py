"""IndoxRouter's promises, each by its number: answers that say what they used, and statistics out of the ledger."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import openai
import pytest
from tests.compat.conftest import OLD_MODELS
from tests.compat.seeds import billed

import spanledger
from spanledger.compat.indoxrouter import IndoxRouter, IndoxRouterError, ProviderNotFoundError

pytestmark = OLD_MODELS
HELLO = [{"role": "user", "content": "Hello! How are you?"}]
HAIKU = "claude-3-5-haiku-20241022"


@pytest.fixture
def client():
    return IndoxRouter(api_key="a-key")


def ask(client, provider="openai", model="gpt-4o", **options):
    return client.chat_completions(provider=provider, model=model, messages=HELLO, **options)


def put(number=1, **said):
    """A call in the ledger: 100 tokens in, 50 out."""
    for _ in range(number):
        spanledger.track(**{"provider": "openai", "model": "gpt-4o", "input_tokens": 100, "output_tokens": 50, **said})


COST = 0.00075
"""USD for such a call."""


def test_i1_get_usage_is_a_plain_dictionary(client):
    told = client.get_usage()
    assert type(told) is dict
    assert list(told) == [
        "total_requests", "total_tokens", "total_cost", "current_period", "by_provider", "by_model",
    ]  # fmt: skip
    assert (told["total_requests"], told["by_provider"], told["by_model"]) == (0, {}, {})


def test_i1_it_asks_nobody_on_the_network(client, usage_api, truth):
    put()
    client.get_usage()
    assert (usage_api.requests, truth()) == ([], [])


def test_i2_totals_are_those_of_all_calls(client):
    put(3)
    told = client.get_usage()
    assert {name: told[name] for name in ("total_requests", "total_tokens", "total_cost")} == {
        "total_requests": 3, "total_tokens": 450, "total_cost": 0.00225,
    }  # fmt: skip
    assert (type(told["total_requests"]), type(told["total_tokens"]), type(told["total_cost"])) == (int, int, float)


def test_i2_a_call_without_a_price_is_told_apart(client):
    put()
    put(model="no-such-model", provider="custom")
    told = client.get_usage()
    assert (told["total_requests"], told["total_cost"], told["unpriced_requests"]) == (2, COST, 1)


def test_i3_the_current_period_is_the_calendar_month_in_utc(client):
    put(2)
    now = datetime.now(UTC)
    put(started_at=datetime(now.year - 1, now.month, 15, tzinfo=UTC))
    period = client.get_usage()["current_period"]
    first = datetime(now.year, now.month, 1, tzinfo=UTC)
    last = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC).timestamp() - 1
    assert period == {
        "requests": 2, "tokens": 300, "cost": 2 * COST, "period_start": f"{first:%Y-%m-%dT%H:%M:%SZ}",
        "period_end": f"{datetime.fromtimestamp(last, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }  # fmt: skip
    assert client.get_usage()["total_requests"] == 3


def test_i4_each_provider_has_its_sums(client):
    put(2)
    put(provider="anthropic", model=HAIKU)
    told = client.get_usage()["by_provider"]
    assert told == {
        "openai": {"requests": 2, "tokens": 300, "cost": 2 * COST},
        "anthropic": {"requests": 1, "tokens": 150, "cost": 0.00028},
    }


def test_i5_each_model_has_its_sums(client):
    put(2)
    put(model="gpt-4")
    told = client.get_usage()["by_model"]
    assert told == {
        "gpt-4": {"requests": 1, "tokens": 150, "cost": 0.006},
        "gpt-4o": {"requests": 2, "tokens": 300, "cost": 2 * COST},
    }


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(("asked", "model"), [("openai", "gpt-4o"), ("anthropic", HAIKU)])
def test_i6_an_answer_says_its_tokens_and_is_one_row(watched, asked, model, client, truth, calls):
    if watched:
        spanledger.instrument()
    usage = ask(client, asked, model).usage
    ((prompt, completion),) = billed(truth())
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        prompt,
        completion,
        prompt + completion,
    )
    assert calls() == [(prompt, completion)]


def test_i6_answers_of_threads_are_their_own(client, truth, calls):
    spanledger.instrument()

    def asked(number):
        messages = [{"role": "user", "content": "word " * number}]
        return client.chat_completions("openai", "gpt-4o", messages).usage.prompt_tokens

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(asked, range(1, 9)))
    assert found == [number + 4 for number in range(1, 9)]
    assert sorted(calls()) == sorted(billed(truth()))


def test_i7_what_went_to_and_from_a_cache_is_said(client, truth):
    usage = ask(client, "anthropic", HAIKU).usage
    said = truth()[0]["usage"]
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (
        said["cache_read_input_tokens"],
        said["cache_creation_input_tokens"],
    )
    assert min(usage.cache_read_tokens, usage.cache_write_tokens) > 0


def test_i8_reasoning_is_said(client):
    assert ask(client).usage.reasoning_tokens == 2


def test_i9_web_searches_are_said(client, ledger):
    used = {"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}
    usage = ask(client, "anthropic", HAIKU, extra_body={"loopback": {"usage": used}}).usage
    assert usage.web_search_count == 3
    assert ask(client).usage.web_search_count == 0
    assert [searches or 0 for (searches,) in ledger("web_searches")] == [3, 0]


def test_i10_an_answer_is_one_request(client):
    assert ask(client).usage.request_count == 1


PARTS = (
    "prompt_cost", "completion_cost", "cache_read_cost", "cache_write_cost", "reasoning_cost", "web_search_cost",
    "total_cost",
)  # fmt: skip


def test_i11_the_cost_has_its_parts_and_they_sum_to_it(client, ledger, truth):
    used = {
        "input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 400,
        "server_tool_use": {"web_search_requests": 2},
    }  # fmt: skip
    usage = ask(client, "anthropic", HAIKU, extra_body={"loopback": {"usage": used}}).usage
    costs = {name: Decimal(str(getattr(usage.cost_breakdown, name))) for name in PARTS}
    assert costs == {
        "prompt_cost": Decimal("0.0008"), "completion_cost": Decimal("0.0004"), "cache_read_cost": Decimal("0.00016"),
        "cache_write_cost": Decimal("0.0004"), "reasoning_cost": Decimal("0.0"), "web_search_cost": Decimal("0.02"),
        "total_cost": Decimal("0.02176"),
    }  # fmt: skip
    assert ledger("cost_pusd") == [(21_760_000_000,)]
    assert usage.cost_status == "priced"


def test_i12_the_cost_is_an_attribute_of_an_attribute(client, ledger):
    response = ask(client)
    assert ledger("cost_pusd") == [(round(response.usage.cost_breakdown.total_cost * 10**12),)]
    assert response["usage"] is response.usage
    with pytest.raises(KeyError):
        response["tokens"]


def test_i12_without_a_price_it_is_zero_and_says_so(client):
    usage = ask(client, model="no-such-model").usage
    assert (usage.cost_breakdown.total_cost, usage.cost_status) == (0.0, "unpriced")


def test_i13_a_budget_is_checked_by_the_cost_of_the_period(client):
    put(cost_usd="50")
    assert not client.get_usage()["current_period"]["cost"] > 50.0
    put(cost_usd="0.000001")
    assert client.get_usage()["current_period"]["cost"] > 50.0


def test_i14_a_token_of_a_provider_has_a_cost(client):
    put(2)
    costs = {name: each["cost"] / each["tokens"] for name, each in client.get_usage()["by_provider"].items()}
    assert costs == {"openai": 2 * COST / 300}


def test_i15_a_model_has_tokens_per_request(client):
    put(2)
    put(input_tokens=400, output_tokens=0)
    (stats,) = client.get_usage()["by_model"].values()
    assert f"{stats['tokens'] / stats['requests']:.1f}" == "233.3"


def test_i16_requests_of_the_period_are_counted(client):
    for _ in range(3):
        ask(client)
    assert client.get_usage()["current_period"]["requests"] == 3


def test_i17_statistics_go_into_a_file_and_come_back(client, tmp_path):
    put(2)
    told = client.get_usage()
    path = tmp_path / f"usage_report_{datetime.now(UTC):%Y%m%d_%H%M%S}.json"
    path.write_text(json.dumps(told, indent=2))
    assert json.loads(path.read_text()) == told


def test_i18_a_request_has_an_average_cost(client):
    put(2)
    put(model="gpt-4")
    told = client.get_usage()
    assert told["total_cost"] / told["total_requests"] == pytest.approx((2 * COST + 0.006) / 3, rel=1e-12)


def test_i19_the_client_asks_the_provider_by_its_own_sdk(client, truth):
    response = ask(client, temperature=0.5)
    assert (response.provider, response.model, response.finish_reason) == ("openai", "gpt-4o", "stop")
    assert response.data == "The quick brown fox jumps over the lazy dog."
    assert isinstance(response.raw_response, openai.types.chat.ChatCompletion)
    assert client.chat(HELLO, "openai/gpt-4o").usage == response.usage
    assert [each["model"] for each in truth()] == ["gpt-4o"] * 2


def test_i19_a_system_message_reaches_anthropic_too(client, truth):
    told = [{"role": "system", "content": "Be brief and kind"}, *HELLO]
    usage = client.chat_completions("anthropic", HAIKU, told).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == billed(truth())[0]
    assert truth()[0]["usage"]["input_tokens"] == 16


def test_i19_the_constructor_asks_nobody(truth, usage_api):
    assert IndoxRouter().api_key is None
    assert IndoxRouter("k", "https://example.org", 5.0).timeout == 5.0
    assert (truth(), usage_api.requests) == ([], [])


@pytest.mark.parametrize("asked", ["nobody", "", "mistral"])
def test_i19_an_unknown_provider_is_an_error_of_its_own(asked, client, calls):
    with pytest.raises(ProviderNotFoundError, match="there is no provider"):
        ask(client, asked)
    assert issubclass(ProviderNotFoundError, IndoxRouterError)
    assert calls() == []


@pytest.mark.parametrize("watched", [True, False])
def test_i19_an_error_of_the_provider_is_the_sdks_own_and_a_failed_call(watched, client, ledger):
    if watched:
        spanledger.instrument()
    with pytest.raises(openai.BadRequestError):
        ask(client, extra_body={"loopback": {"status": 400}})
    assert ledger("status", "error_type", "input_tokens") == [("error", "openai.BadRequestError", None)]
