"""The command that gives several tasks at once."""

from agent_dispatch.cli.output import Colour, counted, one_line, remark, write_json, write_lines
from agent_dispatch.cli.reading import read_text
from agent_dispatch.cli.run import failure_status, show_result
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.parallel import read_members
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult


def parallel(
    file: str, /, *, aggregate: str = "", stream: bool = False, json: bool = False, shell: Shell
) -> int:
    """Give several tasks to agents at once and print all answers, in the order of the file.

    Args:
        file: A JSON list of objects with agent, task, and what `run` takes besides; `-` reads it
            from stdin.
        aggregate: The agent that makes one answer of all.
        stream: Print a line for each thing the agents do.
        json: Print what the MCP tool `dispatch_parallel` answers, nothing cut.
        shell: The outside world.
    """
    members = read_members(read_text(shell, file, "The list of tasks"))
    fork_server = shell.start_fork_server()
    try:
        from agent_dispatch.cli.attend import attend
        from agent_dispatch.cli.progress import style_for
        from agent_dispatch.cli.works import ManyDispatches

        many = ManyDispatches(members, aggregate)
        attended = attend(shell, fork_server, many.work, style_for(shell, stream=stream))
    finally:
        fork_server.close()
    outcome = many.outcome(attended)
    if json:
        _write_json(shell, outcome)
    else:
        _show(shell, outcome)
    if attended.signum is not None:
        return 128 + attended.signum
    return _status(outcome)


def _write_json(shell: Shell, outcome: ParallelResult) -> None:
    results = list(outcome.individual_results)
    if outcome.aggregated is None:
        write_json(shell, results)
    else:
        write_json(
            shell, ParallelAnswer(individual_results=[*results], aggregated=outcome.aggregated)
        )


def _show(shell: Shell, outcome: ParallelResult) -> None:
    results = outcome.individual_results
    for number, result in enumerate(results, start=1):
        heading = f"## {number}. {one_line(result.agent)}"
        write_lines(shell, [heading if number == 1 else f"\n{heading}", ""])
        show_result(shell, result)
    if outcome.aggregated is not None:
        write_lines(shell, [f"\n## All together, by {one_line(outcome.aggregated.agent)}", ""])
        show_result(shell, outcome.aggregated)
    failed = sum(not result.success for result in results)
    # What is marked as cached was paid for by another, which may be among them.
    paid = [r for r in (*results, outcome.aggregated) if r is not None and not r.cached]
    costs = [result.cost_usd for result in paid if result.cost_usd is not None]
    cost = f", ${sum(costs):.4f}" if costs else ""
    remark(shell, f"{counted(len(results), 'task')}, {failed} failed{cost}", Colour.FAINT)


def _status(outcome: ParallelResult) -> int:
    """0 all succeeded, 124 all that failed timed out, 1 any other failure."""
    everything = [*outcome.individual_results, outcome.aggregated]
    statuses = {failure_status(r.error_type) for r in everything if r and not r.success}
    return max(statuses, default=0) if len(statuses) < 2 else 1
