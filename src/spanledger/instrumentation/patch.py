"""Put our wrapper around the methods of an SDK, and take it off again.

Patches go on when the SDK is imported, so instrumenting imports none. A wrapper stands outside the caller's `try`:
nothing of ours runs between the application and an exception of its SDK.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wrapt

from spanledger import conventions
from spanledger.context.scope import current
from spanledger.guard import failed, log
from spanledger.instrumentation.batch import Batches
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.following import FOLLOW, Follow, is_raw
from spanledger.instrumentation.opening import watch_request
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.server import Server, server_of
from spanledger.instrumentation.spec import Announcement, Batch, Endpoint, Provider, Target
from spanledger.model import Attribution
from spanledger.usage.paths import at_path

_MOST_CLIENTS: Final = 256
_NUMBER: Final = re.compile(r"\d+")

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
        self._servers: dict[tuple[int, tuple[bool, ...]], tuple[Any, Server]] = {}
        self._said = False
        self._batches = Batches()
        self._missed: set[tuple[str, str]] = set()
        self._switched: list[str] = []
        """Environment variables of the SDK's own tracing that we have set."""

    def use(self, engine: Engine) -> None:
        """Tell another engine of the calls from now on."""
        self._engine = engine
        self._said = False

    def put_on(self) -> None:
        """Watch the SDK from now on, or from its import on."""
        self._active = True
        self._replace_own_tracing()
        if self._hooked:
            if self._provider.imports in sys.modules:
                self._imported(sys.modules[self._provider.imports])
            for module in dict.fromkeys(module for module, _, _ in self._places):
                if module in sys.modules:  # in the table's order: a class may be reached through several modules
                    self._patch(sys.modules[module], module)
            return
        self._hooked = True
        if self._provider.imports:
            wrapt.register_post_import_hook(self._imported, self._provider.imports)
        for module in dict.fromkeys(module for module, _, _ in self._places):
            wrapt.register_post_import_hook(partial(self._patch, name=module), module)

    def take_off(self) -> None:
        """Restore every method; one that somebody has wrapped after us becomes a pass-through."""
        self._active = False
        while self._switched:
            os.environ.pop(self._switched.pop(), None)
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
                states.append(Bound(target, "missing" if self._should_have(target) else "absent"))
        return states

    def _should_have(self, target: Target) -> bool:
        """Whether the installed version of the SDK is one that has the method."""
        package = target.module.split(".")[0] if target.package else self._provider.imports
        installed = getattr(sys.modules.get(package), "__version__", None)
        if installed is None:
            # Only needed where a package does not say it itself, or is not there.
            from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

            try:
                installed = version(target.package or self._provider.package)
            except PackageNotFoundError:
                return False
        return admits(target.versions, installed)

    def _imported(self, package: Any) -> None:
        """The SDK has been imported, though not all of its modules. Never raises."""
        if not self._active:
            return
        try:
            self._engine.prices.warm()
            roots = [Path(each) for each in getattr(package, "__path__", ())]
            modules = {target.module for target in self._provider.targets}
            gone = {module for module in modules if roots and not self._is_there(module, roots)}
            for target in self._provider.targets:
                if target.module in gone:
                    self._miss(target)
        except Exception as error:  # noqa: BLE001  # a door: an import must not fail because of us
            failed("the look at an SDK", error)

    def _is_there(self, module: str, roots: list[Path]) -> bool:
        """Whether a module is on disk; looking costs less than an import."""
        inside = module.removeprefix(f"{self._provider.imports}.").split(".")
        paths = [root.joinpath(*inside) for root in roots]
        return any(
            path.with_suffix(".py").exists() or path.is_dir() or any(path.parent.glob(f"{path.name}.*"))
            for path in paths
        )

    def _miss(self, target: Target) -> None:
        """A method is not there: said and counted, unless this version of the SDK never had it."""
        if (target.module, target.name) not in self._missed:
            self._missed.add((target.module, target.name))
            if self._should_have(target):
                self._engine.later(partial(self._say_missing, target))

    def _say_missing(self, target: Target) -> None:
        method = f"{target.module}.{target.name}"
        self._engine.telemetry.missing.add(1, {conventions.METHOD: method})
        log.warning(
            "%s is not there in the installed %s, so its calls are not recorded. Supported: %s%s.",
            method,
            target.package or self._provider.package,
            self._provider.package,
            self._provider.requires,
        )

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
                    if target is not None:
                        self._miss(target)
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
        if isinstance(target.endpoint, (Batch, Announcement)):
            return self._onlooker(target.endpoint, asynchronous=target.asynchronous)
        plans = target.endpoint
        plan = Plan(plans) if isinstance(plans, Endpoint) else {name: Plan(each) for name, each in plans.items()}
        follow = FOLLOW[self._provider.answers]

        async def call_async(wrapped: Any, instance: Any, args: Any, kwargs: Any, owner: Attribution) -> Any:
            call, kwargs = self._begin(plan, instance, args, kwargs, owner)
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
            call, kwargs = self._begin(plan, instance, args, kwargs, current())
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
        self, plan: Plan | Mapping[str, Plan], instance: Any, args: Any, kwargs: dict[str, Any], owner: Attribution
    ) -> tuple[Call | None, dict[str, Any]]:
        """Open the call. `None` where there is none, or on a mistake of ours: the SDK is called all the same.

        Never raises.
        """
        try:
            request: Mapping[str, Any] = kwargs
            if not isinstance(plan, Plan):
                found = plan.get(args[0]) if args else None
                if found is None:
                    return None, kwargs
                request = args[1]
                plan = found.of(request)
            client = at_path(instance, self._provider.client_at)
            outer = _calling.get()
            if client is not None and outer is not None and outer[0] is client:
                return None, kwargs  # a method of the SDK that calls another one: one call, already watched
            server = self._server(client)
            asked = kwargs
            if plan.endpoint.stream_usage and kwargs.get("stream") is True:
                asked = self._ask_for_usage(server, client, kwargs)
            call = Call(self._engine, plan, server, request, owner, silent=self._traces_itself(client))
            call.hides_usage = asked is not kwargs
            # Last, for it must not stay behind: while the mark stands, this client's calls are taken for this one.
            call.leave = partial(_calling.reset, _calling.set((client, call)))
        except Exception as error:  # noqa: BLE001  # a door
            failed("a call", error)
            return None, kwargs
        return call, asked

    def _traces_itself(self, client: Any) -> bool:
        path = self._provider.traces_itself_at
        return bool(path) and at_path(client, path) is True

    def _replace_own_tracing(self) -> None:
        """Keep the SDK from making spans of its own, unless the user has asked for them."""
        switches = self._provider.own_tracing
        if switches and switches[0] not in os.environ:
            self._switched = [name for name in switches if name not in os.environ]
            os.environ.update(dict.fromkeys(self._switched, "false"))

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


def _pass_response(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """An HTTP response goes by: this client's call under way keeps it: its headers may state a cost."""
    outer = _calling.get()
    if outer is not None and outer[0] is instance:
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


def admits(versions: str, installed: str) -> bool:
    """Whether a version is among those of a table, as `>=1.40,<1.92`; all are if it is empty."""
    found = _release(installed)
    return all(bound.startswith(">=") == (found >= _release(bound)) for bound in filter(None, versions.split(",")))


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _NUMBER.findall(version)[:3])


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
