"""One line of `doctor`: what was checked, and how it went."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; needs no fix."""
    WARN = "warn"
    """Works, but probably not as intended."""
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `doctor`."""

    name: str
    status: Status
    message: str
    fix: str | None = None
    """A shell command, or what to change in an editor."""
