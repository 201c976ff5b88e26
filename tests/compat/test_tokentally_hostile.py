"""T2, T5, T6: nonsense in what is said of a call does not lose the call, and a block's cost is that of its row."""

import pytest
from openai import OpenAI

import spanledger
from spanledger.compat.tokentally import TokenTally

HELLO = [{"role": "user", "content": "Hello! How are you?"}]


def test_t5_a_reason_that_is_no_text_does_not_lose_the_call(tally, calls):
    with TokenTally("tt_k", tally.url).track_usage(model="claude-3-sonnet") as ctx:
        ctx.set_usage(tokens_in=1, tokens_out=2, stop_reason=5)
    assert calls() == [(1, 2)]


@pytest.mark.parametrize(
    "wrong", [{"stop_reason": 5}, {"runtime_ms": "x"}, {"metadata": "abc"}, {"cache_read_input_tokens": "x"}]
)
def test_t2_nonsense_beside_the_tokens_does_not_lose_the_call(wrong, tally, calls):
    TokenTally("tt_k", tally.url).track(tokens_in=1, tokens_out=2, model="claude-3-sonnet", **wrong)
    assert calls() == [(1, 2)]


def test_t6_the_first_block_around_a_watched_call_has_the_cost_of_its_row(tally, ledger):
    client = TokenTally("tt_k", tally.url)
    spanledger.instrument("openai")
    with OpenAI() as sdk, client.track_usage(model="gpt-4o") as ctx:
        usage = sdk.chat.completions.create(model="gpt-4o", messages=HELLO).usage
        ctx.set_usage(tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens)
    assert [(ctx.response.cost_usd * 10**12,)] == ledger("cost_pusd")
