"""The hosts of `agents.toml`, and the agents on them. Nothing here contacts a host."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent_dispatch.config.agent_fields import as_written, bad_field, check_name, require_free
from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.file import ConfigFile
from agent_dispatch.config.keys import HOST_KEYS, REMOTE_KEYS
from agent_dispatch.config.values import HOST_NAME_RULE, BadValueError, is_host_name
from agent_dispatch.errors import DispatchError, InvalidRequestError, quoted
from agent_dispatch.model.agent import AgentChange
from agent_dispatch.model.config import Config, HostConfig
from agent_dispatch.model.next_step import run

_REMOTE_DIRECTORY = re.compile(r"([A-Za-z0-9_.-]+):(.*)", re.DOTALL)


class HostRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `hosts list`."""

    name: str
    ssh: str | None = None
    exec: list[str] | None = None
    program: str | None = None
    lease_seconds: float | None = None
    agents: list[str]
    problem: str | None = None
    """Why its table cannot be used."""


class UnknownHostError(DispatchError):
    """No host of that name is configured."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"Unknown host: {quoted(name, 100)}. Known: {', '.join(known) or 'none yet'}",
            run("agent-dispatch hosts --help"),
        )


def remote_directory(text: str) -> tuple[str, str] | None:
    """Split `HOST:DIRECTORY`; None for a directory on this machine, such as `./a:b`."""
    found = _REMOTE_DIRECTORY.fullmatch(text)
    return None if found is None else (found[1], found[2])


def list_hosts(config: Config) -> list[HostRow]:
    """List all hosts in the order of the file, the unusable ones last."""
    rows = [
        HostRow(name=name, agents=agents_of(config, name), **msgspec.structs.asdict(host))
        for name, host in config.hosts.items()
    ]
    broken = config.broken_hosts.items()
    return rows + [HostRow(name=name, agents=[], problem=problem) for name, problem in broken]


def agents_of(config: Config, host: str) -> list[str]:
    """List the agents of this file that are on a host."""
    return [name for name, agent in config.agents.items() if agent.host == host]


def host_named(config: Config, name: str) -> HostConfig:
    """Return a host.

    Raises:
        UnknownHostError: No host has that name.
        InvalidRequestError: Its own table is broken.
    """
    if name in config.broken_hosts:
        raise InvalidRequestError(
            f"Host {name!r} is not usable: {config.broken_hosts[name]}. Correct its table in"
            " agents.toml."
        )
    if name not in config.hosts:
        raise UnknownHostError(name, [*config.hosts, *config.broken_hosts])
    return config.hosts[name]


def add_host(
    file: ConfigFile,
    name: str,
    *,
    ssh: str = "",
    argv: Sequence[str] = (),
    program: str = "",
    lease_seconds: float = 0,
) -> None:
    """Add a host; it is not contacted.

    Args:
        file: The configuration.
        name: Its name here.
        ssh: The destination for ssh; by default `name`.
        argv: A command to run instead of ssh.
        program: Where `agent-dispatch` is on the host; empty to search.
        lease_seconds: How long a call goes on when its caller is silent; 0 for the default.

    Raises:
        InvalidRequestError: A value is not allowed, or the name is taken.
        ConfigError: The file cannot be read or written; it is unchanged.
    """
    if not is_host_name(name):
        raise InvalidRequestError(f"{quoted(name, 200)} cannot name a host: use {HOST_NAME_RULE}.")
    values: dict[str, Any] = {"exec": list(argv)} if argv else {"ssh": ssh or name}
    if program:
        values["program"] = program
    if lease_seconds:
        values["lease_seconds"] = lease_seconds
    for key, value in values.items():
        try:
            HOST_KEYS[key].read(value)
        except BadValueError as error:
            raise bad_field(key, error) from error
    if lease_seconds:
        values["lease_seconds"] = as_written(lease_seconds)

    def add(draft: Draft) -> None:
        if name in draft.data.get("hosts", {}):
            raise InvalidRequestError(
                f"Host {name!r} exists already. Remove it first with: agent-dispatch hosts remove"
                f" {name}"
            )
        draft.add_table(("hosts", name), values)

    file.edit(add)


def remove_host(file: ConfigFile, name: str) -> None:
    """Remove a host that no agent uses.

    Raises:
        UnknownHostError: No host has that name.
        InvalidRequestError: Agents use it.
        ConfigError: The file cannot be read or written; it is unchanged.
    """

    def remove(draft: Draft) -> None:
        hosts, agents = draft.data.get("hosts", {}), draft.data.get("agents", {})
        if name not in hosts:
            raise UnknownHostError(name, list(hosts))
        # An agent whose table is broken uses the host too.
        users = [
            agent
            for agent, table in agents.items()
            if isinstance(table, Mapping) and table.get("host") == name
        ]
        if users:
            raise InvalidRequestError(
                f"Host {name!r} is used by {', '.join(users)}. Remove them first with:"
                f" agent-dispatch remove NAME"
            )
        draft.remove_table(("hosts", name))

    file.edit(remove)


def link_agent(
    file: ConfigFile, name: str, host: str, *, agent: str = "", description: str = ""
) -> AgentChange:
    """Add an agent that is configured on a host.

    Args:
        file: The configuration.
        name: Its name here.
        host: A host of the file.
        agent: Its name on the host, if that is different.
        description: What it can do.

    Raises:
        InvalidRequestError: A value is not allowed, or the name is taken.
        UnknownHostError: No host has that name.
        ConfigError: The file cannot be read or written; it is unchanged.
    """
    require_free_name(file, name)
    host_named(file.load(), host)
    values = {"host": host, "agent": "" if agent == name else agent, "description": description}
    values = {key: values[key] for key in REMOTE_KEYS if values[key]}

    def add(draft: Draft) -> None:
        require_free(draft.data, name)
        draft.add_table(("agents", name), values)

    file.edit(add)
    return AgentChange(
        agent=name, action="added", host=host, description=description, config=str(file.path)
    )


def require_free_name(file: ConfigFile, name: str) -> None:
    """Check that an agent can be added under a name.

    Raises:
        InvalidRequestError: The name is not allowed or is taken.
    """
    check_name(name)
    require_free(file.read().data, name)
