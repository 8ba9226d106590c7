"""Servers whose agents the measurement steers: when they may answer, and when they did."""

import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness import ANSWER_S, Server, answer_of, running
from bench.products import Product

Job = dict[str, Any]

_NAP_S = 0.0002


class Stage:
    """What all stand-ins of one server are told, and what they leave behind."""

    def __init__(self, folder: Path, *, gated: bool = False) -> None:
        """Use a new `folder`; `gated` stand-ins answer when `open_gate` lets them."""
        folder.mkdir(parents=True)
        self._stamps = folder / "stamps"
        self._gate = folder / "gate"
        self.environ = {"STANDIN_STAMPS": str(self._stamps)}
        if gated:
            os.mkfifo(self._gate)
            self.environ["STANDIN_GATE"] = str(self._gate)

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

    def stamp(self, what: str) -> float:
        """When the last stand-in did `what` (`start`, `end`), by `time.monotonic`."""
        lines = self._stamps.read_text().splitlines()
        return next(float(line.split()[1]) for line in reversed(lines) if line.startswith(what))


def serving(stack: ExitStack, product: Product, stage: Stage | None = None) -> Server:
    """A server past its handshake; nothing of it is left when `stack` is closed."""
    extra = {} if stage is None else stage.environ
    server = Server(product.command("serve"), {**product.environ, **extra})
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
    deadline = time.monotonic() + ANSWER_S / 2
    while len(pids := server.tree.pids_of(program)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return pids


def _submission(number: int, task: str = "task") -> dict[str, str]:
    # Each task differs, so that no cache answers.
    return {"agent": "agent0", "task": f"{task} {number}"}
