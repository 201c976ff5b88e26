"""An SDK nobody has heard of is covered by one table, without a change to anything else."""

import asyncio
import inspect
import sys
import types

import pytest

import spanledger
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.spec import Endpoint, Provider, Target
from spanledger.usage.shape import Shape

TABLE = """
Provider(
    name="acme",
    title="Acme's oracle",
    package="pytest",
    imports="acme_oracle",
    requires=">=1",
    oldest="1.0",
    targets=tuple(
        Target(
            module="acme_oracle",
            name=f"{prefix}Oracle.ask",
            endpoint=Endpoint(
                operation="chat",
                usage=Shape(
                    name="acme.oracle",
                    counts={
                        "input_tokens": ("read.words", "read.remembered"),
                        "output_tokens": ("said.words",),
                        "cache_read_tokens": ("read.remembered",),
                    },
                ),
                usage_at=("bill.meter",),
                id="ticket",
                model="oracle",
                service_tier="bill.class_",
                finish_reasons="ending",
                request_model="oracle",
                request={"gen_ai.request.temperature": "warmth"},
            ),
        )
        for prefix in ("", "Async")
    ),
    client_at="client",
    base_url_at="address",
    hosts={"*.acme.example": "acme"},
)
"""

PRICES = """
version: 1
currency: USD
models:
  - provider: acme
    match: delphi-*
    prices:
      - {input_mtok: "3.00", cache_read_mtok: "0.50", output_mtok: "7.00"}
"""


class Thing:
    """A plain object of the SDK's."""

    def __init__(self, **members):
        self.__dict__.update(members)


class TroubleError(Exception):
    """What the SDK raises."""


def answered(oracle, question):
    if question == "Why?":
        raise TroubleError("nobody knows")
    meter = Thing(read=Thing(words=11, remembered=4), said=Thing(words=6))
    bill = Thing(meter=meter, class_="gold")
    return Thing(ticket="t-1", oracle=f"{oracle}-2", bill=bill, ending="wisdom", text="Know thyself.")


class Client:
    address = "https://api.acme.example:8443/v3"


class Oracle:
    """The resource with the method."""

    def __init__(self):
        self.client = Client()

    def ask(self, *, oracle, question, warmth=0.5):
        """Ask the oracle."""
        return answered(oracle, question)


class AsyncOracle:
    """The same, asynchronous."""

    def __init__(self):
        self.client = Client()

    async def ask(self, *, oracle, question, warmth=0.5):
        """Ask the oracle."""
        await asyncio.sleep(0)
        return answered(oracle, question)


@pytest.fixture
def acme(monkeypatch, tmp_path, telemetry):
    """The SDK, installed and watched."""
    module = types.ModuleType("acme_oracle")
    bare = [vars(kind)["ask"] for kind in (Oracle, AsyncOracle)]
    module.Oracle, module.AsyncOracle = Oracle, AsyncOracle
    monkeypatch.setitem(sys.modules, "acme_oracle", module)
    made = eval(TABLE, {"Provider": Provider, "Target": Target, "Endpoint": Endpoint, "Shape": Shape})
    monkeypatch.setitem(PROVIDERS, "acme", made)
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    monkeypatch.setenv("SPANLEDGER_PRICES", str(prices))
    spanledger.configure(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    spanledger.instrument("acme")
    spanledger.assembly._runtime.engine.prices.wait()
    yield module
    spanledger.uninstrument("acme")
    spanledger.assembly._instrumentation._patches.pop("acme", None)
    assert [vars(kind)["ask"] for kind in (Oracle, AsyncOracle)] == bare


def test_the_table_is_short():
    assert len(TABLE.strip().splitlines()) < 40


COLUMNS = (
    "operation", "provider", "request_model", "response_model", "response_id", "server_address", "service_tier",
    "finish_reasons", "status", "error_type", "usage_status", "input_tokens", "output_tokens", "cache_read_tokens",
    "cost_pusd", "cost_status", "usage_shape",
)  # fmt: skip
# 15 words read, 4 of them remembered; 6 said. 3, 0.50 and 7 USD per million.
ROW = (
    "chat", "acme", "delphi", "delphi-2", "t-1", "api.acme.example", "gold",
    '["wisdom"]', "success", None, "reported", 15, 6, 4,
    11 * 3_000_000 + 4 * 500_000 + 6 * 7_000_000, "priced", "acme.oracle",
)  # fmt: skip
FAILED = (
    "chat", "acme", "delphi", None, None, "api.acme.example", None,
    None, "error", f"{TroubleError.__module__}.TroubleError", "missing", None, None, None,
    None, "unpriced", None,
)  # fmt: skip


def asked(module, way, question):
    if way == "sync":
        return module.Oracle().ask(oracle="delphi", question=question, warmth=0.25)
    return asyncio.run(module.AsyncOracle().ask(oracle="delphi", question=question, warmth=0.25))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_its_calls_have_rows_with_tokens_and_cost(acme, way, ledger, telemetry):
    assert asked(acme, way, "Who am I?").text == "Know thyself."
    assert ledger(*COLUMNS) == [ROW]
    (span,) = telemetry.spans
    assert (span.name, span.attributes["gen_ai.request.temperature"]) == ("chat delphi", 0.25)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_its_errors_reach_the_application_and_have_a_row(acme, way, ledger):
    with pytest.raises(TroubleError, match="nobody knows"):
        asked(acme, way, "Why?")
    assert ledger(*COLUMNS) == [FAILED]


def test_its_methods_look_as_they_did(acme):
    assert inspect.signature(Oracle.ask) == inspect.signature(Oracle.ask.__wrapped__)
    assert Oracle.ask.__doc__ == "Ask the oracle."
    assert inspect.iscoroutinefunction(AsyncOracle.ask)
