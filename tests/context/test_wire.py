"""Attribution on the wire: nothing of it leaves with a request, whatever instruments the HTTP clients."""

import base64
import hashlib
import hmac
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "once"))

from environments import programs_of  # lies there

pytestmark = pytest.mark.timeout(900)  # the first one makes its environment
CALLING = Path(__file__).with_name("calling.py")
CANARIES = {
    "user_id": "canary-user-kx7qzé",
    "session_id": "canary-session-kx7qz é",
    "organization_id": "canary-organization/kx7qz",
    "feature": "canary-feature-kx7qz",
    "team": "canary-team-kx7qz",
    "project": "canary-project+kx7qz",
    "cost_center": "canary-cost-center-kx7qz",
    "message_id": "canary-message-kx7qz",
    "note": "canary-note-kx7qz",
}
SDKS = ("openai", "openai", "anthropic", "anthropic", "gcp.gemini", "gcp.gemini")
PLAIN = ("httpx", "httpx.async", "httpx2", "httpx2.async", "requests", "urllib3")
PATHS = {
    "/v1/chat/completions": 6,
    "/v1/messages": 4,
    "/v1/models/gemini-2.5-flash:generateContent": 2,
    "/v1/models/gemini-2.5-flash:streamGenerateContent": 2,
    **{f"/plain/{name}": 1 for name in PLAIN},
}
MODES = {"default": {}, "threads": {"SPANLEDGER_PROPAGATE": "threads", "SPANLEDGER_SPAN_ATTRIBUTES": "hash:user_id"}}


class Tap:
    """Stands before a server, and keeps every byte that is sent to it."""

    def __init__(self, port):
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.root = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    @property
    def sent(self):
        return b"\n".join(map(bytes, self.connections))

    @property
    def requests(self):
        """Of every request its path and its headers."""
        heads = re.findall(rb"(?:GET|POST) (\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", self.sent, re.DOTALL)
        return [
            (path.decode(), [tuple(line.lower().split(": ", 1)) for line in head.decode("latin-1").split("\r\n")])
            for path, head in heads
        ]

    def _accept(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # it is over
                return
            kept = bytearray()
            self.connections.append(kept)
            threading.Thread(target=self._pass_on, args=(client, kept), daemon=True).start()

    def _pass_on(self, client, kept):
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=self._copy, args=(server, client, bytearray()), daemon=True)
            back.start()
            self._copy(client, server, kept)
            back.join()

    @staticmethod
    def _copy(source, target, kept):
        with suppress(OSError):  # one side has gone
            while data := source.recv(65536):
                kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def disguises(text, key=b""):
    """What a value could be sent as."""
    plain = text.encode()
    yield from (plain, text.encode("latin-1"), quote(text).encode(), quote_plus(text).encode())
    yield json.dumps(text).strip('"').encode()
    yield plain.hex().encode()
    for shift in range(3):  # base64 of a text that holds it: without the characters it shares with its neighbours
        for altchars in (b"+/", b"-_"):
            whole = base64.b64encode(b"\0" * shift + plain, altchars)
            yield whole[4 if shift else 0 : -4]
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b", "sha3_256"):
        yield from digests(hashlib.new(name, plain).digest())
    for message in (plain, b"hash\0" + plain):
        yield from digests(hmac.digest(key, message, "sha256"))


def digests(digest):
    yield from (digest.hex()[:16].encode(), base64.b64encode(digest)[:16], base64.urlsafe_b64encode(digest)[:16])


def found_in(sent, key=b""):
    """The canaries in what was sent, in whatever disguise; even a part of one."""
    lowered = sent.lower()
    found = {name for name, text in CANARIES.items() for each in disguises(text, key) if each.lower() in lowered}
    return sorted(found | ({"a part of one"} if b"canary" in lowered or b"kx7qz" in lowered else set()))


def test_the_search_finds_a_canary_in_every_disguise():
    for name, text in CANARIES.items():
        for each in disguises(text, b"k"):
            assert name in found_in(b"x-header: " + each.upper() + b"\r\n", b"k")
        inside = base64.b64encode(json.dumps({"u": text}, ensure_ascii=False).encode())
        assert name in found_in(b"baggage: t=" + inside)
    assert found_in(b"POST /v1/chat/completions HTTP/1.1\r\nbaggage: shop=1\r\n\r\n", b"k") == []


@pytest.mark.parametrize(("environment", "mode"), [("wire", "default"), ("wire", "threads"), ("wire_older", "default")])
def test_no_key_value_or_hash_of_an_attribution_is_in_any_request(environment, mode, home, provider):
    programs = programs_of(environment)
    port = int(provider.root.rpartition(":")[2])
    with Tap(port) as tap:
        done = subprocess.run(
            [
                programs / "opentelemetry-instrument", programs / "python", CALLING, tap.root,
                *(f"{key}={value}" for key, value in CANARIES.items()),
            ],
            env={**os.environ, **MODES[mode]}, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = home / "signing.key"
    assert kept.exists() is (mode == "threads")  # where something is hashed
    assert found_in(tap.sent, kept.read_bytes() if kept.exists() else b"") == []

    # The instrumentors were at work, and what the application itself had put into baggage did leave.
    requests = tap.requests
    paths = Counter(path.partition("?")[0].replace("/v1beta/", "/v1/") for path, _ in requests)
    assert paths == PATHS
    for path, headers in requests:
        assert [len(value.split("-")) for name, value in headers if name == "traceparent"] == [4], path
        assert [name for name, _ in headers if "spanledger" in name] == []
    carried = Counter(tuple(value for name, value in headers if name == "baggage") for _, headers in requests)
    assert carried == {("shop=1",): len(requests) - 2, (): 2}  # OpenTelemetry's context reaches no other threads

    # And so was the attribution.
    own = tuple(value for key, value in CANARIES.items() if key != "note")
    theirs = (*own, '{"note":"canary-note-kx7qz"}', "scope")
    nobody = (None,) * len(theirs)
    everybody = [(name, *theirs) for name in (*SDKS, *SDKS)]
    in_thread = theirs if mode == "threads" else nobody
    assert rows_in(home) == [*everybody, ("openai", *theirs), ("openai", *in_thread)]


def rows_in(home):
    columns = ", ".join(["provider", *(key for key in CANARIES if key != "note"), "metadata", "attribution_source"])
    connection = sqlite3.connect(home / "ledger.db")
    try:
        return connection.execute(f"SELECT {columns} FROM usage_records ORDER BY started_at, record_id").fetchall()
    finally:
        connection.close()
