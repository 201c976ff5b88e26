"""What our wrapper around a method does: open the call, let the SDK work, follow its answer.

A wrapper stands outside the caller's `try`: nothing of ours runs between the application and an exception of its SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from spanledger.context.scope import current, merge
from spanledger.guard import failed, log
from spanledger.instrumentation.batch import Batches
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.following import FOLLOW, Follow, is_raw
from spanledger.instrumentation.opening import watch_request
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.server import Server, server_of
from spanledger.instrumentation.spec import Announcement, Batch, Endpoint, Provider, Target
from spanledger.instrumentation.tracers import traced_by
from spanledger.model import Attribution
from spanledger.usage.paths import at_path, text

_MOST_CLIENTS: Final = 256

_calling: ContextVar[tuple[Any, Call] | None] = ContextVar("spanledger.calling", default=None)
"""The client that is in the middle of a watched call, and the call."""


def call_here() -> Call | None:
    """The call under way here."""
    outer = _calling.get()
    return None if outer is None or not outer[1].active else outer[1]


def _named_in(request: Mapping[str, Any], paths: str, owner: Attribution) -> Attribution:
    """`owner` with the user that a request names, if it does."""
    for path in paths.split("|"):
        found = text(at_path(request, path))
        if found:
            return merge(owner, {"user_id": found})._replace(attribution_source="request")
    return owner


class Watcher:
    """Makes the wrappers of one provider's methods."""

    def __init__(self, provider: Provider, engine: Engine) -> None:
        self._provider = provider
        self._engine = engine
        self._servers: dict[tuple[int, tuple[bool, ...]], tuple[Any, Server]] = {}
        self._batches = Batches()
        self._said = False

    def use(self, engine: Engine) -> None:
        """Tell another engine of the calls from now on."""
        self._engine = engine
        self._said = False

    def wrapper(self, target: Target) -> Callable[..., Any]:
        """What goes around a method: takes the method, its instance and arguments, gives its result."""
        if isinstance(target.endpoint, (Batch, Announcement)):
            return self._onlooker(target.endpoint, asynchronous=target.asynchronous)
        plans = target.endpoint
        plan = Plan(plans) if isinstance(plans, Endpoint) else {name: Plan(each) for name, each in plans.items()}
        follow = FOLLOW[self._provider.answers]

        async def call_async(wrapped: Any, instance: Any, args: Any, kwargs: Any, owner: Attribution) -> Any:
            call, kwargs = self._begin(target, plan, instance, args, kwargs, owner)
            if call is None:
                return await wrapped(*args, **kwargs)
            try:
                result = await wrapped(*args, **kwargs)
            except BaseException as error:
                call.returned()
                call.failed(error)
                raise
            call.returned()
            return _followed(follow, call, result, kwargs)

        def watch_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            return call_async(wrapped, instance, args, kwargs, current())

        def watch(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            call, kwargs = self._begin(target, plan, instance, args, kwargs, current())
            if call is None:
                return wrapped(*args, **kwargs)
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                call.returned()
                call.failed(error)
                raise
            call.returned()
            return _followed(follow, call, result, kwargs)

        def watch_opening(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            manager = wrapped(*args, **kwargs)
            watch_request(manager, target.opens, watch_async if target.asynchronous else watch, instance, kwargs)
            return manager

        if target.opens:
            return watch_opening
        return watch_async if target.asynchronous else watch

    def _onlooker(self, endpoint: Batch | Announcement, *, asynchronous: bool) -> Callable[..., Any]:
        """For methods that are no call to a model: what they return is looked at."""

        def looked_at(result: Any, instance: Any, args: Any, kwargs: Any, owner: Attribution) -> Any:
            try:
                if isinstance(endpoint, Announcement):
                    self._batches.announced(at_path(result, endpoint.id), at_path(result, endpoint.created_at))
                    return result
                server = self._server(at_path(instance, self._provider.client_at))
                batch_id = kwargs.get(endpoint.batch_id, args[0] if args else None) if endpoint.batch_id else None
                reading = self._batches.reading(endpoint, self._engine, server, owner, batch_id)
            except Exception as error:  # noqa: BLE001  # a door
                failed("the results of a batch", error)
                return result
            return reading.follow(result)

        async def look_async(wrapped: Any, instance: Any, args: Any, kwargs: Any, owner: Attribution) -> Any:
            return looked_at(await wrapped(*args, **kwargs), instance, args, kwargs, owner)

        def watch_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            return look_async(wrapped, instance, args, kwargs, current())

        def watch(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            return looked_at(wrapped(*args, **kwargs), instance, args, kwargs, current())

        return watch_async if asynchronous else watch

    def _begin(
        self,
        target: Target,
        plan: Plan | Mapping[str, Plan],
        instance: Any,
        args: Any,
        kwargs: dict[str, Any],
        owner: Attribution,
    ) -> tuple[Call | None, dict[str, Any]]:
        """Open the call. `None` where there is none, or on a mistake of ours: the SDK is called all the same.

        Never raises.
        """
        try:
            self._engine.notice()
            request: Mapping[str, Any] = kwargs
            if not isinstance(plan, Plan):
                found = plan.get(args[0]) if args else None
                if found is None:
                    return None, kwargs
                request = args[1]
                plan = found.of(request)
            client = at_path(instance, self._provider.client_at)
            outer = _calling.get()
            if client is not None and outer is not None and outer[0] is client and outer[1].repeats(request):
                return None, kwargs  # a method of the SDK that calls another one: one call, already watched
            server = self._server(client)
            asked = kwargs
            if plan.endpoint.stream_usage and kwargs.get("stream") is True:
                asked = self._ask_for_usage(server, client, kwargs)
            if self._engine.request_user and plan.endpoint.user and owner.user_id is None:
                owner = _named_in(request, plan.endpoint.user, owner)
            call = Call(self._engine, plan, server, request, owner, silent=self._traced_elsewhere(client, target))
            call.hides_usage = asked is not kwargs
            call.is_traced_inside = call.silent and target.name not in self._provider.traced_after
            # Last, for it must not stay behind: while the mark stands, this client's calls are taken for this one.
            call.leave = partial(_calling.reset, _calling.set((client, call)))
        except Exception as error:  # noqa: BLE001  # a door
            failed("a call", error)
            return None, kwargs
        return call, asked

    def _traced_elsewhere(self, client: Any, target: Target) -> bool:
        """Whether somebody else is known to make a span of this call that we can't write onto while it lasts."""
        provider = self._provider
        if provider.traces_itself_at and at_path(client, provider.traces_itself_at) is True:
            return True
        if self._engine.others is None or not self._engine.shares_spans:
            return False
        for name, modules in provider.traced_inside.items():
            if traced_by(getattr(type(client), name, None), modules):
                return self._server(client).provider not in self._engine.unplaced
        after = provider.traced_after.get(target.name)
        if after is None:
            return False
        kind, _, name = target.name.partition(".")
        owner = getattr(sys.modules.get(target.module), kind, None)
        return owner is not None and traced_by(vars(owner).get(name), after)

    def _server(self, client: Any) -> Server:
        url = at_path(client, self._provider.base_url_at)
        flags = tuple(bool(at_path(client, flag)) for flag in self._provider.told_by)
        known = self._servers.get((id(url), flags))
        if known is not None and known[0] is url:
            return known[1]
        server = server_of(self._provider, client, url)
        if len(self._servers) >= _MOST_CLIENTS:
            self._servers.clear()
        self._servers[(id(url), flags)] = (url, server)  # holding the URL keeps its id its own
        return server

    def _ask_for_usage(self, server: Server, client: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        policy = self._engine.stream_usage
        options = kwargs.get("stream_options")
        options = options if isinstance(options, Mapping) else {}
        if policy == "never" or "include_usage" in options or is_raw(kwargs):
            return kwargs
        if policy == "auto" and not self._accepts_usage(server, client):
            return kwargs
        if not self._said:
            self._said = True
            log.info("Streams of %s are asked for their usage; the application sees no difference.", server.provider)
        return {**kwargs, "stream_options": {**options, "include_usage": True}}

    def _accepts_usage(self, server: Server, client: Any) -> bool:
        if not server.known or server.provider not in self._provider.asks_usage_of:
            return False
        since = self._provider.asks_usage_from.get(server.provider)
        return since is None or str(getattr(client, since[0], "")) >= since[1]


def pass_response(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """An HTTP response goes by: this client's call under way keeps it: its headers may state a cost."""
    outer = _calling.get()
    if outer is not None and outer[0] is instance and outer[1].active:
        call, retries = outer[1], kwargs.get("retries_taken")
        call.response = kwargs.get("response")
        call.attempts = retries + 1 if isinstance(retries, int) else None
    return wrapped(*args, **kwargs)


def _followed(follow: Follow, call: Call, result: Any, request: Mapping[str, Any]) -> Any:
    """The answer under our watch. Never raises."""
    try:
        return follow(call, result, request)
    except Exception as error:  # noqa: BLE001  # a door
        failed("the usage of a call", error)
        call.give_up()
        return result
