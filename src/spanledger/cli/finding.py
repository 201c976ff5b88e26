"""What `spanledger doctor` has to say of one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. `do` says what to do where it is not well, or might be better."""

    subject: str
    says: str
    well: bool = True
    warns: bool = False
    """It is well, and yet worth a second look."""
    do: str = ""
