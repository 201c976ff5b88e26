"""Put our wrapper around the methods of an SDK, and take it off again.

Patches go on when the SDK is imported, so instrumenting imports none. A wrapper stands outside the caller's `try`:
nothing of ours runs between the application and an exception of its SDK.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import wrapt

from spanledger.context.scope import current
from spanledger.guard import failed, log
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.raw import watch_raw
from spanledger.instrumentation.server import Server, server_of
from spanledger.instrumentation.spec import Provider, Target
from spanledger.instrumentation.stream import watch_parsed
from spanledger.model import Attribution

_RAW_HEADER: Final = "X-Stainless-Raw-Response"
_MOST_CLIENTS: Final = 256

_calling: ContextVar[tuple[Any, Call] | None] = ContextVar("spanledger.calling", default=None)
"""The client that is in the middle of a watched call, and the call."""


if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[Any, Any]
else:
    _FunctionWrapper = wrapt.FunctionWrapper  # 1.17 takes no type arguments


class Watched(_FunctionWrapper):
    """A method of an SDK under our watch. Switched off, it passes everything through."""

    def __init__(self, wrapped: Any, wrapper: Any) -> None:
        super().__init__(wrapped, wrapper, enabled=self._is_on)
        self._self_on = True

    def switch(self, *, on: bool) -> None:
        """Watch, or pass through."""
        self._self_on = on

    def _is_on(self) -> bool:
        return bool(self._self_on)


@dataclass(frozen=True, slots=True)
class Bound:
    """What became of a target: `watched`, `absent` (not in this version, and that is fine) or `missing`."""

    target: Target
    state: str


class Patches:
    """The patches of one provider."""

    def __init__(self, provider: Provider, engine: Engine) -> None:
        self._provider = provider
        self._engine = engine
        self._places = (
            *((target.module, target.name, target) for target in provider.targets),
            *((module, name, None) for module, name in provider.responses_pass),
        )
        """Everything that is wrapped: module, name, and the target if it is one."""
        self._active = False
        self._hooked = False
        self._watched: dict[tuple[str, str], Watched] = {}
        """Our wrappers by module and name: the same ones go on again after they were taken off."""
        self._servers: dict[int, tuple[Any, Server]] = {}
        self._said = False

    def use(self, engine: Engine) -> None:
        """Tell another engine of the calls from now on."""
        self._engine = engine
        self._said = False

    def put_on(self) -> None:
        """Watch the SDK from now on, or from its import on."""
        self._active = True
        if self._hooked:
            if self._provider.package in sys.modules:
                self._warm(None)
            for module in dict.fromkeys(module for module, _, _ in self._places):
                if module in sys.modules:  # in the table's order: a class may be reached through several modules
                    self._patch(sys.modules[module], module)
            return
        self._hooked = True
        wrapt.register_post_import_hook(self._warm, self._provider.package)
        for module in dict.fromkeys(module for module, _, _ in self._places):
            wrapt.register_post_import_hook(partial(self._patch, name=module), module)

    def take_off(self) -> None:
        """Restore every method; one that somebody has wrapped after us becomes a pass-through."""
        self._active = False
        for module, dotted, _ in self._places:
            owner, name, found = _find(module, dotted)
            ours = self._watched.get((module, dotted))
            if ours is not None:
                ours.switch(on=False)  # clients keep the methods they have bound once
            if isinstance(found, Watched):
                setattr(owner, name, found.__wrapped__)

    def look(self) -> list[Bound]:
        """What is watched, after importing the SDK."""
        states = []
        for target in self._provider.targets:
            with contextlib.suppress(ImportError):
                importlib.import_module(target.module)
            _, _, found = _find(target.module, target.name)
            if isinstance(found, Watched):
                states.append(Bound(target, "watched"))
            else:
                states.append(Bound(target, "absent" if found is None and target.optional else "missing"))
        return states

    def _warm(self, _: Any) -> None:
        if self._active:
            self._engine.prices.warm()

    def _patch(self, module: Any, name: str) -> None:
        """Wrap what this module has. Never raises."""
        if not self._active:
            return
        for place, dotted, target in self._places:
            if place != name:
                continue
            try:
                owner, attribute, found = _find(place, dotted, module)
                if owner is None or found is None:
                    continue
                key = (place, dotted)
                if key in self._watched:
                    self._watched[key].switch(on=True)
                if _is_watched(found):
                    continue
                ours = self._watched.setdefault(
                    key, Watched(found, self._wrapper(target) if target else _pass_response)
                )
                setattr(owner, attribute, ours)
            except Exception as error:  # noqa: BLE001  # a door: an import must not fail because of us
                failed(f"all calls of {dotted}", error)

    def _wrapper(self, target: Target) -> Callable[..., Any]:
        plan = Plan(target.endpoint)

        async def call_async(wrapped: Any, instance: Any, args: Any, kwargs: Any, owner: Attribution) -> Any:
            call, kwargs = self._begin(plan, instance, kwargs, owner)
            if call is None:
                return await wrapped(*args, **kwargs)
            try:
                result = await wrapped(*args, **kwargs)
            except BaseException as error:
                call.returned()
                call.failed(error)
                raise
            call.returned()
            self._follow(call, result, kwargs)
            return result

        def watch_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            return call_async(wrapped, instance, args, kwargs, current())

        def watch(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            call, kwargs = self._begin(plan, instance, kwargs, current())
            if call is None:
                return wrapped(*args, **kwargs)
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                call.returned()
                call.failed(error)
                raise
            call.returned()
            self._follow(call, result, kwargs)
            return result

        return watch_async if target.asynchronous else watch

    def _begin(
        self, plan: Plan, instance: Any, kwargs: dict[str, Any], owner: Attribution
    ) -> tuple[Call | None, dict[str, Any]]:
        """Open the call. `None` on a mistake of ours: the SDK is called all the same. Never raises."""
        try:
            client = getattr(instance, self._provider.client_at, None)
            outer = _calling.get()
            if client is not None and outer is not None and outer[0] is client:
                return None, kwargs  # a method of the SDK that calls another one: one call, already watched
            server = self._server(client)
            request = kwargs
            if plan.endpoint.stream_usage and kwargs.get("stream") is True:
                request = self._ask_for_usage(server, client, kwargs)
            call = Call(self._engine, plan, server, request, owner)
            call.hides_usage = request is not kwargs
            # Last, for it must not stay behind: while the mark stands, this client's calls are taken for this one.
            call.leave = partial(_calling.reset, _calling.set((client, call)))
        except Exception as error:  # noqa: BLE001  # a door
            failed("a call", error)
            return None, kwargs
        return call, request

    def _follow(self, call: Call, result: Any, kwargs: Mapping[str, Any]) -> None:
        """Sort out the shapes an answer has: raw, streamed, whole. Never raises."""
        try:
            stream = kwargs.get("stream") is True
            if _is_raw(kwargs):
                if watch_raw(call, getattr(result, "http_response", None), stream=stream):
                    return
            elif stream and watch_parsed(call, result):
                return
        except Exception as error:  # noqa: BLE001  # a door
            failed("the usage of a call", error)
            call.give_up()
            return
        call.succeeded(result)

    def _server(self, client: Any) -> Server:
        url = getattr(client, self._provider.base_url_at, None)
        known = self._servers.get(id(url))
        if known is not None and known[0] is url:
            return known[1]
        server = server_of(self._provider, type(client).__mro__ if client is not None else (), url)
        if len(self._servers) >= _MOST_CLIENTS:
            self._servers.clear()
        self._servers[id(url)] = (url, server)  # holding the URL keeps its id its own
        return server

    def _ask_for_usage(self, server: Server, client: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        policy = self._engine.stream_usage
        options = kwargs.get("stream_options")
        options = options if isinstance(options, Mapping) else {}
        if policy == "never" or "include_usage" in options or _is_raw(kwargs):
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


def _pass_response(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """An HTTP response goes by: this client's call under way keeps its headers, which may state a cost."""
    outer = _calling.get()
    if outer is not None and outer[0] is instance:
        outer[1].headers = getattr(kwargs.get("response"), "headers", None)
    return wrapped(*args, **kwargs)


def _is_raw(kwargs: Mapping[str, Any]) -> bool:
    """Whether the answer is handed over unparsed: `with_raw_response` and `with_streaming_response` say so so."""
    headers = kwargs.get("extra_headers")
    return isinstance(headers, Mapping) and _RAW_HEADER in headers


def _is_watched(method: Any) -> bool:
    """Whether our wrapper is somewhere among those around the method."""
    while method is not None and not isinstance(method, Watched):
        method = getattr(method, "__wrapped__", None)
    return method is not None


def _find(module_name: str, dotted: str, module: Any = None) -> tuple[Any, str, Any]:
    """The owner of a method, the attribute's name, and what is there: without binding it."""
    owner = module or sys.modules.get(module_name)
    *path, name = dotted.split(".")
    for step in path:
        owner = getattr(owner, step, None)
    return owner, name, None if owner is None else vars(owner).get(name)
