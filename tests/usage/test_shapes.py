"""Usage as each API sends it, read into one meaning: the tables, genai-prices' extractors, and bills."""

import enum
import random
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.usage import test_shapes_google, test_shapes_openai, test_shapes_others
from tests.usage.reading import READERS, used
from tests.usage.test_shapes_google import camel, typed
from tests.usage.test_shapes_openai import CHAT
from tests.usage.test_shapes_others import ANTHROPIC

from spanledger.model import MOST_OF_A_COUNT, Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.program import UNIT_OF
from spanledger.pricing.units import UNITS
from spanledger.usage import shapes
from spanledger.usage.paths import compiled, walk
from spanledger.usage.shapes import SHAPES, read_again

NOW = datetime(2026, 11, 21, 22, 45, tzinfo=UTC)
CASES = [*test_shapes_openai.CASES, *test_shapes_google.CASES, *test_shapes_others.CASES]


class TrafficType(enum.Enum):
    ON_DEMAND_FLEX = "ON_DEMAND_FLEX"


def test_what_the_answer_itself_counted_goes_with_the_usage():
    raw = {"input_tokens": 1, "output_tokens": 2}
    items = {"web_searches": 3, "storage_searches": 4, "code_interpreter_sessions": 0}
    assert READERS["openai.responses"].usage(raw, items) == used(
        input=1, output=2, web_searches=3, other={"storage_searches": 4}
    )
    assert READERS["openai.responses"].usage(None, items) == used(
        "missing", web_searches=3, other={"storage_searches": 4}
    )


@pytest.mark.parametrize(
    ("shape", "items"),
    [
        ("google.images", {"output_images": 4}),
        ("openai.pictures", {"output_images": 2}),
        ("openai.moderation", {"moderations": 3}),
        ("openai.speech", {"input_characters": 1200}),
        ("openai.duration", {"input_audio_seconds": 8}),
    ],
)
def test_where_no_usage_is_told_what_was_counted_is_the_whole_of_it(shape, items):
    assert READERS[shape].usage(None, items) == used(other=items)
    assert READERS[shape].usage({}, items) == used(other=items)
    assert READERS[shape].usage(None, dict.fromkeys(items, 0)) == used()
    assert read_again(shape, {}, used(other=items)) == used(other=items)


@pytest.mark.parametrize("shape", ["openai.chat", "openai.responses", "anthropic.messages"])
def test_searches_counted_in_the_answer_are_kept_though_the_usage_could_count_them(shape):
    raw = {"input_tokens": 1, "output_tokens": 2, "prompt_tokens": 1, "completion_tokens": 2}
    known = used(input=1, output=3, web_searches=3, other={"storage_searches": 4})
    assert read_again(shape, raw, known) == used(input=1, output=2, web_searches=3, other={"storage_searches": 4})


def test_searches_counted_elsewhere_are_kept():
    known = used("partial", input=1, web_searches=3, other={"storage_searches": 4, "input_video_tokens": 5})
    raw = {"promptTokenCount": 7, "candidatesTokenCount": 2}
    kept = used(input=7, output=2, web_searches=3, other={"storage_searches": 4})
    assert read_again("google.generate_content", raw, known) == kept


@pytest.mark.parametrize("known", [used(), used(input=1, output=2, web_searches=3), used("missing")])
def test_what_cannot_be_read_again_stays_as_it_is_known(known):
    raw = {"prompt_tokens": 3, "completion_tokens": 4}
    for shape in (None, "", "openai.chats", "OpenAI.Chat"):
        assert read_again(shape, raw, known) is known
    for unreadable in (None, {}, {"tokens": 3}, [], [raw], "raw", 3, True):
        assert read_again("openai.chat", unreadable, known) is known
    assert read_again("openai.chat", raw, Usage()) == used(input=3, output=4)


CONTEXTS = [
    (
        "anthropic.messages",
        {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
        {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
    ),
    ("anthropic.messages", {"service_tier": None, "speed": 3, "inference_geo": ""}, {}),
    *(
        (f"google.{method}", raw, context)
        for method in ("generate_content", "embed_content")
        for raw, context in (
            ({"trafficType": "ON_DEMAND"}, {"service_tier": "ON_DEMAND"}),
            (SimpleNamespace(traffic_type=TrafficType.ON_DEMAND_FLEX), {"service_tier": "ON_DEMAND_FLEX"}),
            ({"serviceTier": "priority"}, {"service_tier": "priority"}),
            (SimpleNamespace(service_tier="flex"), {"service_tier": "flex"}),
        )
    ),
    (
        "bedrock.invoke",
        {"service_tier": "standard", "speed": "fast", "inference_geo": "us"},
        {"service_tier": "standard", "speed": "fast", "inference_geo": "us"},
    ),
    ("openai.chat", {"service_tier": "flex"}, {}),
    ("openai.chat", None, {}),
]


@pytest.mark.parametrize(("shape", "raw", "context"), CONTEXTS)
def test_what_a_price_depends_on_is_read(shape, raw, context):
    assert READERS[shape].context(raw) == context


# Contract of the tables.

EXAMPLES = {shape: [raw for name, raw, *_ in (*CASES, *CONTEXTS) if name == shape] for shape in SHAPES}


def leads(alternative, raw):
    found = walk(raw, (alternative,))
    return any(each is not None for each in found) if isinstance(found, list) else found is not None


@pytest.mark.parametrize("shape", SHAPES)
def test_every_path_leads_to_a_value_of_an_example(shape):
    table = SHAPES[shape]
    paths = {path.lstrip("?") for paths in table.counts.values() for path in paths}
    paths.update(path for path in (table.total, table.adds_up_to, table.beside, *table.context.values()) if path)
    astray = [
        alternative
        for path in paths
        for alternative in compiled(path)
        if not any(leads(alternative, raw) for raw in EXAMPLES[shape])
    ]
    assert not astray


def test_every_place_of_a_stated_cost_leads_to_a_value_of_an_example():
    for place in {each for shape in SHAPES.values() for each in shape.stated}:
        raws = [raw for name, shape in SHAPES.items() if place in shape.stated for raw in EXAMPLES[name]]
        for path in filter(None, (place.path, place.plus, place.plus_if, place.currency)):
            for alternative in compiled(path):
                assert any(leads(alternative, raw) for raw in raws), path


def test_every_shape_has_a_name_of_its_own():
    tables = [each for module in SHAPE_MODULES for each in vars(module).values() if type(each) is shapes.Shape]
    assert len({id(table) for table in tables}) == len({table.name for table in tables}) == len(SHAPES)
    assert all(SHAPES[table.name] is table for table in tables)


SHAPE_MODULES = [shapes.amazon, shapes.anthropic, shapes.google, shapes.openai, shapes.others]


UNLISTED = {
    "advisor_input_tokens", "advisor_output_tokens", "declined_input_tokens", "declined_output_tokens",
    "cached_content_tokens",
}  # fmt: skip
"""Counts that no price list has a unit for."""


@pytest.mark.parametrize("shape", SHAPES)
def test_every_count_is_a_field_of_the_usage_or_a_unit_of_price_lists(shape):
    assert {UNIT_OF.get(name, name) for name in SHAPES[shape].counts} - UNLISTED <= set(UNITS)
    assert set(SHAPES[shape].requires) <= set(SHAPES[shape].counts)


# Against genai-prices' own extractors.


def parts(source, *names, most=5000):
    """Counts for some of the names, others are 0."""
    return [source.choice((0, source.randint(0, most))) for _ in names]


def some(source, **members):
    """Members of an object, of which an API may leave some out where they are 0 or have a default."""
    return {name: value for name, value in members.items() if value or source.random() < 0.5}


def chat(source, *, beside=False):
    fresh, cached, written, audio = parts(source, "fresh", "cached", "written", "audio")
    told, thought, spoken = parts(source, "told", "thought", "spoken")
    said = told + spoken + (0 if beside else thought)
    prompt = fresh + cached + written + audio
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said + (thought if beside else 0),
        "prompt_tokens_details": some(source, cached_tokens=cached, cache_write_tokens=written, audio_tokens=audio),
        "completion_tokens_details": some(source, reasoning_tokens=thought, audio_tokens=spoken),
    }


def xai(source):
    return chat(source, beside=True)


def perplexity(source):
    prompt, said, cited, extra = parts(source, "prompt", "said", "cited", "extra")
    thought = source.choice((0, said + cited + 1 + extra))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        **some(source, reasoning_tokens=thought, citation_tokens=cited, num_search_queries=source.randint(0, 9)),
    }


def responses(source):
    fresh, cached, written, told, thought = parts(source, *"abcde")
    return {
        "input_tokens": fresh + cached + written,
        "input_tokens_details": some(source, cached_tokens=cached, cache_write_tokens=written),
        "output_tokens": told + thought,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": fresh + cached + written + told + thought,
    }


def anthropic(source):
    fresh, cached, short, long, told, thought, searches = parts(source, *"abcdefg")
    return {
        "input_tokens": fresh,
        "output_tokens": told + thought,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        **some(
            source,
            cache_read_input_tokens=cached,
            cache_creation_input_tokens=short + long,
            output_tokens_details={"thinking_tokens": thought},
            server_tool_use={"web_search_requests": searches},
        ),
    }


def google(source):
    kinds = ("TEXT", "AUDIO", "IMAGE", "VIDEO", "DOCUMENT")
    fresh, cached = parts(source, *kinds), parts(source, *kinds)
    answer = parts(source, *kinds[:3])
    thought, tool = parts(source, "thought", "tool")

    def details(counts):
        return [{"modality": kind, "tokenCount": count} for kind, count in zip(kinds, counts, strict=False) if count]

    prompt = [new + old for new, old in zip(fresh, cached, strict=True)]
    return {
        "promptTokenCount": sum(prompt),
        "promptTokensDetails": details(prompt),
        "candidatesTokenCount": sum(answer),
        **some(
            source,
            cachedContentTokenCount=sum(cached),
            cacheTokensDetails=details(cached),
            candidatesTokensDetails=details(answer),
            thoughtsTokenCount=thought,
            toolUsePromptTokenCount=tool,
        ),
    }


def bedrock(source):
    fresh, cached, short, long, told = parts(source, *"abcde")
    rows = [{"ttl": ttl, "inputTokens": count} for ttl, count in (("5m", short), ("1h", long)) if count]
    source.shuffle(rows)
    return {
        "inputTokens": fresh,
        "outputTokens": told,
        **some(source, cacheReadInputTokens=cached, cacheWriteInputTokens=short + long, cacheDetails=rows),
    }


def cohere(source):
    told, asked = parts(source, "told", "asked")
    return {
        "billed_units": {"input_tokens": float(asked), "output_tokens": float(told)},
        "tokens": {"input_tokens": asked + 500.0, "output_tokens": told + 2.0},
    }


REST = "what remains of the whole is that: a unit of its own would say the same twice"
TOOL = "billed as other input is"
UNHEARD = "no model answers with it"
FLAVOURS = {
    ("openai", "chat"): ("openai.chat", chat, {}),
    ("openai", "responses"): ("openai.responses", responses, {}),
    ("anthropic", "default"): ("anthropic.messages", anthropic, {"cache_write_5m_tokens": REST}),
    ("google", "default"): (
        "google.generate_content",
        google,
        {
            "input_text_tokens": REST,
            "cache_text_read_tokens": REST,
            "output_text_tokens": REST,
            "output_video_tokens": UNHEARD,
            "input_tool_tokens": TOOL,
            "input_text_tool_tokens": TOOL,
            "input_audio_tool_tokens": TOOL,
            "input_image_tool_tokens": TOOL,
            "input_video_tool_tokens": TOOL,
        },
    ),
    ("aws", "default"): ("bedrock.converse", bedrock, {"cache_write_5m_tokens": REST}),
    ("cohere", "default"): ("cohere", cohere, {}),
    ("perplexity", "default"): ("openai.chat", perplexity, {}),
    ("x-ai", "chat"): ("openai.chat", xai, {}),
    ("mistral", "default"): ("openai.chat", chat, {}),
    ("groq", "default"): ("openai.chat", chat, {}),
}
"""Provider and flavour of genai-prices → our shape, usages to compare, and its units that we leave out, with reasons.

Values too differ on purpose, where the usages here never go; see `OTHERWISE`.
"""


def theirs(provider, flavour, raw):
    found = next(each for each in providers if each.id == provider)
    extractor = next(each for each in found.extractors if each.api_flavor == flavour)
    response = raw
    for name in reversed([extractor.root] if isinstance(extractor.root, str) else extractor.root[:1]):
        response = {name: response}
    counts = found.extract_usage({"model": "m", **response}, api_flavor=flavour)[1]
    units = {mapping.dest for mapping in extractor.mappings}
    return {unit: counts.__dict__.get(unit, 0) for unit in units}


def ours(shape, raw):
    usage = READERS[shape].usage(raw)
    counts = {unit: getattr(usage, name) or 0 for name, unit in UNIT_OF.items()}
    return usage.usage_status, {**counts, **(usage.other_usage or {})}


@pytest.mark.parametrize(("provider", "flavour"), [pytest.param(*each, id="-".join(each)) for each in FLAVOURS])
def test_our_tables_agree_with_genai_prices_extractors(provider, flavour):
    shape, make, left_out = FLAVOURS[provider, flavour]
    known = {UNIT_OF.get(name, name) for name in SHAPES[shape].counts}
    source = random.Random(f"{provider} {flavour}")
    for _ in range(200):
        raw = make(source)
        expected = theirs(provider, flavour, raw)
        status, found = ours(shape, raw)
        assert expected.keys() - known == left_out.keys()
        assert {unit: found.get(unit, 0) for unit in expected.keys() & known} == {
            unit: count for unit, count in expected.items() if unit in known
        }, raw
        assert status == "reported", raw


OTHERWISE = {
    "several rows of a modality are summed; theirs takes the first": (
        ("google", "default"),
        camel(
            prompt_token_count=9, candidates_token_count=1, prompt_tokens_details=[("AUDIO", 4), ("AUDIO", 5)]
        ),
        {"input_audio_tokens": (9, 4)},
    ),
    "a compaction is billed; theirs does not see it": (
        ("anthropic", "default"),
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "iterations": [{"type": "compaction", "input_tokens": 10, "output_tokens": 20}],
        },
        {"input_tokens": (11, 1), "output_tokens": (22, 2)},
    ),
    "xAI's total says when reasoning is inside; theirs always adds it": (
        ("x-ai", "chat"),
        {
            "prompt_tokens": 1,
            "completion_tokens": 9,
            "total_tokens": 10,
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        {"output_tokens": (9, 14)},
    ),
    "Perplexity's reasoning that the completion can hold is in it; theirs always adds it": (
        ("perplexity", "default"),
        {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10, "reasoning_tokens": 5},
        {"output_tokens": (9, 14)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", OTHERWISE)
def test_where_we_differ_from_genai_prices_on_purpose(why):
    flavour, raw, different = OTHERWISE[why]
    expected, found = theirs(*flavour, raw), ours(FLAVOURS[flavour][0], raw)[1]
    both = {unit for unit in expected if unit in found}
    assert {unit: (found[unit], expected[unit]) for unit in both if found[unit] != expected[unit]} == different


# From the usage as it is sent to the bill.

BOOK = PriceBook(fixups=False)
AUGUST = datetime(2026, 8, 1, tzinfo=UTC)
CHAT_1M = {"prompt_tokens": 1_000_000, "completion_tokens": 0}


def prompt(count):
    return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}


GOLDEN = [
    ("x_ai", "grok-4.20", "openai.chat", CHAT[9][0], "0.0232856", {}),
    (
        "anthropic",
        "claude-sonnet-4-5",
        "anthropic.messages",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
            "output_tokens": 50,
            "server_tool_use": {"web_search_requests": 2},
        },
        "0.02675",
        {},
    ),
    ("anthropic", "claude-sonnet-4-6", "anthropic.messages", ANTHROPIC[1][0], "0.05090025", {}),
    ("openai", "gpt-4o", "openai.chat", CHAT[0][0], "0.005615", {}),
    (
        "openai",
        "gpt-audio",
        "openai.chat",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "prompt_tokens_details": {"audio_tokens": 800, "text_tokens": 200},
            "completion_tokens_details": {"audio_tokens": 400, "text_tokens": 100},
        },
        "0.0527",
        {},
    ),
    ("openai", "gpt-5.4", "openai.chat", prompt(272_000), "0.68", {}),
    ("openai", "gpt-5.4", "openai.chat", prompt(272_001), "1.360005", {}),
    *(
        ("gcp.gemini", "gemini-2.5-pro", "google.generate_content", spelt(prompt_token_count=count), usd, {})
        for spelt in (camel, typed)
        for count, usd in ((200_000, "0.25"), (200_001, "0.5000025"))
    ),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "1.25", {}),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "0.625", {"context": (("service_tier", "flex"),)}),
    ("openai", "gpt-5", "openai.chat", CHAT_1M, "0.625", {"context": (("service_tier", "batch"),)}),
    ("openai", "gpt-5.6-sol", "openai.chat", CHAT_1M, "10", {"at": AUGUST}),
    ("openai", "gpt-5.6-sol", "openai.chat", CHAT_1M, "8", {}),
    ("openai", "gpt-4o-mini", "openai.chat", {"prompt_tokens": 1, "completion_tokens": 1}, "0.00000075", {}),
]


@pytest.mark.parametrize(("provider", "model", "shape", "raw", "usd", "more"), GOLDEN)
def test_from_raw_usage_to_the_golden_amounts(provider, model, shape, raw, usd, more):
    usage = READERS[shape].usage(raw)
    cost = BOOK.price(usage, provider=provider, models=(model,), **{"at": NOW, **more})
    assert Decimal(cost.cost_pusd).scaleb(-12) == Decimal(usd)
    stated = READERS[shape].stated(raw)
    if stated is not None:
        assert stated == cost.cost_pusd  # the provider's own bill


def test_xais_own_bill_is_taken_and_ours_is_beside_it():
    raw = CHAT[9][0]
    cost = BOOK.price(
        READERS["openai.chat"].usage(raw),
        provider="x_ai",
        models=("grok-4.20",),
        at=NOW,
        stated=READERS["openai.chat"].stated(raw),
    )
    assert (cost.cost_pusd, cost.local_cost_pusd, cost.cost_source) == (23_285_600_000, 23_285_600_000, "provider")


# Whatever is sent.

NAMES = sorted({step for shape in SHAPES.values() for paths in shape.counts.values() for path in paths
                for steps in compiled(path.lstrip("?")) for step in steps if isinstance(step, str)})  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2 * 10**9), st.integers(), st.floats(),
    st.sampled_from(["AUDIO", "1h", "compaction", "3", ""]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NAMES, "modality", "type", "ttl"]), inner, max_size=6),
    ),
    max_leaves=20,
)


@given(
    raw=st.one_of(VALUES, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12)),
    shape=st.sampled_from([*SHAPES]),
)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_whatever_is_sent_every_count_is_a_whole_number_and_reads_again(raw, shape):
    usage = READERS[shape].usage(raw)
    assert usage.usage_status in {"reported", "partial", "missing", "invalid"}
    counts = [getattr(usage, name) for name in UNIT_OF]
    for count in (*filter(lambda count: count is not None, counts), *(usage.other_usage or {}).values()):
        assert type(count) is int
        assert 0 <= count <= 20 * MOST_OF_A_COUNT
    if isinstance(raw, dict) and usage.usage_status != "missing":
        assert read_again(shape, raw, Usage()) == usage
