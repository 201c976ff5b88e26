"""K21, K24, K25: odd events are recorded all the same, and DATABASE_URL names the ledger without a configuration."""

import sqlite3

import pytest

import spanledger
from spanledger.compat.tokenledger import LLMEvent, get_tracker


def test_k25_database_url_names_the_ledger_of_a_program_that_configures_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/named.db")
    get_tracker().track(LLMEvent(provider="openai", model="gpt-4o", input_tokens=1, output_tokens=1))
    assert spanledger.flush()
    with sqlite3.connect(tmp_path / "named.db") as connection:
        assert connection.execute("SELECT input_tokens FROM usage_records").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "wrong", [{"duration_ms": float("inf")}, {"timestamp": "2026-01-01"}, {"metadata": "abc"}, {"request_type": None}]
)
def test_k21_what_passes_the_checks_of_an_event_can_be_tracked(wrong):
    try:
        made = LLMEvent(provider="openai", model="gpt-4o", input_tokens=1, output_tokens=1, **wrong)
    except ValueError:
        return
    get_tracker().track(made)


@pytest.mark.parametrize("wrong", [{"status": "weird"}, {"duration_ms": "x"}, {"duration_ms": float("inf")}])
def test_k24_an_unchecked_event_with_something_wrong_is_recorded_all_the_same(wrong, calls):
    get_tracker().track(
        LLMEvent.fast_construct(provider="openai", model="gpt-4o", input_tokens=1, output_tokens=1, **wrong)
    )
    assert calls() == [(1, 1)]


def test_k24_the_total_is_always_input_and_output():
    assert LLMEvent.fast_construct(input_tokens=100, output_tokens=50).total_tokens == 150
