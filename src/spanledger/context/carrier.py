"""Attribution as a signed text, for what runs elsewhere: queue items, headers of a task, jobs of another process.

`v1.<JSON in base64url>.<HMAC-SHA256 in base64url>`. Whoever holds it can read it; only who has the key can make one.
That is the setting `signing_key`, else a key that is made once in the state directory.
"""

from __future__ import annotations

import binascii
import json
import os
import tempfile
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from spanledger.context.scope import attribution, current
from spanledger.context.values import trimmed
from spanledger.guard import log
from spanledger.homes import private_directory, private_file
from spanledger.model import ATTRIBUTION_KEYS, NOBODY, Attribution
from spanledger.settings import read_settings

_VERSION: Final = "v1"
_FILE: Final = "signing.key"
_LEAST_BYTES: Final = 32
"""Of a key."""
_MOST_BYTES: Final = 40_960
"""Longer than any that we make: nothing is decoded of it."""


def _of_the_environment() -> bytes:
    """For a process that captures and makes no calls of its own."""
    settings = read_settings()
    return key_of(settings.signing_key, settings.state_dir)


class Key:
    """What texts are signed with. `load` gives it when it is needed for the first time."""

    def __init__(self) -> None:
        self._use: tuple[Callable[[], bytes], dict[str, bytes]] = (_of_the_environment, {})

    def use(self, load: Callable[[], bytes]) -> None:
        """Take the key from there from now on."""
        self._use = (load, {})
        hashed.cache_clear()

    def sign(self, text: bytes) -> bytes:
        """The HMAC-SHA256 of a text."""
        import hmac  # noqa: PLC0415  # loads OpenSSL

        load, held = self._use
        return hmac.digest(held.get("key") or held.setdefault("key", load()), text, "sha256")


key: Final = Key()
"""The key of this process."""


def key_of(signing_key: str | None, state_dir: Path) -> bytes:
    """The key that the settings name, else the one in the state directory, made if there is none.

    Where there can't be one it is of this process alone.
    """
    if signing_key:
        return signing_key.encode()
    try:
        return _kept(state_dir)
    except OSError as error:
        log.warning(
            "There can be no signing key in %s (%s): what capture() signs can be restored in this process only."
            " SPANLEDGER_SIGNING_KEY sets one.",
            state_dir,
            error,
        )
        return os.urandom(32)


def _kept(state_dir: Path) -> bytes:
    private_directory(state_dir)
    path = state_dir / _FILE
    if not path.exists():
        descriptor, made = tempfile.mkstemp(prefix=f"{_FILE}.", dir=state_dir)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  # mkstemp's
                file.write(os.urandom(32).hex().encode())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(made, path)  # whoever is first; nobody reads half a key
        finally:
            Path(made).unlink()
    private_file(path)
    kept = path.read_bytes()
    if len(kept) < _LEAST_BYTES:
        raise OSError(f"{path} holds no key; remove it")
    return kept


def capture() -> str:
    """The attribution in force here as a signed text, for `restore` wherever the work is done. Never raises.

    ASCII, safe in a header; some 150 bytes, at most 40 KB. It is signed, not encrypted.
    """
    held = {name: value for name, value in current()._asdict().items() if value is not None}
    body = _base64(json.dumps(held, separators=(",", ":"), default=str, ensure_ascii=False).encode())
    return f"{_VERSION}.{body}.{_base64(key.sign(body.encode()))}"


class restore(attribution):  # noqa: N801  # used like a function, as `attribution` is
    """A scope with the attribution that `capture` has signed, and with nothing of the scopes around it.

    What is not signed with our key restores nobody; that is said once and counted. `None` restores nobody, too.
    Never raises.
    """

    __slots__ = ("_captured",)

    def __init__(self, text: str | bytes | None) -> None:
        super().__init__()
        self._captured = _opened(text)

    def _change(self, _: Attribution) -> Attribution:
        return self._captured


def _opened(text: Any) -> Attribution:
    if not text:
        return NOBODY
    try:
        text = text.decode() if isinstance(text, bytes) else text
        version, body, signature = text.split(".") if len(text) <= _MOST_BYTES else ("", "", "")
        if version == _VERSION and _same(_base64(key.sign(body.encode())), signature):
            held = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return Attribution._make(held.get(name) for name in Attribution._fields)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        pass
    if not trimmed["refused"]:
        log.warning(
            "An attribution that was to be restored is not signed with our key; its calls are unattributed. The same"
            " SPANLEDGER_SIGNING_KEY is needed wherever it is captured and restored."
        )
    trimmed["refused"] += 1
    return NOBODY


def _same(one: str, other: str) -> bool:
    import hmac  # noqa: PLC0415  # as above

    return hmac.compare_digest(one.encode(), other.encode())


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


@lru_cache(maxsize=4096)
def hashed(value: str) -> str:
    """A keyed hash of an identifier, 32 hexadecimal digits: the same for the same, and nobody can try them all out."""
    return key.sign(b"hash\0" + value.encode()).hex()[:32]


assert set(ATTRIBUTION_KEYS) < set(Attribution._fields)  # noqa: S101  # names checked at import
