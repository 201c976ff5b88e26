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
from spanledger.usage.paths import at_path, compiled

LATEST = {"openai": "3.54", "anthropic": "2.12", "google-genai": "3.4", "botocore": "1.43.117"}
"""The versions the tables are written from. An older SDK's types lack what came later: there only the places of the
usage and the counts without which it is partial have to lead somewhere."""

EXTRAS = {}
"""Where a path stands (its shape, or the method) and the path → why the SDK's types don't have it."""

UNTYPED = {
    "Speech.create": "the SDK has no type for its events",
    "Files.content": "a file, of which the SDK knows nothing",
    "InvokeModel": "the body is the model's own",
    "InvokeModelWithResponseStream": "as above",
}
"""Methods whose answers are checked as the loopback sends them."""


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


TARGETS = pytest.mark.parametrize(("name", "target"), targets())


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
    states = {bound.target: bound.state for bound in assembly.look(name)}
    having = {target for param in targets() for of, target in [param.values] if of == name}
    assert having
    assert {target.name for target in having if states[target] != "watched"} == set()
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
            made = lambda new, k=key, i=index, p=paths: put(  # noqa: E731
                replace(shape, counts={**shape.counts, k: (*p[:i], new, *p[i + 1 :])})
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
    if inspect.isclass(origin or kind) and hasattr(origin or kind, "_is_protocol") is False:
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
    return [found for steps in compiled(path) for found in led(places, steps)] if path else list(places)


def annotated(method):
    """The return annotations of a method and of its overloads."""
    names = vars(sys.modules[method.__module__])
    for each in (*typing.get_overloads(method), method):
        annotation = inspect.signature(each).return_annotation
        if annotation is not inspect.Signature.empty:
            yield from expanded(annotation, names)


@functools.cache
def asked_with(method):
    """What a method may be asked with, as if it were a typed dictionary."""
    names = vars(sys.modules[method.__module__])
    known = {}
    for each in (*typing.get_overloads(method), method):
        for parameter in inspect.signature(each).parameters.values():
            found = expanded(parameter.annotation, names) if parameter.annotation is not parameter.empty else ()
            known.setdefault(parameter.name, []).extend([*found, str])
    return known


class Asked:
    """A request by a method's own parameters."""

    def __init__(self, known):
        self.__dict__.update(known)


def places_of(target, operation, samples):
    """Where the paths of a target (of this operation, if it has several) start."""
    short = operation or target.name.replace("Async", "").replace("Aio", "")
    if operation:
        import botocore.session

        model = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model(operation)
        output = model.output_shape
        streams = [member for member in output.members.values() if getattr(member, "eventstream", False)]
        whole, chunks, request = ([], streams, [model.input_shape]) if streams else ([output], [], [model.input_shape])
    else:
        method = bare(target)
        found = [*dict.fromkeys(annotated(method))]
        chunks = [each.of for each in found if isinstance(each, Chunks)]
        whole = [each for each in found if not isinstance(each, Chunks)]
        request = [Parameters.of(method)]
    if short in UNTYPED:
        whole, chunks = samples[short]
    return Places(whole, chunks, request)


class Parameters(dict):
    """A method's parameters → their types."""

    @classmethod
    @functools.cache
    def of(cls, method):
        return cls(asked_with(method))

    def __hash__(self):
        return id(self)


def endpoints_of(target):
    """(operation, endpoint) of a target."""
    if isinstance(target.endpoint, Endpoint):
        return [("", target.endpoint)]
    if isinstance(target.endpoint, (Batch, Announcement)):
        return []
    return list(target.endpoint.items())


def lost(target, operation, endpoint, places, latest=True):
    """The paths of an endpoint that lead nowhere, each under its name in `EXTRAS`."""
    short = operation or target.name.replace("Async", "").replace("Aio", "")
    found = []
    for at in paths_of(endpoint):
        if (at.start == "chunk" and not places.chunks) or not (latest or at.must):
            continue
        start = places.start(at, endpoint)
        holder = at.where.partition(":")[0] if at.start == "usage" else short
        for steps, alternative in zip(compiled(at.path), at.path.split("|"), strict=True):
            if not led(start, steps):
                found.append(f"{holder}: {alternative}")
    for path in endpoint.usage_at[:1]:
        for name, some in (("whole", places.whole), ("chunk", places.chunks)):
            rooted = [each for root in endpoint.roots for each in inside(some, root)] if name == "chunk" else some
            if some and not inside(rooted, path):
                found.append(f"{short}, {name}: {path}")
    return found
