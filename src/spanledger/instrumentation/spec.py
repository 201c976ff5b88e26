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
    where: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a method of an SDK is asked, and where its answer says what was used."""

    operation: str
    usage: Shape
    """How its usage object spells the counts."""
    usage_at: tuple[str, ...] = ("usage",)
    """Where the usage object may be in a response; the first that is there counts."""
    roots: tuple[str, ...] = ("",)
    """Where a response may sit in a chunk of a stream; the last one seen counts."""
    signals: tuple[str, ...] = ("usage",)
    """Paths of a chunk of which at least one is set where the chunk is worth reading. The first is a plain attribute
    and is looked for in every chunk, the others in the last ones only."""
    choices: str = ""
    """Request field with the number of answers asked for: where it is above 1, every chunk is looked at closely."""
    counts: Mapping[str, Count] = field(default_factory=dict)
    """Field of `Usage`, or unit in `other_usage`, → what to count in the response."""
    model: str = "model"
    id: str = "id"
    service_tier: str = "service_tier"
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
    ends: tuple[str, ...] = ("[DONE]",)
    """What a finished stream of events ends with: the data of the last event, or the name of it."""
    created_at: str = ""
    """Path of the creation time (Unix seconds) of a response that is made in the background."""
    background: str = ""
    """Path of the flag that says so."""
    fetched: bool = False
    """The method only fetches an answer: a row comes of it only where it completes a background call."""
    request_model: str = "model"
    request: Mapping[str, str] = field(default_factory=dict)
    """Span attribute → request field."""
    stream_usage: bool = False
    """Whether the usage of a stream has to be asked for with `stream_options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A method to watch: its module, its dotted name there, what it does. An absent one is no error if `optional`."""

    module: str
    name: str
    endpoint: Endpoint
    optional: bool = False

    @property
    def asynchronous(self) -> bool:
        """Whether the method returns an awaitable: by the SDKs' own naming."""
        return self.name.startswith("Async")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An SDK: what to watch in it and how to tell which provider it talks to."""

    name: str
    """Provider name by the GenAI conventions, where nothing else is known."""
    package: str
    """Distribution and import name."""
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
    asks_usage_of: tuple[str, ...] = ()
    """Provider names that accept `stream_options.include_usage`."""
    asks_usage_from: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Provider name → (path of the client's API version, the first version that accepts it)."""
    states_cost: tuple[str, ...] = ()
    """Provider names whose answers state their cost."""
    responses_pass: tuple[tuple[str, str], ...] = ()
    """(module, dotted name) of the methods that are given every HTTP response as `response`."""
    traces_itself: str | None = None
    """Since which version the SDK emits GenAI spans of its own."""


CHAT_REQUEST = {
    conventions.REQUEST_TEMPERATURE: "temperature",
    conventions.REQUEST_TOP_P: "top_p",
    conventions.REQUEST_SEED: "seed",
    conventions.REQUEST_CHOICES: "n",
    conventions.REQUEST_FREQUENCY_PENALTY: "frequency_penalty",
    conventions.REQUEST_PRESENCE_PENALTY: "presence_penalty",
}
"""Request attributes that OpenAI-like APIs share."""
