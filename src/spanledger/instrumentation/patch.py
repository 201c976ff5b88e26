"""Put our wrapper around the methods of an SDK, and take it off again.

Patches go on when the SDK is imported, so instrumenting imports none.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wrapt

from spanledger import conventions
from spanledger.guard import failed, log
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.spec import Provider, Target
from spanledger.instrumentation.watching import Watcher, pass_response

_OFF: Final = "false"
_NUMBER: Final = re.compile(r"\d+")


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
        self._watcher = Watcher(provider, engine)
        self._places = (
            *((target.module, target.name, target) for target in provider.targets),
            *((module, name, None) for module, name in provider.responses_pass),
        )
        """Everything that is wrapped: module, name, and the target if it is one."""
        self.active = False
        self._hooked = False
        self._watched: dict[tuple[str, str], Watched] = {}
        """Our wrappers by module and name: the same ones go on again after they were taken off."""
        self._missed: set[tuple[str, str]] = set()
        self._switched: list[str] = []
        """Environment variables of the SDK's own tracing that we have set."""
        self._copied: list[tuple[Any, str, Any]] = []
        """Copies of methods that we have exchanged: class, name, and what was there."""

    def use(self, engine: Engine) -> None:
        """Tell another engine of the calls from now on."""
        self._engine = engine
        self._watcher.use(engine)

    def put_on(self) -> None:
        """Watch the SDK from now on, or from its import on."""
        self.active = True
        self._replace_own_tracing()
        if self._hooked:
            if self._provider.imports in sys.modules:
                self._imported(sys.modules[self._provider.imports])
            for module in dict.fromkeys(module for module, _, _ in self._places):
                if module in sys.modules:  # in the table's order: a class may be reached through several modules
                    self._patch(sys.modules[module], module)
            self._patch_copies()
            return
        self._hooked = True
        if self._provider.imports:
            wrapt.register_post_import_hook(self._imported, self._provider.imports)
        for module in dict.fromkeys(module for module, _, _ in self._places):
            wrapt.register_post_import_hook(partial(self._patch, name=module), module)
        self._patch_copies()

    def take_off(self) -> None:
        """Restore every method; one that somebody has wrapped after us becomes a pass-through."""
        self.active = False
        for name in self._switched:
            if os.environ.get(name) == _OFF:  # what the user has set since stays
                del os.environ[name]
        self._switched = []
        while self._copied:
            owner, name, original = self._copied.pop()
            setattr(owner, name, original)
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
        if not self.active:
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
        if not self.active:
            return
        for place, dotted, target in self._places:
            if place != name:
                continue
            try:
                owner, attribute, found = _find(place, dotted, module)
                if (
                    target is not None
                    and "<" in target.versions
                    and found is not None
                    and not self._should_have(target)
                ):
                    continue  # there, but in this version another method makes the request
                if owner is None or found is None:
                    if target is not None:
                        self._miss(target)
                    continue
                key = (place, dotted)
                if key in self._watched:
                    self._watched[key].switch(on=True)
                if _is_watched(found):
                    continue
                outer = _innermost(found)
                method = found if outer is None else outer.__wrapped__
                ours = self._watched.get(key)
                if ours is None or ours.__wrapped__ is not method:  # somebody may have put another one there since
                    ours = Watched(method, self._watcher.wrapper(target) if target else pass_response)
                    self._watched[key] = ours
                if outer is None:
                    setattr(owner, attribute, ours)
                else:
                    outer.__wrapped__ = ours
            except Exception as error:  # noqa: BLE001  # a door: an import must not fail because of us
                failed(f"all calls of {dotted}", error)

    def _patch_copies(self) -> None:
        """Watch the copies that were made of a method before it was watched. Never raises."""
        try:
            watched = {id(each.__wrapped__): each for each in self._watched.values()}
            modules = [sys.modules[name] for name in self._provider.copies if name in sys.modules]
            for owner in (each for module in modules for each in vars(module).values() if isinstance(each, type)):
                for name, method in list(vars(owner).items()):
                    if owner.__module__ in self._provider.copies and id(method) in watched:
                        self._copied.append((owner, name, method))
                        setattr(owner, name, watched[id(method)])
        except Exception as error:  # noqa: BLE001  # a door
            failed("calls of a copied method", error)

    def _replace_own_tracing(self) -> None:
        """Keep the SDK from making spans of its own, unless the user has asked for them."""
        switches = self._provider.own_tracing
        if switches and switches[0] not in os.environ:
            self._switched = [name for name in switches if name not in os.environ]
            os.environ.update(dict.fromkeys(self._switched, _OFF))


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


def _innermost(method: Any) -> Any:
    """The innermost of the wrappers that others have put around a method; ours goes inside it. `None` without one."""
    inner = None
    while isinstance(method, wrapt.FunctionWrapper):
        inner, method = method, method.__wrapped__
    return inner


def _find(module_name: str, dotted: str, module: Any = None) -> tuple[Any, str, Any]:
    """The owner of a method, the attribute's name, and what is there: without binding it."""
    owner = module or sys.modules.get(module_name)
    *path, name = dotted.split(".")
    for step in path:
        owner = getattr(owner, step, None)
    return owner, name, None if owner is None else vars(owner).get(name)
