"""Reading a span never fails, whatever its attributes are; what it says of counts is in bounds or not believed."""

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import MOST_OF_A_COUNT, UNPRICED, Attribution, row_of
from spanledger.reading.dialects import DIALECTS, dialect_of
from spanledger.reading.reader import read
from spanledger.reading.values import Values

COUNTS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens",
    "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "web_searches",
)  # fmt: skip


def ended(attributes, *, name="x", scope="s", start=10**18, end=10**18 + 10**9, **more):
    return SimpleNamespace(
        **{
            "name": name,
            "attributes": attributes,
            "instrumentation_scope": InstrumentationScope(scope) if scope is not None else None,
            "context": SpanContext(1, 2, is_remote=False),
            "parent": None,
            "start_time": start,
            "end_time": end,
            "status": Status(StatusCode.UNSET),
            "events": (),
            **more,
        }
    )


def scope_in(dialect):
    return next(iter(dialect.scopes)).replace("*", "x")


def names_in(dialect):
    """Every attribute a dialect looks at."""
    tables = (dialect.fields, dialect.usage, dialect.adds, dialect.attribution)
    names = [name for table in tables for those in table.values() for name in those]
    names += [*dialect.stream, *dialect.costs, *dialect.own_ids, *dialect.estimates, *dialect.operation]
    names += [f"{start}k" for start in dialect.properties]
    names += ["gen_ai.response.finish_reasons", "gen_ai.response.time_to_first_chunk"]
    return sorted({name.partition("#")[0] for name in names})


SURROGATE = "a\ud800b"
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2 * 10**9)
    | st.sampled_from([10**9, 10**9 + 1, -1, 2**63, 10**30])
    | st.floats()
    | st.sampled_from(
        ["", "0", "12", "chat", "openai", "gpt-4o", "{", "[1", "NaN", "9" * 5000, SURROGATE, "x" * 10_000]
    )
    | st.text(max_size=20)
)
words = st.sampled_from(
    ["id", "model", "usage", "input", "output", "total", "prompt_tokens", "input_tokens", "completion_tokens",
     "cache_read_input_tokens", "prompt_tokens_details", "cached_tokens", "service_tier", "generations", "0", "message",
     "input_token_details", "cache_read", "server_tool_use", "web_search_requests"]
)  # fmt: skip
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
texts = documents.map(lambda value: json.dumps(value, default=str)) | documents.map(ascii)
values = scalars | texts | st.lists(scalars, max_size=3).map(tuple) | st.binary(max_size=5)


@st.composite
def spans(draw):
    dialect = draw(st.sampled_from(DIALECTS))
    names = names_in(dialect)
    attributes = draw(st.dictionaries(st.sampled_from(names) | st.text(max_size=5), values, max_size=12))
    attributes[dialect.operation[0]] = draw(st.sampled_from(sorted(dialect.operations)))
    provider = draw(st.sampled_from([None, "openai", "anthropic", "gcp.gemini", "aws.bedrock"]))
    if provider:
        attributes["gen_ai.provider.name"] = provider
    return dialect, ended(attributes, name=draw(st.sampled_from(["x", "chat gpt-4o"])), scope=scope_in(dialect))


def check(record):
    """What is true of every record, whatever was said."""
    row = row_of(record)
    usage = record.usage
    assert usage.usage_status in ("reported", "partial", "missing", "estimated", "invalid")
    if usage.usage_status != "invalid":
        assert {name: 0 <= (getattr(usage, name) or 0) <= MOST_OF_A_COUNT for name in COUNTS} == dict.fromkeys(
            COUNTS, True
        )
    assert all(not isinstance(each, int) or abs(each) < 2**63 for each in row.values())
    assert all(isinstance(each, (str, int, float, type(None))) for each in row.values())
    assert record.duration_ns >= 0
    assert record.claimed_cost_pusd is None or record.claimed_cost_pusd > 0
    return row


@given(spans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_attribute_value_makes_reading_fail(told):
    dialect, span = told
    telling = read(span, dialect, attribution=Attribution(team="t"))
    if telling is not None:
        check(telling.record)
        assert telling.record.attribution.team == "t"


@pytest.mark.parametrize(
    "value",
    [
        True, -1, 10**30, 10**5000, 1.5, 1e300, float("nan"), float("inf"), float("-inf"), "", "12", "{", "[" * 5000,
        "[" * 900 + "]" * 900, SURROGATE, "x" * 10_000, '{"a":' * 500 + "1" + "}" * 500, "null", "[]", '"\\ud800"',
        b"\xff", (), (1, "a", None), ({},), {"a": {"b": [1]}}, [[]], "\\d", "0777", "1if 1else 2",
    ],
    ids=lambda each: f"{type(each).__name__}-{'huge' if isinstance(each, int) else ascii(each)[:12]}",
)  # fmt: skip
def test_one_bad_value_in_every_attribute_of_every_dialect_is_no_failure(value):
    for dialect in DIALECTS:
        attributes = dict.fromkeys(names_in(dialect), value)
        attributes[dialect.operation[0]] = next(iter(dialect.operations))
        telling = read(ended(attributes, scope=scope_in(dialect)), dialect)
        if telling is not None:
            check(telling.record)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
def test_without_attributes_scope_and_parent_nothing_is_known_and_nothing_fails(dialect):
    word = next(iter(dialect.operations))
    assert dialect_of(scope_in(dialect)) is dialect
    span = ended({dialect.operation[0]: word}, scope=None)
    record = read(span, dialect).record
    assert (record.source, record.parent_span_id, record.usage.usage_status, record.response_id) == (
        "unknown",
        None,
        "missing",
        None,
    )


@pytest.mark.parametrize("attribute", ["metadata", "output.value"])
def test_deep_documents_are_no_failure_at_any_depth(attribute):
    dialect = dialect_of("openinference.instrumentation.openai")
    for depth in [*range(100, 1000, 50), *range(900, 1000, 3)]:
        lists, objects = "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth
        for deep in (lists, objects, f'{{"a":{lists}}}', f'{{"usage":{lists}}}'):
            assert read(ended({"openinference.span.kind": "LLM", attribute: deep}), dialect) is not None


@pytest.mark.parametrize("text", ["{'a': '\\d'}", "1if 1else 2", "0_0", "'\\400'", "what did (1)(2) say", "[1] (2)"])
def test_a_text_that_is_no_json_says_nothing_on_standard_error(text):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Values({"output.value": text}).first(("output.value#id",))
    assert caught == []


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(DIALECTS),
)
@example(10**9, 10**9, 10**9, 10**9, dialect_of("openlit.x"))
@settings(max_examples=60, deadline=None)
def test_sums_of_counts_stay_in_bounds_or_are_not_believed(given_, answered, cached, thoughts, dialect):
    attributes = {
        dialect.operation[0]: next(iter(dialect.operations)),
        "gen_ai.provider.name": "anthropic",
        "gen_ai.usage.input_tokens": given_,
        "gen_ai.usage.output_tokens": answered,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.reasoning_tokens": thoughts,
    }
    telling = read(ended(attributes, scope=scope_in(dialect)), dialect)
    if telling is not None:
        check(telling.record)


@pytest.mark.parametrize(("start", "end"), [(10, 5), (0, 0), (-5, 5), (10**20, 10**21), (0, 10**30), (10**18, None)])
def test_absurd_times_are_no_failure(start, end):
    dialect = dialect_of("opentelemetry.instrumentation.openai_v2")
    telling = read(ended({"gen_ai.operation.name": "chat"}, start=start, end=end), dialect)
    assert telling.record.duration_ns >= 0
    check(telling.record)


@given(st.lists(st.sampled_from([None, {}, {"exception.type": 7}, {"exception.type": "E"}]), max_size=3))
def test_events_of_any_kind_make_an_error(kinds):
    events = tuple(Event("exception", attributes=kind) for kind in kinds)
    dialect = dialect_of("opentelemetry.instrumentation.openai_v2")
    span = ended({"gen_ai.operation.name": "chat"}, events=events, status=Status(StatusCode.ERROR))
    record = read(span, dialect).record
    named = any(kind and kind.get("exception.type") == "E" for kind in kinds)
    assert (record.status, record.error_type) == ("error", "E" if named else "_OTHER")


def test_what_hostile_spans_tell_a_ledger_takes(tmp_path):
    """A row that a ledger can't take is tried again for ever and holds up all others."""
    dialect = dialect_of("com.anthropic.sdk.python")
    rows = []
    for value in (SURROGATE, "x" * 10_000, 10**30, 2**63, 1e300, float("nan"), True, -1):
        attributes = dict.fromkeys(names_in(dialect), value)
        attributes[dialect.operation[0]] = "chat"
        try:
            rows.append(row_of(replace(read(ended(attributes), dialect).record, cost=UNPRICED)))
        except (ValueError, OverflowError):
            continue  # another test's matter
    ledger = SqliteLedger(tmp_path / "ledger.db")
    for row in rows:
        ledger.send([row])
    ledger.close()


def test_what_langchain_says_of_itself_is_no_metadata():
    attributes = {
        "openinference.span.kind": "LLM",
        "metadata": '{"ls_provider": "openai", "lc_versions": {"core": "1"}, "team": "support", "tenant": "acme"}',
    }
    record = read(ended(attributes), dialect_of("openinference.instrumentation.langchain")).record
    assert (record.attribution.team, record.attribution.metadata) == ("support", {"tenant": "acme"})
