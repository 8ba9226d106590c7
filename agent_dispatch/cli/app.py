"""The command line: finds the command, calls it, and turns wrong calls into an exit status."""

import importlib
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from agent_dispatch.cli.arguments import arrange, plain_call
from agent_dispatch.cli.output import (
    Colour,
    OutputError,
    one_line,
    remark,
    report_error,
    write_lines,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError, SchemaError

if TYPE_CHECKING:
    # Imported when it parses: it costs more than most commands do.
    from cyclopts import App

DONE, FAILED, MISUSED = 0, 1, 2

_PACKAGE = "agent_dispatch.cli"


class _Command(NamedTuple):
    target: str
    """Module of this package and function; imported when the command is called."""
    help: str


COMMANDS = {
    "init": _Command("setup:init", "Create the config; register the server with Claude Code."),
    "add": _Command("agents:add", "Register a project directory as an agent."),
    "update": _Command("agents:update", "Change an agent: permissions, timeout, model, budget."),
    "remove": _Command("agents:remove", "Take an agent out of the config."),
    "list": _Command("agents:list_agents", "Show all agents, their health and permissions."),
    "describe": _Command("agents:describe", "Show the full configuration of one agent."),
    "import": _Command("agents:import_agents", "Take over the agents of an agents.yaml."),
    "run": _Command("run:run", "Give a task to an agent and print its answer."),
    "parallel": _Command("parallel:parallel", "Give several tasks at once, from a JSON file."),
    "dialogue": _Command("dialogue:dialogue", "Let two agents work something out."),
    "test": _Command("run:try_agent", "Try an agent with a small task."),
    "jobs": _Command("jobs:jobs", "List the newest jobs."),
    "job": _Command("jobs:job", "Show one job and its answer."),
    "wait": _Command("jobs:wait", "Wait for a job and print its answer."),
    "tail": _Command("jobs:tail", "Print what a job's agent did last; --follow goes on."),
    "cancel": _Command("jobs:cancel", "End a job that is pending or running."),
    "gc": _Command("jobs:gc", "Remove old jobs with their answers."),
    "doctor": _Command("doctor:doctor", "Check the whole installation; say what mends it."),
    "demo": _Command("demo:demo", "See a dispatch at work, without Claude and without cost."),
    "serve": _Command("app:serve", "Run the MCP server on stdin and stdout, for Claude Code."),
}

_HELP = """Let a Claude Code agent hand a task to an agent in another project directory.

Start with `agent-dispatch init`, then `agent-dispatch add NAME DIRECTORY`, then
`agent-dispatch run NAME "TASK"`. `agent-dispatch doctor` checks the installation."""


def run_cli(argv: Sequence[str], shell: Shell) -> int:
    """Run one command line.

    Args:
        argv: Without the program's name.
        shell: The outside world.

    Returns:
        The exit status: 0 done, 1 failed, 2 the command line, or the schema that it names, is
        wrong, 3 still running, 124 timeout, 128 + n ended by signal n.
    """
    try:
        return _call(argv, shell)
    except OutputError as error:
        # What is left in the buffer cannot be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), shell.stdout.fileno())
        remark(shell, f"error: {error}", Colour.BAD)
        return FAILED


def _call(argv: Sequence[str], shell: Shell) -> int:
    """Call the command, and tell what was wrong with the call."""
    as_json = False
    try:
        call = _plain(argv) or _parsed(argv, shell)
        if isinstance(call, int):
            return call
        as_json = bool(call.options.get("json"))
        return call.command(*call.words, **call.options, shell=shell)
    except DispatchError as error:
        report_error(shell, str(error), as_json=as_json)
        return MISUSED if isinstance(error, SchemaError) else FAILED


def serve(*, shell: Shell) -> int:
    """Run the MCP server on stdin and stdout; Claude Code starts it by itself."""
    return shell.serve(())


class _Call(NamedTuple):
    command: Callable[..., int]
    words: Sequence[object]
    options: Mapping[str, object]


def _plain(argv: Sequence[str]) -> _Call | None:
    plain = plain_call(argv)
    if plain is None:
        return None
    module, _, function = COMMANDS[plain.command].target.partition(":")
    command = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), function)
    return _Call(command, plain.words, dict.fromkeys(plain.flags, True))


def _parsed(argv: Sequence[str], shell: Shell) -> _Call | int:
    """Parse with cyclopts; an exit status if that was all there was to do."""
    asks_for_help = not argv or argv[0] in ("-h", "--help")
    if not asks_for_help and argv[0] not in COMMANDS:
        return _misused(shell, _unknown_command(argv[0]))
    from cyclopts import CycloptsError, UnknownOptionError, UnusedCliTokensError

    app = _build_app(argv)
    if asks_for_help:
        return _show_help(app, argv[1:2], shell)
    tokens = arrange(argv[1:], _options_of(app[argv[0]]))
    if _asks_for_help(tokens):
        return _show_help(app, argv[:1], shell)
    try:
        command, bound, _ = app.parse_args(
            [argv[0], *tokens], exit_on_error=False, print_error=False
        )
    except UnknownOptionError as error:
        hint = "A word that begins with a dash goes behind `--`, a value behind `=`."
        return _misused(shell, f"{error} {hint}", argv[0])
    except UnusedCliTokensError as error:
        extra = " ".join(error.unused_tokens or ())
        hint = "A task or a value of several words needs quotes around it."
        return _misused(shell, f"There is no place for: {extra}. {hint}", argv[0])
    except CycloptsError as error:
        return _misused(shell, str(error), argv[0])
    return _Call(command, bound.args, bound.kwargs)


def _misused(shell: Shell, message: str, command: str | None = None) -> int:
    remark(shell, f"error: {one_line(message)}", Colour.BAD)
    remark(shell, " ".join(filter(None, ("See: agent-dispatch", command, "--help"))))
    return MISUSED


def _unknown_command(word: str) -> str:
    import difflib

    similar = difflib.get_close_matches(word, COMMANDS, n=1)
    meant = f" Did you mean {similar[0]}?" if similar else ""
    return f"Unknown command: {word!r}.{meant} Commands: {', '.join(COMMANDS)}."


def _build_app(argv: Sequence[str]) -> "App":
    from cyclopts import App, Parameter

    app = App(
        name="agent-dispatch",
        help=_HELP,
        version_flags=(),
        # `shell` is passed by the caller; flags have no `--no-` twin.
        default_parameter=Parameter(
            negative=(), show_default=False, parse=re.compile(r"^(?!shell$)")
        ),
    )
    for place, (name, command) in enumerate(COMMANDS.items()):
        app.command(
            f"{_PACKAGE}.{command.target}",
            name=name,
            # The page of one command has room for its docstring; the list imports none of them.
            help=None if name in argv[:2] else command.help,
            sort_key=place,
        )
    return app


def _options_of(command: "App") -> dict[str, bool]:
    """The options of a command, and whether each takes a value."""
    options = dict.fromkeys(command.help_flags, False)
    for argument in command.assemble_argument_collection():
        takes_value = argument.token_count()[0] > 0
        options |= {name: takes_value for name in argument.names if name.startswith("-")}
    return options


def _asks_for_help(tokens: Sequence[str]) -> bool:
    options = itertools.takewhile(lambda token: token != "--", tokens)
    return not {"-h", "--help"}.isdisjoint(options)


def _restore_docstring(command: _Command) -> None:
    """Give a command the help that `python -OO` took from it."""
    module, _, name = command.target.partition(":")
    function = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    if function.__doc__ is not None:
        return
    import ast
    import inspect

    try:
        [definition] = ast.parse(inspect.getsource(function)).body
    except OSError:
        # Installed as byte code alone: the short help is all there is.
        function.__doc__ = command.help
        return
    assert isinstance(definition, ast.FunctionDef)
    function.__doc__ = ast.get_docstring(definition)


def _show_help(app: "App", tokens: Sequence[str], shell: Shell) -> int:
    from rich.console import Console

    known = [token for token in tokens if token in COMMANDS]
    for name in known:
        _restore_docstring(COMMANDS[name])
    console = Console(file=shell.stdout)
    # Captured, because rich has its own way to end a process whose reader left.
    with console.capture() as page:
        app.help_print(known, console=console)
    write_lines(shell, [page.get().rstrip("\n")])
    return DONE
