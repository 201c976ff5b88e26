"""A provider on this machine that speaks the wire formats of OpenAI, Anthropic, Google and Amazon Bedrock.

It answers `GET /truth` with every answer it gave: endpoint, model, id and the usage exactly as it was sent. Each module
of a format names the sources of its shapes.

A request may direct the answer by a field `loopback` in its body (Bedrock's Converse: in
`additionalModelRequestFields`), or by JSON in its header `x-loopback`: `usage` (sent instead of the computed one,
whatever it is), `id`, `status` (HTTP), `chunks`, `cut_after` (chunks before the connection breaks), `delay` (seconds
between chunks), `retrievals` (how often a background response or a batch is still in progress), `output` (further items
of the answer), `model` and `service_tier` (what the answer says of itself), `state` (its status or stop reason),
`error`, `incomplete_details`, `headers` (of the HTTP response).
"""

from __future__ import annotations

from spanledger.testing.loopback.exchange import CREATED
from spanledger.testing.loopback.server import Loopback

__all__ = ["CREATED", "Loopback"]
