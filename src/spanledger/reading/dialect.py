"""What a dialect says: how somebody's spans spell a model call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from spanledger import conventions
from spanledger.recording.telling import Rank

LEAVES: Final = {
    conventions.CHAT: conventions.CHAT,
    conventions.GENERATE_CONTENT: conventions.GENERATE_CONTENT,
    conventions.TEXT_COMPLETION: conventions.TEXT_COMPLETION,
    conventions.EMBEDDINGS: conventions.EMBEDDINGS,
}
"""Operations that are billed. Agents, workflows and tools carry sums of these; `fetch_response` repeats one."""

Names = tuple[str, ...]
"""Attributes, the first that is there counts. `name#path` is a place in the JSON text that the attribute holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dialect:
    """A table. Whose spans it is about is told by instrumentation scope, else by an attribute that nobody else has."""

    name: str
    scopes: Mapping[str, Rank]
    """Instrumentation scope → how near to the wire its teller is. A trailing `*` stands for the rest of a name."""
    marks: Names = ()
    """Attributes that tell this dialect where the scope is of nobody we know."""
    operation: Names
    """Attributes that say what the span is of."""
    operations: Mapping[str, str] = field(default_factory=lambda: LEAVES)
    """Their word → our operation. A span of any other word sums up others, or repeats one."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Span name → their word, before any attribute says one; a trailing `*` stands for the rest of the name."""
    begins: Names = ()
    """Span names by which a sampler knows a model call that says nothing else at its start; `*` as above."""
    in_pairs: Mapping[str, frozenset[object]] = field(default_factory=dict)
    """Attribute → values of the span that is passed over if it has neither usage nor response id: a call that went
    well has another one, which tells it."""
    fields: Mapping[str, Names]
    """Field of `UsageRecord` → attributes."""
    own_ids: Names = ()
    """Attributes with an id of theirs, which they also write where the provider gave none."""
    providers: Mapping[str, str] = field(default_factory=dict)
    """Scope, or span name, as in `scopes` → whose SDK it is, where no attribute says a provider."""
    usage: Mapping[str, Names]
    """Field of `Usage`, `total`, or `uncached` (input without cache), → attributes."""
    stream: Names = (conventions.REQUEST_STREAM,)
    costs: Names = ()
    """What they say it costs, in USD."""
    adds: Mapping[str, Names] = field(default_factory=dict)
    """Field of `Usage` → attributes with more of it, which their own total leaves out."""
    estimates: Mapping[str, frozenset[object]] = field(default_factory=dict)
    """Attribute → values with which their counts are not the provider's own."""
    leaves_out: Mapping[str, frozenset[object]] = field(default_factory=dict)
    """Attribute → values with which they lose the tokens of the cache: without any, the input is not all of it."""
    attribution: Mapping[str, Names] = field(default_factory=dict)
    """Attribution key → attributes."""
    properties: Names = ()
    """Beginnings of attributes whose rest is an attribution key, or goes to the metadata."""
    exclusive: frozenset[str] = frozenset()
    """Providers of which their input is without cache reads and writes; `*` is all."""
    thoughts_apart: frozenset[str] = frozenset()
    """Providers of which their output is without reasoning; `*` is all."""
    measures: Names = ()
    """Scopes that record `gen_ai.client.token.usage` themselves, as in `scopes`."""

    @property
    def identity(self) -> frozenset[str]:
        """Attributes that say what a span is of, and that may be the oldest on it."""
        return _identity(self)

    @property
    def answers(self) -> frozenset[str]:
        """Attributes of which a finished call has at least one."""
        return _answers(self)

    @property
    def looks_inside(self) -> bool:
        """Whether some of what it reads stands in JSON."""
        return _looks_inside(self)

    def rank(self, scope: str) -> Rank:
        """How near to the wire a scope's teller is."""
        return next((rank for name, rank in self.scopes.items() if fits(name, scope)), Rank.FRAMEWORK)

    def measured(self, scope: str) -> bool:
        """Whether a scope records the token metric itself."""
        return any(fits(name, scope) for name in self.measures)

    def provider(self, scope: str, name: str) -> str | None:
        """Whose SDK a span is of."""
        return next(
            (provider for pattern, provider in self.providers.items() if fits(pattern, scope) or fits(pattern, name)),
            None,
        )

    def word(self, name: str, attributes: Mapping[str, object]) -> str | None:
        """What the span is of, in their word; `None` where it does not say so (yet)."""
        for pattern, word in self.named.items():
            if fits(pattern, name):
                return word
        for attribute in self.operation:
            said = attributes.get(attribute)
            if isinstance(said, str) and said:
                return said
        return None


@lru_cache
def _identity(dialect: Dialect) -> frozenset[str]:
    names = *dialect.operation, *dialect.fields["provider"], *dialect.fields["request_model"]
    more = dialect.fields.get("response_model", ())
    return frozenset(name for name in (*names, *more) if "#" not in name)


@lru_cache
def _answers(dialect: Dialect) -> frozenset[str]:
    names = *dialect.fields.get("response_id", ()), *(name for names in dialect.usage.values() for name in names)
    return frozenset(name.partition("#")[0] for name in names)


@lru_cache
def _looks_inside(dialect: Dialect) -> bool:
    tables = (dialect.fields, dialect.usage)
    return any("#" in name for table in tables for names in table.values() for name in names)


def fits(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or begins as it does where it ends with `*`."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def provider_usage(holder: str) -> dict[str, Names]:
    """Where the counts are in a provider's own usage object that is held as JSON at `holder` (`attribute#path`)."""
    at = holder if holder.endswith("#") else f"{holder}."
    return {
        "cache_read_tokens": _in(at, "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens",
                                 "cache_read_input_tokens"),
        "cache_write_tokens": _in(at, "prompt_tokens_details.cache_write_tokens",
                                  "input_tokens_details.cache_write_tokens", "cache_creation_input_tokens"),
        "cache_write_long_tokens": _in(at, "cache_creation.ephemeral_1h_input_tokens"),
        "reasoning_tokens": _in(at, "completion_tokens_details.reasoning_tokens",
                                "output_tokens_details.reasoning_tokens", "output_tokens_details.thinking_tokens"),
        "input_audio_tokens": _in(at, "prompt_tokens_details.audio_tokens"),
        "output_audio_tokens": _in(at, "completion_tokens_details.audio_tokens"),
        "web_searches": _in(at, "server_tool_use.web_search_requests"),
    }  # fmt: skip


def _in(at: str, *paths: str) -> Names:
    return tuple(at + path for path in paths)


def more(*tables: Mapping[str, Names]) -> dict[str, Names]:
    """One table of several: for each field the names of the first one come first."""
    return {
        name: tuple(each for table in tables for each in table.get(name, ()))
        for name in dict.fromkeys(name for table in tables for name in table)
    }
