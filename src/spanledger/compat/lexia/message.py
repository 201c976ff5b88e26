"""The message that Lexia sends to an agent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Variable(BaseModel):
    """A named value of a message."""

    name: str
    value: str


class ChatMessage(BaseModel):
    """A message, as Lexia posts it (the `lexia` package 1.2.13). Raises `pydantic.ValidationError`.

    Fields that are not listed are kept.
    """

    model_config = ConfigDict(extra="allow")

    thread_id: str
    model: str
    message: str
    conversation_id: int
    response_uuid: str
    message_uuid: str
    channel: str
    variables: list[Variable]
    url: str
    url_update: str | None = None
    url_upload: str | None = None
    stream_url: str | None = None
    stream_token: str | None = None
    headers: dict[str, str] | None = None
    file_type: str | None = None
    file_url: str | None = None
    file_base64: str | None = None
    file_name: str | None = None
    system_message: str | None = None
    project_system_message: str | None = None
    project_id: str | None = None
    first_message: bool | None = None
    force_tools: list[Any] | None = None
    memory: Any = None
    project_files: list[Any] | None = None
    sleep_time: float | None = None
