"""What the examples of usage objects share."""

import json

import pytest

from spanledger.model import Usage
from spanledger.usage.paths import plain
from spanledger.usage.shape import Reader
from spanledger.usage.shapes import SHAPES, read_again

READERS = {name: Reader(shape) for name, shape in SHAPES.items()}


def used(status="reported", *, other=None, **counts):
    """`input=3` is `input_tokens=3`; searches are counted as they are."""
    fields = {name if name == "web_searches" else f"{name}_tokens": count for name, count in counts.items()}
    return Usage(usage_status=status, other_usage=other, **fields)


def numbered(cases):
    """Cases of (shape, usage as the API sends it, what it means) as parameters."""
    found = [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(cases)]
    return pytest.mark.parametrize(("shape", "raw", "usage"), found)


def reads(shape, raw, usage):
    """The usage means that: as it is sent, and as it is read again from what is stored of it."""
    assert READERS[shape].usage(raw) == usage
    stored = json.loads(json.dumps(plain(raw), allow_nan=False))
    known = used(input=999_999, output=1)
    if usage.usage_status == "missing" or not isinstance(stored, dict):
        assert read_again(shape, stored, known) is known
    else:
        assert read_again(shape, stored, known) == usage
