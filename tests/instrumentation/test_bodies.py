"""However the application reads the body of a model on Bedrock, its counts are read once, when all of it was."""

import json

import boto3
import pytest
from botocore.response import StreamingBody

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
ASKED = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hello"}],
    "loopback": {"metrics": None},  # no counts in the headers
}


def by_attribute(body):
    with body as raw:
        return b"".join(iter(lambda: raw.read(amt=20), b""))


def into_a_buffer(body):
    found, buffer = b"", bytearray(32)
    while count := body.readinto(buffer):
        found += bytes(buffer[:count])
    return found


READS = {
    "at once": lambda body: body.read(),
    "nothing first": lambda body: body.read(0) + body.read(),
    "in pieces": lambda body: b"".join(iter(lambda: body.read(20), b"")),
    "in pieces by name": lambda body: b"".join(iter(lambda: body.read(amt=20), b"")),
    "the stream inside, by name": by_attribute,
    "chunks": lambda body: b"".join(body.iter_chunks(16)),
    "iterated": b"".join,
    "lines": lambda body: b"".join(body.iter_lines()),
    "read lines": lambda body: b"".join(body.readlines()),
    **({"into a buffer": into_a_buffer} if hasattr(StreamingBody, "readinto") else {}),  # from 1.36 on
    "as a file": lambda body: json.dumps(json.load(body)).encode(),
}


@pytest.fixture
def bedrock(recording, provider):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", endpoint_url=provider.root, **keys)
    yield client
    client.close()


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_body_may_be_read_in_any_way(bedrock, ledger, read):
    body = bedrock.invoke_model(modelId=CLAUDE, body=json.dumps(ASKED))["body"]
    told = json.loads(read(body))["usage"]
    (row,) = ledger("status", "usage_status", "input_tokens", "output_tokens", "raw_usage")
    assert row[:4] == ("success", "reported", told["input_tokens"], told["output_tokens"])
    assert json.loads(row[4])["input_tokens"] == told["input_tokens"]
