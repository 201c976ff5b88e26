"""The sink `usage_api`: each record as one request per token type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from spanledger.export.formats.usage_api import PATH, bodies
from spanledger.export.sinks.http import Http
from spanledger.recording.sink import Row


class UsageApiSink:
    """Posts to a usage API, in order, at least once: the API has no way to recognise a repeated request.

    `headers` go with every request: the tenant, an authorization.
    """

    name = "usage_api"

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] = {},  # never written
        totals: bool = False,
        debug: bool = False,
    ) -> None:
        self._totals = totals
        self._http = Http(
            self.name,
            base_url.rstrip("/") + PATH,
            headers={"Content-Type": "application/json", **headers},
            debug=debug,
            credentials=bool(headers),
        )

    def parts(self, row: Row) -> Sequence[dict[str, str]]:
        """The bodies of one record, one per token type."""
        return list(bodies(row, totals=self._totals))

    def post(self, part: dict[str, str], key: str) -> None:
        """Send one of them. Raises `SinkError`."""
        self._http.post(json.dumps(part), {"Idempotency-Key": key})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
