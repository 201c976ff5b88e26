"""The gate before SQLite: a fork waits for who is inside, and nobody for ever."""

import threading

from spanledger.recording.forking import Gate


def inside(gate, entered, leave):
    with gate, gate:
        entered.set()
        leave.wait()


def test_a_fork_waits_until_nobody_is_inside_and_then_nobody_enters():
    gate, entered, leave = Gate(), threading.Event(), threading.Event()
    first = threading.Thread(target=inside, args=(gate, entered, leave))
    first.start()
    entered.wait()
    threading.Timer(0.2, leave.set).start()
    gate.before_fork()
    assert leave.is_set()
    second_entered = threading.Event()
    second = threading.Thread(target=inside, args=(gate, second_entered, leave))
    second.start()
    assert not second_entered.wait(0.2)
    gate.after_fork()
    assert second_entered.wait(20)
    for thread in (first, second):
        thread.join()


def test_neither_a_fork_nor_who_wants_to_enter_waits_for_ever():
    gate, entered, leave = Gate(), threading.Event(), threading.Event()
    stuck = threading.Thread(target=inside, args=(gate, entered, leave))
    stuck.start()
    entered.wait()
    gate.before_fork()
    with gate:  # the thread that forks, as a signal handler of it would
        pass
    other = threading.Event()
    late = threading.Thread(target=inside, args=(gate, other, leave))
    late.start()  # as whoever is waited for by another hook before the fork
    assert other.wait(20)
    gate.after_fork()
    leave.set()
    for thread in (stuck, late):
        thread.join()


def test_an_end_of_a_fork_whose_begin_was_not_seen_changes_nothing():
    gate = Gate()
    gate.after_fork()
    with gate:
        gate.before_fork()
        gate.after_fork()
