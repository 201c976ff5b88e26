"""The demo, as a user runs it, against the provider's own truth and rates worked out by hand."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

# Published rates in pico-USD per token (OpenAI's pricing page): input, cached input, output.
RATES = {
    "gpt-4o-mini": (150_000, 75_000, 600_000),
    "gpt-5.4": (2_500_000, 250_000, 15_000_000),
    "text-embedding-3-small": (20_000, 20_000, 0),
}


def cost_by_hand(answer):
    usage = answer["usage"]
    fresh, cached, output = RATES[answer["model"]]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    read = details.get("cached_tokens", 0)
    return (
        (prompt - read) * fresh + read * cached + usage.get("completion_tokens", usage.get("output_tokens", 0)) * output
    )


def report(environ, *arguments):
    done = subprocess.run(
        [BIN / "spanledger", "report", *arguments], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


@pytest.mark.needs("responses")
def test_the_demo_reports_what_the_provider_answered_to_the_last_pico_dollar(tmp_path):
    server = subprocess.Popen([sys.executable, "-m", "spanledger.testing.loopback"], stdout=subprocess.PIPE, text=True)
    try:
        base_url = server.stdout.readline().strip()
        environ = {
            **os.environ,
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "unused",
            "SPANLEDGER_STATE_DIR": str(tmp_path),
            "PYTHONWARNINGS": "default",
        }
        app = [BIN / "opentelemetry-instrument", sys.executable, "examples/support_desk/app.py"]
        done = subprocess.run(app, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=120)
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/truth") as answer:
            truth = json.load(answer)
    finally:
        server.terminate()
        server.communicate()

    assert done.stdout == "3 customers answered.\n"
    assert len(truth) == 10
    expected = {}
    for each in truth:
        calls, tokens, cost = expected.get(each["model"], (0, 0, 0))
        usage = each["usage"]
        expected[each["model"]] = (calls + 1, tokens + usage["total_tokens"], cost + cost_by_hand(each))
    reported = {
        row["model"]: (
            row["calls"],
            row["input_tokens"] + row["output_tokens"],
            int(row["cost_usd"].replace(".", "")),
        )
        for row in report(environ, "--by", "model", "--format", "json")
    }
    assert reported == expected

    assert {
        (row["feature"], row["team"]): row["calls"]
        for row in report(environ, "--by", "feature,team", "--format", "json")
    } == {("search", "platform"): 1, ("answers", "support"): 6, ("triage", "support"): 3}
    assert {row["user_id"]: row["calls"] for row in report(environ, "--by", "user_id", "--format", "json")} == {
        "ada": 2,
        "grace": 2,
        "edsger": 2,
        None: 4,
    }
