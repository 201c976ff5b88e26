"""The documents of the systems that spanledger replaces, as programs: their blocks, run with other import lines.

The documents are read where they are: in the directory SPANLEDGER_SEEDS, else in `../shared/seeds` beside the project.
Beside each stands an equivalent of our own, with as many blocks that do the same in the same order, which is always
there.
"""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import ROOT

HERE = Path(__file__).parent / "equivalents"
WHERE = Path(os.environ.get("SPANLEDGER_SEEDS") or ROOT.parent / "shared" / "seeds")
"""Read at import: every test takes our settings out of its environment."""
NUMBERS = {
    "lexia_quick": "000", "lexia_guide": "001", "indoxrouter": "002", "tokentally": "003", "tokenledger": "004",
}  # fmt: skip
_COMPAT = "spanledger.compat"
_IMPORTS = (
    (r"^from (lexia|indoxrouter|tokentally|tokenledger)((?:\.\w+)*) import", rf"from {_COMPAT}.\1\2 import"),
    (r"^import tokenledger$", f"import {_COMPAT}.tokenledger as tokenledger"),
)
"""All that is changed of a block, but for what its document leaves to whoever reads it."""


def path_of(name):
    """Where a document is, `None` where it is not."""
    return next(iter(sorted(WHERE.glob(f"{NUMBERS[name]}_*.txt"))), None)


def every(name):
    """A test for each text of a document: our equivalent, and the document where there is one."""
    found = [pytest.param(HERE / f"{name}.md", id="equivalent")]
    if path_of(name) is not None:
        found.append(pytest.param(path_of(name), id="document"))
    return pytest.mark.parametrize("text", found)


def blocks(path, language="python"):
    """The blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def statements(path):
    """The SQL statements of a text, in order, each as it stands there."""
    return [each.strip() for block in blocks(path, "sql") for each in re.findall(r"[^;]+;", block)]


class Program:
    """Blocks of one text in one namespace.

    `names` are those that the text takes for granted; `filled` are pairs of a pattern and what a reader would put
    there: addresses, the database, the body of an example.
    """

    def __init__(self, path, names=(), filled=()):
        self.path, self.filled = path, filled
        self.namespace = {"__name__": "program", **dict(names)}

    def run(self, *numbers):
        """Run blocks, one after the other; the namespace."""
        for number in numbers:
            source = blocks(self.path)[number]
            for pattern, said in (*_IMPORTS, *self.filled):
                source = re.sub(pattern, said, source, flags=re.MULTILINE)
            exec(compile(source, f"{self.path.name}:{number}", "exec"), self.namespace)
        return SimpleNamespace(**self.namespace)


def billed(truth):
    """What a provider says of each call: input with what was read from and written to a cache, and output."""
    return [_counts(each["usage"]) for each in truth]


def _counts(usage):
    if "prompt_tokens" in usage:
        return usage["prompt_tokens"], usage.get("completion_tokens", 0)
    if "promptTokenCount" in usage:
        taken = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
        return taken, usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
    cached = usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    return usage["input_tokens"] + cached, usage["output_tokens"]
