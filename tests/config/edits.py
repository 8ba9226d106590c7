"""Processes that die while they change `agents.toml`, one at each system call of an edit.

python -m tests.config.edits DIRECTORY EDIT
"""

import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.file import ConfigFile
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import InvalidRequestError, UnknownAgentError
from tests.faults.system_calls import Dying
from tests.jobs.owners import leave

MOST_CALLS = 300
TEXT = """\
# Ours.
[agents.infra]
directory = "/srv/infra" # where it is
description = "Infrastructure"

[agents.other]
directory = "/srv/other"
"""


class World:
    """An `agents.toml` with two agents that the edits change."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.project = directory / "project"
        self.project.mkdir()
        (self.project / "README.md").write_text("# Project\n\nDoes things.\n")
        self.path = directory / "agents.toml"
        self.path.write_text(TEXT)
        self.path.chmod(0o600)
        self.registry = Registry(self.path)
        self.first = ConfigFile(directory / "first.toml")

    def is_as_before(self) -> bool:
        return self.path.read_text() == TEXT and not self.first.path.exists()

    def agents(self) -> Mapping[str, Any]:
        """The content of the file, which is always valid TOML."""
        agents: Mapping[str, Any] = tomllib.loads(self.path.read_text())["agents"]
        return agents

    def says(self, edit: str) -> bool:
        """Whether an edit is in the file."""
        agents = self.agents()
        match edit:
            case "add":
                return "new" in agents
            case "update":
                return bool(agents["infra"].get("model") == "opus")
            case "remove":
                return "other" not in agents
            case _:
                return self.first.path.exists() and self.first.path.read_text() == "# The first.\n"

    def litter(self) -> list[str]:
        """What is wrong after an edit."""
        return [path.name for path in self.path.parent.iterdir() if path.suffix == ".tmp"]


def add(world: World) -> None:
    add_agent(world.registry, "new", str(world.project))


def update(world: World) -> None:
    update_agent(world.registry, "infra", model="opus")


def remove(world: World) -> None:
    remove_agent(world.registry, "other")


def create(world: World) -> None:
    world.first.create("# The first.\n")


EDITS: dict[str, Callable[[World], None]] = {
    "add": add,
    "update": update,
    "remove": remove,
    "create": create,
}


def die(world: World, edit: str, at: int) -> None:
    with Dying(at):
        EDITS[edit](world)


def violations(world: World, edit: str) -> Iterator[str]:
    if not (world.is_as_before() or world.says(edit)):
        yield f"neither the old file nor the new one: {world.path.read_text()!r}"
    for name in ("update", edit):
        # If the first edit was written, the second one is refused.
        with suppress(InvalidRequestError, UnknownAgentError):
            EDITS[name](world)
        if not world.says(name):
            yield f"the next {name} was not written"
    yield from (f"litter: {name}" for name in world.litter())


def main(directory: str, edit: str) -> None:
    deaths, wrong = 0, []
    for at in range(1, MOST_CALLS):
        world = World(Path(directory) / str(at))
        pid = os.fork()
        if pid == 0:
            leave(partial(die, world, edit, at))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status > 0:
            raise RuntimeError(f"{edit} failed without dying")
        wrong += [f"died at call {at}: {what}" for what in violations(world, edit)]
        if status == 0:
            break
        deaths += 1
    sys.stdout.buffer.write(msgspec.json.encode({"deaths": deaths, "violations": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
