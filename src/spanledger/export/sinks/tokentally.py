"""The sink `tokentally`: each record as one request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from spanledger.export.formats.tokentally import PATH, body
from spanledger.export.sinks.http import Http
from spanledger.recording.sink import Row


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
        self._http.post(json.dumps(part), {"Idempotency-Key": key})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
