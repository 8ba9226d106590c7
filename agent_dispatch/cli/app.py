"""The command line: find the command, bind its arguments, call it, and report what it refuses."""

import os
from collections.abc import Sequence

from agent_dispatch import __version__
from agent_dispatch.cli.command_table import ALIASES, COMMANDS, Reads
from agent_dispatch.cli.errors import MisuseError, report_error
from agent_dispatch.cli.help_pages import TOPICS, command_page, first_page, topic_page
from agent_dispatch.cli.output import Colour, OutputError, one_line, remark, write_lines
from agent_dispatch.cli.parsing import HELP_FLAGS, bind
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError, InvalidRequestError, SchemaError
from agent_dispatch.model.names import did_you_mean
from agent_dispatch.model.next_step import NextStep, run

DONE, FAILED, MISUSED = 0, 1, 2


def run_cli(argv: Sequence[str], shell: Shell) -> int:
    """Run one command line.

    Args:
        argv: Without the program's name.

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
        return show_help(shell=shell)
    word, *tokens = argv
    name = "help" if word in HELP_FLAGS else ALIASES.get(word, word)
    as_json = "--json" in tokens
    try:
        if name not in COMMANDS:
            near = did_you_mean(name, [*COMMANDS, *ALIASES])
            raise MisuseError(one_line(f"Unknown command: {name!r}.{near}"), _help_of())
        bound = bind(name, tokens)
        if bound is None:
            return show_help(name, shell=shell)
        arguments, options = bound
        as_json = bool(options.get("json"))
        _require_config(name, arguments, shell)
        status: int = COMMANDS[name].function()(*arguments, **options, shell=shell)
    except DispatchError as error:
        misused = isinstance(error, SchemaError | MisuseError)
        if isinstance(error, MisuseError | InvalidRequestError) and not error.next_steps:
            error.next_steps = (_help_of(name),)
        report_error(shell, error, as_json=as_json)
        return MISUSED if misused else FAILED
    return status


def _help_of(command: str = "") -> NextStep:
    return run(" ".join(filter(None, ("agent-dispatch", command, "--help"))))


def _require_config(name: str, arguments: Sequence[object], shell: Shell) -> None:
    """Refuse a command that reads the configuration if `$AGENT_DISPATCH_CONFIG` is mistyped."""
    reads = COMMANDS[name].reads
    if reads is Reads.NOTHING or (name in ("group", "hosts") and list(arguments[:1]) == ["add"]):
        return
    if reads is Reads.JOBS and shell.environ.get("AGENT_DISPATCH_JOBS_DIR"):
        return
    if shell.environ.get("AGENT_DISPATCH_CONFIG"):
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
    """
    name = ALIASES.get(topic, topic)
    if not topic:
        lines = first_page(shell)
    elif topic in TOPICS:
        lines = topic_page(topic, shell)
    elif name in COMMANDS:
        lines = command_page(name, shell)
    else:
        near = did_you_mean(topic, [*COMMANDS, *ALIASES, *TOPICS])
        raise MisuseError(one_line(f"No help on {topic!r}.{near}"), _help_of())
    write_lines(shell, lines)
    return DONE
