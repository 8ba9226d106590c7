"""`doctor`: check the whole installation. It costs nothing."""

from collections.abc import Iterable, Iterator

import msgspec

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.doctor.claude import check_claude
from agent_dispatch.cli.doctor.clients import check_clients
from agent_dispatch.cli.doctor.config import check_config
from agent_dispatch.cli.doctor.host import ask_host
from agent_dispatch.cli.doctor.jobs import check_jobs, check_money
from agent_dispatch.cli.doctor.registration import check_registration
from agent_dispatch.cli.output import Colour, counted, one_line, paint, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.errors import ConfigError

_COLOURS = {
    Status.OK: Colour.GOOD,
    Status.NOTE: Colour.FAINT,
    Status.WARN: Colour.DOUBTFUL,
    Status.FAIL: Colour.BAD,
}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `doctor --json`."""

    ok: bool
    checks: list[Check]


def doctor(*, host: str = "", strict: bool = False, json: bool = False, shell: Shell) -> int:
    """Check the installation and print a fix for each failure. Costs nothing.

    Args:
        host: Check this host of the configuration instead, over the link that a run uses.
        strict: Fail on warnings too.
        json: Print the checks as JSON.
    """
    bad = {Status.FAIL, Status.WARN} if strict else {Status.FAIL}
    checks = ask_host(shell, host) if host else _checks(shell)
    if json:
        found = list(checks)
        ok = not any(check.status in bad for check in found)
        write_json(shell, Diagnosis(ok=ok, checks=found))
        return 0 if ok else 1
    counts = dict.fromkeys(Status, 0)
    for check in checks:
        counts[check.status] += 1
        write_lines(shell, _lines(check, shell), at_once=True)
    if counts[Status.WARN]:
        write_lines(shell, [f"{counted(counts[Status.WARN], 'warning')}."])
    failed = sum(counts[status] for status in bad)
    closing = f"{counted(failed, 'check')} failed." if failed else "All checks passed."
    write_lines(shell, [closing])
    return 1 if failed else 0


def _checks(shell: Shell) -> Iterator[Check]:
    try:
        directories = [agent.directory for agent in open_registry(shell).list_agents()]
    except ConfigError:
        directories = []  # `check_config` reports it.
    yield from check_claude(shell)
    yield from check_registration(shell, directories)
    yield from check_clients(shell)
    yield from check_config(shell)
    yield from check_jobs(shell)
    yield from check_money(shell)


def _lines(check: Check, shell: Shell) -> Iterable[str]:
    word = paint(f"{check.status:<4}", _COLOURS[check.status], shell)
    yield f"{word}  {one_line(check.name)}: {one_line(check.message)}"
    if check.fix is not None:
        yield f"      fix: {one_line(check.fix)}"
