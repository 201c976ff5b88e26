"""One table per way to spell a model call on a span."""

from __future__ import annotations

import re
from typing import Final

from spanledger.reading.dialect import Dialect, fits
from spanledger.reading.dialects.anthropic_native import ANTHROPIC_NATIVE
from spanledger.reading.dialects.langfuse import LANGFUSE
from spanledger.reading.dialects.langsmith import LANGSMITH
from spanledger.reading.dialects.litellm import LITELLM
from spanledger.reading.dialects.logfire import LOGFIRE
from spanledger.reading.dialects.openinference import OPENINFERENCE
from spanledger.reading.dialects.openlit import OPENLIT, OPENLIT_OLD
from spanledger.reading.dialects.openllmetry import OPENLLMETRY, OPENLLMETRY_ANTHROPIC
from spanledger.reading.dialects.pydantic_ai import PYDANTIC_AI
from spanledger.reading.dialects.semconv import BEDROCK, SEMCONV

DIALECTS: Final[tuple[Dialect, ...]] = (
    ANTHROPIC_NATIVE, BEDROCK, OPENLLMETRY, OPENLLMETRY_ANTHROPIC, OPENLIT, OPENLIT_OLD, OPENINFERENCE, LOGFIRE,
    LANGFUSE, PYDANTIC_AI, LITELLM, LANGSMITH, SEMCONV,
)  # fmt: skip
"""Where several marks are on one span, the first of these wins."""

MARKS: Final = {mark: dialect for dialect in reversed(DIALECTS) for mark in dialect.marks}
"""Attribute that only a model span has → its dialect."""

_BEGINS: Final = [name for dialect in DIALECTS for name in (*dialect.named, *dialect.begins)]
NAMED: Final = re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in dict.fromkeys(_BEGINS)), re.DOTALL)
"""Names of model spans that say nothing else of themselves when they begin."""


def dialect_of(scope: str) -> Dialect | None:
    """The dialect of an instrumentation scope, `None` for one that nobody we know has."""
    found = [(len(pattern), dialect) for dialect in DIALECTS for pattern in dialect.scopes if fits(pattern, scope)]
    return max(found, key=lambda each: each[0])[1] if found else None
