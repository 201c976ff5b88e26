"""What attribution costs the thread: a scope, a call under one, a job, a request. Medians of CPU time, taken in turn.

python benchmarks/scopes.py [rounds]
"""

import statistics
import sys
import tempfile
import time
from functools import partial

import httpx2
from openai import OpenAI

import spanledger
from spanledger.context import asgi, wsgi
from spanledger.context.scope import captured
from spanledger.context.sources import Headers
from spanledger.context.threads import run_in

BODY = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}  # fmt: skip
MESSAGES = [{"role": "user", "content": "Hello"}]
SENT = [(b"host", b"x"), (b"x-user-id", b"ada"), (b"x-team", b"search"), (b"accept", b"*/*")]
REQUEST = {"type": "http", "headers": SENT, "client": ("10.0.0.1", 1)}
ENVIRON = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_USER_ID": "ada", "HTTP_X_TEAM": "search", "wsgi.url_scheme": "http"}
SOURCES = {"a function": lambda _: {"user_id": "ada"}, "headers": Headers(trusted_proxies=["10.0.0.0/8"])}


def took(do):
    start = time.thread_time_ns()
    do()
    return time.thread_time_ns() - start


def more(bare, watched, times, rounds):
    """Median µs that `watched` takes more than `bare`, one after the other."""
    found = []
    for _ in range(rounds):
        pairs = [(took(bare), took(watched)) for _ in range(times)]
        found.append(statistics.median(each for _, each in pairs) - statistics.median(each for each, _ in pairs))
    return statistics.median(found) / 1e3


def nothing():
    """For what a function call takes."""


def scope():
    with spanledger.attribution(user_id="ada", feature="search"):
        pass


async def asgi_app(*_):
    """Answers nothing."""


def wsgi_app(*_):
    return []


def served(app):
    """Run a coroutine that never waits."""
    try:
        app(REQUEST, None, None).send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def main(rounds):
    spanledger.configure(state_dir=tempfile.mkdtemp(), ledger_url="none")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=BODY))
    client = OpenAI(api_key="x", http_client=httpx2.Client(transport=transport))

    def call():
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    def attributed():
        with spanledger.attribution(user_id="ada", feature="search"):
            call()

    def job():
        run_in(captured(), nothing)

    call()
    spanledger.flush(30)  # the price list is loaded by then, and no thread but ours at work
    rows = [
        ("a scope of two keys", more(nothing, scope, 5000, rounds), 3),
        ("a call, more than outside a scope", more(call, attributed, 300, rounds), 5),
        ("a job of a pool", more(nothing, job, 5000, rounds), None),
    ]
    for name, whose in SOURCES.items():
        app = asgi.AttributionMiddleware(asgi_app, whose)
        rows.append(
            (f"ASGI middleware, {name}", more(partial(served, asgi_app), partial(served, app), 3000, rounds), 20)
        )
        app = wsgi.AttributionMiddleware(wsgi_app, whose)
        bare = partial(wsgi_app, ENVIRON, None)
        rows.append((f"WSGI middleware, {name}", more(bare, partial(app, ENVIRON, None), 3000, rounds), 20))
    for name, cost, target in rows:
        print(f"{name:36}{cost:6.1f} µs{f'   (target {target})' if target else ''}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
