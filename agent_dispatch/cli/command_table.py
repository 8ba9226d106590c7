"""The table of all commands: the help pages, the completion and the dispatcher read it."""

import importlib
from collections.abc import Mapping, Sequence
from enum import Enum
from types import FunctionType
from typing import NamedTuple

_PACKAGE = "agent_dispatch.cli"


class Reads(Enum):
    """What a command reads; a mistyped `$AGENT_DISPATCH_CONFIG` matters only to readers."""

    CONFIG = "config"
    JOBS = "jobs"
    """The configuration too, but only to find the jobs beside it."""
    NOTHING = "nothing"
    """It creates the configuration, reports a missing one, or does not read it."""


class Kind(Enum):
    """What a positional argument names, for the completion."""

    AGENT = "agent"
    GROUP = "group"
    JOB = "job"
    TOPIC = "topic"
    GROUP_ACTION = "group action"
    HOST_ACTION = "host action"
    SHELL = "shell"


class Command(NamedTuple):
    """One command; its options are those of the function's signature."""

    target: str
    """Module of this package and function; imported when the command is called."""
    help: str
    """Its line on the first help page."""
    example: str
    """Without the name of the program."""
    completes: Sequence[Kind] = ()
    """The kinds of its positional arguments, as far as there is something to propose."""
    reads: Reads = Reads.CONFIG

    @property
    def path(self) -> str:
        """The function with its whole module path, as cyclopts takes it."""
        return f"{_PACKAGE}.{self.target}"

    def function(self) -> FunctionType:
        """Import the module and return the function."""
        module, _, name = self.path.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, FunctionType)
        return found


class Section(NamedTuple):
    """A section of the first help page."""

    title: str
    example: str
    """The command whose example stands below the section."""
    commands: Mapping[str, Command]


SECTIONS = (
    Section(
        "Agents",
        "add",
        {
            "list": Command(
                "agents.show:list_agents",
                "List all agents: health, directory, description.",
                "list",
            ),
            "describe": Command(
                "agents.show:describe",
                "Show the full configuration of one agent.",
                "describe infra",
                completes=(Kind.AGENT,),
            ),
            "add": Command(
                "agents.change:add",
                "Register a project directory as an agent.",
                "add infra ~/projects/infra",
                reads=Reads.NOTHING,
            ),
            "update": Command(
                "agents.change:update",
                "Change an agent: permissions, timeout, model, budget.",
                'update infra --allowed-tools "Read,Bash(git log:*)"',
                completes=(Kind.AGENT,),
            ),
            "remove": Command(
                "agents.change:remove",
                "Remove an agent from the config.",
                "remove infra",
                completes=(Kind.AGENT,),
            ),
            "group": Command(
                "agents.groups:group",
                "Manage groups: add, list, inspect, update, remove.",
                "group add shop --member backend --member db",
                completes=(Kind.GROUP_ACTION, Kind.GROUP),
            ),
            "hosts": Command(
                "agents.hosts:hosts",
                "Manage machines that have agents: list, add, remove, install.",
                "hosts list",
                completes=(Kind.HOST_ACTION,),
            ),
            "import": Command(
                "agents.import_yaml:import_agents",
                "Import agents from an agents.yaml.",
                "import agents.yaml",
                reads=Reads.NOTHING,
            ),
        },
    ),
    Section(
        "Run",
        "run",
        {
            "run": Command(
                "run.commands:run",
                "Give a task to an agent and print its answer.",
                'run infra "find errors in the API logs"',
                completes=(Kind.AGENT,),
            ),
            "test": Command(
                "run.commands:try_agent",
                "Try an agent with a small task.",
                "test infra",
                completes=(Kind.AGENT,),
            ),
            "parallel": Command(
                "run.commands:parallel",
                "Run several tasks at once, from a JSON file.",
                "parallel tasks.json",
            ),
            "dialogue": Command(
                "run.commands:dialogue",
                "Let two agents work out a topic.",
                'dialogue backend db "are all migrations applied?"',
                completes=(Kind.AGENT, Kind.AGENT),
            ),
        },
    ),
    Section(
        "Jobs",
        "tail",
        {
            "jobs": Command("jobs.show:jobs", "List the newest jobs.", "jobs --status failed"),
            "job": Command(
                "jobs.show:job",
                "Show one job and its answer.",
                "job 3f9a01c2",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "wait": Command(
                "jobs.follow:wait",
                "Wait for a job and print its answer.",
                "wait",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "tail": Command(
                "jobs.follow:tail",
                "Print a job's latest progress; --follow keeps printing.",
                "tail --follow",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "watch": Command(
                "watch.command:watch",
                "Watch all jobs live, and act on them with a key.",
                "watch",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "send": Command(
                "jobs.act:send",
                "Tell a running agent something more.",
                'send last "Leave the tests as they are"',
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "why": Command(
                "jobs.why:why",
                "Explain what decided how a job went.",
                "why",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "cancel": Command(
                "jobs.act:cancel",
                "Cancel a pending or running job.",
                "cancel last",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "questions": Command(
                "jobs.questions:questions",
                "List what agents ask permission for.",
                "questions",
                reads=Reads.JOBS,
            ),
            "answer": Command(
                "jobs.questions:answer",
                "Allow or deny the call that an agent asks for.",
                "answer last allow",
                completes=(Kind.JOB,),
                reads=Reads.JOBS,
            ),
            "gc": Command(
                "jobs.act:gc",
                "Remove old jobs and their answers.",
                "gc --max-age-days 30",
                reads=Reads.JOBS,
            ),
            "stats": Command(
                "jobs.stats:stats",
                "Show what runs cost and how they went.",
                "stats --since 24h --by day",
                reads=Reads.JOBS,
            ),
        },
    ),
    Section(
        "Set-up",
        "init",
        {
            "init": Command(
                "setup.init:init",
                "Create the config and register the server with Claude Code.",
                "init",
                reads=Reads.NOTHING,
            ),
            "uninstall": Command(
                "setup.uninstall:uninstall",
                "Remove our entries from all clients.",
                "uninstall",
                reads=Reads.NOTHING,
            ),
            "doctor": Command(
                "doctor.command:doctor",
                "Check the installation and print a fix for each failure.",
                "doctor",
                reads=Reads.NOTHING,
            ),
            "demo": Command(
                "demo.command:demo",
                "Show a dispatch at work, without Claude and without cost.",
                "demo",
                reads=Reads.NOTHING,
            ),
            "serve": Command(
                "app:serve",
                "Run the MCP server on stdin and stdout, for Claude Code.",
                "serve",
                reads=Reads.NOTHING,
            ),
            "completion": Command(
                "completion:completion",
                "Print the completion script for bash, zsh or fish.",
                "completion bash",
                completes=(Kind.SHELL,),
                reads=Reads.NOTHING,
            ),
            "help": Command(
                "app:show_help",
                "Explain a command or a topic.",
                "help exit-codes",
                completes=(Kind.TOPIC,),
                reads=Reads.NOTHING,
            ),
            "version": Command(
                "app:show_version", "Print the version.", "version", reads=Reads.NOTHING
            ),
        },
    ),
)

COMMANDS: Mapping[str, Command] = {
    name: command for section in SECTIONS for name, command in section.commands.items()
}

ALIASES: Mapping[str, str] = {
    "ls": "list",
    "show": "describe",
    "rm": "remove",
    "ps": "jobs",
    "status": "job",
    "logs": "tail",
}
"""Other names of commands."""
