"""One table per SDK."""

from __future__ import annotations

from typing import Final

from spanledger.instrumentation.providers.openai import OPENAI
from spanledger.instrumentation.spec import Provider

PROVIDERS: Final[dict[str, Provider]] = {provider.package: provider for provider in (OPENAI,)}
