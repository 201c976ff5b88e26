"""Every table of every provider against the SDK's own types: what it watches exists, and its paths lead somewhere."""

import collections.abc
import dataclasses
import functools
import importlib
import inspect
import json
import re
import subprocess
import sys
import types
import typing
import urllib.request
from dataclasses import replace
from enum import Enum
from importlib.metadata import PackageNotFoundError, version

import pytest
import wrapt
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import spanledger
from spanledger import assembly
from spanledger.instrumentation.patch import Watched
from spanledger.instrumentation.providers import PROVIDERS
from spanledger.instrumentation.spec import Announcement, Batch, Endpoint
from spanledger.usage.paths import compiled

LATEST = {"openai": "3.54", "anthropic": "2.12", "google-genai": "3.4", "botocore": "1.43.117"}
"""The versions the tables are written from. An older SDK's types lack what came later: there only the places of the
usage and the counts without which it is partial have to lead somewhere."""

_GROQ = "Groq's"
_MOONSHOT = "Moonshot's"
_PERPLEXITY = "Perplexity's"
_GATEWAY = "a gateway's"
_SAMPLING = "of SDKs before 2"
_LIVE = "the live API's"
_OUTPUT = "of generated contents; an embedding has none"
_STREAMED = "of the bodies that are streamed"
_WHOLE = "of the bodies that come whole"
_OTHERS = "of the other methods with pictures"
EXTRAS = {
    "chat Completions.create: x_groq.usage": _GROQ,
    "chat Completions.create: x_groq": _GROQ,
    "chat Completions.create: choices.0.usage": _MOONSHOT,
    "chat Completions.parse: x_groq.usage": _GROQ,
    "chat Completions.parse: choices.0.usage": _MOONSHOT,
    "text_completion Completions.create: x_groq.usage": _GROQ,
    "text_completion Completions.create: x_groq": _GROQ,
    "text_completion Completions.create: choices.0.usage": _MOONSHOT,
    "text_completion Completions.create: service_tier": "of the chat completions",
    "text_completion Completions.create: reasoning_effort": "of the chat completions",
    "openai.chat: citation_tokens": _PERPLEXITY,
    "openai.chat: reasoning_tokens": _PERPLEXITY,
    "openai.chat: num_search_queries": _PERPLEXITY,
    "openai.chat: prompt_cache_hit_tokens": "DeepSeek's",
    "openai.chat: num_cached_tokens": "Together's",
    "openai.chat: prompt_tokens_details.cache_creation_tokens": _GATEWAY,
    "openai.chat: prompt_tokens_details.cache_write_tokens_details.ttl_12h_tokens": _GATEWAY,
    "openai.chat: server_tool_use_details.web_search_requests": "OpenRouter's",
    "openai.chat: server_tool_use.web_search_requests": "OpenRouter's",
    "openai.chat: prompt_audio_seconds": "Mistral's",
    "openai.responses: input_tokens_details.cache_read_input_tokens": _PERPLEXITY,
    "openai.responses: input_tokens_details.cache_creation_input_tokens": _PERPLEXITY,
    "openai.responses: tool_calls_details.search_web.invocation": _PERPLEXITY,
    "fetch_response Responses.retrieve: model": "only fetches",
    "generate_content Images.create_variation: quality": "of the other methods; a variation has none",
    "translation Translations.create: usage": "of transcriptions",
    "translation Translations.create, whole: usage": "of transcriptions",
    "translation Translations.create: input_tokens": "of transcriptions",
    "translation Translations.create: output_tokens": "of transcriptions",
    "translation Translations.create: input_token_details.audio_tokens": "of transcriptions",
    "anthropic.messages: server_tool_use.code_execution_requests": "in no type of the SDK's",
    "anthropic.messages.compacted: server_tool_use.code_execution_requests": "in no type of the SDK's",
    "anthropic.messages.fallback: server_tool_use.code_execution_requests": "in no type of the SDK's",
    "chat Messages.create: temperature": _SAMPLING,
    "chat Messages.create: top_p": _SAMPLING,
    "chat Messages.create: top_k": _SAMPLING,
    "chat Messages.stream: temperature": _SAMPLING,
    "chat Messages.stream: top_p": _SAMPLING,
    "chat Messages.stream: top_k": _SAMPLING,
    "chat Messages.parse: temperature": _SAMPLING,
    "chat Messages.parse: top_p": _SAMPLING,
    "chat Messages.parse: top_k": _SAMPLING,
    "chat Messages.parse: delta.stop_reason": "of the messages that are streamed",
    "google.generate_content: response_token_count": _LIVE,
    "google.generate_content: responseTokenCount": _LIVE,
    "google.generate_content: response_tokens_details[modality=AUDIO].token_count": _LIVE,
    "google.generate_content: responseTokensDetails[modality=AUDIO].tokenCount": _LIVE,
    "google.generate_content: response_tokens_details[modality=IMAGE].token_count": _LIVE,
    "google.generate_content: responseTokensDetails[modality=IMAGE].tokenCount": _LIVE,
    "google.generate_content: service_tier": "in the API's own spelling only",
    "google.generate_content: serviceTier": "in the API's own spelling only",
    "google.embed_content: candidates_token_count": _OUTPUT,
    "google.embed_content: candidatesTokenCount": _OUTPUT,
    "google.embed_content: candidates_tokens_details[modality=AUDIO].token_count": _OUTPUT,
    "google.embed_content: candidatesTokensDetails[modality=AUDIO].tokenCount": _OUTPUT,
    "google.embed_content: candidates_tokens_details[modality=IMAGE].token_count": _OUTPUT,
    "google.embed_content: candidatesTokensDetails[modality=IMAGE].tokenCount": _OUTPUT,
    "generate_content Models._generate_images: generated_masks.mask": _OTHERS,
    "generate_content Models._edit_image: generated_masks.mask": _OTHERS,
    "generate_content Models._upscale_image: generated_masks.mask": _OTHERS,
    "generate_content Models.recontext_image: generated_masks.mask": _OTHERS,
    "generate_content Models.segment_image: generated_images.image": _OTHERS,
    "google.interactions: total_reasoning_tokens": "an older name",
    "bedrock.converse: cacheReadInputTokenCount": "the invocation metrics'",
    "bedrock.converse: cacheWriteInputTokenCount": "the invocation metrics'",
    "chat InvokeModel: metadata.usage": _STREAMED,
    "chat InvokeModel: totalOutputTextTokenCount": _STREAMED,
    "chat InvokeModel: delta.stop_reason": _STREAMED,
    "chat InvokeModel: messageStop.stopReason": _STREAMED,
    "chat InvokeModel: completionReason": _STREAMED,
    "chat InvokeModelWithResponseStream: results.tokenCount": _WHOLE,
    "chat InvokeModelWithResponseStream: stopReason": _WHOLE,
    "chat InvokeModelWithResponseStream: results.completionReason": _WHOLE,
    "chat InvokeModelWithResponseStream: generations.finish_reason": _WHOLE,
}
"""Where a path stands (its shape, or the method) and the path → why the SDK's types don't have it."""

UNTYPED = {
    "Speech.create": "the SDK has no type for its events",
    "Files.content": "a file, of which the SDK knows nothing",
    "InvokeModel": "the body is the model's own",
    "InvokeModelWithResponseStream": "as above",
}
"""Methods whose answers are checked as the loopback sends them."""
NEWER = {
    "openai Images.generate": "1.79",
    "openai Images.edit": "1.79",
    "openai Images.create_variation": "1.79",
    "openai Transcriptions.create": "1.92",
    "anthropic Completions.create": "1",  # gone from then on, and never with a usage
    "google_genai Models.embed_content": "3.4",
    "google_genai Models._embed_content": "3.4",
}
"""Methods whose answers have no usage in the types of older SDKs → the version by which they have one."""


# What is watched.


def installed(provider, target):
    try:
        return version(target.package or provider.package)
    except PackageNotFoundError:
        return None


def targets():
    """Every target that the installed SDKs have, by its provider's name."""
    for name, provider in PROVIDERS.items():
        for target in provider.targets:
            having = installed(provider, target)
            if having is not None and SpecifierSet(target.versions).contains(having, prereleases=True):
                yield pytest.param(name, target, id=f"{name}-{target.module.rpartition('.')[2]}-{target.name}")


TARGETS = pytest.mark.parametrize(("name", "target"), [*targets()])


def owner_of(target):
    *path, name = target.name.split(".")
    owner = importlib.import_module(target.module)
    for step in path:
        owner = getattr(owner, step)
    return owner, name


def bare(target):
    owner, name = owner_of(target)
    method = vars(owner)[name]
    while isinstance(method, Watched):
        method = method.__wrapped__
    return method


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_the_installed_sdk_has_is_watched_and_nothing_is_missing(recording, name):
    states = {(bound.target.module, bound.target.name): bound.state for bound in assembly.look(name)}
    having = [target for param in targets() for of, target in [param.values] if of == name]
    assert having
    assert [target.name for target in having if states[target.module, target.name] != "watched"] == []
    assert "missing" not in states.values()


GONE = """
import importlib, sys
module, *path, name = sys.argv[1], *sys.argv[2].split(".")
owner = importlib.import_module(module)
for step in path:
    owner = getattr(owner, step)
delattr(owner, name)
from spanledger.cli.main import main
main(["doctor"])
"""


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_method_that_has_gone_from_the_sdk_is_named_by_the_doctor(name, home):
    target = next(target for param in targets() for of, target in [param.values] if of == name)
    command = [sys.executable, "-W", "ignore", "-c", GONE, target.module, target.name]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert ran.returncode == 1, ran.stderr
    said = re.sub(r"\s+", "", ran.stdout)
    assert "NOTwatched:" in said
    assert f"{target.module}.{target.name}" in said


# Wrapping.


@TARGETS
def test_a_watched_method_looks_like_the_bare_one(recording, name, target):
    owner, attribute = owner_of(target)
    ours = vars(owner)[attribute]
    assert isinstance(ours, Watched)
    spanledger.instrument()
    spanledger.instrument(name)
    assert vars(owner)[attribute] is ours
    original = ours.__wrapped__
    assert not isinstance(original, Watched)
    watched = getattr(owner, attribute)
    assert inspect.signature(watched) == inspect.signature(original)
    assert (watched.__doc__, watched.__name__, watched.__qualname__) == (
        original.__doc__,
        original.__name__,
        original.__qualname__,
    )
    assert inspect.iscoroutinefunction(watched) == inspect.iscoroutinefunction(original)
    spanledger.uninstrument()
    assert vars(owner)[attribute] is original
    spanledger.instrument()
    assert vars(owner)[attribute] is ours


@TARGETS
def test_where_somebody_wrapped_us_uninstrument_leaves_a_pass_through(recording, name, target):
    owner, attribute = owner_of(target)
    ours = vars(owner)[attribute]
    original = ours.__wrapped__
    theirs = wrapt.FunctionWrapper(ours, lambda wrapped, _, args, kwargs: (wrapped(*args, **kwargs), "theirs"))
    setattr(owner, attribute, theirs)
    try:
        spanledger.uninstrument()
        assert vars(owner)[attribute] is theirs
        ours.__wrapped__ = lambda *_, **__: "passed"
        assert theirs() == ("passed", "theirs")
    finally:
        ours.__wrapped__ = original
        setattr(owner, attribute, ours)
        spanledger.instrument()
    assert vars(owner)[attribute] is ours
    assert not recording.spans


# The paths of a table.


@dataclasses.dataclass(frozen=True)
class At:
    """A path of a table: where it starts, and how to make the same endpoint with another path instead."""

    where: str
    start: str
    path: str
    changed: typing.Any
    must: bool = False


def _fields(endpoint, start, *names):
    for name in names:
        if path := getattr(endpoint, name):
            yield At(name, start, path, lambda new, name=name: replace(endpoint, **{name: new}))


def _items(endpoint, name, start, *, must=False):
    paths = getattr(endpoint, name)
    for index, path in enumerate(paths):
        if path:
            made = lambda new, i=index: replace(endpoint, **{name: (*paths[:i], new, *paths[i + 1 :])})  # noqa: E731
            yield At(f"{name}[{index}]", start, path, made, must and not index)


def _values(endpoint, name, start):
    paths = getattr(endpoint, name)
    for key, path in paths.items():
        yield At(f"{name}[{key}]", start, path, lambda new, k=key: replace(endpoint, **{name: {**paths, k: new}}))


def shape_paths(endpoint, shape, put):
    """The paths of a shape; `put` makes the endpoint that has another shape in its place."""
    for key, paths in shape.counts.items():
        for index, path in enumerate(paths):
            made = (  # noqa: E731
                lambda new, k=key, i=index, p=paths: put(
                    replace(shape, counts={**shape.counts, k: (*p[:i], new, *p[i + 1 :])})
                )
            )
            yield At(f"{shape.name}: {key}", "usage", path.lstrip("?"), made, key in shape.requires and not index)
    for name in ("total", "beside"):
        if path := getattr(shape, name):
            yield At(f"{shape.name}: {name}", "usage", path, lambda new, n=name: put(replace(shape, **{n: new})))
    for key, path in shape.context.items():
        made = lambda new, k=key: put(replace(shape, context={**shape.context, k: new}))  # noqa: E731
        yield At(f"{shape.name}: {key}", "usage", path, made)


def paths_of(endpoint):
    """All paths of an endpoint."""
    yield from _items(endpoint, "usage_at", "response", must=True)
    yield from _items(endpoint, "roots", "chunk")
    yield from _items(endpoint, "signals", "chunk")
    yield from _items(endpoint, "last_signals", "chunk")
    yield from _values(endpoint, "loose", "response")
    yield from _fields(endpoint, "response", "id", "model", "service_tier", "finish_reasons", "conversation", "state")
    yield from _fields(endpoint, "response", "error", "created_at", "background")
    for key, count in endpoint.counts.items():

        def counted(new, key=key):
            return replace(endpoint, counts={**endpoint.counts, key: new})

        yield At(f"counts[{key}]", "response", count.items, lambda new, c=count, f=counted: f(replace(c, items=new)))
        for path, value in count.where.items():
            rest = {name: each for name, each in count.where.items() if name != path}
            made = lambda new, c=count, f=counted, r=rest, v=value: f(replace(c, where={**r, new: v}))  # noqa: E731
            yield At(f"counts[{key}] where", f"response {count.items}.*", path, made)
    for key, length in endpoint.lengths.items():
        made = lambda new, k=key, each=length: replace(  # noqa: E731
            endpoint, lengths={**endpoint.lengths, k: replace(each, path=new)}
        )
        yield At(f"lengths[{key}]", "request", length.path, made)
    for path, shape in endpoint.spelled.items():
        rest = {name: each for name, each in endpoint.spelled.items() if name != path}
        yield At("spelled", "usage", path, lambda new, r=rest, s=shape: replace(endpoint, spelled={**r, new: s}))
        yield from shape_paths(endpoint, shape, lambda new, r=rest, p=path: replace(endpoint, spelled={**r, p: new}))
    yield from shape_paths(endpoint, endpoint.usage, lambda new: replace(endpoint, usage=new))
    yield from _values(endpoint, "context", "request")
    yield from _values(endpoint, "request", "request")
    yield from _fields(endpoint, "request", "request_model", "choices")


# Following a path through types.


@dataclasses.dataclass(frozen=True)
class Chunks:
    """A stream of these."""

    of: typing.Any


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What a method may be asked with."""

    method: typing.Any


def expanded(kind, hints_of=None):
    """The types that a value of this annotation may have; `Chunks` of those that come in parts."""
    if isinstance(kind, str):
        kind = eval(kind, hints_of or {})  # an annotation of the SDK's
    if kind is None or kind is type(None):
        return ()
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, typing.ForwardRef):
        return expanded(kind.__forward_arg__, hints_of)
    if isinstance(kind, typing.TypeVar):
        return expanded(kind.__bound__, hints_of) if kind.__bound__ else ()
    if origin is typing.Union or isinstance(kind, types.UnionType):
        return tuple(each for arg in args for each in expanded(arg, hints_of))
    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.ClassVar):
        return expanded(args[0], hints_of)
    if hasattr(kind, "__value__"):
        return expanded(kind.__value__, hints_of)
    if origin is not None and issubclass_of(origin, collections.abc.Awaitable):
        return expanded(args[-1], hints_of)
    if origin is not None and (hasattr(origin, "__next__") or hasattr(origin, "__anext__")):
        return tuple(Chunks(each) for each in expanded(args[0], hints_of))
    if inspect.isclass(origin or kind) and not hasattr(origin or kind, "model_fields"):
        manager = origin or kind
        if hasattr(manager, "__enter__") or hasattr(manager, "__aenter__"):
            return opened(manager)
    return (kind,)


def opened(manager):
    """What a context manager asks for when it is entered."""
    names = vars(sys.modules[manager.__module__])
    for parameter in inspect.signature(manager.__init__).parameters.values():
        found = re.search(r"(\w*Stream)\[(\w+)\]", str(parameter.annotation))
        if found:
            return tuple(Chunks(each) for each in expanded(found[2], names))
    return (manager,)


def issubclass_of(kind, of):
    return inspect.isclass(kind) and issubclass(kind, of)


@functools.cache
def fields_of_type(kind):
    """Name, and alias, of what an object of this type has → its annotation."""
    if hasattr(kind, "model_fields"):
        names = vars(sys.modules[kind.__module__])
        found = {}
        for name, field in kind.model_fields.items():
            aliases = {each for each in (field.alias, field.validation_alias) if isinstance(each, str)}
            generated = (kind.model_config.get("alias_generator") and camel(name)) or name
            for each in {name, generated, *aliases}:
                found[each] = expanded(field.annotation, names)
        return found
    if inspect.isclass(kind) and getattr(kind, "__annotations__", None):
        try:
            hints = typing.get_type_hints(kind)
        except (NameError, TypeError):
            hints = {}
        return {name: expanded(each) for name, each in hints.items()}
    return {}


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def items_of(place):
    if place.__class__.__name__ == "ListShape":
        return (place.member,)
    if isinstance(place, list):
        return tuple(each for each in place if each is not None)
    origin = typing.get_origin(place)
    if issubclass_of(origin, collections.abc.Iterable) and not issubclass_of(origin, (collections.abc.Mapping, str)):
        return tuple(each for arg in typing.get_args(place)[:1] for each in expanded(arg))
    return None


def step_from(place, step):
    """As below, remembered for types."""
    try:
        return _step_from(place, step)
    except TypeError:  # a value of JSON
        return _step_from.__wrapped__(place, step)


@functools.cache
def _step_from(place, step):
    """The places one step leads to from a place: a type, a shape of botocore's, or a value of JSON."""
    items = items_of(place)
    if items is not None:
        if step == "*" or isinstance(step, int):
            return items
        return tuple(found for each in items for found in step_from(each, step))
    if isinstance(place, dict):
        return (place[step],) if place.get(step) is not None else ()
    if place.__class__.__name__ == "StructureShape":
        return (place.members[step],) if step in place.members else ()
    if isinstance(place, Parameters):
        return tuple(parameters_of(place.method).get(step, ()))
    return fields_of_type(place).get(step, ()) if isinstance(step, str) else ()


def may_be(place, word):
    """Whether a text at this place may be the word."""
    if typing.get_origin(place) is typing.Literal:
        return word in typing.get_args(place)
    if issubclass_of(place, Enum):
        return word in [each.value for each in place]
    if isinstance(place, str):
        return place == word
    return place is str or word in getattr(place, "enum", ())


def chosen(places, key, word):
    """The places of items whose `key` may be the word."""
    items = [each for place in places for each in (items_of(place) or ())]
    return [each for each in items if any(may_be(found, word) for found in step_from(each, key))]


def led(places, steps):
    """The places these steps lead to."""
    for step in steps:
        if isinstance(step, tuple):
            places = chosen(places, *step)
        else:
            places = [found for place in places for found in step_from(place, step)]
    return [*dict.fromkeys(places)] if all(map(hashable, places)) else places


def hashable(place):
    return not isinstance(place, (dict, list))


# Where the paths of a target start.


@dataclasses.dataclass
class Places:
    """Where an endpoint's paths start: in whole answers, in chunks, in the request."""

    whole: list
    chunks: list
    request: list

    def responses(self, endpoint):
        """Whole answers, and what sits in a chunk."""
        return [*self.whole, *(found for root in endpoint.roots for found in inside(self.chunks, root))]

    def usages(self, endpoint):
        found = [each for path in endpoint.usage_at for each in inside(self.responses(endpoint), path)]
        if endpoint.loose:
            found.append(dict.fromkeys(endpoint.loose, 1))
        return found

    def start(self, at, endpoint):
        if at.start == "usage":
            return self.usages(endpoint)
        if at.start.startswith("response "):
            return inside(self.responses(endpoint), at.start.partition(" ")[2])
        named = {"response": self.responses(endpoint), "chunk": self.chunks, "request": self.request}
        return named[at.start]


def inside(places, path):
    """The places a path leads to from these."""
    return [found for steps in compiled(path) for found in led(places, steps)] if path else list(places)


def annotated(method):
    """The return annotations of a method and of its overloads."""
    names = vars(sys.modules[method.__module__])
    for each in (*typing.get_overloads(method), method):
        annotation = inspect.signature(each).return_annotation
        if annotation is not inspect.Signature.empty:
            yield from expanded(annotation, names)


@functools.cache
def parameters_of(method):
    """A method's parameters → their types."""
    names = vars(sys.modules[method.__module__])
    known = {}
    for each in (*typing.get_overloads(method), method):
        for parameter in inspect.signature(each).parameters.values():
            found = expanded(parameter.annotation, names) if parameter.annotation is not parameter.empty else ()
            known.setdefault(parameter.name, []).extend([*found, str])
    return known


def places_of(target, operation, samples):
    """Where the paths of a target (of this operation, if it has several) start."""
    short = operation or short_of(target)
    if operation:
        import botocore.session

        model = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model(operation)
        output = model.output_shape
        stream, request = model.get_event_stream_output(), [model.input_shape]
        whole, chunks = ([], [stream]) if stream is not None else ([output], [])
    else:
        method = bare(target)
        found = [*dict.fromkeys(annotated(method))]
        chunks = [each.of for each in found if isinstance(each, Chunks)]
        whole = [each for each in found if not isinstance(each, Chunks)]
        request = [Parameters(method)]
    if short in UNTYPED:
        whole, chunks = samples[short]
    return Places(whole, chunks, request)


def endpoints_of(target):
    """(operation, endpoint) of a target."""
    if isinstance(target.endpoint, Endpoint):
        return [("", target.endpoint)]
    if isinstance(target.endpoint, (Batch, Announcement)):
        return []
    return list(target.endpoint.items())


def short_of(target):
    return target.name.replace("Async", "").replace("Aio", "")


def named(operation, target, endpoint):
    return f"{endpoint.operation} {operation or short_of(target)}"


def unread(at, endpoint, places):
    """Whether nothing reads the path: that of a chunk where none come, of a usage that has no counts."""
    if at.start == "chunk":
        return not places.chunks
    return at.where.startswith("usage_at") and not endpoint.usage.counts and not endpoint.spelled


def lost(target, operation, endpoint, places, latest=True):
    """The paths of an endpoint that lead nowhere: (by its method, by its shape if it is one of a shape)."""
    short = named(operation, target, endpoint)
    for at in paths_of(endpoint):
        if unread(at, endpoint, places) or not (latest or at.must):
            continue
        start = places.start(at, endpoint)
        holder = at.where.partition(":")[0] if ": " in at.where else short
        for steps, alternative in zip(compiled(at.path), at.path.split("|"), strict=True):
            if not led(start, steps):
                yield f"{short}: {alternative}", f"{holder}: {alternative}"
    if endpoint.usage.counts or endpoint.spelled:
        for kind, some in (("whole", places.whole), ("chunk", places.chunks)):
            rooted = [each for root in endpoint.roots for each in inside(some, root)] if kind == "chunk" else some
            if some and not any(inside(rooted, path) for path in endpoint.usage_at):
                yield (f"{short}, {kind}: {endpoint.usage_at[0]}",) * 2


# Answers that the SDK has no types for, as the loopback sends them.

COUNTS = {
    "input_tokens": 9, "output_tokens": 9, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1,
    "cache_creation": {"ephemeral_1h_input_tokens": 1}, "output_tokens_details": {"thinking_tokens": 1},
    "server_tool_use": {"web_search_requests": 1}, "service_tier": "standard", "speed": "standard",
    "inference_geo": "us",
}  # fmt: skip
"""A usage of Claude's with everything in it."""
NOVA = {
    "inputTokens": 9, "outputTokens": 9, "totalTokens": 18, "cacheReadInputTokens": 1, "cacheWriteInputTokens": 1,
    "cacheReadInputTokenCount": 1, "cacheWriteInputTokenCount": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": 1}],
}  # fmt: skip
METRICS = {
    "inputTokenCount": 9, "outputTokenCount": 9, "cacheReadInputTokenCount": 1, "cacheWriteInputTokenCount": 1,
}  # fmt: skip
_OPENAI = {
    "prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1, "audio_tokens": 1, "image_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 1},
}  # fmt: skip
OPENAI = {"usage": _OPENAI, "service_tier": "default", "choices": [{"finish_reason": "stop"}]}
"""As the models say it that answer as OpenAI does; the loopback has none of them."""
FAMILIES = {
    "anthropic.claude-v2": ({"messages": []}, {"usage": COUNTS}),
    "amazon.nova-lite-v1:0": ({"messages": []}, {"usage": NOVA}),
    "amazon.titan-text-lite-v1": ({"inputText": "hi"}, {}),
    "meta.llama3-8b-instruct-v1:0": ({"prompt": "hi"}, {}),
    "mistral.mistral-7b-instruct-v0:2": ({"prompt": "hi"}, {"metrics": METRICS}),
    "cohere.command-r-v1:0": ({"message": "hi"}, {"metrics": METRICS}),
    "cohere.command-text-v14": ({"prompt": "hi"}, {"metrics": METRICS}),
}


def posted(url, body):
    asking = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(asking, timeout=20) as answer:
        return answer.read()


def model_bodies(provider):
    """What InvokeModel's bodies say, whole and in chunks."""
    from botocore.eventstream import EventStreamBuffer

    from spanledger.instrumentation.aws import event

    whole = [{"amazon-bedrock-invocationMetrics": METRICS}, OPENAI]
    chunks = [OPENAI]
    for model, (body, asked) in FAMILIES.items():
        url = f"{provider.root}/model/{model}/invoke"
        whole.append(json.loads(posted(url, {**body, "loopback": asked})))
        buffer = EventStreamBuffer()
        buffer.add_data(posted(f"{url}-with-response-stream", {**body, "loopback": asked}))
        chunks += [event(message) for message in buffer]
    return whole, chunks


@pytest.fixture(scope="module")
def samples(provider):
    speech = posted(f"{provider.base_url}/audio/speech", {"input": "hi", "model": "tts-1", "stream_format": "sse"})
    events = [json.loads(line[6:]) for line in speech.decode().splitlines() if line.startswith("data: ")]
    whole, chunks = model_bodies(provider)
    return {
        "Speech.create": ([], events),
        "InvokeModel": (whole, []),
        "InvokeModelWithResponseStream": ([], chunks),
    }


def is_latest(name):
    package = PROVIDERS[name].package
    return Version(version(package)) >= Version(LATEST[package])


def unexplained(target, found):
    """What leads nowhere for no reason."""
    odd = [path for path, other in found if path not in EXTRAS and other not in EXTRAS]
    return [path for path in odd if not of_beta(target, path)]


def of_beta(target, path):
    """Whether only the types of Anthropic's beta have it, though the other answers may."""
    return "iterations[" in path and ".beta." not in target.module


@TARGETS
def test_every_path_leads_somewhere_in_the_answers_of_the_sdk(name, target, samples):
    for operation, endpoint in endpoints_of(target):
        places = places_of(target, operation, samples)
        assert places.whole or places.chunks
        latest = is_latest(name)
        if latest or Version(installed(PROVIDERS[name], target)) >= Version(
            NEWER.get(f"{name} {short_of(target)}", "0")
        ):
            assert unexplained(target, lost(target, operation, endpoint, places, latest)) == []


@TARGETS
def test_a_wrong_path_is_found_out(name, target, samples):
    if not is_latest(name):
        pytest.skip("its types are read with the SDK that the tables are written from")
    for operation, endpoint in endpoints_of(target):
        places = places_of(target, operation, samples)
        for at in paths_of(endpoint):
            if not unread(at, endpoint, places):
                broken = at.changed(f"{at.path}_")
                found = unexplained(target, lost(target, operation, broken, places))
                assert found or of_beta(target, at.path), (at.where, at.path)


def test_every_exception_is_needed(samples):
    if not all(map(is_latest, PROVIDERS)):
        pytest.skip("an older SDK is installed")
    found = {
        path
        for param in targets()
        for _, target in [param.values]
        for operation, endpoint in endpoints_of(target)
        for both in lost(target, operation, endpoint, places_of(target, operation, samples))
        for path in both
    }
    assert set(EXTRAS) - found == set()


def batch_paths(target):
    """The paths of a batch's item, or of the batch itself, and where they start."""
    batch = target.endpoint
    found = list(annotated(bare(target)))
    if isinstance(batch, Announcement):
        return [(found, batch.id), (found, batch.created_at)]
    items = [each.of for each in found if isinstance(each, Chunks)]
    if not items:
        return []
    asked = [([Parameters(bare(target))], batch.batch_id)] if batch.batch_id else []
    return [*asked, (items, batch.id), (items, batch.answer), (items, batch.error)] + [
        (inside(items, batch.answer), path) for path in (batch.kind, batch.created_at) if path
    ]


@TARGETS
def test_every_path_to_a_batch_leads_somewhere_and_a_wrong_one_does_not(name, target):
    for start, path in batch_paths(target) if isinstance(target.endpoint, (Batch, Announcement)) else ():
        assert inside(start, path), path
        assert not inside(start, f"{path}_"), path
