"""The examples of pipelines, each in an environment with its packages: every call once, with its price and its feature.

LangChain's has an environment of its own, and runs with the whole matrix: SPANLEDGER_MATRIX=1.
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from environments import programs_of  # lies beside

ROOT = Path(__file__).parents[2]
WHOLE = os.environ.get("SPANLEDGER_MATRIX") == "1"
pytestmark = pytest.mark.timeout(900)  # the first one makes its environment
CHAT, LONGER_CHAT, MESSAGE = (8, 9), (9, 9), (15, 9)
"""Input and output tokens, as the provider on this machine counts them."""

OPENLLMETRY, OPENINFERENCE = "opentelemetry.instrumentation.openai.v1", "openinference.instrumentation.openai"
EXAMPLES = {
    "official": ("sdks", ["spanledger", "spanledger"], [CHAT, MESSAGE]),
    "openllmetry": ("sdks", [OPENLLMETRY, "com.anthropic.sdk.python"], [CHAT, MESSAGE]),
    "openinference": ("sdks", [OPENINFERENCE] * 10, [CHAT] * 10),
    "logfire": ("sdks", ["spanledger", "spanledger"], [CHAT, CHAT]),
    "langfuse": ("sdks", ["spanledger", "spanledger"], [CHAT, CHAT]),
    "langchain": ("langchain", ["spanledger", "spanledger"], [CHAT, LONGER_CHAT]),
}
"""Example → its environment, and of each call: whose numbers the row has, and which."""
TOLD_TWICE = {"official": [0, 1], "openllmetry": [1], "langfuse": [0, 1], "langchain": [0, 1]}
"""Example → its calls of which more than one has told."""


@pytest.mark.parametrize("name", [name for name, (where, *_) in EXAMPLES.items() if WHOLE or where == "sdks"])
def test_every_call_is_one_priced_row(name, home):
    example = [programs_of(EXAMPLES[name][0]) / "python", "-W", "ignore", f"examples/pipelines/with_{name}.py"]
    environ = {**os.environ, "SPANLEDGER_STATE_DIR": str(home)}
    done = subprocess.run(example, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    rows = rows_in(home / "ledger.db")
    _, sources, counts = EXAMPLES[name]
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == counts
    assert [row["source"] for row in rows] == sources
    assert {row["usage_status"] for row in rows} == {"reported"}
    assert {row["cost_status"] for row in rows} == {"priced"}
    assert all(row["cost_pusd"] > 0 for row in rows)
    assert {row["feature"] for row in rows} == {"answers"}
    for number in TOLD_TWICE.get(name, ()):
        assert len(json.loads(rows[number]["told_by"])) == 2
        assert rows[number]["merged_by"]


def rows_in(path):
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM usage_records ORDER BY started_at, record_id")]
    finally:
        connection.close()
