"""Names of providers: by the host that is asked, and by what others call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OPENAI_COMPATIBLE: Final = {
    "*.openai.com": "openai",
    "*.openai.azure.com": "azure.ai.openai",
    "*.cognitiveservices.azure.com": "azure.ai.openai",
    "*.services.ai.azure.com": "azure.ai.inference",
    "*.inference.ai.azure.com": "azure.ai.inference",
    "*.deepseek.com": "deepseek",
    "*.groq.com": "groq",
    "*.mistral.ai": "mistral_ai",
    "*.moonshot.ai": "moonshot_ai",
    "*.moonshot.cn": "moonshot_ai",
    "*.perplexity.ai": "perplexity",
    "*.x.ai": "x_ai",
    "*.cohere.com": "cohere",
    "*.cohere.ai": "cohere",
    "*.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "*.googleapis.com": "gcp.vertex_ai",
    "*.amazonaws.com": "aws.bedrock",
    "openrouter.ai": "openrouter",
    "*.together.xyz": "together",
    "*.together.ai": "together",
    "*.fireworks.ai": "fireworks",
    "*.cerebras.ai": "cerebras",
}
"""Host, or `*.` and the end of one → provider name."""

STATES_COST: Final = ("openrouter", "perplexity", "x_ai")
"""Providers among them whose answers state their cost."""

_SPELLED: Final = {
    "amazon_bedrock": "aws.bedrock",
    "anthropic": "anthropic",
    "aws": "aws.bedrock",
    "az.ai.inference": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "bedrock-runtime": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""What others call a provider → the name the GenAI conventions have for it."""


def provider_at(host: str | None, hosts: Mapping[str, str]) -> str | None:
    """The provider at a host by such a table, `None` where it has none."""
    for pattern, provider in hosts.items():
        if host == pattern.removeprefix("*.") or (pattern[:2] == "*." and str(host).endswith(pattern[1:])):
            return provider
    return None


def spelled(name: str) -> str:
    """A provider's name as the conventions spell it; one they have no word for as it is."""
    return _SPELLED.get(name.lower(), name)


def provider_named(word: str | None, host: str | None) -> str:
    """The provider that somebody calls `word`. Who only knows the SDK says `openai` for whatever speaks its API."""
    name = (word or "unknown").lower().partition("/")[0]  # LiteLLM: `openai/gpt-4o`
    name = _SPELLED.get(name, name)
    if name in ("openai", "unknown") and host:
        return provider_at(host, OPENAI_COMPATIBLE) or name
    return name
