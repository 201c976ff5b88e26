"""Google's usage objects: generated content, embeddings, interactions; as JSON and as the SDK's types."""

import enum
from dataclasses import replace
from types import SimpleNamespace

from tests.usage.reading import numbered, reads, used


class Modality(str, enum.Enum):  # noqa: UP042  # that is what theirs is
    """As in google.genai.types: an enum of texts."""

    TEXT = "TEXT"
    AUDIO = "AUDIO"
    IMAGE = "IMAGE"
    VIDEO = "VIDEO"
    DOCUMENT = "DOCUMENT"


def camel(**members):
    """Google's JSON: camelCase, details as lists of dicts."""
    return {
        (head := name.split("_"))[0] + "".join(map(str.title, head[1:])): [
            {"modality": modality, "tokenCount": count} for modality, count in value
        ]
        if isinstance(value, list)
        else value
        for name, value in members.items()
    }


def typed(**members):
    """Google's SDK: snake_case objects, modalities as enums."""
    return SimpleNamespace(
        **{
            name: [SimpleNamespace(modality=Modality(modality), token_count=count) for modality, count in value]
            if isinstance(value, list)
            else value
            for name, value in members.items()
        }
    )


ALL_OF_GOOGLE = {
    "prompt_token_count": 1000,
    "cached_content_token_count": 400,
    "thoughts_token_count": 70,
    "tool_use_prompt_token_count": 30,
    "total_token_count": 1400,
    "prompt_tokens_details": [
        ("TEXT", 400), ("AUDIO", 200), ("AUDIO", 50), ("IMAGE", 100), ("DOCUMENT", 40), ("VIDEO", 210),
    ],
    "tool_use_prompt_tokens_details": [("TEXT", 5), ("AUDIO", 10), ("IMAGE", 4), ("DOCUMENT", 3), ("VIDEO", 8)],
    "cache_tokens_details": [("TEXT", 200), ("AUDIO", 80), ("IMAGE", 30), ("DOCUMENT", 20), ("VIDEO", 70)],
}  # fmt: skip
ALL_OF_ANSWER = [("TEXT", 100), ("AUDIO", 80), ("IMAGE", 60), ("IMAGE", 60)]
GOOGLE_USED = used(
    input=1030, output=370, reasoning=70, cache_read=400, input_audio=260, input_image=147, output_audio=80,
    output_image=120,
    other={
        "input_video_tokens": 218,
        "cache_audio_read_tokens": 80,
        "cache_image_read_tokens": 50,
        "cache_video_read_tokens": 70,
    },
)  # fmt: skip
GOOGLE = [
    case
    for spelt in (camel, typed)
    for case in (
        (
            spelt(**ALL_OF_GOOGLE, candidates_token_count=300, candidates_tokens_details=ALL_OF_ANSWER),
            GOOGLE_USED,
        ),
        (spelt(**ALL_OF_GOOGLE, response_token_count=300, response_tokens_details=ALL_OF_ANSWER), GOOGLE_USED),
        (spelt(prompt_token_count=5, candidates_token_count=7, total_token_count=12), used(input=5, output=7)),
        # All of it went into thinking: there are no candidates.
        (
            spelt(prompt_token_count=5, thoughts_token_count=9, total_token_count=14),
            used(input=5, output=9, reasoning=9),
        ),
        (spelt(prompt_token_count=5, total_token_count=5), used("partial", input=5)),
        (
            spelt(prompt_token_count=5, tool_use_prompt_token_count=100, candidates_token_count=1),
            used(input=105, output=1),
        ),
        (spelt(prompt_token_count=None, candidates_token_count=None), used("missing")),
        (
            spelt(
                prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[("AUDIO", None), ("AUDIO", 2)]
            ),
            used(input=5, output=3, input_audio=2),
        ),
        (
            spelt(prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[("AUDIO", -1)]),
            used("invalid", input=5, output=3),
        ),
        (
            spelt(prompt_token_count=5, candidates_token_count=3, candidates_tokens_details=[("AUDIO", 4)]),
            used("invalid", input=5, output=3, output_audio=4),
        ),
        (spelt(prompt_token_count=5, candidates_token_count=3, prompt_tokens_details=[]), used(input=5, output=3)),
    )
]

GOOGLE_EMBEDDED = replace(GOOGLE_USED, input_tokens=1000)  # its tools' results are in no input: it has no tools
# Gemini's `usage_metadata` of embeddings has the table of generate_content; Vertex AI counts each text, which an answer
# sums.
EMBEDDED = [
    *((spelt(prompt_token_count=8), used(input=8)) for spelt in (camel, typed)),
    *(
        (spelt(**ALL_OF_GOOGLE, **answer), GOOGLE_EMBEDDED)
        for spelt in (camel, typed)
        for answer in (
            {"candidates_token_count": 300, "candidates_tokens_details": ALL_OF_ANSWER},
            {"response_token_count": 300, "response_tokens_details": ALL_OF_ANSWER},
        )
    ),
    ({"token_count": 7.0}, used(input=7)),
    ({"token_count": 0}, used(input=0)),
    *(({"token_count": odd}, used("invalid")) for odd in (7.5, "7", -7, [3.0, 4.0])),
    ({"prompt_token_count": 5, "token_count": 7}, used(input=5)),
    ({"billable_character_count": 44}, used("missing")),
    (None, used("missing")),
]


def interacted(**members):
    """`Usage` of google.genai's interactions: details as (modality, tokens)."""
    return {
        name: [{"modality": modality, "tokens": tokens} for modality, tokens in value]
        if isinstance(value, list)
        else value
        for name, value in members.items()
    }


ALL_OF_AN_INTERACTION = {
    "total_input_tokens": 240,
    "total_tool_use_tokens": 14,
    "total_cached_tokens": 29,
    "total_output_tokens": 60,
    "total_tokens": 354,
    "input_tokens_by_modality": [("text", 100), ("audio", 50), ("image", 30), ("document", 20), ("video", 40)],
    "tool_use_tokens_by_modality": [("audio", 5), ("image", 3), ("document", 2), ("video", 4)],
    "cached_tokens_by_modality": [("audio", 10), ("image", 6), ("document", 5), ("video", 8)],
    "output_tokens_by_modality": [("text", 44), ("audio", 7), ("image", 9)],
}
INTERACTIONS = [
    *(
        (
            {
                **interacted(**ALL_OF_AN_INTERACTION, **{thoughts: 40}),
                "grounding_tool_count": [{"type": "google_search", "count": 2}, {"type": "google_maps", "count": 5}],
            },
            used(
                input=254, output=100, cache_read=29, reasoning=40, input_audio=55, input_image=55, output_audio=7,
                output_image=9, web_searches=2,
                other={
                    "input_video_tokens": 44,
                    "cache_audio_read_tokens": 10,
                    "cache_image_read_tokens": 11,
                    "cache_video_read_tokens": 8,
                },
            ),
        )
        for thoughts in ("total_thought_tokens", "total_reasoning_tokens")
    ),
    # As recorded by OpenInference's tests: thoughts stand beside the output, 9 + 13 + 211 = 233.
    (
        interacted(
            total_tokens=233, total_input_tokens=9, input_tokens_by_modality=[("text", 9)], total_cached_tokens=0,
            total_output_tokens=13, total_tool_use_tokens=0, total_thought_tokens=211,
        ),
        used(input=9, output=224, cache_read=0, reasoning=211),
    ),
    (
        interacted(
            total_input_tokens=266, input_tokens_by_modality=[("text", 8), ("image", 258)], total_output_tokens=60,
        ),
        used(input=266, output=60, input_image=258),
    ),
    # All of it went into thinking.
    (interacted(total_input_tokens=5, total_thought_tokens=9), used(input=5, output=9, reasoning=9)),
    # A document that only a tool has read.
    (
        interacted(
            total_input_tokens=5, total_tool_use_tokens=3, total_output_tokens=1,
            tool_use_tokens_by_modality=[("document", 3)],
        ),
        used(input=8, output=1, input_image=3),
    ),
    (interacted(total_input_tokens=5), used("partial", input=5)),
    (interacted(total_input_tokens=5, total_output_tokens=2, total_cached_tokens=6),
     used("invalid", input=5, output=2, cache_read=6)),
    (interacted(total_tokens=5), used("missing")),
]  # fmt: skip
CASES = [
    *(("google.generate_content", *case) for case in GOOGLE),
    *(("google.embed_content", *case) for case in EMBEDDED),
    *(("google.interactions", *case) for case in INTERACTIONS),
    ("google.images", {}, used("missing")),
    ("google.images", None, used("missing")),
    ("google.cached_content", {"total_token_count": 4096}, used(other={"cached_content_tokens": 4096})),
    ("google.cached_content", {"totalTokenCount": 4096}, used(other={"cached_content_tokens": 4096})),
]


@numbered(CASES)
def test_usage_as_the_api_sends_it_is_read_and_stored_usage_to_the_same(shape, raw, usage):
    reads(shape, raw, usage)
