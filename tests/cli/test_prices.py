"""`spanledger prices` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from genai_prices.data_units import unit_data

BIN = Path(sys.executable).parent
MINE = """\
version: 1
aliases:
  - {provider: openai, match: prod-*, model: gpt-*}
  - {provider: openai, match: my-prod, model: gpt-4.1}
  - {provider: openai, match: lost, model: nowhere}
models:
  - provider: acme
    match: {starts_with: m, ends_with: "1"}
    prices:
      - {input_mtok: {base: "1", tiers: [{start: 1000, price: 2}]}, output_mtok: 0.1}
      - {from: 2990-01-01, input_mtok: 3}
  - {provider: acme, match: later, prices: [{from: 2990-01-01, input_mtok: 3}]}
multipliers:
  - {provider: openai, factor: "0.5", label: half}
free:
  - {provider: self, match: llama*}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return path


def command(*arguments, expect=0, **environ):
    done = subprocess.run(
        [BIN / "spanledger", "prices", *arguments], env={**os.environ, **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == expect, (done.stdout, done.stderr)
    return done


def shown(*arguments, **environ):
    return json.loads(command("show", "--format", "json", "--at", "2026-11-21T22:45Z", *arguments, **environ).stdout)


def usd(*arguments, **environ):
    """Provider → price → USD."""
    return {
        each["provider"]: {rate["price"]: rate["usd"] for rate in each["rates"]}
        for each in shown(*arguments, **environ)
    }


def lines(text):
    """The lines of a table, its cells apart, without the frame."""
    found = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]
    return [cells if len(cells) > 1 else cells[0] for cells in found if not set(cells[0]) & set("━─")]


def error(*arguments, expect):
    """The one line on stderr."""
    done = command(*arguments, expect=expect)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_model_is_shown_as_an_object_with_its_rates_and_why(mine):
    assert shown("m-1", "--prices", str(mine)) == [
        {
            "provider": "acme",
            "model": "m-1",
            "at": "2026-11-21T22:45:00+00:00",
            "from": "mine.yaml line 7",
            "because": [],
            "free": False,
            "exact": True,
            "multipliers": {},
            "until": "2990-01-01T00:00:00+00:00",
            "rates": [
                {"price": "input_mtok", "usd": "1", "per": "1,000,000 input tokens", "above": {"1000": "2"}},
                {"price": "output_mtok", "usd": "0.1", "per": "1,000,000 output tokens", "above": {}},
            ],
        }
    ]


def test_the_table_has_a_column_for_each_tier_and_says_until_when(mine):
    assert lines(command("show", "m-1", "--at", "2026-11-01", "--prices", str(mine)).stdout) == [
        "acme m-1 at 2026-11-01 00:00 UTC",
        "from       mine.yaml line 7",
        "until      2990-01-01 00:00 UTC",
        ["price", "USD", "above 1,000 input tokens", "per"],
        ["input_mtok", "1", "2", "1,000,000 input tokens"],
        ["output_mtok", "0.1", "0.1", "1,000,000 output tokens"],
    ]


def test_an_alias_and_a_multiplier_are_told(mine):
    out = lines(command("show", "my-prod", "--at", "2026-11-01", "--prices", str(mine)).stdout)
    assert out[:6] == [
        "openai my-prod at 2026-11-01 00:00 UTC",
        "from       genai-prices gpt-4.1",
        "alias      my-prod is gpt-4.1 (mine.yaml line 4)",
        "times 0.5  half",
        ["price", "USD", "per"],
        ["input_mtok", "1", "1,000,000 input tokens"],
    ]
    (found,) = shown("prod-4.1", "--prices", str(mine))
    assert (found["because"], found["multipliers"], found["rates"][0]["usd"]) == (
        ["prod-4.1 is gpt-4.1 (mine.yaml line 3)"], {"half": "0.5"}, "1",
    )  # fmt: skip


def test_a_context_without_a_price_is_told_and_the_standard_rates_are_shown():
    arguments = ("gpt-4.1", "--provider", "azure.ai.openai", "--context", "service_tier=priority")
    out = lines(command("show", *arguments).stdout)
    assert out[2] == "partial    no list has a price for this context; these are the standard rates"
    assert ["input_mtok", "2", "1,000,000 input tokens"] in out
    assert [each["exact"] for each in shown(*arguments)] == [False]


def test_what_is_free_has_no_rates(mine):
    assert lines(command("show", "llama3", "--at", "2026-11-01", "--prices", str(mine)).stdout) == [
        "self llama3 at 2026-11-01 00:00 UTC",
        "from       mine.yaml line 16, free",
        "price      free",
    ]
    assert [(each["free"], each["rates"]) for each in shown("llama3", "--prices", str(mine))] == [(True, [])]


def test_every_provider_that_has_the_model_is_shown_or_the_one_asked_for():
    found = usd("gpt-4.1")
    assert {"openai", "azure"} <= found.keys()
    assert found["openai"]["input_mtok"] == "2"
    assert usd("gpt-4.1", "--provider", "azure.ai.openai").keys() == {"azure.ai.openai"}
    titles = [line for line in lines(command("show", "gpt-4.1").stdout) if " gpt-4.1 at " in line]
    assert len(titles) == len(found)


def test_prices_are_those_of_the_moment_and_of_the_context():
    openai = ("--provider", "openai")
    assert usd("gpt-5.6-sol", *openai)["openai"]["input_mtok"] == "4"
    assert usd("gpt-5.6-sol", *openai, "--at", "2026-08-01")["openai"]["input_mtok"] == "5"
    assert usd("gpt-5", *openai)["openai"]["input_mtok"] == "1.25"
    assert usd("gpt-5", *openai, "--context", "service_tier=flex")["openai"]["input_mtok"] == "0.625"
    assert usd("gpt-5.4", *openai, "--context", "region=eu")["openai"]["input_mtok"] == "2.75"


def test_the_files_are_those_configured_unless_others_are_named(mine, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("version: 1\nmodels: [{provider: acme, match: m1, prices: [{input_mtok: 9}]}]\n")
    configured = {"SPANLEDGER_PRICES": str(mine)}
    assert usd("m1", **configured) == {"acme": {"input_mtok": "1", "output_mtok": "0.1"}}
    assert usd("m1", "--prices", str(other), **configured) == {"acme": {"input_mtok": "9"}}
    assert usd("m1", "--prices", str(mine), "--prices", str(other)) == {"acme": {"input_mtok": "9"}}


def test_an_unknown_model_is_an_error_that_names_what_is_near():
    said = error("show", "gpt-4oo", expect=1)
    assert said.startswith("spanledger: no list has a price for 'gpt-4oo'; close to it are gpt-4o, ")
    assert error("show", "gpt-4oo", "--provider", "openai", expect=1).startswith(
        "spanledger: no list has a price for 'gpt-4oo' of openai; close to it are gpt-4o, "
    )
    assert error("show", "?!", expect=1) == "spanledger: no list has a price for '?!'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "never"), "'never' is no point in time; try 2026-11-01, 2026-11-01T12:00Z or 7d"),
        (("--at", "2026-02-30"), "'2026-02-30' is no point in time; try 2026-11-01, 2026-11-01T12:00Z or 7d"),
        (("--at", f"{10**14}d"), f"'{10**14}d' is longer ago than there are dates"),
        (("--context", "flex"), "--context takes KEY=VALUE, such as service_tier=flex"),
    ],
)
def test_a_wrong_option_is_an_error_in_one_line(arguments, said):
    assert error("show", "gpt-4.1", *arguments, expect=2) == f"spanledger: {said}"


@pytest.mark.parametrize("at", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_time_have_a_price_too(at):
    assert usd("deepseek-chat", "--provider", "deepseek", "--at", at)["deepseek"].keys() >= {"input_mtok"}


def test_check_lists_what_entries_come_to(mine):
    assert lines(command("check", str(mine)).stdout) == [
        "mine.yaml is in order: 3 aliases, 2 models, 1 multipliers, 1 free",
        ["line", "model", "is", "price"],
        ["mine.yaml line 3", "openai prod-*", "gpt-*", "depends on its name"],
        ["mine.yaml line 4", "openai my-prod", "gpt-4.1", "genai-prices gpt-4.1"],
        ["mine.yaml line 5", "openai lost", "nowhere", "NO PRICE"],
        ["mine.yaml line 7", "acme starts_with m, ends_with 1", "", "2 rates now"],
        ["mine.yaml line 12", "acme later", "", "no rates at this moment"],
    ]


def test_check_takes_several_files_and_tables_in_litellms_format(tmp_path):
    empty, table = tmp_path / "empty.yaml", tmp_path / "table.json"
    empty.write_text("version: 1\n")
    table.write_text(json.dumps({"m": {"litellm_provider": "openai", "input_cost_per_token": 1e-07}}))
    assert lines(command("check", str(empty), str(table)).stdout) == [
        "empty.yaml is in order: nothing in it",
        "table.json is in order: 1 models in LiteLLM's format",
    ]


def test_check_names_the_line_that_is_wrong(mine, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nmultipliers:\n  - label: x\n    factor: -1\n")
    assert error("check", str(mine), str(bad), expect=1) == (
        "spanledger: bad.yaml line 4: multipliers.0.factor: expected a finite number of 0 or more (it says '-1')"
    )
    assert error("show", "gpt-4.1", "--prices", str(bad), expect=1).startswith("spanledger: bad.yaml line 4: ")
    said = error("check", str(tmp_path / "none.yaml"), expect=1)
    assert said.startswith("spanledger: none.yaml can't be read (")
    assert "No such file" in said


def test_the_schema_knows_the_prices_of_genai_prices_and_every_kind_of_entry():
    schema = json.loads(command("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"].keys() == {
        "version", "currency", "aliases", "models", "multipliers", "derived", "free",
    }  # fmt: skip
    prices = {raw.get("price_key", key) for key, raw in unit_data.items()}
    assert schema["$defs"]["Prices"]["properties"].keys() == {"from", "when", *prices, "output_images_kcount"}
    assert all(each["additionalProperties"] is False for each in (schema, *schema["$defs"].values()))
