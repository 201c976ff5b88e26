"""Attribution: merged, frozen at call start, private, and in force exactly where the scope is."""

import asyncio
import contextvars

import pytest
from opentelemetry import baggage
from tests.conftest import httpx2

import spanledger
from spanledger import Attribution, attribution
from spanledger.context.scope import current
from spanledger.model import NOBODY


def test_scopes_nest_merge_and_end():
    with attribution(user_id="ada", team="a", page="/x"):
        with attribution(team="b", user_id=None, component="c"):
            assert current() == Attribution(user_id="ada", team="b", metadata={"page": "/x", "component": "c"})
        assert current() == Attribution(user_id="ada", team="a", metadata={"page": "/x"})
    assert current() is NOBODY


def test_a_scope_ends_on_an_exception_and_can_be_used_again():
    scope = attribution(team="a")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), scope:
            assert current().team == "a"
            raise ZeroDivisionError
        assert current() is NOBODY
    with scope, scope:
        assert current().team == "a"
    assert current() is NOBODY


def test_an_async_scope_reaches_tasks_and_threads_and_leaves_the_others_alone():
    async def inside():
        await asyncio.sleep(0)
        return current().user_id, await asyncio.to_thread(lambda: current().user_id)

    async def request(user):
        async with attribution(user_id=user):
            return await asyncio.create_task(inside())

    async def main():
        return await asyncio.gather(*(request(user) for user in "abc"))

    assert asyncio.run(main()) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_as_a_decorator_each_call_has_a_scope_of_its_own():
    @attribution(feature="f")
    def function(depth):
        """Doc."""
        assert current().feature == "f"
        return function(depth - 1) if depth else "done"

    @attribution(feature="g")
    async def coroutine():
        await asyncio.sleep(0)
        return current().feature

    async def two():
        return await asyncio.gather(coroutine(), coroutine())

    assert function(3) == "done"
    assert (function.__name__, function.__doc__) == ("function", "Doc.")
    assert asyncio.run(two()) == ["g", "g"]
    assert asyncio.iscoroutinefunction(coroutine)
    assert current() is NOBODY


def test_a_decorated_generator_holds_its_scope_inside_its_steps_only():
    @attribution(user_id="alice")
    def steps():
        try:
            sent = yield current().user_id
            yield (sent, current().user_id)
            try:
                yield current().user_id
            except KeyError:
                yield ("caught", current().user_id)
            return "over"
        finally:
            closed.append(current().user_id)

    closed = []
    with attribution(user_id="bob"):
        generator = steps()
        assert next(generator) == "alice"
        assert current().user_id == "bob"
        assert generator.send("hello") == ("hello", "alice")
        assert next(generator) == "alice"
        assert generator.throw(KeyError()) == ("caught", "alice")
        with pytest.raises(StopIteration, match="over"):
            next(generator)
        other = steps()
        next(other)
        other.close()
        assert current().user_id == "bob"
    assert closed == ["alice", "alice"]


def test_interleaved_async_generators_bill_their_own():
    @attribution(user_id="alice")
    async def alice():
        for _ in range(2):
            await asyncio.sleep(0)
            yield current().user_id

    @attribution(user_id="bob")
    async def bob():
        for _ in range(2):
            yield current().user_id

    async def main():
        a, b = alice(), bob()
        seen = [await anext(a), await anext(b), current().user_id, await anext(a), await anext(b)]
        await a.aclose()
        await b.aclose()
        return seen

    assert asyncio.run(main()) == ["alice", "bob", None, "alice", "bob"]


def test_a_scope_closed_in_another_context_harms_nobody():
    scope = attribution(user_id="ada")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert current() is NOBODY


def test_values_are_clean_text_and_never_cut_into_each_other():
    first, second = "customer-" + "x" * 300 + "1", "customer-" + "x" * 300 + "2"
    with attribution(user_id=first) as one, attribution(user_id=second) as two:
        assert one.user_id != two.user_id
        assert one.user_id.startswith("sha256:")
    with attribution(
        user_id=42, team="a\x00b\n\udc80", note="y" * 300, big=2**70, ratio=float("nan"), ok=True
    ) as found:
        assert (found.user_id, found.team) == ("42", "ab\N{REPLACEMENT CHARACTER}")
        assert found.metadata == {"note": "y" * 253 + "…", "big": str(2**70), "ratio": "nan", "ok": True}


def test_metadata_is_bounded_and_may_be_given_as_a_mapping():
    with attribution(metadata={"a": 1}, **{f"k{number}": number for number in range(40)}) as found:
        assert len(found.metadata) == 16
    with attribution(metadata={"a": 1}, b=2) as found:
        assert found.metadata == {"a": 1, "b": 2}


QUESTION = [{"role": "user", "content": "Hello"}]


def test_it_is_frozen_at_the_start_of_a_call(client, ledger):
    with attribution(user_id="alice"):
        stream = client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True)
    with attribution(user_id="bob"):
        list(stream)
    assert ledger("user_id") == [("alice",)]


def test_a_coroutine_belongs_to_whoever_made_it(recording, provider, ledger):
    from openai import AsyncOpenAI

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="x") as client:
            with attribution(user_id="alice"):
                call = client.chat.completions.create(model="gpt-4o", messages=QUESTION)
            with attribution(user_id="bob"):
                await call

    asyncio.run(main())
    assert ledger("user_id") == [("alice",)]


def test_it_is_never_baggage_and_never_on_the_wire(recording, ledger):
    from openai import OpenAI

    sent = []

    def answer(request):
        sent.append(repr(request.headers.raw) + request.content.decode())
        assert not baggage.get_all()
        return httpx2.Response(200, json={"id": "c", "model": "gpt-4o", "choices": [], "usage": None})

    scope = spanledger.attribution(user_id="secret-user", feature="secret-feature", page="secret-page")
    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client, scope:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert "secret" not in "".join(sent)
    assert ledger("user_id", "feature", "metadata") == [("secret-user", "secret-feature", '{"page":"secret-page"}')]
