"""Lexia's handler over spanledger: its programs run with only their import line changed.

Usage is in the ledger first, and on its way to the usage API (`LEXIA_API_BASE_URL`) then: nothing waits for it, and an
outage loses nothing. Model calls inside a session that are watched are counted once, whether they are reported or not.
"""

from __future__ import annotations

import os
from typing import Any, Final

from spanledger import api, assembly
from spanledger.compat.lexia.channel import Channel
from spanledger.compat.lexia.message import ChatMessage
from spanledger.compat.lexia.session import Session, member

__all__ = ["ChatMessage", "LexiaHandler", "Session"]

_STREAM: Final = "CENTRIFUGO_URL"
_KEY: Final = "CENTRIFUGO_API_KEY"


class LexiaHandler:
    """`LexiaHandler().begin(data)`. Making one sends all usage of this process to the usage API as well.

    Answers are streamed to the Centrifugo that the message names (`stream_url`, `stream_token`), or the environment
    (`CENTRIFUGO_URL`, `CENTRIFUGO_API_KEY`); where neither does they are only gathered.
    """

    def __init__(self, **_: Any) -> None:
        assembly.extend(sinks=("usage_api",))

    def begin(self, data: Any) -> Session:
        """A session for a message, a `ChatMessage`, another object or a mapping. Its `response_uuid` is the message id.

        Never raises.
        """
        if not api.has_sink("usage_api"):  # everything was shut down since
            assembly.extend(sinks=("usage_api",))
        return Session(data, _channel_of(data))


def _channel_of(data: Any) -> Channel:
    own = member(data, "stream_url")
    return Channel(
        stream_url=own or os.environ.get(_STREAM),
        stream_key=member(data, "stream_token") if own else os.environ.get(_KEY),  # ours is for our own server only
        url=member(data, "url"),
        headers=member(data, "headers"),
        names={
            name: member(data, field)
            for name, field in (("uuid", "response_uuid"), ("thread_id", "thread_id"), ("conversation_id",) * 2)
        },
        channel=member(data, "channel"),
    )
