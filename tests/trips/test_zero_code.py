"""Without a line of code: under opentelemetry-instrument, with a vendor in charge, with the SDK off or absent."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
APP = """
import sys
from openai import OpenAI
from opentelemetry import metrics, trace
client = OpenAI(base_url=sys.argv[1], api_key="x")
client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
print(type(trace.get_tracer_provider()).__module__, type(trace.get_tracer_provider()).__name__)
"""
ROW = ("chat", "gpt-4o", 5, 9, 4 * 2_500_000 + 1_250_000 + 9 * 10_000_000)


@pytest.fixture
def run(home, tmp_path, provider):
    """Run a script under a command; its output, and the ledger's rows."""

    def run(*command, script=APP, expect=0, **environ):
        file = tmp_path / "app.py"
        file.write_text(script)
        done = subprocess.run(
            [*command, sys.executable, file, provider.base_url],
            env={**os.environ, **environ}, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stderr
        rows = []
        if (home / "ledger.db").exists():
            connection = sqlite3.connect(home / "ledger.db")
            columns = "operation, response_model, input_tokens, output_tokens, cost_pusd"
            rows = connection.execute(f"SELECT {columns} FROM usage_records").fetchall()
            connection.close()
        return done, rows

    return run


INSTRUMENT = str(BIN / "opentelemetry-instrument")


def test_with_only_the_package_installed_the_sdk_is_set_up_and_the_call_recorded(run):
    done, rows = run(INSTRUMENT)
    assert rows == [ROW]
    assert done.stdout == "opentelemetry.sdk.trace TracerProvider\n"
    assert done.stderr == ""


def test_an_always_off_sampler_loses_no_usage(run):
    _, rows = run(INSTRUMENT, OTEL_TRACES_SAMPLER="always_off")
    assert rows == [ROW]


def test_with_the_sdk_disabled_usage_is_recorded_and_one_line_says_how_to_stop_that(run):
    done, rows = run(INSTRUMENT, OTEL_SDK_DISABLED="true", OTEL_SERVICE_NAME="shop")
    assert rows == [ROW]
    (line,) = done.stderr.strip().splitlines()
    assert "SPANLEDGER_ENABLED=false" in line
    assert "usage is still recorded" in line


def test_switched_off_it_does_nothing(run, home):
    done, rows = run(INSTRUMENT, SPANLEDGER_ENABLED="false")
    assert (rows, done.stderr, home.exists()) == ([], "", False)


def test_one_provider_is_switched_off_by_its_own_name(run):
    _, rows = run(INSTRUMENT, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="spanledger_openai,openai")
    assert rows == []


def test_configure_in_code_needs_no_provider_and_no_other_call(run):
    done, rows = run(script="import spanledger\nspanledger.configure()\n" + APP, OTEL_SERVICE_NAME="shop")
    assert rows == [ROW]
    assert done.stdout == "opentelemetry.trace ProxyTracerProvider\n"
    assert done.stderr == ""


def test_the_run_command_is_quiet_when_no_backend_listens(run):
    done, rows = run(str(BIN / "spanledger"), "run", "--")
    assert rows == [ROW]
    assert done.stderr == ""


def test_settings_that_make_no_sense_are_one_line_each_and_the_call_goes_on(run):
    done, rows = run(INSTRUMENT, SPANLEDGER_BATCH_SIZE="many", SPANLEDGER_DURABILITY="eternal")
    assert rows == [ROW]
    lines = sorted(set(done.stderr.strip().splitlines()))
    assert len(lines) == 2
    assert "SPANLEDGER_BATCH_SIZE is not usable" in lines[0]
    assert "SPANLEDGER_DURABILITY is not usable (expected one of async, sync, relaxed)" in lines[1]


VENDOR = """
from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry import trace

class VendorProvider(TracerProvider):
    pass

class Configurator:
    def configure(self, **kwargs):
        trace.set_tracer_provider(VendorProvider())

class Distro(BaseDistro):
    def _configure(self, **kwargs):
        pass
"""
ENTRY_POINTS = """
[opentelemetry_distro]
vendor = vendor:Distro
[opentelemetry_configurator]
vendor = vendor:Configurator
"""


@pytest.fixture
def vendor(tmp_path):
    """A vendor's distribution and configurator, as if installed."""
    site = tmp_path / "site"
    info = site / "vendor-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "vendor.py").write_text(VENDOR)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return str(site)


def test_a_vendors_distribution_and_configurator_stay_in_charge(run, vendor):
    done, rows = run(INSTRUMENT, PYTHONPATH=vendor)
    assert rows == [ROW]
    assert done.stdout == "vendor VendorProvider\n"


BROKEN = VENDOR.replace("trace.set_tracer_provider(VendorProvider())", "pass")


def test_a_configurator_that_sets_nothing_is_still_in_charge(run, vendor, tmp_path):
    (tmp_path / "site" / "vendor.py").write_text(BROKEN)
    done, rows = run(INSTRUMENT, PYTHONPATH=vendor)
    assert rows == [ROW]
    assert done.stdout == "opentelemetry.trace ProxyTracerProvider\n"


def test_importing_and_instrumenting_imports_no_sdk_and_opens_no_file(home):
    code = """
import sys
import spanledger
spanledger.instrument()
heavy = {"openai", "genai_prices", "sqlite3", "httpx2", "pydantic", "opentelemetry.sdk"} & sys.modules.keys()
assert not heavy, heavy
import threading
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not home.exists()
