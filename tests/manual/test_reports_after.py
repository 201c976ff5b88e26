"""A call that is reported after it has ended, without a block: it stays one where the process expects such reports."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

import spanledger
from spanledger import api

QUESTION = [{"role": "user", "content": "How many tokens are there?"}]
SAID = {"provider": "openai", "model": "gpt-4o", "input_tokens": 9, "output_tokens": 9}


@pytest.fixture
def expecting(client):
    api.expect_reports()
    return client


def ask(client):
    client.chat.completions.create(model="gpt-4o", messages=QUESTION)


def test_a_report_after_a_seen_call_is_of_it(expecting, ledger):
    ask(expecting)
    record = api.describe({**SAID, "label": "Draft", "user_id": "ada"})
    assert f"{record.cost_usd:f}" == "0.000110000000"
    assert ledger("input_tokens", "user_id", "metadata", "cost_pusd", "merged_by") == [
        (9, "ada", '{"label":"Draft"}', 110_000_000, "report")
    ]


def test_each_call_is_reported_once(expecting, ledger):
    ask(expecting)
    ask(expecting)
    assert [api.describe(SAID) is None for _ in range(3)] == [False, False, True]
    assert len(ledger()) == 2


@pytest.mark.parametrize("other", [{"input_tokens": 8}, {"model": "gpt-5"}, {"provider": "custom"}])
def test_what_was_not_seen_is_not_described(expecting, ledger, other):
    ask(expecting)
    assert api.describe({**SAID, **other}) is None
    assert len(ledger()) == 1


def test_a_call_of_another_thread_or_task_is_not_described(expecting):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, expecting).result()
    assert api.describe(SAID) is None

    async def of_a_task():
        await asyncio.create_task(asyncio.to_thread(ask, expecting))
        return api.describe(SAID)

    assert asyncio.run(of_a_task()) is None


def test_after_the_window_the_call_is_final_and_still_one(expecting, ledger):
    ask(expecting)
    assert spanledger.flush()
    assert api.describe({**SAID, "user_id": "ada"}) is not None
    assert ledger("input_tokens", "user_id") == [(9, None)]


def test_it_holds_after_another_configuration(expecting, ledger):
    spanledger.configure(metric_values_limit=7)
    ask(expecting)
    assert api.describe(SAID) is not None
    assert len(ledger()) == 1


def test_nobody_else_waits_for_reports(client, ledger):
    ask(client)
    assert api.describe(SAID) is None
    assert len(ledger()) == 1
