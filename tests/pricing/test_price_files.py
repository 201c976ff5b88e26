"""Price files: what each entry does, what every mistake is answered with, and which list wins."""

import json
import logging
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanledger.model import UNPRICED, Cost, Usage
from spanledger.pricing import loader
from spanledger.pricing.book import PriceBook
from spanledger.pricing.document import PriceFileError
from spanledger.pricing.loader import Prices
from spanledger.pricing.overrides import read_overrides

NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)
USAGE = Usage(input_tokens=1000, output_tokens=100, usage_status="reported")
DOCUMENTED = """\
version: 1
currency: USD
aliases:                       # deployment / profile / alias -> provider:model
  - {provider: azure, match: my-prod-luna, model: gpt-5.6-luna}
  - {provider: aws, match: "arn:aws:bedrock:*:application-inference-profile/abc*", model: us.anthropic.claude-sonnet-5-5}
models:
  - provider: openai
    match: {equals: ft:gpt-4.1-2025-04-14:acme::x}
    prices:
      - {input_mtok: "3", cache_read_mtok: "0.75", output_mtok: "12"}
  - provider: mistral
    match: {equals: mistral-large-latest}
    prices:
      - {from: 2026-01-01, input_mtok: "0.5", output_mtok: "1.5", cache_read_mtok: "0.05"}
multipliers:                   # applied last, recorded on the row
  - {provider: anthropic, when: {inference_geo: us}, factor: "1.1"}
  - {provider: azure, when: {deployment_type: data_zone}, factor: "1.1"}
  - {provider: aws, factor: "0.93", label: edp-discount}
free:
  - {provider: ollama}
"""  # noqa: E501  # as it stands in the document


@pytest.fixture
def book_of(tmp_path):
    """The price book with a file of this text over it; without our own corrections unless asked for."""

    def made(*texts, fixups=False, suffix=".yaml"):
        paths = [tmp_path / f"prices{number or ''}{suffix}" for number, _ in enumerate(texts)]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return PriceBook(fixups=fixups, overrides=[read_overrides(path) for path in paths])

    return made


def price(book, model, provider="openai", usage=USAGE, at=NOW, **more):
    return book.price(usage, provider=provider, models=(model,), at=at, **more)


def priced(book, pusd, breakdown, status="priced", multipliers=None):
    return Cost(pusd, breakdown, "USD", "local", status, book.basis, multipliers)


def model(*prices, match="m", provider="openai"):
    """A file with one model."""
    listed = "".join(f"      - {each}\n" for each in prices)
    return f"version: 1\nmodels:\n  - provider: {provider}\n    match: {match}\n    prices:\n{listed}"


def day(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- the documented example


def test_an_alias_gives_a_deployment_the_price_of_its_model(book_of):
    book = book_of(DOCUMENTED)
    assert price(book, "my-prod-luna", "azure.ai.openai") == priced(
        book, 320_000_000, {"input": 200_000_000, "output": 120_000_000}
    )
    assert price(book, "my-prod-luna-2", "azure.ai.openai").cost_status == "unpriced"
    assert price(book, "my-prod-luna", "openai").cost_status == "unpriced"


def test_an_alias_by_glob_takes_an_arn_and_a_discount_comes_on_top(book_of):
    book = book_of(DOCUMENTED)
    arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
    for name in (arn, f"{arn}7x", "us.anthropic.claude-sonnet-5-5"):
        assert price(book, name, "aws.bedrock") == priced(
            book, 3_069_000_000, {"input": 2_046_000_000, "output": 1_023_000_000}, multipliers={"edp-discount": "0.93"}
        )
    assert price(book, arn.replace("/abc", "/xyz"), "aws.bedrock").cost_status == "unpriced"


def test_a_model_of_the_documented_file_costs_what_the_file_says(book_of):
    book = book_of(DOCUMENTED)
    usage = Usage(input_tokens=1000, cache_read_tokens=400, output_tokens=100, usage_status="reported")
    assert price(book, "ft:gpt-4.1-2025-04-14:acme::x", usage=usage) == priced(
        book, 3_300_000_000, {"input": 1_800_000_000, "cache_read": 300_000_000, "output": 1_200_000_000}
    )
    assert price(book, "ft:gpt-4.1-2025-04-14:acme::y").cost_status == "unpriced"


def test_a_dated_model_of_the_documented_file_has_the_lists_price_before(book_of):
    for moments in (("2025-12-31", "2026-01-01"), ("2026-01-01", "2025-12-31")):
        book = book_of(DOCUMENTED)
        found = {at: price(book, "mistral-large-latest", "mistral_ai", at=day(at)).cost_pusd for at in moments}
        assert found == {"2025-12-31": 2_600_000_000, "2026-01-01": 650_000_000}


@pytest.mark.parametrize("told", ["metadata", "nothing", "another"])
def test_a_multiplier_holds_where_the_metadata_of_the_call_say_so(book_of, told):
    book = book_of(DOCUMENTED)
    metadata = {"metadata": {"deployment_type": "data_zone"}, "nothing": None, "another": {"deployment_type": "global"}}
    found = price(book, "my-prod-luna", "azure.ai.openai", metadata=metadata[told])
    if told == "metadata":
        assert found == priced(
            book, 352_000_000, {"input": 220_000_000, "output": 132_000_000},
            multipliers={"deployment_type=data_zone": "1.1"},
        )  # fmt: skip
    else:
        assert (found.cost_pusd, found.price_multipliers) == (320_000_000, None)


def test_a_multiplier_holds_where_the_response_says_so(book_of):
    book = book_of(DOCUMENTED)
    assert price(book, "claude-sonnet-4-6", "anthropic", context=(("inference_geo", "us"),)) == priced(
        book, 4_950_000_000, {"input": 3_300_000_000, "output": 1_650_000_000}, multipliers={"inference_geo=us": "1.1"}
    )
    assert price(book, "claude-sonnet-4-6", "anthropic", context=(("inference_geo", "global"),)) == priced(
        book, 4_500_000_000, {"input": 3_000_000_000, "output": 1_500_000_000}
    )


def test_a_free_provider_costs_nothing_whatever_the_model(book_of):
    book = book_of(DOCUMENTED)
    assert price(book, "llama3:8b", "ollama") == priced(book, 0, {}, "free")


# --- what entries can say


@pytest.mark.parametrize(
    ("match", "names", "others"),
    [
        ('"m"', ["m"], ["mm", "M", ""]),
        ('"m*z"', ["mz", "m-1.z", "m*z"], ["amz", "mza"]),
        ('"m.z"', ["m.z"], ["mxz"]),
        ("{equals: m}", ["m"], ["mm"]),
        ("{starts_with: m}", ["m", "mx"], ["xm"]),
        ("{ends_with: m}", ["m", "xm"], ["mx"]),
        ("{contains: m}", ["m", "xmx"], ["x"]),
        ('{regex: "^m[0-9]+$"}', ["m12"], ["m", "xm1", "m1x"]),
        ("{starts_with: m, ends_with: z}", ["mz", "m-z"], ["m", "z"]),
        ("{any: [{equals: m}, {starts_with: z, ends_with: y}]}", ["m", "zy"], ["z", "y"]),
        ("{starts_with: m, any: [{contains: x}, {contains: y}]}", ["mx", "my"], ["m", "x"]),
    ],
)
def test_a_model_is_told_by_its_name(book_of, match, names, others):
    book = book_of(model("{input_mtok: 1}", match=match, provider="mine"))
    assert [name for name in (*names, *others) if price(book, name, "mine").cost_pusd is not None] == names


def test_an_alias_keeps_what_its_last_star_stood_for_and_leads_on(book_of):
    aliases = (
        "aliases:\n  - {provider: mine, match: 'team-*/*', model: 'm-*'}\n"
        "  - {provider: mine, match: m-one, model: m-two}\n"
    )
    book = book_of(model("{input_mtok: 1}", match="m-two", provider="mine") + aliases)
    assert [price(book, name, "mine").cost_pusd for name in ("team-a/one", "team-b/two", "m-one", "one")] == [
        10**9, 10**9, 10**9, None,
    ]  # fmt: skip


def test_aliases_in_a_circle_end(book_of):
    aliases = "  - {provider: openai, match: a, model: b}\n  - {provider: openai, match: b, model: a}\n"
    book = book_of(f"version: 1\naliases:\n{aliases}")
    assert price(book, "a").cost_status == "unpriced"


def test_each_start_makes_a_period_and_the_end_of_one_is_noticed(book_of):
    dated = model(
        "{from: 2026-03-01, input_mtok: 3}", "{input_mtok: 1}", "{from: '2026-02-01T12:00+01:00', input_mtok: 2}"
    )
    moments = {
        "2026-02-01T10:59:59": 10**9,
        "2026-02-01T11:00:00": 2 * 10**9,
        "2026-02-28T23:59:59": 2 * 10**9,
        "2026-03-01": 3 * 10**9,
    }
    for order in (list(moments), list(reversed(moments))):
        book = book_of(dated)
        assert {at: price(book, "m", at=day(at)).cost_pusd for at in order} == moments


@pytest.mark.parametrize("name", ["m", "gpt-4.1"])
def test_a_first_price_of_the_file_that_starts_later_is_noticed_by_a_book_in_use(book_of, name):
    book = book_of(model("{from: 2026-11-21, input_mtok: 7}", match="'*'"))
    before = price(book, name, at=day("2026-11-20")).cost_pusd
    assert before == {"gpt-4.1": 2_800_000_000}.get(name)
    assert price(book, name, at=day("2026-11-21")).cost_pusd == 7_000_000_000
    assert price(book, name, at=day("2026-11-20")).cost_pusd == before


def test_a_tier_is_that_of_every_token_of_the_call(book_of):
    tiers = "[{start: 1000, price: '2'}, {start: 5000, price: '3'}]"
    book = book_of(model(f"{{input_mtok: {{base: '1', tiers: {tiers}}}, output_mtok: 10}}"))
    found = {
        count: price(book, "m", usage=Usage(input_tokens=count, output_tokens=1, usage_status="reported")).cost_pusd
        for count in (1000, 1001, 5000, 5001)
    }
    million = 10**6
    assert found == {
        1000: 1010 * million,
        1001: 2012 * million,
        5000: 10_010 * million,
        5001: (3 * 5001 + 10) * million,
    }


def test_a_variant_holds_in_its_context_and_leaves_other_prices_as_they_are(book_of):
    book = book_of(
        model("{input_mtok: 1, output_mtok: 10}", "{when: {service_tier: flex}, input_mtok: 0.5}", provider="mine")
    )
    assert price(book, "m", "mine") == priced(book, 2 * 10**9, {"input": 10**9, "output": 10**9})
    assert price(book, "m", "mine", context=(("service_tier", "flex"),)) == priced(
        book, 1_500_000_000, {"input": 500_000_000, "output": 10**9}
    )
    assert price(book, "m", "mine", context=(("service_tier", "priority"),)) == priced(
        book, 2 * 10**9, {"input": 10**9, "output": 10**9}, "partial"
    )


def test_a_variant_goes_by_what_the_metadata_say(book_of):
    book = book_of(model("{input_mtok: 1}", "{when: {deployment_type: regional}, input_mtok: 4}"))
    assert price(book, "m", metadata={"deployment_type": "regional"}).cost_pusd == 4 * 10**9
    assert price(book, "m").cost_pusd == 10**9


def test_multipliers_multiply_exactly_and_each_is_recorded(book_of):
    book = book_of(
        model("{input_mtok: 0.1, web_searches_kcount: 10}")
        + "multipliers:\n"
        + "  - {provider: openai, match: m, factor: 1.1, label: eu}\n"
        + "  - {factor: '0.93', label: edp, applies_to: tokens}\n"
        + "  - {provider: openai, match: other, factor: 9}\n"
        + "  - {provider: azure, factor: 9}\n"
        + "  - {factor: 1}\n"
    )
    usage = Usage(input_tokens=1, output_tokens=0, web_searches=1, usage_status="reported")
    assert price(book, "m", usage=usage) == priced(
        book, 102_300 + 11_000_000_000, {"input": 102_300, "web_search": 11_000_000_000},
        multipliers={"eu": "1.1", "edp": "0.93", "prices.yaml line 12": "1"},
    )  # fmt: skip


def test_two_multipliers_under_one_label_are_both_on_record(book_of):
    book = book_of(model("{input_mtok: 1}") + "multipliers:\n  - {factor: 2, label: x}\n  - {factor: 3, label: x}\n")
    found = price(book, "m")
    assert found.cost_pusd == 6 * 10**9
    assert sorted(found.price_multipliers.values()) in (["2", "3"], ["6"])


def test_a_multiplier_goes_by_the_server_and_by_a_glob(book_of):
    book = book_of(
        model("{input_mtok: 1}")
        + "multipliers:\n  - {when: {server_address: '*.gateway.acme.example'}, factor: 2, label: gateway}\n"
    )
    found = [
        (each.cost_pusd, each.price_multipliers)
        for each in (price(book, "m", server=server) for server in ("a.gateway.acme.example", "api.openai.com", None))
    ]
    assert found == [(2 * 10**9, {"gateway": "2"}), (10**9, None), (10**9, None)]


def test_free_can_be_one_model_in_one_context(book_of):
    book = book_of(
        model("{input_mtok: 1}") + "free:\n  - {provider: openai, match: {equals: m}, when: {pool: reserved}}\n"
    )
    assert price(book, "m", metadata={"pool": "reserved"}) == priced(book, 0, {}, "free")
    assert price(book, "m", metadata={"pool": "shared"}).cost_pusd == 10**9
    assert price(book, "gpt-4.1", metadata={"pool": "reserved"}).cost_pusd == 2_800_000_000


def test_a_derived_price_is_a_multiple_of_another_where_the_list_has_none(book_of):
    derived = "derived:\n  - {provider: openai, match: 'gpt-4.1', price: %s, times: '2.5', of: input_mtok}\n"
    usage = Usage(input_tokens=1000, cache_write_tokens=1000, output_tokens=0, usage_status="reported")
    book = book_of("version: 1\n" + derived % "cache_write_mtok")
    assert price(book, "gpt-4.1", usage=usage) == priced(book, 5_000_000_000, {"cache_write": 5_000_000_000})
    assert price(book, "gpt-4.1-mini", usage=usage).cost_pusd == 400_000_000
    book = book_of("version: 1\n" + derived % "output_mtok")
    assert price(book, "gpt-4.1").cost_pusd == 2_800_000_000


# --- how a file is written


def test_json_and_yaml_read_the_same(book_of):
    data = {
        "version": 1,
        "models": [
            {
                "provider": "openai",
                "match": {"any": [{"equals": "m"}]},
                "prices": [{"from": "2026-01-01", "input_mtok": 0.1, "output_mtok": {"base": "1", "tiers": []}}],
            }
        ],
        "multipliers": [{"factor": 1.1, "label": "x"}],
    }
    costs = {
        (suffix, indent): price(book_of(json.dumps(data, indent=indent), suffix=suffix), "m")
        for suffix in (".yaml", ".json")
        for indent in (None, 1, "\t")
        if (suffix, indent) != (".yaml", "\t")
    }
    assert {(cost.cost_pusd, str(cost.price_multipliers)) for cost in costs.values()} == {(220_000_000, "{'x': '1.1'}")}


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "1e-1", "0.10000"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_number_is_exact_with_and_without_quotes(book_of, written, suffix):
    text = f'{{"version": 1, "models": [{{"provider": "o", "match": "m", "prices": [{{"input_mtok": {written}}}]}}]}}'
    usage = Usage(input_tokens=3, output_tokens=0, usage_status="reported")
    assert price(book_of(text, suffix=suffix), "m", "o", usage).cost_pusd == 300_000


def test_the_smallest_prices_are_exact(book_of):
    book = book_of(model("{input_mtok: 0.000001}"))
    assert price(book, "m", usage=Usage(input_tokens=7, output_tokens=0, usage_status="reported")).cost_pusd == 7


MODEL = (
    "version: 1\nmodels:\n  - provider: o\n    match: m\n    prices:\n      - input_mtok: 1\n        output_mtok: {}\n"
)
JSON_MODEL = '{{"version": 1, "models": [\n{{"provider": "o", "match": "m", "prices": [\n{{"input_mtok": {}}}]}}]}}'
BAD_NUMBERS = ("-1", "NaN", "Infinity", "-Infinity", "1e400", "true", "1e-400", "[]", '"1,5"', '""', '"-0.1"')
MISTAKES = {
    "an unknown key": ("version: 1\nmodel: []\n", 2, "model"),
    "an unknown key of an alias": (
        "version: 1\naliases:\n  - provider: o\n    match: m\n    model: n\n    x: 1\n",
        6,
        "x",
    ),
    "an unknown key of a model": (MODEL.format("1") + "    pricing: []\n", 8, "pricing"),
    "an unknown key of prices": (MODEL.format("1") + "        input_token: 1\n", 8, "input_token"),
    "our own name of a key": (MODEL.format("1") + "        from_: 2026-01-01\n", 8, "from_"),
    "an unknown key of a match": (
        "version: 1\nmodels:\n  - provider: o\n    prices: []\n    match:\n      equals: m\n      equal: m\n",
        7,
        "equal",
    ),
    "an unknown key of a match in a list": (
        "version: 1\nmodels:\n  - provider: o\n    prices: []\n    match:\n      any:\n        - equal: m\n",
        7,
        "equal",
    ),
    "an unknown key of a tiered price": (
        MODEL.format("\n          base: 1\n          tiers: []\n          top: 1"),
        10,
        "top",
    ),
    "a negative tier": (
        MODEL.format("\n          base: 1\n          tiers:\n            - start: 1\n              price: -1"),
        11,
        "-1",
    ),
    "a tier from minus one on": (
        MODEL.format("\n          base: 1\n          tiers:\n            - start: -1\n              price: 1"),
        10,
        "-1",
    ),
    "an unknown key of a multiplier": ("version: 1\nmultipliers:\n  - factor: 1\n    aplies_to: all\n", 4, "aplies_to"),
    "an unknown key of derived": (
        "version: 1\nderived:\n  - provider: o\n    price: input_mtok\n    times: 1\n    of: output_mtok\n    off: 1\n",
        7,
        "off",
    ),
    "an unknown key of free": ("version: 1\nfree:\n  - provider: o\n    model: m\n", 4, "model"),
    "a missing key": ("version: 1\nfree:\n  - match: m\n", 3, "provider"),
    "a negative factor": ("version: 1\nmultipliers:\n  - label: x\n    factor: -1\n", 4, "-1"),
    "an unknown kind of multiplier": ("version: 1\nmultipliers:\n  - factor: 1\n    applies_to: some\n", 4, "some"),
    "another currency": ("version: 1\ncurrency: EUR\n", 2, "USD"),
    "another version": ("currency: USD\nversion: 2\n", 2, "version"),
    "no version": ("currency: USD\n", 1, "version"),
    "a date there is not": (MODEL.format("1") + "        from: 2026-02-30\n", 8, "2026-02-30"),
    "a date of another kind": (MODEL.format("1") + "        from: 1.2.2026\n", 8, "1.2.2026"),
    "a key that stands there twice": ("version: 1\nfree: []\nfree: []\n", 3, "free"),
    "a price that stands there twice": (MODEL.format("1") + "        input_mtok: 2\n", 8, "input_mtok"),
    "a list as a key": ("version: 1\n? [a, b]\n: 1\n", 2, ""),
    "a bad regular expression": (
        "version: 1\nfree:\n  - provider: o\n  - provider: o\n    match: {regex: '('}\n",
        5,
        "(",
    ),
    "a regular expression that is too much": (
        "version: 1\nfree:\n  - provider: o\n    match: {regex: 'a{99999999999999}'}\n",
        4,
        "",
    ),
    "a price derived that there is not": (
        "version: 1\nderived:\n  - provider: o\n    times: 1\n    of: input_mtok\n    price: nope\n",
        6,
        "nope",
    ),
    "a price derived of none": (
        "version: 1\nderived:\n  - {provider: o, price: input_mtok, times: 1, of: nope}\n",
        3,
        "nope",
    ),
    "an empty file": ("", 1, ""),
    "only a comment": ("# later\n", 1, ""),
    "a list": ("- 1\n", 1, ""),
    "a text": ("prices\n", 1, ""),
    "an empty list of models": ("version: 1\nmodels:\n", 2, "models"),
    "control characters": ("version: 1\nfree:\n  - {provider: \x07}\n", 3, ""),
    "a NUL": ("version: 1\n\x00\x01\x02", 2, ""),
    "no YAML": ("version: 1\nfree: [\n", 3, ""),
    "a tab": ("version: 1\nfree:\n\t- provider: o\n", 3, ""),
    "a character there is not": ('version: 1\n"\\U99999999": 1\n', None, ""),
    "two documents": ("version: 1\n---\nversion: 1\n", 2, ""),
    "too deep": ("version: 1\nmodels: " + "[" * 40 + "]" * 40, 2, "deep"),
    "far too deep": ("version: 1\nmodels: " + "[" * 5000 + "]" * 5000, None, "deep"),
    "a circle": ("version: 1\nmodels: &a [*a]\n", 2, "deep"),
    "a circle of everything": ("&a\nversion: 1\nmodels: *a\n", None, "deep"),
    **{
        f"{number} as a price": (MODEL.format(number), 7, "output_mtok")
        for number in (*BAD_NUMBERS, ".nan", ".inf", "yes")
    },
}
JSON_MISTAKES = {
    "an unknown key": ('{"version": 1,\n"model": []}', 2, "model"),
    "tabs and another currency": ('{\n\t"version": 1,\n\t"free": [],\n\t"currency":\t"EUR"\n}', 4, "USD"),
    "a syntax error": ('{\n"version": 1,\n}', 3, "JSON"),
    "a syntax error under tabs": ('{\n\t"version": 1,\n\t"free": [}\n}', 3, "JSON"),
    "YAML": ("version: 1\n", 1, "JSON"),
    "an empty file": ("", 1, "JSON"),
    "a list": ("[]", 1, ""),
    "an empty object": ("{}", 1, "version"),
    "a key that stands there twice": ('{"version": 1,\n"free": [],\n"free": []}', 3, "free"),
    "true as a version": ('{"version": true}', 1, "version"),
    "too deep": ('{"version": 1,\n"models": ' + "[" * 40 + "]" * 40 + "}", 2, "deep"),
    "far too deep": ('{"version": 1, "models": ' + "[" * 100_000, 1, ""),
    "a number of 5000 digits": ('{"version": 1,\n"free": ' + "1" * 5000 + "}", None, ""),
    "a number beyond all bounds": ('{"version": 1,\n"free": 1e99999999999999999999}', None, ""),
    "a control character": ('{"version": 1,\n"free": "\x7f"}', 2, ""),
    "half of a character": ('{"version": 1,\n"\\ud800": 1}', None, ""),
    "true as a tier": (JSON_MODEL.format('{"base": 1, "tiers": [\n{"start": true, "price": 1}]}'), 4, "start"),
    **{f"{number} as a price": (JSON_MODEL.format(number), 3, "input_mtok") for number in (*BAD_NUMBERS, "{}")},
}


def refused(path):
    """What is said about the file, which is one line."""
    with pytest.raises(PriceFileError) as raised:
        read_overrides(path)
    said = str(raised.value)
    assert said.isprintable(), said
    assert said.startswith(path.name)
    return said


@pytest.mark.parametrize(
    ("suffix", "text", "line", "about"),
    [
        *(pytest.param(".yaml", *each, id=f"yaml: {name}") for name, each in MISTAKES.items()),
        *(pytest.param(".json", *each, id=f"json: {name}") for name, each in JSON_MISTAKES.items()),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(tmp_path, suffix, text, line, about):
    path = tmp_path / f"mine{suffix}"
    path.write_text(text)
    said = refused(path)
    assert about in said
    if line is not None:
        assert f"{path.name} line {line}:" in said


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    assert "No such file" in refused(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
    assert "utf-8" in refused(path)
    path.unlink()
    path.mkdir()
    assert "directory" in refused(path)


KEYS = (
    "version", "currency", "aliases", "models", "multipliers", "derived", "free", "provider", "match", "model",
    "prices",
    "from", "when", "factor", "label", "applies_to", "price", "times", "of", "equals", "regex", "any", "input_mtok",
    "output_mtok", "base", "tiers", "start", "litellm_provider", "input_cost_per_token",
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["1", "USD", "input_mtok", "(", "a{99999999999999}", "2026-01-01", "9999-12-31T23:59-23:00", "*"]),
)  # fmt: skip
TREES = st.recursive(
    VALUES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=20,
)
LISTS = ("aliases", "models", "multipliers", "derived", "free")
FILES = st.one_of(
    st.text().map(str.encode),
    st.binary(),
    TREES.map(lambda tree: json.dumps(tree).encode()),
    st.fixed_dictionaries({"version": st.just(1)}, optional=dict.fromkeys(LISTS, st.lists(TREES, max_size=2))).map(
        lambda tree: json.dumps(tree).encode()
    ),
    st.tuples(st.integers(0, len(DOCUMENTED)), st.integers(0, 9), st.text(max_size=4)).map(
        lambda cut: (DOCUMENTED[: cut[0]] + cut[2] + DOCUMENTED[cut[0] + cut[1] :]).encode()
    ),
)


@given(content=FILES, suffix=st.sampled_from([".yaml", ".json"]))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_stands_in_a_file_it_is_read_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        found = read_overrides(path)
    except PriceFileError as error:
        assert str(error).startswith(path.name)
    else:
        assert found.digest == sha256(content).hexdigest()[:8]


# --- which list wins


def test_the_users_price_wins_over_the_list_and_a_later_file_over_an_earlier_one(book_of):
    one, two = (model(f"{{input_mtok: {usd}}}", match="gpt-4.1") for usd in (7, 9))
    assert price(book_of(), "gpt-4.1").cost_pusd == 2_800_000_000
    assert price(book_of(one), "gpt-4.1").cost_pusd == 7 * 10**9
    assert price(book_of(one, two), "gpt-4.1").cost_pusd == 9 * 10**9
    assert price(book_of(one, two), "gpt-4.1-mini").cost_pusd == 560_000_000


def test_the_users_multipliers_hold_for_the_users_own_models_and_for_the_lists(book_of):
    book = book_of(model("{input_mtok: 1}") + "multipliers:\n  - {provider: openai, factor: '0.5', label: half}\n")
    assert [(each.cost_pusd, each.price_multipliers) for each in (price(book, "m"), price(book, "gpt-4.1"))] == [
        (500_000_000, {"half": "0.5"}),
        (1_400_000_000, {"half": "0.5"}),
    ]


def test_our_multipliers_are_for_the_lists_figures_only(book_of):
    own = model("{input_mtok: 1}", match="claude-sonnet-4-6", provider="anthropic")
    us = {"provider": "anthropic", "context": (("inference_geo", "us"),)}
    found = [price(book, "claude-sonnet-4-6", **us) for book in (book_of(fixups=True), book_of(own, fixups=True))]
    assert [(each.cost_pusd, each.price_multipliers) for each in found] == [
        (4_950_000_000, {"inference_geo=us": "1.1"}),
        (10**9, None),
    ]


@pytest.mark.parametrize(
    ("name", "server", "pusd", "multipliers"),
    [
        ("gpt-5.4", "eu.api.openai.com", 4_400_000_000, {"regional processing": "1.1"}),
        ("gpt-5.4", "us.api.openai.com", 4_400_000_000, {"regional processing": "1.1"}),
        ("gpt-5.4", "api.openai.com", 4_000_000_000, None),
        ("gpt-5.4", None, 4_000_000_000, None),
        ("gpt-4o", "eu.api.openai.com", 3_500_000_000, None),
        ("openai/gpt-5.4", "eu.api.openai.com", 4_400_000_000, {"regional processing": "1.1"}),
    ],
)
def test_regional_processing_costs_more_where_the_server_promises_it(book_of, name, server, pusd, multipliers):
    found = price(book_of(fixups=True), name, server=server)
    assert (found.cost_pusd, found.cost_status, found.price_multipliers) == (pusd, "priced", multipliers)


LITELLM = {
    name: {"litellm_provider": "openai", "input_cost_per_token": 5.0000000000000004e-08, "output_cost_per_token": 1e-07}
    for name in ("gpt-4.1", "only-there", "both")
}


def test_a_table_in_litellms_format_is_used_where_nothing_else_has_a_price(book_of, tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(LITELLM))
    (tmp_path / "mine.yaml").write_text(model("{input_mtok: 1}", match="both"))
    table, mine = (read_overrides(tmp_path / name) for name in ("table.json", "mine.yaml"))
    for overrides in ([table, mine], [mine, table]):
        book = PriceBook(fixups=False, overrides=overrides)
        assert [price(book, name).cost_pusd for name in ("gpt-4.1", "both", "only-there", "nowhere")] == [
            2_800_000_000, 10**9, 60_000_000, None,
        ]  # fmt: skip


def test_a_context_no_list_has_a_price_for_makes_the_standard_figure_a_part_of_it(book_of):
    book = book_of()
    context = (("service_tier", "priority"),)
    assert price(book, "gpt-5.4", "azure.ai.openai", context=context) == priced(
        book, 4_000_000_000, {"input": 2_500_000_000, "output": 1_500_000_000}, "partial"
    )
    assert price(book, "gpt-5.4", "openai", context=context).cost_status == "priced"
    covered = book_of("version: 1\nmultipliers:\n  - {provider: azure, when: {service_tier: priority}, factor: 2}\n")
    assert price(covered, "gpt-5.4", "azure.ai.openai", context=context) == priced(
        covered, 8_000_000_000, {"input": 5_000_000_000, "output": 3_000_000_000},
        multipliers={"service_tier=priority": "2"},
    )  # fmt: skip


def test_capacity_that_is_paid_by_time_has_no_price_by_call_unless_the_user_gives_one(book_of):
    context = (("service_tier", "scale"),)
    assert price(book_of(), "gpt-5.4", context=context) == UNPRICED
    own = model("{input_mtok: 9}", "{when: {service_tier: provisioned}, input_mtok: 1}", match="gpt-5.4")
    assert price(book_of(own), "gpt-5.4", context=context).cost_pusd == 10**9
    free = book_of("version: 1\nfree:\n  - {provider: openai, when: {service_tier: provisioned}}\n")
    assert price(free, "gpt-5.4", context=context) == priced(free, 0, {}, "free")


KEPT_12_HOURS = Usage(
    input_tokens=1000, cache_write_tokens=1000, cache_write_long_tokens=1000, output_tokens=0, usage_status="reported"
)


@pytest.mark.parametrize(
    ("provider", "name", "usage", "corrected", "plain"),
    [
        ("openai", "gpt-5.6-sol", KEPT_12_HOURS, 10 * 10**9, 5 * 10**9),
        ("anthropic", "claude-sonnet-4-6", KEPT_12_HOURS, 6 * 10**9, 6 * 10**9),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::x", USAGE, 4_200_000_000, None),
        ("openai", "ft:gpt-4.1-mini-2025-04-14:acme::x", USAGE, 1_120_000_000, None),
        ("openai", "ft:gpt-4.1-nano-2025-04-14:acme::x", USAGE, 280_000_000, None),
        ("mistral_ai", "mistral-large-latest", USAGE, 650_000_000, 2_600_000_000),
        ("gcp.gemini", "models/gemini-2.5-flash", USAGE, 550_000_000, None),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-flash", USAGE, 550_000_000, None),
        ("anthropic", "anthropic/claude-sonnet-4-6", USAGE, 4_500_000_000, None),
        ("openai", "omni-moderation-latest", USAGE, 0, None),
        ("openai", "text-moderation-stable", USAGE, 0, None),
    ],
)
def test_our_corrections_change_what_they_say_and_can_be_left_out(book_of, provider, name, usage, corrected, plain):
    found = price(book_of(fixups=True), name, provider, usage)
    assert (found.cost_pusd, found.cost_status) == (corrected, "priced" if corrected else "free")
    assert price(book_of(), name, provider, usage).cost_pusd == plain


def test_the_basis_names_every_list_with_its_digest(book_of, tmp_path):
    book = book_of(DOCUMENTED, "version: 1\n", fixups=True)
    mine, more = (sha256((tmp_path / name).read_bytes()).hexdigest()[:8] for name in ("prices.yaml", "prices1.yaml"))
    ours = Path(loader.__file__).with_name("fixups.yaml").read_bytes()
    plain = PriceBook(fixups=False).basis
    assert book.basis == f"{plain} fixups:{sha256(ours).hexdigest()[:8]} prices.yaml:{mine} prices1.yaml:{more}"
    assert price(book, "gpt-4.1").price_basis == book.basis


# --- the loader


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def again(prices):
    """The book after another look at the files."""
    prices.warm()
    return prices.wait()


@pytest.fixture
def looking(monkeypatch, caplog):
    monkeypatch.setattr(loader, "LOOK_EVERY", 0)
    caplog.set_level(logging.WARNING, "spanledger")


def test_a_changed_file_is_picked_up(tmp_path, looking, caplog):
    path = tmp_path / "mine.yaml"
    path.write_text(model("{input_mtok: 1}"))
    prices = Prices(fixups=False, files=(path,))
    assert prices.ready is None
    book = again(prices)
    assert price(book, "m").cost_pusd == 10**9
    assert again(prices) is book
    path.write_text(model("{input_mtok: 2.5}"))
    assert price(again(prices), "m").cost_pusd == 2_500_000_000
    assert warnings(caplog) == []


def test_a_changed_file_waits_for_the_next_look(tmp_path, caplog):
    path = tmp_path / "mine.yaml"
    path.write_text(model("{input_mtok: 1}"))
    prices = Prices(fixups=False, files=(path,))
    again(prices)
    book = again(prices)
    path.write_text(model("{input_mtok: 2.5}"))
    assert again(prices) is book


@pytest.mark.parametrize("becomes", ["version: 2\n", "", "\x00", None])
def test_a_file_that_becomes_bad_leaves_its_prices_in_force_with_one_warning(tmp_path, looking, caplog, becomes):
    path, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    path.write_text(model("{input_mtok: 1}"))
    other.write_text(model("{input_mtok: 3}", match="n"))
    prices = Prices(fixups=False, files=(path, other))
    basis = again(prices).basis
    path.unlink() if becomes is None else path.write_text(becomes)
    for _ in range(3):
        book = again(prices)
    assert ([price(book, name).cost_pusd for name in "mn"], book.basis) == ([10**9, 3 * 10**9], basis)
    (said,) = warnings(caplog)
    assert said.startswith(f"The price file {path} can't be used: mine.yaml ")
    assert said.endswith("; its previous prices stay in force.")
    path.write_text(model("{input_mtok: 2.5}"))
    assert price(again(prices), "m").cost_pusd == 2_500_000_000
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("text", ["version: 1\nfree: {}\n", "\x00", None])
def test_a_bad_file_at_the_start_leaves_prices_without_it(tmp_path, looking, caplog, text):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    prices = Prices(fixups=False, files=(path,))
    for _ in range(2):
        book = again(prices)
    assert (price(book, "gpt-4.1").cost_pusd, book.basis) == (2_800_000_000, PriceBook(fixups=False).basis)
    (said,) = warnings(caplog)
    assert said.startswith(f"The price file {path} can't be used: mine.yaml ")
    assert said.endswith("; calls are priced without it.")
    path.write_text(model("{input_mtok: 1}"))
    assert price(again(prices), "m").cost_pusd == 10**9
