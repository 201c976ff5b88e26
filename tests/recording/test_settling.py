"""Once: several tellers of one call make one record, in whatever order they come; memory stays bounded."""

import itertools
import operator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanledger.model import Attribution, Cost, Usage, UsageRecord, record_id_at
from spanledger.recording import settling as module
from spanledger.recording.settling import WINDOW, Settling
from spanledger.recording.telling import Rank, Telling, merged, same_counts, same_model, same_provider

START = datetime(2026, 1, 1, tzinfo=UTC)
TELLERS = {
    "spanledger": Rank.OURS,
    "com.anthropic.sdk.python": Rank.SDK_NATIVE,
    "opentelemetry.instrumentation.openai_v2": Rank.SDK_LEVEL,
    "litellm": Rank.GATEWAY,
    "pydantic-ai": Rank.FRAMEWORK,
}
OURS, NATIVE, SDK, GATEWAY, FRAMEWORK = TELLERS
INDEXES = ("_by_response", "_by_span", "_by_within", "_by_counts")
_numbers = itertools.count(1)


def usage_of(counts, **more):
    if counts is None:
        return Usage(**more)
    return Usage(input_tokens=counts[0], output_tokens=counts[1], **{"usage_status": "reported", **more})


def telling(
    teller=SDK, *, counts=(10, 5), after=0.0, lasts=1.0, final=True, within=None, rank=None, usage=None, **fields
):
    given_ = {
        "record_id": record_id_at(next(_numbers)),
        "started_at": START + timedelta(seconds=after),
        "duration_ns": round(lasts * 1e9),
        "operation": "chat",
        "provider": "openai",
        "request_model": "gpt-4o",
        "source": teller,
        "usage": usage or usage_of(counts),
    }
    return Telling(UsageRecord(**{**given_, **fields}), TELLERS[teller] if rank is None else rank, within, final)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Room:
    """A settling with a clock of its own, its outcomes, and the records as they became final."""

    def __init__(self, others=True):
        self.clock = Clock()
        self.settling = Settling(lambda: others, self.clock)
        self.records = {}

    def tell(self, *tellings):
        names = []
        for each in tellings:
            outcome = self.settling.admit(each)
            if outcome.record is not None:
                self.settling.completed(outcome, outcome.record)
                self.records[outcome.record.record_id] = outcome.record
            for gone in outcome.dropped:
                del self.records[gone]
            names.append(outcome.name)
        return names

    def final(self):
        for record in self.settling.due(all_of_them=True):
            assert self.records[record.record_id] == record
        return list(self.records.values())


def told_by(record):
    return record.told_by or (record.source,)


def totals(records):
    return (
        len(records),
        sum(record.usage.input_tokens or 0 for record in records),
        sum(record.usage.output_tokens or 0 for record in records),
    )


def groups(records):
    return sorted((tuple(sorted(told_by(each))), each.response_id, each.usage.input_tokens) for each in records)


# Two of one call.


def test_two_tellers_with_one_response_id_make_one_record_in_whatever_thread_or_trace():
    room = Room()
    assert room.tell(
        telling(SDK, response_id="r", trace_id="a" * 32, span_id="1" * 16),
        telling(GATEWAY, response_id="r", trace_id="b" * 32, span_id="2" * 16, after=1.5),
    ) == ["recorded", "merged"]
    (record,) = room.final()
    assert (record.source, record.told_by, record.merged_by) == (SDK, (SDK, GATEWAY), "response_id")
    assert (record.trace_id, record.span_id) == ("a" * 32, "1" * 16)
    assert totals([record]) == (1, 10, 5)


def test_the_same_span_again_is_repeated_and_changes_nothing():
    room = Room()
    first = telling(response_id="r", trace_id="a" * 32, span_id="1" * 16)
    assert room.tell(first, first, telling(response_id="r", trace_id="a" * 32, span_id="1" * 16)) == [
        "recorded",
        "repeated",
        "repeated",
    ]
    assert room.final() == [first.record]
    assert room.tell(first) == ["repeated"]


def test_a_server_that_answers_one_id_many_times_has_as_many_rows():
    room = Room()
    tellings = [telling(teller, response_id="c", after=n) for n in range(200) for teller in (SDK, OURS)]
    assert set(room.tell(*tellings)) == {"recorded", "merged"}
    assert totals(room.final()) == (200, 2000, 1000)
    assert {told_by(each) for each in room.records.values()} == {(SDK, OURS)}


def test_our_own_records_never_merge_with_each_other():
    room = Room()
    same = {"response_id": "r", "trace_id": "a" * 32}
    assert room.tell(*(telling(OURS, span_id=f"{n:016x}", **same) for n in range(5))) == ["recorded"] * 5
    assert totals(room.final()) == (5, 50, 25)


@pytest.mark.parametrize(
    "other",
    [
        {"provider": "anthropic"},
        {"request_model": "gpt-4o-mini"},
        {"counts": (11, 50)},
        {"provider": "anthropic", "request_model": None},
    ],
)
def test_the_same_id_of_another_provider_model_or_count_stays_two_rows(other):
    room = Room()
    assert room.tell(telling(SDK, response_id="r"), telling(FRAMEWORK, response_id="r", **other)) == ["recorded"] * 2
    assert len(room.final()) == 2


def test_two_providers_that_both_speak_openai_are_two_providers():
    assert same_provider("openai", "groq")
    assert same_provider("groq", "openrouter")
    assert not same_provider("groq", "deepseek")
    assert not same_provider("aws.bedrock", "azure.ai.inference")
    room = Room()
    room.tell(telling(SDK, response_id="r", provider="groq"), telling(GATEWAY, response_id="r", provider="deepseek"))
    assert sorted(each.provider for each in room.final()) == ["deepseek", "groq"]


def test_names_of_one_model():
    def one(*names):
        return frozenset(names)

    assert same_model(one("gpt-4o"), one("gpt-4o-2024-08-06"))
    assert same_model(one("gpt-4o"), one())
    assert not same_model(one("gpt-4o"), one("gpt-4o-mini"))
    assert not same_model(one("gpt-4"), one("gpt-4o"))
    assert not same_model(one("o1"), one("o1-mini"))


def test_cache_and_reasoning_left_out_by_one_teller_is_the_same_call():
    whole = Usage(
        input_tokens=110, output_tokens=25, cache_read_tokens=100, reasoning_tokens=20, usage_status="reported"
    )
    assert same_counts(whole, usage_of((10, 5)))
    assert not same_counts(whole, usage_of((50, 5)))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nesting_knows_children_that_end_after_their_parents(order):
    trace = "a" * 32
    outer = telling(FRAMEWORK, trace_id=trace, span_id="1" * 16, counts=None, request_model=None)
    middle = telling(SDK, trace_id=trace, span_id="2" * 16, within="1" * 16, response_id="r")
    inner = telling(OURS, trace_id=trace, span_id="3" * 16, parent_span_id="2" * 16, response_id="r")
    room = Room()
    room.tell(*((outer, middle, inner)[each] for each in order))
    assert groups(room.final()) == [(tuple(sorted((FRAMEWORK, SDK, OURS))), "r", 10)]


def test_a_fallback_by_counts_needs_overlap_in_time_and_says_so():
    room = Room()
    room.tell(telling(SDK, response_id="r1", after=0), telling(FRAMEWORK, after=0.5), telling(GATEWAY, after=30))
    assert sorted((told_by(each), each.merged_by or "") for each in room.final()) == [
        ((GATEWAY,), ""),
        ((SDK, FRAMEWORK), "counts"),
    ]


def test_a_telling_without_numbers_is_known_by_the_time_it_encloses():
    room = Room()
    room.tell(telling(SDK, response_id="r", after=0.1, lasts=0.5), telling(FRAMEWORK, counts=None, lasts=1))
    (record,) = room.final()
    assert (record.merged_by, record.told_by) == ("time", (SDK, FRAMEWORK))
    assert totals([record]) == (1, 10, 5)


# Contradictions: what is of another answer does not join, whatever else has joined before.


def test_a_teller_without_id_does_not_open_the_door_to_another_answer_by_counts():
    room = Room()
    room.tell(
        telling(FRAMEWORK),
        telling(OURS, response_id="r1"),
        telling(SDK, response_id="r2"),
        telling(OURS, response_id="r2"),
        telling(SDK, response_id="r1"),
        telling(FRAMEWORK),
    )
    found = sorted((each.response_id, tuple(sorted(told_by(each)))) for each in room.final())
    assert found == [(each, tuple(sorted((OURS, SDK, FRAMEWORK)))) for each in ("r1", "r2")]
    facts = [{told.response_id for told in call.told.values()} - {None} for call in room.settling._known]
    assert sorted(map(sorted, facts)) == [["r1"], ["r2"]]


def test_a_teller_without_numbers_does_not_open_the_door_to_another_answer_by_time():
    room = Room()
    room.tell(
        telling(FRAMEWORK, counts=None, lasts=2),
        telling(OURS, response_id="r1", counts=(10, 5), after=0.1),
        telling(SDK, response_id="r2", counts=(20, 7), after=0.1),
        telling(OURS, response_id="r2", counts=(20, 7), after=0.1),
        telling(SDK, response_id="r1", counts=(10, 5), after=0.1),
    )
    assert totals(room.final()) == (2, 30, 12)


def test_a_parent_without_id_does_not_open_the_door_to_the_second_of_its_calls():
    trace, outer = {"trace_id": "a" * 32}, "1" * 16
    room = Room()
    room.tell(
        telling(FRAMEWORK, counts=None, span_id=outer, **trace),
        telling(SDK, response_id="r1", counts=(10, 5), span_id="2" * 16, within=outer, **trace),
        telling(GATEWAY, response_id="r2", counts=(20, 7), span_id="3" * 16, within=outer, **trace),
        telling(SDK, response_id="r2", counts=(20, 7), span_id="4" * 16, within=outer, **trace),
        telling(GATEWAY, response_id="r1", counts=(10, 5), span_id="5" * 16, within=outer, **trace),
    )
    assert totals(room.final()) == (2, 30, 12)


def test_a_bridge_between_two_open_calls_joins_them():
    """B shares the id with A and the place with C; A and C know nothing of each other."""
    trace = "a" * 32
    tellings = [
        telling(GATEWAY, response_id="r", trace_id="b" * 32, span_id="9" * 16),
        telling(FRAMEWORK, counts=None, request_model=None, trace_id=trace, span_id="1" * 16),
        telling(SDK, response_id="r", trace_id=trace, span_id="2" * 16, within="1" * 16),
    ]
    found = set()
    for order in itertools.permutations(tellings):
        room = Room()
        room.tell(*order)
        found.add(str(groups(room.final())))
    assert len(found) == 1


# What they say together.


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_numbers_go_by_rank_even_if_the_highest_teller_has_none(order):
    tellings = (
        telling(OURS, response_id="r", usage=Usage()),
        telling(SDK, response_id="r", usage=usage_of((110, 5), cache_read_tokens=100)),
        telling(FRAMEWORK, response_id="r", usage=usage_of((10, 5), cache_read_tokens=100)),
    )
    room = Room()
    room.tell(*(tellings[each] for each in order))
    (record,) = room.final()
    assert (record.usage.input_tokens, record.usage.cache_read_tokens) == (110, 100)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_attribution_is_filled_from_the_nearest_teller_that_has_it(order):
    def whose(**keys):
        return {"attribution": Attribution(**keys), "response_id": "r"}

    tellings = (
        telling(OURS, **whose(team="a")),
        telling(SDK, **whose(team="b", user_id="near", metadata={"k": 1})),
        telling(FRAMEWORK, **whose(user_id="far", session_id="s", metadata={"k": 2, "l": 3})),
    )
    room = Room()
    room.tell(*(tellings[each] for each in order))
    (record,) = room.final()
    assert record.attribution == Attribution(team="a", user_id="near", session_id="s", metadata={"k": 1, "l": 3})


def test_a_place_in_a_trace_is_taken_whole_or_not_at_all():
    ours = telling(OURS, response_id="r", trace_id="a" * 32, span_id=None, parent_span_id="1" * 16)
    theirs = telling(GATEWAY, response_id="r", trace_id="b" * 32, span_id="2" * 16, parent_span_id="3" * 16)
    record = merged([ours, theirs], "response_id")
    assert (record.trace_id, record.span_id, record.parent_span_id) in {
        ("a" * 32, None, "1" * 16),
        ("b" * 32, "2" * 16, "3" * 16),
    }
    root = telling(OURS, response_id="r", trace_id="a" * 32, span_id="4" * 16)
    record = merged([root, theirs], "response_id")
    assert (record.trace_id, record.span_id, record.parent_span_id) == ("a" * 32, "4" * 16, None)


def test_a_success_has_no_error_though_a_framework_failed_after_it():
    ours = telling(OURS, response_id="r")
    theirs = telling(FRAMEWORK, response_id="r", status="error", error_type="ValidationError")
    record = merged([ours, theirs], "response_id")
    assert (record.status, record.error_type) == ("success", None)


def test_a_price_stands_only_for_the_usage_it_was_made_of():
    cost = Cost(cost_pusd=7, cost_status="priced", cost_source="local")
    same = merged([telling(OURS, cost=cost), telling(SDK)], "counts")
    assert same.cost == cost
    more = telling(SDK, usage=usage_of((10, 5), cache_read_tokens=4))
    assert merged([telling(OURS, cost=cost), more], "counts").cost is None


usages = st.builds(
    Usage,
    input_tokens=st.none() | st.integers(0, 50),
    output_tokens=st.none() | st.integers(0, 50),
    cache_read_tokens=st.none() | st.integers(0, 50),
    reasoning_tokens=st.none() | st.integers(0, 50),
    web_searches=st.none() | st.integers(0, 3),
    usage_status=st.sampled_from(("missing", "invalid", "estimated", "partial", "reported")),
)


@given(usages, usages, st.permutations([OURS, SDK, FRAMEWORK]))
@settings(max_examples=60, deadline=None)
def test_a_merge_never_adds(one, other, tellers):
    together = merged([telling(tellers[0], usage=one), telling(tellers[1], usage=other)], "span").usage
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "web_searches"):
        said = {getattr(one, name), getattr(other, name)}
        assert getattr(together, name) in said


# Any order.


@st.composite
def told_calls(draw):
    """Tellings of distinct calls: each with an id of its own, by one to five tellers, in places and traces of all
    kinds; equal counts are common. Tellings in any order."""
    tellings, calls = [], draw(st.integers(1, 4))
    for call in range(calls):
        counts = draw(st.sampled_from([(10, 5), (20, 7)]))
        tellers = draw(st.lists(st.sampled_from(list(TELLERS)), min_size=1, max_size=5, unique=True))
        for number, teller in enumerate(tellers):
            own_trace = draw(st.booleans())
            tellings.append(
                (
                    call,
                    telling(
                        teller,
                        counts=counts,
                        response_id=f"r{call}",
                        after=draw(st.sampled_from([0.0, 0.2, 3.0])),
                        response_model=draw(st.sampled_from([None, "gpt-4o-2024-08-06"])),
                        trace_id=f"{call if own_trace else 99:032x}",
                        span_id=f"{call * 10 + number:016x}",
                        attribution=Attribution(user_id=draw(st.sampled_from([None, f"u{call}"]))),
                    ),
                )
            )
    return draw(st.permutations(tellings))


@given(told_calls())
@settings(max_examples=60, deadline=None)
def test_any_order_of_tellings_gives_the_same_records(tellings):
    room, expected = Room(), {}
    for call, each in tellings:
        expected.setdefault(call, []).append(each.record)
    room.tell(*(each for _, each in tellings))
    final = room.final()
    assert groups(final) == sorted(
        (tuple(sorted(record.source for record in records)), f"r{call}", records[0].usage.input_tokens)
        for call, records in expected.items()
    )
    for record in final:
        told = expected[int(record.response_id[1:])]
        highest = max(told, key=lambda each: TELLERS[each.source])
        assert (record.source, record.span_id) == (highest.source, highest.span_id)
        assert record.attribution.user_id == next(
            (one.attribution.user_id for one in told if one.attribution.user_id), None
        )
    assert set(room.tell(*(each for _, each in tellings if each.rank < Rank.OURS))) <= {"repeated"}
    assert room.final() == final


@given(st.lists(st.sampled_from([OURS, SDK, FRAMEWORK]), min_size=3, max_size=18), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_equal_calls_without_ids_are_as_many_as_the_busiest_teller_told(tellers, random):
    room = Room()
    tellings = [telling(teller, span_id=f"{n:016x}", trace_id="a" * 32) for n, teller in enumerate(tellers)]
    random.shuffle(tellings)
    room.tell(*tellings)
    most = max(tellers.count(each) for each in tellers)
    assert totals(room.final()) == (most, 10 * most, 5 * most)


@given(
    st.lists(
        st.builds(
            telling,
            st.sampled_from(list(TELLERS)),
            counts=st.sampled_from([None, (0, 0), (10, 5), (10, 6), (20, 7)]),
            after=st.sampled_from([0.0, 0.5, 100.0]),
            response_id=st.sampled_from([None, "r1", "r2"]),
            request_model=st.sampled_from([None, "gpt-4o", "gpt-4o-mini"]),
            provider=st.sampled_from(["openai", "anthropic", "unknown"]),
            trace_id=st.sampled_from([None, "a" * 32]),
            span_id=st.sampled_from([None, "1" * 16, "2" * 16, "3" * 16]),
            parent_span_id=st.sampled_from([None, "1" * 16, "2" * 16]),
            final=st.booleans(),
        ),
        max_size=20,
    )
)
@settings(max_examples=80, deadline=None)
def test_whatever_is_told_nothing_is_more_than_was_told_and_no_teller_counts_twice(tellings):
    room = Room()
    outcomes = room.tell(*tellings)
    final = room.final()
    joined = outcomes.count("recorded") - len(final)  # calls that a later telling has shown to be one
    assert 0 <= joined <= outcomes.count("merged") + outcomes.count("late")
    for name in ("input_tokens", "output_tokens"):
        most = sum(getattr(each.record.usage, name) or 0 for each in tellings)
        assert sum(getattr(each.usage, name) or 0 for each in final) <= most
    for record in final:
        assert len(set(told_by(record))) == len(told_by(record))
    for call in room.settling._known:
        ids = {facts.response_id for facts in call.told.values()} - {None}
        assert len(ids) <= 1 or record_spans(call) < len(call.told)


def record_spans(call):
    """Different ids in one call are only ever told of one and the same span."""
    return len({(facts.trace_id, facts.span_id) for facts in call.told.values()})


# The window.


def test_a_record_is_final_when_the_window_is_over_and_not_before():
    room = Room()
    room.tell(telling(response_id="r"))
    assert room.settling.next_due == 100 + WINDOW
    room.clock.now += WINDOW - 0.01
    assert room.settling.due() == []
    room.clock.now += 0.01
    assert room.settling.due() == list(room.records.values())
    assert (room.settling.next_due, room.settling.due(all_of_them=True)) == (None, [])


def test_a_late_telling_makes_no_second_record():
    room = Room()
    first = telling(SDK, response_id="r")
    room.tell(first)
    room.clock.now += WINDOW
    assert room.settling.due() == [first.record]
    assert room.tell(telling(OURS, response_id="r"), telling(GATEWAY, response_id="r")) == ["late", "late"]
    assert room.final() == [first.record]


@pytest.mark.parametrize(("others", "name"), [(False, "late"), (True, "merged")])
def test_ours_waits_only_where_somebody_else_tells(others, name):
    room = Room(others)
    room.tell(telling(OURS, response_id="r"))
    assert (room.settling.next_due is None) is not others
    assert room.tell(telling(SDK, response_id="r")) == [name]


def test_what_is_not_final_never_settles_and_is_still_known():
    room = Room()
    assert room.tell(telling(OURS, response_id="r", final=False), telling(SDK, response_id="r")) == ["recorded", "late"]
    assert room.settling.due(all_of_them=True) == []


# Memory.


def test_memory_is_bounded_and_what_is_forgotten_leaves_no_index(monkeypatch):
    monkeypatch.setattr(module, "MOST_KNOWN", 20)
    monkeypatch.setattr(module, "MOST_OPEN", 10)
    room, settled = Room(), 0

    def tell(n, **same):
        trace = {"trace_id": f"{n:032x}"}
        room.tell(
            telling(SDK, span_id="1" * 16, parent_span_id="2" * 16, **trace, **same),
            telling(OURS, span_id="3" * 16, parent_span_id="1" * 16, **trace, **same),
            telling(FRAMEWORK, span_id="2" * 16, **trace, **same),
        )

    for n in range(200):
        tell(n, response_id=f"r{n % 7}" if n % 3 else None, counts=(n % 5 + 1, n % 11), after=n)
        settled += len(room.settling.due())
        assert len(room.settling._known) <= 20
        assert len(room.settling._open) <= 10
    assert settled == 190
    for name in INDEXES:
        kept = getattr(room.settling, name).values()
        assert sum(len(each) if isinstance(each, list) else 1 for each in kept) <= 20 * 3
    while room.settling._known:
        room.settling._forget(room.settling._known.popleft())
    assert [getattr(room.settling, name) for name in INDEXES] == [{}, {}, {}, {}]


def test_one_id_for_ever_does_not_slow_the_writer_down():
    """A mock server answers the same id and the same counts; how much is looked at does not grow with what is known."""
    seen = []

    class Counted(dict):
        def __contains__(self, key):
            seen.append(key)
            return super().__contains__(key)

    room = Room()
    for n in range(1000):
        room.tell(telling(OURS, response_id="c", after=n))
        room.settling._known[-1].told = Counted(room.settling._known[-1].told)
    seen.clear()
    room.tell(telling(OURS, response_id="c", after=1000))
    assert len(seen) <= 800


def test_forgetting_is_by_age():
    room = Room()
    for n in range(3):
        room.tell(telling(response_id=f"r{n}", after=n * 10))
    room.settling._forget(room.settling._known.popleft())
    assert room.tell(*(telling(OURS, response_id=f"r{n}", after=n * 10) for n in range(3))) == [
        "recorded",
        "merged",
        "merged",
    ]


def test_final_records_come_in_the_order_they_were_told_in():
    room = Room()
    room.tell(*(telling(response_id=f"r{n}") for n in range(5)))
    assert list(map(operator.attrgetter("response_id"), room.settling.due(all_of_them=True))) == [
        f"r{n}" for n in range(5)
    ]


def test_a_span_around_two_attempts_is_of_the_one_with_its_counts():
    trace = "a" * 32
    inside = {"trace_id": trace, "within": "1" * 16}
    room = Room()
    room.tell(
        telling(SDK, **inside, span_id="2" * 16, counts=None, after=0),
        telling(SDK, **inside, span_id="3" * 16, response_id="r", after=1),
        telling(FRAMEWORK, trace_id=trace, span_id="1" * 16, lasts=3),
    )
    assert groups(room.final()) == [((SDK,), None, None), (tuple(sorted((FRAMEWORK, SDK))), "r", 10)]


def test_records_of_our_own_with_one_span_id_are_as_many_calls():
    room = Room()
    assert room.tell(*(telling(OURS, trace_id="a" * 32, span_id="7" * 16) for _ in range(3))) == ["recorded"] * 3


def test_a_merge_that_can_not_be_kept_leaves_the_record_as_it_was():
    settling = Settling(lambda: True, Clock())
    first = settling.admit(telling(SDK, response_id="r"))
    settling.completed(first, first.record)
    settling.abandon(settling.admit(telling(FRAMEWORK, response_id="r")))
    assert settling.due(all_of_them=True) == [first.record]
