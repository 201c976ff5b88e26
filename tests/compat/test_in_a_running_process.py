"""Handlers and clients that are made, or used, while other things are under way."""

import logging

import pytest
from openai import OpenAI
from tests.compat.conftest import MESSAGE

import spanledger
from spanledger.compat.indoxrouter import IndoxRouter, UsageView
from spanledger.compat.lexia import LexiaHandler, _channel_of
from spanledger.compat.tokentally import TokenTally
from spanledger.context.scope import current

ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How many tokens are there?"}]}


@pytest.fixture
def openai():
    spanledger.configure()
    with OpenAI() as made:
        yield made


def test_a_stream_that_is_open_when_a_handler_is_made_is_counted_whole(openai, ledger):
    stream = openai.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    next(stream)
    LexiaHandler()
    list(stream)
    assert ledger("status", "input_tokens", "output_tokens") == [("success", 9, 9)]


def test_a_block_that_is_open_when_a_handler_is_made_is_recorded(ledger):
    spanledger.configure()
    with spanledger.track_usage(provider="openai", model="gpt-4o") as call:
        LexiaHandler()
        call.set_usage(input_tokens=5, output_tokens=5)
    assert ledger("input_tokens", "output_tokens") == [(5, 5)]


@pytest.mark.parametrize("inside", [False, True])
def test_a_watched_call_that_is_tracked_after_it_is_sent_once_and_raises_nothing(openai, tally, ledger, inside):
    spent = TokenTally(api_key="tt_k", base_url=tally.url, timeout=5)
    if inside:
        with spanledger.track_usage(provider="openai", model="gpt-4o"):
            used = openai.chat.completions.create(**ASKED).usage
            response = spent.track(
                used.prompt_tokens, used.completion_tokens, "gpt-4o", "openai", metadata={"page": "a"}
            )
    else:
        used = openai.chat.completions.create(**ASKED).usage
        response = spent.track(used.prompt_tokens, used.completion_tokens, "gpt-4o", "openai", metadata={"page": "a"})
    assert response.cost_usd == 0.00011
    assert ledger("input_tokens", "metadata") == [(9, '{"page":"a"}')]
    assert [each.json["tokens_out"] for each in tally.accepted] == [9]


def test_a_client_sends_on_after_everything_was_shut_down(tally):
    spent = TokenTally(api_key="tt_k", base_url=tally.url, timeout=5)
    spanledger.shutdown()
    spent.track(1, 1, "claude-sonnet-4-5")
    assert len(tally.accepted) == 1


def test_our_own_key_goes_to_our_own_stream_only(monkeypatch):
    monkeypatch.setenv("CENTRIFUGO_URL", "http://ours")
    monkeypatch.setenv("CENTRIFUGO_API_KEY", "secret")
    assert _channel_of(MESSAGE).stream_key == "secret"
    assert _channel_of({**MESSAGE, "stream_url": "http://theirs"}).stream_key is None


def test_what_is_rejected_is_not_shown_if_it_may_be_an_answer(openai, caplog):
    session = LexiaHandler().begin({**MESSAGE, "response_uuid": "one\ntwo"})
    answer = openai.chat.completions.create(**ASKED)
    with caplog.at_level(logging.INFO, "spanledger"):
        session.usage(answer, "prompt")
        session.usage(5, "prompt", cost="a secret of mine")
        session.usage(5, "prompt")
    text = "\n".join(each.getMessage() for each in caplog.records)
    assert "quick brown fox" not in text
    assert "secret" not in text
    assert "one\ntwo" not in text


def test_a_session_in_a_task_leaves_that_of_its_parent_alone():
    import asyncio

    async def inner():
        LexiaHandler().begin({**MESSAGE, "response_uuid": "inner"}).close()

    async def outer():
        session = LexiaHandler().begin(MESSAGE)
        await asyncio.create_task(inner())
        found = current().message_id
        session.close()
        return found

    assert asyncio.run(outer()) == "answer-1"


def test_another_cost_than_that_of_a_watched_picture_is_something_else(openai, ledger):
    session = LexiaHandler().begin(MESSAGE)
    openai.images.generate(model="dall-e-3", prompt="a fox")
    session.usage(1, "tool_usage", cost="0.0001", label="Database Query")
    session.close()
    assert sorted(ledger("cost_pusd")) == [(100_000_000,), (40_000_000_000,)]


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([(10, "prompt"), (15, "total")], {"prompt": ("10", None), "completion": ("5", None)}),
        (
            [(10, "prompt"), (5, "completion"), (15, "total", "0.01")],
            {"prompt": ("10", None), "completion": ("5", "0.01")},
        ),
        (
            [(10, "prompt", "0.001"), (5, "completion"), (15, "total", "0.003")],
            {"prompt": ("10", "0.001"), "completion": ("5", "0.002")},
        ),
    ],
)
def test_what_a_total_says_beyond_its_parts_is_not_lost(said, sent, usage_api, ledger):
    session = LexiaHandler().begin(MESSAGE)
    for each in said:
        session.usage(*each)
    session.close()
    assert spanledger.flush()
    assert {each.json["type"]: (each.json["token"], each.json.get("cost")) for each in usage_api.accepted} == sent


def test_an_answer_without_a_usage_is_given_to_whoever_paid_for_it(monkeypatch):
    answer = object()
    monkeypatch.setattr("spanledger.compat.indoxrouter._ROUTES", {"openai": lambda *_: (answer, "text", None)})
    found = IndoxRouter().chat_completions(provider="openai", model="gpt-4o", messages=[])
    assert (found.raw_response, found.data, found.usage) == (answer, "text", UsageView())


def test_a_block_around_a_watched_call_has_a_response_though_nothing_was_said(openai, tally):
    with TokenTally(api_key="tt_k", base_url=tally.url).track_usage("gpt-4o", "openai") as call:
        openai.chat.completions.create(**ASKED)
    assert call.response.cost_usd == 0.00011


def test_a_stated_cost_goes_on_in_its_own_words_for_a_watched_call_too(openai, usage_api, ledger):
    session = LexiaHandler().begin(MESSAGE)
    openai.chat.completions.create(**ASKED)
    session.usage(9, "prompt", cost="0.000270")
    session.usage(9, "completion", cost="0.000540")
    session.close()
    assert ledger("cost_pusd", "cost_source") == [(810_000_000, "manual")]
    assert [each.json["cost"] for each in usage_api.accepted] == ["0.000270", "0.000540"]


def test_a_cost_of_one_part_only_does_not_hide_what_the_call_cost(openai, ledger):
    session = LexiaHandler().begin(MESSAGE)
    openai.chat.completions.create(**ASKED)
    session.usage(9, "prompt", cost="0.000270")
    session.usage(9, "completion")
    session.close()
    assert ledger("cost_pusd", "cost_source") == [(110_000_000, "local")]
