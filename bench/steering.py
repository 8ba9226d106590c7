"""Servers whose agents the measurement steers: when they may answer, and when they did."""

import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness import ANSWER_S, HERE, Server, answer_of, running
from bench.products import Product
from tests.e2e.network import Place

Job = dict[str, Any]

_NAP_S = 0.0002
_PASSING_S = 0.1
"""How long a stand-in may take from finding the gate to standing at it."""
_QUIET_S = 10.0
"""When no further agent has started for so long, none will."""


class Stage:
    """What all stand-ins of one server are told, and what they leave behind."""

    def __init__(
        self,
        folder: Path,
        *,
        gated: bool = False,
        counted: bool = False,
        seconds: float = 0,
        lines: int = 0,
        answer_bytes: int = 0,
    ) -> None:
        """Use a new folder.

        Args:
            folder: Must not exist.
            gated: They answer when `open_gate` lets them.
            counted: They take seats, for `peak`.
            seconds: How long they work.
            lines: How many messages they write meanwhile.
            answer_bytes: How long their answers are, at least.
        """
        folder.mkdir(parents=True)
        self._stamps = folder / "stamps"
        self._gate = folder / "gate"
        self.environ = {"STANDIN_STAMPS": str(self._stamps)}
        if gated:
            os.mkfifo(self._gate)
            self.environ["STANDIN_GATE"] = str(self._gate)
        if counted:
            self.environ["STANDIN_SEATS"] = str(folder / "seats")
        for name, value in (("SECONDS", seconds), ("LINES", lines), ("BYTES", answer_bytes)):
            if value:
                self.environ[f"STANDIN_{name}"] = str(value)

    def open_gate(self) -> None:
        """Let all that stand at the gate answer; waits until one does."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                os.close(os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise
                time.sleep(_NAP_S)
            else:
                return

    def remove_gate(self) -> None:
        """Let all that stand at the gate answer, and all that come to it later."""
        everybody = os.open(self._gate, os.O_RDWR)
        nothing = self._gate.with_name("nothing")
        nothing.touch()
        nothing.replace(self._gate)
        time.sleep(_PASSING_S)
        os.close(everybody)

    def peak(self) -> int:
        """How many stand-ins there were at once, at most, so far."""
        return peak_of(self._stamps.read_text()) if self._stamps.exists() else 0

    def stamp(self, what: str) -> float:
        """When the last stand-in did `what` (`start`, `end`), by `time.monotonic`."""
        lines = self._stamps.read_text().splitlines()
        return next(float(line.split()[1]) for line in reversed(lines) if line.startswith(what))


def peak_of(stamps: str) -> int:
    """How many stand-ins there were at once, by the seats that they found."""
    words = (line.split() for line in stamps.splitlines())
    return max((int(seat) + 1 for what, _, seat in words if what == "start"), default=0)


def serving(
    stack: ExitStack,
    product: Product,
    stage: Stage | None = None,
    place: Place = HERE,
    *,
    open_files: int | None = None,
) -> Server:
    """A server past its handshake; nothing of it is left when `stack` is closed."""
    environ = {**product.environ, **({} if stage is None else stage.environ)}
    server = Server(product.command("serve"), environ, place, open_files=open_files)
    stack.callback(server.tree.kill)
    stack.enter_context(running(server))
    server.initialize()
    return server


def submit(server: Server, number: int = 0, task: str = "task") -> str:
    """Start a background job; its id."""
    job_id: str = server.call("dispatch_async", _submission(number, task))["job_id"]
    return job_id


def submit_many(server: Server, count: int) -> list[str]:
    """Start background jobs without waiting for the answer in between; their ids."""
    sent = [server.post_call("dispatch_async", _submission(number)) for number in range(count)]
    answers = server.answers(sent)
    return [answer_of(answers[request])["job_id"] for request in sent]


def wait_for(server: Server, job_id: str, patience_s: float = ANSWER_S) -> Job:
    """The job when it is over, or when the patience is."""
    job: Job = server.call("dispatch_wait", {"job_id": job_id, "timeout_seconds": patience_s})
    return job


def wait_for_standins(server: Server, program: str, count: int) -> list[int]:
    """Wait until so many agents run at once, or as many as ever will; their pids."""
    most, deadline = 0, time.monotonic() + _QUIET_S
    while len(pids := server.tree.pids_of(program)) < count and time.monotonic() < deadline:
        if len(pids) > most:
            most, deadline = len(pids), time.monotonic() + _QUIET_S
        time.sleep(0.1)
    return pids


def _submission(number: int, task: str = "task") -> dict[str, str]:
    # Each task differs, so that no cache answers.
    return {"agent": "agent0", "task": f"{task} {number}"}
