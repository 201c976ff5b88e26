"""A background response is one row: whoever sees its end first completes it, in whatever process."""

import subprocess
import sys

import pytest

import spanledger

pytestmark = pytest.mark.needs("responses")
CALL = {"model": "gpt-5.4", "input": "Think for a long while.", "background": True}
COLUMNS = (
    "operation",
    "status",
    "usage_status",
    "input_tokens",
    "output_tokens",
    "cost_pusd",
    "user_id",
    "request_model",
)
PENDING = ("chat", "incomplete", "missing", None, None, None, "ada", "gpt-5.4")
# 9 input tokens, 1 of them cached, 9 output: 2.50, 0.25 and 15 USD per million.
DONE = ("chat", "success", "reported", 9, 9, 8 * 2_500_000 + 250_000 + 9 * 15_000_000, "ada", "gpt-5.4")


def begin(client, **asked):
    with spanledger.attribution(user_id="ada"):
        return client.responses.create(**CALL, extra_body={"loopback": asked})


def test_its_row_is_there_from_the_start_and_the_first_final_retrieve_completes_it(client, ledger, recording):
    response = begin(client, retrievals=2)
    assert ledger(*COLUMNS) == [PENDING]
    for status in ("in_progress", "in_progress", "completed", "completed", "completed"):
        assert client.responses.retrieve(response.id).status == status
    assert ledger(*COLUMNS) == [DONE]
    assert ledger("response_id", "started_at") == [(response.id, "2026-09-21T14:13:20.000000+00:00")]
    operations = [span.attributes["gen_ai.operation.name"] for span in recording.spans]
    assert operations == ["chat", *["fetch_response"] * 5]
    assert [span.attributes.get("gen_ai.usage.input_tokens") for span in recording.spans] == [
        None,
        None,
        None,
        9,
        None,
        None,
    ]
    assert [value for _, value in recording.points("spanledger.calls")] == [1]
    assert sum(value for _, value in recording.points("spanledger.usage")) == 18
    assert {
        attributes["gen_ai.token.type"]: value for attributes, value in recording.points("gen_ai.client.token.usage")
    } == {
        "input": (1, 9),
        "output": (1, 9),
    }


RETRIEVER = """
import sys
import spanledger
from openai import OpenAI
spanledger.configure()
client = OpenAI(base_url=sys.argv[1], api_key="x")
while client.responses.retrieve(sys.argv[2]).status != "completed":
    pass
spanledger.shutdown()
"""


@pytest.mark.parametrize("times", [1, 3])
def test_another_process_completes_the_same_row(client, provider, ledger, times):
    response = begin(client, retrievals=1)
    assert ledger(*COLUMNS) == [PENDING]
    for _ in range(times):
        subprocess.run([sys.executable, "-c", RETRIEVER, provider.base_url, response.id], check=True, timeout=60)
    assert ledger(*COLUMNS) == [DONE]
    client.responses.retrieve(response.id)
    assert ledger(*COLUMNS) == [DONE]


def test_the_end_may_arrive_in_the_ledger_before_the_beginning(client, provider, ledger, home):
    spanledger.configure(ledger_url="none", sinks="jsonl")  # the beginning goes elsewhere for now
    response = begin(client, retrievals=0)
    spanledger.flush()
    subprocess.run([sys.executable, "-c", RETRIEVER, provider.base_url, response.id], check=True, timeout=60)
    assert ledger("status", "input_tokens", "user_id", flush=False) == [("success", 9, None)]

    import json

    from spanledger.ledger.sqlite import SqliteLedger

    (beginning,) = [json.loads(line) for line in (home / "usage.jsonl").read_text().splitlines()]
    sink = SqliteLedger(home / "ledger.db")
    sink.send([beginning])
    sink.close()
    assert ledger(*COLUMNS, flush=False) == [DONE]


def test_a_streamed_retrieve_completes_it_too(recording, ledger):
    import json

    from openai import OpenAI
    from tests.conftest import httpx2

    body = {
        "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": "completed", "background": True,
        "model": "gpt-5.4", "output": [],
        "usage": {
            "input_tokens": 10, "output_tokens": 2, "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip
    events = [
        {
            "type": "response.created",
            "sequence_number": 0,
            "response": {**body, "status": "in_progress", "usage": None},
        },
        {"type": "response.completed", "sequence_number": 1, "response": body},
    ]

    def answer(_):
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return httpx2.Response(200, content=text, headers={"content-type": "text/event-stream"})

    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        assert len(list(client.responses.retrieve("resp_1", stream=True))) == 2
    assert ledger("status", "input_tokens", "response_model", "stream") == [("success", 10, "gpt-5.4", 1)]


def test_a_failed_one_is_an_error_with_its_kind_and_without_its_message(client, ledger):
    error = {"code": "server_error", "message": "the secret reason"}
    response = begin(client, retrievals=0, state="failed", error=error, usage=None)
    client.responses.retrieve(response.id)
    assert ledger("status", "error_type", "usage_status", "cost_pusd") == [("error", "server_error", "missing", None)]


def test_retrieving_an_ordinary_response_records_nothing(recording, ledger):
    from openai import OpenAI
    from tests.conftest import httpx2

    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "background": False,
        "usage": usage,
    }

    def answer(_):
        return httpx2.Response(200, json=body)

    with OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        client.responses.retrieve("resp_1")
        client.responses.create(model="gpt-5.4", input="x")
    assert ledger("operation", "input_tokens") == [("chat", 10)]
    assert [span.name for span in recording.spans] == ["fetch_response", "chat gpt-5.4"]


def test_a_response_cut_short_by_a_limit_is_a_success_that_says_so(client, ledger):
    asked = {"state": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    client.responses.create(model="gpt-5.4", input="Hello", extra_body={"loopback": asked})
    assert ledger("status", "finish_reasons", "usage_status") == [("success", '["max_output_tokens"]', "reported")]
