"""Anthropic's wire format, on its own paths, on Microsoft Foundry's and on Vertex AI's.

Sources: the response types of anthropic 2.12 that each module names, the recorded traffic of OpenInference's tests,
and `anthropic.lib.vertex` and `anthropic.lib.foundry` of anthropic 2.12 for the paths. The error body is
`ErrorResponse`, its types those of `anthropic.types.shared` and of the "Errors" page of Anthropic's documentation.
"""

from __future__ import annotations

from typing import Any, Final

from spanledger.testing.loopback import anthropic_batches, anthropic_messages
from spanledger.testing.loopback.exchange import Route

_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
ROUTES: Final[tuple[Route, ...]] = (*anthropic_batches.ROUTES, *anthropic_messages.ROUTES)


def error(status: int) -> dict[str, Any]:
    """The body of an HTTP error."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": "as asked"}, "request_id": "req_loopback"}
