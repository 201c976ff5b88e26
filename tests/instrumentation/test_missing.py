"""An SDK that has lost a method we watch: a counter moves and a log line says so."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys, types
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import spanledger
from spanledger.instrumentation import patch

reader = InMemoryMetricReader()
spanledger.configure(meter_provider=MeterProvider([reader]))
{break_it}
import openai, openai.resources.embeddings
spanledger.flush()
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "spanledger.methods.missing":
                points = metric.data.data_points
                print(sorted((point.attributes["spanledger.method"], point.value) for point in points))
"""
GONE_METHOD = """
find = patch._find
patch._find = lambda module, dotted, *more: (
    (None, "", None) if dotted == "Embeddings.create" else find(module, dotted, *more)
)
"""
GONE_MODULE = """
there = patch.Patches._is_there
patch.Patches._is_there = lambda self, module, roots: not module.endswith(".embeddings") and there(self, module, roots)
"""
EMBEDDINGS = "openai.resources.embeddings."


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        ("", ""),
        (GONE_METHOD, f"[('{EMBEDDINGS}Embeddings.create', 1)]"),
        (GONE_MODULE, f"[('{EMBEDDINGS}AsyncEmbeddings.create', 1), ('{EMBEDDINGS}Embeddings.create', 1)]"),
    ],
    ids=["nothing", "a method", "a module"],
)
def test_what_is_gone_from_an_sdk_is_counted_and_said(home, break_it, expected):
    code = WITHOUT.format(break_it=break_it)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == expected
    assert done.stderr.count("is not there in the installed openai") == expected.count("create")
