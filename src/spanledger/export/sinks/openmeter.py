"""The sink `openmeter`: a batch of records as a batch of CloudEvents."""

from __future__ import annotations

import json
from collections.abc import Sequence

from spanledger.export.formats.openmeter import CONTENT_TYPE, PATH, event
from spanledger.export.sinks.http import Http
from spanledger.recording.sink import Row, SinkError


class OpenMeterSink:
    """Posts to OpenMeter. It takes an event once per `id` and `source` where its deduplication is switched on."""

    name = "openmeter"

    def __init__(self, base_url: str, api_key: str | None, *, debug: bool = False) -> None:
        headers = {"Content-Type": CONTENT_TYPE}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = Http(
            self.name, base_url.rstrip("/") + PATH, headers=headers, debug=debug, credentials=bool(api_key)
        )

    def send(self, rows: Sequence[Row]) -> None:
        """Send the rows in one request. Raises `SinkError`."""
        try:
            events = json.dumps([event(row) for row in rows], allow_nan=False)
        except (KeyError, TypeError, ValueError) as error:
            raise SinkError(f"{type(error).__name__}: a row can't be told as an event", permanent=True) from error
        self._http.post(events, {})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
