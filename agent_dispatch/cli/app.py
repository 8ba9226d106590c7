"""The command line: find the command, parse its arguments, call it.

Importing cyclopts takes as long as a whole `list`. A call that gives only words and flags is
therefore bound here, from the command's own signature; cyclopts binds every other call, reports
what is wrong with one, and renders the help.
"""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from agent_dispatch import __version__
from agent_dispatch.cli.help_pages import ALIASES, EXAMPLES, TOPICS, first_page, topic_page
from agent_dispatch.cli.output import (
    Colour,
    OutputError,
    one_line,
    remark,
    write_lines,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError, SchemaError
from agent_dispatch.model.names import did_you_mean
from agent_dispatch.model.next_step import run

if TYPE_CHECKING:
    from cyclopts import App

DONE, FAILED, MISUSED = 0, 1, 2

_NEEDS_NO_CONFIG = frozenset(
    (
        "init",
        "add",
        "import",
        "uninstall",
        "demo",
        "doctor",
        "serve",
        "completion",
        "help",
        "version",
    )
)
"""Commands that create the configuration, report a missing one, or do not read it."""
_READS_JOBS = frozenset(
    ("wait", "job", "tail", "watch", "why", "send", "answer", "questions", "cancel", "gc", "stats")
)
"""Commands that need the configuration only to find the jobs beside it."""

_PACKAGE = "agent_dispatch.cli"
_HELP_FLAGS = frozenset(("-h", "--help"))
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?:=.*)?", re.DOTALL)
"""A token that can only be an option, unlike `- a list` and `--flag: why?`."""


class _Command(NamedTuple):
    target: str
    """Module of this package and function; imported when the command is called."""
    help: str
    """Its line in the list of commands."""


COMMANDS = {
    "init": _Command(
        "setup.init:init", "Create the config and register the server with Claude Code."
    ),
    "add": _Command("agents.commands:add", "Register a project directory as an agent."),
    "update": _Command(
        "agents.commands:update", "Change an agent: permissions, timeout, model, budget."
    ),
    "remove": _Command("agents.commands:remove", "Remove an agent from the config."),
    "list": _Command(
        "agents.commands:list_agents", "List all agents, their health and permissions."
    ),
    "describe": _Command("agents.commands:describe", "Show the full configuration of one agent."),
    "group": _Command("agents.groups:group", "Manage groups: add, list, inspect, update, remove."),
    "import": _Command("agents.commands:import_agents", "Import agents from an agents.yaml."),
    "hosts": _Command("hosts:hosts", "List, add and remove machines that have agents."),
    "run": _Command("run.commands:run", "Give a task to an agent and print its answer."),
    "parallel": _Command("run.commands:parallel", "Run several tasks at once, from a JSON file."),
    "dialogue": _Command("run.commands:dialogue", "Let two agents work out a topic."),
    "test": _Command("run.commands:try_agent", "Try an agent with a small task."),
    "jobs": _Command("jobs.commands:jobs", "List the newest jobs."),
    "job": _Command("jobs.commands:job", "Show one job and its answer."),
    "wait": _Command("jobs.commands:wait", "Wait for a job and print its answer."),
    "tail": _Command(
        "jobs.commands:tail", "Print a job's latest progress; --follow keeps printing."
    ),
    "watch": _Command("watch.command:watch", "Watch all jobs live, and act on them with a key."),
    "send": _Command("jobs.send:send", "Tell a running agent something more."),
    "why": _Command("jobs.why:why", "Explain what decided how a job went."),
    "cancel": _Command("jobs.commands:cancel", "Cancel a pending or running job."),
    "questions": _Command("jobs.questions:questions", "List what agents ask permission for."),
    "answer": _Command("jobs.questions:answer", "Allow or deny the call that an agent asks for."),
    "gc": _Command("jobs.commands:gc", "Remove old jobs and their answers."),
    "stats": _Command("jobs.stats:stats", "Show what runs cost and how they went."),
    "uninstall": _Command("setup.uninstall:uninstall", "Remove our entries from all clients."),
    "doctor": _Command(
        "doctor.command:doctor", "Check the installation and print a fix for each failure."
    ),
    "demo": _Command(
        "demo.command:demo", "Show a dispatch at work, without Claude and without cost."
    ),
    "serve": _Command("app:serve", "Run the MCP server on stdin and stdout, for Claude Code."),
    "completion": _Command("completion:completion", "Print the completion of bash, zsh or fish."),
    "help": _Command("app:show_help", "Explain a command or a topic."),
    "version": _Command("app:show_version", "Print the version."),
}


def run_cli(argv: Sequence[str], shell: Shell) -> int:
    """Run one command line.

    Args:
        argv: Without the program's name.
        shell: The outside world.

    Returns:
        The exit status: 0 done, 1 failed, 2 the command line or the schema it names is wrong,
        3 still running, 124 timeout, 128 + n ended by signal n.
    """
    try:
        return _call(argv, shell)
    except OutputError as error:
        # The rest of the buffer cannot be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), shell.stdout.fileno())
        remark(shell, f"error: {error}", Colour.BAD)
        return FAILED


def _call(argv: Sequence[str], shell: Shell) -> int:
    if not argv:
        return _show_first_page(shell)
    word, *tokens = argv
    name = "help" if word in _HELP_FLAGS else ALIASES.get(word, word)
    if name not in COMMANDS:
        said = f"Unknown command: {name!r}.{did_you_mean(name, [*COMMANDS, *ALIASES])}"
        return _misused(shell, said, as_json="--json" in tokens)
    command = function_of(name)
    options, words = split_tokens(tokens, options_of(command))
    if not _HELP_FLAGS.isdisjoint(options):
        return _show_page(name, shell)
    bound = bind_flags(command, options, words) or _bind(name, options, words, shell)
    if bound is None:
        return MISUSED
    arguments, values = bound
    try:
        _require_config(name, words, shell)
        status: int = command(*arguments, **values, shell=shell)
    except DispatchError as error:
        from agent_dispatch.cli.errors import MisuseError, report_error

        misused = isinstance(error, SchemaError | MisuseError)
        if misused and not error.next_steps:
            error.next_steps = (run(f"agent-dispatch {name} --help"),)
        report_error(shell, error, as_json=bool(values.get("json")))
        return MISUSED if misused else FAILED
    return status


def _require_config(name: str, words: Sequence[str], shell: Shell) -> None:
    """Refuse a command that reads, if `$AGENT_DISPATCH_CONFIG` is mistyped."""
    named = shell.environ.get("AGENT_DISPATCH_CONFIG")
    jobs_named = name in _READS_JOBS and shell.environ.get("AGENT_DISPATCH_JOBS_DIR")
    creates = name in _NEEDS_NO_CONFIG or (name in ("group", "hosts") and words[:1] == ["add"])
    if named and not creates and not jobs_named:
        from agent_dispatch.config.paths import require_named_config

        require_named_config(shell.environ)


def serve(*, shell: Shell) -> int:
    """Run the MCP server on stdin and stdout. Claude Code starts it."""
    return shell.serve(())


def show_version(*, shell: Shell) -> int:
    """Print the version."""
    write_lines(shell, [f"agent-dispatch {__version__}"])
    return DONE


def show_help(topic: str = "", /, *, shell: Shell) -> int:
    """Explain a command or a topic: exit-codes, environment.

    Args:
        topic: The command or the topic; without it, all commands are listed.
        shell: The outside world.
    """
    if not topic:
        return _show_first_page(shell)
    if topic in TOPICS:
        write_lines(shell, topic_page(topic, shell))
        return DONE
    name = ALIASES.get(topic, topic)
    if name not in COMMANDS:
        near = did_you_mean(topic, [*COMMANDS, *ALIASES, *TOPICS])
        return _misused(shell, f"No help on {topic!r}.{near}")
    return _show_page(name, shell)


def function_of(name: str) -> FunctionType:
    """The function of a command; its module is imported now."""
    module, _, function = COMMANDS[name].target.partition(":")
    found = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), function)
    assert isinstance(found, FunctionType)
    return found


def options_of(command: FunctionType) -> dict[str, bool]:
    """The options of a command, and whether each takes a value: all but flags do."""
    options = {
        _option_of(name): default is not False
        for name, default in (command.__kwdefaults__ or {}).items()
    }
    return options | dict.fromkeys(_HELP_FLAGS, False)


def split_tokens(tokens: Sequence[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    r"""Separate options from words, so that a word may begin with a dash.

    A value may begin with a dash, after `=` or a space. A word may, if it cannot be an option
    (a task `- one\n- two`) or stands after `--`.

    Args:
        tokens: What follows the command's name.
        options: The options of the command, and whether each takes a value.

    Returns:
        The options, each with its value as `--name=value`, and the words. An unknown token that
        looks like an option is among the options, where the parser refuses it.
    """
    found: list[str] = []
    words: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return found, words + rest
        if options.get(token) and rest and not _is_known(rest[0], options):
            found.append(f"{token}={rest.pop(0)}")
        elif _is_known(token, options) or _OPTION.fullmatch(token):
            found.append(token)
        else:
            words.append(token)
    return found, words


def _is_known(token: str, options: Mapping[str, bool]) -> bool:
    return token == "--" or token.partition("=")[0] in options


_Bound = tuple[Sequence[object], Mapping[str, object]]
"""Arguments by position and by name."""


def bind_flags(
    command: FunctionType, options: Sequence[str], words: Sequence[str]
) -> _Bound | None:
    """Bind a call that gives only words and flags; None for any other call, right or wrong."""
    most = command.__code__.co_posonlyargcount
    fewest = most - len(command.__defaults__ or ())
    known = options_of(command)
    if len(set(options)) < len(options) or any(known.get(option, True) for option in options):
        return None
    if not fewest <= len(words) <= most:
        return None
    names = {_option_of(name): name for name in command.__kwdefaults__ or {}}
    return words, {names[option]: True for option in options}


def _option_of(name: str) -> str:
    """The option of a keyword; `exec_` is `--exec`, as Python has that name already."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def _bind(name: str, options: Sequence[str], words: Sequence[str], shell: Shell) -> _Bound | None:
    """Bind a call with cyclopts; None if it is wrong, which has been reported."""
    from cyclopts import CycloptsError, UnknownOptionError, UnusedCliTokensError

    tokens = [name, *options, *(["--", *words] if words else ())]
    try:
        _, bound, _ = build_app(name).parse_args(tokens, exit_on_error=False, print_error=False)
    except UnknownOptionError as error:
        option = (error.token.keyword or error.token.value).partition("=")[0]
        near = did_you_mean(option, options_of(function_of(name)))
        said = f"Unknown option: {option}.{near} Put text that begins with a dash after `--`."
    except UnusedCliTokensError as error:
        extra = " ".join(error.unused_tokens or ())
        said = f"Unexpected argument: {extra}. {_quoting_hint(name)}"
    except CycloptsError as error:
        said = str(error)
    else:
        return bound.args, bound.kwargs
    _misused(shell, said, name, as_json="--json" in options)
    return None


def _quoting_hint(name: str) -> str:
    code = function_of(name).__code__
    last = code.co_varnames[code.co_posonlyargcount - 1] if code.co_posonlyargcount else ""
    return f"Quote the {last}." if last in ("task", "topic") else "Quote a value that has spaces."


def _misused(
    shell: Shell, message: str, command: str | None = None, *, as_json: bool = False
) -> int:
    from agent_dispatch.cli.errors import MisuseError, report_error

    help_page = " ".join(filter(None, ("agent-dispatch", command, "--help")))
    report_error(shell, MisuseError(one_line(message), run(help_page)), as_json=as_json)
    return MISUSED


def build_app(name: str) -> "App":
    """The parser of one command, and of its help page."""
    from cyclopts import App, Parameter

    app = App(
        name="agent-dispatch",
        version_flags=(),
        help_epilogue=f"Example: `{EXAMPLES[name]}`",
        # `shell` is passed by `_call`. Flags have no `--no-` form.
        default_parameter=Parameter(
            negative=(),
            show_default=_shown_default,
            parse=re.compile(r"^(?!shell$)"),
        ),
    )
    app.command(f"{_PACKAGE}.{COMMANDS[name].target}", name=name)
    return app


def _shown_default(value: object) -> str | None:
    """A default for the help page; an option that does nothing by itself has none."""
    return None if isinstance(value, bool) or value in ("", None, ()) else str(value)


def _restore_docstring(name: str) -> None:
    """Give a command the help that `python -OO` removed."""
    function = function_of(name)
    if function.__doc__ is not None:
        return
    import ast
    import inspect

    try:
        [definition] = ast.parse(inspect.getsource(function)).body
    except OSError:
        # Installed as byte code alone.
        function.__doc__ = COMMANDS[name].help
        return
    assert isinstance(definition, ast.FunctionDef)
    function.__doc__ = ast.get_docstring(definition)


def _show_first_page(shell: Shell) -> int:
    commands = {name: command.help for name, command in COMMANDS.items()}
    write_lines(shell, first_page(commands, shell))
    return DONE


def _show_page(name: str, shell: Shell) -> int:
    from rich.console import Console

    _restore_docstring(name)
    console = Console(file=shell.stdout)
    # Captured, because rich would end the process when the reader has left.
    with console.capture() as page:
        build_app(name).help_print([name], console=console)
    write_lines(shell, [page.get().rstrip("\n")])
    return DONE
