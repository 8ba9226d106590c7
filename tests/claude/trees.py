"""Children that resist being ended, and a way to find those that are still alive."""

import os
import sys
import uuid
from pathlib import Path

import trio

from agent_dispatch.claude.process_tree import kill_marked
from agent_dispatch.core.command import MARKER_VARIABLE, Command

PRELUDE = """
import os, signal, sys, time
token = sys.argv[1]
def stay(ignore=True):
    if ignore:
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
    while True:
        time.sleep(100)
def say(word):
    os.write(1, word.encode() + b"\\n")
def fork_away(*steps, env=None):
    # A grandchild with a separate program, so that it has exactly the environment that we give it.
    read, write = os.pipe()
    if os.fork() == 0:
        if "setsid" in steps:
            os.setsid()
        if "twice" in steps and os.fork():
            os._exit(0)
        code = "import os,signal,time\\n"
        code += "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]\\n"
        code += "os.close(%d)\\n" % write
        code += "os.kill(os.getpid(), 19)\\n" if "stop" in steps else ""
        code += "time.sleep(100)\\n"
        os.set_inheritable(write, True)
        for fd in (1, 2) if "quiet" in steps else ():
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        argv = [sys.executable, "-I", "-S", "-c", code, token]
        os.execve(sys.executable, argv, os.environ if env is None else env)
    os.close(write)
    os.read(read, 1)  # EOF: the grandchild ignores signals now.
"""

KINDS = {
    "plain": "say('up'); stay(ignore=False)",
    "ignoring": "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; say('up'); stay()",
    "group": "fork_away(); say('up'); stay(ignore=False)",
    "setsid": "fork_away('setsid'); say('up'); stay(ignore=False)",
    "daemon": "fork_away('setsid', 'twice', 'quiet'); say('up'); stay(ignore=False)",
    "cleared environment": "fork_away('setsid', 'twice', env={}); say('up'); stay(ignore=False)",
    "stopped": "fork_away('setsid', 'stop'); say('up'); stay(ignore=False)",
    "hydra": """
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.01)
say('up'); stay(ignore=False)
""",
}


class Tree:
    """A command whose processes can be distinguished from all others."""

    def __init__(self, script: str, cwd: Path | str = "/") -> None:
        self.token = f"tree-{uuid.uuid4().hex}"
        self.command = Command(
            argv=(sys.executable, "-I", "-S", "-c", PRELUDE + script, self.token),
            cwd=str(cwd),
            env={**os.environ, MARKER_VARIABLE: self.token},
        )

    def living(self) -> list[int]:
        """Processes that have the token as an argument, without zombies."""
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and self._is(p)]

    async def gone(self, within_s: float = 10) -> None:
        """Wait until none is left; the kernel notifies only their parents."""
        try:
            with trio.fail_after(within_s):
                # One look may miss a process that forks and exits every few milliseconds.
                quiet_looks = 0
                while quiet_looks < 5:
                    quiet_looks = 0 if self.living() else quiet_looks + 1
                    await trio.sleep(0.01)
        except trio.TooSlowError:
            kill_marked(self.token)  # Otherwise it would run forever after a failed test.
            raise

    def _is(self, process: Path) -> bool:
        try:
            mine = f"\0{self.token}\0".encode() in (process / "cmdline").read_bytes()
            return mine and (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:  # It has ended meanwhile.
            return False
