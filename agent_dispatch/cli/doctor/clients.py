"""`doctor`'s checks of the other clients that `init --client` registered with."""

import os
import shutil
from collections.abc import Iterator

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.setup.other_clients import is_ours
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.clients.file import read_client_file
from agent_dispatch.config.clients.record import CLAUDE_CODE, Written, read_record
from agent_dispatch.config.clients.table import CLIENTS, command_of
from agent_dispatch.config.paths import config_path
from agent_dispatch.errors import ConfigError


def clients_registered(shell: Shell) -> list[Written]:
    """List the files of other clients that hold our entry, as `init` recorded it.

    Raises:
        ConfigError: The record cannot be read.
    """
    record = read_record(config_path(shell.environ))
    written = () if record is None else record.written
    return [place for place in written if place.client != CLAUDE_CODE]


def check_clients(shell: Shell) -> Iterator[Check]:
    """Check that each of those entries is there, and starts a program that exists."""
    try:
        places = clients_registered(shell)
    except ConfigError as error:
        yield Check("clients", Status.WARN, str(error), "agent-dispatch init")
        return
    for place in places:
        if place.client in CLIENTS:
            yield _check(place, shell)


def _check(place: Written, shell: Shell) -> Check:
    name, again = f"client {place.client}", f"agent-dispatch init --client {place.client}"
    try:
        present = read_client_file(CLIENTS[place.client], place.file).present
    except ConfigError as error:
        return Check(name, Status.FAIL, str(error), f"correct it in {place.file}")
    if present is None:
        return Check(name, Status.WARN, f"{place.file} no longer has our entry", again)
    words = command_of(present)
    if not is_ours(present):
        runs = words[0] if words else "nothing"
        return Check(name, Status.WARN, f"the entry in {place.file} runs {runs}", f"{again} --yes")
    if shutil.which(words[0], path=shell.environ.get("PATH", os.defpath)) is None:
        return Check(name, Status.FAIL, f"{place.file} starts {words[0]}, which is missing", again)
    return Check(name, Status.OK, place.file)
