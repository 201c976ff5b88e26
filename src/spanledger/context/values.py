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
"""What became of values that could not be taken as they were, since the process began: `hashed`, `cut`, `dropped`,
`textless`, `failed` (the function that says whose a request is), `ambiguous` (a header with several), `refused` (it is
not signed with our key)."""


def identifier(value: Any) -> str | None:
    """An identifier as clean text, `None` for an empty one and for one that has no text.

    One that is too long becomes `sha256:` and its digest: cut, two could become one.
    """
    text = value if isinstance(value, str) else _text(value)
    if not text:
        return None
    if len(text) * 4 <= MOST_BYTES and text.isascii() and text.isprintable():
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > MOST_BYTES:
        from hashlib import sha256  # noqa: PLC0415  # loads OpenSSL

        trimmed["hashed"] += 1
        return f"sha256:{sha256(encoded).hexdigest()}"
    return clean(text) or None


def metadata_with(held: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`held` with the given keys over it, at most `MOST_METADATA` of them."""
    metadata = dict(held)
    for name, value in given.items():
        key = _cut(_text(name) or "?")
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
    text = _text(value)
    return f"<{type(value).__name__}>" if text is None else _cut(text)


def _cut(text: str) -> str:
    """Clean text of at most `MOST_BYTES` in UTF-8; where something is missing it ends with `…`."""
    encoded = clean(text[: MOST_BYTES + 1]).encode()
    if len(text) <= MOST_BYTES and len(encoded) <= MOST_BYTES:
        return encoded.decode()
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


def _text(value: Any) -> str | None:
    """A value as text, `None` where it has none."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except Exception:  # noqa: BLE001  # an int of thousands of digits, lists in lists, a __str__ of the application's
        trimmed["textless"] += 1
        return None
