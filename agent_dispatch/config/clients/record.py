"""The record of what `init` wrote into other programs' files, which `uninstall` removes."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from agent_dispatch.errors import NOT_JSON, ConfigError
from agent_dispatch.file_locks import LockHeldError, locked
from agent_dispatch.files import make_private_directory, read_regular, replace_durably

CLAUDE_CODE = "claude-code"
"""The client in the record of a registration that `claude` itself wrote."""

_MAX_BYTES = 1024 * 1024
_LOCK_TIMEOUT_S = 10.0


class Made(StrEnum):
    """The largest part of a file that was missing before `init` wrote it."""

    ENTRY = "entry"
    TABLE = "table"
    """The table of servers, which holds the entry."""
    FILE = "file"


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A file that `init` wrote our entry into."""

    client: str
    """A name of `CLIENTS`, or `claude-code`."""
    file: str
    made: Made = Made.ENTRY


class Record(msgspec.Struct, frozen=True):
    """Everything that `init` wrote; the file is beside the configuration."""

    written: Sequence[Written] = ()


def record_path(config: Path) -> str:
    """Return where the record is kept."""
    return os.path.join(os.path.dirname(os.path.realpath(config)), "installed.json")


def read_record(config: Path) -> Record | None:
    """Read the record; None if there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    path = record_path(config)
    try:
        content, _ = read_regular(path, _MAX_BYTES)
        return msgspec.json.decode(content, type=Record)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except NOT_JSON as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Remove it to look everywhere."
        ) from error


def write_record(config: Path, record: Record) -> None:
    """Write the record, or remove it if it is empty.

    Raises:
        ConfigError: It cannot be written.
    """
    path = record_path(config)
    try:
        if record.written:
            replace_durably(path, msgspec.json.encode(record) + b"\n")
        elif os.path.lexists(path):
            os.unlink(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def record_written(config: Path, written: Written) -> None:
    """Record that `init` wrote our entry into a file; an earlier record of the file stays."""
    record = read_record(config) or Record()
    if not any((it.client, it.file) == (written.client, written.file) for it in record.written):
        write_record(config, Record([*record.written, written]))


@contextlib.contextmanager
def installing(config: Path) -> Iterator[None]:
    """Keep every other `init` and `uninstall` of this configuration from writing meanwhile.

    Raises:
        ConfigError: Another one does not end, or the lock cannot be made.
    """
    path = record_path(config)
    try:
        make_private_directory(os.path.dirname(path))
        with locked(f"{path}.lock", _LOCK_TIMEOUT_S):
            yield
    except LockHeldError as error:
        raise ConfigError(
            "Another `agent-dispatch init` or `uninstall` is running, and has not ended for"
            f" {_LOCK_TIMEOUT_S:g} s. Try again."
        ) from error
