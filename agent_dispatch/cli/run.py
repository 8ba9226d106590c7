"""Commands that give a task to an agent and wait for the answer."""

import signal

from agent_dispatch.cli.output import (
    Colour,
    counted,
    one_line,
    remark,
    write_answer,
    write_json,
    write_lines,
)
from agent_dispatch.cli.reading import read_text
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.call_timeout import call_timeout_s
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.answer import Submitted
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType

DEFAULT_TASK = "What project is this? Describe in one sentence."

_TIMEOUT_STATUS = 124


def run(
    name: str,
    task: str,
    /,
    *,
    context: str = "",
    caller: str = "",
    goal: str = "",
    session: str = "",
    response_format: str = "",
    json_schema: str = "",
    timeout_seconds: float = 0,
    background: bool = False,
    stream: bool = False,
    json: bool = False,
    shell: Shell,
) -> int:
    """Give a task to an agent and print its answer. It costs what a Claude session costs.

    Args:
        name: The agent.
        task: What to do; the agent knows nothing of your conversation. `-` reads it from stdin.
        context: Error messages, code, whatever the task needs.
        caller: Your project or role.
        goal: The broader objective.
        session: The session of an earlier answer: the agent remembers, and goes on there.
        response_format: "json" asks for one JSON value; it comes as parsed_result with --json.
        json_schema: A file with the JSON Schema that the answer has to fit.
        timeout_seconds: Seconds for this run, 10 to 7200; 0 takes the agent's own.
        background: Print the id of a job that goes on by itself, and do not wait for it.
        stream: Print a line for each thing the agent does.
        json: Print the result as the MCP tool `dispatch` answers it.
        shell: The outside world.
    """
    if background and stream:
        raise InvalidRequestError(
            "With --background there is nothing to stream yet: leave --stream out, and follow the"
            " job with: agent-dispatch tail ID --follow"
        )
    if task == json_schema == "-":
        raise InvalidRequestError(
            "The task and the schema cannot both come on stdin: put the schema into a file."
        )
    request = DispatchRequest(
        agent=name,
        task=read_text(shell, "-", "The task") if task == "-" else task,
        context=context,
        caller=caller,
        goal=goal,
        response_format=response_format,
        json_schema=_read_schema(shell, json_schema) if json_schema else "",
        timeout_s=call_timeout_s(timeout_seconds),
        session_id=session or None,
    )
    if background:
        return _submit(shell, request, as_json=json)
    return _dispatch(shell, request, stream=stream, as_json=json)


def try_agent(
    name: str,
    task: str = DEFAULT_TASK,
    /,
    *,
    timeout_seconds: float = 0,
    stream: bool = False,
    json: bool = False,
    shell: Shell,
) -> int:
    """Try an agent with a small task. It costs what a Claude session costs.

    Args:
        name: The agent.
        task: What to do; `-` reads it from stdin.
        timeout_seconds: Seconds for this run, 10 to 7200; 0 takes the agent's own.
        stream: Print a line for each thing the agent does.
        json: Print the result as the MCP tool `dispatch` answers it.
        shell: The outside world.
    """
    return run(name, task, timeout_seconds=timeout_seconds, stream=stream, json=json, shell=shell)


def _read_schema(shell: Shell, file: str) -> str:
    schema = read_text(shell, file, "The schema").strip()
    if not schema:
        # Empty stands for none, which is not what was asked for.
        raise InvalidRequestError(
            f"The schema {'on stdin' if file == '-' else f'in {file}'} is empty; it takes a JSON"
            ' Schema, such as {"type": "object"}'
        )
    return schema


def _dispatch(shell: Shell, request: DispatchRequest, *, stream: bool, as_json: bool) -> int:
    fork_server = shell.start_fork_server()
    try:
        from agent_dispatch.cli.attend import attend
        from agent_dispatch.cli.progress import style_for
        from agent_dispatch.cli.works import OneDispatch

        one = OneDispatch(request)
        attended = attend(shell, fork_server, one.work, style_for(shell, stream=stream))
    finally:
        fork_server.close()
    result = one.outcome(attended)
    if as_json:
        write_json(shell, result)
    else:
        show_result(shell, result)
    return exit_status(result, attended.signum)


def _submit(shell: Shell, request: DispatchRequest, *, as_json: bool) -> int:
    fork_server = shell.start_fork_server()
    try:
        from agent_dispatch.cli.attend import submit

        job = submit(shell, fork_server, request)
    finally:
        fork_server.close()
    if as_json:
        write_json(shell, Submitted(job_id=job.id, status=job.status, agent=job.agent))
    else:
        write_lines(shell, [job.id])
        remark(shell, f"Its answer: agent-dispatch wait {job.id}", Colour.FAINT)
    return 0


def exit_status(result: DispatchResult, signum: signal.Signals | None) -> int:
    """0 done, 124 timeout, 128 + n ended by signal n, 1 any other failure."""
    if signum is not None:
        return 128 + signum
    return 0 if result.success else failure_status(result.error_type)


def failure_status(error_type: ErrorType | None) -> int:
    """124 timeout, 1 any other failure."""
    return _TIMEOUT_STATUS if error_type is ErrorType.TIMEOUT else 1


def show_result(shell: Shell, result: DispatchResult) -> None:
    """Print the answer on stdout, and what there is to say about it on stderr."""
    write_answer(shell, result.result)
    for text in _remarks(result):
        remark(shell, text, Colour.DOUBTFUL)
    if result.error is not None:
        kind = f" ({result.error_type})" if result.error_type else ""
        remark(shell, f"error{kind}: {result.error}", Colour.BAD)
    facts = _facts(result)
    if facts:
        remark(shell, one_line(f"{result.agent}: {', '.join(facts)}"), Colour.FAINT)


def _facts(result: DispatchResult) -> list[str]:
    """Turns, time, cost, session and job; what is not known is left out."""
    facts = [
        "cached" if result.cached else None,
        None if result.num_turns is None else counted(result.num_turns, "turn"),
        None if result.duration_ms is None else f"{result.duration_ms / 1000:.1f} s",
        None if result.cost_usd is None else f"${result.cost_usd:.4f}",
        None if result.session_id is None else f"session {result.session_id}",
        None if result.job_id is None else f"job {result.job_id}",
    ]
    return [fact for fact in facts if fact is not None]


def _remarks(result: DispatchResult) -> list[str]:
    remarks = []
    if result.earlier_results:
        earlier = counted(len(result.earlier_results), "earlier answer")
        remarks.append(f"note: this run gave {earlier}; see with --json")
    if result.denied_tools:
        remarks.append(f"warning: tools denied: {', '.join(result.denied_tools)}")
    if result.hint:
        remarks.append(f"hint: {result.hint}")
    if result.budget_exceeded:
        remarks.append("warning: this run cost more than its cap")
    if result.left_running:
        remarks.append(
            f"note: the agent left processes running, which were ended: {result.left_running}"
        )
    return remarks
