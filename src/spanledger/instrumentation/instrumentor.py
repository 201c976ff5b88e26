"""Switch providers on and off."""

from __future__ import annotations

from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.patch import Bound, Patches
from spanledger.instrumentation.providers import PROVIDERS


class Instrumentation:
    """The patches of all providers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patches: dict[str, Patches] = {}

    def use(self, engine: Engine) -> None:
        """Tell another engine of the calls from now on."""
        self._engine = engine
        for patches in self._patches.values():
            patches.use(engine)

    def put_on(self, *names: str) -> None:
        """Watch these providers, all of them without a name. Raises `ValueError` for a name that is none."""
        for name in names or PROVIDERS:
            if name not in PROVIDERS:
                raise ValueError(f"spanledger has no provider {name!r}; it has {', '.join(PROVIDERS)}")
            patches = self._patches.get(name)
            if patches is None:
                patches = self._patches[name] = Patches(PROVIDERS[name], self._engine)
            patches.put_on()

    def take_off(self, *names: str) -> None:
        """Stop watching these providers, all of them without a name."""
        for name in names or tuple(self._patches):
            if name in self._patches:
                self._patches[name].take_off()

    @property
    def watched(self) -> tuple[str, ...]:
        """The providers that are being watched."""
        return tuple(name for name, patches in self._patches.items() if patches.active)

    def look(self, name: str) -> list[Bound]:
        """What is watched of a provider, after importing its SDK."""
        self.put_on(name)
        return self._patches[name].look()
