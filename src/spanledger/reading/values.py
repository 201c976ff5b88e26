"""What the attributes of a span say, by a dialect's names for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from spanledger.reading.dialect import Names
from spanledger.usage.paths import at_path

_LONGEST: Final = 1_000_000
"""Characters of a JSON text that is looked into."""
_LONGEST_LITERAL: Final = 4_000


class Values:
    """The attributes of one span. JSON texts are parsed once; a text that is none leads nowhere."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = dict(attributes)  # each look at a span's own costs a lock
        self._documents: dict[str, Any] = {}

    def first(self, names: Names) -> Any:
        """The first value that is there, `None` without one. The empty text is no value."""
        for name in names:
            value = self.attributes.get(name)
            if value is None and "#" in name:
                attribute, _, path = name.partition("#")
                value = self.attributes.get(attribute)
                if value is not None:
                    value = self._inside(attribute, value, path)
            if value is not None and value != "":
                return value
        return None

    def text(self, names: Names) -> str | None:
        """The first value, if it is a text."""
        value = self.first(names)
        return value if isinstance(value, str) else None

    def _inside(self, attribute: str, value: Any, path: str) -> Any:
        try:
            return at_path(self._document(attribute, value), path)
        except RecursionError:  # lists in lists, hundreds deep
            return None

    def _document(self, attribute: str, value: Any) -> Any:
        if attribute not in self._documents:
            self._documents[attribute] = _parsed(value)
        return self._documents[attribute]


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    # LangSmith and LiteLLM write what Python's `str` makes of a dict of numbers and words.
    if len(value) > _LONGEST_LITERAL or not value.startswith("{'"):
        return None
    try:
        return json.loads(_CONSTANT.sub(lambda found: _CONSTANTS[found[0]], value.replace("'", '"')))
    except (ValueError, RecursionError):
        return None


_CONSTANTS: Final = {"None": "null", "True": "true", "False": "false"}
_CONSTANT: Final = re.compile(r"\b(?:None|True|False)\b")
