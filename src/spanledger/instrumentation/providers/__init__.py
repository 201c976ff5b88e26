"""One table per SDK."""

from __future__ import annotations

from typing import Final

from spanledger.instrumentation.providers.anthropic import ANTHROPIC
from spanledger.instrumentation.providers.bedrock import BEDROCK
from spanledger.instrumentation.providers.google_genai import GOOGLE_GENAI
from spanledger.instrumentation.providers.openai import OPENAI
from spanledger.instrumentation.spec import Provider

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "google_genai": GOOGLE_GENAI,
    "bedrock": BEDROCK,
}
"""The name of its switch (`spanledger_…`) → an SDK's table."""
