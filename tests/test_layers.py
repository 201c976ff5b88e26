"""Imports point one way."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "spanledger"
LAYERS = [
    "version",
    "guard",
    "homes",
    "conventions",
    "model",
    "attributes",
    "settings",
    "service",
    "usage",
    "pricing",
    "context",
    "recording",
    "instrumentation",
    "reading",
    "manual",
    "export",
    "ledger",
    "testing",
    "assembly",
    "api",
    "cli",
    "compat",
]
SIBLINGS = {"instrumentation": "reading", "reading": "instrumentation", "testing": "ledger"}
FILES = sorted(file for file in SOURCE.rglob("*.py") if file != SOURCE / "__init__.py")


def room_of(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def rooms_imported(file):
    """Rooms a file imports, imports inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("spanledger"):
            names = (
                [node.module] if node.module != "spanledger" else [f"spanledger.{alias.name}" for alias in node.names]
            )
            found.update(name.split(".")[1] for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("spanledger."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_room_imports_only_what_stands_before_it(file):
    room = room_of(file)
    assert room in LAYERS, f"{room} has no place in the house yet"
    assert rooms_imported(file) <= set(LAYERS[: LAYERS.index(room) + 1]) - {SIBLINGS.get(room)}


@pytest.mark.parametrize("file", sorted((SOURCE / "instrumentation" / "providers").glob("*.py")), ids=lambda f: f.stem)
def test_a_provider_file_is_a_table(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda))]


def test_no_module_is_named_like_a_public_function():
    import spanledger

    modules = {file.stem for file in SOURCE.iterdir()} | {file.name for file in SOURCE.iterdir()}
    assert not modules & set(spanledger.__all__)
