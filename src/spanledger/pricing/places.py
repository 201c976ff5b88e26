"""Names of providers in price lists, and regions of servers."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

PROVIDER_IDS: Final = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "fireworks_ai": "fireworks",
    "together_ai": "together",
}
"""OpenTelemetry's provider name → genai-prices' provider id, where the two differ."""

_PRICED_AS_ASKED: Final = ("aws.bedrock",)
"""Providers whose own names for models say more of the price (region, profile) than what the model calls itself."""

_REGIONS: Final = (
    re.compile(r"(eu|us)\.api\.openai\.com"),
    re.compile(r"([a-z]+-[a-z]+\d+)-aiplatform\.googleapis\.com"),
    re.compile(r"aiplatform\.(eu|us)\.rep\.googleapis\.com"),
    re.compile(r"([a-z]+-[a-z]+-\d+)\.api\.x\.ai"),
)


def provider_id(name: str) -> str:
    """The provider's name as genai-prices spells it; its own spelling stays."""
    return PROVIDER_IDS.get(name, name)


def models_of(provider: str, *, answered: str | None, asked: str | None) -> tuple[str | None, str | None]:
    """The names of a call's model in the order in which a price is looked for."""
    return (asked, answered) if provider in _PRICED_AS_ASKED else (answered, asked)


@lru_cache(maxsize=1024)
def region_of(server: str) -> str | None:
    """The region a server's name promises to stay in, `None` where it promises none."""
    for pattern in _REGIONS:
        found = pattern.fullmatch(server)
        if found:
            return found[1]
    return None
