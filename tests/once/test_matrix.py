"""Once, beside everybody: each stack with and without our own watch, under each sampler, and killed.

A few cells run always; all of them with SPANLEDGER_MATRIX=1. A cell is a process of its own, see drive.py.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from drive import rows_of, stacks  # noqa: E402  # what runs inside the environments lies beside
from environments import programs_of  # noqa: E402

WHOLE = os.environ.get("SPANLEDGER_MATRIX") == "1"
STACKS = {name: stack for name, stack in stacks().items() if not stack.environment.startswith("older")}

pytestmark = pytest.mark.timeout(900)  # the first cell makes its environment


@dataclass(frozen=True, kw_only=True)
class Cell:
    stack: str
    ours: str = "on"
    sampler: str = "always_on"
    kill: bool = False
    late: bool = False
    """Whether spanledger comes after the stack."""
    calls: str = ""
    """Only these, with commas between."""

    @property
    def id(self):
        ways = [name for name in ("kill", "late") if getattr(self, name)]
        return "-".join((self.stack, self.ours, self.sampler, *ways))


# Which cells.

REPRESENTATIVE = [
    Cell(stack="anthropic-official", calls="message,message_stream_helper"),
    Cell(stack="anthropic-openllmetry", ours="off", sampler="always_off", calls="message,message_async"),
    Cell(stack="anthropic-openinference", ours="off", kill=True, calls="message,message_stream"),
    Cell(stack="anthropic-langfuse", sampler="ratio", calls="message,message_stream"),
    Cell(stack="openai-openinference", calls="chat,chat_stream,responses,embeddings"),
    Cell(stack="openai-openllmetry", kill=True, calls="chat,responses"),
    Cell(stack="bedrock-botocore-official", ours="off", calls="converse_stream,invoke_model"),
]
COMMON = (
    *(f"anthropic-{tracing}" for tracing in ("native", "official", "openinference", "openllmetry", "langfuse")),
    *("openai-langfuse", "bedrock-botocore-official"),
    *(f"langchain-{tracing}" for tracing in ("official", "openllmetry", "openinference")),
    *("litellm-otel", "litellm-otel-openinference", "pydantic_ai-anthropic"),
)
"""Stacks that meet every sampler."""
LATE = ("anthropic-openllmetry", "openai-openinference")
"""Stacks that meet spanledger after them, too."""
MAKES_THE_PROVIDER = ("anthropic-logfire", "openai-logfire")
"""Logfire makes the tracer provider, so spanledger always comes after it."""


def all_cells():
    for stack in STACKS:
        late = stack in MAKES_THE_PROVIDER
        for ours in ("on", "off"):
            for sampler in ("always_on", "always_off", "ratio") if stack in COMMON else ("always_on",):
                yield Cell(stack=stack, ours=ours, sampler=sampler, late=late)
            yield Cell(stack=stack, ours=ours, kill=True, late=late)
        if stack in LATE:
            yield Cell(stack=stack, late=True)


CELLS = list(all_cells()) if WHOLE else REPRESENTATIVE
LIVING = [cell for cell in CELLS if not cell.kill]


def of_each(cells):
    return pytest.mark.parametrize("cell", cells, ids=lambda cell: cell.id)


# What others can't do.

UNTOLD = ("chat_stream_no_usage", "completion_stream_no_usage")
"""Calls that nobody asks the provider for the usage of: it sends none."""

PAST_THE_METHODS = ("embedding",)
"""Calls that go past the SDK's methods, so that we have them from others' spans only: LiteLLM posts it itself."""
UNSEEN = {"google-openllmetry": ("embed",)}
"""Without our watch: calls that a stack makes no span of."""


def unsaid(why, calls, *columns):
    return {(call, f"{column}_tokens"): why for call in calls.split() for column in columns}


INVOKES = "invoke_model invoke_model_stream"
UNSAID = {
    "bedrock-botocore": unsaid(
        "reads only input and output of an InvokeModel answer",
        INVOKES,
        "input",
        "cache_read",
        "cache_write",
        "reasoning",
    ),
    "bedrock-botocore-official": unsaid("neither reads it from Claude's answer", INVOKES, "reasoning"),
    "bedrock-official": unsaid("does not read it from Claude's answer", INVOKES, "reasoning"),
    "bedrock-openinference": unsaid("reads it from whole answers only", "invoke_model_stream", "reasoning"),
    "bedrock-openllmetry": unsaid("does not read it from Claude's answer", INVOKES, "reasoning")
    | unsaid("reads it from whole answers only", "invoke_model_stream", "input", "cache_read", "cache_write"),
    "openai-openlit": unsaid("reads it from Responses only", "chat chat_stream", "reasoning"),
    "google-official": unsaid("leaves out what tools take in", "generate generate_stream", "input"),
    "google-openllmetry": unsaid(
        "says the total, but not what of it tools and thoughts take",
        "generate generate_stream",
        "input",
        "output",
        "reasoning",
    ),
    "google-openinference": unsaid("has no count of an embedding", "embed", "input"),
    "langchain-openllmetry": unsaid(
        "says it of the Responses API only", "chat_invoke chat_stream chat_ainvoke chat_astream", "reasoning"
    ),
    "litellm-otel-v2": unsaid("never says it", "acompletion acompletion_stream", "reasoning"),
    "openai-openllmetry": unsaid(
        "never says it", "chat chat_stream chat_async responses responses_stream", "cache_write"
    )
    | unsaid("says it of whole answers only", "chat_stream", "reasoning"),
}
"""Without our watch: what a stack does not say, or says wrong. Stack → call and column → why."""
OURS_BESIDE = ("litellm-otel", "litellm-otel-semconv", "litellm-otel-v2")
"""Stacks whose span of a call is made after it, so that ours is there as well."""
COUNTED_WRONG = {
    "anthropic-openllmetry": "counts a token of output more for a stream",
    "bedrock-botocore": "leaves cached tokens out of the input",
    "bedrock-botocore-official": "both count the call, without cached tokens",
    "bedrock-official": "leaves cached tokens out of the input",
    "bedrock-openllmetry": "leaves cached tokens out of the input",
    "google-official": "leaves out what tools take in",
    "google-openllmetry": "leaves out what tools and thoughts take",
}
"""Stacks whose own token metric is not the truth, so that the sum with ours can't be."""


# Running them.


@pytest.fixture(scope="session")
def cells(request, tmp_path_factory):
    """Runs the cells of this session, two at a time; what came of each, when asked for."""
    selected = dict.fromkeys(
        item.callspec.params["cell"] for item in request.session.items if item.path == Path(__file__)
    )
    pool = ThreadPoolExecutor(2)
    running = {
        cell: pool.submit(run, cell, tmp_path_factory.mktemp("cell", numbered=True) / "state") for cell in selected
    }
    yield running
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def found(cell, cells):
    """What became of a cell's calls."""
    return cells[cell].result()


def run(cell, state):
    programs = programs_of(STACKS[cell.stack].environment)
    foreign = ("SPANLEDGER_", "OTEL_", "LANGSMITH_", "LANGFUSE_", "LITELLM_", "LOGFIRE_", "PYTEST_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ["SPANLEDGER_STATE_DIR"] = str(state)

    def program(*command):
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)

    options = [f"--{name}" for name in ("kill", "late") if getattr(cell, name)]
    options += ["--calls", cell.calls] if cell.calls else []
    options += ["--ours", cell.ours, "--sampler", cell.sampler]
    done = program(programs / "python", HERE / "drive.py", cell.stack, *options)
    assert done.returncode == (-signal.SIGKILL if cell.kill else 0), done.stderr
    found = json.loads(done.stdout)
    if cell.kill:
        after = program(programs / "spanledger", "usage")
        assert after.returncode == 0, after.stderr
        found["rows"] = rows_of(state / "ledger.db")
    return found


def answers(cell, found):
    """Each answer of the provider with the name of its call, in order, but for those that nobody can tell of."""
    unseen = UNSEEN.get(cell.stack, ()) if cell.ours == "off" else ()
    return [(call["call"], answer) for call in found["calls"] for answer in call["truth"] if call["call"] not in unseen]


def right_counts(usage):
    """A provider's own usage, in the ledger's columns."""
    if "promptTokenCount" in usage:
        thoughts = usage.get("thoughtsTokenCount", 0)
        return counts(
            usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0),
            usage.get("candidatesTokenCount", 0) + thoughts,
            usage.get("cachedContentTokenCount"), None, thoughts,
        )  # fmt: skip
    if "inputTokens" in usage:
        read, write = usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]
        return counts(usage["inputTokens"] + read + write, usage["outputTokens"], read, write, None)
    if "cache_read_input_tokens" in usage:
        read, write = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        thoughts = usage.get("output_tokens_details", {}).get("thinking_tokens")
        return counts(usage["input_tokens"] + read + write, usage["output_tokens"], read, write, thoughts)
    kinds = ("input", "output") if "input_tokens" in usage else ("prompt", "completion")
    given, answered = (usage.get(f"{kind}_tokens") for kind in kinds)
    into, out = (usage.get(f"{kind}_tokens_details", {}) for kind in kinds)
    return counts(
        given, answered, into.get("cached_tokens"), into.get("cache_write_tokens"), out.get("reasoning_tokens")
    )


def counts(given, answered, cache_read, cache_write, reasoning):
    return {
        "input_tokens": given,
        "output_tokens": answered or 0,
        "cache_read_tokens": cache_read or 0,
        "cache_write_tokens": cache_write or 0,
        "reasoning_tokens": reasoning or 0,
    }


def exported(found, index):
    """The spans of one call: the calls are made one after the other."""
    began = [call["began"] for call in found["calls"]] + [math.inf]
    return [span for span in found["spans"] if began[index] <= span["start_time"] < began[index + 1]]


def of_a_model(span):
    """Whether a span is somebody else's, and has to do with a model call."""
    signs = ("gen_ai.", "openinference.span.kind", "langfuse.observation.type")
    return span["scope"] != "spanledger" and any(name.startswith(signs) for name in span["attributes"])


# What holds in every cell.


@of_each(CELLS)
def test_every_call_is_in_the_ledger_once(cell, found):
    told = [call for call, _ in answers(cell, found)]
    assert len(found["rows"]) == len(told), [
        {name: row[name] for name in ("source", "told_by", "merged_by", "response_id", "input_tokens")}
        for row in found["rows"]
    ]
    for row, (call, answer) in zip(found["rows"], answers(cell, found), strict=True):
        assert row["response_id"] in (None, answer["id"]), call


@of_each(CELLS)
def test_every_row_has_the_providers_own_counts(cell, found):
    wrong = {}
    for row, (call, answer) in zip(found["rows"], answers(cell, found), strict=True):
        wanted = right_counts(answer["usage"])
        if call in UNTOLD:
            assert row["usage_status"] == "missing"
            wanted = dict.fromkeys(wanted, 0)
        for column, right in wanted.items():
            if (row[column] or 0) != right:
                wrong[call, column] = (row[column], right)
    calls = {call for call, _ in answers(cell, found)}
    known = UNSAID.get(cell.stack, {}) if cell.ours == "off" else {}
    allowed = {(call, column) for call, column in known if call in calls}
    assert {key: values for key, values in wrong.items() if key not in allowed} == {}
    assert allowed <= wrong.keys(), "said by now: take it from the table"


@of_each([cell for cell in CELLS if cell.kill])
def test_what_was_on_the_disk_outlives_the_process(cell, found):
    assert found["on_disk"] == len(answers(cell, found))


@of_each(LIVING)
def test_our_metrics_are_the_sums_of_the_ledger(cell, found):
    def total(column):
        return sum(row[column] or 0 for row in found["rows"])

    metrics = found["metrics"]
    assert metrics["spanledger.calls"] == len(found["rows"])
    assert metrics["spanledger.usage"] == total("input_tokens") + total("output_tokens")
    assert metrics.get("spanledger.cost", 0) == pytest.approx(total("cost_pusd") / 1e12, rel=0, abs=1e-12)


@of_each(LIVING)
def test_nothing_of_ours_fails(cell, found):
    assert found["failures"] == {}


@of_each([cell for cell in LIVING if (cell.ours, cell.sampler) == ("on", "always_on")])
def test_the_cost_is_on_one_span_of_a_call(cell, found):
    for index, (call, row) in enumerate(zip(found["calls"], found["rows"], strict=True)):
        spans = exported(found, index)
        costs = [span["attributes"].get("spanledger.cost.total") for span in spans]
        costs = [cost for cost in costs if cost is not None]
        if call["call"] in UNTOLD:
            assert (costs, row["cost_pusd"]) == ([], None)
            continue
        if call["call"] in PAST_THE_METHODS:
            continue
        (cost,) = costs
        assert cost == pytest.approx(row["cost_pusd"] / 1e12, rel=0, abs=1e-12), (call["call"], spans)


@of_each([cell for cell in LIVING if (cell.ours, cell.sampler) == ("on", "always_on")])
def test_a_call_has_a_span_of_ours_only_if_it_has_no_other(cell, found):
    for index, call in enumerate(found["calls"]):
        spans = exported(found, index)
        ours = [span for span in spans if span["scope"] == "spanledger"]
        others = [span for span in spans if of_a_model(span)]
        beside = cell.stack in OURS_BESIDE and call["call"] not in PAST_THE_METHODS
        wanted = 1 if beside or not others else 0
        assert len(ours) == wanted, (call["call"], [(span["scope"], span["name"]) for span in spans])


@of_each([cell for cell in LIVING if cell.sampler == "always_off"])
def test_what_is_not_sampled_is_not_exported(cell, found):
    assert found["spans"] == []


@of_each([cell for cell in LIVING if cell.ours == "on" and cell.stack not in COUNTED_WRONG])
def test_the_token_metric_counts_each_token_once(cell, found):
    right, seen = Counter(), Counter()
    for call, answer in answers(cell, found):
        if call in UNTOLD + PAST_THE_METHODS:
            continue
        wanted = right_counts(answer["usage"])
        right.update(input=wanted["input_tokens"], output=wanted["output_tokens"])
    for _, kind, total in found["metrics"]["tokens"]:
        seen[kind] += total
    assert seen == right, found["metrics"]["tokens"]
