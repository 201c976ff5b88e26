"""Hosts that speak OpenAI's API, and the provider name the GenAI conventions have for them."""

from __future__ import annotations

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
