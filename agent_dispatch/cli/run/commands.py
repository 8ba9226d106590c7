"""Commands that give tasks to agents: `run`, `test`, `parallel`, `dialogue`."""

from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.cli.output import Colour, remark, write_json, write_lines
from agent_dispatch.cli.run.ended import Ended, dialogue_result, dispatch_result, parallel_result
from agent_dispatch.cli.run.input import read_schema, read_text
from agent_dispatch.cli.run.results import (
    exit_status,
    failures_of,
    show_dialogue,
    show_parallel,
    show_result,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.cli.validation import check_call_timeout, check_choice, check_range
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.request.parallel import read_members
from agent_dispatch.core.request.timeout import call_timeout_s
from agent_dispatch.model import next_step as steps
from agent_dispatch.model.dialogue import DEFAULT_ROUNDS, MAX_ROUNDS, DialogueRequest
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult
from agent_dispatch.model.replies import Submitted

if TYPE_CHECKING:
    from agent_dispatch.cli.run.foreground import Call

T = TypeVar("T")

DEFAULT_TASK = "What project is this? Describe in one sentence."


def run(
    name: str,
    task: str,
    /,
    *,
    context: str = "",
    caller: str = "",
    goal: str = "",
    group: str = "",
    session: str = "",
    response_format: str = "",
    json_schema: str = "",
    timeout_seconds: float = 0,
    model: str = "",
    effort: str = "",
    verify: bool = False,
    background: bool = False,
    stream: bool = False,
    json: bool = False,
    shell: Shell,
) -> int:
    """Give a task to an agent and print its answer. It costs what a Claude session costs.

    Commands never answer from a cache: each one runs its task.

    Args:
        name: The agent.
        task: What to do; the agent does not see your conversation. `-` reads stdin.
        context: Error messages, code, anything else the task needs.
        caller: Your project or role.
        goal: The broader objective.
        group: A group of the agent, whose shared context it gets with the task.
        session: The session of an earlier answer, to continue that conversation.
        response_format: "json" asks for one JSON value; it comes as parsed_result with --json.
        json_schema: A file with the JSON Schema that the answer must match.
        timeout_seconds: Seconds for this run, 10 to 7200; 0 takes the agent's own.
        model: The model of this run, as `claude --model` takes it.
        effort: The effort of this run: low, medium, high, xhigh or max.
        verify: Run the agent's own verify command on its work; it decides about success.
        background: Start a background job, print its id and return at once.
        stream: Print a line for each thing the agent does.
        json: Print the result as the MCP tool `dispatch` answers it.
    """
    check_call_timeout(timeout_seconds)
    if response_format:
        check_choice("--response-format", response_format, ["json"])
    if background and stream:
        raise MisuseError(
            "--background and --stream exclude each other.",
            steps.run("agent-dispatch tail --follow"),
        )
    if task == json_schema == "-":
        raise MisuseError(
            "The task and the schema cannot both come on stdin: put the schema into a file."
        )
    request = DispatchRequest(
        agent=name,
        task=read_text(shell, "-", "The task") if task == "-" else task,
        context=context,
        caller=caller,
        goal=goal,
        group=group,
        response_format=response_format,
        json_schema=read_schema(shell, json_schema) if json_schema else "",
        timeout_s=call_timeout_s(timeout_seconds),
        session_id=session or None,
        model=model,
        effort=effort,
        verify=verify,
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
    """
    return run(name, task, timeout_seconds=timeout_seconds, stream=stream, json=json, shell=shell)


def parallel(
    file: str, /, *, aggregate: str = "", stream: bool = False, json: bool = False, shell: Shell
) -> int:
    """Run several tasks at once and print all answers, in the order of the file.

    Args:
        file: A JSON list of objects with agent, task and other options of `run`; `-` reads stdin.
        aggregate: The agent that combines all answers into one.
        stream: Print a line for each thing the agents do.
        json: Print what the MCP tool `dispatch_parallel` answers, nothing cut.
    """
    members = read_members(read_text(shell, file, "The list of tasks"))
    ended = _in_foreground(
        shell,
        lambda service, on_progress: service.parallel(members, aggregate, on_progress),
        stream=stream,
    )
    outcome = parallel_result(ended, members, aggregate)
    if json:
        _write_parallel(shell, outcome)
    else:
        show_parallel(shell, outcome)
    failures = failures_of(*outcome.individual_results, outcome.aggregated)
    return exit_status(failures, ended.signum)


def dialogue(
    requester: str,
    responder: str,
    topic: str,
    /,
    *,
    max_rounds: int = DEFAULT_ROUNDS,
    timeout_seconds: float = 0,
    stream: bool = False,
    json: bool = False,
    shell: Shell,
) -> int:
    """Let two agents talk until one says that the topic is settled, and print what they said.

    Args:
        requester: The agent with the problem.
        responder: The agent with the expertise or the tools; it speaks first.
        topic: The question to settle; `-` reads stdin.
        max_rounds: At most this many exchanges, 1 to 10.
        timeout_seconds: Seconds for all of it, 10 to 7200; 0 gives each turn its agent's own.
        stream: Print a line for each thing the agents do.
        json: Print what the MCP tool `dispatch_dialogue` answers, nothing cut.
    """
    check_call_timeout(timeout_seconds)
    check_range("--max-rounds", max_rounds, 1, MAX_ROUNDS)
    request = DialogueRequest(
        requester=requester,
        responder=responder,
        topic=read_text(shell, "-", "The topic") if topic == "-" else topic,
        max_rounds=max_rounds,
        timeout_s=call_timeout_s(timeout_seconds),
    )
    ended = _in_foreground(
        shell,
        lambda service, on_progress: service.dialogue(request, on_progress),
        stream=stream,
    )
    result = dialogue_result(ended, responder)
    if json:
        write_json(shell, worded(result, in_shell))
    else:
        show_dialogue(shell, result)
    failures = [] if result.error is None else [result.error_type]
    return exit_status(failures, ended.signum)


def _in_foreground(
    shell: Shell, call: "Call[T]", *, stream: bool, asks_here: bool = False
) -> Ended[T]:
    with closing(shell.start_fork_server()) as fork_server:
        # Not before the fork: the fork server would keep a copy of Trio.
        from agent_dispatch.cli.run.foreground import run_in_foreground
        from agent_dispatch.cli.run.progress import style_for

        style = style_for(shell, stream=stream)
        return run_in_foreground(shell, fork_server, call, style, asks_here=asks_here)


def _dispatch(shell: Shell, request: DispatchRequest, *, stream: bool, as_json: bool) -> int:
    ended = _in_foreground(
        shell,
        lambda service, on_progress: service.dispatch(request, on_progress),
        stream=stream,
        asks_here=True,
    )
    result = dispatch_result(ended, request.agent)
    if as_json:
        write_json(shell, worded(result, in_shell))
    else:
        show_result(shell, result)
    return exit_status(failures_of(result), ended.signum)


def _submit(shell: Shell, request: DispatchRequest, *, as_json: bool) -> int:
    job = call_service(shell, lambda service: service.submit(request))
    if as_json:
        write_json(shell, Submitted(job_id=job.id, status=job.status, agent=job.agent))
    else:
        write_lines(shell, [job.id])
        remark(shell, f"Its answer: agent-dispatch wait {short_id(job.id)}", Colour.FAINT)
    return 0


def _write_parallel(shell: Shell, outcome: ParallelResult) -> None:
    results = [worded(result, in_shell) for result in outcome.individual_results]
    if outcome.aggregated is None:
        write_json(shell, results)
    else:
        aggregated = worded(outcome.aggregated, in_shell)
        write_json(shell, ParallelAnswer(individual_results=[*results], aggregated=aggregated))
