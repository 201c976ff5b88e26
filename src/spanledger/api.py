"""What an application says of its calls by hand, and what it asks: `track`, `track_usage`, `usage_of`, `get_usage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from spanledger.assembly import current, prices_of, running, sink_names
from spanledger.guard import failed
from spanledger.settings import read_settings

if TYPE_CHECKING:
    from datetime import datetime

    from spanledger.manual.block import Block
    from spanledger.manual.desk import Desk
    from spanledger.manual.response import ResponseUsage
    from spanledger.model import UsageRecord

_QUESTION_WAIT: Final = 5.0


def track(**said: Any) -> UsageRecord:
    """Record a call that can't be seen; the record, with its price (`cost_usd`).

    `provider` in OpenTelemetry's spelling, `model`, counts and attribution by the ledger's column names
    (`input_tokens`, `user_id`, …), `cost_usd` where it is known, `started_at` (aware), `duration_ms`, `status`,
    `label`, `metadata`. What is no count makes the usage `invalid`. The first call waits some 0.5 s for the price list.
    Raises `TypeError` for a name there is none of, `ValueError` for a moment or a status that is none.
    """
    return track_as(None, said)


def track_as(record_id: str | None, said: dict[str, Any]) -> UsageRecord:
    """The same under a record id that the caller gives: what comes twice is kept once."""
    here = desk()
    if here is None:
        from spanledger.manual import report  # noqa: PLC0415  # with the first report

        report.checked(said)
        return report.record_of(said, report.moment_of(said), record_id)
    return here.track(said, record_id)


def describe(said: dict[str, Any]) -> UsageRecord | None:
    """Report a call that has ended in this context, if one with these counts was seen here; else `None`.

    Only where `expect_reports` was called before. Raises as `track` does.
    """
    here = desk()
    return None if here is None else here.describe(said)


def expect_reports() -> None:
    """From now on calls are reported by hand after they have ended: each waits 2 s for that."""
    runtime = running()
    if runtime is not None:
        runtime.engine.reported_after = True


def track_usage(**said: Any) -> Block:
    """A block, sync or async, in which a model is called: it is timed, and what it says is recorded.

    `with track_usage(model=…, provider=…) as call:` takes what `track` takes, and `call.set_usage(input_tokens=…)` what
    is known later. Calls that are recorded in it are the ones it is about: equal counts add a label and a stated cost
    to them, other counts change nothing, and where none is recorded the block is a call. `call.record` has the cost
    once it has ended.
    Raises `TypeError`, `ValueError` as `track` does.
    """
    from spanledger.manual.block import Block  # noqa: PLC0415  # as above

    return Block(desk(), said)


def desk() -> Desk | None:
    """Where reports go; `None` if everything is switched off."""
    runtime = running()
    if runtime is None:
        return None
    if runtime.desk is None:
        from spanledger.manual.desk import Desk  # noqa: PLC0415  # as above

        engine = runtime.engine
        runtime.desk = Desk(
            tracer=engine.telemetry.tracer,
            prices=engine.prices,
            price=runtime.completion.price,
            record=engine.record,
            span_keys=engine.span_keys,
            engine=engine,
        )
    return runtime.desk


def usage_of(response: Any, *, provider: str | None = None, model: str | None = None) -> ResponseUsage:
    """What an answer of a model SDK, or its JSON, has used: tokens, searches, and the cost by its parts.

    `provider` and `model` where the answer does not tell them: an OpenAI client may have asked somebody else. It is
    priced as of now. Raises `TypeError` for what is no answer.
    """
    from spanledger.manual import response as answers  # noqa: PLC0415  # with the first one

    runtime = running()
    prices = prices_of(read_settings()) if runtime is None else runtime.engine.prices
    return answers.usage_of(response, prices.wait(), provider=provider, model=model)


def get_usage(
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    *,
    by: str | Sequence[str] = (),
    period: str = "month",
    timezone: str = "UTC",
    **where: str | None,
) -> dict[str, Any]:
    """What the ledger comes to, from `start` (included) to `end` (not): a plain dictionary for JSON.

    `total_requests`, `total_tokens`, `total_cost` in USD, `current_period`, `by_provider`, `by_model`, `by_<key>` for
    each key of `by`; `where` names keys and values (`user_id="u1"`, `None` for rows without). `start` and `end` are
    aware datetimes or texts (`2026-11-01`, `7d`). `period` is `day`, `week`, `month`, `year` in `timezone`, or `30d`
    and the like. Costs are floats; requests without a price are counted in `unpriced_requests`. What this process has
    recorded is delivered first, for at most 5 s, but for calls in blocks that are open.
    Raises `ValueError` for what there is none of, `spanledger.LedgerError` where the ledger can't be read.
    """
    from spanledger.ledger import asking  # noqa: PLC0415  # with the first question

    runtime = current()
    if runtime is not None:
        runtime.recorder.flush(_QUESTION_WAIT, held=False)
    keys = (by,) if isinstance(by, str) else tuple(by)
    settings = read_settings() if runtime is None else runtime.settings
    return asking.usage(settings.ledger_url, start, end, by=keys, period=period, timezone=timezone, where=where)


def ready() -> None:
    """Wait for the price list, some 0.5 s. Never raises."""
    runtime = running()
    try:
        if runtime is not None:
            runtime.engine.prices.wait()
    except Exception as error:  # noqa: BLE001  # a door
        failed("the price list", error)


def has_sink(name: str) -> bool:
    """Whether records go to this sink."""
    runtime = current()
    return runtime is not None and name in sink_names(runtime.settings)


def deliver(sink: str, timeout: float) -> bool:
    """Deliver to this sink and to the ledger what was recorded before. True if they have it in time. Never raises."""
    runtime = current()
    return runtime is None or runtime.recorder.flush(timeout, (sink, "ledger"), held=False)


def refused(sink: str, record_id: str) -> str | None:
    """Why a sink will never take a record, `None` where it may. Never raises."""
    runtime = current()
    return None if runtime is None else runtime.recorder.refused(sink, record_id)


def trouble(sink: str) -> str | None:
    """Why a sink has not taken what waits for it, "" if nothing was tried, `None` if nothing waits. Never raises."""
    runtime = current()
    return None if runtime is None else runtime.recorder.trouble(sink)
