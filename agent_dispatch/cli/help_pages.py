"""The help pages: all commands, a topic, one command.

Only the last imports cyclopts, which takes longer than all the rest of the first page.
"""

from collections.abc import Mapping

from agent_dispatch.cli.command_table import ALIASES, COMMANDS, SECTIONS, Command
from agent_dispatch.cli.output import title
from agent_dispatch.cli.shell import Shell

EXIT_CODES: Mapping[str, str] = {
    "0": "done",
    "1": "failed: the call was wrong, or the run failed",
    "2": "the command line is wrong; nothing was done",
    "3": "the job still runs",
    "124": "the run reached its timeout",
    "130, 143": "ended by SIGINT (Ctrl-C) or SIGTERM",
}

ENVIRONMENT: Mapping[str, str] = {
    "AGENT_DISPATCH_CONFIG": "the configuration file",
    "AGENT_DISPATCH_JOBS_DIR": "the directory of jobs (default: jobs/ beside that)",
    "XDG_CONFIG_HOME": "has agent-dispatch/agents.toml (default: ~/.config)",
    "CLAUDE_CONFIG_DIR": "Claude Code's own configuration (default: ~/.claude)",
    "NO_COLOR": "if it is set, no colour",
    "AGENT_DISPATCH_*": "all others are set by agent-dispatch for its agents",
}

TOPICS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "exit-codes": ("Exit status of every command", EXIT_CODES),
    "environment": ("Environment variables", ENVIRONMENT),
}

_INTRODUCTION = "Let a Claude Code agent hand a task to an agent in another project directory."


def first_page(shell: Shell) -> list[str]:
    """The lines of `agent-dispatch --help`."""
    width = max(map(len, COMMANDS))
    lines = [_INTRODUCTION, "", "Usage: agent-dispatch COMMAND [ARGUMENTS]"]
    for section in SECTIONS:
        lines += ["", title(section.title, shell)]
        lines += [
            f"  {name:<{width}}  {command.help}" for name, command in section.commands.items()
        ]
        lines.append(
            f"  {'':<{width}}  $ agent-dispatch {section.commands[section.example].example}"
        )
    aliases = ", ".join(f"{short}: {name}" for short, name in ALIASES.items())
    topics = ", ".join(f"agent-dispatch help {topic}" for topic in TOPICS)
    return [
        *lines,
        "",
        f"{title('Aliases', shell)}  {aliases}",
        f"{title('Topics', shell)}   {topics}",
        "",
        "`agent-dispatch help COMMAND` explains a command.",
    ]


def topic_page(topic: str, shell: Shell) -> list[str]:
    """The lines of a help topic."""
    heading, rows = TOPICS[topic]
    width = max(map(len, rows))
    return [title(heading, shell), *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def command_page(name: str, shell: Shell) -> list[str]:
    """The help page of a command, made from its docstring."""
    from rich.console import Console

    from agent_dispatch.cli.parsing import build_app

    _restore_docstring(COMMANDS[name])
    console = Console(file=shell.stdout)
    # Captured, because rich would end the process when the reader has left.
    with console.capture() as page:
        build_app(name).help_print([name], console=console)
    return [page.get().rstrip("\n")]


def _restore_docstring(command: Command) -> None:
    """Give a command the docstring that `python -OO` removed."""
    function = command.function()
    if function.__doc__ is not None:
        return
    import ast
    import inspect

    try:
        source = inspect.getsource(function)
    except OSError:
        # Installed as byte code alone.
        function.__doc__ = command.help
        return
    # From Python 3.14 on, ast.parse() removes docstrings too under -OO.
    module = compile(source, "<command>", "exec", ast.PyCF_ONLY_AST, optimize=0)
    assert isinstance(module, ast.Module)
    [definition] = module.body
    assert isinstance(definition, ast.FunctionDef)
    function.__doc__ = ast.get_docstring(definition)
