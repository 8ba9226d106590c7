"""Next steps as shell commands that can be pasted; they name no MCP tool."""

import shlex

from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.model.next_step import CONTINUE, NextStep, StepKind


def tips_for(step: NextStep) -> list[str]:
    """Return the tips for a step, mostly one.

    A tip is the command alone, or words with the command in backticks.
    """
    agent = shlex.quote(step.agent)
    job = short_id(step.job_id)
    match step.kind:
        case StepKind.RESUME if step.session_id is None:
            return []  # No session had begun.
        case StepKind.RESUME:
            resume = f'agent-dispatch run {agent} "{CONTINUE}" --session {step.session_id}'
            by_hand = f"cd {shlex.quote(step.directory)} && claude --resume {step.session_id}"
            return [resume, *([f"or by hand: `{by_hand}`"] if step.directory else [])]
        case StepKind.ASK if step.session_id is None and not step.task:
            return ["agent-dispatch run --help"]
        case StepKind.ASK:
            # A tip is one line.
            one_line_task = step.task and " ".join(step.task.split())
            task = shlex.quote(one_line_task) if one_line_task else f'"{CONTINUE}"'
            session = f" --session {step.session_id}" if step.session_id else ""
            return [f"agent-dispatch run {agent} {task}{session}"]
        case StepKind.WAIT:
            return [f"agent-dispatch wait {job}"]
        case StepKind.MORE_TIME if not step.agent:
            more = f"more time: --timeout-seconds {step.timeout_s}; fewer rounds: --max-rounds"
            return [f"{more}; see `agent-dispatch dialogue --help`"]
        case StepKind.MORE_TIME:
            for_good = f"`agent-dispatch update {agent} --timeout {step.timeout_s}`"
            return [
                f"more time: --timeout-seconds {step.timeout_s} for one run, or for all: {for_good}"
            ]
        case StepKind.RAISE_BUDGET:
            raised = f"agent-dispatch update {agent} --max-budget-usd {step.budget_usd}"
            return [f"raise the cap: `{raised}`"]
        case StepKind.UPDATE_AGENT:
            return [f"agent-dispatch update {agent} --help"]
        case StepKind.ADD_AGENT:
            return ["agent-dispatch add --help"]
        case StepKind.LOOK_AT_JOB:
            return [f"agent-dispatch job {job}"]
        case StepKind.LIST_JOBS:
            return ["agent-dispatch jobs"]
        case StepKind.LIST_AGENTS:
            return ["agent-dispatch list"]
        case StepKind.REMOVE_OLD_JOBS:
            return ["agent-dispatch gc"]
        case StepKind.RUN if step.host:
            return [f"on {step.host}: `{step.command}`"]
        case StepKind.RUN:
            return [step.command]


def in_shell(step: NextStep) -> str:
    """Word a step for text, such as the `error` of a result in JSON."""
    return "\n".join(f"tip: {tip}" for tip in tips_for(step))
