"""The parts of commands that are about an agent on another host. They ask the host."""

import shlex
from typing import TYPE_CHECKING

import msgspec

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.service import call_service
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.hosts import host_named
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields
from agent_dispatch.model.next_step import StepKind

if TYPE_CHECKING:
    from agent_dispatch.run.service import Service

DOCTOR_S = 40.0
"""How long all checks of a host may take together."""


def add_remote(
    shell: Shell,
    name: str,
    host: str,
    directory: str,
    fields: AgentFields,
) -> AgentChange:
    """Register a directory of a host there, and link the agent here.

    Args:
        name: The name of the agent, here and there.
        host: A host of the configuration.
        directory: It must exist there; `~` is that user's.
        fields: A description, empty to take it from its files. Only a person on the host may set
            the rest.

    Raises:
        InvalidRequestError: More than a description was given.
        DispatchError: The host refuses or cannot be reached; nothing was written here.
    """
    given = [
        f"--{option.replace('_', '-')}"
        for option, value in fields.items()
        if value and option != "description"
    ]
    if given:
        raise InvalidRequestError(
            f"{', '.join(given)}: what an agent may do is set on its own host. Add it without, then"
            f" run on {host}: agent-dispatch update {shlex.quote(name)} {given[0]} VALUE"
        )
    if not directory:
        raise InvalidRequestError(f"Give a directory on {host}, such as {host}:~/project.")

    async def ask(service: "Service") -> AgentChange:
        return await service.agents.add_remote(name, host, directory, fields.get("description", ""))

    return call_service(shell, ask)


def describe_remote(shell: Shell, name: str, preview_lines: int) -> AgentDetails:
    """Ask the host of an agent how the agent takes effect.

    Raises:
        DispatchError: It cannot be reached, or does not know the agent.
    """
    return call_service(shell, lambda service: service.agents.inspect(name, preview_lines))


def check_remote(shell: Shell, registry: Registry, name: str) -> list[Check]:
    """Run `doctor` on a host, over the same link that a run uses.

    Raises:
        DispatchError: There is no such host.
    """
    import trio

    host = host_named(registry.load(), name)
    way = f"ssh {host.ssh}" if host.exec is None else shlex.join(host.exec)

    async def ask(service: "Service") -> list[Check]:
        with trio.fail_after(DOCTOR_S):
            checks = await service.check_host(name)
        return [Check("link", Status.OK, way), *msgspec.convert(checks, list[Check])]

    try:
        return call_service(shell, ask)
    except trio.TooSlowError:
        return [Check("link", Status.FAIL, f"{way}: no answer for {DOCTOR_S:g} s")]
    except DispatchError as error:
        commands = [step.command for step in error.next_steps if step.kind is StepKind.RUN]
        return [Check("link", Status.FAIL, f"{way}: {error}", commands[0] if commands else None)]
