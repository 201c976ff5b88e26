"""Reads a YAML or JSON file so that amounts stay text or decimals, and every place knows its line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

_MOST_BYTES: Final = 32 * 2**20
_DEEPEST: Final = 20
_MOST_PLACES: Final = 200_000

Place = tuple[str | int, ...]


class PriceFileError(Exception):
    """A price file can't be used. The message names the file, the line where there is one, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Document:
    """A decoded file: its data, and the line of every place in it."""

    name: str
    data: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest place around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def where(self, place: Place) -> str:
        """The place for people."""
        return f"{self.name} line {self.line(place)}"


def read_document(path: Path) -> tuple[Document, bytes]:
    """The document in a file, and its bytes. Raises `PriceFileError`."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(f"{path.name} can't be read ({error})") from None
    if len(content) > _MOST_BYTES:
        raise PriceFileError(f"{path.name} is larger than {_MOST_BYTES >> 20} MiB")
    read = _json if path.suffix == ".json" else _yaml
    return read(path.name, text), content


def _json(name: str, text: str) -> Document:
    try:
        data = json.loads(text, parse_float=Decimal, parse_constant=str)
    except (ValueError, ArithmeticError, RecursionError) as error:  # a number may be beyond what there is
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise PriceFileError(f"{name} line {line}: this is no JSON ({error})") from None
    if isinstance(data, dict) and "version" not in data:
        return Document(name, data, {})  # somebody else's table, and a large one: nobody asks for its lines
    # JSON is YAML but for tabs, which stand between its tokens only.
    return Document(name, data, _yaml(name, text.replace("\t", " ")).lines)


def _yaml(name: str, text: str) -> Document:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        raise PriceFileError(f"{name} line {_line_of(error, text)}: this is no YAML ({_problem(error)})") from None
    lines: dict[Place, int] = {}
    return Document(name, None if node is None else _plain(name, node, (), lines), lines)


def _line_of(error: Exception, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return int(error.problem_mark.line) + 1
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1


def _problem(error: Exception) -> str:
    said = getattr(error, "problem", None) or getattr(error, "reason", None)
    return str(said) if said else f"{type(error).__name__}: too deep or out of range"


def _plain(name: str, node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    """The node as mappings, lists and texts: a number stays as it was written."""
    lines.setdefault(place, node.start_mark.line + 1)
    if len(place) > _DEEPEST or len(lines) > _MOST_PLACES:
        raise PriceFileError(f"{name} line {node.start_mark.line + 1}: this is nested too deep, or too much")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise PriceFileError(f"{name} line {line}: a key has to be a text")
            if key.value in found:
                raise PriceFileError(f"{name} line {line}: {key.value!r} stands there twice")
            lines[*place, key.value] = line
            found[key.value] = _plain(name, value, (*place, key.value), lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(name, each, (*place, number), lines) for number, each in enumerate(node.value)]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value
