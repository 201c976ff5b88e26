"""Rows in the pages of a damaged outbox file, read without the tree that leads to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_PAGE: Final = 4096
_LEAF: Final = 0x0D
_MOST_HERE: Final = _PAGE - 35
_LEAST_HERE: Final = (_PAGE - 12) * 32 // 255 - 23
_WIDTHS: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of a value by its type in the file format, where that is below 10."""


def rows_in(content: bytes) -> Iterator[tuple[int, list[Any]]]:
    """`rowid, values` of whatever looks like a row; integers and text only. What is no row is passed over."""
    for start in range(_PAGE, len(content) - _PAGE + 1, _PAGE):
        if content[start] == _LEAF:
            for cell in range(int.from_bytes(content[start + 3 : start + 5], "big")):
                at = int.from_bytes(content[start + 8 + 2 * cell : start + 10 + 2 * cell], "big")
                try:
                    yield _row(content, start, at)
                except (IndexError, ValueError):
                    continue


def _row(content: bytes, start: int, at: int) -> tuple[int, list[Any]]:
    length, at = _number(content, start + at)
    rowid, at = _number(content, at)
    if length > len(content):
        raise ValueError("it is longer than the file")
    here = length
    if length > _MOST_HERE:
        here = _LEAST_HERE + (length - _LEAST_HERE) % (_PAGE - 4)
        here = here if here <= _MOST_HERE else _LEAST_HERE
    payload = content[at : at + here]
    while len(payload) < length:
        at = (int.from_bytes(content[at + here : at + here + 4], "big") - 1) * _PAGE
        if at < _PAGE or at + _PAGE > len(content):
            raise ValueError("it goes on nowhere")
        payload += content[at + 4 : at + _PAGE]
        here = 0
    return rowid, list(_values(payload[:length]))


def _values(payload: bytes) -> Iterator[Any]:
    end, at = _number(payload, 0)
    body = end
    while at < end:
        kind, at = _number(payload, at)
        width = (kind - 12) // 2 if kind >= 12 else _WIDTHS[kind]
        value = payload[body : body + width]
        body += width
        if kind >= 13 and kind % 2:
            yield value.decode("utf-8", "surrogatepass")
        elif kind in (8, 9):
            yield kind - 8
        else:
            yield int.from_bytes(value, "big", signed=True) if 0 < kind <= 6 else None


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and where it ends."""
    value = 0
    for count in range(8):
        byte = content[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | content[at + 8], at + 9
