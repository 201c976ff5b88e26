"""The vocabulary of a provider file.

Paths are those of `spanledger.usage.paths`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanledger import conventions
from spanledger.usage.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """So many items of a list in the response: those that match every (path, value); no value at a path matches too."""

    items: str
    where: Mapping[str, str] = field(default_factory=dict)
    instead: bool = False
    """Only where the response has no usage object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """So many characters of a text in the request, where the answer has no usage object."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a method of an SDK is asked, and where its answer says what was used."""

    operation: str
    variants: Mapping[str, Endpoint] = field(default_factory=dict)
    """Part of a model's name → what the method is asked then."""
    usage: Shape
    """How its usage object spells the counts."""
    spelled: Mapping[str, Shape] = field(default_factory=dict)
    """Path that a usage object may have → how it spells the counts then."""
    usage_at: tuple[str, ...] = ("usage",)
    """Where the usage object may be in a response; the first that is there counts."""
    merges: bool = False
    """Whether the usage is told in parts, in several places or chunks: each corrects and adds to what was told before.
    Otherwise the last usage is the whole of it."""
    loose: Mapping[str, str] = field(default_factory=dict)
    """Name in the usage object → path of a count that stands elsewhere in the response; several there are summed."""
    roots: tuple[str, ...] = ("",)
    """Where a response may sit in a chunk of a stream; the last one seen counts."""
    placeholders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Root → members of its usage object that are not true yet."""
    signals: tuple[str, ...] = ("usage",)
    """Paths of a chunk of which at least one is set where the chunk is worth reading. A plain attribute costs least:
    every chunk is looked at."""
    last_signals: tuple[str, ...] = ()
    """More of them, looked for in the last chunks only."""
    kept: int = 16
    """So many chunks at the end of a stream are looked at for these."""
    usage_ends: bool = True
    """Whether a stream that has told a usage has told all of it."""
    end: str = ""
    """Path in a chunk that only the last one has."""
    streams: bool = False
    """Whether the answer always comes in parts; otherwise the request's `stream` says so."""
    choices: str = ""
    """Request field with the number of answers asked for: where it is above 1, every chunk is looked at closely."""
    counts: Mapping[str, Count] = field(default_factory=dict)
    """Field of `Usage`, or unit in `other_usage`, → what to count in the response."""
    lengths: Mapping[str, Length] = field(default_factory=dict)
    """The same, counted in the request."""
    context: Mapping[str, str] = field(default_factory=dict)
    """What the price depends on beside what the usage says → its path in the request."""
    model: str = "model"
    id: str = "id"
    service_tier: str = "service_tier"
    tier_attribute: str = ""
    """Span attribute for it, where the conventions have one."""
    finish_reasons: str = ""
    conversation: str = ""
    state: str = ""
    """Path of the response's own status, where it has one."""
    states: Mapping[str, str] = field(default_factory=dict)
    """The response's own status → ours."""
    error: str = ""
    """Path of the kind of error in a failed response."""
    error_carries: str = ""
    """Attribute under which an exception of the SDK carries the response it is about."""
    created_at: str = ""
    """Path of the creation time (Unix seconds) of a response that is made in the background."""
    background: str = ""
    """Path of the flag that says so."""
    fetched: bool = False
    """The method only fetches an answer: a row comes of it only where it completes a background call."""
    user: str = ""
    """Path in the request of the user it names."""
    request_model: str = "model"
    request: Mapping[str, str] = field(default_factory=dict)
    """Span attribute → request field."""
    stream_usage: bool = False
    """Whether the usage of a stream has to be asked for with `stream_options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Results of a batch that a method reads: an iterator of items, or a file with an item in every line.

    Each is a row of its own at the batch's rates, the same one whoever reads it how often.
    """

    endpoints: Mapping[str, Endpoint]
    """What the answer says it is → what it is an answer of."""
    kind: str
    """Path in the answer of what it says it is."""
    answer: str
    """Path of the answer in an item."""
    id: str
    """Path of what names the item in its batch."""
    batch_id: str = ""
    """Argument of the method with the batch's id, where the item's alone does not name it."""
    error: str = ""
    """Path of the kind of error in an item that failed; one without answer and error was never run."""
    created_at: str = ""
    """Path of the creation time (Unix seconds) in the answer; otherwise it is the batch's, which `Announcement` has."""
    marks: frozenset[str] = frozenset()
    """Members that the first line of a file has where it is one of such items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A method that returns a batch, of which the creation time is remembered."""

    id: str = "id"
    created_at: str = "created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A method to watch: its module, its dotted name there, what it does."""

    module: str
    name: str
    endpoint: Endpoint | Mapping[str, Endpoint] | Batch | Announcement
    """A mapping goes by the method's first argument, and the request is the second; other calls pass unwatched."""
    versions: str = ""
    """Versions of the SDK that have it, all of them if empty. Where one of these lacks it, something is wrong."""
    package: str = ""
    """Distribution it is of, where that is another one than the provider's."""
    opens: str = ""
    """The method returns a context manager that asks when it is entered: the end of the name of its attribute with
    what asks, a callable or an awaitable."""

    @property
    def asynchronous(self) -> bool:
        """Whether the method returns an awaitable: by the SDKs' own naming."""
        return self.name.startswith(("Async", "Aio"))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All that an answer of the method may be of."""
        if isinstance(self.endpoint, Endpoint):
            return (self.endpoint,)
        if isinstance(self.endpoint, Announcement):
            return ()
        return tuple((self.endpoint.endpoints if isinstance(self.endpoint, Batch) else self.endpoint).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An SDK: what to watch in it and how to tell which provider it talks to."""

    name: str
    """Provider name by the GenAI conventions, where nothing else is known."""
    title: str
    """What people call it."""
    package: str
    """Distribution."""
    imports: str = ""
    """Module whose import says that the SDK will be used; the price list is loaded then."""
    requires: str
    """Supported versions."""
    oldest: str
    """The oldest version the tests run with."""
    targets: tuple[Target, ...]
    client_at: str = "_client"
    base_url_at: str = "_base_url"
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Host, or `*.` and the end of one → provider name."""
    clients: Mapping[str, str] = field(default_factory=dict)
    """Class name of the client → provider name; wins over hosts."""
    told_by: Mapping[str, str] = field(default_factory=dict)
    """Path of a flag of the client → provider name where it is set; wins over hosts."""
    answers: str = "stainless"
    """How answers are handed over: a key of `following.FOLLOW`."""
    asks_usage_of: tuple[str, ...] = ()
    """Provider names that accept `stream_options.include_usage`."""
    asks_usage_from: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Provider name → (path of the client's API version, the first version that accepts it)."""
    states_cost: tuple[str, ...] = ()
    """Provider names whose answers state their cost."""
    copies: tuple[str, ...] = ()
    """Modules with classes that take over methods of the targets as they are when the module is imported."""
    responses_pass: tuple[tuple[str, str], ...] = ()
    """(module, dotted name) of the methods that are given every HTTP response as `response`."""
    own_tracing: tuple[str, ...] = ()
    """Environment variables that, set to `false` before a client is made, keep the SDK from tracing itself. The first
    one says whether the user has asked for it."""
    traced_inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Method of the client that our targets call → modules (beginnings of names) that make the span of a call there."""
    traced_after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Target, by its name → modules (beginnings of names) whose wrappers around it make the span afterwards."""
    traces_itself_at: str = ""
    """Path of the flag of a client that traces itself all the same."""


CHAT_REQUEST = {
    conventions.REQUEST_TEMPERATURE: "temperature",
    conventions.REQUEST_TOP_P: "top_p",
    conventions.REQUEST_SEED: "seed",
    conventions.REQUEST_CHOICES: "n",
    conventions.REQUEST_FREQUENCY_PENALTY: "frequency_penalty",
    conventions.REQUEST_PRESENCE_PENALTY: "presence_penalty",
}
"""Request attributes that OpenAI-like APIs share."""
