"""OpenAI's wire format: everything of it that costs money, at any prefix, so Azure's paths work too.

Sources: the response types of openai 3.54 that each module names, OpenAI's published API specification (OpenAPI) and
the recorded traffic of OpenInference's tests. The error body is `Error` and `ErrorResponse` of the specification.
"""

from __future__ import annotations

from typing import Any, Final

from spanledger.testing.loopback import openai_audio, openai_batches, openai_images, openai_responses, openai_text
from spanledger.testing.loopback.exchange import Route

ROUTES: Final[tuple[Route, ...]] = (
    *openai_responses.ROUTES,
    *openai_images.ROUTES,
    *openai_audio.ROUTES,
    *openai_batches.ROUTES,
    *openai_text.ROUTES,
)


def error(status: int) -> dict[str, Any]:
    """The body of an HTTP error."""
    kind = "invalid_request_error" if status == 404 else "loopback"
    return {"error": {"message": "as asked", "type": kind, "param": None, "code": "as_asked"}}
