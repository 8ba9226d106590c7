"""`agents.toml`: read with every mistake named, changed one table at a time.

Several processes may change the file at once. Each one locks a file beside it, reads the file
again, changes the text of one table (see `edit.draft`), and renames the new file over the old one,
so that a reader without the lock sees one or the other.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent_dispatch.config.edit.draft import BYTE_ORDER_MARK, Draft, SpliceError
from agent_dispatch.config.edit.toml import TOML, parse_toml
from agent_dispatch.config.schema import BadTableError, parse_config
from agent_dispatch.errors import ConfigError
from agent_dispatch.file_locks import LockHeldError, locked
from agent_dispatch.files import (
    NotDurableError,
    identity,
    make_private_directory,
    read_regular,
    remedy,
    replace_durably,
)
from agent_dispatch.model.config import Config

T = TypeVar("T")

_MAX_BYTES = 4 * 1024 * 1024
_YOUNG_NS = 100_000_000


class FileContent(msgspec.Struct, frozen=True):
    """The file as one read saw it."""

    text: str
    data: dict[str, Any]
    config: Config


def _content_or_error(outcome: FileContent | str) -> FileContent:
    if isinstance(outcome, str):
        raise ConfigError(outcome)
    return outcome


class ConfigFile:
    """One `agents.toml`, read on every call and parsed when it changed.

    All of it blocks, an edit for at most `lock_timeout_s`. Safe to use from several threads.

    Args:
        path: Where the file is or will be; a symbolic link stays one.
        lock_timeout_s: How long an edit waits for the edits of other processes.
        now_ns: The clock of the file system, in nanoseconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        *,
        lock_timeout_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path.absolute()
        self._lock_timeout_s = lock_timeout_s
        self._now_ns = now_ns
        self._cached: tuple[tuple[int, ...], FileContent | str] | None = None

    def load(self) -> Config:
        """Read the configuration; a missing file is an empty one.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        return self.read().config

    def read(self) -> FileContent:
        """Read the file, or return the last result if the file has not changed.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        cached = self._cached
        if cached is None or self._identity() != cached[0]:
            return self._read_again()
        return _content_or_error(cached[1])

    def edit(self, change: Callable[[Draft], T]) -> T:
        """Change the file under its lock, so that no edit of another process is lost.

        Args:
            change: Changes the draft of the current text. If it raises or changes nothing, the
                file stays as it is.

        Returns:
            What `change` returned, once the new file is on disk.

        Raises:
            ConfigError: The file cannot be read, parsed, locked or written, or has a shape that
                cannot be changed in place. It is unchanged, unless the message says that the
                change may not survive a power cut.
        """
        with self._locked() as target:
            before = self._read_again()
            draft = Draft(before.text, TOML)
            try:
                answer = change(draft)
            except (SpliceError, RecursionError) as error:
                reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
                raise ConfigError(
                    f"{self.path} was not changed: {reason}. Make the change by hand in an editor."
                ) from error
            if draft.text != before.text:
                if os.path.exists(target) and not os.access(target, os.W_OK):
                    raise PermissionError(errno.EACCES, "it is write-protected", target)
                replace_durably(target, draft.text.encode())
            return answer

    def create(self, text: str) -> bool:
        """Write a first file if there is none.

        Returns:
            False if a file exists already; it is not touched.

        Raises:
            ConfigError: It cannot be locked or written.
        """
        with self._locked() as target:
            if os.path.lexists(target):
                return False
            replace_durably(target, text.encode())
            return True

    @contextmanager
    def _locked(self) -> Iterator[str]:
        """Lock the file for a change of the path that this yields."""
        # A rename would replace a symbolic link, so its target is changed.
        target = os.path.realpath(self.path)
        try:
            make_private_directory(os.path.dirname(target))
            with locked(f"{target}.lock", self._lock_timeout_s):
                yield target
        except LockHeldError as error:
            raise self._lock_held(error) from error
        except NotDurableError as error:
            raise ConfigError(
                f"{self.path} was changed, but the change may be lost if the power fails now:"
                f" {error.strerror} ({error.filename}). {remedy(error, 'See to the disk.')}"
            ) from error
        except OSError as error:
            raise self._not_written(error) from error

    def _identity(self) -> tuple[int, ...]:
        try:
            return identity(os.stat(self.path))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._not_read(error) from error

    def _read_again(self) -> FileContent:
        self._cached = None
        try:
            content, status = read_regular(str(self.path), _MAX_BYTES + 1)
        except FileNotFoundError:
            return FileContent("", {}, Config())
        except OSError as error:
            raise self._not_read(error) from error
        outcome: FileContent | str
        try:
            outcome = self._parse(content)
        except ConfigError as error:
            outcome = str(error)
        # A file that was just written can change again within the same tick of the clock.
        is_settled = self._now_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _YOUNG_NS
        if is_settled and self._identity() == identity(status):
            self._cached = (identity(status), outcome)
        return _content_or_error(outcome)

    def _parse(self, content: bytes) -> FileContent:
        if len(content) > _MAX_BYTES:
            raise ConfigError(
                f"{self.path} is larger than {_MAX_BYTES // 1024 // 1024} MiB, which no"
                " configuration is. Put the right file in its place."
            )
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            before = content[: error.start].rpartition(b"\n")
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"{self.path} is not UTF-8: byte 0x{content[error.start]:02x} at line {line},"
                f" column {len(before[2]) + 1}. Save it as UTF-8; nothing was changed."
            ) from error
        try:
            data = parse_toml(text.removeprefix(BYTE_ORDER_MARK))
            return FileContent(text, data, parse_config(data))
        except BadTableError as error:
            raise ConfigError(
                f"{self.path}: {error}. Write each agent as a table [agents.NAME], and each group"
                " as a table [groups.NAME]."
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"{self.path} is not valid TOML: {error}. Correct that place; nothing was changed."
            ) from error

    def _not_read(self, error: OSError) -> ConfigError:
        hint = {
            errno.EACCES: f"Make it readable for you: chmod u+rw {self.path}",
            errno.EPERM: f"Make it readable for you: chmod u+rw {self.path}",
            errno.EISDIR: "Move that directory away.",
            errno.ENOTDIR: "Something above it is a file, not a directory: move that away.",
            errno.ELOOP: "Its symbolic links lead in a circle: replace them.",
        }.get(error.errno or 0, "Put a regular file in its place.")
        return ConfigError(
            f"{self.path} cannot be read: {error.strerror}. {remedy(error, hint)}"
            " Or let AGENT_DISPATCH_CONFIG name another file."
        )

    def _not_written(self, error: OSError) -> ConfigError:
        fix = remedy(error, "Make the file and its directory writable for you.")
        return ConfigError(
            f"{self.path} cannot be changed: {error.strerror} ({error.filename or self.path})."
            f" It is unchanged. {fix} Or let AGENT_DISPATCH_CONFIG name another file."
        )

    def _lock_held(self, error: LockHeldError) -> ConfigError:
        if error.holder is not None:
            who = f"process {error.holder} (look at it with: ps -p {error.holder})"
        else:
            who = f"another process (find it with: fuser {error.path})"
        return ConfigError(
            f"{self.path} is being changed by {who}, which has held {error.path} for more than"
            f" {self._lock_timeout_s:g} s. Nothing was changed. If that process is stuck, end it;"
            " then try again."
        )
