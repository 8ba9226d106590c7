"""Both wordings of every next step, and of the advice that every type of error comes with."""

import re
from typing import Any

import msgspec
import pytest

from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.core.next_step import Say, worded, worded_error, worded_job
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.refusal import recursion_refused, refused
from agent_dispatch.core.outcome.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.core.outcome.verify import CheckResult, apply_check
from agent_dispatch.errors import UnknownAgentError
from agent_dispatch.jobs.reconcile import verdict
from agent_dispatch.jobs.record_format import decode_record, encode_record
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind, new_job
from agent_dispatch.model.next_step import NextStep, StepKind, run
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.catalogue import TOOLS
from tests.core import builders
from tests.core.builders import SESSION, agent, report

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
TOOL_NAME = re.compile("|".join(rf"\b{tool.name}\b" for tool in TOOLS if "_" in tool.name))
COMMAND = re.compile(r": (?:agent-dispatch|claude|npm|cd) [a-z/'-]")

STEPS: list[tuple[NextStep, str, str]] = [
    (
        NextStep(kind=StepKind.RESUME, agent="my db", session_id="5e", directory="/srv/my db"),
        (
            'Its session is kept. Resume it: dispatch_session(agent="my db",'
            ' task="Continue where you left off", session_id="5e")\n'
            "Or by hand. Ask your user to run: cd '/srv/my db' && claude --resume 5e"
        ),
        (
            "tip: agent-dispatch run 'my db' \"Continue where you left off\" --session 5e\n"
            "tip: or by hand: `cd '/srv/my db' && claude --resume 5e`"
        ),
    ),
    (
        NextStep(kind=StepKind.RESUME, agent="infra", session_id="5e"),
        (
            'Its session is kept. Resume it: dispatch_session(agent="infra",'
            ' task="Continue where you left off", session_id="5e")'
        ),
        'tip: agent-dispatch run infra "Continue where you left off" --session 5e',
    ),
    (
        NextStep(kind=StepKind.RESUME, agent="infra"),
        "No session had begun, so there is none to resume.",
        "",
    ),
    (
        NextStep(kind=StepKind.ASK, agent="infra", session_id="5e"),
        'Ask infra: dispatch_session(agent="infra", task=..., session_id="5e")',
        'tip: agent-dispatch run infra "Continue where you left off" --session 5e',
    ),
    (
        NextStep(kind=StepKind.ASK, agent="infra"),
        'Ask infra: dispatch_session(agent="infra", task=...)',
        "tip: agent-dispatch run --help",
    ),
    (
        NextStep(kind=StepKind.WAIT, job_id="1a"),
        'Its answer: dispatch_wait(job_id="1a")',
        "tip: agent-dispatch wait 1a",
    ),
    (
        NextStep(kind=StepKind.MORE_TIME, timeout_s=120),
        "Give it longer: timeout_seconds=120 (at most 7200), or fewer rounds: max_rounds",
        (
            "tip: more time: --timeout-seconds 120; fewer rounds: --max-rounds;"
            " see `agent-dispatch dialogue --help`"
        ),
    ),
    (
        NextStep(kind=StepKind.MORE_TIME, agent="infra", timeout_s=120),
        (
            "Or give it longer: timeout_seconds=120 for one call (at most 7200), or for good"
            ' update_agent(name="infra", timeout=120). For long work use dispatch_async, which does'
            " not keep you waiting."
        ),
        (
            "tip: more time: --timeout-seconds 120 for one run, or for all:"
            " `agent-dispatch update infra --timeout 120`"
        ),
    ),
    (
        NextStep(kind=StepKind.RAISE_BUDGET, agent="infra", budget_usd="0.2"),
        "Or raise the cap. Ask your user to run: agent-dispatch update infra --max-budget-usd 0.2",
        "tip: raise the cap: `agent-dispatch update infra --max-budget-usd 0.2`",
    ),
    (
        NextStep(kind=StepKind.UPDATE_AGENT, agent="infra"),
        'Change it: update_agent(name="infra", ...)',
        "tip: agent-dispatch update infra --help",
    ),
    (
        NextStep(kind=StepKind.ADD_AGENT),
        "Register one: add_agent(name=..., directory=...)",
        "tip: agent-dispatch add --help",
    ),
    (
        NextStep(kind=StepKind.LOOK_AT_JOB, job_id="1a"),
        'Look at it: dispatch_status(job_id="1a")',
        "tip: agent-dispatch job 1a",
    ),
    (
        NextStep(kind=StepKind.LIST_JOBS),
        "List the known jobs: dispatch_jobs()",
        "tip: agent-dispatch jobs",
    ),
    (
        NextStep(kind=StepKind.LIST_AGENTS),
        "List the agents: list_agents()",
        "tip: agent-dispatch list",
    ),
    (
        NextStep(kind=StepKind.REMOVE_OLD_JOBS),
        "Remove old jobs: dispatch_gc()",
        "tip: agent-dispatch gc",
    ),
    (
        run("agent-dispatch doctor"),
        "Ask your user to run: agent-dispatch doctor",
        "tip: agent-dispatch doctor",
    ),
]


@pytest.mark.parametrize(("step", "tools", "shell"), STEPS)
def test_each_surface_words_a_step_in_its_own_language(
    step: NextStep, tools: str, shell: str
) -> None:
    assert in_tools(step) == tools
    assert in_shell(step) == shell


def test_every_kind_of_step_is_in_the_table() -> None:
    assert {step.kind for step, _, _ in STEPS} == set(StepKind)


def _report(*events: dict[str, Any], **facts: Any) -> RunReport:
    return report(builders.init(), *events, **facts)


_NO_PROGRAM = StartFailure(stage=StartStage.CLI_MISSING, errno=2, text="No such file")
_LOST = verdict(
    new_job(JOB_ID, DispatchRequest(agent="infra", task="x"), 1.0, kind=JobKind.CALL), 2.0
)
assert _LOST.result is not None
FAILURES: dict[ErrorType, DispatchResult] = {
    ErrorType.PERMISSION: classify(
        _report(
            builders.denied("Bash"),
            builders.failed(
                "error_during_execution",
                "tool_denied",
                "No.",
                permission_denials=[builders.denial("Bash")],
            ),
        )
    ),
    ErrorType.TIMEOUT: classify(_report(ending=Ending.DEADLINE)),
    ErrorType.RECURSION: recursion_refused("infra", 3, 3),
    ErrorType.NOT_FOUND: classify(
        report(ending=Ending.START_FAILED, start_failure=_NO_PROGRAM, exit_code=None)
    ),
    ErrorType.BUDGET: classify(
        _report(
            builders.failed("error_max_budget_usd", "budget_exhausted", "Reached"),
            agent=agent(max_budget_usd=0.1),
        )
    ),
    ErrorType.AUTH: classify(_report(ending=Ending.AUTH)),
    ErrorType.USAGE_LIMIT: classify(
        _report(builders.failed("success", "completed", "Limit", api_error_status=429))
    ),
    ErrorType.CANCELLED: classify(_report(ending=Ending.CANCELLED)),
    ErrorType.LOST: _LOST.result,
    ErrorType.SCHEMA: classify(_report(builders.result("words"), json_schema='{"type":"object"}')),
    ErrorType.UNVERIFIED: apply_check(
        DispatchResult(agent="infra", success=True, result="Done."),
        ["pytest", "-q"],
        CheckResult("it exited with status 1", "1 failed"),
    ),
    ErrorType.UNREACHABLE: refused(
        "train",
        "Host 'gpu' cannot be reached: connection refused.",
        ErrorType.UNREACHABLE,
        [run("ssh gpu true"), NextStep(kind=StepKind.WAIT, job_id=f"{JOB_ID}@gpu")],
    ),
    ErrorType.CLI_ERROR: classify(report(exit_code=1)),
}


@pytest.mark.parametrize("error_type", list(ErrorType))
def test_no_surface_speaks_the_language_of_the_other(error_type: ErrorType) -> None:
    failure = FAILURES[error_type]
    assert failure.error_type is error_type
    in_mcp, at_shell = (_text(failure, say) for say in (in_tools, in_shell))
    assert "Ask your user" not in at_shell
    assert TOOL_NAME.search(at_shell) is None
    for line in in_mcp.splitlines():
        if COMMAND.search(line):
            assert "Ask your user to run: " in line


def _text(result: DispatchResult, say: Say) -> str:
    shown = worded(result, say)
    assert shown.next_steps is None
    return f"{shown.error} {shown.hint}"


def test_a_record_keeps_the_steps_and_each_reader_words_them() -> None:
    job = decode_record(encode_record(_LOST, {}), JOB_ID)
    assert job == _LOST
    resumable = msgspec.structs.replace(
        _LOST,
        result=refused(
            "infra",
            "Gone.",
            ErrorType.LOST,
            [NextStep(kind=StepKind.RESUME, agent="infra", session_id=SESSION)],
        ),
    )
    for say, words in ((in_tools, "dispatch_session("), (in_shell, "agent-dispatch run infra")):
        shown = worded_job(decode_record(encode_record(resumable, {}), JOB_ID), say)
        assert shown.result is not None
        assert shown.error == shown.result.error
        assert words in (shown.error or "")
        assert b"next_steps" not in msgspec.json.encode(shown)


def test_a_step_of_a_kind_from_a_newer_program_does_not_break_a_record() -> None:
    content = bytes(encode_record(_LOST, {})).replace(b'"kind":"resume"', b'"kind":"teleport"')
    assert b"teleport" in content
    job = decode_record(content, JOB_ID)
    assert job.result is not None
    assert job.result.next_steps is None


def test_a_record_with_text_that_utf_8_cannot_say_keeps_its_steps() -> None:
    step = NextStep(kind=StepKind.RESUME, agent="infra", session_id="5e", directory="/srv/\udcff")
    job = msgspec.structs.replace(_LOST, result=refused("infra", "Gone.", next_steps=[step]))
    kept = decode_record(encode_record(job, {}), JOB_ID)
    assert kept.result is not None
    assert kept.result.next_steps == [msgspec.structs.replace(step, directory="/srv/\ufffd")]


def test_no_tool_declares_the_steps() -> None:
    for tool in TOOLS:
        assert "next_steps" not in tool.listing().get("outputSchema", {}).get("properties", {})


def test_a_wrong_call_comes_with_its_steps() -> None:
    error = UnknownAgentError("db", available=[])
    assert "Register one: add_agent(" in worded_error(error, in_tools)
    assert "tip: agent-dispatch add " in worded_error(error, in_shell)
