"""TokenTally's promises, each by its number: what is tracked is in the ledger first, then at TokenTally.

`track` waits for TokenTally and raises its classes of errors, a block neither waits nor raises.
"""

import asyncio
import math
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import anthropic
import pytest
from openai import OpenAI
from tests.compat.conftest import OLD_MODELS
from tests.compat.seeds import billed
from tests.export.receiver import Answer, Receiver

import spanledger
from spanledger import assembly
from spanledger.compat.tokentally import AuthenticationError, RateLimitError, TokenTally, TokenTallyError
from spanledger.recording.survey import survey

pytestmark = OLD_MODELS
SONNET = "claude-3-sonnet-20240229"
HELLO = [{"role": "user", "content": "Hello! How are you?"}]
YES = b'{"success": true, "record_id": "r1", "cost_usd": 0.125}'


@pytest.fixture
def client(tally):
    return TokenTally(api_key="tt_key", base_url=tally.url, timeout=20.0)


def answering(tally, status, body=b"", **headers):
    tally.answer = lambda _: Answer(status, headers, body)


@pytest.fixture
def hasty(tally):
    """A client without patience; what it could not send is taken in the end."""
    yield TokenTally(api_key="tt_key", base_url=tally.url, timeout=0.5)
    tally.answer = lambda _: Answer()


@pytest.mark.parametrize("key", ["", "sk-key", None, 7])
def test_t1_a_key_begins_with_tt(key):
    with pytest.raises(ValueError, match="tt_"):
        TokenTally(api_key=key)


def test_t1_the_key_goes_with_each_request_and_into_no_log(client, tally, said, monkeypatch):
    client.track(tokens_in=1, tokens_out=2, model=SONNET)
    assert [each.headers["x-api-key"] for each in tally.requests] == ["tt_key"]
    assert not any("tt_key" in each for level in ("INFO", "WARNING") for each in said(level))


def test_t2_a_call_by_hand_is_a_row_and_a_request_of_numbers(client, tallied, ledger):
    client.track(tokens_in=150, tokens_out=300, model=SONNET, provider="anthropic", metadata={"n": 1, "user_id": "u"})
    assert ledger("provider", "request_model", "input_tokens", "output_tokens", "user_id", "metadata", "source") == [
        ("anthropic", SONNET, 150, 300, "u", '{"n":1}', "spanledger.manual")
    ]
    (body,) = tallied()
    known = {"tokens_in": 150, "tokens_out": 300, "model": SONNET, "provider": "anthropic", "cost_usd": 0.00495}
    assert {name: body[name] for name in known} == known
    assert body["metadata"].items() >= {"n": 1, "user_id": "u"}.items()
    assert type(body["tokens_in"]) is type(body["tokens_out"]) is int


def test_t2_a_call_is_a_request_each(client, tallied, ledger):
    for number in range(5):
        client.track(tokens_in=number, tokens_out=1, model=SONNET)
    assert [each["tokens_in"] for each in tallied()] == [0, 1, 2, 3, 4]
    assert len(ledger()) == 5


def test_t3_the_result_has_the_cost_that_tokentally_says(client):
    answer = client.track(tokens_in=150, tokens_out=300, model=SONNET)
    assert (answer.success, answer.record_id, answer.cost_usd) == (True, "r1", 0.125)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'{"cost_usd": null}', b'{"cost_usd": "0.5"}', b'{"cost_usd": true}']
)
def test_t3_without_a_word_of_tokentally_it_is_our_cost(body, client, tally, ledger):
    answering(tally, 200, body)
    answer = client.track(tokens_in=150, tokens_out=300, model=SONNET)
    assert (answer.success, answer.cost_usd) == (True, 0.00495)
    assert ledger("record_id", "cost_pusd") == [(answer.record_id, 4_950_000_000)]


def test_t3_where_nobody_knows_a_price_the_cost_is_no_number(client, tally, ledger):
    answering(tally, 200)
    answer = client.track(tokens_in=150, tokens_out=300, model="no-such-model", provider="custom")
    assert math.isnan(answer.cost_usd)
    assert f"{answer.cost_usd:.6f}" == "nan"
    assert ledger("cost_pusd", "cost_status") == [(None, "unpriced")]


def test_t4_a_block_is_timed(client, tallied, ledger):
    with client.track_usage(model=SONNET, metadata={"feature": "summarization"}) as ctx:
        ctx.set_usage(tokens_in=150, tokens_out=300)
    ((duration, feature),) = ledger("duration_ms", "feature")
    assert (duration >= 0, feature) == (True, "summarization")
    (body,) = tallied()
    assert body["runtime_ms"] == duration


def test_t4_blocks_in_threads_and_tasks_are_their_own(client, tallied, calls):
    def block(number):
        with client.track_usage(model=SONNET) as ctx:
            ctx.set_usage(tokens_in=number, tokens_out=number)

    async def task(number):
        with client.track_usage(model=SONNET) as ctx:
            await asyncio.sleep(0)
            ctx.set_usage(tokens_in=number, tokens_out=number)

    async def tasks():
        await asyncio.gather(*map(task, range(8, 16)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(block, range(8)))
    asyncio.run(tasks())
    assert sorted(calls()) == [(number, number) for number in range(16)]
    assert sorted(each["tokens_in"] for each in tallied()) == list(range(16))


def test_t5_set_usage_says_tokens_and_the_reason_of_the_end(client, tallied, ledger):
    with client.track_usage(model=SONNET) as ctx:
        ctx.set_usage(tokens_in=1, tokens_out=1)
        ctx.set_usage(tokens_in=150, tokens_out=300, stop_reason="end_turn")
    assert ledger("input_tokens", "output_tokens", "finish_reasons") == [(150, 300, '["end_turn"]')]
    assert [each["stop_reason"] for each in tallied()] == ["end_turn"]


@pytest.mark.parametrize("said_of_it", [{"tokens_in": -1}, {"tokens_in": "many"}, {"tokens_out": None}])
def test_t5_nonsense_raises_nothing_and_the_call_is_kept(said_of_it, client, ledger):
    with client.track_usage(model=SONNET) as ctx:
        ctx.set_usage(**{"tokens_in": 150, "tokens_out": 300, **said_of_it})
        result = "mine"
    assert result == "mine"
    assert len(ledger()) == 1


def test_t6_a_block_is_sent_when_it_ends_and_has_its_cost_then(client, tallied):
    with client.track_usage(model=SONNET) as ctx:
        ctx.set_usage(tokens_in=150, tokens_out=300)
        assert ctx.response is None
    assert (ctx.response.success, ctx.response.cost_usd) == (True, 0.00495)
    assert spanledger.flush()
    assert len(tallied()) == 1


def test_t6_a_watched_call_and_its_block_are_one(client, tallied, calls, truth):
    spanledger.instrument("anthropic")
    with anthropic.Anthropic() as sdk, client.track_usage(model=SONNET) as ctx:
        response = sdk.messages.create(model=SONNET, max_tokens=1000, messages=HELLO)
        ctx.set_usage(tokens_in=response.usage.input_tokens, tokens_out=response.usage.output_tokens)
    assert calls() == billed(truth())
    ((body,), usage) = tallied(), truth()[0]["usage"]
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    assert {name: body[name] for name in ("tokens_in", "tokens_out", *names)} == {
        "tokens_in": usage["input_tokens"],
        "tokens_out": usage["output_tokens"],
        **{name: usage[name] for name in names},
    }


@pytest.mark.parametrize("trouble", [500, 401, 429, 302, "reset", "cut"])
def test_t6_no_trouble_replaces_the_result_of_a_block(trouble, hasty, tally, ledger):
    tally.answer = lambda _: Answer(fault=trouble) if isinstance(trouble, str) else Answer(trouble)

    def summarize():
        with hasty.track_usage(model=SONNET) as ctx:
            ctx.set_usage(tokens_in=150, tokens_out=300)
            return "the result", ctx

    result, ctx = summarize()
    assert (result, ctx.response.cost_usd) == ("the result", 0.00495)
    assert not spanledger.flush(0.5)
    assert ledger("input_tokens", flush=False) == [(150,)]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_t6_no_trouble_replaces_the_exception_of_a_block(error, hasty, tally, ledger):
    answering(tally, 500)
    with pytest.raises(type(error)) as raised, hasty.track_usage(model=SONNET) as ctx:
        raise error
    assert raised.value is error
    assert ctx.response is not None
    spanledger.flush(0.5)
    ((status, tokens),) = ledger("status", "input_tokens", flush=False)
    assert (status, tokens) == ("error" if isinstance(error, ValueError) else "cancelled", None)


def test_t6_a_block_does_not_wait_for_a_tokentally_that_hangs(ledger):
    go_on, arrived = threading.Event(), threading.Event()

    def slow(_):
        arrived.set()
        go_on.wait(30)
        return Answer(200, {}, YES)

    with Receiver(slow) as tally:
        client = TokenTally(api_key="tt_key", base_url=tally.url)
        for _ in range(2):
            with client.track_usage(model=SONNET) as ctx:
                ctx.set_usage(tokens_in=150, tokens_out=300)
            assert arrived.wait(30)
        assert tally.accepted == []
        go_on.set()
        assert len(ledger()) == 2
        assert len(tally.accepted) == 2


def test_t7_the_address_and_the_patience_can_be_set(tally):
    assert TokenTally(api_key="tt_key", base_url=f"{tally.url}/", timeout=3.0).timeout == 3.0
    spanledger.track(provider="openai", model="gpt-4o", input_tokens=1, output_tokens=1)
    assert spanledger.flush()
    assert [each.path for each in tally.requests] == ["/api/usage"]


def test_t7_by_default_it_is_tokentallys_address():
    client = TokenTally(api_key="tt_key")
    assert (assembly._runtime.settings.tokentally_base_url, client.timeout) == ("https://api.tokentally.io", 30.0)


def test_t7_another_client_takes_the_place_of_the_first_one(client):
    with Receiver() as other:
        TokenTally(api_key="tt_other", base_url=other.url).track(tokens_in=1, model=SONNET)
        client.track(tokens_in=2, model=SONNET)
        assert [each.headers["x-api-key"] for each in other.requests] == ["tt_other"] * 2


ERRORS = {401: AuthenticationError, 403: AuthenticationError, 429: RateLimitError, 500: TokenTallyError,
          302: TokenTallyError, 404: TokenTallyError}  # fmt: skip


def test_t8_the_errors_are_one_family():
    assert issubclass(RateLimitError, TokenTallyError)
    assert issubclass(AuthenticationError, TokenTallyError)
    assert not issubclass(RateLimitError, AuthenticationError)


@pytest.mark.parametrize("status", ERRORS)
def test_t8_what_tokentally_refuses_is_its_error_and_the_row_is_kept_all_the_same(status, hasty, tally, ledger, home):
    answering(tally, status, b"<html>")
    with pytest.raises(TokenTallyError, match=f"HTTP {status}") as raised:
        hasty.track(tokens_in=100, tokens_out=200, model="claude-3-sonnet")
    assert raised.type is ERRORS[status]
    assert ledger("input_tokens", "output_tokens", flush=False) == [(100, 200)]
    assert [state.pending for state in survey(home / "outbox")] == [1]


@pytest.mark.parametrize("fault", ["reset", "hang", "cut"])
def test_t8_a_tokentally_that_breaks_off_is_an_error_and_the_row_is_kept(fault, hasty, tally, ledger):
    tally.answer = lambda _: Answer(fault=fault)
    with pytest.raises(TokenTallyError, match="it is kept and sent again") as raised:
        hasty.track(tokens_in=100, tokens_out=200, model=SONNET)
    assert raised.type is TokenTallyError
    assert ledger("input_tokens", flush=False) == [(100,)]
    tally.over.set()


def test_t8_a_tokentally_that_is_not_there_is_an_error_and_the_row_is_kept(ledger):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    client = TokenTally(api_key="tt_key", base_url=f"http://127.0.0.1:{port}", timeout=0.5)
    with pytest.raises(TokenTallyError, match="ConnectionError"):
        client.track(tokens_in=100, tokens_out=200, model=SONNET)
    assert ledger("input_tokens", flush=False) == [(100,)]


def test_t8_after_an_error_the_row_is_sent_again(hasty, tally, tallied, ledger):
    tally.answers.append(Answer(500))
    with pytest.raises(TokenTallyError):
        TokenTally(api_key="tt_key", base_url=tally.url, timeout=0.01).track(tokens_in=100, model=SONNET)
    taken = threading.Event()

    def answer(_):
        taken.set()
        return Answer(200, {}, YES)

    tally.answer = answer
    assert taken.wait(60) or tally.accepted
    assert len(ledger()) == 1
    assert {each["tokens_in"] for each in tallied()} == {100}


METADATA = {
    "user_id": "user123", "feature_name": "chat_completion", "environment": "production",
    "code_path": "services.chat.complete", "request_id": "abc-123", "session_id": "s",
    "team": "web",
}  # fmt: skip


def test_t9_metadata_is_free_and_what_says_whose_it_is_is_attribution(client, tallied, ledger):
    client.track(tokens_in=1, tokens_out=2, model=SONNET, metadata=METADATA)
    assert ledger("user_id", "feature", "session_id", "team") == [("user123", "chat_completion", "s", "web")]
    (told,) = [each["metadata"] for each in tallied()]
    assert {name: told[name] for name in METADATA} == METADATA


@pytest.mark.parametrize("metadata", [{}, None, {"x": object()}, {1: 2}, {"deep": [[[[[]]]]]}, {"long": "x" * 10**5}])
def test_t9_no_metadata_keeps_a_call_from_being_recorded(metadata, client, calls):
    client.track(tokens_in=1, tokens_out=2, model=SONNET, metadata=metadata)
    assert calls() == [(1, 2)]


def test_t10_calls_of_every_provider_that_is_watched_go_there(client, tallied, truth, calls):
    spanledger.instrument()
    with OpenAI() as sdk, anthropic.Anthropic() as other:
        sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
        other.messages.create(model=SONNET, max_tokens=100, messages=HELLO)
    assert calls() == billed(truth())
    assert [(each["provider"], each["model"]) for each in tallied()] == [("openai", "gpt-4o"), ("anthropic", SONNET)]
    told = spanledger.get_usage()
    assert (told["total_requests"], set(told["by_provider"])) == (2, {"openai", "anthropic"})
    assert told["total_cost"] == pytest.approx(sum(each["cost_usd"] for each in tallied()), rel=1e-12)


@pytest.mark.parametrize("model", ["claude-3-sonnet", SONNET])
def test_t11_a_claude_needs_no_provider_and_no_date(model, client, tally, tallied, ledger):
    answering(tally, 200)
    assert client.track(tokens_in=100, tokens_out=200, model=model).cost_usd == 0.0033
    assert ledger("provider", "cost_pusd") == [("anthropic", 3_300_000_000)]
    assert [(each["provider"], each["cost_usd"]) for each in tallied()] == [("anthropic", 0.0033)]


def test_t11_a_model_of_somebody_else_is_not_made_anthropics(client, tallied, calls):
    client.track(tokens_in=100, tokens_out=200, model="gpt-4o")
    assert calls() == [(100, 200)]
    assert [each["provider"] for each in tallied()] != ["anthropic"]
