"""Writes our entry into the configuration file of an MCP client, and removes it again.

The file belongs to its user. Only our entry changes, the original file is copied once, a symbolic
link stays one, and a file that does not parse is not touched. The new text is parsed before it
replaces the old one.
"""

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

import msgspec

from agent_dispatch.config.clients.record import Made
from agent_dispatch.config.clients.table import ENTRY_NAME, Client, changes_to
from agent_dispatch.config.edit.draft import Draft, SpliceError
from agent_dispatch.config.edit.jsonc import JSONC
from agent_dispatch.config.edit.toml import TOML
from agent_dispatch.errors import ConfigError
from agent_dispatch.files import identity, read_regular, remedy, replace_durably, write_new

_MAX_BYTES = 16 * 1024 * 1024


class ClientFile(msgspec.Struct, frozen=True):
    """The file of a client as one read saw it."""

    client: Client
    path: str
    draft: Draft
    content: bytes | None
    """None: there is no file yet."""
    status: os.stat_result | None

    @property
    def missing(self) -> Made:
        """The largest part that `put_entry` has to make."""
        if self.content is None:
            return Made.FILE
        return Made.ENTRY if self.client.table in self.draft.data else Made.TABLE

    @property
    def present(self) -> object:
        """The value of our entry; None if there is none."""
        table = self.draft.data.get(self.client.table)
        return table.get(ENTRY_NAME) if isinstance(table, Mapping) else None


def read_client_file(client: Client, path: str) -> ClientFile:
    """Read the file of a client; a missing one is empty, if its directory exists.

    Raises:
        ConfigError: It cannot be read or parsed, or its directory is missing.
    """
    try:
        content, status = read_regular(path, _MAX_BYTES + 1)
    except FileNotFoundError as error:
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(folder):
            raise ConfigError(
                f"{folder} does not exist. Is {client.title} installed, and was it started once?"
            ) from error
        return ClientFile(client, path, _draft(client, ""), None, None)
    except OSError as error:
        fix = remedy(error, "Make it readable for you.")
        raise ConfigError(f"{path} cannot be read: {error.strerror}. {fix}") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_BYTES >> 20} MiB; it was not changed.")
    try:
        draft = _draft(client, content.decode())
    except ValueError as error:
        kind = "TOML" if client.is_toml else "JSON"
        raise ConfigError(f"{path} is not valid {kind}: {error}. It was not changed.") from error
    return ClientFile(client, path, draft, content, status)


def put_entry(file: ClientFile, entry: Mapping[str, Any], *, keep: bool) -> bool:
    """Write our entry, or update the present one; return False if nothing had to change.

    Args:
        file: The file.
        entry: The entry.
        keep: Whether to keep other keys of the present entry, because it is ours.

    Raises:
        ConfigError: The file cannot be changed in place or written; it is unchanged.
    """
    table = (file.client.table, ENTRY_NAME)
    present = file.present
    try:
        if keep and isinstance(present, Mapping):
            changes = changes_to(present, entry)
            if not changes:
                return False
            file.draft.set_keys(table, changes)
        else:
            if present is not None:
                file.draft.remove_table(table)
            file.draft.add_table(table, entry)
    except SpliceError as error:
        raise _not_changed(file.path, error) from error
    _write(file)
    return True


def take_out_entry(file: ClientFile, made: Made) -> None:
    """Remove our entry, and what was made for it if that is now empty; copies stay.

    What has comments is not empty.

    Raises:
        ConfigError: The file cannot be changed in place or written; it is unchanged.
    """
    table = file.client.table
    try:
        file.draft.remove_table((table, ENTRY_NAME))
        # TOML needs no header for a table inside it, so a header that is left is its user's.
        is_bare = re.search(rf'"{re.escape(table)}"\s*:\s*{{\s*}}', file.draft.text)
        if made is not Made.ENTRY and is_bare and file.draft.data.get(table) == {}:
            file.draft.remove_table((table,))
    except SpliceError as error:
        raise _not_changed(file.path, error) from error
    is_blank = "".join(file.draft.text.split()) in ("", "{}")
    if made is Made.FILE and is_blank and not os.path.islink(file.path):
        _remove(file)
    else:
        _write(file)


def backup_of(path: str) -> str:
    """Return where the copy of a file is kept."""
    return f"{path}.bak"


def _draft(client: Client, text: str) -> Draft:
    return Draft(text, TOML if client.is_toml else JSONC)


def _not_changed(path: str, error: SpliceError) -> ConfigError:
    return ConfigError(f"{path} was not changed: {error}. Make the change by hand in an editor.")


def _write(file: ClientFile) -> None:
    # A rename would replace a symbolic link.
    target = os.path.realpath(file.path)
    try:
        _require_unchanged(file)
        if file.content is not None and not os.path.lexists(backup_of(file.path)):
            write_new(backup_of(file.path), file.content, like=file.path)
        replace_durably(target, file.draft.text.encode())
        if file.status is not None:
            os.chmod(target, stat.S_IMODE(file.status.st_mode))
    except OSError as error:
        fix = remedy(error, "Make the file and its directory writable for you.")
        raise ConfigError(
            f"{file.path} cannot be changed: {error.strerror} ({error.filename}). {fix}"
        ) from error


def _remove(file: ClientFile) -> None:
    try:
        _require_unchanged(file)
        os.unlink(file.path)
    except OSError as error:
        raise ConfigError(f"{file.path} cannot be removed: {error.strerror}.") from error


def _require_unchanged(file: ClientFile) -> None:
    try:
        now = identity(os.stat(file.path))
    except FileNotFoundError:
        now = None
    before = None if file.status is None else identity(file.status)
    if now != before:
        raise ConfigError(f"{file.path} was changed by another program meanwhile. Try again.")


def entry_text(client: Client, entry: Mapping[str, Any]) -> str:
    """Return the entry alone, as the file of the client would hold it."""
    draft = _draft(client, "")
    draft.add_table((client.table, ENTRY_NAME), entry)
    return draft.text
