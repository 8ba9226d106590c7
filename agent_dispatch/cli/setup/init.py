"""`init`: the config, and the registration of the MCP server with Claude Code."""

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from agent_dispatch.cli.agents.commands import mention_unimported
from agent_dispatch.cli.errors import raise_together
from agent_dispatch.cli.output import Colour, one_line, remark, say, write_json, write_lines
from agent_dispatch.cli.setup.byte_code import write_byte_code
from agent_dispatch.cli.setup.claude_cli import ClaudeConfigError
from agent_dispatch.cli.setup.registration import (
    SERVER_NAME,
    Registered,
    command_words,
    register,
)
from agent_dispatch.cli.setup.suggestions import Offered, next_line, offer_projects
from agent_dispatch.cli.setup.temporary_environments import registration_of_this
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.clients.record import (
    CLAUDE_CODE,
    Written,
    installing,
    read_record,
    record_written,
)
from agent_dispatch.config.file import ConfigFile
from agent_dispatch.config.paths import config_path
from agent_dispatch.config.project.claude_settings import claude_config_path
from agent_dispatch.config.project.known_projects import KnownProject
from agent_dispatch.errors import ConfigError, DispatchError
from agent_dispatch.model.next_step import run
from agent_dispatch.remote.this_host import keep_path

TEMPLATE = """\
# agent-dispatch: the agents, and what they may do. Read on every call; no restart is needed.
# `agent-dispatch add NAME DIRECTORY` adds an agent, `agent-dispatch doctor` checks this file.

# [agents.infra]
# directory = "~/projects/infra"
# description = "Infrastructure agent. MCP: portainer."
# timeout = 300                                # seconds a run may take
# model = "sonnet"
# max_budget_usd = 1.0                         # US dollars a run may cost; 0 lifts the default
# permission_mode = "acceptEdits"              # acceptEdits, auto, bypassPermissions, default,
#                                              # dontAsk, manual or plan
# allowed_tools = ["Read", "Bash(git log:*)"]  # [] grants nothing beyond the project's settings
# disallowed_tools = ["Write"]

# [groups.shop]                                # agents that work on one thing
# description = "Ask infra first."             # for the caller
# shared_context = "The stack is shop-prod."   # told to each member with a task of the group
# members = [{ agent = "infra", use_for = "logs" }]

# [settings]                                   # what every agent inherits
# default_timeout = 300
# default_model = "sonnet"
# default_permission_mode = "default"
# default_allowed_tools = ["Read"]
# default_max_budget_usd = 5.0
# max_dispatch_depth = 3                       # how deep agents may dispatch to agents
# max_concurrency = 5                          # runs at once, on this machine, per depth

# [settings.cache]
# enabled = true
# ttl = 300                                    # seconds an answer stays valid
# max_size = 1000
"""


class InitReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `init` did."""

    config: str
    config_created: bool
    registration: Registered
    command: list[str]
    """The command that Claude Code starts."""
    warnings: list[str] = []
    """Why the registration will break."""
    notes: list[str] = []
    known_projects: list[KnownProject] = []
    """Projects that Claude Code knows and that are no agents."""
    agents_added: list[str] = []


def init(
    *,
    client: str = "",
    print_: bool = False,
    all: bool = False,  # noqa: A002 - the option is `--all`
    yes: bool = False,
    json: bool = False,
    shell: Shell,
) -> int:
    """Create the config if there is none, and register the MCP server with Claude Code.

    Then the projects that Claude Code knows are offered as agents. Safe to run again.

    Args:
        client: Register with another client: cursor, vscode, codex, gemini, opencode, zed, desktop.
        print_: With --client: only print the entry for the client's file.
        all: Add all projects that Claude Code knows as agents, without asking.
        yes: Replace a foreign registration of the name without asking.
        json: Print what was done as JSON.
        shell: The outside world.
    """
    if client or print_:
        from agent_dispatch.cli.setup.other_clients import print_entry, register_client

        if print_:
            return print_entry(shell, client)
        consents = partial(_consent, shell, yes=yes)
        return register_client(shell, client, consents, add_all=all, as_json=json)
    write_byte_code()
    path = config_path(shell.environ)
    created = create_config(path)
    broken = None if created else _config_error(shell)
    read_record(str(path))  # Raises if it is broken, before anything is written.
    # Best effort: only runs that come from other machines need it.
    with suppress(OSError):
        keep_path(shell.environ, path)
    lasting = registration_of_this(shell)
    wanted = lasting.registration
    outcome = register(shell, wanted, lambda verdict: _consent(shell, verdict.reasons, yes=yes))
    if outcome.registered in (Registered.ADDED, Registered.REPLACED, Registered.UNCHANGED):
        with installing(str(path)):
            claude_file = str(claude_config_path(shell.environ))
            record_written(str(path), Written(client=CLAUDE_CODE, file=claude_file))
    report = InitReport(
        config=str(path),
        config_created=created,
        registration=outcome.registered,
        command=command_words(wanted),
        warnings=[] if lasting.warning is None else [f"{lasting.warning}; {lasting.advice}"],
        notes=[] if lasting.note is None else [lasting.note],
    )
    if not json:
        _show(shell, report)
    if broken is None:
        registry = open_registry(shell)
        mention_unimported(registry, shell)
        try:
            offered = offer_projects(registry, shell, add_all=all, as_json=json)
        except ClaudeConfigError:
            offered = Offered()  # The registration has reported it.
        report = msgspec.structs.replace(
            report, known_projects=offered.left, agents_added=offered.added
        )
        if not json and not outcome.problems:
            write_lines(shell, [next_line(registry, offered)])
    raise_together(
        *([] if broken is None else [broken]),
        *(DispatchError(problem) for problem in outcome.problems),
        steps=map(run, outcome.by_hand),
    )
    if json:
        write_json(shell, report)
    return 0


def create_config(path: Path) -> bool:
    """Write the commented template, readable by the owner only, unless the file exists.

    Returns:
        Whether the file is new. An existing file is never changed, even if it is broken.

    Raises:
        ConfigError: It could not be written.
    """
    # Checked first, because an existing file may be where no lock can be made.
    return not os.path.exists(path) and ConfigFile(path).create(TEMPLATE)


def _config_error(shell: Shell) -> ConfigError | None:
    try:
        open_registry(shell).load()
    except ConfigError as error:
        return error
    return None


def _consent(shell: Shell, reasons: Sequence[str], *, yes: bool) -> bool:
    """Whether another server of our name may be replaced."""
    if yes:
        return True
    if not (shell.stdin.isatty() and shell.stderr.isatty()):
        return False
    said = one_line("; ".join(reasons))
    say(shell, f"Another server is registered as {SERVER_NAME}: {said}. Replace it? [y/N] ")
    return shell.stdin.readline().strip().lower() in ("y", "yes")


def _show(shell: Shell, report: InitReport) -> None:
    created = "created" if report.config_created else "already there, unchanged"
    done = {
        Registered.ADDED: "Registered MCP server",
        Registered.REPLACED: "Replaced the registered MCP server",
        Registered.UNCHANGED: "MCP server is already registered",
    }.get(report.registration)
    lines = [f"Config: {one_line(report.config)} ({created})"]
    if done is not None:
        lines.append(f"{done}: {one_line(shlex.join(report.command))} (user scope)")
    write_lines(shell, lines)
    for warning in report.warnings:
        remark(shell, f"warning: {warning}", Colour.DOUBTFUL)
    for note in report.notes:
        remark(shell, f"note: {note}")
    if done is not None and shell.environ.get("AGENT_DISPATCH_CONFIG"):
        # Absolute, because Claude Code may be started in another directory.
        setting = f"AGENT_DISPATCH_CONFIG={shlex.quote(report.config)}"
        remark(shell, f"note: Claude Code must be started with {one_line(setting)}")
