"""`doctor`'s checks of our configuration: settings, groups, each agent."""

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.errors import all_tips
from agent_dispatch.cli.output import counted
from agent_dispatch.cli.setup.claude_cli import ClaudeConfigError, read_claude_config
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.groups import missing_members
from agent_dispatch.config.project.claude_files import file_problems
from agent_dispatch.config.project.claude_settings import (
    Workspace,
    read_claude_settings,
    workspace_of,
)
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.yaml_import import find_unimported
from agent_dispatch.errors import ConfigError
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.model.config import Config


def check_config(shell: Shell) -> Iterator[Check]:
    """Check our configuration and every agent in it."""
    try:
        registry = open_registry(shell)
        config = registry.load()
        agents = registry.list_agents()
    except ConfigError as error:
        by_hand = "correct that file, or move it away and run: agent-dispatch init"
        fix = next(iter(all_tips(error.next_steps)), by_hand)
        yield Check("config", Status.FAIL, str(error), fix)
        return
    if registry.path.exists():
        yield from _check_settings(config, registry.path)
    else:
        message = f"{registry.path} does not exist"
        yield Check("config", Status.FAIL, message, "agent-dispatch init")
    yield from _check_groups(config, registry.path)
    yield from _check_unimported(registry)
    if not agents:
        fix = "agent-dispatch add NAME DIRECTORY"
        yield Check("agents", Status.WARN, "no agent is registered", fix)
    try:
        claude_config = read_claude_config(shell.environ)
    except ClaudeConfigError:
        claude_config = None  # `check_registration` reports it.
    for agent in agents:
        if not agent.healthy:
            in_file = agent.name in config.broken or bool(config.broken_settings)
            yield _unhealthy(agent, registry.path if in_file else None)
            continue
        if agent.host is not None:
            look = f"look at it there with: agent-dispatch doctor --host {agent.host}"
            yield Check(f"agent {agent.name}", Status.NOTE, f"on host {agent.host}; {look}")
            continue
        workspace = None if claude_config is None else workspace_of(agent.directory, claude_config)
        mode = read_claude_settings(agent.directory, shell.environ).default_mode()
        yield from check_agent(agent, workspace, shell.environ, os.geteuid(), mode)
        for problem in file_problems(agent.directory):
            fix = f"correct it in {os.path.join(agent.directory, problem.path)}"
            yield Check(f"agent {agent.name}", Status.WARN, str(problem), fix)


def _check_settings(config: Config, path: Path) -> Iterator[Check]:
    yield Check("config", Status.OK, str(path))
    fix = f"correct it in {path}"
    for key, problem in config.broken_settings.items():
        message = f"{key}: {problem}; no run starts until it is corrected"
        yield Check("config", Status.FAIL, message, fix)
    for name, problem in config.broken_hosts.items():
        yield Check("config", Status.FAIL, f"hosts.{name}: {problem}", fix)
    for unknown in config.unknown_keys:
        message = f"[{unknown.where}] has the unknown key {unknown.key!r}"
        if unknown.nearest is not None:
            message += f"; did you mean {unknown.nearest!r}?"
        yield Check("config", Status.WARN, message, fix)
    for warning in config.warnings:
        # With another mode Claude Code ends at once, so no run would work.
        is_mode = warning.key.endswith("permission_mode")
        yield Check("config", Status.FAIL if is_mode else Status.WARN, str(warning), fix)


def _check_groups(config: Config, path: Path) -> Iterator[Check]:
    for name, problem in config.broken_groups.items():
        yield Check(f"group {name}", Status.FAIL, problem, f"correct it in {path}")
    for name, group in config.groups.items():
        update = f"agent-dispatch group update {shlex.quote(name)} --remove-member"
        for agent in missing_members(config, group):
            message = f"its member {agent} is not configured"
            yield Check(f"group {name}", Status.WARN, message, f"{update} {shlex.quote(agent)}")


def _check_unimported(registry: Registry) -> Iterator[Check]:
    found = find_unimported(registry)
    if found is None:
        return
    name = found.path.name
    if found.problem is not None:
        yield Check(name, Status.WARN, found.problem, f"ls -l {shlex.quote(str(found.path))}")
        return
    message = f"{found.path} has agents that are not imported: {', '.join(found.agents)}"
    yield Check(name, Status.NOTE, message, f"agent-dispatch import {shlex.quote(str(found.path))}")


def _unhealthy(agent: AgentSummary, config: Path | None) -> Check:
    """Report an agent that cannot run: because of `config`, or of its directory if that is None."""
    fix = f"agent-dispatch remove {shlex.quote(agent.name)}"
    return Check(
        f"agent {agent.name}",
        Status.FAIL,
        agent.problem or f"{agent.directory} cannot be used",
        fix if config is None else f"correct it in {config}",
    )


def check_agent(
    agent: AgentSummary,
    workspace: Workspace | None,
    environ: Mapping[str, str],
    euid: int,
    inherited_mode: tuple[str, str] | None = None,
) -> Iterator[Check]:
    """Check that a healthy agent gets the permissions that its configuration gives.

    Args:
        agent: With the settings it inherits.
        workspace: What Claude Code knows of its directory; None if that is unknown.
        environ: The environment of the runs.
        euid: The user of the runs.
        inherited_mode: The mode from Claude Code's settings, and the file that sets it.
    """
    name = f"agent {agent.name}"
    update = f"agent-dispatch update {shlex.quote(agent.name)} --permission-mode"
    yield Check(name, Status.OK, agent.directory)
    if not agent.permission_mode and inherited_mode is not None:
        mode, file = inherited_mode
        message = f"inherits permission mode {mode} from permissions.defaultMode of {file}"
        if mode == "plan":
            message += "; it denies every change, whatever tools are granted"
            yield Check(name, Status.WARN, message, f"{update} manual")
        else:
            yield Check(name, Status.NOTE, message)
    if agent.permission_mode == "bypassPermissions" and euid == 0 and not environ.get("IS_SANDBOX"):
        message = "Claude Code refuses bypassPermissions to root unless IS_SANDBOX=1 is set"
        yield Check(name, Status.WARN, message, f"{update} acceptEdits")
    if workspace is not None and workspace.allow_rules and not workspace.trusted:
        message = (
            f"{workspace.root} is not trusted, so Claude Code ignores permissions.allow"
            f" ({counted(workspace.allow_rules, 'rule')}) of its .claude/settings.json. Accept"
            " the trust dialog there, or grant the rules to the agent with --allowed-tools of"
            " `agent-dispatch update`"
        )
        yield Check(name, Status.WARN, message, f"cd {shlex.quote(workspace.root)} && claude")
