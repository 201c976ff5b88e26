"""Where a session's answer goes: piece by piece to Centrifugo, whole to the address of the message.

A thread of its own sends, in order: the agent waits for nothing. What can't be sent is logged and lost, as an answer
that nobody waits for any more is; usage is another matter, and not sent here.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

from spanledger.guard import log

_MOST_WAITING: Final = 10_000
_TIMEOUT: Final = (5.0, 10.0)
_EXIT_WAIT: Final = 2.0
_JSON: Final = {"Content-Type": "application/json"}
_DETAILS: Final[dict[str, list[Any]]] = {"input_token_details": [], "output_token_details": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """The ways of one message; those it names none for are not taken."""

    stream_url: str | None
    stream_key: str | None
    url: str | None
    headers: Mapping[str, str] | None
    channel: str | None
    names: Mapping[str, Any]
    """`uuid`, `thread_id`, `conversation_id`."""

    def stream(self, delta: str) -> None:
        """Publish a piece of the answer."""
        self._publish({"delta": delta, "finished": False})

    def finish(self, text: str, tokens: Mapping[str, int], file_url: str | None) -> None:
        """Publish the end, and send the whole answer with the tokens that were reported."""
        self._publish({"finished": True, "full_response": text})
        told = {"input_tokens": tokens.get("prompt", 0), "output_tokens": tokens.get("completion", 0)}
        usage = {**told, "total_tokens": sum(told.values()), **_DETAILS}
        more = {} if file_url is None else {"file_url": file_url}
        self._send({"content": text, "role": "assistant", "status": "FINISHED", "usage": usage, **more})

    def fail(self, text: str) -> None:
        """Publish what went wrong, and send it."""
        self._publish({"delta": text, "finished": False})
        self._publish({"finished": True, "full_response": text, "error": text})
        usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **_DETAILS}
        self._send({"content": text, "role": "developer", "status": "FAILED", "usage": usage})

    def _publish(self, data: Mapping[str, Any]) -> None:
        if isinstance(self.stream_url, str) and self.stream_url and self.channel:
            named = {name: self.names[name] for name in ("uuid", "thread_id")}
            key = self.stream_key or ""
            _POST.put(
                f"{self.stream_url.rstrip('/')}/api/publish",
                {"channel": self.channel, "data": {**data, **named}},
                {"X-API-Key": key, "Authorization": f"apikey {key}"},
            )

    def _send(self, message: Mapping[str, Any]) -> None:
        if isinstance(self.url, str) and self.url:
            named = {name: self.names[name] for name in ("uuid", "conversation_id")}
            headers = self.headers if isinstance(self.headers, Mapping) else {}
            _POST.put(self.url, {**named, **message}, headers)


class _Post:
    """One thread that sends, started with the first thing to send."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[str, Any, Mapping[str, str]]] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, url: str, body: Any, headers: Mapping[str, str]) -> None:
        try:
            self._waiting.put_nowait((url, body, headers))
        except queue.Full:
            log.warning("A piece of an answer is not sent: %d are waiting already.", _MOST_WAITING)
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a forked child has none
                self._thread = threading.Thread(target=self._run, name="spanledger-lexia", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        with requests.Session() as session:
            while True:
                url, body, headers = self._waiting.get()
                try:
                    sent = {str(name): str(value) for name, value in {**_JSON, **headers}.items()}
                    content = json.dumps(body, default=str)
                    answer = session.post(url, data=content, headers=sent, timeout=_TIMEOUT, allow_redirects=False)
                    if not answer.ok or answer.is_redirect:
                        log.warning("A piece of an answer was not taken (HTTP %d).", answer.status_code)
                except Exception as error:  # noqa: BLE001  # what comes next is sent all the same
                    log.warning("A piece of an answer could not be sent (%s).", type(error).__name__)
                finally:
                    self._waiting.task_done()

    def drain(self) -> None:
        """At exit: wait a moment for what is waiting."""
        ended = threading.Thread(target=self._waiting.join, daemon=True)
        if self._thread is not None and self._thread.is_alive():
            ended.start()
            ended.join(_EXIT_WAIT)


def _anew() -> None:
    """In a forked child: what is waiting is the parent's."""
    global _POST  # noqa: PLW0603  # one per process is what it is for
    _POST = _Post()


_POST = _Post()
os.register_at_fork(after_in_child=_anew)
atexit.register(lambda: _POST.drain())  # noqa: PLW0108  # the one there is then
