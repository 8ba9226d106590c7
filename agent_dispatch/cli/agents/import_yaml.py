"""`import`: take over agents from the `agents.yaml` of the predecessor."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent_dispatch.cli.errors import raise_together
from agent_dispatch.cli.output import (
    Colour,
    counted,
    listing,
    note,
    one_line,
    remark,
    warn,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.next_step import run

if TYPE_CHECKING:
    # Reading YAML takes time to import.
    from agent_dispatch.config.yaml_import import ImportReport

_SHOWN_NAMES = 8


def import_agents(
    file: str, /, *, overwrite: bool = False, json: bool = False, shell: Shell
) -> int:
    """Import agents, groups and settings from an agents.yaml. The file is not changed.

    Keys that agent-dispatch does not have are left out and named.

    Args:
        file: The YAML file.
        overwrite: Replace agents and groups that the config already has.
        json: Print the report as JSON.
    """
    from agent_dispatch.config.yaml_import import import_yaml

    report = import_yaml(Path(file), open_registry(shell), overwrite=overwrite)
    if not json:
        _show_import(report, shell)
    again = run(f"agent-dispatch import {shlex.quote(file)}")
    failed = (f"{one_line(name)}: {one_line(reason)}" for name, reason in report.failed.items())
    raise_together(*map(DispatchError, failed), steps=[again])
    if json:
        write_json(shell, report)
    return 0


def _show_import(report: "ImportReport", shell: Shell) -> None:
    rows = (
        ("Added", report.added),
        ("Replaced", report.replaced),
        ("Groups", report.groups),
        ("Settings", report.settings),
    )
    lines = [f"{label}: {listing(names)}" for label, names in rows if names]
    write_lines(shell, lines or ["Nothing was imported."])
    for name, reason in report.skipped.items():
        remark(shell, f"skipped {one_line(name)}: {one_line(reason)}")
    for name, reason in report.left_out.items():
        remark(shell, f"left out {one_line(name)}: {one_line(reason)}", Colour.DOUBTFUL)
    warn(shell, *(report.warnings or ()))


def mention_unimported(registry: Registry, shell: Shell) -> None:
    """Mention an `agents.yaml` of the predecessor with agents that are not imported."""
    if not registry.path.with_name("agents.yaml").exists():
        return
    from agent_dispatch.config.yaml_import import find_unimported

    found = find_unimported(registry)
    if found is None:
        return
    if found.problem is not None:
        note(shell, found.problem)
        return
    note(
        shell,
        f"{found.path} has {counted(len(found.agents), 'agent')} that"
        f" {'is' if len(found.agents) == 1 else 'are'} not imported: {_some(found.agents)}",
    )
    remark(shell, f"tip: agent-dispatch import {shlex.quote(str(found.path))}")


def _some(names: Sequence[str]) -> str:
    shown = listing(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"
