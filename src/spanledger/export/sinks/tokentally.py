"""The sink `tokentally`: each record as one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any, Final

import requests

from spanledger.export.formats.tokentally import PATH, body
from spanledger.export.sinks.http import Http
from spanledger.recording.sink import Row

_MOST_ANSWERS: Final = 256


class Answers:
    """What TokenTally has answered, for those who wait for it, by record id. The oldest go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, Any]] = {}

    def keep(self, record_id: str, answer: requests.Response) -> None:
        """Keep an answer; what is no JSON object is an empty one. Never raises."""
        try:
            told = answer.json()
        except Exception:  # noqa: BLE001  # the request was accepted, whatever it says
            told = {}
        with self._lock:
            while len(self._kept) >= _MOST_ANSWERS:
                del self._kept[next(iter(self._kept))]
            self._kept[record_id] = told if isinstance(told, dict) else {}

    def pop(self, record_id: str) -> dict[str, Any] | None:
        """The answer to a record, once."""
        with self._lock:
            return self._kept.pop(record_id, None)


answers: Final = Answers()


class TokenTallySink:
    """Posts to TokenTally, in order, at least once: its API has no way to recognise a repeated request."""

    name = "tokentally"

    def __init__(self, base_url: str, api_key: str, *, debug: bool = False) -> None:
        headers = {"Content-Type": "application/json", "X-API-Key": api_key}
        self._http = Http(self.name, base_url.rstrip("/") + PATH, headers=headers, debug=debug, credentials=True)

    def parts(self, row: Row) -> Sequence[dict[str, Any]]:
        """The one body of a record."""
        return [body(row)]

    def post(self, part: dict[str, Any], key: str) -> None:
        """Send it. Raises `SinkError`."""
        answer = self._http.post(json.dumps(part), {"Idempotency-Key": key})
        answers.keep(key.rpartition("-")[0], answer)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
