"""TokenLedger's names over spanledger: its programs run with only their import lines changed.

`import spanledger.compat.tokenledger as tokenledger`. To import this is to let `DATABASE_URL` name the ledger.
"""

from __future__ import annotations

from typing import Any, Final

from spanledger import assembly
from spanledger.compat.tokenledger.event import LLMEvent
from spanledger.compat.tokenledger.tracker import (
    AsyncTokenTracker,
    TokenTracker,
    get_async_tracker,
    get_tracker,
    named_by_environment,
    use_environment,
)
from spanledger.context.scope import attribution
from spanledger.guard import log

__all__ = [
    "AsyncTokenTracker",
    "LLMEvent",
    "TokenTracker",
    "attribution",
    "configure",
    "get_async_tracker",
    "get_tracker",
    "patch_anthropic",
    "patch_google",
    "patch_openai",
    "unpatch_anthropic",
    "unpatch_google",
    "unpatch_openai",
]

_SETTINGS: Final = {
    "app_name": "app_name",
    "environment": "environment",
    "batch_size": "batch_size",
    "flush_interval_seconds": "flush_interval",
    "sample_rate": "sample_rate",
    "debug": "debug",
}
"""TokenLedger's option → our setting."""
_NEEDLESS: Final = frozenset({"max_queue_size", "pool_min_size", "pool_max_size", "use_backend"})
"""Options that say nothing here: what is recorded waits on the disk, and one connection writes it."""
_ELSEWHERE: Final = {"table_name": "token_ledger_events", "schema_name": "token_ledger"}
"""Options for a table of another name; ours are reached by these."""


def configure(database_url: str | None = None, *, async_mode: bool = True, **options: Any) -> None:
    """Set the ledger up. Nothing is watched yet: `patch_openai()` and its like do that.

    `database_url` is a PostgreSQL or SQLite URL, else `TOKENLEDGER_DATABASE_URL`, else `DATABASE_URL`. With
    `async_mode=False` a call returns after its record is on the disk. Raises `TypeError` for an unknown option.
    """
    unknown = sorted(options.keys() - _SETTINGS.keys() - _NEEDLESS - _ELSEWHERE.keys() - {"default_metadata"})
    if unknown:
        raise TypeError(f"configure has no option {', '.join(unknown)}; it has {', '.join(sorted(_SETTINGS))}")
    for name in sorted(options.keys() & _ELSEWHERE.keys()):
        log.warning("%s is not used: the rows are in usage_records, and %s shows them.", name, _ELSEWHERE["table_name"])
    url = database_url or named_by_environment()
    given = {ours: options[theirs] for theirs, ours in _SETTINGS.items() if options.get(theirs) is not None}
    assembly.extend(durability="async" if async_mode else "sync", **({"ledger_url": url} if url else {}), **given)
    get_tracker().default_metadata = dict(options.get("default_metadata") or {})


def patch_openai(*_: Any, **__: Any) -> None:
    """Watch the OpenAI SDK, every client of it."""
    use_environment()
    assembly.instrument("openai")


def patch_anthropic(*_: Any, **__: Any) -> None:
    """Watch the Anthropic SDK, every client of it."""
    use_environment()
    assembly.instrument("anthropic")


def patch_google(*_: Any, **__: Any) -> None:
    """Watch the Google GenAI SDK, every client of it."""
    use_environment()
    assembly.instrument("google_genai")


def unpatch_openai() -> None:
    """Stop watching the OpenAI SDK."""
    assembly.uninstrument("openai")


def unpatch_anthropic() -> None:
    """Stop watching the Anthropic SDK."""
    assembly.uninstrument("anthropic")


def unpatch_google() -> None:
    """Stop watching the Google GenAI SDK."""
    assembly.uninstrument("google_genai")
