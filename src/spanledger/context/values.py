"""What a key may hold: clean text of bounded length. What had to be changed for that is counted."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any, Final

MOST_METADATA: Final = 16
"""Keys in `metadata`."""
MOST_BYTES: Final = 256
"""Of a value or a metadata key, in UTF-8."""
_CUT: Final = "…"

trimmed: Final[Counter[str]] = Counter()
"""What became of values that are too many or too long, since the process began: `hashed`, `cut`, `dropped`."""


def identifier(value: Any) -> str | None:
    """An identifier as clean text, `None` for an empty one. One that is too long becomes `sha256:` and its digest:
    cut, two could become one."""  # noqa: D205, D209
    text = clean(_text(value))
    if len(text) * 4 > MOST_BYTES and len(encoded := text.encode()) > MOST_BYTES:
        from hashlib import sha256  # noqa: PLC0415  # loads OpenSSL

        trimmed["hashed"] += 1
        return f"sha256:{sha256(encoded).hexdigest()}"
    return text or None


def metadata_with(held: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`held` with the given keys over it, at most `MOST_METADATA` of them."""
    metadata = dict(held)
    for name, value in given.items():
        key = cut(clean(_text(name)))
        if key in metadata or len(metadata) < MOST_METADATA:
            metadata[key] = plain_value(value)
        else:
            trimmed["dropped"] += 1
    return metadata


def plain_value(value: Any) -> str | int | float | bool:
    """A metadata value: numbers and booleans as they are, everything else as clean text, cut with a mark."""
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN, which JSON has no word for
        return value
    return cut(clean(_text(value)))


def cut(text: str) -> str:
    """Text of at most `MOST_BYTES` in UTF-8; where something is missing it ends with `…`."""
    if len(text) * 4 <= MOST_BYTES or len(encoded := text.encode()) <= MOST_BYTES:
        return text
    trimmed["cut"] += 1
    return encoded[: MOST_BYTES - len(_CUT.encode())].decode(errors="ignore") + _CUT


def clean(text: str) -> str:
    """Text without control characters and lone surrogates, which databases and logs choke on."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if kind == "Cs" else character
        for character in text
        if (kind := unicodedata.category(character)) != "Cc"
    )


def _text(value: Any) -> str:
    """A value as text; one that has none is called by its type."""
    try:
        return value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001  # an int of thousands of digits, lists in lists, a __str__ of the application's
        return f"<{type(value).__name__}>"
