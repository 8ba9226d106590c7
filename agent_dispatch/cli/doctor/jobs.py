"""`doctor`'s checks of the jobs directory, open questions, the ledger and the account's limits."""

import shlex
import time
from collections.abc import Iterator

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.questions import waiting_questions
from agent_dispatch.cli.jobs.stats import account_use
from agent_dispatch.cli.output import fit
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.core.questions import shown_input
from agent_dispatch.errors import ConfigError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.oddities import odd_entries

_SHOWN_INPUT = 120


def check_jobs(shell: Shell) -> Iterator[Check]:
    """Check the jobs directory for entries that `gc` cannot remove."""
    try:
        directory = str(jobs_path(shell.environ, config_path(shell.environ)))
    except ConfigError:
        return  # `check_config` reports it.
    try:
        for odd in odd_entries(directory):
            fix = f"ls -ld {shlex.quote(odd.path)}  (then move it away if you do not need it)"
            yield Check("jobs", Status.WARN, odd.warning, fix)
    except OSError as error:
        message = f"{directory} cannot be read: {error.strerror}"
        yield Check("jobs", Status.WARN, message, f"ls -ld {shlex.quote(directory)}")
        return
    yield from _check_questions(shell)


def _check_questions(shell: Shell) -> Iterator[Check]:
    """Report the permission questions that wait for an answer."""
    try:
        waiting = waiting_questions(open_store(shell))
    except JobStoreError as error:
        yield Check("questions", Status.WARN, str(error))
        return
    for row in waiting:
        if row.state != "open":
            continue
        short = short_id(row.job_id)
        message = f"{row.agent} asks for {row.tool}: {fit(shown_input(row.input), _SHOWN_INPUT)}"
        fix = f"agent-dispatch answer {short} allow --question {row.id}  (or deny)"
        yield Check(f"question of job {short}", Status.NOTE, message, fix)


def check_money(shell: Shell) -> Iterator[Check]:
    """Book the cost of runs whose owner died, and report the use of the account's limits."""
    try:
        ledger = open_store(shell).ledger
        ledger.recover()
    except ConfigError:
        return  # `check_config` reports it.
    except JobStoreError as error:
        yield Check("ledger", Status.FAIL, str(error), "agent-dispatch stats")
        return
    if (limits := ledger.limits()) is not None:
        yield Check("account", Status.NOTE, account_use(limits, time.time()))
