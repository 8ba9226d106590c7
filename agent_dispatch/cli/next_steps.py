"""Next steps in the words of the CLI: shell commands, and no MCP tool."""

import shlex

from agent_dispatch.core.call_timeout import MAX_TIMEOUT_S
from agent_dispatch.model.next_step import CONTINUE, NextStep, StepKind


def in_shell(step: NextStep) -> str:
    """Say which command to run."""
    agent = shlex.quote(step.agent)
    match step.kind:
        case StepKind.RESUME if step.session_id is None:
            return "No session had begun, so there is none to resume."
        case StepKind.RESUME:
            by_hand = f"cd {shlex.quote(step.directory)} && claude --resume {step.session_id}"
            return (
                "Its session is kept. Resume it:"
                f' agent-dispatch run {agent} "{CONTINUE}" --session {step.session_id}'
            ) + (f"\nOr by hand: {by_hand}" if step.directory else "")
        case StepKind.ASK:
            session = "" if step.session_id is None else f" --session {step.session_id}"
            return f"Ask {step.agent}: agent-dispatch run {agent} TASK{session}"
        case StepKind.WAIT:
            return f"Its answer: agent-dispatch wait {step.job_id}"
        case StepKind.MORE_TIME if not step.agent:
            return (
                f"Give it longer: --timeout-seconds {step.timeout_s} (at most {MAX_TIMEOUT_S}), or"
                " fewer rounds: --max-rounds"
            )
        case StepKind.MORE_TIME:
            return (
                f"Or give it longer: --timeout-seconds {step.timeout_s} for one call (at most"
                f" {MAX_TIMEOUT_S}). For long work use --background, which does not keep you"
                " waiting."
                f"\nOr for good: agent-dispatch update {agent} --timeout {step.timeout_s}"
            )
        case StepKind.RAISE_BUDGET:
            return (
                f"Or raise the cap: agent-dispatch update {agent}"
                f" --max-budget-usd {step.budget_usd}"
            )
        case StepKind.UPDATE_AGENT:
            return f"Change it: agent-dispatch update {agent} (--help lists what)"
        case StepKind.ADD_AGENT:
            return "Register one: agent-dispatch add NAME DIRECTORY"
        case StepKind.LOOK_AT_JOB:
            return f"Look at it: agent-dispatch job {step.job_id}"
        case StepKind.LIST_JOBS:
            return "List the known jobs: agent-dispatch jobs"
        case StepKind.REMOVE_OLD_JOBS:
            return "Remove old jobs: agent-dispatch gc"
        case StepKind.RUN:
            return f"Run: {step.command}"
