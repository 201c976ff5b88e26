"""What the tests of hostile answers share: a provider in memory, strategies, and the comparison with the bare SDK.

`SPANLEDGER_SOAK` asks for thousands of random cases where there are otherwise some tens, always the same ones.
"""

import json
import os
import warnings

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.conftest import httpx2

import spanledger
from spanledger import guard

SOAK = bool(os.environ.get("SPANLEDGER_SOAK"))
ABSENT = type("Absent", (), {"__repr__": lambda _: "absent"})()


TOKENS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens",
    "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens",
)  # fmt: skip


def described(call):
    return "-".join(each if isinstance(each, str) else each.__name__ for each in call[:-1])


def name(way):
    return way.__name__


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces and may break off."""

    def __init__(self, pieces, error=None):
        self.pieces = pieces
        self.error = error

    def __iter__(self):
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self):
        for piece in self:
            yield piece


class Answer:
    """What the provider answers to everybody."""

    def __init__(self, body, *, status=200, kind="application/json", error=None):
        self.pieces = [body] if isinstance(body, bytes) else list(body)
        self.status = status
        self.kind = kind
        self.error = error

    def __call__(self, request):
        headers = {"content-type": self.kind} if self.kind else {}
        return httpx2.Response(self.status, headers=headers, stream=Pieces(self.pieces, self.error))


def as_json(value):
    return Answer(json.dumps(value).encode())


def as_events(*events, error=None):
    return Answer(events, kind="text/event-stream", error=error)


def event(data, kind=None):
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {kind}\n" if kind else "").encode() + f"data: {text}\n\n".encode()


def shown(value):
    """All an application can tell of a value. Through `repr`, for NaN is not itself."""
    if not hasattr(value, "model_dump"):
        return repr(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dumped = repr(value.model_dump(warnings=False))
    except Exception as error:
        dumped = type(error).__name__
    return type(value).__name__, dumped, sorted(value.model_fields_set)


class Trial:
    """An application that asks everything twice: by the bare SDK and under our watch."""

    def __init__(self, ledger, applications):
        self.ledger = ledger
        self.bare, self.watched = (each.fresh() for each in applications)
        self.known = set()

    def rows(self, calls):
        """For each call its only row, and what the bare SDK has shown."""
        calls = list(calls)
        spanledger.uninstrument()
        try:
            outcomes = [self.bare.outcome(*call) for call in calls]
        finally:
            spanledger.instrument()
        for call, (values, error) in zip(calls, outcomes, strict=True):
            ours, our_error = self.watched.outcome(*call)
            ending, expected = (
                (type(each), str(each), repr(getattr(each, "args", None))) for each in (our_error, error)
            )
            assert ending == expected, f"{described(call)}: ended with {ending} instead of {expected}"
            seen, expected = [shown(value) for value in ours], [shown(value) for value in values]
            same = seen == expected  # pytest would take its time over the difference of long ones
            assert same, f"{described(call)}: seen {str(seen)[:500]} instead of {str(expected)[:500]}"
        rows = [row for row in self.ledger() if row["record_id"] not in self.known]
        failures = dict(guard.failures)
        guard.failures.clear()  # the next case is another one
        assert not failures
        self.known.update(row["record_id"] for row in rows)
        assert len(rows) == len(outcomes)
        for row in rows:
            plausible(row)
        return [(row, values, error) for row, (values, error) in zip(rows, outcomes, strict=True)]

    def row(self, *call):
        """The only row of a call, and what the bare SDK has shown."""
        ((row, values, error),) = self.rows([call])
        return row, values, error


def plausible(row):
    assert row["usage_status"] in ("reported", "partial", "missing", "invalid")
    assert (row["status"] == "error") == (row["error_type"] is not None)
    if row["usage_status"] == "missing":
        assert [row[field] for field in TOKENS] == [None] * len(TOKENS)
        assert row["cost_pusd"] is None
        assert row["cost_status"] == "unpriced"
    if row["usage_status"] == "reported":
        assert row["cost_pusd"] is not None or row["cost_status"] == "unpriced"


def told(row):
    return {field: row[field] for field in TOKENS}


def many(examples):
    return settings(
        max_examples=5000 if SOAK else examples,
        derandomize=not SOAK,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


COUNT = st.one_of(
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([10**9, 10**9 + 1, 2**63, -(2**63), 10**30, 10**300, 9.0, "9", "", [], {}, [3], {"n": 3}]),
        st.floats(),
    ),
)


RUBBISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec="utf-8"), max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé_ ", max_size=4), inner, max_size=3),
    max_leaves=6,
)


def as_object(value):
    return value if isinstance(value, dict) else {"rubbish": value}
