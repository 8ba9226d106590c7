import subprocess
import sys
from pathlib import Path

import pytest

# Each runs in its own process, which has its own limit.
LIMITED = """
import resource, sys
from agent_dispatch.claude import open_files
def limit(soft, hard):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
limit(200, 300)
"""
RAISED = f"""{LIMITED}
open_files.raise_soft_limit()
print(open_files.soft_limit())
limit(250, 250)
open_files.raise_soft_limit()
print(open_files.soft_limit())
"""
AGENT = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
OWNED = f"""{LIMITED}
from agent_dispatch.claude.fork_server import start_fork_server
fork_server = start_fork_server()
open_files.raise_soft_limit()
if sys.argv[1] == "slow way":
    fork_server.close()
import trio
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.claude.child import open_child
from agent_dispatch.claude.launcher import Launcher
async def main():
    argv = (sys.executable, "-c", {AGENT!r})
    command = Command(argv, "/", dict([(MARKER_VARIABLE, "limited")]))
    launcher = Launcher(fork_server)
    async with open_child(launcher, command, on_stdout=lambda b: print(b.decode())) as child:
        await child.wait_until(lambda: child.ended)
    print(open_files.soft_limit())
trio.run(main)
"""


def run(script: str, *argv: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.split()


def test_the_soft_limit_is_raised_as_far_as_the_hard_one_allows() -> None:
    assert run(RAISED) == ["300", "250"]


@pytest.mark.parametrize("way", ["fork server", "slow way"])
def test_an_agent_gets_the_limit_that_its_owner_was_started_with(way: str) -> None:
    assert run(OWNED, way) == ["200", "300", "300"]
