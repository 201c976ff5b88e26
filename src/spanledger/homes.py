"""Where files may live: whether a directory will do as a home, and which other will where it won't."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from spanledger.guard import log

_said: Final[set[Path]] = set()


def trouble_with(home: Path) -> str | None:
    """Why a directory can't be the home of our files, `None` if it can. Nothing is made or changed."""
    try:
        if home.is_symlink():
            return "it is a symbolic link"
        if not home.exists():
            above = next(each for each in home.parents if each.exists())
            return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else f"{above} can't be written"
        found = home.stat()
    except OSError as error:
        return error.strerror or type(error).__name__
    if not stat.S_ISDIR(found.st_mode):
        return "it is no directory"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if found.st_mode & 0o022:
        return "it can be written by others; chmod 700 it, or name a directory inside it"
    return None if os.access(home, os.W_OK | os.X_OK) else "it can't be written"


def usable(home: Path) -> Path:
    """The directory itself, else one in `$STATE_DIRECTORY` (systemd's word), else one among the temporary files.

    Another one than was asked for is said once.
    """
    trouble = trouble_with(home)
    if trouble is None:
        return home
    for other in _others():
        if trouble_with(other) is None:
            if home not in _said:
                _said.add(home)
                log.warning(
                    "%s can't hold spanledger's files (%s). They go to %s%s.",
                    home,
                    trouble,
                    other,
                    ""
                    if lasts(other)
                    else ", which may not outlast this machine or container; name a lasting place"
                    " with SPANLEDGER_STATE_DIR",
                )
            return other
    return home


def lasts(other: Path) -> bool:
    """Whether a home that stands in for another is one that was given to the service, and not a temporary one."""
    return other != _temporary()


def _others() -> list[Path]:
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return [*([Path(named) / "spanledger"] if named.startswith("/") else []), _temporary()]


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"spanledger-{os.geteuid()}"
