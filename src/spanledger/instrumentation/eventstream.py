"""Amazon's event stream encoding (`application/vnd.amazon.eventstream`), as far as bytes pass that nobody has parsed.

A frame is: total length, headers' length, a checksum, the headers, the payload, a checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from spanledger.usage.paths import decoded

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_PRELUDE: Final = 12
_CHECKSUM: Final = 4


def take_frames(buffer: bytearray) -> Iterator[Any]:
    """Take the whole frames out of the buffer: their payloads, `None` for one that is no JSON document.

    Raises `ValueError` where there are no frames.
    """
    while len(buffer) >= _PRELUDE:
        total, headers = (int.from_bytes(buffer[start : start + 4], "big") for start in (0, 4))
        if total < _PRELUDE + headers + _CHECKSUM:
            raise ValueError("no event stream")
        if len(buffer) < total:
            return
        payload = bytes(buffer[_PRELUDE + headers : total - _CHECKSUM])
        del buffer[:total]
        yield decoded(payload)


def chunk_of(payload: Any) -> Any:
    """What the model itself has written, out of the payload of a `chunk`; `None` if there is nothing."""
    from base64 import b64decode  # noqa: PLC0415  # only who streams from Bedrock needs it

    if not isinstance(payload, dict) or not isinstance(payload.get("bytes"), str):
        return None
    try:
        return decoded(b64decode(payload["bytes"]))
    except ValueError:
        return None
