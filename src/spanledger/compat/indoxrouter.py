"""IndoxRouter's client over spanledger: its programs run with only their import line changed.

Calls go to the model's own SDK, with that SDK's key; what they use is in the ledger, and `get_usage` reads it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from spanledger import api, assembly
from spanledger.manual.block import Block
from spanledger.manual.response import CostBreakdown, ResponseUsage
from spanledger.model import Usage
from spanledger.pricing.hosts import provider_named

_MOST_TOKENS: Final = 4096
"""Anthropic answers no request that names no bound."""
Messages = Sequence[Mapping[str, Any]]


class IndoxRouterError(Exception):
    """A call that can't be routed."""


class ProviderNotFoundError(IndoxRouterError):
    """There is no such provider here, or its SDK is not installed."""


@dataclass(frozen=True, slots=True)
class CostView:
    """What a call cost, in USD. The parts sum to `total_cost`; all are 0.0 where there is no price."""

    prompt_cost: float = 0.0
    completion_cost: float = 0.0
    cache_read_cost: float = 0.0
    cache_write_cost: float = 0.0
    reasoning_cost: float = 0.0
    web_search_cost: float = 0.0
    other_cost: float = 0.0
    total_cost: float = 0.0


@dataclass(frozen=True, slots=True)
class UsageView:
    """What a call used. What the provider did not say is 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    web_search_count: int = 0
    request_count: int = 1
    cost_breakdown: CostView = field(default_factory=CostView)
    cost_status: str = "unpriced"
    """`priced`, `partial`, `free`, or `unpriced`: then the costs are 0.0 because nobody knows them."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    provider: str
    model: str
    data: str
    """The text of it."""
    usage: UsageView
    finish_reason: str | None
    raw_response: Any
    """What the SDK has answered."""

    def __getitem__(self, name: str) -> Any:
        """A field by its name, for programs that take answers for mappings. Raises `KeyError`."""
        if name not in {each.name for each in fields(self)}:
            raise KeyError(name)
        return getattr(self, name)


class IndoxRouter:
    """`api_key` is not sent to anybody: each SDK has a key of its own, from its own environment variable."""

    def __init__(self, api_key: str | None = None, base_url: str | None = None, timeout: float | None = None) -> None:
        self.api_key = api_key
        self.base_url = base_url
        self.timeout = timeout
        assembly.extend()

    def chat_completions(self, provider: str, model: str, messages: Messages, **options: Any) -> Response:
        """The answer of a model, with its usage. `options` are the SDK's own.

        Raises `ProviderNotFoundError`, `IndoxRouterError` for a stream, and what the SDK raises.
        """
        name = provider_named(provider, None)
        ask = _ROUTES.get(name)
        if ask is None:
            raise ProviderNotFoundError(f"there is no provider {provider!r}; there are openai, anthropic, google")
        if options.get("stream"):
            raise IndoxRouterError("answers come whole here; for a stream ask the SDK itself, which is counted too")
        options = {**options, **({} if self.timeout is None else {"timeout": self.timeout})}
        with api.track_usage(provider=name, model=model) as call:
            answer, text, reason = _asked(ask, provider, model, messages, options)
            view = _told(call, answer, name, model, reason)
        return Response(provider, model, text, view, reason, answer)

    def chat(self, messages: Messages, model: str, **options: Any) -> Response:
        """The same for a model named `provider/model`."""
        provider, _, name = model.partition("/")
        return self.chat_completions(provider, name, messages, **options)

    def get_usage(self, start_date: Any = None, end_date: Any = None, **where: Any) -> dict[str, Any]:
        """The statistics of the ledger: see `spanledger.get_usage`."""
        return api.get_usage(start_date, end_date, **where)


Ask = Callable[[str, Messages, Mapping[str, Any]], tuple[Any, str, str | None]]


def _told(call: Block, answer: Any, provider: str, model: str, reason: str | None) -> UsageView:
    """What an answer has used, reported; of one that does not say, nothing. Never raises: it has been paid for."""
    try:
        used = api.usage_of(answer, provider=provider, model=model)
    except TypeError:
        return UsageView()
    counts = {each.name: getattr(used.usage, each.name) for each in fields(Usage) if each.name != "usage_status"}
    call.set_usage(**counts, response_model=used.model, finish_reasons=reason)
    return _view(used)


def _asked(
    ask: Ask, provider: str, model: str, messages: Messages, options: Mapping[str, Any]
) -> tuple[Any, str, str | None]:
    try:
        return ask(model, messages, options)
    except ModuleNotFoundError as error:
        raise ProviderNotFoundError(f"the SDK of {provider} is not installed ({error.name})") from error


def _openai(model: str, messages: Messages, options: Mapping[str, Any]) -> tuple[Any, str, str | None]:
    import openai  # noqa: PLC0415  # whichever is installed

    with openai.OpenAI() as client:
        answer: Any = client.chat.completions.create(model=model, messages=list(messages), **options)  # type: ignore[arg-type]
    choice = answer.choices[0] if answer.choices else None
    return answer, (choice and choice.message.content) or "", choice and choice.finish_reason


def _anthropic(model: str, messages: Messages, options: Mapping[str, Any]) -> tuple[Any, str, str | None]:
    import anthropic  # noqa: PLC0415  # as above

    system = "\n".join(str(each["content"]) for each in messages if each["role"] == "system")
    given = {"max_tokens": _MOST_TOKENS, **({"system": system} if system else {}), **options}
    with anthropic.Anthropic() as client:
        spoken: Any = [dict(each) for each in messages if each["role"] != "system"]
        answer: Any = client.messages.create(model=model, messages=spoken, **given)
    text = "".join(getattr(block, "text", "") for block in answer.content)
    return answer, text, answer.stop_reason


def _google(model: str, messages: Messages, options: Mapping[str, Any]) -> tuple[Any, str, str | None]:
    from google import genai  # noqa: PLC0415  # as above

    roles = {"assistant": "model"}
    system = "\n".join(str(each["content"]) for each in messages if each["role"] == "system")
    spoken: Any = [
        {"role": roles.get(each["role"], "user"), "parts": [{"text": str(each["content"])}]}
        for each in messages
        if each["role"] != "system"
    ]
    config: Any = {key: value for key, value in options.items() if key != "timeout"}
    if system:
        config["system_instruction"] = system
    client = genai.Client()  # dropped, it closes its connections
    answer: Any = client.models.generate_content(model=model, contents=spoken, config=config or None)
    reason = answer.candidates[0].finish_reason if answer.candidates else None
    return answer, answer.text or "", None if reason is None else str(getattr(reason, "value", reason))


_ROUTES: Final[dict[str, Ask]] = {"openai": _openai, "anthropic": _anthropic, "gcp.gemini": _google}


def _view(used: ResponseUsage) -> UsageView:
    counts = {
        name: getattr(used, name) or 0
        for name in (each.name for each in fields(UsageView))
        if name not in ("cost_breakdown", "cost_status")
    }
    costs = {name: float(getattr(used.cost_breakdown, name) or 0) for name in CostBreakdown._fields}
    return UsageView(**counts, cost_breakdown=CostView(**costs), cost_status=used.cost_status)
