"""A session: one message that an agent answers."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from spanledger import api, assembly, conventions
from spanledger.compat.lexia.channel import Channel
from spanledger.compat.lexia.parts import CALL, Part, call_record, part_of, quoted, shown, tool_record
from spanledger.context.scope import bracket_here, enter, leave, merge
from spanledger.guard import failed, log
from spanledger.manual.report import Moment
from spanledger.model import Attribution, UsageRecord, now_ns, record_id_at
from spanledger.recording.bracket import Bracket

_NAME: Final = "lexia.session"
_TOLD: Final = {
    "prompt_tokens": "prompt",
    "input_tokens": "prompt",
    "completion_tokens": "completion",
    "output_tokens": "completion",
}
"""Count in a usage object → type."""
_here: ContextVar[weakref.ref[Session] | None] = ContextVar("spanledger.lexia", default=None)


class Session:
    """What `LexiaHandler.begin` gives. Nothing of it raises, and nothing of it waits for a network.

    Calls inside belong to the message until the session ends: by `close`, by `error`, with the `with` block it may be
    used in, with the next session begun in the same place, or when nobody holds it any more.
    """

    def __init__(self, data: Any, channel: Channel) -> None:
        self.data = data
        self._channel = channel
        self._text: list[str] = []
        self._parts: dict[str, Part] = {}
        self._began = Moment(now_ns(), None)
        self._record_id = ""
        self._ended = False
        self._lock = threading.Lock()
        self._bracket = Bracket(bracket_here())
        message_id = member(data, "response_uuid")
        self._message = {"message_id": shown(message_id)} if message_id else {}
        if not message_id:
            log.warning("A session was begun without a response_uuid: its usage is recorded without a message.")
        before = _here.get()
        if before is not None and (open_still := before()) is not None and open_still._place == _place():  # noqa: SLF001
            open_still._step_out()  # noqa: SLF001  # it is one of us
        self._step_in()

    def _step_in(self) -> None:
        desk = api.desk()
        self._frame = enter(partial(_with_message, message=self._message), None, self._bracket)
        attributes = {conventions.ATTRIBUTION[name]: value for name, value in self._message.items()}
        tracer = trace.NoOpTracer() if desk is None else desk.tracer
        self._span = tracer.start_span(_NAME, attributes=attributes)
        self._place = _place()
        self._token: Any = otel_context.attach(trace.set_span_in_context(self._span))
        _here.set(weakref.ref(self))

    def _step_out(self) -> None:
        leave(self._frame)
        token, self._token = self._token, None
        if token is not None and _place() == self._place:  # elsewhere it ends with the context it began in
            otel_context.detach(token)

    def usage(self, tokens: Any, token_type: str, cost: Any = None, label: Any = None) -> None:
        """Report tokens of one type: `prompt` (or `input`), `completion` (or `output`), `function_call`, `tool_usage`,
        `total`; numbers or texts.

        Prompt, completion and total are one call until a type comes again, and it is the one that was watched in this
        session, if one was. What can't be right is logged and left out. Never raises.
        """  # noqa: D205
        try:
            part = part_of(tokens, token_type, cost, label)
        except ValueError as error:
            log.warning("usage(%s, %s) is not recorded: %s.", quoted(tokens), quoted(token_type), error)
            return
        log.info("usage of message %r: %s", self._message.get("message_id"), part.sent)
        try:
            with self._lock:
                self._take(part)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a report of usage", error)

    def track_prompt(self, tokens: Any, cost: Any = None, label: Any = None) -> None:
        """`usage` of type `prompt`. Never raises."""
        self.usage(tokens, "prompt", cost, label)

    def track_completion(self, tokens: Any, cost: Any = None, label: Any = None) -> None:
        """`usage` of type `completion`. Never raises."""
        self.usage(tokens, "completion", cost, label)

    def track_function_call(self, tokens: Any, cost: Any = None, label: Any = None) -> None:
        """`usage` of type `function_call`. Never raises."""
        self.usage(tokens, "function_call", cost, label)

    def track_tool_usage(self, tokens: Any, cost: Any = None, label: Any = None) -> None:
        """`usage` of type `tool_usage`. Never raises."""
        self.usage(tokens, "tool_usage", cost, label)

    def track_total(self, tokens: Any, cost: Any = None, label: Any = None) -> None:
        """`usage` of type `total`, which is no usage beside its parts. Never raises."""
        self.usage(tokens, "total", cost, label)

    def _take(self, part: Part) -> None:
        desk = api.desk()
        if desk is None:
            return
        if part.kind not in CALL:
            desk.take(_of_message(tool_record(part, Moment(now_ns(), None)), self._message), self._bracket)
            return
        if not self._parts or part.kind in self._parts:
            self._parts, self._began = {}, Moment(now_ns(), None)
            self._record_id = record_id_at(self._began.started_ns)
        self._parts[part.kind] = part
        model = member(self.data, "model")
        record = call_record(self._parts, None if model is None else str(model), self._began, self._record_id)
        desk.take(_of_message(record, self._message), self._bracket)

    def stream(self, text: Any) -> None:
        """Send a piece of the answer. Never raises, and waits for nothing."""
        piece = shown(text, whole=True)
        self._text.append(piece)
        self._tell(self._channel.stream, piece)

    def close(self, usage_info: Any = None, file_url: str | None = None) -> str:
        """End the session; the whole answer. `usage_info`, a mapping or an OpenAI usage, is reported if nothing was.

        Never raises.
        """
        if usage_info is not None and not self._parts:
            for name, kind in _TOLD.items():
                count = member(usage_info, name)
                if count is not None:
                    self.usage(count, kind)
        text = "".join(self._text)
        if not self._ended:
            told = {kind: part.tokens for kind, part in self._parts.items()}
            self._tell(self._channel.finish, text, told, file_url)
        self._end()
        return text

    def error(self, message: Any, exception: BaseException | None = None, trace: Any = None) -> None:  # noqa: ARG002
        """End the session as failed; the message is streamed, and kept nowhere here. Never raises."""
        if not self._ended:
            self._span.set_status(Status(StatusCode.ERROR))
            self._tell(self._channel.fail, shown(message, whole=True))
        self._end()

    def _tell(self, way: Callable[..., None], *what: Any) -> None:
        try:
            way(*what)
        except Exception as error:  # noqa: BLE001  # a door
            failed("a piece of an answer", error)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._step_out()
            self._bracket.ended = True
            self._span.end()
            desk = api.desk()
            if desk is not None:
                desk.ended(self._bracket)
        except Exception as error:  # noqa: BLE001  # a door
            failed("the end of a session", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.error(type(error).__name__)
        self._end()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True) and hasattr(self, "_frame"):
            self._ended = self._bracket.ended = True
            leave(self._frame)
            runtime = assembly.current()
            if runtime is not None:  # in the middle of a garbage collection nothing may be waited for
                runtime.engine.later(self._span.end)
                runtime.engine.record(partial(_as_it_is, self._bracket))


def _place() -> tuple[int, Any]:
    """The thread and the task that this runs in."""
    asyncio: Any = sys.modules.get("asyncio")
    try:
        task = None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # there is no loop
        task = None
    return threading.get_ident(), None if task is None else id(task)


def member(data: Any, name: str) -> Any:
    """A member of an object or a mapping, `None` where it has none or it can't be read."""
    try:
        return data.get(name) if isinstance(data, Mapping) else getattr(data, name, None)
    except Exception:  # noqa: BLE001  # the application's object
        return None


def _as_it_is(bracket: Bracket) -> Bracket:
    return bracket


def _with_message(outer: Attribution, message: Mapping[str, str]) -> Attribution:
    return merge(outer, message)


def _of_message(record: UsageRecord, message: Mapping[str, str]) -> UsageRecord:
    """The record, of this message wherever the session is used."""
    return replace(record, attribution=merge(record.attribution, message))
