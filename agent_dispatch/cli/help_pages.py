"""The first help page, the topics, and what the page of a command adds to its docstring.

None of this imports cyclopts, which takes longer than all the rest of the first page.
"""

from collections.abc import Mapping, Sequence

from agent_dispatch.cli.output import Colour, paint
from agent_dispatch.cli.shell import Shell

ALIASES: Mapping[str, str] = {
    "ls": "list",
    "show": "describe",
    "rm": "remove",
    "ps": "jobs",
    "status": "job",
    "logs": "tail",
}
"""Other names of commands."""

GROUPS: Mapping[str, Sequence[str]] = {
    "Agents": ("list", "describe", "add", "update", "remove", "group", "hosts", "import"),
    "Run": ("run", "test", "parallel", "dialogue"),
    "Jobs": (
        *("jobs", "job", "wait", "tail", "watch"),
        *("send", "why", "cancel", "questions", "answer", "gc", "stats"),
    ),
    "Set-up": ("init", "uninstall", "doctor", "demo", "serve", "completion", "help", "version"),
}
"""Every command, in the order of the first page."""

EXAMPLES: Mapping[str, str] = {
    "list": "agent-dispatch list",
    "describe": "agent-dispatch describe infra",
    "add": "agent-dispatch add infra ~/projects/infra",
    "update": 'agent-dispatch update infra --allowed-tools "Read,Bash(git log:*)"',
    "remove": "agent-dispatch remove infra",
    "group": "agent-dispatch group add shop --member backend --member db",
    "hosts": "agent-dispatch hosts list",
    "import": "agent-dispatch import agents.yaml",
    "run": 'agent-dispatch run infra "find errors in the API logs"',
    "test": "agent-dispatch test infra",
    "parallel": "agent-dispatch parallel tasks.json",
    "dialogue": 'agent-dispatch dialogue backend db "are all migrations applied?"',
    "jobs": "agent-dispatch jobs --status failed",
    "job": "agent-dispatch job 3f9a01c2",
    "wait": "agent-dispatch wait",
    "tail": "agent-dispatch tail --follow",
    "watch": "agent-dispatch watch",
    "send": 'agent-dispatch send last "Leave the tests as they are"',
    "why": "agent-dispatch why",
    "cancel": "agent-dispatch cancel last",
    "questions": "agent-dispatch questions",
    "answer": "agent-dispatch answer last allow",
    "gc": "agent-dispatch gc --max-age-days 30",
    "stats": "agent-dispatch stats --since 24h --by day",
    "init": "agent-dispatch init",
    "uninstall": "agent-dispatch uninstall",
    "doctor": "agent-dispatch doctor",
    "demo": "agent-dispatch demo",
    "serve": "agent-dispatch serve",
    "completion": "agent-dispatch completion bash",
    "help": "agent-dispatch help exit-codes",
    "version": "agent-dispatch version",
}
"""An example of each command, for its page."""

GROUP_EXAMPLES = ("add", "run", "tail", "init")
"""The command whose example stands below each group of the first page."""

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


def first_page(commands: Mapping[str, str], shell: Shell) -> list[str]:
    """The lines of `agent-dispatch --help`.

    Args:
        commands: Each command with its line.
        shell: Says whether there is colour.
    """
    width = max(map(len, commands))
    lines = [_INTRODUCTION, "", "Usage: agent-dispatch COMMAND [ARGUMENTS]"]
    for (title, names), example in zip(GROUPS.items(), GROUP_EXAMPLES, strict=True):
        lines += ["", _title(title, shell)]
        lines += [f"  {name:<{width}}  {commands[name]}" for name in names]
        lines.append(f"  {'':<{width}}  $ {EXAMPLES[example]}")
    aliases = ", ".join(f"{short} = {name}" for short, name in ALIASES.items())
    topics = ", ".join(f"agent-dispatch help {topic}" for topic in TOPICS)
    return [
        *lines,
        "",
        f"{_title('Aliases', shell)}  {aliases}",
        f"{_title('Topics', shell)}   {topics}",
        "",
        "`agent-dispatch help COMMAND` explains a command.",
    ]


def topic_page(topic: str, shell: Shell) -> list[str]:
    """The lines of a help topic."""
    title, rows = TOPICS[topic]
    width = max(map(len, rows))
    return [_title(title, shell), *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def _title(text: str, shell: Shell) -> str:
    return paint(text, Colour.NAME, shell.stdout, shell.environ)
