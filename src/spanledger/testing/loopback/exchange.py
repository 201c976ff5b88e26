"""What a wire format is given and what it gives back: `Request`, the four kinds of `Answer`, and the shared `Book`.

A module of a format exports `ROUTES`, and may export `error(status)`: the vendor's own error body, or a whole `Json`
where the error also shows in headers.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CREATED: Final = 1_790_000_000
"""Creation time of every answer (Unix seconds): the same at each run."""
_WORDS: Final = ("The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog.")


class Book:
    """What all requests share: what was answered, numbers for ids, and what is kept for a later request."""

    def __init__(self) -> None:
        self.truth: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.store: dict[str, Any] = {}

    def tell(self, endpoint: str, model: str | None, id: str | None, usage: Any) -> None:  # noqa: A002
        """Note one answer as it is sent."""
        self.truth.append({"endpoint": endpoint, "model": model, "id": id, "usage": usage})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: the path as it was sent, without its query, and the body as a JSON object.

    A form's fields are strings in `body`, its files their length; the bytes are in `files`.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: dict[str, Any]
    match: re.Match[str]
    book: Book
    root: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def asked(self) -> dict[str, Any]:
        """How the answer shall be: the directives of the body, else of the header `x-loopback`."""
        for holder in (self.body, self.body.get("additionalModelRequestFields")):
            if isinstance(holder, dict) and isinstance(holder.get("loopback"), dict):
                return dict(holder["loopback"])
        stated = json.loads(self.headers.get("x-loopback") or "{}")
        return stated if isinstance(stated, dict) else {}


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON document."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """Server-sent events: name (or "") and data, a string as it is or a value to write as JSON."""

    events: Iterator[tuple[str, Any]]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frames:
    """An Amazon event stream: the string headers and the payload of each message."""

    frames: Iterator[tuple[Mapping[str, str], bytes]]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bytes:
    """Anything else."""

    data: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Json | Events | Frames | Bytes
Route = tuple[str, re.Pattern[str], Callable[[Request], Answer]]
"""Method, pattern of the whole path, and what answers. The first that fits is taken."""


def given(asked: dict[str, Any], computed: Any) -> Any:
    """The usage that was asked for, whatever it is, else the computed one."""
    return asked.get("usage", computed)


def words(asked: dict[str, Any]) -> Iterator[str]:
    """The words of the answer: one for each content chunk."""
    return itertools.islice(itertools.cycle(_WORDS), asked.get("chunks") or len(_WORDS))


def sentence(asked: dict[str, Any]) -> str:
    """The text of the answer."""
    return " ".join(words(asked))


def tokens(value: Any) -> int:
    """A made-up count that depends on the request: its words, and four for each part."""
    if isinstance(value, str):
        return 4 + len(value.split())
    if isinstance(value, dict):
        return sum(tokens(each) for name, each in value.items() if name in ("content", "text", "parts"))
    if isinstance(value, list):
        return sum(tokens(each) for each in value)
    return 0
