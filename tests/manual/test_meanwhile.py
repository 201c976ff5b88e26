"""What is asked or flushed while a block is open."""

from tests.manual.test_blocks import GPT, ask

import spanledger


def test_a_question_to_the_ledger_meanwhile_takes_no_report_away(client, ledger):
    with spanledger.track_usage(**GPT) as call:
        ask(client)
        spanledger.get_usage()
        call.set_usage(input_tokens=9, output_tokens=9, cost_usd="0.25")
    assert ledger("input_tokens", "cost_source") == [(9, "manual")]


def test_what_an_unseen_call_has_used_since_a_flush_is_a_row_of_its_own(recording, ledger):
    with spanledger.track_usage(**GPT) as call:
        call.set_usage(input_tokens=9, output_tokens=9)
        assert spanledger.flush()
        call.set_usage(input_tokens=20, output_tokens=20)
    assert sorted(ledger("input_tokens")) == [(9,), (11,)]
