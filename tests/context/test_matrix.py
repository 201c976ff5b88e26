"""Whose each call is, in every way a call gets from one place to another: its owner's or nobody's, never another's.

Each case makes real calls, each with a label in the place of its model. Beside it stands who owns which: the user and
the feature of the row in the ledger, and how that is known.
"""

import asyncio
import contextvars
import importlib
import itertools
import json
import multiprocessing
import os
import queue
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from multiprocessing.pool import ThreadPool

import anyio.to_thread
import celery
import fakeredis
import openai
import pytest
import rq
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from openai import AsyncOpenAI, OpenAI
from rq.timeouts import TimerDeathPenalty

import spanledger
from spanledger import attribution, capture, restore, wrap_aiter, wrap_iter

web = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
CASES = []
NUMBERS = itertools.count()
LONG = 30
"""Seconds after which a case that hangs fails."""


def case(rows, propagate="executors"):
    """Put a case into the table."""

    def put(function):
        CASES.append(pytest.param(function, propagate, rows, id=function.__name__))
        return function

    return put


def answer(request):
    asked = json.loads(request.content)
    said = {"id": f"c{next(NUMBERS)}", "created": 1, "model": asked["model"], "choices": [], "usage": None}
    if not asked.get("stream"):
        return web.Response(200, json=said)
    chunks = [*(json.dumps({**said, "object": "chat.completion.chunk"}) for _ in range(3)), "[DONE]"]
    content = "".join(f"data: {chunk}\n\n" for chunk in chunks)
    return web.Response(200, content=content, headers={"content-type": "text/event-stream"})


def client():
    return OpenAI(api_key="x", http_client=web.Client(transport=web.MockTransport(answer), trust_env=False))


def async_client():
    return AsyncOpenAI(api_key="x", http_client=web.AsyncClient(transport=web.MockTransport(answer), trust_env=False))


def asking(label):
    return {"model": label, "messages": [{"role": "user", "content": "Hello"}]}


def ask(label):
    with client() as model:
        model.chat.completions.create(**asking(label))


async def ask_async(label):
    async with async_client() as model:
        await model.chat.completions.create(**asking(label))


def alice(**keys):
    return attribution(user_id="alice", **keys)


def bob(**keys):
    return attribution(user_id="bob", **keys)


def said(row):
    label, user, feature, source = row
    return label, " ".join(each for each in (user or "nobody", feature, source) if each)


# Scopes


@case({"before": "nobody", "outer": "alice search scope", "inner": "alice chat scope", "after": "nobody"})
def nested_scopes_add_up():
    ask("before")
    with alice(feature="search"):
        ask("outer")
        with attribution(feature="chat"):
            ask("inner")
    ask("after")


@case({"inner": "bob search scope", "outer again": "alice search scope"})
def the_inner_scope_wins():
    with alice(feature="search"):
        with bob():
            ask("inner")
        ask("outer again")


@case({"inner": "alice scope"})
def nothing_said_leaves_the_outer_one():
    with alice(), attribution(user_id=None, feature=""):
        ask("inner")


@case({"inside": "nobody", "inside alice's": "alice scope"})
def a_scope_that_says_nothing():
    with attribution(user_id=None, feature=""):
        ask("inside")
        with alice():
            ask("inside alice's")


@case({"inside": "alice scope", "after": "nobody"})
def an_exception_ends_a_scope():
    with pytest.raises(ZeroDivisionError), alice():
        ask("inside")
        raise ZeroDivisionError
    ask("after")


@case({"inner": "nobody chat scope", "after": "nobody"})
def the_outer_of_two_scopes_is_closed_first():
    outer, inner = alice(), attribution(feature="chat")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    ask("inner")
    inner.__exit__(None, None, None)
    ask("after")


@case({"outer": "alice scope", "after": "nobody"})
def the_inner_of_two_scopes_is_closed_first():
    outer, inner = alice(), bob()
    outer.__enter__()
    inner.__enter__()
    inner.__exit__(None, None, None)
    ask("outer")
    outer.__exit__(None, None, None)
    ask("after")


@case({"inside": "alice scope", "outside": "nobody"})
def a_context_manager_that_holds_a_scope():
    @contextmanager
    def request():
        with alice():
            yield

    with request():
        ask("inside")
    ask("outside")


@case({"inside": "alice scope", "outside": "nobody"})
def an_async_context_manager_that_holds_a_scope():
    @asynccontextmanager
    async def request():
        async with alice():
            yield

    async def main():
        async with request():
            await ask_async("inside")
        await ask_async("outside")

    asyncio.run(main())


@case({"innermost": "alice f1999 scope", "after": "nobody"})
def two_thousand_scopes_inside_each_other():
    with ExitStack() as stack:
        stack.enter_context(alice())
        for number in range(2000):
            stack.enter_context(attribution(feature=f"f{number}"))
        ask("innermost")
    ask("after")


@case({"deep inside": "alice scope", "after": "nobody"})
def a_decorated_function_that_calls_itself_350_times():
    @alice()
    def descend(depth):
        if depth:
            return descend(depth - 1)
        with ThreadPoolExecutor(1) as pool:  # a stack of its own
            return pool.submit(ask, "deep inside").result()

    descend(350)
    ask("after")


@case({"in the copy": "alice scope", "after": "nobody outlived"})
def a_copied_context():
    with alice():
        copied = contextvars.copy_context()
        copied.run(ask, "in the copy")
    copied.run(ask, "after")


@case({"in the scope": "nobody outlived", "beside": "nobody"})
def a_scope_closed_in_another_context():
    scope, copied = alice(), contextvars.copy_context()
    copied.run(scope.__enter__)
    scope.__exit__(None, None, None)
    copied.run(ask, "in the scope")
    ask("beside")


@case({"opened": "alice scope", "closed": "nobody outlived", "who closed it": "bob scope"})
def a_scope_closed_by_another_task():
    async def opening():
        scope.__enter__()
        await ask_async("opened")
        await asyncio.create_task(closing(), context=others)
        await ask_async("closed")

    async def closing():
        with bob():
            scope.__exit__(None, None, None)
            await ask_async("who closed it")

    scope, others = alice(), contextvars.copy_context()
    asyncio.run(opening())


@case({"second": "alice scope", "first, after": "nobody", "second, after": "nobody"})
def one_scope_object_of_two_tasks_at_a_time():
    async def first():
        with scope:
            one_is_in.set()
            await two_is_in.wait()
        await ask_async("first, after")
        one_is_out.set()

    async def second():
        await one_is_in.wait()
        with scope:
            two_is_in.set()
            await one_is_out.wait()
            await ask_async("second")
        await ask_async("second, after")

    async def main():
        await asyncio.gather(first(), second())

    scope, one_is_in, two_is_in, one_is_out = alice(), *(asyncio.Event() for _ in range(3))
    asyncio.run(main())


@case({"second": "alice scope", "first, after": "nobody", "second, after": "nobody"})
def one_scope_object_of_two_threads_at_a_time():
    def first():
        with scope:
            both.wait()
        ask("first, after")
        out.set()

    def second():
        with scope:
            both.wait()
            assert out.wait(LONG)
            ask("second")
        ask("second, after")

    scope, both, out = alice(), threading.Barrier(2, timeout=LONG), threading.Event()
    threads = [threading.Thread(target=each) for each in (first, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


# Tasks


@case({"inside": "alice scope", "outside": "nobody"})
def a_scope_around_asyncio_run():
    with alice():
        asyncio.run(ask_async("inside"))
    asyncio.run(ask_async("outside"))


@case({"in the task": "alice scope", "own": "bob scope", "after": "alice scope"})
def a_task():
    async def task():
        await ask_async("in the task")
        with bob():
            await ask_async("own")

    async def main():
        async with alice():
            await asyncio.create_task(task())
            await ask_async("after")

    asyncio.run(main())


@case({"a": "alice scope", "b": "bob scope", "c": "nobody"})
def gathered_coroutines():
    async def request(scope, label):
        async with scope:
            await asyncio.sleep(0)
            await ask_async(label)

    async def main():
        await asyncio.gather(request(alice(), "a"), request(bob(), "b"), ask_async("c"))

    asyncio.run(main())


@case({"one": "alice scope", "two": "bob scope", "three": "alice scope"})
def a_task_group():
    async def main():
        with alice():
            async with asyncio.TaskGroup() as group:
                group.create_task(ask_async("one"))
                with bob():
                    group.create_task(held("two"))
                    await asyncio.sleep(0)
                    await ended.wait()
                group.create_task(ask_async("three"))

    async def held(label):
        await ask_async(label)
        ended.set()

    ended = asyncio.Event()
    asyncio.run(main())


@case({"inside": "alice scope", "after": "nobody outlived"})
def a_task_that_is_forgotten():
    async def forgotten():
        await ask_async("inside")
        asked.set()
        await over.wait()
        await ask_async("after")

    async def main():
        with alice():
            task = asyncio.create_task(forgotten())
            await asked.wait()
        over.set()
        await task

    asked, over = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


@case({"while both are open": "alice chat scope", "with the outer one": "alice outlived", "at last": "nobody outlived"})
def a_task_that_outlives_the_inner_of_two_scopes():
    async def forgotten():
        await ask_async("while both are open")
        first.set()
        await inner_over.wait()
        await ask_async("with the outer one")
        second.set()
        await outer_over.wait()
        await ask_async("at last")

    async def main():
        with alice():
            with attribution(feature="chat"):
                task = asyncio.create_task(forgotten())
                await first.wait()
            inner_over.set()
            await second.wait()
        outer_over.set()
        await task

    first, second, inner_over, outer_over = (asyncio.Event() for _ in range(4))
    asyncio.run(main())


@case({"in the task": "alice outlived", "to thread": "alice outlived", "job": "alice outlived"})
def a_job_of_a_task_that_outlives_the_inner_of_two_scopes():
    async def forgotten():
        await over.wait()
        await ask_async("in the task")
        await asyncio.to_thread(ask, "to thread")
        await asyncio.get_running_loop().run_in_executor(None, ask, "job")

    async def main():
        with alice():
            with attribution(feature="chat"):
                task = asyncio.create_task(forgotten())
            over.set()
            await task

    over = asyncio.Event()
    asyncio.run(main())


@case({"in the task": "bob scope", "to thread": "bob scope", "job": "bob scope"})
def a_job_of_a_scope_of_its_own_inside_an_inherited_one_that_ends():
    async def worker():
        with bob():
            opened.set()
            await over.wait()
            await ask_async("in the task")
            await asyncio.to_thread(ask, "to thread")
            await asyncio.get_running_loop().run_in_executor(None, ask, "job")

    async def main():
        with alice():
            task = asyncio.create_task(worker())
            await opened.wait()
        over.set()
        await task

    opened, over = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


@case({"before": "alice chat scope", "while it is open": "nobody chat scope", "after": "nobody"})
def a_scope_of_its_own_inside_an_inherited_one_that_ends():
    async def worker():
        with attribution(feature="chat"):
            await ask_async("before")
            opened.set()
            await over.wait()
            await ask_async("while it is open")
        await ask_async("after")

    async def main():
        with alice():
            task = asyncio.create_task(worker())
            await opened.wait()
        over.set()
        await task

    opened, over = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


@case({"before": "nobody outlived", "own": "nobody chat scope", "after": "nobody"})
def a_scope_of_its_own_after_the_inherited_one_has_ended():
    async def worker():
        await over.wait()
        await ask_async("before")
        with attribution(feature="chat"):
            await ask_async("own")
        await ask_async("after")

    async def main():
        with alice():
            task = asyncio.create_task(worker())
        over.set()
        await task

    over = asyncio.Event()
    asyncio.run(main())


@case({"for alice": "alice scope", "for bob": "nobody outlived", "for nobody": "nobody outlived"})
def an_async_worker_that_was_started_in_a_scope():
    async def main():
        items = asyncio.Queue()
        with alice():
            task = asyncio.create_task(worker(items))
            await items.put("for alice")
            await items.join()
        with bob():
            await items.put("for bob")
            await items.join()
        await items.put("for nobody")
        await items.join()
        task.cancel()

    async def worker(items):
        while True:
            await ask_async(await items.get())
            items.task_done()

    asyncio.run(main())


@case({"for alice": "alice scope", "for bob": "bob scope", "for nobody": "nobody"})
def an_async_worker_that_restores_what_was_captured():
    async def main():
        items = asyncio.Queue()
        with alice():
            task = asyncio.create_task(worker(items))
            await items.put((capture(), "for alice"))
            await items.join()
        with bob():
            await items.put((capture(), "for bob"))
            await items.join()
        await items.put((capture(), "for nobody"))
        await items.join()
        task.cancel()

    async def worker(items):
        while True:
            owner, label = await items.get()
            with restore(owner):
                await ask_async(label)
            items.task_done()

    asyncio.run(main())


@case({"before": "bob scope", "after": "bob scope"})
def what_is_restored_while_the_inherited_scope_ends():
    async def worker(owner):
        with restore(owner):
            await ask_async("before")
            opened.set()
            await over.wait()
            await ask_async("after")

    async def main():
        with bob():
            owner = capture()
        with alice():
            task = asyncio.create_task(worker(owner))
            await opened.wait()
        over.set()
        await task

    opened, over = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


@case({"before": "bob scope", "after": "bob scope", "a job": "bob scope"})
def what_is_restored_in_a_job_while_its_scope_ends():
    def job(owner):
        with restore(owner):
            ask("before")
            opened.set()
            assert over.wait(LONG)
            ask("after")
            pool.submit(ask, "a job").result(LONG)

    with bob():
        owner = capture()
    opened, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        with alice():
            future = pool.submit(job, owner)
            assert opened.wait(LONG)
        over.set()
        future.result(LONG)


@case({"the SDK's": "alice scope", "the application's": "bob scope", "in a task": "bob scope"})
def a_coroutine_made_here_and_awaited_there():
    async def main():
        async with async_client() as model:
            with alice():
                of_the_sdk = model.chat.completions.create(**asking("the SDK's"))
                own, other = ask_async("the application's"), ask_async("in a task")
            with bob():
                await of_the_sdk
                await own
                await asyncio.create_task(other)

    asyncio.run(main())


@case({"soon": "alice scope", "later": "alice scope", "too late": "nobody outlived"})
def callbacks_of_a_loop():
    def called(label, event):
        ask(label)
        event.set()

    async def main():
        loop = asyncio.get_running_loop()
        with alice():
            loop.call_soon(called, "soon", soon)
            loop.call_later(0.001, called, "later", later)
            await soon.wait()
            await later.wait()
            loop.call_soon(called, "too late", too_late)
        await too_late.wait()

    soon, later, too_late = (asyncio.Event() for _ in range(3))
    asyncio.run(main())


@case({"from a thread": "alice scope", "beside": "nobody"})
def a_coroutine_given_to_the_loop_of_another_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with alice():
        asyncio.run_coroutine_threadsafe(ask_async("from a thread"), loop).result(LONG)
    asyncio.run_coroutine_threadsafe(ask_async("beside"), loop).result(LONG)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


# Threads and pools


@case({"inside": "alice scope", "outside": "nobody"})
def asyncio_to_thread():
    async def main():
        with alice():
            await asyncio.to_thread(ask, "inside")
        await asyncio.to_thread(ask, "outside")

    asyncio.run(main())


@case({"inside": "alice scope", "outside": "nobody"})
def anyio_to_thread():
    async def main():
        with alice():
            await anyio.to_thread.run_sync(ask, "inside")
        await anyio.to_thread.run_sync(ask, "outside")

    asyncio.run(main())


@case({"of alice": "alice scope", "of bob": "bob scope", "of nobody": "nobody"})
def jobs_of_a_pool_whose_thread_was_started_by_alice():
    with ThreadPoolExecutor(1) as pool:
        with alice():
            pool.submit(ask, "of alice").result()
        with bob():
            pool.submit(ask, "of bob").result()
        pool.submit(ask, "of nobody").result()


@case({"one": "alice scope", "two": "alice scope", "three": "nobody"})
def mapped_jobs():
    with ThreadPoolExecutor(2) as pool:
        with alice():
            list(pool.map(ask, ["one", "two"]))
        list(pool.map(ask, ["three"]))


@case({"of alice": "alice scope", "of bob": "bob scope", "of nobody": "nobody"})
def run_in_the_executor_of_the_loop():
    async def main():
        run = partial(asyncio.get_running_loop().run_in_executor, None, ask)
        with alice():
            await run("of alice")
        with bob():
            await run("of bob")
        await run("of nobody")

    asyncio.run(main())


@case({"of alice": "alice scope", "of bob": "bob scope", "of nobody": "nobody"})
def run_in_an_executor_of_its_own():
    async def main():
        with ThreadPoolExecutor(1) as pool:
            run = partial(asyncio.get_running_loop().run_in_executor, pool, ask)
            with alice():
                await run("of alice")
            with bob():
                await run("of bob")
            await run("of nobody")

    asyncio.run(main())


@case({"of alice": "alice scope", "of bob": "bob scope"})
def a_pool_with_a_submit_of_its_own():
    class Pool(ThreadPoolExecutor):
        def submit(self, function, /, *args, **kwargs):
            return super().submit(lambda: function(*args, **kwargs))

    with Pool(1) as pool:
        with alice():
            pool.submit(ask, "of alice").result()
        with bob():
            list(pool.map(ask, ["of bob"]))


@case({"the pool's": "nobody", "the job's": "alice scope", "when it is done": "nobody"})
def what_a_pool_runs_around_its_jobs():
    def job():
        assert told.wait(LONG)
        ask("the job's")

    told, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1, initializer=ask, initargs=("the pool's",)) as pool, alice():
        future = pool.submit(job)
        future.add_done_callback(lambda _: (ask("when it is done"), done.set()))
        told.set()
        assert done.wait(LONG)


@case({"a job": "alice late", "own": "bob scope"})
def a_job_that_outlives_its_scope():
    def job():
        assert over.wait(LONG)
        ask("a job")
        with bob():
            ask("own")

    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with alice():
            pool.submit(job)
        over.set()


@case({"begun": "alice scope", "over": "alice late"})
def a_job_whose_scope_ends_meanwhile():
    def job():
        ask("begun")
        begun.set()
        assert over.wait(LONG)
        ask("over")

    begun, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with alice():
            pool.submit(job)
            assert begun.wait(LONG)
        over.set()


@case({"1": "alice late", "2": "nobody outlived", "3": "nobody outlived"})
def a_job_that_starts_itself_again_after_its_scope():
    def job(number):
        assert over.wait(LONG)
        ask(str(number))
        if number < 3:
            pool.submit(job, number + 1)
        else:
            done.set()

    over, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with alice():
            pool.submit(job, 1)
        over.set()
        assert done.wait(LONG)


@case({"1": "alice scope", "2": "alice scope", "3": "alice scope", "4": "alice scope"})
def a_chain_of_jobs_in_an_open_scope():
    def job(number):
        ask(str(number))
        if number < 4:
            pool.submit(job, number + 1)
        else:
            done.set()

    done = threading.Event()
    with ThreadPoolExecutor(1) as pool, alice():
        pool.submit(job, 1)
        assert done.wait(LONG)


@case({"in it": "alice scope", "in its scope": "alice chat scope"})
def a_loop_in_a_job_of_a_pool():
    async def main():
        await asyncio.to_thread(ask, "in it")
        with attribution(feature="chat"):
            await asyncio.to_thread(ask, "in its scope")

    with ThreadPoolExecutor(1) as pool, alice():
        pool.submit(asyncio.run, main()).result()


@case({"for alice": "nobody", "for bob": "nobody"})
def a_worker_thread_that_was_started_in_a_scope():
    def worker():
        for label in iter(items.get, None):
            ask(label)
            items.task_done()

    items, thread = queue.Queue(), threading.Thread(target=worker)
    with alice():
        thread.start()
        items.put("for alice")
        items.join()
    with bob():
        items.put("for bob")
        items.join()
    items.put(None)
    thread.join()


@case({"for alice": "alice scope", "for bob": "bob scope", "for nobody": "nobody"})
def a_worker_thread_that_restores_what_was_captured():
    def worker():
        for owner, label in iter(items.get, None):
            with restore(owner):
                ask(label)
            items.task_done()

    items, thread = queue.Queue(), threading.Thread(target=worker)
    with alice():
        thread.start()
        items.put((capture(), "for alice"))
        items.join()
    with bob():
        items.put((capture(), "for bob"))
        items.join()
    items.put((capture(), "for nobody"))
    items.put(None)
    thread.join()


@case({"of alice": "nobody", "of bob": "nobody"})
def a_thread_pool_of_multiprocessing():
    with alice(), ThreadPool(1) as pool:
        pool.map(ask, ["of alice"])
        with bob():
            pool.map(ask, ["of bob"])


def joined(thread):
    thread.start()
    thread.join()


THREADS = {
    "executors": {"thread": "nobody", "timer": "nobody", "own run": "nobody", "later": "nobody", "job": "alice scope"},
    "threads": {
        "thread": "alice scope", "timer": "alice scope", "own run": "alice scope", "later": "alice late",
        "job": "alice scope",
    },
    "off": {"thread": "nobody", "timer": "nobody", "own run": "nobody", "later": "nobody", "job": "nobody"},
}  # fmt: skip


def threads():
    class Own(threading.Thread):
        def run(self):
            ask("own run")

    def later():
        assert over.wait(LONG)
        ask("later")

    over, outliving = threading.Event(), threading.Thread(target=later)
    with ThreadPoolExecutor(1) as pool, alice():
        joined(threading.Thread(target=ask, args=("thread",)))
        joined(threading.Timer(0, ask, ("timer",)))
        joined(Own())
        pool.submit(ask, "job").result()
        outliving.start()
    over.set()
    outliving.join()


CASES += [pytest.param(threads, mode, rows, id=f"threads, {mode}") for mode, rows in THREADS.items()]


@case({"at last": "bob scope"}, propagate="threads")
def a_thread_that_does_not_start_at_first():
    thread = threading.Thread(target=ask, args=("at last",))
    with alice():
        usual = threading.stack_size(2**47)  # more than there are addresses
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                thread.start()
        finally:
            threading.stack_size(usual)
    with bob():
        joined(thread)


@case({"of alice": "alice scope", "of bob": "bob scope", "of nobody": "nobody"}, propagate="threads")
def jobs_of_a_pool_whose_thread_has_what_alice_had():
    with ThreadPoolExecutor(1) as pool:
        with alice():
            pool.submit(ask, "of alice").result()
        with bob():
            pool.submit(ask, "of bob").result()
        pool.submit(ask, "of nobody").result()


@case({"task": "alice scope", "to thread": "alice scope", "executor": "nobody"}, propagate="off")
def what_python_itself_passes_on():
    async def main():
        with alice():
            await asyncio.create_task(ask_async("task"))
            await asyncio.to_thread(ask, "to thread")
            await asyncio.get_running_loop().run_in_executor(None, ask, "executor")

    asyncio.run(main())


# Generators


def answers(*labels):
    for label in labels:
        yield ask(label)


async def async_answers(*labels):
    for label in labels:
        yield await ask_async(label)


@case({"one": "alice scope", "two": "nobody", "three": "bob scope"})
def a_plain_generator_asks_for_its_consumer():
    with alice():
        steps = answers("one", "two", "three")
        next(steps)
    next(steps)
    with bob():
        next(steps)


@case({"one": "alice scope", "two": "alice scope", "between": "nobody", "three": "alice scope", "bob's": "bob scope"})
def a_decorated_generator_asks_for_its_own():
    steps = alice()(answers)("one", "two", "three")
    next(steps)
    next(steps)
    ask("between")
    with bob():
        next(steps)
        ask("bob's")


@case({"one": "alice scope", "two": "alice scope", "between": "nobody", "three": "alice scope", "bob's": "bob scope"})
def a_wrapped_iterator_asks_for_whoever_wrapped_it():
    with alice():
        steps = wrap_iter(answers("one", "two", "three"))
        next(steps)
    next(steps)
    ask("between")
    with bob():
        next(steps)
        ask("bob's")


@case({"a1": "alice scope", "b1": "bob scope", "between": "nobody", "a2": "alice scope", "b2": "bob scope"})
def interleaved_decorated_generators():
    first, second = alice()(answers)("a1", "a2"), bob()(answers)("b1", "b2")
    next(first)
    next(second)
    ask("between")
    next(first)
    next(second)


def with_a_scope_inside():
    with attribution(feature="chat"):
        yield ask("one")
        yield ask("two")
    yield ask("three")


@case(
    {
        "one": "alice chat scope",
        "two": "alice chat scope",
        "three": "alice scope",
        "between": "bob scope",
        "after": "nobody",
    }
)
def a_scope_from_step_to_step_of_a_decorated_generator():
    with bob():
        steps = alice()(with_a_scope_inside)()
        next(steps)
        ask("between")
        list(steps)
    ask("after")


@case(
    {
        "one": "alice chat scope",
        "two": "alice chat scope",
        "three": "alice scope",
        "between": "bob scope",
        "after": "nobody",
    }
)
def a_scope_from_step_to_step_of_a_wrapped_generator():
    with alice():
        steps = wrap_iter(with_a_scope_inside())
    with bob():
        next(steps)
        ask("between")
        list(steps)
    ask("after")


@case({"closing": "alice scope", "after": "bob scope"})
def a_decorated_generator_that_is_closed_by_somebody_else():
    @alice()
    def steps():
        try:
            yield
        finally:
            ask("closing")

    with bob():
        made = steps()
        next(made)
        made.close()
        ask("after")


@case({"one": "alice scope", "two": "nobody", "three": "bob scope"})
def a_plain_async_generator_asks_for_its_consumer():
    async def main():
        with alice():
            steps = async_answers("one", "two", "three")
            await anext(steps)
        await anext(steps)
        with bob():
            await anext(steps)
        await steps.aclose()

    asyncio.run(main())


@case({"a1": "alice scope", "b1": "bob scope", "between": "nobody", "a2": "alice scope", "b2": "bob scope"})
def interleaved_decorated_async_generators():
    async def main():
        first, second = alice()(async_answers)("a1", "a2"), bob()(async_answers)("b1", "b2")
        await anext(first)
        await anext(second)
        await ask_async("between")
        await anext(first)
        await anext(second)
        await first.aclose()
        await second.aclose()

    asyncio.run(main())


@case({"one": "alice scope", "two": "alice scope", "bob's": "bob scope"})
def a_wrapped_async_iterator_asks_for_whoever_wrapped_it():
    async def main():
        with alice():
            steps = wrap_aiter(async_answers("one", "two"))
            await anext(steps)
        with bob():
            await anext(steps)
            await ask_async("bob's")
        await steps.aclose()

    asyncio.run(main())


@case({"one": "alice chat scope", "between": "bob scope", "two": "alice chat scope", "after": "bob scope"})
def a_scope_from_step_to_step_of_a_decorated_async_generator():
    @alice()
    async def steps():
        async with attribution(feature="chat"):
            yield await ask_async("one")
            yield await ask_async("two")

    async def main():
        with bob():
            made = steps()
            await anext(made)
            await ask_async("between")
            async for _ in made:
                pass
            await ask_async("after")

    asyncio.run(main())


CLOSED = {"one": "alice chat scope", "closing": "alice chat scope", "who closed it": "bob scope", "after": "nobody"}


def closed_by_another_task(make):
    async def steps():
        with attribution(feature="chat"):
            try:
                yield await ask_async("one")
            finally:
                await ask_async("closing")

    async def close(made):
        with bob():
            await made.aclose()
            await ask_async("who closed it")

    async def main():
        made = make(steps)
        await anext(made)
        await asyncio.create_task(close(made))
        await ask_async("after")

    asyncio.run(main())


@case(CLOSED)
def a_decorated_async_generator_closed_by_another_task():
    closed_by_another_task(lambda steps: alice()(steps)())


@case(CLOSED)
def a_wrapped_async_generator_closed_by_another_task():
    def make(steps):
        with alice():
            return wrap_aiter(steps())

    closed_by_another_task(make)


DROPPED = {"one": "alice scope", "dropped": "alice scope", "who dropped it": "bob scope"}


@case(DROPPED)
def a_decorated_generator_that_is_dropped():
    @alice()
    def steps():
        try:
            yield ask("one")
        finally:
            ask("dropped")

    made = steps()
    next(made)
    with bob():
        del made
        ask("who dropped it")


@case(DROPPED)
def a_wrapped_iterator_that_is_dropped():
    def steps():
        try:
            yield ask("one")
        finally:
            ask("dropped")

    with alice():
        made = wrap_iter(steps())
    next(made)
    with bob():
        del made
        ask("who dropped it")


def dropped_by_a_task(make):
    async def steps():
        try:
            yield await ask_async("one")
        finally:
            await ask_async("dropped")
            over.set()

    async def main():
        made = make(steps)
        await anext(made)
        with bob():
            del made
            await over.wait()  # the loop closes it in a task
            await ask_async("who dropped it")

    over = asyncio.Event()
    asyncio.run(main())


@case(DROPPED)
def a_decorated_async_generator_that_is_dropped():
    dropped_by_a_task(lambda steps: alice()(steps)())


@case(DROPPED)
def a_wrapped_async_generator_that_is_dropped():
    def make(steps):
        with alice():
            return wrap_aiter(steps())

    dropped_by_a_task(make)


@case({"two": "bob scope", "after": "nobody"})
def plain_generators_that_hold_scopes_and_end_crosswise():
    def steps(scope, label):
        with scope:
            yield
            yield ask(label)

    first, second = steps(alice(), "one"), steps(bob(), "two")
    next(first)
    next(second)
    first.close()
    next(second)
    second.close()
    ask("after")


@case({"streamed": "alice scope", "meanwhile": "bob scope"})
def a_stream_that_is_read_by_somebody_else():
    with client() as model:
        with alice():
            stream = model.chat.completions.create(**asking("streamed"), stream=True)
        with bob():
            next(stream)
            ask("meanwhile")
            list(stream)


@case({"streamed": "alice scope", "meanwhile": "bob scope"})
def an_async_stream_that_is_read_by_somebody_else():
    async def main():
        async with async_client() as model:
            with alice():
                stream = await model.chat.completions.create(**asking("streamed"), stream=True)
            with bob():
                await anext(stream)
                await ask_async("meanwhile")
                async for _ in stream:
                    pass

    asyncio.run(main())


# Decorated


@case({"method": "alice scope", "static": "alice scope", "class": "alice scope", "after": "nobody"})
def decorated_methods():
    class Service:
        @alice()
        def method(self):
            ask("method")

        @alice()
        @staticmethod
        def static():
            ask("static")

        @alice()
        @classmethod
        def of_class(cls):
            ask("class")

    Service().method()
    Service.static()
    Service.of_class()
    ask("after")


@case({"coroutine": "alice scope", "callable": "alice scope", "returned": "alice scope", "between": "bob scope"})
def decorated_coroutines():
    class Callable:
        async def __call__(self, label):
            await ask_async(label)

    async def main():
        with bob():
            await alice()(ask_async)("coroutine")
            await ask_async("between")
            await alice()(Callable())("callable")
            returned = alice()(lambda: ask_async("returned"))()
            await returned

    asyncio.run(main())


@case({"a task": "nobody outlived", "a job": "alice late"})
def what_a_decorated_function_starts_and_does_not_wait_for():
    @alice()
    def start():
        return asyncio.create_task(ask_async("a task")), pool.submit(job)

    def job():
        assert over.wait(LONG)
        ask("a job")

    async def main():
        task, future = start()
        await task
        over.set()
        await asyncio.wrap_future(future)

    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())


@case({"0": "alice scope", "1": "alice scope", "2": "alice scope", "after": "nobody"})
def a_decorated_function_that_calls_itself():
    @alice()
    def count(number):
        if number:
            count(number - 1)
        ask(str(number))

    count(2)
    ask("after")


# Processes and queues


@case({"parent": "alice scope", "child": "nobody outlived", "own": "bob scope", "after": "nobody"})
def a_fork_inside_a_scope():
    with alice():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, where there are threads
            child = os.fork()
        if not child:
            code = 1
            try:
                ask("child")
                with bob():
                    ask("own")
                code = int(not spanledger.flush())
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        ask("parent")
    ask("after")


def in_another_process(owner, label):
    with restore(owner):
        ask(label)
    return spanledger.flush()


@case({"alice's": "alice scope", "bob's": "bob scope", "nobody's": "nobody"})
def jobs_of_a_process_pool_that_restore_what_was_captured():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as above
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            with alice():
                first = pool.submit(in_another_process, capture(), "alice's")
            assert first.result(LONG)
            with bob():
                assert pool.submit(in_another_process, capture(), "bob's").result(LONG)
            assert pool.submit(in_another_process, capture(), "nobody's").result(LONG)


def celery_app(**settings):
    app = celery.Celery("matrix", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(**settings)

    @app.task(bind=True, name="ask")
    def task(self, label):
        with restore(self.request.headers["owner"]):
            ask(label)

    return app, task


def by_celery(task):
    with alice():
        first = task.apply_async(("alice's",), headers={"owner": capture()})
    first.get(timeout=LONG, interval=0.01)
    with bob():
        task.apply_async(("bob's",), headers={"owner": capture()}).get(timeout=LONG, interval=0.01)
    task.apply_async(("nobody's",), headers={"owner": capture()}).get(timeout=LONG, interval=0.01)


@case({"alice's": "alice scope", "bob's": "bob scope", "nobody's": "nobody"})
def tasks_of_a_celery_worker_that_restore_what_was_captured():
    def ours(**_):
        """Logging is set up already."""

    app, task = celery_app(broker_transport_options={"polling_interval": 0.01})
    setup_logging.connect(ours)
    with ExitStack() as stack:
        stack.callback(setup_logging.disconnect, ours)
        with alice():
            stack.enter_context(start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=LONG))
        by_celery(task)


@case({"alice's": "alice scope", "bob's": "bob scope", "nobody's": "nobody"})
def eager_tasks_of_celery_that_restore_what_was_captured():
    _, task = celery_app(task_always_eager=True, task_eager_propagates=True)
    by_celery(task)


def rq_job(label):
    with restore(rq.get_current_job().meta["owner"]):
        ask(label)


class Worker(rq.SimpleWorker):
    """One that leaves the signals to pytest."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self):
        """None."""


@case({"alice's": "alice scope", "bob's": "bob scope", "nobody's": "nobody"})
def jobs_of_an_rq_worker_that_restore_what_was_captured():
    redis = fakeredis.FakeStrictRedis()
    jobs = rq.Queue(connection=redis)
    with alice():
        jobs.enqueue(rq_job, "alice's", meta={"owner": capture()})
    with bob():
        jobs.enqueue(rq_job, "bob's", meta={"owner": capture()})
    jobs.enqueue(rq_job, "nobody's", meta={"owner": capture()})
    with alice():
        Worker([jobs], connection=redis).work(burst=True, logging_level="WARNING")


@pytest.mark.parametrize(("play", "propagate", "rows"), CASES)
def test_each_call_is_its_owners_or_nobodys(play, propagate, rows, ledger):
    spanledger.configure(propagate=propagate)
    play()
    found = [said(row) for row in ledger("request_model", "user_id", "feature", "attribution_source")]
    assert sorted(found) == sorted(rows.items())
