"""Brackets: whatever is told and reported in them, in whatever order, no call of ours is lost or changed, and a report
adds nothing that a call covers."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recording.test_settling import FRAMEWORK, OURS, SDK, Clock, Room, telling, told_by

from spanledger.model import Cost, Usage, record_id_at
from spanledger.recording.bracket import Bracket
from spanledger.recording.settling import HELD, WINDOW, Settling
from spanledger.recording.telling import Rank

BY_HAND = "spanledger.manual"
COUNTS = ((10, 5), (20, 7), (30, 12))
_ids = itertools.count(10**9)


def new_id():
    return record_id_at(next(_ids) * 10**6)


def call_in(bracket, counts=(10, 5), teller=OURS, **more):
    return replace(telling(teller, counts=counts, **more), bracket=bracket)


def report_of(bracket, counts=(10, 5), record_id=None, usage=None, **more):
    made = telling(BY_HAND, counts=counts, usage=usage, rank=Rank.MANUAL, record_id=record_id or new_id(), **more)
    return replace(made, bracket=bracket)


def counts_of(record):
    return record.usage.input_tokens, record.usage.output_tokens


def ours_among(records):
    return sorted(counts_of(each) for each in records if each.source == OURS)


def finished(room, *brackets):
    for each in brackets:
        each.ended = True
        room.settling.release(each)
    return room.final()


# One by one.


def test_a_report_of_equal_counts_adds_its_label_and_cost_and_no_row():
    room, bracket = Room(), Bracket()
    cost = Cost(7, {"stated": 7}, "USD", "manual", "priced")
    assert room.tell(call_in(bracket), report_of(bracket, cost=cost)) == ["recorded", "merged"]
    (record,) = finished(room, bracket)
    assert (record.source, told_by(record), record.cost) == (OURS, (OURS, BY_HAND), cost)


def test_a_report_of_other_counts_changes_nothing():
    room, bracket = Room(), Bracket()
    call = call_in(bracket)
    assert room.tell(call, report_of(bracket, (99, 5))) == ["recorded", "differs"]
    assert finished(room, bracket) == [call.record]


def test_a_report_of_all_calls_together_is_summed_and_changes_nothing():
    room, bracket = Room(), Bracket()
    calls = [call_in(bracket, counts, span_id=f"{n:016x}") for n, counts in enumerate(COUNTS)]
    assert room.tell(*calls, report_of(bracket, (60, 24)))[-1] == "summed"
    assert sorted(map(counts_of, finished(room, bracket))) == sorted(COUNTS)


def test_a_report_is_of_nothing_outside_its_bracket():
    room, here, there = Room(), Bracket(), Bracket()
    outside = telling(OURS, counts=(10, 5))
    assert room.tell(outside, call_in(there), report_of(here)) == ["recorded"] * 3
    assert sorted(each.source for each in finished(room, here, there)) == [OURS, OURS, BY_HAND]


def test_a_report_that_was_faster_than_its_call_keeps_its_id_and_has_the_calls_numbers():
    room, bracket = Room(), Bracket()
    first = report_of(bracket)
    assert room.tell(first, call_in(bracket, after=1, response_id="r")) == ["recorded", "merged"]
    (record,) = finished(room, bracket)
    assert (record.record_id, record.source, record.response_id) == (first.record.record_id, OURS, "r")


def test_a_report_while_its_call_was_under_way_gives_way_to_other_counts():
    room, bracket = Room(), Bracket()
    assert room.tell(report_of(bracket, (1, 1), lasts=2.0), call_in(bracket, after=0.5)) == ["recorded", "merged"]
    (record,) = finished(room, bracket)
    assert (record.source, counts_of(record)) == (OURS, (10, 5))


def test_a_report_later_than_records_are_held_makes_no_row():
    room, bracket = Room(), Bracket()
    call = call_in(bracket)
    room.tell(call)
    room.clock.now += HELD
    assert room.settling.due() == [call.record]
    assert room.tell(report_of(bracket)) == ["late"]
    assert finished(room, bracket) == [call.record]


def test_a_call_later_than_its_reports_record_was_held_makes_no_row():
    room, bracket = Room(), Bracket()
    first = report_of(bracket)
    room.tell(first)
    room.clock.now += HELD
    assert room.settling.due() == [first.record]
    assert room.tell(call_in(bracket)) == ["late"]
    assert finished(room, bracket) == [first.record]


@pytest.mark.parametrize("others", [False, True])
def test_a_bracket_holds_its_records_and_its_end_lets_them_go(others):
    room, bracket = Room(others), Bracket()
    call = call_in(bracket)
    room.tell(call)
    room.clock.now += HELD - 1
    assert room.settling.due() == []
    room.settling.release(bracket)
    room.clock.now += WINDOW if others else 0
    assert room.settling.due() == [call.record]
    assert room.settling.next_due is None


def test_a_report_whose_merge_can_not_be_kept_leaves_the_call_as_it_was():
    settling, bracket = Settling(lambda: False, Clock()), Bracket()
    call = call_in(bracket)
    outcome = settling.admit(call)
    settling.completed(outcome, call.record)
    settling.abandon(settling.admit(report_of(bracket)))
    settling.release(bracket)
    assert settling.due() == [call.record]


# Any order.


@st.composite
def told(draw):
    """Calls of ours in some brackets, some of them told by others, too; a report of each bracket, perhaps in parts."""
    brackets = [Bracket() for _ in range(draw(st.integers(1, 3)))]
    steps, calls, reported = [], [], []
    for number in range(draw(st.integers(0, 6))):
        bracket, counts = draw(st.sampled_from(brackets)), draw(st.sampled_from(COUNTS))
        place = {"trace_id": f"{number:032x}", "response_id": f"r{number}", "after": draw(st.sampled_from([0.0, 50.0]))}
        calls.append((bracket, counts))
        steps.append(call_in(bracket, counts, span_id="2" * 16, **place))
        others = draw(st.lists(st.sampled_from([SDK, FRAMEWORK]), unique=True))
        steps += [call_in(bracket, counts, teller, span_id="2" * 16, **place) for teller in others]
    for bracket in brackets:
        counts = draw(st.none() | st.sampled_from([*COUNTS, (99, 1)]))
        if counts is not None:
            reported.append((bracket, counts))
            same = new_id()
            steps += [report_of(bracket, counts, same) for _ in range(draw(st.integers(1, 3)))]
    return brackets, draw(st.permutations(steps)), calls, reported


@given(told(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_in_any_order_no_call_of_ours_is_lost_or_changed_and_no_covered_report_is_a_row(drawn, others):
    brackets, steps, calls, reported = drawn
    room = Room(others)
    room.tell(*steps)
    final = finished(room, *brackets)
    assert ours_among(final) == sorted(counts for _, counts in calls)
    covered = [(bracket, counts) for bracket, counts in reported if (bracket, counts) in calls]
    assert len(final) <= len(calls) + len(reported) - len(covered)
    for place in (0, 1):
        most = sum(counts[place] for _, counts in calls)
        most += sum(counts[place] for each, counts in reported if (each, counts) not in covered)
        assert sum(counts_of(each)[place] for each in final) <= most


@given(told())
@settings(max_examples=100, deadline=None)
def test_reports_after_all_calls_add_no_row_but_where_their_bracket_has_none(drawn):
    brackets, steps, calls, reported = drawn
    room = Room()
    room.tell(*sorted(steps, key=lambda each: each.rank is Rank.MANUAL))
    final = finished(room, *brackets)
    empty = [counts for bracket, counts in reported if bracket not in [each for each, _ in calls]]
    assert ours_among(final) == sorted(counts for _, counts in calls)
    assert sorted(counts_of(each) for each in final if each.source == BY_HAND) == sorted(empty)
    assert len(final) == len(calls) + len(empty)


@given(
    st.lists(st.sampled_from(COUNTS), max_size=4), st.sampled_from(COUNTS), st.booleans(), st.integers(0, 4),
    st.sampled_from([OURS, SDK]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_counts_told_in_parts_come_to_the_same_as_counts_told_at_once(calls, counts, input_first, before, teller):
    """The parts of a report between the same calls, and after them."""

    def come_to(*parts):
        room, bracket, same = Room(), Bracket(), new_id()
        tellings = [call_in(bracket, each, teller, response_id=f"r{n}", after=n) for n, each in enumerate(calls)]
        usages = [Usage(**part, usage_status="partial" if len(part) == 1 else "reported") for part in parts]
        room.tell(*tellings)
        room.tell(*(report_of(bracket, record_id=same, usage=each, after=before) for each in usages))
        return sorted((each.source, told_by(each), counts_of(each)) for each in finished(room, bracket))

    whole = {"input_tokens": counts[0], "output_tokens": counts[1]}
    name = "input_tokens" if input_first else "output_tokens"
    at_once = come_to(whole)
    assert come_to({name: whole[name]}, whole) == at_once
    assert come_to(whole, whole) == at_once


@given(st.permutations(range(4)), st.sampled_from(COUNTS))
@settings(max_examples=50, deadline=None)
def test_equal_calls_in_brackets_of_their_own_are_each_described_by_their_own_report(order, counts):
    room, brackets = Room(), [Bracket() for _ in range(4)]
    room.tell(*(call_in(brackets[n], counts, response_id=f"r{n}") for n in order))
    assert room.tell(*(report_of(brackets[n], counts) for n in reversed(order))) == ["merged"] * 4
    final = finished(room, *brackets)
    assert [told_by(each) for each in final] == [(OURS, BY_HAND)] * 4
    assert sorted(each.response_id for each in final) == ["r0", "r1", "r2", "r3"]


@given(told(), st.lists(st.integers(0, 30), max_size=4), st.lists(st.floats(0, 80), max_size=4))
@settings(max_examples=200, deadline=None)
def test_time_that_passes_in_between_loses_no_call_of_ours_and_never_tells_of_one_twice(drawn, places, waits):
    brackets, steps, calls, reported = drawn
    room, settled = Room(), []
    pauses = dict(zip(places, waits, strict=False))
    for number, step in enumerate(steps):
        room.tell(step)
        room.clock.now += pauses.get(number, 0)
        settled += room.settling.due()
    for each in brackets:
        room.settling.release(each)
    settled += room.settling.due(all_of_them=True)
    ids = [each.record_id for each in settled]
    assert len(ids) == len(set(ids))
    assert {each.record_id for each in settled} == set(room.records)
    uncovered = [each for each in reported if each not in calls]
    assert len(settled) <= len(calls) + len(uncovered)
    assert len(settled) >= len(calls)
    assert room.settling.next_due is None


def test_a_report_that_a_span_around_it_has_told_of_too_is_in_nobodys_way():
    room, bracket = Room(), Bracket(whole=True)
    report = report_of(bracket, (10, 5), trace_id="1" * 32)
    report = replace(report, record=replace(report.record, parent_span_id="2" * 16))
    around = telling(FRAMEWORK, counts=(10, 5), trace_id="1" * 32, span_id="2" * 16)
    assert room.tell(report, around) == ["recorded", "merged"]
    assert room.tell(call_in(bracket, (20, 7), response_id="r", after=1)) == ["recorded"]
    assert sorted(map(counts_of, finished(room, bracket))) == [(10, 5), (20, 7)]
