"""TokenTally's client over spanledger: its programs run with only their import line changed.

What is tracked is in the ledger first, and on its way to TokenTally then: an outage there loses nothing. To make a
client is to have all calls that are recorded in this process sent to its account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from spanledger import api, assembly
from spanledger.export.sinks.tokentally import answers
from spanledger.guard import log
from spanledger.manual.block import Block
from spanledger.model import UsageRecord
from spanledger.pricing.hosts import provider_named

_KEY: Final = "tt_"
_CLAUDE: Final = "claude"


class TokenTallyError(Exception):
    """What was tracked has not reached TokenTally. It is in the ledger; it is sent again unless it was refused."""


class RateLimitError(TokenTallyError):
    """TokenTally takes no more for the moment."""


class AuthenticationError(TokenTallyError):
    """TokenTally does not know the key."""


_ERRORS: Final = {"HTTP 401": AuthenticationError, "HTTP 403": AuthenticationError, "HTTP 429": RateLimitError}


@dataclass(frozen=True, slots=True)
class TrackResponse:
    """What became of a report."""

    success: bool
    record_id: str
    cost_usd: float
    """In USD: TokenTally's figure where it has answered with one, else ours; NaN where there is no price."""


class TokenTally:
    """A client for one account. One account per process: another client's key takes the place of the first one's.

    `api_key` begins with `tt_`, or `ValueError`. `timeout` in seconds.
    """

    def __init__(self, api_key: str, base_url: str = "https://api.tokentally.io", timeout: float = 30.0) -> None:
        if not isinstance(api_key, str) or not api_key.startswith(_KEY):
            raise ValueError(f"an API key of TokenTally begins with {_KEY!r}")
        self.timeout = timeout
        self._settings = {"tokentally_api_key": api_key, "tokentally_base_url": base_url}
        self._use()

    def _use(self) -> None:
        """See to it that records go to this account, also after everything was shut down."""
        assembly.extend(sinks=("tokentally",), **self._settings)
        api.expect_reports()

    def track(
        self,
        tokens_in: int = 0,
        tokens_out: int = 0,
        model: str = "",
        provider: str | None = None,
        cost_usd: Any = None,
        **more: Any,
    ) -> TrackResponse:
        """Record a call and wait for TokenTally to take it.

        `more` is what `set_usage` takes besides. Raises `RateLimitError`, `AuthenticationError`, `TokenTallyError`
        where TokenTally does not take it in time; the call is recorded, and is sent again.
        """
        if not api.has_sink("tokentally"):
            self._use()
        provider = _provider(model, provider)
        said = {**_said(provider, tokens_in, tokens_out, cost_usd, **more), "model": model, "provider": provider}
        seen = api.describe(said)
        record = seen or api.track(**said)
        api.deliver("tokentally", self.timeout)
        answer = answers.pop(record.record_id)
        trouble = api.trouble("tokentally")
        taken = answer is not None or (seen is not None and trouble is None)
        if not taken and api.has_sink("tokentally"):
            never = api.refused("tokentally", record.record_id)
            if never:
                raise TokenTallyError(f"TokenTally refuses the record for good ({never}); it is in the ledger")
            reason = trouble or f"no answer within {self.timeout:g} s"
            kind = next((error for start, error in _ERRORS.items() if reason.startswith(start)), TokenTallyError)
            raise kind(f"TokenTally has not taken the record ({reason}); it is kept and sent again")
        return _response(record, answer)

    def track_usage(
        self, model: str, provider: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> TrackedCall:
        """A block in which a model is called; it is timed. What is said in it is sent when it has ended."""
        provider = _provider(model, provider)
        return TrackedCall(api.track_usage(model=model, provider=provider, **_labelled(metadata)), provider)

    def close(self) -> None:
        """Send what is left. Never raises."""
        assembly.flush(self.timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TrackedCall:
    """A call in a block. Nothing of it replaces the result or the exception of the block."""

    def __init__(self, block: Block, provider: str) -> None:
        self._block = block
        self._provider = provider
        self.response: TrackResponse | None = None
        """What was recorded, once the block has ended; whether it has arrived is not waited for."""

    def set_usage(self, tokens_in: int = 0, tokens_out: int = 0, cost_usd: Any = None, **more: Any) -> None:
        """What the call used: `stop_reason`, `cache_read_input_tokens`, … Never raises."""
        try:
            self._block.set_usage(**_said(self._provider, tokens_in, tokens_out, cost_usd, **more))
        except (TypeError, ValueError) as error:
            log.warning("What was said of a call is not kept (%s); the call itself is.", error)

    def __enter__(self) -> Self:
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.__exit__(kind, error, trace)
        if self._block.record is not None:
            self.response = _response(self._block.record, None)


def _said(provider: str, tokens_in: Any, tokens_out: Any, cost_usd: Any, **more: Any) -> dict[str, Any]:
    """What TokenTally's names say, by ours. Anthropic's input does not include what was read from a cache."""
    said: dict[str, Any] = _labelled(more.pop("metadata", None))
    said.update({ours: each for theirs, ours in _NAMES.items() if (each := more.pop(theirs, None)) is not None})
    if more.pop("error_message", None) is not None:
        said["status"] = "error"
    unknown = sorted(more.keys() - _IMAGES)
    if unknown:
        raise TypeError(f"there is no {', '.join(unknown)}; there are {', '.join(sorted((*_NAMES, *_IMAGES)))}")
    rest = {name: value for name, value in more.items() if value is not None}
    if rest:
        said["metadata"] = {**(said.get("metadata") or {}), **rest}
    whole = tokens_in
    if provider == "anthropic" and isinstance(tokens_in, int):
        cached = (said.get(name, 0) for name in ("cache_read_tokens", "cache_write_tokens"))
        whole += sum(each for each in cached if isinstance(each, int))
    return {**said, "input_tokens": whole, "output_tokens": tokens_out, "cost_usd": cost_usd}


def _labelled(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata, those of its keys apart that say whose a call is. The feature has two names."""
    rest = dict(metadata) if isinstance(metadata, Mapping) else {}
    said: dict[str, Any] = {name: rest.pop(name) for name in _WHOSE if name in rest}
    if "feature_name" in rest:
        said.setdefault("feature", rest["feature_name"])
    return {**said, "metadata": rest} if rest else said


_WHOSE: Final = (
    "user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center", "message_id",
)  # fmt: skip
_NAMES: Final = {
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "runtime_ms": "duration_ms",
    "stop_reason": "finish_reasons",
}
"""TokenTally's name → ours."""
_IMAGES: Final = frozenset({"credits", "resolution", "quality"})
"""What it has of pictures, kept as metadata."""


def _provider(model: str, provider: str | None) -> str:
    """Whose model it is. Without a word TokenTally takes it for Anthropic's; so do we, where its name says that."""
    if provider is None:
        return "anthropic" if str(model).startswith(_CLAUDE) else "unknown"
    return provider_named(provider, None)


def _response(record: UsageRecord, answer: Mapping[str, Any] | None) -> TrackResponse:
    theirs = (answer or {}).get("cost_usd")
    ours = math.nan if record.cost_usd is None else float(record.cost_usd)
    cost = float(theirs) if isinstance(theirs, (int, float)) and not isinstance(theirs, bool) else ours
    told = (answer or {}).get("record_id")
    return TrackResponse(True, told if isinstance(told, str) else record.record_id, cost)
