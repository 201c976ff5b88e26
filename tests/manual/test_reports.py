"""What an application reports by hand: a call nobody sees is a row, a call that is seen stays one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import spanledger

HELLO = [{"role": "user", "content": "How many tokens are there?"}]
NUMBERS = ("input_tokens", "output_tokens", "cost_pusd", "cost_source", "source", "told_by", "merged_by")
SEEN = (9, 9, 110_000_000, "local", "spanledger", None, None)


def reports(recording):
    return {
        dict(attributes)["spanledger.outcome"]: value for attributes, value in recording.points("spanledger.reports")
    }


def test_a_call_that_nobody_sees_is_a_row_with_its_price(recording, ledger):
    began = datetime.now(UTC) - timedelta(minutes=3)
    with spanledger.attribution(user_id="ada"):
        record = spanledger.track(
            provider="openai", model="gpt-4o", input_tokens=1000, output_tokens=100, cache_read_tokens=400,
            started_at=began, duration_ms=250, label="Draft", metadata={"page": "/ask"}, feature="search",
        )  # fmt: skip
    assert record.cost_usd == Decimal("0.003000000000")
    (row,) = ledger()
    left_out = {"recorded_at", "cost_breakdown", "price_basis", "raw_usage", "trace_id", "span_id"}
    assert {name: value for name, value in row.items() if value is not None and name not in left_out} == {
        "record_id": record.record_id, "source": "spanledger.manual", "stream": 0,
        "started_at": began.isoformat(timespec="microseconds"), "duration_ms": 250, "operation": "chat",
        "provider": "openai", "request_model": "gpt-4o",
        "input_tokens": 1000, "output_tokens": 100, "cache_read_tokens": 400, "usage_status": "reported",
        "cost_pusd": 3_000_000_000, "currency": "USD", "cost_source": "local", "cost_status": "priced",
        "user_id": "ada", "feature": "search", "metadata": '{"page":"/ask","label":"Draft"}', "status": "success",
        "service_name": "tests", "environment": "test", "weight": 1, "attribution_source": "scope",
        "usage_shape": "manual",
    }  # fmt: skip
    (span,) = recording.spans
    assert (span.name, span.attributes["spanledger.cost.total"], span.attributes["user.id"]) == (
        "chat gpt-4o",
        0.003,
        "ada",
    )
    assert span.end_time - span.start_time == 250_000_000
    assert f"{span.context.span_id:016x}" == row["span_id"]
    assert reports(recording) == {"recorded": 1}


def test_a_seen_call_whose_usage_is_reported_stays_one(client, recording, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai", label="Draft") as call:
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens)
    assert call.record.cost_usd == Decimal("0.00011")
    told = '["spanledger","spanledger.manual"]'
    assert ledger(*NUMBERS, "metadata") == [(*SEEN[:5], told, "report", '{"label":"Draft"}')]
    assert len(recording.spans) == 1
    assert reports(recording) == {"merged": 2}
    assert recording.points("spanledger.calls")[0][1] == 1


def test_a_stated_cost_goes_onto_the_seen_call_with_ours_beside_it(client, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=9, output_tokens=9, cost_usd="0.25")
    assert call.record.cost_usd == Decimal("0.25")
    assert ledger("cost_pusd", "cost_source", "local_cost_pusd", "input_tokens") == [
        (250_000_000_000, "manual", 110_000_000, 9)
    ]


def test_other_counts_leave_the_seen_call_as_it_is_and_are_counted(client, recording, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai", label="no") as call:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=1234, output_tokens=5, cost_usd=7)
    assert ledger(*NUMBERS) == [SEEN]
    assert reports(recording) == {"differs": 1, "repeated": 1}


def test_a_report_of_another_provider_is_a_row_of_its_own(client, ledger):
    with spanledger.track_usage(model="my-model", provider="custom") as call:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("provider", "input_tokens", "cost_status") == [("custom", 9, "unpriced"), ("openai", 9, "priced")]


def test_the_sum_of_several_seen_calls_is_none_of_its_own(client, recording, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=18, output_tokens=18)
    assert call.record.cost_usd == Decimal("0.00022")
    assert ledger(*NUMBERS) == [SEEN, SEEN]
    assert reports(recording) == {"summed": 1, "repeated": 1}


def test_a_block_of_an_unseen_call_is_timed_and_is_a_row(recording, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        call.set_usage(input_tokens=9, output_tokens=9)
    assert call.record.cost_usd == Decimal("0.0001125")
    ((source, tokens, duration),) = ledger("source", "input_tokens", "duration_ms")
    assert (source, tokens, duration >= 0) == ("spanledger.manual", 9, True)
    assert [span.name for span in recording.spans] == ["chat gpt-4o"]
    assert reports(recording) == {"recorded": 1, "merged": 1}


def test_a_block_that_fails_is_a_failed_call_and_its_exception_goes_on(recording, ledger):
    with pytest.raises(KeyError), spanledger.track_usage(model="m", provider="custom"):
        raise KeyError("secret")
    assert ledger("status", "error_type", "input_tokens", "cost_pusd", "usage_status") == [
        ("error", "KeyError", None, None, "missing")
    ]


def test_a_seen_call_in_a_block_that_fails_later_has_succeeded(client, ledger):
    with pytest.raises(KeyError), spanledger.track_usage(model="gpt-4o", provider="openai"):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        raise KeyError("later")
    assert ledger("status", "input_tokens") == [("success", 9)]


def test_a_stream_that_ends_after_its_block_is_one_call_with_its_report(client, recording, ledger):
    with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        call.set_usage(input_tokens=9, output_tokens=9)
    assert spanledger.flush()
    list(stream)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger.manual", 9, 9)]


@pytest.mark.parametrize(
    "said", [{"input_tokens": -1}, {"input_tokens": "many"}, {"output_tokens": True}, {"input_tokens": 1.5}]
)
def test_what_is_no_count_makes_the_usage_invalid_and_the_rest_is_kept(recording, ledger, said):
    spanledger.track(provider="openai", model="gpt-4o", **{"input_tokens": 7, "output_tokens": 7, **said})
    ((status, *counts),) = ledger("usage_status", "input_tokens", "output_tokens")
    assert (status, sorted(counts, key=str)) == ("invalid", [7, None])


def test_a_name_there_is_none_of_is_a_type_error():
    with pytest.raises(TypeError, match=r"a call has no tokens; it may have .*cache_read_tokens"):
        spanledger.track(provider="openai", model="gpt-4o", tokens=5)


def test_a_moment_without_a_time_zone_is_a_value_error():
    with pytest.raises(ValueError, match="aware datetime"):
        spanledger.track(provider="openai", started_at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_switched_off_it_prices_nothing_and_records_nothing(monkeypatch, home):
    monkeypatch.setenv("SPANLEDGER_ENABLED", "false")
    record = spanledger.track(provider="openai", model="gpt-4o", input_tokens=9, output_tokens=9)
    with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        call.set_usage(input_tokens=9)
    assert (record.cost_usd, record.usage.input_tokens, call.record.usage.input_tokens) == (None, 9, 9)
    assert not home.exists()


async def _async_block(client):
    async with spanledger.track_usage(model="gpt-4o", provider="openai") as call:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        call.set_usage(input_tokens=9, output_tokens=9)


def test_a_block_may_be_async(client, ledger):
    import asyncio

    asyncio.run(_async_block(client))
    assert [row[:5] for row in ledger(*NUMBERS)] == [SEEN[:5]]
