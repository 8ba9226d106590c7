"""The command that lets two agents work something out."""

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
from agent_dispatch.cli.run import failure_status
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.call_timeout import call_timeout_s
from agent_dispatch.model.dialogue import DEFAULT_ROUNDS, DialogueRequest, DialogueResult


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
        responder: The agent with the expertise or the tools; it begins.
        topic: What to find out or to decide. `-` reads it from stdin.
        max_rounds: Back and forth, at most, 1 to 10.
        timeout_seconds: Seconds for all of it, 10 to 7200; 0 gives each turn its agent's own.
        stream: Print a line for each thing the agents do.
        json: Print what the MCP tool `dispatch_dialogue` answers, nothing cut.
        shell: The outside world.
    """
    request = DialogueRequest(
        requester=requester,
        responder=responder,
        topic=read_text(shell, "-", "The topic") if topic == "-" else topic,
        max_rounds=max_rounds,
        timeout_s=call_timeout_s(timeout_seconds),
    )
    fork_server = shell.start_fork_server()
    try:
        from agent_dispatch.cli.attend import attend
        from agent_dispatch.cli.progress import style_for
        from agent_dispatch.cli.works import OneDialogue

        one = OneDialogue(request)
        attended = attend(shell, fork_server, one.work, style_for(shell, stream=stream))
    finally:
        fork_server.close()
    result = one.outcome(attended)
    if json:
        write_json(shell, result)
    else:
        _show(shell, result)
    if attended.signum is not None:
        return 128 + attended.signum
    return 0 if result.error is None else failure_status(result.error_type)


def _show(shell: Shell, result: DialogueResult) -> None:
    for turn in result.conversation:
        heading = f"## Round {turn.round}: {one_line(turn.agent)} ({turn.role})"
        write_lines(shell, [heading, ""])
        write_answer(shell, turn.message)
        write_lines(shell, [""])
    write_lines(shell, ["## Answer" if result.resolved else "## Not settled; said last", ""])
    write_answer(shell, result.final_answer)
    if result.hint:
        remark(shell, f"hint: {result.hint}", Colour.DOUBTFUL)
    if result.error is not None:
        kind = f" ({result.error_type})" if result.error_type else ""
        remark(shell, f"error{kind}: {result.error}", Colour.BAD)
    cost = "" if result.total_cost_usd is None else f", ${result.total_cost_usd:.4f}"
    seconds = f"{result.total_duration_ms / 1000:.1f} s"
    remark(shell, f"{counted(result.rounds, 'round')}, {seconds}{cost}", Colour.FAINT)
    for agent, session_id in (result.sessions or {}).items():
        remark(shell, one_line(f"{agent}: session {session_id}"), Colour.FAINT)
    if result.job_id is not None:
        remark(shell, f"job {result.job_id}", Colour.FAINT)
