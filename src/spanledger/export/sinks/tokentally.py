"""The sink `tokentally`: each record as one request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import requests

from spanledger.export.formats.tokentally import PATH, body
from spanledger.export.sinks.http import Http
from spanledger.recording.sink import Row

_MOST_ANSWERS: Final = 256
answers: Final[dict[str, dict[str, Any]]] = {}
"""Record id → what TokenTally has answered, for those who wait for it. The oldest go."""


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
        _keep(key.rpartition("-")[0], answer)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _keep(record_id: str, answer: requests.Response) -> None:
    try:
        told = answer.json()
    except ValueError:
        told = {}
    while len(answers) >= _MOST_ANSWERS:
        answers.pop(next(iter(answers)), None)
    answers[record_id] = told if isinstance(told, dict) else {}
