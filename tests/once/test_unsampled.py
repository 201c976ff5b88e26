"""Record-only spans disturb no other processor: Langfuse's and Logfire's export nothing of them, the ledger has all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from environments import programs_of  # noqa: E402  # lies beside

pytestmark = pytest.mark.timeout(900)  # the first one makes its environment


@pytest.mark.parametrize("whose", ["langfuse", "logfire"])
def test_what_is_only_recorded_is_exported_by_no_processor_of_others(whose, tmp_path):
    program = [programs_of("sdks") / "python", HERE / "unsampled.py", whose]
    only_spans = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*", "SPANLEDGER_STATE_DIR": str(tmp_path / "state")}
    environ = {**os.environ, **only_spans}
    done = subprocess.run(program, env=environ, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rows"], found["exported"]) == (found["truth"], [])
    assert len(found["rows"]) == 3
