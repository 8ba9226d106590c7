"""Watches one scene from outside, and reports which invariants do not hold.

    I1  every acknowledged job has a whole record
    I2  the record of a job that has ended never changes
    I3  a job that has not ended has an owner, or the next reader ends it
    I4  no process of a job lives three seconds after the job's end
    I5  no more agents run at once than the limit allows
    I6  a job that succeeded has the words that its agent answered
    I7  only their owner can read files and directories
    I8  no server and no worker grows by more than 64 MiB after the first job was recorded,
        whatever its agents print

It also checks that waiters are woken when a job ends, that a job that no fault touched ends as its
agent made it end, that every request is answered while its server lives, and that no bug leaves a
traceback.

It reads the files and /proc itself. From the product it uses only `settle`, as any reader would.
"""

import fcntl
import json
import math
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import trio

from agent_dispatch.files import identity
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.job import Job
from bench.chaos.agents import read_ledger
from bench.chaos.scene import Process, Scene, rows
from bench.processes import numbers_in

GONE_S = 3.0
WOKEN_S = 2.0
"""Much more than the milliseconds that waking takes, to allow for a loaded machine."""
MAX_GROWTH_KIB = 64 * 1024
_LOOK_EVERY_S = 0.01
_LOOK_AT_THE_REST_EVERY = 10
_OVER = ("done", "failed", "cancelled")
_OWNERS = ("python", "dispatch-work")

Record = dict[str, Any]


class Witness:
    """Watches one run from beginning to end."""

    def __init__(self, scene: Scene, *, settles: bool) -> None:
        """Prepare to watch `scene`; `watch` does the work.

        Args:
            scene: The scene of the run.
            settles: Whether to settle jobs without an owner during the faults.
        """
        self._scene = scene
        self._settles = settles
        self._files: dict[str, tuple[int, ...]] = {}
        self._ends: dict[str, bytes] = {}
        self._first_kib: dict[int, int] = {}
        self._found: dict[str, None] = {}
        self.records: dict[str, Record] = {}
        """The records as last read."""
        self.over_at: dict[str, float] = {}
        """When each job was first seen to have ended, by `time.monotonic`."""
        self.first_record = trio.Event()
        """Set when the first job exists."""
        self.processes_gone_s = 0.0
        """The longest time from a job's end to the end of its last process."""
        self.woken_s = 0.0
        """The longest time from a job's end to the waking of a waiter."""
        self.growth_mib = 0.0
        """The largest growth of a server or a worker."""

    @property
    def violations(self) -> list[str]:
        """The violations, each once."""
        return list(self._found)

    def accuse(self, what: str) -> None:
        """Record a violation."""
        self._found[what] = None

    async def watch(self) -> NoReturn:
        """Look repeatedly until cancelled."""
        looks = 0
        while True:
            self.look()
            if looks % _LOOK_AT_THE_REST_EVERY == 0:
                self.look_at_processes()
                if self._settles:
                    await trio.to_thread.run_sync(self.check_owned)
            looks += 1
            await trio.sleep(_LOOK_EVERY_S)

    def look(self) -> None:
        """Read all records: I1 and I2."""
        names = self._names(self._scene.jobs)
        for job_id in self.records.keys() - {name.removesuffix(".json") for name in names}:
            self.accuse(f"I1: the record of {job_id} has gone")
        for name in names:
            if not name.startswith(".") and name.endswith(".json"):
                self._look_at(name.removesuffix(".json"))

    def _look_at(self, job_id: str) -> None:
        path = self._scene.jobs / f"{job_id}.json"
        try:
            # Taken before reading: a record that changes meanwhile is read again.
            file = identity(path.stat())
            if self._files.get(job_id) == file:
                return
            content = path.read_bytes()
            record: Record = json.loads(content)
        except FileNotFoundError:
            return  # The next look sees it.
        except ValueError:
            self.accuse(f"I1: the record of {job_id} is torn")
            return
        self._files[job_id] = file
        self.records[job_id] = record
        self.first_record.set()
        if record["status"] in _OVER:
            self.over_at.setdefault(job_id, time.monotonic())
            if self._ends.setdefault(job_id, content) != content:
                self.accuse(f"I2: the record of {job_id} has changed after its end")

    def look_at_processes(self) -> list[Process]:
        """Check the living processes: I4 and I8."""
        processes = self._scene.processes()
        now = time.monotonic()
        for process in processes:
            if process.job_id in self.over_at:
                lives_s = now - self.over_at[process.job_id]
                self.processes_gone_s = max(self.processes_gone_s, lives_s)
                if lives_s > GONE_S:
                    self.accuse(f"I4: {process} lives {GONE_S:.0f} s after the end of its job")
            is_owner = not process.job_id and process.name.startswith(_OWNERS)
            # Before its first call a server has loaded little: its modules take 64 MiB by
            # themselves, and are no growth.
            if is_owner and not process.is_agent and self.first_record.is_set():
                self._weigh(process)
        return processes

    def _weigh(self, process: Process) -> None:
        status = numbers_in(Path(f"/proc/{process.pid}/status"))
        if "VmRSS" in status:
            first_kib = self._first_kib.setdefault(process.pid, status["VmRSS"])
            grown_kib = status["VmHWM"] - first_kib
            self.growth_mib = max(self.growth_mib, grown_kib / 1024)
            if grown_kib > MAX_GROWTH_KIB:
                self.accuse(f"I8: {process.name} grew by {grown_kib // 1024} MiB")

    def check_woken(self, job_id: str) -> None:
        """Note that a waiter of a job has just woken."""
        slept_s = time.monotonic() - self.over_at.get(job_id, math.inf)
        self.woken_s = max(self.woken_s, slept_s)
        if slept_s > WOKEN_S:
            self.accuse(f"slept: a waiter of {job_id} was woken {slept_s:.1f} s after its end")

    # -- once, at the end

    def check_owned(self) -> None:
        """I3: a job that has not ended has an owner, or the next reader ends it."""
        for job_id, record in list(self.records.items()):
            if record["status"] not in _OVER and not self._is_held(job_id):
                # Between the two looks its owner may have ended it.
                job = self._settle(job_id)
                if job is not None and not job.status.is_terminal and not self._is_held(job_id):
                    self.accuse(f"I3: {job_id} is {job.status} and has no owner")

    def check_acknowledged(self, job_ids: Iterable[str]) -> None:
        """I1: every job that was named to a client has a record."""
        for job_id in set(job_ids) - self.records.keys():
            self.accuse(f"I1: {job_id} was acknowledged, but has no record")

    def check_crowd(self) -> None:
        """I5, as the agents recorded it."""
        for job_id in read_ledger(self._scene.directory).crowded:
            self.accuse(f"I5: the agent of {job_id} exceeded the limit")

    def check_answers(self, answers: Iterable[object]) -> None:
        """I6, for the records and for the client's answers."""
        ledger = read_ledger(self._scene.directory)
        for job_id, record in self.records.items():
            if record["status"] == "done":
                self._check_text(job_id, record["result"], ledger.answers)
        for row in (row for answer in answers for row in rows(answer)):
            if row.get("success") is True and "result" in row and "job_id" in row:
                self._check_text(row["job_id"], row, ledger.answers)
                record = self.records.get(row["job_id"], {})
                if record.get("status") != "done":
                    self.accuse(f"I1: {row['job_id']} succeeded and is {record.get('status')}")

    def _check_text(self, job_id: str, result: Record, answers: dict[str, list[str]]) -> None:
        text = result["result"]
        if not any(text.startswith(said) for said in answers.get(job_id, [])):
            self.accuse(
                f"I6: {job_id} succeeded with {text[:60]!r}, which its agent did not answer"
            )

    def check_modes(self) -> None:
        """I7, for everything below the configuration directory."""
        for path in self._scene.config.parent.rglob("*"):
            with suppress(FileNotFoundError):
                if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink():
                    self.accuse(f"I7: {path.relative_to(self._scene.directory)} is not private")

    def check_bugs(self) -> None:
        """Check that no process of ours printed a traceback."""
        for path in (self._scene.said, *(self._scene.jobs / "logs").glob("*")):
            with suppress(FileNotFoundError):
                text = path.read_text(errors="replace")
                if "Traceback" in text or "Bug in agent-dispatch" in text:
                    self.accuse(f"bug: {path.name} says {text[-2000:]}")

    def settle_all(self) -> list[Job]:
        """Read all jobs as any reader does, in any thread; returns those that have not ended."""
        jobs = [self._settle(job_id) for job_id in list(self.records)]
        return [job for job in jobs if job is not None and not job.status.is_terminal]

    def _settle(self, job_id: str) -> Job | None:
        try:
            return self._scene.store.settle(job_id)
        except UnknownJobError:
            self.accuse(f"I1: the record of {job_id} has gone")
            return None

    def _is_held(self, job_id: str) -> bool:
        try:
            fd = os.open(self._scene.jobs / "live" / f"{job_id}.lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @staticmethod
    def _names(directory: Path) -> list[str]:
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []
