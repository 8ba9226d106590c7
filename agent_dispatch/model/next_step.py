"""Advice as a value: what the caller of a dispatch or a job can do next.

`server.next_steps` words it as calls of MCP tools, `cli.next_steps` as shell commands. Texts such
as `DispatchResult.error` say what happened and name neither.
"""

from enum import StrEnum

import msgspec

CONTINUE = "Continue where you left off"
"""The task that resumes a session."""


class StepKind(StrEnum):
    """The kinds of steps, each with the fields that it has."""

    RESUME = "resume"
    """`agent`, `session_id` (None: no session had begun), `directory` if it is known."""
    ASK = "ask"
    """Give another task: `agent`, `task` if it is known, and `session_id` to continue a session."""
    WAIT = "wait"
    """`job_id`."""
    MORE_TIME = "more_time"
    """`timeout_s`, and `agent` if its own timeout can be raised."""
    RAISE_BUDGET = "raise_budget"
    """`agent`, `budget_usd`."""
    UPDATE_AGENT = "update_agent"
    """`agent`."""
    ADD_AGENT = "add_agent"
    LOOK_AT_JOB = "look_at_job"
    """`job_id`."""
    LIST_JOBS = "list_jobs"
    LIST_AGENTS = "list_agents"
    REMOVE_OLD_JOBS = "remove_old_jobs"
    RUN = "run"
    """`command`, for a person in a shell; `agent` if it is about one."""


class NextStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to do; `kind` says which of the other fields are set."""

    kind: StepKind
    agent: str = ""
    session_id: str | None = None
    job_id: str = ""
    task: str = ""
    directory: str = ""
    timeout_s: int = 0
    budget_usd: str = ""
    """Digits, without an exponent."""
    command: str = ""
    host: str = ""
    """The host where it has to be done, if that is another machine."""


def run(command: str, agent: str = "") -> NextStep:
    """Return the step of running `command` in a shell; `agent` is the agent it is about."""
    return NextStep(kind=StepKind.RUN, command=command, agent=agent)


DOCTOR = run("agent-dispatch doctor")
