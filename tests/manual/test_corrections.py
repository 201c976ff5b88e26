"""What a block must not add: reports around reports, before the call, corrected, and streams that end after it."""

import time

from tests.manual.test_blocks import GPT, STREAM, ask, label_of

import spanledger


def test_an_outer_report_of_what_an_inner_block_recorded_adds_nothing(client, ledger):
    with spanledger.track_usage(**GPT) as outer:
        with spanledger.track_usage(**GPT) as inner:
            ask(client)
            inner.set_usage(input_tokens=9, output_tokens=9)
        outer.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger", 9, 9)]


def test_an_outer_report_of_the_sum_of_inner_ones_adds_nothing(client, ledger):
    with spanledger.track_usage(**GPT) as outer:
        for _ in range(2):
            with spanledger.track_usage(**GPT) as inner:
                ask(client)
                inner.set_usage(input_tokens=9, output_tokens=9)
        outer.set_usage(input_tokens=18, output_tokens=18)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger", 9, 9)] * 2


def test_an_outer_block_that_says_nothing_adds_nothing(client, ledger):
    with spanledger.track_usage(**GPT), spanledger.track_usage(**GPT) as inner:
        ask(client)
        inner.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger", 9, 9)]


def test_an_outer_block_around_a_reported_call_that_nobody_sees_adds_nothing(recording, ledger):
    with spanledger.track_usage(**GPT), spanledger.track_usage(**GPT) as inner:
        inner.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger.manual", 9, 9)]


def test_a_stream_that_ends_after_its_block_has_one_span(client, recording, ledger):
    with spanledger.track_usage(**GPT) as call:
        stream = client.chat.completions.create(**STREAM)
        call.set_usage(input_tokens=9, output_tokens=9)
    list(stream)
    assert len(recording.spans) == 1


def test_a_later_label_counts(client, ledger):
    with spanledger.track_usage(**GPT, label="first") as call:
        ask(client)
        call.set_usage(input_tokens=9, output_tokens=9, label="later")
    assert [label_of(r) for r in ledger()] == ["later"]


def test_other_counts_before_the_call_change_nothing(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(input_tokens=8, output_tokens=8)
        ask(client)
    assert ledger("source", "input_tokens") == [("spanledger", 9)]


def test_counts_before_the_call_may_be_put_right(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(input_tokens=8, output_tokens=8)
        ask(client)
        call.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens") == [("spanledger", 9)]


def test_a_cost_alone_before_the_call_is_its_cost(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(cost_usd="0.25")
        ask(client)
    assert ledger("source", "input_tokens", "cost_source") == [("spanledger", 9, "manual")]


def test_a_cost_alone_after_the_call_is_its_cost(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        call.set_usage(cost_usd="0.25", label="x")
    assert ledger("source", "input_tokens", "cost_source") == [("spanledger", 9, "manual")]


def test_a_label_alone_before_the_call_adds_nothing(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(label="x")
        ask(client)
    assert ledger("source", "input_tokens") == [("spanledger", 9)]


def test_a_block_that_is_entered_again_is_another_one(client, ledger):
    block = spanledger.track_usage(**GPT)
    for _ in range(2):
        with block as call:
            ask(client)
            call.set_usage(input_tokens=9, output_tokens=9)
    assert ledger("source", "input_tokens") == [("spanledger", 9)] * 2


def test_wrong_counts_first_and_right_ones_later_describe_the_call(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        call.set_usage(input_tokens=1, output_tokens=1)
        call.set_usage(input_tokens=9, output_tokens=9, cost_usd="0.25")
    assert ledger("input_tokens", "cost_pusd", "cost_source") == [(9, 250_000_000_000, "manual")]


def test_a_stream_read_a_while_after_a_block_that_said_nothing(client, recording, ledger):
    with spanledger.track_usage(**GPT):
        stream = client.chat.completions.create(**STREAM)
    time.sleep(2.5)
    list(stream)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger", 9, 9)]


def test_a_stream_read_a_while_after_a_block_that_said_other_counts(client, recording, ledger):
    with spanledger.track_usage(**GPT) as call:
        stream = client.chat.completions.create(**STREAM)
        call.set_usage(input_tokens=8, output_tokens=9)
    time.sleep(2.5)
    list(stream)
    assert ledger("source", "input_tokens", "output_tokens") == [("spanledger", 9, 9)]
