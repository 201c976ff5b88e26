"""The sink `usage_api`: each record as one request per token type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests

from spanledger.export.formats.usage_api import PATH, bodies
from spanledger.guard import log
from spanledger.recording.sink import Row, SinkError

_TIMEOUT: Final = 10.0
_PERMANENT: Final = frozenset({400, 404, 405, 410, 413, 415, 422})
_REMEMBERED: Final = 1000


class UsageApiSink:
    """Delivers to a usage API, in order, at least once: the API has no way to recognise a repeated request.

    What was accepted of a record before a failure is remembered while the process lives, so a retry sends the rest.
    """

    name = "usage_api"

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str] = {}, session: Any = None, debug: bool = False
    ) -> None:  # never written
        self._url = base_url.rstrip("/") + PATH
        self._headers = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        self._session = session
        self._debug = debug
        self._accepted: dict[str, int] = {}

    def send(self, rows: Sequence[Row]) -> None:
        """Deliver the rows. Raises `SinkError`."""
        for taken, row in enumerate(rows):
            record_id = row["record_id"]
            for part, body in enumerate(bodies(row)):
                if part < self._accepted.get(record_id, 0):
                    continue
                self._post(body, f"{record_id}-{part}", taken)
                if len(self._accepted) >= _REMEMBERED:
                    self._accepted.clear()
                self._accepted[record_id] = part + 1
            self._accepted.pop(record_id, None)

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _post(self, body: dict[str, str], key: str, taken: int) -> None:
        if self._session is None:
            self._session = requests.Session()
        if self._debug:
            log.info("usage_api: POST %s %s", self._url, json.dumps(body))
        try:
            answer = self._session.post(
                self._url,
                data=json.dumps(body),
                headers={**self._headers, "Idempotency-Key": key},
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise SinkError(type(error).__name__, taken=taken) from error
        status = answer.status_code
        if status // 100 == 2:
            return
        if status // 100 == 3:
            raise SinkError(f"HTTP {status}: a redirect is not followed; correct the address", taken=taken)
        raise SinkError(
            f"HTTP {status}",
            permanent=status in _PERMANENT,
            retry_after=seconds(answer.headers.get("Retry-After")),
            taken=taken,
        )


def seconds(retry_after: str | None) -> float | None:
    """The `Retry-After` header in seconds; a date is counted from now."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
