"""OpenAI's images: generations, edits and variations; only the GPT image models state a usage, and stream.

Sources: `ImagesResponse`, `ImageGenPartialImageEvent`, `ImageGenCompletedEvent`, `ImageEditPartialImageEvent` and
`ImageEditCompletedEvent` of openai 3.54; OpenAI's published API specification for which model states what.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from spanledger.testing.loopback.exchange import CREATED, Answer, Events, Json, Request, Route, given, tokens

_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""
_EACH: Final = 16
"""Tokens of an image."""


def _images(request: Request) -> Answer:
    body, asked = request.body, request.asked
    model = asked.get("model") or body.get("model") or "dall-e-2"
    count = int(body.get("n") or 1)
    stated = "image" in model
    streamed = stated and body.get("stream") in (True, "true")
    usage = given(asked, _usage(request, count, streamed) if stated else None)
    endpoint = "images_" + request.match["kind"]
    request.book.tell(endpoint, model, None, usage)
    if streamed:
        return Events(_events(request, "image_edit" if endpoint == "images_edits" else "image_generation", usage))
    url = {"url": f"{request.root}/image.png"}
    as_url = not stated and body.get("response_format") != "b64_json"
    answer = {"created": CREATED, "data": [url if as_url else {"b64_json": _PIXEL}] * count}
    if stated:
        answer |= _look(body)
    return Json(answer if usage is None else {**answer, "usage": usage})


def _usage(request: Request, count: int, streamed: bool) -> dict[str, Any]:
    text, image = tokens(request.body.get("prompt")), _EACH * len(request.files)
    usage: dict[str, Any] = {
        "input_tokens": text + image,
        "input_tokens_details": {"image_tokens": image, "text_tokens": text},
        "output_tokens": _EACH * count,
        "total_tokens": text + image + _EACH * count,
    }
    details = {"image_tokens": _EACH * count - 2, "text_tokens": 2}
    return usage if streamed else {**usage, "output_tokens_details": details}


def _look(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "background": "opaque",
        "output_format": body.get("output_format") or "png",
        "quality": body.get("quality") or "medium",
        "size": body.get("size") or "1024x1024",
    }


def _events(request: Request, kind: str, usage: Any) -> Iterator[tuple[str, Any]]:
    image = {"b64_json": _PIXEL, "created_at": CREATED, **_look(request.body)}
    for index in range(int(request.body.get("partial_images") or 0)):
        name = f"{kind}.partial_image"
        yield name, {"type": name, **image, "partial_image_index": index}
    yield f"{kind}.completed", {"type": f"{kind}.completed", **image, "usage": usage}


ROUTES: Final[tuple[Route, ...]] = (("POST", re.compile(r".*/images/(?P<kind>generations|edits|variations)"), _images),)
