"""`init`: the config, and the registration of the MCP server with Claude Code."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec

from agent_dispatch.cli.agents.import_yaml import mention_unimported
from agent_dispatch.cli.errors import raise_together
from agent_dispatch.cli.output import ask_yes_or_no, note, one_line, warn, write_json, write_lines
from agent_dispatch.cli.setup.byte_code import write_byte_code
from agent_dispatch.cli.setup.new_config import create_config
from agent_dispatch.cli.setup.project_offers import next_line, offer_projects
from agent_dispatch.cli.setup.register import Registered, register
from agent_dispatch.cli.setup.registration import SERVER_NAME, command_words
from agent_dispatch.cli.setup.temporary_environments import registration_of_this
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.clients.record import (
    CLAUDE_CODE,
    Written,
    installing,
    read_record,
    record_written,
)
from agent_dispatch.config.paths import config_path
from agent_dispatch.config.project.claude_settings import claude_config_path
from agent_dispatch.config.project.known_projects import KnownProject
from agent_dispatch.errors import ConfigError, DispatchError
from agent_dispatch.model.next_step import run
from agent_dispatch.remote.this_host import save_path


class InitReport(msgspec.Struct, kw_only=True, omit_defaults=True):
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
    """
    consents = partial(_consent, shell, yes=yes)
    if client or print_:
        from agent_dispatch.cli.setup.other_clients import print_entry, register_client

        if print_:
            return print_entry(shell, client)
        return register_client(shell, client, consents, add_all=all, as_json=json)
    write_byte_code()
    path = config_path(shell.environ)
    created = create_config(path)
    broken = None if created else _config_error(shell)
    read_record(path)  # Raises if it is broken, before anything is written.
    # Best effort: only runs that come from other machines need it.
    with suppress(OSError):
        save_path(shell.environ, path)
    lasting = registration_of_this(shell)
    wanted = lasting.registration
    outcome = register(shell, wanted, consents)
    if outcome.registered in (Registered.ADDED, Registered.REPLACED, Registered.UNCHANGED):
        with installing(path):
            claude_file = str(claude_config_path(shell.environ))
            record_written(path, Written(client=CLAUDE_CODE, file=claude_file))
    report = InitReport(
        config=str(path),
        config_created=created,
        registration=outcome.registered,
        command=command_words(wanted),
        warnings=lasting.warnings,
        notes=lasting.notes,
    )
    if not json:
        _show(shell, report)
    if broken is None:
        registry = open_registry(shell)
        mention_unimported(registry, shell)
        # The registration has reported a broken configuration of Claude Code.
        offered = offer_projects(registry, shell, add_all=all, as_json=json, reports=False)
        report.known_projects, report.agents_added = offered.left, offered.added
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
    if not shell.is_interactive:
        return False
    why = one_line("; ".join(reasons))
    question = f"Another server is registered as {SERVER_NAME}: {why}. Replace it?"
    return ask_yes_or_no(shell, question)


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
    warn(shell, *report.warnings)
    note(shell, *report.notes)
    if done is not None and shell.environ.get("AGENT_DISPATCH_CONFIG"):
        # Absolute, because Claude Code may be started in another directory.
        setting = f"AGENT_DISPATCH_CONFIG={shlex.quote(report.config)}"
        note(shell, f"Claude Code must be started with {setting}")
