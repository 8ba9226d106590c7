"""Next steps in the words of the MCP surface: calls of its tools.

A client may not be able or allowed to run a shell command, so it asks its user to.
"""

import json
import shlex

from agent_dispatch.core.request.timeout import MAX_TIMEOUT_S
from agent_dispatch.model.next_step import CONTINUE, NextStep, StepKind

_TASK_CHARS = 500
"""A longer task is not repeated: the caller knows it."""


def in_tools(step: NextStep) -> str:
    """Return which tool to call, or what to ask the user for."""
    match step.kind:
        case StepKind.RESUME if step.session_id is None:
            return "No session had begun, so there is none to resume."
        case StepKind.RESUME:
            call = _session(step, f'"{CONTINUE}"')
            by_hand = f"cd {shlex.quote(step.directory)} && claude --resume {step.session_id}"
            return f"Its session is kept. Resume it: {call}" + (
                f"\nOr by hand. Ask your user to run: {by_hand}" if step.directory else ""
            )
        case StepKind.ASK:
            return f"Ask {step.agent}: {_session(step, _quoted(step.task))}"
        case StepKind.WAIT:
            return f'Its answer: dispatch_wait(job_id="{step.job_id}")'
        case StepKind.MORE_TIME if not step.agent:
            return (
                f"Give it longer: timeout_seconds={step.timeout_s} (at most {MAX_TIMEOUT_S}), or"
                " fewer rounds: max_rounds"
            )
        case StepKind.MORE_TIME:
            return (
                f"Or give it longer: timeout_seconds={step.timeout_s} for one call (at most"
                f' {MAX_TIMEOUT_S}), or for good update_agent(name="{step.agent}",'
                f" timeout={step.timeout_s}). For long work use dispatch_async, which does not keep"
                " you waiting."
            )
        case StepKind.RAISE_BUDGET:
            return (
                "Or raise the cap. Ask your user to run: agent-dispatch update"
                f" {shlex.quote(step.agent)} --max-budget-usd {step.budget_usd}"
            )
        case StepKind.UPDATE_AGENT:
            return f'Change it: update_agent(name="{step.agent}", ...)'
        case StepKind.ADD_AGENT:
            return "Register one: add_agent(name=..., directory=...)"
        case StepKind.LOOK_AT_JOB:
            return f'Look at it: dispatch_status(job_id="{step.job_id}")'
        case StepKind.LIST_JOBS:
            return "List the known jobs: dispatch_jobs()"
        case StepKind.LIST_AGENTS:
            return "List the agents: list_agents()"
        case StepKind.REMOVE_OLD_JOBS:
            return "Remove old jobs: dispatch_gc()"
        case StepKind.RUN if step.host:
            return f"Ask your user to run, on {step.host}: {step.command}"
        case StepKind.RUN:
            return f"Ask your user to run: {step.command}"


def _quoted(task: str) -> str:
    return json.dumps(task, ensure_ascii=False) if 0 < len(task) <= _TASK_CHARS else "..."


def _session(step: NextStep, task: str) -> str:
    session = "" if step.session_id is None else f', session_id="{step.session_id}"'
    return f'dispatch_session(agent="{step.agent}", task={task}{session})'
