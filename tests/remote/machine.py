"""Machines for tests: each is a home directory with a fake claude and agents."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent_dispatch.jobs.ids import IdSource
from tests import warm
from tests.warm import WarmProgram

FAKE_CLAUDE = Path(__file__).with_name("fake_claude.py")
PATIENCE_S = 30.0
NONCE = "0123456789abcdef"
Program = subprocess.Popen[str] | WarmProgram
"""A command of agent-dispatch that was started."""


class Machine:
    """One user on one machine."""

    def __init__(self, home: Path) -> None:
        """Make the home directory, with `claude` and `agent-dispatch` in ~/.local/bin."""
        self.home = home
        self.log = home / "starts"
        self.config = home / ".config" / "agent-dispatch" / "agents.toml"
        self.jobs = self.config.parent / "jobs"
        folder = home / ".local" / "bin"
        folder.mkdir(parents=True)
        self._script(folder / "claude", f'exec "{sys.executable}" -I -S "{FAKE_CLAUDE}" "$@"')
        # As the installed script does, under its own name.
        main = "import sys; sys.argv.pop(0); from agent_dispatch.__main__ import main; main()"
        run = f'exec "{sys.executable}" -P -c "{main}" "$0" "$@"'
        self.program = folder / "agent-dispatch"
        self._script(self.program, run)
        self.environ = {
            "HOME": str(home),
            "PATH": f"{folder}:/usr/bin:/bin:/usr/sbin:/sbin",
        }

    @staticmethod
    def _script(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def command(self, *argv: str) -> list[str]:
        """Return the command line of agent-dispatch on this machine."""
        return [str(self.program), *argv]

    def start(self, *argv: str, **environ: str) -> Program:
        """Start one command."""
        return subprocess.Popen(
            self.command(*argv),
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cli(
        self, *argv: str, check: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        program = self.start(*argv, **environ)
        try:
            out, err = program.communicate(timeout=3 * PATIENCE_S)
        finally:
            program.kill()
        status = program.wait()
        assert not check or status == 0, (argv, out, err)
        return subprocess.CompletedProcess(argv, status, out, err)

    def answer(self, *argv: str, check: bool = True) -> Any:
        """Run one command and read its JSON."""
        return json.loads(self.cli(*argv, "--json", check=check).stdout)

    def project(self, name: str) -> Path:
        """Make a project, and add it to the configuration as an agent of that name."""
        directory = self.home / "projects" / name
        directory.mkdir(parents=True)
        self.configure(f"agents.{name}", f'directory = "{directory}"')
        return directory

    def configure(self, table: str, *lines: str) -> None:
        """Add a table to the configuration, as a person with an editor does."""
        self.config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config.touch(mode=0o600)
        with self.config.open("a") as file:
            file.write("\n".join(["", f"[{table}]", *lines, ""]))

    def reach(
        self,
        other: "Machine",
        name: str,
        *,
        lease_seconds: float = 0,
        through: Sequence[str] = (),
    ) -> None:
        """Add `other` as a host, over a relay that passes nothing of our environment.

        The relay is started by the command `through`, if there is one.
        """
        relay = ["env", "-i", *(f"{key}={value}" for key, value in other.environ.items())]
        lease = [f"lease_seconds = {lease_seconds}"] if lease_seconds else []
        # JSON's list of texts is TOML's too.
        self.configure(f"hosts.{name}", f"exec = {json.dumps([*through, *relay])}", *lease)

    def link(self, name: str, host: str, agent: str = "") -> None:
        """Add an agent of a host to the configuration, without asking the host."""
        other = [f'agent = "{agent}"'] if agent else []
        self.configure(f"agents.{name}", f'host = "{host}"', *other)

    @property
    def starts(self) -> list[int]:
        """The pids of all claude processes so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [int(pid) for pid in re.findall(r"start (\d+)", text)]

    def running(self) -> list[int]:
        """The pids of those that still run."""
        return [pid for pid in self.starts if _is_claude(pid)]

    def wait_until_started(self, number: int = 1) -> None:
        """Wait until this many were started."""
        wait_for(lambda: len(self.starts) >= number)

    def wait_until_quiet(self) -> None:
        """Wait until none runs."""
        wait_for(lambda: not self.running())


class WarmMachine(Machine):
    """A machine whose commands are forked from a process that has imported everything.

    What is started over a relay is a new Python still.
    """

    def start(self, *argv: str, **environ: str) -> WarmProgram:
        """Start one command."""
        return warm.begin(
            "agent_dispatch",
            *argv,
            env={**self.environ, **environ},
            program=self.program,
            namespaces=self.namespaces(),
        )

    def namespaces(self) -> Sequence[int]:
        """Return descriptors of what a command enters first."""
        return ()


def _is_claude(pid: int) -> bool:
    try:
        return FAKE_CLAUDE.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def wait_for(reached: Any, patience_s: float = PATIENCE_S) -> None:
    """Wait until `reached` returns true."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


_ids = IdSource()


class Caller:
    """A caller that exchanges frames with a stub."""

    def __init__(self, process: WarmProgram) -> None:
        """Talk with `process`."""
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._n = 0
        self.events: list[tuple[int, str]] = []

    def greeting(self) -> dict[str, Any]:
        """Read up to the greeting."""
        while not (line := self._stdout.readline()).startswith(b"ADR1 "):
            assert line, "no greeting"
        answer: dict[str, Any] = json.loads(line.split(b" ", 2)[2])
        return answer

    def say(self, **frame: object) -> int:
        """Send a frame; return its number."""
        self._n += 1
        self._stdin.write(json.dumps({"n": self._n, **frame}).encode() + b"\n")
        self._stdin.flush()
        return self._n

    def hear(self, n: int | None = None) -> dict[str, Any]:
        """Read until the answer of that number; without a number, the next answer."""
        parts = ""
        while line := self._stdout.readline():
            frame: dict[str, Any] = json.loads(line)
            if frame["t"] == "part":
                parts += frame["text"]
                if not frame.get("last"):
                    continue
                frame, parts = json.loads(parts), ""
            if frame["t"] == "event":
                self.events.append((frame["seq"], frame["line"]))
            elif frame["t"] == "ping":
                self.say(t="pong")
            elif frame["t"] != "pong" and n in (None, frame.get("n", 0)):
                return frame
        raise AssertionError("the stub is gone")

    def ask(self, **frame: object) -> dict[str, Any]:
        """Send a frame and read its answer."""
        return self.hear(self.say(**frame))

    def submit(self, agent: str, task: str, job_id: str = "", **more: object) -> dict[str, Any]:
        """Submit a job."""
        request = {"agent": agent, "task": task}
        return self.ask(t="submit", id=job_id or _ids.next(), request=request, **more)

    def attach(self, job_id: str, **more: object) -> dict[str, Any]:
        """Wait for the end of a job."""
        job: dict[str, Any] = self.ask(t="attach", id=job_id, **more)["job"]
        return job


@contextmanager
def calling(
    machine: Machine,
    argv: tuple[str, ...] = ("_remote", NONCE),
    hello: Mapping[str, object] = {},
    **environ: str,
) -> Iterator[Caller]:
    """Start a stub and say hello to it."""
    process = warm.begin(
        "agent_dispatch",
        *argv,
        env={**machine.environ, **environ},
        stdin=subprocess.PIPE,
        stderr=2,
        program=machine.program,
    )
    try:
        caller = Caller(process)
        caller.greeting()
        caller.say(t="hello", proto=1, oldest=1, dead_s=20, **hello)
        yield caller
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


def environment_of(pid: int) -> dict[str, str]:
    """The environment of a process."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(word).partition("=") for word in words if word)
    return {name: value for name, _, value in pairs}
