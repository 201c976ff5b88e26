"""`sample_rate`: one call in N is kept and stands for N; every call is counted by the metrics."""

import logging
import math

import pytest
from tests.conftest import loaded_prices

import spanledger
from spanledger.ledger.queries import report
from spanledger.ledger.sqlite import open_for_reading
from spanledger.settings import read_settings

CALLS = 2_000
HELLO = [{"role": "user", "content": "How many tokens are there?"}]
ONE = 9 * 2_500_000 + 9 * 10_000_000  # pico-USD of 9 + 9 tokens of gpt-4o


def sampled(telemetry, rate):
    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, sample_rate=rate
    )
    loaded_prices()


def track(times):
    for number in range(times):
        user = f"u{number % 3}"
        spanledger.track(provider="openai", model="gpt-4o", input_tokens=9, output_tokens=9, user_id=user)


def total(telemetry, name):
    return sum(value for _, value in telemetry.points(name))


def bounds(calls, every):
    """How many of them are kept, give or take eight standard deviations: once in 10^15 it is not so."""
    share = 1 / every
    spread = 8 * math.sqrt(calls * share * (1 - share))
    return math.floor(calls * share - spread), math.ceil(calls * share + spread)


def test_one_in_ten_is_kept_with_weight_ten_and_every_call_is_counted(telemetry, ledger, home):
    sampled(telemetry, 0.1)
    track(CALLS)
    rows = ledger("weight", "input_tokens", "cost_pusd")
    least, most = bounds(CALLS, 10)
    assert least <= len(rows) <= most
    assert set(rows) == {(10, 9, ONE)}
    assert total(telemetry, "spanledger.calls") == CALLS
    assert total(telemetry, "spanledger.usage") == 18 * CALLS
    assert round(total(telemetry, "spanledger.cost") * 10**12) == ONE * CALLS
    assert len(telemetry.spans) == CALLS
    connection = open_for_reading(home / "ledger.db")
    try:
        (whole,) = report(connection, [])
        by_user = report(connection, ["user_id"])
    finally:
        connection.close()
    assert (whole["calls"], whole["input_tokens"]) == (10 * len(rows), 90 * len(rows))
    assert whole["cost_usd"].replace(".", "").lstrip("0") == str(10 * ONE * len(rows))
    assert sum(each["calls"] for each in by_user) == whole["calls"]
    answer = spanledger.get_usage(by="user_id")
    assert (answer["total_requests"], answer["total_tokens"]) == (10 * len(rows), 180 * len(rows))
    assert answer["total_cost"] == pytest.approx(10 * ONE * len(rows) / 10**12, rel=1e-12)


def test_a_rate_of_one_keeps_every_call_with_weight_one(telemetry, ledger):
    sampled(telemetry, 1.0)
    track(50)
    assert ledger("weight") == [(1,)] * 50


def test_nothing_is_lost_and_nothing_waits_of_what_is_left_out(telemetry, ledger, home):
    sampled(telemetry, 0.01)
    track(300)
    rows = ledger("weight")
    assert set(rows) <= {(100,)}
    assert len(rows) <= bounds(300, 100)[1]
    assert telemetry.points("spanledger.records.lost") == []
    assert total(telemetry, "spanledger.outbox.pending") == 0
    assert total(telemetry, "spanledger.calls") == 300


def test_watched_calls_are_sampled_as_those_by_hand(telemetry, provider, ledger):
    from openai import OpenAI

    sampled(telemetry, 0.5)
    with OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
        for _ in range(100):
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
    rows = ledger("source", "weight")
    least, most = bounds(100, 2)
    assert least <= len(rows) <= most
    assert set(rows) == {("spanledger", 2)}
    assert total(telemetry, "spanledger.calls") == 100


def test_a_call_that_is_told_of_and_reported_again_and_again_is_sampled_once(telemetry, ledger):
    sampled(telemetry, 0.5)
    tracer = telemetry.tracer_provider.get_tracer("opentelemetry.instrumentation.openai_v2")
    outer = telemetry.tracer_provider.get_tracer("pydantic-ai")
    asked = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 9,
    }  # fmt: skip
    for _ in range(200):
        with spanledger.track_usage(provider="openai", model="gpt-4o") as call:
            with outer.start_as_current_span("chat gpt-4o", attributes=asked):
                tracer.start_span("chat gpt-4o", attributes=asked).end()
            call.set_usage(input_tokens=9)
            call.set_usage(output_tokens=9, label="both")
    rows = ledger("source", "weight", "input_tokens", "output_tokens", "metadata")
    least, most = bounds(200, 2)
    assert least <= len(rows) <= most
    assert set(rows) == {("opentelemetry.instrumentation.openai_v2", 2, 9, 9, '{"label":"both"}')}
    assert total(telemetry, "spanledger.calls") == 200


@pytest.mark.parametrize(
    ("said", "every"), [("1", 1), ("1.0", 1), ("0.5", 2), ("0.1", 10), ("0.3", 3), ("0.01", 100), ("0.7", 1)]
)
def test_a_rate_is_rounded_to_one_in_n(monkeypatch, said, every):
    monkeypatch.setenv("SPANLEDGER_SAMPLE_RATE", said)
    assert read_settings().sample_rate == every


@pytest.mark.parametrize("said", ["0", "-0.1", "1.5", "10", "nan", "inf", "-inf", "half", "1e-400"])
def test_what_is_no_rate_is_warned_of_and_keeps_every_call(monkeypatch, caplog, said):
    monkeypatch.setenv("SPANLEDGER_SAMPLE_RATE", said)
    with caplog.at_level(logging.WARNING, "spanledger"):
        assert read_settings().sample_rate == 1
    assert "SPANLEDGER_SAMPLE_RATE" in caplog.text


@pytest.mark.parametrize("sink", ["usage_api", "tokentally", "openmeter"])
def test_a_sink_that_bills_is_left_out_with_a_warning(telemetry, ledger, caplog, sink):
    with caplog.at_level(logging.WARNING, "spanledger"):
        spanledger.configure(
            tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, sample_rate=0.5,
            sinks=[sink],
        )  # fmt: skip
        track(20)
        rows = ledger("weight")
    assert f"The sink {sink} is left out: it bills, and only one call in 2 is kept (sample_rate)" in caplog.text
    assert set(rows) <= {(2,)}


def test_a_sink_that_does_not_bill_gets_what_the_ledger_gets(telemetry, ledger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spanledger.configure(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, sample_rate=0.5,
        sinks=["jsonl"], jsonl_path=str(tmp_path / "usage.jsonl"),
    )  # fmt: skip
    track(60)
    rows = ledger("record_id")
    lines = (tmp_path / "usage.jsonl").read_text().splitlines()
    assert len(lines) == len(rows) > 0


def test_the_same_id_is_kept_or_left_out_whoever_records_it(telemetry, ledger):
    """A process that sends a record again, as a client of a queue does, keeps the same ones."""
    from spanledger.api import track_as
    from spanledger.model import record_id_at

    sampled(telemetry, 0.2)
    ids = [record_id_at(number * 10**9) for number in range(300)]
    said = {"provider": "openai", "model": "gpt-4o", "input_tokens": 1, "output_tokens": 1}
    for each in ids:
        track_as(each, said)
    first = ledger("record_id")
    for each in ids:
        track_as(each, said)
    assert ledger("record_id") == first
