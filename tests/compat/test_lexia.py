"""Lexia's promises, each by its number: what a session is told is in the ledger once, and at the usage API.

Nothing of it raises into an agent, and nothing waits for a network.
"""

import asyncio
import gc
import inspect
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from types import SimpleNamespace

import pytest
from flask import Flask, request
from openai import OpenAI
from opentelemetry.trace import StatusCode
from tests.compat.conftest import MESSAGE
from tests.compat.seeds import billed
from tests.export.receiver import Answer, Receiver

import spanledger
from spanledger import assembly
from spanledger.compat.lexia import ChatMessage, LexiaHandler, Session, channel
from spanledger.recording.survey import survey

HELLO = [{"role": "user", "content": "Hello! How are you?"}]
ID = MESSAGE["response_uuid"]
NOBODY = "http://127.0.0.1:9"
PROMPT = {"message_id": ID, "type": "prompt", "token": "150"}
COMPLETION = {"message_id": ID, "type": "completion", "token": "250"}


@pytest.fixture
def session(message):
    return LexiaHandler().begin(message)


@pytest.fixture
def watched(truth):
    """A call of the OpenAI SDK, which is watched; its usage."""
    spanledger.configure()

    with OpenAI() as client:
        yield partial(client.chat.completions.create, model="gpt-4o", messages=HELLO)


def tell(session, usage):
    session.usage(usage.prompt_tokens, "prompt")
    session.usage(usage.completion_tokens, "completion")


def posted():
    """Wait until all that was streamed is sent."""
    channel._POST._waiting.join()


def test_l1_a_handler_needs_no_argument_and_no_surroundings(monkeypatch, usage_api):
    monkeypatch.delenv("LEXIA_API_BASE_URL")
    assert isinstance(LexiaHandler(), LexiaHandler)
    assert usage_api.requests == []


@pytest.mark.parametrize("kind", [ChatMessage, dict, SimpleNamespace])
def test_l2_the_message_id_is_the_response_uuid_of_whatever_was_posted(kind, ledger, sent):
    LexiaHandler().begin(kind(**MESSAGE)).usage(150, "prompt")
    assert ledger("message_id", "input_tokens") == [(ID, 150)]
    assert sent() == [PROMPT]


@pytest.mark.parametrize("data", [None, {}, SimpleNamespace(), {"response_uuid": ""}, 7])
def test_l2_a_message_without_one_is_one_warning_and_its_usage_is_kept(data, ledger, sent, said):
    LexiaHandler().begin(data).usage(150, "prompt")
    assert said() == ["A session was begun without a response_uuid: its usage is recorded without a message."]
    ((message, record, tokens),) = ledger("message_id", "record_id", "input_tokens")
    assert (message, tokens) == (None, 150)
    assert sent() == [{**PROMPT, "message_id": record}]


def test_l2_calls_in_a_session_belong_to_its_message_until_it_is_closed(watched, message, ledger):
    session = LexiaHandler().begin(message)
    watched()
    session.close()
    watched()
    assert ledger("message_id") == [(ID,), (None,)]


def test_l2_the_next_session_of_the_same_place_takes_the_calls(watched, ledger):
    handler, held = LexiaHandler(), []
    for name in ("a", "b"):
        held.append(handler.begin({"response_uuid": name}))
        watched()
    assert ledger("message_id") == [("a",), ("b",)]


def test_l2_sessions_inside_one_another_each_have_their_calls(watched, ledger):
    handler = LexiaHandler()
    with handler.begin({"response_uuid": "outer"}) as outer:
        watched()
        with handler.begin({"response_uuid": "inner"}):
            watched()
        outer.usage(50, "tool_usage")
    assert sorted(ledger("message_id", "operation")) == [
        ("inner", "chat"),
        ("outer", "chat"),
        ("outer", "execute_tool"),
    ]


def test_l2_sessions_of_threads_and_tasks_are_their_own(watched, ledger, truth):
    handler = LexiaHandler()
    together = threading.Barrier(4)

    def process(name):
        session = handler.begin({"response_uuid": name})
        together.wait()
        tell(session, watched().usage)
        together.wait()
        session.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(process, "abcd"))

    async def process_later(name):
        session = handler.begin({"response_uuid": name})
        await asyncio.sleep(0)
        tell(session, watched().usage)
        await asyncio.sleep(0)
        session.close()

    async def everybody():
        await asyncio.gather(*map(process_later, "efgh"))

    asyncio.run(everybody())
    counts = dict.fromkeys(billed(truth()))
    assert sorted(ledger("message_id", "input_tokens", "output_tokens")) == [
        (name, *pair) for name in "abcdefgh" for pair in counts
    ]


def test_l2_a_session_that_nobody_holds_any_more_has_ended(watched, ledger):
    LexiaHandler().begin({"response_uuid": "lost"}).usage(150, "prompt")
    gc.collect()
    watched()
    assert sorted(ledger("message_id", "output_tokens"), key=str) == [("lost", None), (None, 9)]


def test_l3_one_method_takes_all_by_place_or_by_name(session, sent):
    assert (
        str(inspect.signature(Session.usage)).replace("'", "").startswith("(self, tokens: Any, token_type: str, cost")
    )
    session.usage(50, "function_call", "0.04", "Image")
    session.usage(tokens=50, token_type="tool_usage", cost="0.04", label="Image")
    assert spanledger.flush()
    same = {"message_id": ID, "token": "50", "cost": "0.04", "label": "Image"}
    assert sent() == [{**same, "type": "function_call"}, {**same, "type": "tool_usage"}]


def test_l4_there_are_five_types(session, ledger, sent):
    for kind in ("prompt", "completion", "total", "function_call", "tool_usage"):
        session.usage(7, kind)
    assert sorted(ledger("operation", "input_tokens", "output_tokens", "other_usage"), key=str) == [
        ("chat", 7, 7, None),
        ("execute_tool", None, None, '{"function_call_tokens":7}'),
        ("execute_tool", None, None, '{"tool_usage_tokens":7}'),
    ]
    assert sorted(row["type"] for row in sent()) == ["completion", "function_call", "prompt", "tool_usage"]


@pytest.mark.parametrize(("one", "other"), [("input", "output"), ("Input", " OUTPUT ")])
def test_l5_input_is_prompt_and_output_is_completion(one, other, session, ledger, sent):
    session.usage(150, one)
    session.usage(250, other)
    assert ledger("input_tokens", "output_tokens") == [(150, 250)]
    assert sent() == [PROMPT, COMPLETION]


def test_l6_a_cost_is_taken_as_it_is_said(session, ledger, sent):
    session.usage(150, "prompt", cost="0.001")
    session.usage(250, "completion", cost="0.002")
    assert ledger("cost_pusd", "cost_source", "cost_status") == [(3 * 10**9, "manual", "priced")]
    assert sent() == [{**PROMPT, "cost": "0.001"}, {**COMPLETION, "cost": "0.002"}]


def test_l6_without_a_cost_none_is_put_into_anybodys_mouth(session, calls, sent):
    session.usage(150, "prompt")
    session.usage(250, "completion")
    assert calls() == [(150, 250)]
    assert sent() == [PROMPT, COMPLETION]


def test_l6_a_cost_of_one_part_alone_is_partial(session, ledger):
    session.usage(150, "prompt", cost="0.001")
    session.usage(250, "completion")
    assert ledger("cost_pusd", "cost_status") == [(10**9, "partial")]


@pytest.mark.parametrize(
    ("cost", "told"),
    [(1e-7, "0.0000001"), (0.04, "0.04"), (Decimal("0.040"), "0.04"), (2, "2"), ("0.0400", "0.0400"), (0, "0")],
)
def test_l6_a_cost_on_the_wire_has_no_exponent(cost, told, session, sent):
    session.usage(50, "function_call", cost=cost)
    assert spanledger.flush()
    assert [row["cost"] for row in sent()] == [told]


def test_l7_a_label_is_told_and_kept(session, ledger, sent):
    session.usage(150, "prompt", label="Résumé")
    session.usage(50, "tool_usage")
    assert [metadata and json.loads(metadata) for (metadata,) in ledger("metadata")] == [{"label": "Résumé"}, None]
    assert {row["type"]: row.get("label") for row in sent()} == {"prompt": "Résumé", "tool_usage": None}


@pytest.mark.parametrize("tokens", [150, "150", 150.0, Decimal(150), " 150 "])
def test_l8_numbers_and_texts_become_texts_on_the_wire(tokens, session, ledger, sent):
    session.usage(tokens, "prompt")
    assert ledger("input_tokens") == [(150,)]
    assert sent() == [PROMPT]


def test_l9_each_report_is_delivered_to_the_usage_api(session, usage_api):
    session.usage(150, "prompt")
    session.usage(50, "function_call", cost="0.04")
    assert spanledger.flush()
    assert [each.path for each in usage_api.requests] == ["/api/internal/v1/usages"] * 2
    assert {each.headers["content-type"] for each in usage_api.requests} == {"application/json"}
    assert len({each.headers["idempotency-key"] for each in usage_api.requests}) == 2


@pytest.mark.parametrize(
    ("said", "used"),
    [
        (None, "http://localhost"),
        ("", "http://localhost"),
        ("https://api.example.org/x/", "https://api.example.org/x/"),
    ],
)
def test_l10_the_base_url_is_that_of_the_environment(said, used, monkeypatch):
    monkeypatch.delenv("LEXIA_API_BASE_URL")
    if said is not None:
        monkeypatch.setenv("LEXIA_API_BASE_URL", said)
    LexiaHandler()
    assert assembly._runtime.settings.usage_api_url == used


def test_l10_what_is_no_address_is_one_warning_and_the_default(monkeypatch, said):
    monkeypatch.setenv("LEXIA_API_BASE_URL", "api.example.org")
    LexiaHandler()
    assert assembly._runtime.settings.usage_api_url == "http://localhost"
    assert len({each for each in said() if "LEXIA_API_BASE_URL" in each}) == 1


def test_l11_a_slow_usage_api_holds_nobody_up(message, monkeypatch, ledger):
    arrived, go_on = threading.Event(), threading.Event()

    def slow(_):
        arrived.set()
        go_on.wait(30)
        return Answer()

    with Receiver(slow) as api:
        monkeypatch.setenv("LEXIA_API_BASE_URL", api.url)
        session = LexiaHandler().begin(message)
        session.usage(150, "prompt")
        session.usage(250, "completion")
        session.close()
        assert arrived.wait(30)
        session.usage(50, "function_call")  # while the first one is on its way
        assert api.accepted == []
        go_on.set()
        assert len(ledger()) == 2
        assert [each.json["type"] for each in api.accepted] == ["prompt", "completion", "function_call"]


def test_l11_a_usage_api_that_is_down_loses_nothing(message, monkeypatch, ledger, home):
    monkeypatch.setenv("LEXIA_API_BASE_URL", NOBODY)
    session = LexiaHandler().begin(message)
    session.usage(150, "prompt")
    session.close()
    assert not spanledger.flush(3)
    assert ledger("input_tokens", flush=False) == [(150,)]
    assert [state.pending for state in survey(home / "outbox")] == [1]


@pytest.mark.parametrize("status", [401, 429, 500, 302])
def test_l11_what_a_usage_api_refuses_is_sent_again(status, session, usage_api, ledger, said):
    location = {"location": f"{usage_api.url}/elsewhere"} if status == 302 else {}
    taken = threading.Event()

    def answer(_):
        taken.set()
        return Answer()

    usage_api.answers.append(Answer(status, location))
    usage_api.answer = answer
    session.usage(150, "prompt")
    session.close()
    assert taken.wait(30)
    assert ledger("input_tokens") == [(150,)]
    assert [each.json for each in usage_api.accepted] == [PROMPT]
    assert {each.path for each in usage_api.requests} == {"/api/internal/v1/usages"}
    assert any(f"HTTP {status}" in each for each in said())


@pytest.mark.parametrize("body", [b"", b"<html>", b'"OK"', b"\xff"])
def test_l11_whatever_a_usage_api_says_with_200_is_a_yes(body, session, usage_api, sent):
    usage_api.answer = lambda _: Answer(200, {}, body)
    session.usage(150, "prompt")
    assert spanledger.flush()
    assert sent() == [PROMPT]


NONSENSE = [
    (-5, "prompt", None), (None, "prompt", None), ("many", "prompt", None), (1.5, "prompt", None),
    (True, "prompt", None), (float("nan"), "prompt", None), (float("inf"), "prompt", None), (10**30, "prompt", None),
    ([], "prompt", None), (150, "banana", None), (150, None, None), (150, 7, None), (150, "prompt", "free"),
    (150, "prompt", -1), (150, "prompt", float("nan")), (150, "prompt", []),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "kind", "cost"), NONSENSE)
def test_l12_what_can_not_be_right_is_one_line_in_the_log_and_nothing_else(tokens, kind, cost, session, said, calls):
    session.usage(tokens, kind, cost=cost)
    session.usage(150, "prompt")
    (line,) = said()
    shown = "<list>" if tokens == [] else repr(tokens)
    assert line.startswith(f"usage({shown}, {kind!r}) is not recorded: ")
    assert calls() == [(150, None)]


def test_l13_what_is_sent_is_logged(session, said):
    session.usage("150", "input", cost=0.001, label="Draft")
    assert [each for each in said("INFO") if "usage" in each] == [
        f"usage of message {ID!r}: {{'type': 'prompt', 'token': '150', 'cost': '0.001'}}"
    ]


def test_l14_there_are_methods_for_each_type(session, ledger, sent):
    session.track_prompt(150, cost="0.001")
    session.track_completion("250", cost="0.002", label="Draft")
    session.track_total(400)
    session.track_function_call(50, "0.04", "Image")
    session.track_tool_usage(100)
    assert len(ledger()) == 3
    draft = {"label": "Draft"}
    assert sorted(sent(), key=str) == sorted(
        [
            {**PROMPT, "cost": "0.001", **draft},
            {**COMPLETION, "cost": "0.002", **draft},
            {"message_id": ID, "type": "function_call", "token": "50", "cost": "0.04", "label": "Image"},
            {"message_id": ID, "type": "tool_usage", "token": "100"},
        ],
        key=str,
    )


@pytest.fixture
def platform(monkeypatch):
    """Centrifugo and the address that a message is answered at."""
    with Receiver() as made:
        yield made


def named(platform):
    return {**MESSAGE, "stream_url": platform.url, "stream_token": "key", "url": f"{platform.url}/answer"}


def test_l15_pieces_of_the_answer_are_streamed_in_order(platform, home):
    session = LexiaHandler().begin(named(platform))
    for piece in ("Hello", " ", "world"):
        session.stream(piece)
    posted()
    about = {"uuid": ID, "thread_id": "t1"}
    assert [(each.path, each.json) for each in platform.requests] == [
        ("/api/publish", {"channel": "c1", "data": {"delta": piece, "finished": False, **about}})
        for piece in ("Hello", " ", "world")
    ]
    assert {(each.headers["x-api-key"], each.headers["authorization"]) for each in platform.requests} == {
        ("key", "apikey key")
    }


def test_l15_a_stream_of_the_sdk_goes_through_a_session_and_is_counted_once(watched, message, ledger, truth):
    session = LexiaHandler().begin(message)
    usage = None
    for chunk in watched(stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        session.stream(chunk.choices[0].delta.content or "" if chunk.choices else "")
    tell(session, usage)
    assert session.close() == "The quick brown fox jumps over the lazy dog. "
    assert ledger("input_tokens", "output_tokens", "stream", "message_id") == [(*billed(truth())[0], 1, ID)]


@pytest.mark.parametrize("piece", [None, 7, b"x", "\ud800"])
def test_l15_whatever_is_streamed_raises_nothing(piece, platform):
    session = LexiaHandler().begin(named(platform))
    session.stream(piece)
    posted()
    assert session.close() == str(piece)
    posted()


def test_l16_close_sends_the_whole_answer_with_what_was_reported(platform):
    session = LexiaHandler().begin(named(platform))
    session.usage(150, "prompt")
    session.usage(250, "completion")
    session.stream("Hello")
    assert session.close(file_url="f") == "Hello"
    assert session.close() == "Hello"
    posted()
    usage = {
        "input_tokens": 150, "output_tokens": 250, "total_tokens": 400, "input_token_details": [],
        "output_token_details": [],
    }  # fmt: skip
    about = {"uuid": ID, "thread_id": "t1"}
    assert [(each.path, each.json) for each in platform.requests][1:] == [
        ("/api/publish", {"channel": "c1", "data": {"finished": True, "full_response": "Hello", **about}}),
        (
            "/answer",
            {
                "uuid": ID, "conversation_id": 7, "content": "Hello", "role": "assistant", "status": "FINISHED",
                "usage": usage, "file_url": "f",
            },
        ),
    ]  # fmt: skip


def test_l16_usage_after_close_still_belongs_to_the_message_and_to_its_call(watched, message, ledger, truth):
    session = LexiaHandler().begin(message)
    usage = watched().usage
    session.close()
    tell(session, usage)
    assert ledger("input_tokens", "output_tokens", "message_id") == [(*billed(truth())[0], ID)]


def test_l16_close_can_be_told_the_usage(message, ledger, sent):
    LexiaHandler().begin(message).close(usage_info={"prompt_tokens": 150, "completion_tokens": 250})
    assert ledger("input_tokens", "output_tokens") == [(150, 250)]
    assert sent() == [PROMPT, COMPLETION]


def test_l17_an_error_is_streamed_and_ends_the_session(platform, recording, said):
    session = LexiaHandler().begin(named(platform))
    session.error("out of paper")
    session.error("again")
    session.close()
    posted()
    assert [each.json.get("status") for each in platform.requests] == [None, None, "FAILED"]
    (message,) = [each.json for each in platform.requests if each.path == "/answer"]
    assert (message["content"], message["role"], message["usage"]["total_tokens"]) == ("out of paper", "developer", 0)
    (span,) = [each for each in recording.spans if each.name == "lexia.session"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not any("out of paper" in each for each in said("INFO"))


def test_l17_a_session_in_a_with_block_ends_by_the_exception_which_goes_on(platform, recording):
    with pytest.raises(KeyError, match="mine"), LexiaHandler().begin(named(platform)):
        raise KeyError("mine")
    posted()
    assert [each.json["content"] for each in platform.requests if each.path == "/answer"] == ["KeyError"]


def test_l18_prompt_completion_and_total_are_one_call(session, ledger, sent):
    session.usage(150, "prompt")
    session.usage(250, "completion")
    session.usage(400, "total")
    assert ledger("input_tokens", "output_tokens") == [(150, 250)]
    assert sent() == [PROMPT, COMPLETION]
    assert spanledger.get_usage()["total_tokens"] == 400


@pytest.mark.parametrize("known", ["prompt", "completion"])
def test_l18_a_total_tells_the_part_that_is_not_told(known, session, ledger):
    session.usage(400, "total")
    session.usage({"prompt": 150, "completion": 250}[known], known)
    assert ledger("input_tokens", "output_tokens") == [(150, 250)]


def test_l18_a_total_alone_is_sent_and_counted_as_what_it_is(session, ledger, sent):
    session.usage(400, "total")
    assert ledger("input_tokens", "output_tokens", "other_usage") == [(None, None, '{"total_tokens":400}')]
    assert sent() == [{"message_id": ID, "type": "total", "token": "400"}]


def test_l18_a_type_that_comes_again_is_another_call(session, calls):
    for prompt, completion in ((1, 2), (1, 2), (5, 6)):
        session.usage(prompt, "prompt")
        session.usage(completion, "completion")
    assert sorted(calls()) == [(1, 2), (1, 2), (5, 6)]


def test_l19_a_report_of_a_watched_call_makes_no_second_row(watched, message, ledger, truth, sent):
    session = LexiaHandler().begin(message)
    usage = watched().usage
    tell(session, usage)
    session.usage(usage.total_tokens, "total")
    session.close()
    ((prompt, completion),) = billed(truth())
    assert ledger("input_tokens", "output_tokens", "source", "message_id") == [(prompt, completion, "spanledger", ID)]
    assert [(row["type"], row["token"]) for row in sent()] == [
        ("prompt", str(prompt)),
        ("completion", str(completion)),
    ]


def test_l19_two_calls_reported_one_after_the_other_stay_two(watched, message, calls, truth):
    session = LexiaHandler().begin(message)
    usages = [watched().usage, watched(max_tokens=5).usage]
    for usage in usages:
        tell(session, usage)
    session.close()
    assert calls() == billed(truth())
    assert len(calls()) == 2


def test_l19_usage_that_is_told_before_its_call_is_of_that_call(watched, message, calls, truth):
    session = LexiaHandler().begin(message)
    session.usage(8, "prompt")
    session.usage(9, "completion")
    watched()
    session.close()
    assert billed(truth()) == [(8, 9)]
    assert calls() == [(8, 9)]


def test_l19_a_missing_usage_is_nothing(message, calls):
    LexiaHandler().begin(message).close(usage_info=None)
    LexiaHandler().begin(message).close(usage_info=SimpleNamespace(prompt_tokens=None))
    assert calls() == []


def test_l20_a_cost_with_six_decimals_is_carried_unchanged(session, ledger, sent):
    session.usage(150, "prompt", cost=f"{150 / 1000 * 0.03:.6f}")
    session.usage(250, "completion", cost=f"{250 / 1000 * 0.06:.6f}")
    assert ledger("cost_pusd") == [(19_500_000_000,)]
    assert sent() == [{**PROMPT, "cost": "0.004500"}, {**COMPLETION, "cost": "0.015000"}]


def test_l21_what_is_no_model_is_a_row_with_its_cost_and_no_tokens_of_a_model(session, ledger):
    session.usage(50, "function_call", cost="0.04", label="DALL-E Image")
    (row,) = ledger()
    known = {
        "operation": "execute_tool", "message_id": ID, "cost_pusd": 4 * 10**10, "cost_source": "manual",
        "input_tokens": None, "output_tokens": None, "other_usage": '{"function_call_tokens":50}',
        "metadata": '{"label":"DALL-E Image"}', "provider": "unknown", "request_model": None, "status": "success",
    }  # fmt: skip
    assert {name: row[name] for name in known} == known
    told = spanledger.get_usage()
    assert (told["total_requests"], told["total_tokens"], told["total_cost"]) == (1, 0, 0.04)


def test_l22_a_flask_route_takes_the_message_that_is_posted(ledger, sent):
    app, lexia = Flask("agent"), LexiaHandler()

    @app.post("/api/v1/send_message")
    def send_message():
        session = lexia.begin(ChatMessage(**request.json))
        session.usage(150, "prompt")
        session.stream("Hello")
        return {"response": session.close()}

    answer = app.test_client().post("/api/v1/send_message", json={**MESSAGE, "something": "new"})
    assert (answer.status_code, answer.json) == (200, {"response": "Hello"})
    assert ledger("message_id", "input_tokens") == [(ID, 150)]
    assert sent() == [PROMPT]


OPTIONAL = {
    "file_type", "file_url", "file_base64", "file_name", "url_update", "url_upload", "force_tools", "system_message",
    "memory", "project_system_message", "first_message", "project_id", "project_files", "stream_url", "stream_token",
    "headers", "sleep_time",
}  # fmt: skip


def test_l22_a_message_has_lexias_fields():
    fields = ChatMessage.model_fields
    assert {name for name, each in fields.items() if each.is_required()} == set(MESSAGE)
    assert {name for name, each in fields.items() if not each.is_required()} == OPTIONAL
    given = {**MESSAGE, "headers": {"x-tenant": "acme"}, "memory": {"n": 1}, "unknown": [1]}
    assert json.loads(ChatMessage(**given).model_dump_json(exclude_none=True)) == given


@pytest.mark.parametrize("lacks", MESSAGE)
def test_l22_a_message_that_lacks_something_is_refused(lacks):
    with pytest.raises(ValueError, match=lacks):
        ChatMessage(**{name: value for name, value in MESSAGE.items() if name != lacks})


def test_l23_the_model_of_the_message_is_the_model_of_the_call(message, ledger):
    assert message.model == "gpt-4o"
    for data in (message, {**MESSAGE, "model": "no-such-model"}, {"response_uuid": ID}):
        LexiaHandler().begin(data).usage(150, "prompt")
    assert ledger("request_model", "input_tokens") == [("gpt-4o", 150), ("no-such-model", 150), (None, 150)]
