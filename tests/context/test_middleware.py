"""Middleware: a request's calls are its user's and nobody else's, and the application is served as it was before."""

import asyncio
import contextvars
import gc
import http.client
import io
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from hashlib import sha256
from socketserver import ThreadingMixIn
from typing import Annotated
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import FileWrapper, setup_testing_defaults

import django
import flask
import httpx
import pytest
import uvicorn
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path as route
from django.utils.functional import SimpleLazyObject
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from tests.conftest import httpx2
from werkzeug.test import Client as WSGIClient

from spanledger import Attribution, attribution
from spanledger.context import asgi, wsgi
from spanledger.context.baggage import Outbound
from spanledger.context.scope import current, in_force, nobody
from spanledger.context.sources import Baggage, Headers
from spanledger.context.values import trimmed
from spanledger.model import NOBODY

ALICE, ANONYMOUS, OUTLIVED = ("alice", "scope"), (None, None), (None, "outlived")
ANSWER = {"id": "c", "model": "gpt-4o", "choices": [], "usage": None}
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
KEYS = ("user_id", "attribution_source")


def seen():
    whose = current()
    return whose.user_id, whose.attribution_source


def by_scope(scope):
    return {"user_id": dict(scope["headers"]).get(b"who", b"").decode()}


def by_environ(environ):
    return {"user_id": environ.get("HTTP_WHO")}


def by_request(request):
    return {"user_id": request.headers.get("who")}


def who(user):
    return {"who": user} if user else {}


def owned(user):
    return (user, "scope") if user else ANONYMOUS


def answer(_):
    return httpx2.Response(200, json=ANSWER)


@pytest.fixture
def ask(recording):
    from openai import OpenAI

    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        yield lambda: client.chat.completions.create(**CALL)


@pytest.fixture
def ask_async(recording):
    from openai import AsyncOpenAI

    async def ask():
        transport = httpx2.MockTransport(answer)
        async with AsyncOpenAI(api_key="x", http_client=httpx2.AsyncClient(transport=transport)) as client:
            await client.chat.completions.create(**CALL)

    return ask


# ASGI


def http_scope(path="/", user=None, **more):
    headers = [(b"who", user.encode())] if user else []
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, **more}


async def received():
    return {"type": "http.request", "body": b"", "more_body": False}


async def dropped(_):
    pass


async def reply(send, body=b""):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Suspended:
    """What is awaited without an event loop."""

    def __await__(self):
        yield


async def opened_async():
    async with attribution(feature="async"):
        yield current().user_id


async def opened_inside():
    with attribution(feature="plain"):
        yield current().user_id


async def told_user():
    return current().user_id


def fastapi_app(noted):
    app = FastAPI()

    @app.get("/sync")
    def sync():
        noted.append(seen())

    @app.get("/async")
    async def asynchronous():
        noted.append(seen())
        noted.append(await asyncio.create_task(asyncio.to_thread(seen)))

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        async def later():
            await asyncio.sleep(0)
            noted.append(seen())

        tasks.add_task(later)
        tasks.add_task(lambda: noted.append(seen()))

    @app.get("/stream-sync")
    def stream_sync():
        def body():
            for _ in range(2):
                noted.append(seen())
                yield b"x"

        return StreamingResponse(body())

    @app.get("/stream-async")
    async def stream_async():
        async def body():
            for _ in range(2):
                await asyncio.sleep(0)
                noted.append(seen())
                yield b"x"

        return StreamingResponse(body(), background=None)

    @app.get("/dependency")
    async def dependency(user: Annotated[str | None, Depends(told_user)]):
        noted.append(seen())
        assert current().user_id == user

    @app.get("/error")
    async def error():
        noted.append(seen())
        raise ZeroDivisionError("of the application")

    @app.websocket("/socket")
    async def echo(connection: WebSocket):
        await connection.accept()
        async for text in connection.iter_text():
            noted.append(seen())
            await connection.send_text(text)

    return app


PATHS = ["/sync", "/async", "/background", "/stream-sync", "/stream-async", "/dependency"]


@pytest.mark.parametrize("path", PATHS)
def test_whatever_fastapi_does_for_a_request_is_its_users(path):
    noted = []
    app = fastapi_app(noted)
    app.add_middleware(asgi.AttributionMiddleware, whose=by_scope)
    with TestClient(app) as client:
        for user in ("alice", None, "bob"):
            noted.clear()
            assert client.get(path, headers=who(user)).status_code == 200
            assert set(noted) == {owned(user)}


def test_a_websocket_is_its_users_for_as_long_as_it_is_open():
    noted = []
    app = asgi.AttributionMiddleware(fastapi_app(noted), whose=by_scope)
    client = TestClient(app)
    with (
        client.websocket_connect("/socket", headers=who("alice")) as one,
        client.websocket_connect("/socket") as other,
    ):
        for each in (one, other, one):
            each.send_text("x")
            assert each.receive_text() == "x"
    assert noted == [ALICE, ANONYMOUS, ALICE]


def test_the_lifespan_is_nobodys_and_is_left_alone():
    noted = []

    @asynccontextmanager
    async def lifespan(_):
        noted.append(seen())
        yield {"kept": "by the application"}
        noted.append(seen())

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/", lambda request: request.state.kept)
    app.router.routes[-1].endpoint.__annotations__["request"] = Request
    app.add_middleware(asgi.AttributionMiddleware, whose=lambda scope: 1 / 0)
    with TestClient(app):
        pass
    assert noted == [ANONYMOUS, ANONYMOUS]


def test_a_dependency_may_open_a_scope_inside_the_requests():
    app, noted = FastAPI(), []
    app.add_middleware(asgi.AttributionMiddleware, whose=by_scope)

    def note():
        noted.append((current().user_id, current().feature))

    @app.get("/async")
    async def one(user: Annotated[str | None, Depends(opened_async)]):
        note()

    @app.get("/plain")
    def other(user: Annotated[str | None, Depends(opened_inside)], tasks: BackgroundTasks):
        note()

    @app.get("/")
    async def without():
        note()

    with TestClient(app) as client:
        for path in ("/async", "/plain", "/", "/async"):
            client.get(path, headers=who("alice"))
    assert noted == [("alice", "async"), ("alice", "plain"), ("alice", None), ("alice", "async")]


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_base_http_middleware_around_and_inside_changes_nothing(path, around):
    noted = []
    app = fastapi_app(noted)

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            noted.append(ANONYMOUS if around else seen())
            assert not around or seen() == ANONYMOUS
            response = await call_next(request)
            assert not around or seen() == ANONYMOUS
            return response

    ours = (asgi.AttributionMiddleware, {"whose": by_scope})
    first, second = (ours, (Passing, {})) if around else ((Passing, {}), ours)
    app.add_middleware(first[0], **first[1])
    app.add_middleware(second[0], **second[1])
    with TestClient(app) as client:
        client.get(path, headers=who("alice"))
        assert set(noted[around:]) == {ALICE}
        noted.clear()
        client.get(path)
        assert set(noted) == {ANONYMOUS}


def test_calls_in_fastapi_are_billed_to_the_requests_user(ask, ask_async, ledger):
    app = FastAPI()
    app.add_middleware(asgi.AttributionMiddleware, whose=by_scope)
    app.get("/sync")(lambda: ask() and None)

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        tasks.add_task(ask_async)

    @app.get("/stream")
    async def stream():
        async def body():
            yield b"x"
            await ask_async()

        return StreamingResponse(body())

    with TestClient(app) as client:
        for path, user in (("/sync", "a"), ("/background", "b"), ("/stream", None), ("/stream", "d")):
            client.get(path, headers=who(user))
    assert ledger(*KEYS) == [("a", "scope"), ("b", "scope"), ANONYMOUS, ("d", "scope")]


def test_what_the_application_raises_is_what_the_server_sees():
    error = ZeroDivisionError("of the application")

    async def app(scope, receive, send):
        raise error

    async def main():
        with pytest.raises(ZeroDivisionError) as caught:
            await asgi.AttributionMiddleware(app, whose=by_scope)(http_scope(user="alice"), received, dropped)
        assert caught.value is error
        assert in_force.get() is nobody

    asyncio.run(main())
    with TestClient(asgi.AttributionMiddleware(fastapi_app([]), by_scope), raise_server_exceptions=False) as client:
        assert client.get("/error").status_code == 500


def test_a_cancelled_request_is_cancelled_and_leaves_nobody_behind():
    async def app(scope, receive, send):
        started.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(asgi.AttributionMiddleware(app, by_scope)(http_scope(user="a"), received, dropped))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return in_force.get()

    started = asyncio.Event()
    assert asyncio.run(main()) is nobody


def test_a_request_thrown_away_halfway_harms_nobody():
    async def app(scope, receive, send):
        await Suspended()

    request = asgi.AttributionMiddleware(app, by_scope)(http_scope(user="a"), received, dropped)
    contextvars.copy_context().run(request.send, None)
    request.close()
    assert current() is NOBODY


def test_a_pure_asgi_application_gets_the_very_scope_receive_and_send():
    async def app(*got):
        calls.append(got)
        await reply(got[2], b"body")
        return "passed"

    async def main():
        middleware = asgi.AttributionMiddleware(app, whose=lambda scope: None)
        for given in (http_scope(), {"type": "lifespan"}, {"type": "of.the.future"}):
            await middleware(given, received, dropped)
            assert tuple(map(id, calls[-1])) == (id(given), id(received), id(dropped))
            assert in_force.get() is nobody

    calls = []
    asyncio.run(main())


def test_the_next_request_of_a_connection_does_not_inherit_the_one_before():
    noted = []

    async def app(scope, receive, send):
        noted.append((scope["path"], *seen()))
        if scope["path"] == "/first":
            tasks.append(asyncio.create_task(middleware(http_scope("/inside"), received, dropped)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            noted.append((scope["path"], *seen()))
            async with attribution(team="t"):
                await middleware(http_scope("/within", "bob"), received, dropped)
                noted.append((scope["path"], *seen()))
        await reply(send)

    async def sent_last(message):
        if "body" in message:
            tasks.append(asyncio.create_task(middleware(http_scope("/pipelined"), received, dropped)))

    async def main():
        await middleware(http_scope("/first", "alice"), received, sent_last)
        await asyncio.gather(*tasks)
        return current()

    middleware, tasks = asgi.AttributionMiddleware(app, by_scope), []
    assert asyncio.run(main()) is NOBODY
    assert noted == [
        ("/first", *ALICE),
        ("/inside", *ANONYMOUS),
        ("/first", *ALICE),
        ("/within", "bob", "scope"),
        ("/first", *ALICE),
        ("/pipelined", *ANONYMOUS),
    ]


def test_a_connection_that_uvicorn_pipelines_is_nobodys_in_between():
    async def app(scope, receive, send):
        noted.append((scope["path"], *seen()))
        await reply(send, b"")

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            options = {"http": "h11", "lifespan": "off", "ws": "none", "log_level": "critical"}
            server = uvicorn.Server(uvicorn.Config(asgi.AttributionMiddleware(app, by_scope), **options))
            serving = asyncio.create_task(server.serve([listening]))
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            for head in ("GET /1 HTTP/1.1\r\nwho: alice", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1\r\nConnection: close"):
                writer.write(f"{head}\r\nhost: t\r\n\r\n".encode())
            assert (await reader.read()).count(b"200 OK") == 3
            writer.close()
            server.should_exit = True
            await serving

    noted = []
    asyncio.run(main())
    assert noted == [("/1", *ALICE), ("/2", *ANONYMOUS), ("/3", *ANONYMOUS)]


def test_a_task_that_outlives_its_request_is_nobodys(ask_async, ledger):
    noted, tasks, over = [], [], asyncio.Event()

    async def worker():
        noted.append(seen())
        await over.wait()
        noted.append(seen())
        await ask_async()

    async def app(scope, receive, send):
        if scope["path"] == "/worker":
            tasks.append(asyncio.create_task(worker()))
            await asyncio.sleep(0)
        await reply(send)

    async def main():
        middleware = asgi.AttributionMiddleware(app, by_scope)
        await middleware(http_scope("/worker", "alice"), received, dropped)
        await middleware(http_scope("/", "bob"), received, dropped)
        over.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert noted == [ALICE, OUTLIVED]
    assert ledger(*KEYS) == [OUTLIVED]


def test_a_streamed_body_half_read_leaves_nobody_behind():
    noted = []

    async def gone(message):
        if message.get("body"):
            raise OSError("the client has gone")

    async def main():
        app = asgi.AttributionMiddleware(fastapi_app(noted), by_scope)
        scope = http_scope("/stream-async", "alice", app=None, asgi={"spec_version": "2.4"})
        with pytest.raises(ClientDisconnect):
            await app(scope, received, gone)
        assert in_force.get() is nobody

    asyncio.run(main())
    assert noted == [ALICE]


def test_of_200_overlapping_requests_each_sees_only_itself(ask_async, ledger):
    async def app(scope, receive, send):
        here, there = current().user_id, []
        waiting.append(here)
        if len(waiting) == 200:
            together.set()
        await together.wait()
        there.append(current().user_id)
        with attribution(feature="f"):
            await asyncio.sleep(0)
            there.append(await asyncio.to_thread(lambda: current().user_id))
        if scope["path"] in ("/0", "/100"):
            await ask_async()
        await reply(send, repr([here, *there]).encode())

    async def main():
        transport = httpx.ASGITransport(asgi.AttributionMiddleware(app, by_scope))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            users = [f"u{number}" if number % 3 else None for number in range(200)]
            found = await asyncio.gather(*(client.get(f"/{n}", headers=who(user)) for n, user in enumerate(users)))
        assert [each.text for each in found] == [repr([user] * 3) for user in users]

    waiting, together = [], asyncio.Event()
    asyncio.run(main())
    assert sorted(ledger("user_id"), key=str) == [("u100",), (None,)]


# Whose


class Awaitable:
    def __init__(self, said):
        self.said = said

    def __await__(self):
        yield
        return self.said


async def said_later(scope):
    await asyncio.sleep(0)
    return {"user_id": "alice"}


async def failed_later(scope):
    await asyncio.sleep(0)
    raise KeyError("secret-user")


def failed(request):
    raise KeyError("secret-user")


class Broken(dict):
    def items(self):
        raise KeyError("secret-user")


class Unspeakable:
    def __getattr__(self, name):
        raise KeyError("secret-user")


SAID = {
    "mapping": ({"user_id": "alice"}, ALICE),
    "attribution": (Attribution(user_id="alice"), ALICE),
    "own source": (Attribution(user_id="alice", attribution_source="headers"), ("alice", "headers")),
    "number": ({"user_id": 0}, ("0", "scope")),
    "None": (None, ANONYMOUS),
    "nobody": (NOBODY, ANONYMOUS),
    "empty": ({}, ANONYMOUS),
    "empty values": ({"user_id": "", "team": None}, ANONYMOUS),
    "a source alone": ({"attribution_source": "scope"}, ANONYMOUS),
    "control characters": ({"user_id": "al\x00i\nce\r"}, ALICE),
    "long": ({"user_id": "é" * 400}, (f"sha256:{sha256(('é' * 400).encode()).hexdigest()}", "scope")),
}
GARBAGE = {
    "text": "alice",
    "bytes": b"alice",
    "list": [("user_id", "alice")],
    "class": Attribution,
    "number": 42,
    "false": False,
    "unspeakable": Unspeakable(),
    "broken mapping": Broken(user_id="alice"),
    "lazy": SimpleLazyObject(lambda: failed(None)),
}


def served_by_asgi(whose):
    async def main():
        async def app(scope, receive, send):
            await reply(send, repr(seen()).encode())

        transport = httpx.ASGITransport(asgi.AttributionMiddleware(app, whose))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return (await client.get("/")).text

    return asyncio.run(main())


def served_by_wsgi(whose):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [repr(seen()).encode()]

    return WSGIClient(wsgi.AttributionMiddleware(app, whose)).get("/").text


def served_by_django(whose):
    with django_site(whose, route("", lambda request: HttpResponse(repr(seen())))):
        return WSGIClient(WSGIHandler()).get("/").text


def served_by_async_django(whose):
    async def view(request):
        return HttpResponse(repr(seen()))

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ASGIHandler()), base_url="http://t") as client:
            return (await client.get("/")).text

    with django_site(whose, route("", view)):
        return asyncio.run(main())


SERVED = [served_by_asgi, served_by_wsgi, served_by_django, served_by_async_django]
SERVED_ASYNC = [served_by_asgi, served_by_async_django]


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize(("said", "expected"), SAID.values(), ids=SAID)
def test_what_is_said_of_a_request_holds(said, expected, served):
    assert served(lambda request: said) == repr(expected)


@pytest.mark.parametrize("served", SERVED_ASYNC)
@pytest.mark.parametrize(
    "whose", [said_later, lambda request: Awaitable({"user_id": "alice"})], ids=["async", "object"]
)
def test_whose_may_be_awaited(whose, served):
    assert served(whose) == repr(ALICE)


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_nobody_and_the_request_is_served(kind, served, monkeypatch):
    monkeypatch.setitem(trimmed, "failed", 0)
    assert served(lambda request: GARBAGE[kind]) == repr(ANONYMOUS)
    assert trimmed["failed"] == 1


@pytest.mark.parametrize("served", SERVED)
def test_a_failing_whose_is_said_once_and_the_request_is_served(served, monkeypatch, caplog):
    monkeypatch.setitem(trimmed, "failed", 0)
    for _ in range(3):
        assert served(failed) == repr(ANONYMOUS)
    assert trimmed["failed"] == 3
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("spanledger")]
    assert "KeyError" in warning
    assert "secret" not in warning


@pytest.mark.parametrize("served", SERVED_ASYNC)
@pytest.mark.parametrize("whose", [failed_later, lambda request: Awaitable(1)], ids=["raises", "garbage"])
def test_a_whose_that_fails_while_it_is_awaited_is_nobody(whose, served, monkeypatch):
    monkeypatch.setitem(trimmed, "failed", 0)
    assert served(whose) == repr(ANONYMOUS)
    assert trimmed["failed"] == 1


@pytest.mark.parametrize("served", [served_by_wsgi, served_by_django])
def test_a_coroutine_where_nobody_can_await_it_is_closed_and_nobody(served, monkeypatch):
    monkeypatch.setitem(trimmed, "failed", 0)
    assert served(said_later) == repr(ANONYMOUS)
    gc.collect()  # a coroutine that was never awaited would warn now
    assert trimmed["failed"] == 1


# WSGI


def environ_of(path="/", user=None, **more):
    environ = {"PATH_INFO": path, **more}
    setup_testing_defaults(environ)
    return environ | ({"HTTP_WHO": user} if user else {})


def start(status, headers, exc_info=None):
    return lambda data: None


def wsgi_of(app):
    return wsgi.AttributionMiddleware(app, by_environ)


def test_a_wsgi_application_sees_its_user_while_it_answers_and_the_server_nobody():
    def app(environ, start_response):
        noted.append(seen())
        start_response("200 OK", [])
        yield b"a"
        noted.append(seen())
        yield b"b"

    noted = []
    for user in ("alice", None, "bob"):
        noted.clear()
        body = wsgi_of(app)(environ_of(user=user), start)
        for _ in body:
            assert in_force.get() is nobody
        assert noted == [owned(user)] * 2
    assert in_force.get() is nobody


class Body:
    def __init__(self, noted, parts=(b"a", b"b")):
        self.noted = noted
        self.parts = iter(parts)

    def __iter__(self):
        return self

    def __next__(self):
        self.noted.append(seen())
        return next(self.parts)

    def close(self):
        self.noted.append(("closed", *seen()))


def test_a_body_is_closed_once_as_its_user_read_or_not():
    for read in range(3):
        noted = []
        body = wsgi_of(lambda environ, start_response, noted=noted: Body(noted))(environ_of(user="alice"), start)
        for _ in range(read):
            next(body)
        body.close()
        assert noted == [ALICE] * read + [("closed", *ALICE)]
        assert in_force.get() is nobody


def test_a_body_read_to_its_end_is_closed_as_its_user():
    noted = []
    body = wsgi_of(lambda environ, start_response: Body(noted))(environ_of(user="alice"), start)
    assert list(body) == [b"a", b"b"]
    body.close()
    assert noted == [ALICE] * 3 + [("closed", *ALICE)]


def test_a_body_that_failed_is_closed_as_its_user():
    def parts():
        yield b"a"
        raise ZeroDivisionError

    noted = []
    body = wsgi_of(lambda environ, start_response: Body(noted, parts()))(environ_of(user="alice"), start)
    with pytest.raises(ZeroDivisionError):
        list(body)
    body.close()
    assert noted == [ALICE, ALICE, ("closed", *ALICE)]


@pytest.mark.parametrize(
    "made", [[b"a", b"b"], (b"a",), FileWrapper(io.BytesIO(b"file"))], ids=["list", "tuple", "file"]
)
def test_bodies_that_are_made_or_are_the_servers_are_passed_on_as_they_are(made):
    environ = environ_of(user="alice", **{"wsgi.file_wrapper": FileWrapper})
    assert wsgi_of(lambda environ, start_response: made)(environ, start) is made


def test_a_file_wrapper_that_is_a_function_breaks_nothing():
    """As uWSGI's."""

    def app(environ, start_response):
        yield b"a"

    environ = environ_of(user="alice", **{"wsgi.file_wrapper": lambda file, size=0: file})
    with closing(wsgi_of(app)(environ, start)) as body:
        assert list(body) == [b"a"]


@pytest.mark.parametrize("made", [deque([b"a"]), {b"a": 1}, {b"a"}], ids=["deque", "dict", "set"])
def test_bodies_that_can_not_be_hashed_can_be_closed(made):
    body = wsgi_of(lambda environ, start_response: made)(environ_of(), start)
    assert list(body) == [b"a"]
    body.close()


def test_a_body_is_closed_even_where_its_iterator_can_not_be():
    class Made:
        def __iter__(self):
            try:
                yield b"a"
            finally:
                raise ZeroDivisionError

        def close(self):
            closed.append(seen())

    closed = []
    body = wsgi_of(lambda environ, start_response: Made())(environ_of(user="alice"), start)
    next(body)
    with suppress(ZeroDivisionError):
        body.close()
    assert closed == [ALICE]


def test_what_a_body_raises_on_closing_is_what_the_server_sees():
    def app(environ, start_response):
        try:
            yield b"a"
        finally:
            raise ZeroDivisionError

    body = wsgi_of(app)(environ_of(user="alice"), start)
    next(body)
    with pytest.raises(ZeroDivisionError):
        body.close()
    assert in_force.get() is nobody


def test_a_scope_inside_a_streamed_body_holds_between_its_parts():
    def app(environ, start_response):
        with attribution(user_id="bob"):
            for _ in range(2):
                noted.append(seen())
                yield b"x"
        noted.append(seen())

    noted = []
    for _ in wsgi_of(app)(environ_of(user="alice"), start):
        assert in_force.get() is nobody
    assert noted == [("bob", "scope"), ("bob", "scope"), ALICE]


def test_interleaved_bodies_on_one_thread_are_each_their_users():
    def app(environ, start_response):
        for _ in range(2):
            yield repr(seen()).encode()

    one, other, third = (wsgi_of(app)(environ_of(user=user), start) for user in ("alice", None, "bob"))
    assert [(next(one), next(other), next(third)) for _ in range(2)] == [
        tuple(repr(owned(user)).encode() for user in ("alice", None, "bob"))
    ] * 2


def test_a_wsgi_application_that_raises_leaves_nobody_behind():
    def app(environ, start_response):
        raise error

    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        wsgi_of(app)(environ_of(user="alice"), start)
    assert caught.value is error
    assert in_force.get() is nobody


def test_the_very_environ_start_response_and_write_reach_the_application():
    def app(*given):
        got.append(given)
        given[1]("200 OK", [])(b"written")
        return []

    got, written = [], []
    environ = environ_of()
    begin = lambda status, headers, exc_info=None: written.append  # noqa: E731
    assert wsgi_of(app)(environ, begin) == []
    assert (got[0][0] is environ, got[0][1] is begin, written) == (True, True, [b"written"])


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serving(app):
    with make_server("127.0.0.1", 0, app, server_class=Threaded, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def fetched(port, headers, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_of_50_overlapping_threaded_requests_each_sees_only_itself(ask, ledger):
    def app(environ, start_response):
        start_response("200 OK", [])
        here = current().user_id
        together.wait(60)
        yield repr(here).encode()
        together.wait(60)
        if here in ("u1", None):
            ask()
        yield repr(current().user_id).encode()

    users = [f"u{number}" if number % 7 else None for number in range(50)]
    together = threading.Barrier(50)
    with serving(wsgi_of(app)) as port, ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda user: fetched(port, who(user).items()), users))
    assert found == [repr(user) * 2 for user in users]
    assert set(ledger(*KEYS)) == {("u1", "scope"), ANONYMOUS}


# Flask


def flask_app(noted, ask=lambda: None):
    app = flask.Flask("site")
    app.wsgi_app = wsgi.AttributionMiddleware(app.wsgi_app, whose=by_environ)

    def note():
        noted.append(seen())
        ask()

    @app.get("/sync")
    def sync():
        note()
        return "x"

    @app.get("/async")
    async def asynchronous():
        await asyncio.sleep(0)
        note()
        return "x"

    @app.get("/generator")
    def generator():
        def body():
            for _ in range(2):
                note()
                yield "x"

        return body()

    @app.get("/with-context")
    def with_context():
        @flask.stream_with_context
        def body():
            note()
            yield flask.request.headers.get("who", "")
            note()

        return body()

    @app.get("/handled")
    def handled():
        raise KeyError

    @app.errorhandler(KeyError)
    def handler(error):
        note()
        return "x"

    @app.get("/error")
    def error():
        note()
        raise ZeroDivisionError("of the application")

    @app.get("/closed")
    def closed():
        response = flask.Response("x")
        response.call_on_close(note)
        return response

    @app.get("/teardown")
    def torn():
        flask.after_this_request(lambda response: note() or response)
        return "x"

    return app


@pytest.mark.parametrize("path", ["/sync", "/async", "/generator", "/with-context", "/handled", "/teardown", "/closed"])
def test_whatever_flask_does_for_a_request_is_its_users(path):
    noted = []
    client = flask_app(noted).test_client()
    for user in ("alice", None, "bob"):
        noted.clear()
        with client.get(path, headers=who(user), buffered=True) as response:
            assert response.status_code == 200
        assert set(noted) == {owned(user)}
        assert in_force.get() is nobody


def test_exceptions_that_flask_propagates_are_the_applications():
    noted = []
    app = flask_app(noted)
    assert app.test_client().get("/error", headers=who("alice")).status_code == 500
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ZeroDivisionError, match="of the application"):
        app.test_client().get("/error", headers=who("alice"))
    assert noted == [ALICE, ALICE]
    assert in_force.get() is nobody


def test_a_flask_stream_half_read_and_closed_leaves_nobody_behind():
    app, noted = flask_app([]), []

    @app.get("/half")
    def half():
        def body():
            try:
                yield "a"
                yield "b"
            finally:
                noted.append(seen())

        return body()

    response = app.test_client().get("/half", headers=who("alice"))
    assert next(response.response) == b"a"
    response.close()
    assert noted == [ALICE]
    assert in_force.get() is nobody


def test_calls_in_flask_are_billed_to_the_requests_user(ask, ledger):
    client = flask_app([], ask).test_client()
    for path, user in (("/sync", "a"), ("/generator", "b"), ("/with-context", None), ("/handled", "d")):
        client.get(path, headers=who(user), buffered=True)
    assert ledger(*KEYS) == [
        ("a", "scope"), ("b", "scope"), ("b", "scope"), ANONYMOUS, ANONYMOUS, ("d", "scope"),
    ]  # fmt: skip


# Django

if not settings.configured:
    settings.configure(
        SECRET_KEY="x" * 50,
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["spanledger.context.django.attribution_middleware"],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "replaced"}},
        LOGGING_CONFIG=None,
    )
    django.setup()


@contextmanager
def django_site(whose, *urls, **more):
    with override_settings(SPANLEDGER_ATTRIBUTION=whose, ROOT_URLCONF=urls, **more):
        yield


class Held:
    """A streamed body that says as whom it is read and closed."""

    def __init__(self, noted):
        self.noted = noted

    def parts(self):
        try:
            for part in (b"a", b"b"):
                self.noted.append(seen())
                yield part
        finally:
            self.noted.append(("closed", *seen()))

    async def async_parts(self):
        try:
            for part in (b"a", b"b"):
                await asyncio.sleep(0)
                self.noted.append(seen())
                yield part
        finally:
            self.noted.append(("closed", *seen()))


def django_urls(noted, ask=lambda: None, ask_async=None):
    def sync(request):
        noted.append(seen())
        ask()
        return HttpResponse("x")

    async def asynchronous(request):
        await asyncio.sleep(0)
        noted.append(seen())
        if ask_async:
            await ask_async()
        return HttpResponse("x")

    def error(request):
        noted.append(seen())
        raise ZeroDivisionError("of the application")

    async def async_error(request):
        error(request)

    def stream(request):
        return StreamingHttpResponse(Held(noted).parts())

    async def async_stream(request):
        return StreamingHttpResponse(Held(noted).async_parts())

    views = (sync, asynchronous, error, async_error, stream, async_stream)
    return [route(view.__name__, view) for view in views]


def got_by_wsgi(path, user=None):
    response = WSGIClient(WSGIHandler()).get(path, headers=who(user), buffered=True)
    return response.status_code


def got_by_asgi(path, user=None):
    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ASGIHandler()), base_url="http://t") as client:
            found = (await client.get(path, headers=who(user))).status_code
        assert in_force.get() is nobody
        return found

    return asyncio.run(main())


GOT = [got_by_wsgi, got_by_asgi]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("got", GOT)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sync", 200),
        ("/asynchronous", 200),
        ("/error", 500),
        ("/async_error", 500),
        ("/stream", 200),
        ("/async_stream", 200),
    ],
)
def test_whatever_django_does_for_a_request_is_its_users(path, status, got):
    noted = []
    with django_site(by_request, *django_urls(noted)):
        for user in ("alice", None, "bob"):
            noted.clear()
            assert got(path, user) == status
            assert {each[-2:] for each in noted} == {owned(user)}
            assert in_force.get() is nobody


@pytest.mark.filterwarnings("ignore:Unclosed file")  # Django leaves the body of such a request open
@pytest.mark.parametrize("got", GOT)
@pytest.mark.parametrize("path", ["/error", "/async_error"])
def test_exceptions_that_django_propagates_are_the_applications(path, got):
    with (
        django_site(by_request, *django_urls([]), DEBUG_PROPAGATE_EXCEPTIONS=True),
        pytest.raises(ZeroDivisionError, match="of the application"),
    ):
        got(path, "alice")
    gc.collect()
    assert in_force.get() is nobody


def test_calls_in_django_are_billed_to_the_requests_user(ask, ask_async, ledger):
    with django_site(by_request, *django_urls([], ask, ask_async)):
        for got in GOT:
            for path, user in (("/sync", "a"), ("/asynchronous", "b"), ("/sync", None)):
                got(path, user)
    assert ledger(*KEYS) == [("a", "scope"), ("b", "scope"), ANONYMOUS] * 2


def test_a_django_stream_half_read_is_closed_as_its_user():
    noted = []
    with django_site(by_request, *django_urls(noted)):
        body = WSGIHandler()(environ_of("/stream", "alice"), start)
        parts = iter(body)
        next(parts)
        body.close()
    assert noted == [ALICE, ("closed", *ALICE)]
    assert in_force.get() is nobody


def test_a_scope_inside_a_django_stream_holds_between_its_parts():
    def stream(request):
        def body():
            with attribution(user_id="bob"):
                for _ in range(2):
                    noted.append(seen())
                    yield b"x"

        return StreamingHttpResponse(body())

    async def async_stream(request):
        async def body():
            async with attribution(user_id="bob"):
                for _ in range(2):
                    noted.append(seen())
                    yield b"x"

        return StreamingHttpResponse(body())

    noted = []
    with django_site(by_request, route("stream", stream), route("async", async_stream)):
        assert got_by_wsgi("/stream", "alice") == 200
        assert got_by_asgi("/async", "alice") == 200
    assert noted == [("bob", "scope")] * 4


def test_a_django_file_is_still_sent_by_the_servers_file_wrapper(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with django_site(by_request, route("", lambda request: FileResponse(file.open("rb")))):
        body = WSGIHandler()(environ_of(user="alice", **{"wsgi.file_wrapper": FileWrapper}), start)
        content = b"".join(body)
        body.close()
    assert (type(body), content) == (FileWrapper, b"content")


def test_a_django_step_that_is_thrown_away_in_another_context_harms_nobody():
    async def endless(request):
        async def body():
            await Suspended()
            yield b""

        return StreamingHttpResponse(body())

    from django.test import AsyncRequestFactory

    from spanledger.context.django import attribution_middleware

    with django_site(by_request):
        response = asyncio.run(attribution_middleware(endless)(AsyncRequestFactory().get("/")))
    step = response._iterator.__anext__()
    contextvars.copy_context().run(step.send, None)
    step.close()


@pytest.mark.parametrize("whose", [None, 42, {"user_id": "alice"}])
def test_django_says_what_is_missing_in_its_settings(whose):
    with django_site(whose), pytest.raises(ImproperlyConfigured, match="SPANLEDGER_ATTRIBUTION must say"):
        WSGIHandler()


def test_django_takes_a_dotted_path():
    with django_site(f"{__name__}.by_request", *django_urls(noted := [])):
        got_by_wsgi("/sync", "alice")
    assert noted == [ALICE]
    with django_site("spanledger.nowhere"), pytest.raises(ImportError):
        WSGIHandler()


@pytest.mark.parametrize("got", GOT)
def test_whose_can_read_the_user_that_django_authenticated(got, tmp_path, monkeypatch):
    def whose(request):
        return {"user_id": request.user.username}

    from django.contrib.auth import SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection, connections

    monkeypatch.setitem(connections.settings["default"], "NAME", tmp_path / "users.db")
    with django_site(whose, *django_urls(noted := []), **AUTHENTICATED):
        with connection.schema_editor() as editor:
            for model in (ContentType, User):
                editor.create_model(model)
        try:
            user = User.objects.create_user("alice")
            cookie = session_of(user, SESSION_KEY)
            requested = {got_by_wsgi: wsgi_with_cookie, got_by_asgi: asgi_with_cookie}[got]
            requested("/sync", cookie)
        finally:
            connection.close()
    assert noted == [ALICE]


AUTHENTICATED = {
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "spanledger.context.django.attribution_middleware",
    ]
}


def session_of(user, session_key):
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    session = SessionStore()
    session[session_key] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


def wsgi_with_cookie(path, cookie):
    return WSGIClient(WSGIHandler(), use_cookies=False).get(path, headers={"Cookie": cookie}).status_code


def asgi_with_cookie(path, cookie):
    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ASGIHandler()), base_url="http://t") as client:
            return (await client.get(path, headers={"Cookie": cookie})).status_code

    return asyncio.run(main())


# Headers

PROXY = "10.0.0.1"
TRUSTED = {"trusted_proxies": ["10.0.0.0/8"]}


def asked_asgi(source, headers, peer=PROXY):
    """What an ASGI application sees."""
    found = []

    async def app(scope, receive, send):
        found.append(current())

    raw = [(name.encode("latin-1"), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    scope = http_scope(client=(peer, 1) if peer is not None else None) | {"headers": raw}
    asyncio.run(asgi.AttributionMiddleware(app, source)(scope, received, dropped))
    return found[0]


def environ_with(headers, peer):
    """As servers make it: duplicates joined, hyphens underscores, values in Latin-1."""
    environ = environ_of(REMOTE_ADDR=peer or "")
    for name, value in headers:
        key = f"HTTP_{name.upper().replace('-', '_')}"
        text = (value if isinstance(value, bytes) else value.encode()).decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def asked_wsgi(source, headers, peer=PROXY):
    found = []
    app = wsgi.AttributionMiddleware(lambda environ, start_response: found.append(current()) or [], source)
    app(environ_with(headers, peer), start)
    return found[0]


def asked_django(source, headers, peer=PROXY):
    found = []
    with django_site(source, route("", lambda request: found.append(current()) or HttpResponse())):
        WSGIHandler()(environ_with(headers, peer), start).close()
    return found[0]


def asked_async_django(source, headers, peer=PROXY):
    found = []

    async def view(request):
        found.append(current())
        return HttpResponse()

    messages = [received()]

    async def receive():
        return await (messages.pop() if messages else asyncio.Event().wait())

    raw = [
        (name.lower().encode("latin-1"), value if isinstance(value, bytes) else value.encode())
        for name, value in headers
    ]
    scope = http_scope(client=(peer, 1) if peer is not None else None) | {"headers": raw}
    with django_site(source, route("", view)):
        asyncio.run(ASGIHandler()(scope, receive, dropped))
    return found[0]


ASKED = [asked_asgi, asked_wsgi, asked_django, asked_async_django]
every_server = pytest.mark.parametrize("asked", ASKED)


@pytest.mark.parametrize("make", [Headers, lambda **given: Baggage(["user_id"], **given)], ids=["headers", "baggage"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "anybody can send these headers: name the addresses.*trusted_proxies=.*trust_all=True"),
        ({"trusted_proxies": []}, "name the addresses"),
        ({"trusted_proxies": ["10.0.0.0/8"], "trust_all": True}, "trust_all"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "/0 is everybody"),
        ({"trusted_proxies": ["::/0"]}, "/0 is everybody"),
        ({"trusted_proxies": ["10.0.0.0/8", "10.1.2.3/0"]}, "/0 is everybody"),
        ({"trusted_proxies": "0.0.0.0/0"}, "/0 is everybody"),
        ({"trusted_proxies": ["10.0.0.0/33"]}, "10.0.0.0/33"),
        ({"trusted_proxies": ["proxy.internal"]}, "proxy.internal"),
        ({"trusted_proxies": [""]}, "''"),
        ({"trusted_proxies": ["*"]}, r"\*"),
    ],
)
def test_who_is_believed_must_be_said(make, given, says):
    with pytest.raises(ValueError, match=says):
        make(**given)


@every_server
@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        (["10.0.0.0/8"], "10.255.255.255", True),
        ("10.0.0.0/8", "10.0.0.1", True),
        (["10.0.0.7/8"], "10.1.1.1", True),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["10.0.0.0/8"], "::ffff:11.0.0.1", False),
        (["10.0.0.0/8"], "::10.0.0.1", False),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["192.0.2.1", "2001:db8::/32"], "2001:db8::5", True),
        (["10.0.0.0/8"], "10.0.0.1:443", False),
        (["10.0.0.0/8"], "testclient", False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], None, False),
        (["unix"], None, True),
        (["unix"], "10.0.0.1", False),
        (["unix"], "unix", False),
        (["unix", "10.0.0.0/8"], "10.0.0.1", True),
    ],
)
def test_headers_are_believed_of_trusted_peers_only(trusted, peer, believed, asked):
    found = asked(Headers(trusted_proxies=trusted), [("X-User-ID", "alice")], peer)
    assert found == (Attribution(user_id="alice", attribution_source="headers") if believed else NOBODY)


@every_server
def test_headers_of_anybody_are_marked(asked):
    found = asked(Headers(trust_all=True), [("X-User-ID", "alice")], "203.0.113.9")
    assert found == Attribution(user_id="alice", attribution_source="unverified_headers")


@every_server
def test_headers_have_any_case_and_names_that_can_be_chosen(asked):
    everything = [
        ("x-USER-id", "u"), ("X-SESSION-ID", "s"), ("x-organization-id", "o"), ("X-Feature", "f"), ("X-Team", "t"),
        ("X-Project", "p"), ("X-Cost-Center", "c"), ("X-Message-ID", "nobody asked"),
    ]  # fmt: skip
    assert asked(Headers(**TRUSTED), everything) == Attribution(*"usoftpc", attribution_source="headers")
    chosen = Headers(**TRUSTED, names={"user_id": "X-Remote-USER", "message_id": "x-message-id"})
    assert asked(chosen, [*everything, ("x-remote-user", "alice")]) == Attribution(
        user_id="alice", message_id="nobody asked", attribution_source="headers"
    )


TOLD = {
    "nothing": ([], None),
    "empty": ([("X-User-ID", "")], None),
    "blank": ([("X-User-ID", " \t ")], None),
    "spaces around": ([("X-User-ID", "  alice\t")], "alice"),
    "twice": ([("X-User-ID", "alice"), ("X-User-ID", "mallory")], None),
    "twice in another case": ([("X-User-ID", "alice"), ("x-user-id", "mallory")], None),
    "twice the same": ([("X-User-ID", "alice"), ("X-User-ID", "alice")], None),
    "twice, once empty": ([("X-User-ID", ""), ("X-User-ID", "mallory")], None),
    "comma": ([("X-User-ID", "alice, mallory")], None),
    "only a comma": ([("X-User-ID", ",")], None),
    "control characters": ([("X-User-ID", "al\x01i\x7fce\x00")], "alice"),
    "only control characters": ([("X-User-ID", "\x01\x00")], None),
    "UTF-8": ([("X-User-ID", "Zoë 東京")], "Zoë 東京"),
    "Latin-1": ([("X-User-ID", b"Zo\xeb")], "Zoë"),
    "C1 in UTF-8": ([("X-User-ID", "ali\x85ce")], "alice"),
    "256": ([("X-User-ID", "x" * 256)], "x" * 256),
    "257": ([("X-User-ID", "x" * 257)], "sha256:" + sha256(b"x" * 257).hexdigest()),
    "underscores beside hyphens": ([("X-User-ID", "alice"), ("X_User_ID", "mallory")], {"alice", None}),
}


@every_server
@pytest.mark.parametrize(("headers", "user"), TOLD.values(), ids=TOLD)
def test_a_header_is_one_clean_value_or_nothing(headers, user, asked):
    found = asked(Headers(**TRUSTED), headers)
    possible = user if isinstance(user, set) else {user}
    assert found.user_id in possible
    assert found == (Attribution(user_id=found.user_id, attribution_source="headers") if found.user_id else NOBODY)


@pytest.mark.parametrize("asked", [asked_asgi, asked_async_django])
def test_underscores_are_no_hyphens(asked):
    assert asked(Headers(**TRUSTED), [("X_User_ID", "mallory")]) is NOBODY


def test_a_real_servers_duplicate_headers_are_not_believed():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [repr(seen()).encode()]

    headers = wsgi.AttributionMiddleware(app, Headers(trusted_proxies=["127.0.0.0/8"]))
    with serving(headers) as port:
        assert fetched(port, [("X-User-ID", "alice")]) == "('alice', 'headers')"
        assert fetched(port, [("X-User-ID", "Zoë".encode())]) == "('Zoë', 'headers')"
        assert fetched(port, [("X-User-ID", "alice"), ("x-user-id", "mallory")]) == repr(ANONYMOUS)
        assert fetched(port, [("X-User-ID", "alice"), ("X_User_ID", "mallory")]) == repr(ANONYMOUS)


def test_headers_through_fastapi_bill_the_call(ask_async, ledger):
    app = FastAPI()
    app.add_middleware(asgi.AttributionMiddleware, whose=Headers(**TRUSTED))

    @app.get("/")
    async def call():
        await ask_async()

    async def main():
        for peer in (PROXY, "203.0.113.9"):
            transport = httpx.ASGITransport(app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                await client.get("/", headers={"X-User-ID": "alice"})

    asyncio.run(main())
    assert ledger(*KEYS) == [("alice", "headers"), ANONYMOUS]


# Baggage

CARRIED = {
    "one": ("user.id=alice", "alice"),
    "others": ("a=1, user.id=alice ,b=2", "alice"),
    "not ours": ("session.id=s,USER.ID=mallory,user_id=mallory,enduser.id=mallory", None),
    "encoded": ("user.id=Zo%C3%AB%20%2C%3D%2B", "Zoë ,=+"),
    "control characters": ("user.id=al%00i%0Ace", "alice"),
    "empty value": ("user.id=", None),
    "empty": ("", None),
    "malformed": ("user.id", None),
    "malformed beside": ("=,;,,x,===,\x00,user.id=alice", "alice"),
    "not decodable": ("user.id=%FF%FE", "\ufffd\ufffd"),
    "properties": ("user.id=alice;secret;ttl=1", "alice"),
    "300": (",".join(f"k{number}=v" for number in range(300)) + ",user.id=alice", None),
    "first of 300": ("user.id=alice," + ",".join(f"k{number}=v" for number in range(299)), "alice"),
    "too long": ("user.id=alice,k=" + "x" * 9000, None),
    "long value": ("user.id=" + "x" * 300, "sha256:" + sha256(b"x" * 300).hexdigest()),
    "a name with a space": ("+user.id=alice", "alice"),
    "twice": ("user.id=alice,user.id=mallory", None),
    "twice, once encoded": ("user%2Eid=mallory,user.id=alice", None),
}


@pytest.mark.parametrize(("header", "user"), CARRIED.values(), ids=CARRIED)
def test_baggage_is_read_by_key_and_never_trusted_further(header, user):
    found = asked_asgi(Baggage(["user_id"], **TRUSTED), [("baggage", header)])
    assert found == (Attribution(user_id=user, attribution_source="baggage") if user else NOBODY)


@every_server
def test_baggage_of_other_peers_and_of_other_keys_changes_nothing(asked):
    header = [("Baggage", "user.id=alice,spanledger.team=t,spanledger.metadata.page=p")]
    assert asked(Baggage(["user_id", "team"], **TRUSTED), header) == Attribution(
        user_id="alice", team="t", attribution_source="baggage"
    )
    assert asked(Baggage("team", **TRUSTED), header) == Attribution(team="t", attribution_source="baggage")
    assert asked(Baggage(["user_id"], **TRUSTED), header, "203.0.113.9") is NOBODY


@pytest.mark.parametrize("keys", [[], ["user.id"], ["user_id", "metadata"], "attribution_source"])
@pytest.mark.parametrize("make", [lambda keys: Baggage(keys, **TRUSTED), lambda keys: Outbound(hosts="a.b", keys=keys)])
def test_keys_of_baggage_are_attribution_keys(make, keys):
    with pytest.raises(ValueError, match="expected some of user_id, session_id"):
        make(keys)


# Outbound


def sent(outbound, url, headers=None, *, asynchronous=False, redirects=()):
    """The `baggage` of each request that leaves."""
    told, left = [], list(redirects)

    def respond(request):
        told.append(request.headers.get("baggage"))
        return httpx.Response(307, headers={"location": left.pop(0)}) if left else httpx.Response(200)

    transport = httpx.MockTransport(respond)

    async def main():
        hooks = {"request": [outbound.async_hook]}
        async with httpx.AsyncClient(transport=transport, event_hooks=hooks, follow_redirects=True) as client:
            await client.get(url, headers=headers)

    if asynchronous:
        asyncio.run(main())
    else:
        hooks = {"request": [outbound.hook]}
        with httpx.Client(transport=transport, event_hooks=hooks, follow_redirects=True) as client:
            client.get(url, headers=headers)
    return told


def members(header):
    return sorted(header.split(","))


HOSTS = ("billing.example", "*.internal.example")


@pytest.fixture
def outbound():
    return Outbound(hosts=HOSTS, keys=["user_id", "team"])


SENT = "user.id=Zo%C3%AB%20%2C%3D%3B%22,spanledger.team=t"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://billing.example/x?y", SENT),
        ("http://BILLING.example:8080", SENT),
        ("https://internal.example", SENT),
        ("https://a.b.internal.example", SENT),
        ("https://notinternal.example", None),
        ("https://internal.example.evil.test", None),
        ("https://internal.example@evil.test/", None),
        ("https://evil.test/internal.example", None),
        ("https://sub.billing.example", None),
        ("https://api.openai.com/v1", None),
    ],
)
def test_named_keys_go_to_named_hosts_only(url, expected, asynchronous, outbound):
    with attribution(user_id='Zoë ,=;"', team="t", session_id="secret", page="secret"):
        assert sent(outbound, url, asynchronous=asynchronous) == [expected]
        (beside,) = sent(outbound, url, {"Baggage": "a=1"}, asynchronous=asynchronous)
        assert members(beside) == members(f"{expected},a=1" if expected else "a=1")


@pytest.mark.parametrize(
    "host",
    [
        "api.openai.com",
        "*.openai.com",
        "openai.com",
        "*.x.ai",
        "openrouter.ai",
        "generativelanguage.googleapis.com",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "us-east1-aiplatform.googleapis.com",
        "r.openai.azure.com",
        "*",
        "*.",
        "API.OpenAI.com",
        "api.openai.com.",
    ],
)
def test_hosts_of_model_providers_are_refused(host):
    with pytest.raises(ValueError, match="model provider"):
        Outbound(hosts=["billing.example", host], keys=["user_id"])


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com",
        "https://api.openai.com.",
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        "https://us-east1-aiplatform.googleapis.com",
        "https://generativelanguage.googleapis.com",
    ],
)
def test_a_wide_pattern_reaches_no_model_provider(url):
    wide = Outbound(hosts=["*.com", "*.com.", "*.amazonaws.com", "*.googleapis.com"], keys=["user_id"])
    with attribution(user_id="alice"):
        assert wide.headers(url) == {}
        assert wide.headers("https://s3.amazonaws.com") == {"baggage": "user.id=alice"}


def test_hosts_have_any_case():
    with attribution(user_id="alice"):
        assert Outbound(hosts="Billing.Example", keys="user_id").headers("https://billing.example") == {
            "baggage": "user.id=alice"
        }


@pytest.mark.parametrize(
    "existing", ["user.id=mallory", " user.id = mallory ;p=1", "user%2Eid=mallory", "+user.id=mallory"]
)
def test_what_others_said_for_our_keys_is_replaced(existing, outbound):
    with attribution(user_id="alice"):
        (found,) = sent(outbound, "https://billing.example", {"baggage": f"a=1,{existing},b=2;c"})
    assert members(found) == ["a=1", "b=2;c", "user.id=alice"]


def test_what_others_said_for_our_keys_is_removed_where_nobody_is_known(outbound):
    existing = {"baggage": "user.id=mallory,a=1,spanledger.team=m"}
    assert sent(outbound, "https://billing.example", existing) == ["a=1"]
    with attribution(session_id="s", user_id=None):
        assert sent(outbound, "https://billing.example", existing) == ["a=1"]
    assert sent(outbound, "https://billing.example", {"baggage": "user.id=mallory"}) == [None]


def test_baggage_of_others_that_is_full_does_not_crowd_ours_out(outbound):
    existing = ",".join(["user%2Eid=mallory", *(f"k{number}=v" for number in range(200))])
    with attribution(user_id="alice"):
        (header,) = sent(outbound, "https://billing.example", {"baggage": existing})
    assert asked_asgi(Baggage(["user_id"], **TRUSTED), [("baggage", header)]).user_id == "alice"


def test_a_redirect_to_another_host_takes_nothing_along(outbound):
    with attribution(user_id="alice"):
        assert sent(outbound, "https://billing.example", redirects=["https://evil.test", "https://api.openai.com"]) == [
            "user.id=alice",
            None,
            None,
        ]


def test_what_is_sent_is_what_the_other_service_reads(outbound):
    said = Attribution(user_id='Zoë ,=;%+"\\', team="東京")
    with attribution(user_id=said.user_id, team=said.team):
        (header,) = sent(outbound, "https://billing.example")
    assert unquote(header) == f"user.id={said.user_id},spanledger.team={said.team}"
    found = asked_asgi(Baggage(["user_id", "team"], **TRUSTED), [("baggage", header)])
    assert found == said._replace(attribution_source="baggage")


def test_nothing_is_sent_for_nobody(outbound):
    assert sent(outbound, "https://billing.example") == [None]
    with attribution(user_id="alice"):
        assert outbound.headers("not a url") == {}


def test_what_is_no_url_raises_nothing(outbound):
    with attribution(user_id="alice"):
        assert outbound.headers("https://[broken") == {}
