"""Our own corrections to the price data, each with its source. `price_fixups=off` leaves them out.

Rows are (provider in genai-prices' spelling, prefix of the model, {price key: USD per million}).
"""

from __future__ import annotations

from typing import Final

FIXUPS: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    # genai-prices 0.2.3 knows fine-tunes of gpt-4o and gpt-4o-mini only. Rates: OpenAI's pricing page, fine-tuning,
    # the same in LiteLLM's table of November 2026.
    ("openai", "ft:gpt-4.1-mini-", {"input_mtok": "0.8", "cache_read_mtok": "0.2", "output_mtok": "3.2"}),
    ("openai", "ft:gpt-4.1-nano-", {"input_mtok": "0.2", "cache_read_mtok": "0.05", "output_mtok": "0.8"}),
    ("openai", "ft:gpt-4.1-2025-", {"input_mtok": "3", "cache_read_mtok": "0.75", "output_mtok": "12"}),
)
