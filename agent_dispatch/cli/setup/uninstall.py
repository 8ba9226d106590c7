"""`uninstall`: remove what `init` wrote outside our own directory."""

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from agent_dispatch.claude.find_claude import find_program, with_program_on_path
from agent_dispatch.cli.errors import raise_together
from agent_dispatch.cli.output import ask_yes_or_no, note, one_line, remark, write_json, write_lines
from agent_dispatch.cli.setup.claude_cli import ask_claude, enabled_plugin, read_claude_config
from agent_dispatch.cli.setup.other_clients import is_ours
from agent_dispatch.cli.setup.registration import (
    REMOVE,
    as_shell_command,
    command_line,
    registered_server,
    starts_us,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.clients.file import backup_of, read_client_file, take_out_entry
from agent_dispatch.config.clients.record import (
    CLAUDE_CODE,
    Record,
    Written,
    installing,
    read_record,
    record_path,
    write_record,
)
from agent_dispatch.config.clients.table import CLIENTS, command_of, possible_files
from agent_dispatch.config.paths import config_path, home_directory, jobs_path
from agent_dispatch.config.project.claude_settings import claude_config_path
from agent_dispatch.core.outcome.report import StartFailure
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.next_step import run

_CLAUDE_TIMEOUT_S = 30.0


class Uninstalled(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What `uninstall` did."""

    removed: list[str] = []
    """Files that our entry was removed from."""
    left: dict[str, str] = {}
    """Files with an entry of our name that starts something else -> what it starts."""
    kept: list[str] = []
    """What stays: the configuration, the jobs, copies of files."""
    plugin: str | None = None
    """Our plugin for Claude Code, which is still installed."""


def uninstall(*, yes: bool = False, json: bool = False, shell: Shell) -> int:
    """Remove our entries from Claude Code and the other clients. Agents and jobs stay.

    Args:
        yes: Do not ask.
        json: Print what was done as JSON.
    """
    config = config_path(shell.environ)
    if not yes and not _consents(_places(read_record(config), shell.environ), shell):
        remark(shell, "Nothing was changed.")
        return 1
    report = Uninstalled()
    with contextlib.ExitStack() as stack:
        # Without our directory, no `init` can be writing; do not create it for a lock.
        if os.path.isdir(os.path.dirname(record_path(config))):
            stack.enter_context(installing(config))
        record = read_record(config)
        places = _places(record, shell.environ)
        failed, errors = [], []
        for place in places:
            try:
                _take_out(place, report, shell.environ)
            except DispatchError as error:
                errors.append(error)
                failed.append(place)
        if record is not None:
            write_record(config, Record(failed))
    jobs = jobs_path(shell.environ, config)
    copies = [backup_of(place.file) for place in places]
    report.kept = [path for path in (str(config), str(jobs), *copies) if os.path.lexists(path)]
    report.plugin = enabled_plugin(shell.environ)
    if not json:
        _show(report, shell)
    raise_together(*errors)
    if json:
        write_json(shell, report)
    return 0


def _places(record: Record | None, environ: Mapping[str, str]) -> Sequence[Written]:
    """List where our entries may be: the recorded files, or all possible ones without a record."""
    if record is not None:
        return record.written
    home = home_directory(environ)
    return [
        Written(client=CLAUDE_CODE, file=str(claude_config_path(environ))),
        *(
            Written(client=name, file=path)
            for name, client in CLIENTS.items()
            for path in possible_files(client, environ, home)
            if os.path.lexists(path)
        ),
    ]


def _consents(places: Sequence[Written], shell: Shell) -> bool:
    if not shell.is_interactive:
        return True
    for place in places:
        remark(shell, f"  {one_line(place.file)}")
    return ask_yes_or_no(shell, "Remove the entries of agent-dispatch from these files?")


def _take_out(place: Written, report: Uninstalled, environ: Mapping[str, str]) -> None:
    """Remove one entry, or report in `report.left` why it stays.

    Raises:
        DispatchError: The entry is still there.
    """
    if place.client == CLAUDE_CODE:
        _unregister(place, report, environ)
        return
    client = CLIENTS.get(place.client)
    if client is None or not os.path.exists(place.file):
        return
    file = read_client_file(client, place.file)
    if file.present is None:
        return
    if is_ours(file.present):
        take_out_entry(file, place.made)
        report.removed.append(place.file)
    else:
        report.left[place.file] = shlex.join(command_of(file.present)) or "no program"


def _unregister(place: Written, report: Uninstalled, environ: Mapping[str, str]) -> None:
    environ = _environ_of(place.file, environ)
    present = registered_server(read_claude_config(environ))
    if present is None:
        return
    if not isinstance(present, Mapping) or not starts_us(present):
        report.left[place.file] = command_line(present)
        return
    by_hand = run(as_shell_command(REMOVE))
    program = find_program(None, environ)
    if isinstance(program, StartFailure):
        raise DispatchError(f"{program.text}, so Claude Code still has our server.", by_hand)
    environ = with_program_on_path(environ, program[0])
    answer = ask_claude(program[0], REMOVE, environ, timeout_s=_CLAUDE_TIMEOUT_S)
    if answer.exit_status != 0:
        raise DispatchError(
            f"Claude Code did not remove the registration: {answer.complaint()}.", by_hand
        )
    report.removed.append(place.file)


def _environ_of(file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which Claude Code uses the recorded configuration file."""
    changed = dict(environ)
    if file != str(claude_config_path(changed)):
        changed.pop("CLAUDE_CONFIG_DIR", None)
        if file != str(claude_config_path(changed)):
            changed["CLAUDE_CONFIG_DIR"] = os.path.dirname(file)
    return changed


def _show(report: Uninstalled, shell: Shell) -> None:
    write_lines(shell, [f"Removed from {one_line(path)}" for path in report.removed])
    if not report.removed:
        write_lines(shell, ["No entry of agent-dispatch was found."])
    for path, runs in report.left.items():
        write_lines(shell, [f"Left in {one_line(path)}: the entry runs {one_line(runs)}"])
    write_lines(shell, [f"Kept {one_line(path)}" for path in report.kept])
    if report.plugin is not None:
        note(shell, f"the plugin is still installed: claude plugin uninstall {report.plugin}")
