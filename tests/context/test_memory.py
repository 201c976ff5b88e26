"""What scopes leave behind: nothing, however many there were one after the other."""

import asyncio
import gc
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest

import spanledger
from spanledger import attribution
from spanledger.context.asgi import AttributionMiddleware
from spanledger.context.scope import Frame, current

MOST = 50
"""Frames that may live at a time."""
TIMES = 3000


def alive():
    gc.collect()
    return sum(type(each) is Frame for each in gc.get_objects())


@pytest.fixture(autouse=True)
def few_at_first():
    spanledger.configure()
    assert alive() < MOST


def test_twenty_thousand_scopes_leave_none():
    reused = attribution(feature="chat")
    for number in range(20_000):
        with attribution(user_id=f"u{number}"), reused:
            pass
    assert alive() < MOST


def test_twenty_thousand_calls_of_a_decorated_function_leave_none():
    @attribution(feature="chat")
    def called():
        return current().feature

    assert {called() for _ in range(20_000)} == {"chat"}
    assert alive() < MOST


def test_a_chain_of_tasks_that_start_each_other_holds_few():
    async def task(number):
        with attribution(user_id=f"u{number}"):
            if number < TIMES:
                tasks.append(asyncio.create_task(task(number + 1)))
            else:
                found.append((current().user_id, alive()))

    async def main():
        tasks.append(asyncio.create_task(task(0)))
        while tasks:
            await tasks.popleft()

    tasks, found = deque(), []
    asyncio.run(main())
    [(user, lived)] = found
    assert (user, lived < MOST) == (f"u{TIMES}", True)


def test_a_chain_of_tasks_that_start_the_next_after_their_scope_holds_few():
    async def task(number):
        with attribution(user_id=f"u{number}"):
            await asyncio.sleep(0)
        if number < TIMES:
            return asyncio.create_task(task(number + 1))
        return None

    async def main():
        following = asyncio.create_task(task(0))
        while following is not None:
            last, following = following, await following
        assert last.done()
        return alive()

    assert asyncio.run(main()) < MOST


@pytest.mark.parametrize("scoped", [True, False], ids=["each in a scope of its own", "in none"])
def test_a_chain_of_jobs_that_submit_each_other_holds_few(scoped):
    def job(number):
        if scoped:
            with attribution(user_id=f"u{number}"):
                after(number)
        else:
            after(number)

    def after(number):
        if number < TIMES:
            pool.submit(job, number + 1)
        else:
            found.append(alive())
            done.set()

    found, done = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with attribution(user_id="alice"):
            pool.submit(job, 0)
        assert done.wait(100)
    assert found[0] < MOST


def test_a_chain_of_jobs_in_a_scope_that_stays_open_holds_few():
    def job(number):
        if number < TIMES:
            pool.submit(job, number + 1)
        else:
            found.append(alive())
            done.set()

    found, done = [], threading.Event()
    with ThreadPoolExecutor(1) as pool, attribution(user_id="alice"):
        pool.submit(job, 0)
        assert done.wait(100)
    assert found[0] < MOST


def test_requests_that_start_the_next_one_hold_few():
    async def serve(scope, receive, send):
        number = scope["number"]
        assert current().user_id == f"u{number}"
        with attribution(feature="chat"):
            if number < TIMES:
                tasks.append(asyncio.create_task(app({"type": "http", "number": number + 1}, receive, send)))
            else:
                found.append((current().user_id, current().feature, alive()))

    async def main():
        tasks.append(asyncio.create_task(app({"type": "http", "number": 0}, None, None)))
        while tasks:
            await tasks.popleft()

    app = AttributionMiddleware(serve, lambda scope: {"user_id": f"u{scope['number']}"})
    tasks, found = deque(), []
    asyncio.run(main())
    [(user, feature, lived)] = found
    assert (user, feature, lived < MOST) == (f"u{TIMES}", "chat", True)
