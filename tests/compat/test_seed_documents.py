"""The programs of the documents run with only their import lines changed, and every call of theirs is counted once.

Lexia's, IndoxRouter's and TokenTally's; TokenLedger's are in test_seed_ledger.py. Each block runs with every SDK
watched beforehand, and with none: then what is counted is what the block itself says.
"""

import gc
import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from openai import OpenAI
from tests.compat.conftest import MESSAGE, OLD_MODELS
from tests.compat.seeds import Program, billed, blocks, every
from tests.export.receiver import Answer

import spanledger

pytestmark = OLD_MODELS
PYTHON = {"lexia_quick": 4, "lexia_guide": 8, "indoxrouter": 10, "tokentally": 5, "tokenledger": 9}
SQL = {"tokenledger": 2}


@pytest.fixture(autouse=True)
def left_open():
    """The documents close no client: that must not be another test's warning."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("name", PYTHON)
def test_the_equivalents_have_as_many_blocks_as_the_documents(name):
    (marks,) = every(name).args[1:]
    for (path,) in (each.values for each in marks):
        assert (len(blocks(path)), len(blocks(path, "sql"))) == (PYTHON[name], SQL.get(name, 0))


# Lexia.

HELLO = [{"role": "user", "content": "Hello! How are you?"}]
BY_HAND = [(150, 250)]
FUNCTION = {"type": "function_call", "token": "50"}
TOOL = {"type": "tool_usage", "token": "100"}
IMAGE = {**FUNCTION, "cost": "0.04", "label": "DALL-E Image"}
QUERY = {**TOOL, "cost": "0.002", "label": "Database Query"}


def call():
    """What a document leaves to its reader: a call of a model."""
    with OpenAI() as client:
        return client.chat.completions.create(model="gpt-4o", messages=HELLO)


def lexia(text, message):
    """What Lexia's documents take for granted."""
    names = {
        "api_key": "unused", "messages": HELLO, "prompt": "A cat", "generate_image": lambda prompt: f"{prompt}.png",
        "data": message, "tokens": "250", "token_type": "completion", "call": call,
    }  # fmt: skip
    return Program(text, names, [(r"# \.\.\. OpenAI call \.\.\.", "response = call()")])


QUICK = {
    "tl;dr": ((0,), True, BY_HAND, [{**FUNCTION, "cost": "0.04"}]),
    "real example": ((1,), True, [], []),
    "all types": ((1, 2), False, BY_HAND * 2, [FUNCTION, TOOL, IMAGE, QUERY]),
    "complete flow": ((3,), True, [], []),
}
"""Name → blocks, whether their function is called, calls reported that were not made, tools on the wire."""
GUIDE = {
    "import": ((0,), False, [], []),
    "begin": ((0, 1), True, [], []),
    "the method": ((0, 1, 2), False, BY_HAND * 2, [IMAGE, QUERY]),
    "complete example": ((3,), True, [], [{**IMAGE, "label": "DALL-E 3 Image"}]),
    "cost calculation": ((0, 1, 4), True, [], []),
    "non-blocking": ((0, 1, 5), False, BY_HAND, []),
    "quick reference": ((0, 1, 6), False, BY_HAND * 2, [FUNCTION, TOOL, IMAGE]),
}


def the_usage_api_got(sent, counts, tools):
    """Prompt and completion of each call once, and each tool as it was said; all of this message, all of it texts."""
    rows = sent()
    assert {type(value) for row in rows for value in row.values()} <= {str}
    assert {row.pop("message_id") for row in rows} <= {MESSAGE["response_uuid"]}
    models = [row for row in rows if row["type"] in ("prompt", "completion")]
    assert sorted((row["type"], row["token"]) for row in models) == sorted(
        (kind, str(count)) for call in counts for kind, count in zip(("prompt", "completion"), call, strict=True)
    )
    assert [row for row in rows if row not in models] == tools


@every("lexia_quick")
@pytest.mark.parametrize("case", QUICK)
def test_lexia_quick(text, case, watching, message, truth, calls, sent):
    a_lexia_program_is_counted_once(text, *QUICK[case], message, truth, calls, sent)


@every("lexia_guide")
@pytest.mark.parametrize("case", GUIDE)
def test_lexia_guide(text, case, watching, message, truth, calls, sent):
    a_lexia_program_is_counted_once(text, *GUIDE[case], message, truth, calls, sent)


def a_lexia_program_is_counted_once(text, numbers, called, by_hand, tools, message, truth, calls, sent):
    program = lexia(text, message)
    if len(numbers) > 1 and not called:
        handler = program.run(*numbers[:-1]).lexia
        program.namespace["session"] = handler.begin(message)
        program.run(numbers[-1])
    else:
        made = program.run(*numbers)
        if called:
            made.process_message(message)
    counts = [*billed(truth()), *by_hand]
    assert sorted(calls()) == sorted(counts)
    the_usage_api_got(sent, counts, tools)


@every("lexia_guide")
def test_lexia_behind_flask(text, watching, message, truth, calls, sent):
    app = lexia(text, message).run(7).app
    for _ in range(2):
        answer = app.test_client().post("/api/v1/send_message", json=MESSAGE)
        assert (answer.status_code, answer.json) == (
            200,
            {"response": "The quick brown fox jumps over the lazy dog."},
        )
    assert calls() == billed(truth())
    assert len(truth()) == 2
    the_usage_api_got(sent, billed(truth()), [])


@every("lexia_guide")
def test_the_costs_that_an_agent_works_out_are_those_of_the_ledger(text, watching, message, truth, ledger, sent):
    lexia(text, message).run(0, 1, 4).process_message(message)
    ((prompt, completion),) = billed(truth())
    costs = f"{prompt / 1000 * 0.03:.6f}", f"{completion / 1000 * 0.06:.6f}"
    ((pusd, source),) = ledger("cost_pusd", "cost_source")
    assert (pusd, source) == (sum(round(float(each) * 10**6) * 10**6 for each in costs), "manual")
    assert [float(row["cost"]) for row in sent()] == [float(each) for each in costs]


# IndoxRouter.


@pytest.fixture
def indoxrouter(tmp_path, monkeypatch):
    """Programs of IndoxRouter's page, whose client has been of use before: nothing can be divided by no requests."""
    monkeypatch.chdir(tmp_path)

    def made(text, *numbers):
        program = Program(text)
        client = program.run(0).client
        for provider, model in (
            ("openai", "gpt-4"),
            ("openai", "gpt-4o"),
            ("anthropic", "claude-3-5-haiku-20241022"),
        ):
            client.chat_completions(provider=provider, model=model, messages=HELLO)
        return program.run(0, *numbers)

    return made


def shape(value):
    """The keys and types of a statistic; what is told by name has the shape of each."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return type(value)


def one_shape(told, name):
    """The one shape of everything that is told by some name."""
    (found,) = {json.dumps(shape(each), default=str, sort_keys=True) for each in told[name].values()}
    return found


@every("indoxrouter")
def test_indoxrouter_statistics_have_the_documents_keys_and_types(text, watching, indoxrouter):
    said = eval(blocks(text)[1])
    told = indoxrouter(text).client.get_usage()
    assert list(told) == list(said)
    for name in ("by_provider", "by_model"):
        assert one_shape(told, name) == one_shape(said, name)
    assert shape({**told, "by_provider": 0, "by_model": 0}) == shape({**said, "by_provider": 0, "by_model": 0})


@every("indoxrouter")
def test_indoxrouter_costs_have_the_documents_parts(text, watching, indoxrouter):
    said = eval(blocks(text)[3])
    breakdown = indoxrouter(text, 2).response.usage.cost_breakdown
    found = {name: getattr(breakdown, name) for name in said}
    assert shape(found) == shape(said)
    parts = [cost for name, cost in found.items() if name != "total_cost"]
    assert math.isclose(math.fsum(parts) + breakdown.other_cost, breakdown.total_cost, rel_tol=1e-12)


@every("indoxrouter")
def test_indoxrouter_answers_and_statistics_are_the_providers_figures(
    text, watching, indoxrouter, truth, calls, capsys
):
    made = indoxrouter(text, 2, 4, 5, 6, 7, 8, 9)
    counts = billed(truth())
    assert sorted(calls()) == sorted(counts)
    assert len(counts) == 4
    used = made.response.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (*counts[-1], sum(counts[-1]))
    told = made.client.get_usage()
    assert (told["total_requests"], told["total_tokens"]) == (4, sum(map(sum, counts)))
    assert {name: each["requests"] for name, each in told["by_provider"].items()} == {
        "openai": 3,
        "anthropic": 1,
    }
    (report,) = [json.loads(path.read_text()) for path in Path().glob("usage_report_*.json")]
    assert report == told
    printed = capsys.readouterr().out
    for provider, stats in told["by_provider"].items():
        assert f"{provider}: ${stats['cost'] / stats['tokens']:.6f} per token" in printed
    for model, stats in told["by_model"].items():
        assert f"{model}: {stats['tokens'] / stats['requests']:.1f} tokens per request" in printed
    assert "Requests this period: 4" in printed


# TokenTally.


def tokentally(text, tally):
    """A program of TokenTally's; its client is at our receiver, whatever address it would have."""
    given = r'TokenTally\(api_key="tt_your_api_key"\)', f'TokenTally(api_key="tt_your_api_key", base_url="{tally.url}")'
    return Program(text, {"TOKENTALLY": tally.url}, [given, ("https://api.tokentally.io", tally.url)])


def numbers_of(tallied):
    """Tokens of each request, once they are seen to be numbers."""
    found = tallied()
    for each in found:
        assert {type(each[name]) for name in ("tokens_in", "tokens_out")} == {int}
        assert {type(each["cost_usd"]), type(each["metadata"])} == {float, dict}
    return [(each["tokens_in"], each["tokens_out"]) for each in found]


@every("tokentally")
def test_tokentally_by_hand(text, watching, tally, tallied, calls, truth, capsys):
    made = tokentally(text, tally).run(0)
    assert made.response.cost_usd == 0.125  # what TokenTally has answered
    assert "0.125000" in capsys.readouterr().out
    assert (calls(), truth()) == ([(150, 300)], [])
    assert numbers_of(tallied) == [(150, 300)]
    (body,) = tallied()
    assert (body["model"], body["provider"]) == ("claude-3-sonnet-20240229", "anthropic")
    assert body["metadata"].items() >= {"feature": "chat", "user_id": "user123"}.items()
    assert tally.requests[0].headers["x-api-key"].startswith("tt_")


@every("tokentally")
def test_tokentally_around_a_call(text, watching, tally, tallied, calls, truth, capsys):
    made = tokentally(text, tally).run(1)
    ((whole, output),) = billed(truth())
    alone = truth()[0]["usage"]["input_tokens"]
    # Unwatched, all that is known is what the block says: Anthropic's input, without what went to and from the cache.
    assert calls() == [(whole if watching else alone, output)]
    assert numbers_of(tallied) == [(alone, output)]
    (body,) = tallied()
    assert (body["provider"], body["stop_reason"], body["metadata"]["feature"]) == (
        "anthropic",
        "end_turn",
        "summarization",
    )
    assert 0 < made.ctx.response.cost_usd < 1
    assert f"{made.ctx.response.cost_usd:.6f}" in capsys.readouterr().out


@every("tokentally")
def test_tokentally_configuration(text, watching, tally, tallied):
    program = tokentally(text, tally)
    made = program.run(0, 2)
    assert made.tt.timeout == 30.0
    made.tt.track(tokens_in=1, tokens_out=2, model="claude-3-sonnet-20240229")
    assert numbers_of(tallied) == [(150, 300), (1, 2)]


ERRORS = {
    429: ("Rate limit", b'{"error": "too many"}'),
    401: ("Invalid API key", b"{}"),
    500: ("Error", b"<html>"),
    302: ("Error", b""),
}


@every("tokentally")
@pytest.mark.parametrize("status", ERRORS)
def test_tokentally_errors(text, status, watching, tally, tallied, ledger, capsys):
    said, body = ERRORS[status]
    tally.answer = lambda _: Answer(status, {}, body)
    program = tokentally(text, tally)
    program.filled.append((r'api_key="tt_your_api_key", ', 'api_key="tt_your_api_key", timeout=1.0, '))
    program.run(3)
    assert capsys.readouterr().out.startswith(said)
    assert ledger("input_tokens", "output_tokens", flush=False) == [(100, 200)]
    tally.answer = lambda _: Answer()


@every("tokentally")
def test_tokentally_takes_it_where_nothing_is_wrong(text, watching, tally, tallied, calls, capsys):
    tokentally(text, tally).run(3)
    assert capsys.readouterr().out == ""
    assert (calls(), numbers_of(tallied)) == ([(100, 200)], [(100, 200)])


@every("tokentally")
def test_tokentally_metadata(text, watching, tally, tallied, calls):
    made = tokentally(text, tally).run(0, 4)
    assert isinstance(made, SimpleNamespace)
    assert (calls(), numbers_of(tallied)) == ([(150, 300), (100, 200)], [(150, 300), (100, 200)])
    known = {
        "user_id": "user123", "feature_name": "chat_completion", "feature": "chat_completion",
        "environment": "production", "code_path": "services.chat.complete", "request_id": "abc-123",
    }  # fmt: skip
    assert tallied()[-1]["metadata"].items() >= known.items()
    assert spanledger.get_usage(by="feature")["by_feature"].keys() == {"chat", "chat_completion"}
