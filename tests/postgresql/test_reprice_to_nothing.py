"""A call that has no price any more, on PostgreSQL."""

from tests.postgresql.records import asked, put, row, sink_at

from spanledger.ledger.repricing import Adjustment, apply
from spanledger.model import UNPRICED


def test_a_call_that_has_no_price_any_more_is_repriced_to_none(url):
    first = row()
    put(url, [first])
    ledger = sink_at(url)
    change = Adjustment(
        record_id=first["record_id"],
        provider="openai",
        model="gpt-4o",
        weight=1,
        old_pusd=1_500_000,
        old_status="priced",
        cost=UNPRICED,
    )
    assert apply(ledger, [change]) == 1
    ledger.close()
    assert asked(url, "SELECT current_cost_pusd, current_cost_status FROM current_costs") == [(None, "unpriced")]
