"""The example of four SDKs, as a user runs it, against rates worked out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Published rates in pico-USD: input and output per token; what is read from a cache costs less.
SPEECH = 15_000_000  # tts-1, per character
NOVA = (60_000, 240_000)  # us.amazon.nova-lite


def test_four_sdks_are_eight_rows(home):
    environ = {**os.environ, "SPANLEDGER_STATE_DIR": str(home)}
    example = [sys.executable, "-W", "ignore", "examples/every_provider/app.py"]
    done = subprocess.run(example, env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "8 answers.\n"
    report = [Path(sys.executable).parent / "spanledger", "report", "--by", "provider,operation", "--format", "json"]
    told = subprocess.run(report, env=environ, capture_output=True, text=True, check=True, timeout=60)
    rows = {(row["provider"], row["operation"]): row for row in json.loads(told.stdout)}
    assert {key: row["calls"] for key, row in rows.items()} == {
        ("openai", "chat"): 1,
        ("openai", "speech"): 1,
        ("anthropic", "chat"): 2,
        ("gcp.gemini", "generate_content"): 2,
        ("aws.bedrock", "chat"): 2,
    }
    assert all(row["unpriced_calls"] == row["partial_calls"] == row["incomplete_calls"] == 0 for row in rows.values())
    speech, nova = rows["openai", "speech"], rows["aws.bedrock", "chat"]
    assert speech["cost_usd"] == f"{len('What is a ledger?') * SPEECH / 10**12:.12f}"
    assert nova["cost_usd"] == f"{(nova['input_tokens'] * NOVA[0] + nova['output_tokens'] * NOVA[1]) / 10**12:.12f}"
