"""The GenAI semantic conventions, today's names first and every older spelling after them."""

from __future__ import annotations

from typing import Final

from spanledger import conventions

OPERATIONS: Final = frozenset({"chat", "generate_content", "text_completion", "embeddings"})
"""Operations that are billed. Agents, workflows and tools carry sums of these, `fetch_response` repeats one."""

FIELDS: Final = {
    "operation": (conventions.OPERATION,),
    "provider": (conventions.PROVIDER, "gen_ai.system"),
    "request_model": (conventions.REQUEST_MODEL,),
    "response_model": (conventions.RESPONSE_MODEL,),
    "response_id": (conventions.RESPONSE_ID,),
    "server_address": (conventions.SERVER_ADDRESS,),
    "conversation_id": (conventions.CONVERSATION_ID,),
    "service_tier": (conventions.OPENAI_RESPONSE_SERVICE_TIER, "gen_ai.openai.response.service_tier"),
    "error_type": (conventions.ERROR_TYPE,),
}
USAGE: Final = {
    **{name: (attribute,) for name, attribute in conventions.USAGE.items()},
    "input_tokens": (conventions.INPUT_TOKENS, "gen_ai.usage.prompt_tokens"),
    "output_tokens": (conventions.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens"),
    "cache_write_tokens": (conventions.CACHE_WRITE_TOKENS, conventions.CACHE_CREATION_TOKENS),
    "reasoning_tokens": (conventions.REASONING_TOKENS, "gen_ai.usage.reasoning_tokens"),
}
