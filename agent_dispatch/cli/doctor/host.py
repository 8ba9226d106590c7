"""`doctor --host`: ask a host to check itself, and the checks that run there."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent_dispatch import __version__
from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.doctor.claude import check_claude
from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.hosts import host_named
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.errors import ConfigError, DispatchError
from agent_dispatch.model.next_step import StepKind
from agent_dispatch.remote.this_host import path_file, user_name

if TYPE_CHECKING:
    from agent_dispatch.run.service import Service

_ALL_CHECKS_S = 40.0
_LOGIND = ("/etc/systemd/logind.conf", "/run/systemd/logind.conf")


def ask_host(shell: Shell, name: str) -> list[Check]:
    """Have a host check itself, over the same link that a run uses.

    Raises:
        DispatchError: There is no such host.
    """
    import trio

    host = host_named(open_registry(shell).load(), name)
    way = f"ssh {host.ssh}" if host.exec is None else shlex.join(host.exec)

    async def ask(service: "Service") -> list[Check]:
        with trio.fail_after(_ALL_CHECKS_S):
            checks = await service.check_host(name)
        return [Check("link", Status.OK, way), *msgspec.convert(checks, list[Check])]

    try:
        return call_service(shell, ask)
    except trio.TooSlowError:
        return [Check("link", Status.FAIL, f"{way}: no answer for {_ALL_CHECKS_S:g} s")]
    except DispatchError as error:
        commands = [step.command for step in error.next_steps if step.kind is StepKind.RUN]
        return [Check("link", Status.FAIL, f"{way}: {error}", commands[0] if commands else None)]


def check_host(shell: Shell) -> Iterator[Check]:
    """Check what a job of a remote caller needs here. Spends nothing."""
    yield Check("version", Status.OK, f"agent-dispatch {__version__}, user {user_name()}")
    yield _check_path(shell)
    yield from (check for check in check_claude(shell) if check.name != "version")
    yield from _check_config(shell)
    yield from _check_logout()


def _check_path(shell: Shell) -> Check:
    config = config_path(shell.environ)
    if path_file(config).exists():
        return Check("path", Status.OK, f"from {path_file(config)}")
    message = (
        "over ssh, PATH is shorter than in your shell, and `init` has not saved your shell's PATH:"
        " agents may not find their programs"
    )
    return Check("path", Status.WARN, message, "agent-dispatch init  (in a shell on the host)")


def _check_config(shell: Shell) -> Iterator[Check]:
    registry = open_registry(shell)
    try:
        settings, agents = registry.load().settings, registry.list_agents()
    except ConfigError as error:
        yield Check("config", Status.FAIL, str(error), f"correct {registry.path} on the host")
        return
    jobs = jobs_path(shell.environ, registry.path)
    slots = f"{settings.max_concurrency} runs at once; jobs in {jobs}"
    yield Check("slots", Status.OK, slots)
    if not agents:
        fix = "agent-dispatch add NAME DIRECTORY  (on the host)"
        yield Check("agents", Status.WARN, "no agent is registered there", fix)
    for agent in agents:
        if agent.healthy:
            yield Check(f"agent {agent.name}", Status.OK, agent.directory or f"on {agent.host}")
        else:
            message = agent.problem or f"{agent.directory} cannot be used"
            fix = f"agent-dispatch describe {agent.name}  (on the host)"
            yield Check(f"agent {agent.name}", Status.FAIL, message, fix)


def _check_logout() -> Iterator[Check]:
    """Check that the end of a login session does not kill jobs."""
    for file in map(Path, _LOGIND):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue  # No systemd here, or nothing set.
        for line in lines:
            key, _, value = line.partition("=")
            if key.strip() == "KillUserProcesses" and value.strip().lower() in ("yes", "true", "1"):
                message = f"KillUserProcesses in {file} ends jobs when you log out"
                fix = f"loginctl enable-linger {user_name()}  (on the host)"
                if not os.path.exists(f"/var/lib/systemd/linger/{user_name()}"):
                    yield Check("logout", Status.WARN, message, fix)
                return
    if shutil.which("loginctl") is not None:
        yield Check("logout", Status.OK, "jobs go on when you log out")
