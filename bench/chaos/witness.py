"""Watches one scene from outside, and says which of the invariants does not hold.

    I1  what was said to be recorded is there, whole
    I2  the record of a job that is over never changes
    I3  a job that is not over has an owner, or is over for whoever reads it next
    I4  no process of a job lives three seconds after its end
    I5  no more agents run at once than the limit allows
    I6  what is said to have succeeded was answered by its agent, in these words
    I7  files and directories are for their owner only
    I8  no server and no worker grows by more than 64 MiB after the first job was recorded,
        whatever its agents print

And beside them: who waits for a job is woken by its end; what no fault has touched ends as its
agent made it end; every request is answered while its server lives; no bug leaves a traceback.

It reads the files and /proc by itself; of the product it uses what any reader would, `settle`.
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

GONE_S = 3.0
WOKEN_S = 2.0
"""Much more than the milliseconds that it takes, for a loaded machine."""
MAX_GROWTH_KIB = 64 * 1024
_LOOK_EVERY_S = 0.01
_LOOK_AT_THE_REST_EVERY = 10
_OVER = ("done", "failed", "cancelled")
_OWNERS = ("python", "dispatch-work")

Record = dict[str, Any]


class Witness:
    """Sees one run from its first moment to its last."""

    def __init__(self, scene: Scene, *, settles: bool) -> None:
        """Watch `scene`; `watch` does the looking.

        Args:
            scene: Where it happens.
            settles: Settle, while the faults strike, what has no owner; or leave it to others.
        """
        self._scene = scene
        self._settles = settles
        self._files: dict[str, tuple[int, ...]] = {}
        self._ends: dict[str, bytes] = {}
        self._first_kib: dict[int, int] = {}
        self._found: dict[str, None] = {}
        self.records: dict[str, Record] = {}
        """As they were seen last."""
        self.over_at: dict[str, float] = {}
        """When each job was first seen to be over, by `time.monotonic`."""
        self.first_record = trio.Event()
        """Set when there is a job."""
        self.processes_gone_s = 0.0
        """The longest time from a job's end to the end of its last process."""
        self.woken_s = 0.0
        """The longest that somebody who waited for a job slept on after its end."""
        self.growth_mib = 0.0
        """The most that a server or a worker grew by."""

    @property
    def violations(self) -> list[str]:
        """What does not hold, each once."""
        return list(self._found)

    def accuse(self, what: str) -> None:
        """Take note of a violation."""
        self._found[what] = None

    async def watch(self) -> NoReturn:
        """Look again and again."""
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
            # Before reading: should it change meanwhile, it is read once more.
            file = identity(path.stat())
            if self._files.get(job_id) == file:
                return
            content = path.read_bytes()
            record: Record = json.loads(content)
        except FileNotFoundError:
            return  # Seen with the next look.
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
        """See who lives: I4 and I8."""
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
        now_kib, peak_kib = _memory_kib(process.pid)
        if now_kib:
            grown_kib = peak_kib - self._first_kib.setdefault(process.pid, now_kib)
            self.growth_mib = max(self.growth_mib, grown_kib / 1024)
            if grown_kib > MAX_GROWTH_KIB:
                self.accuse(f"I8: {process.name} grew by {grown_kib // 1024} MiB")

    def check_woken(self, job_id: str) -> None:
        """Somebody who waited for a job has just been woken."""
        slept_s = time.monotonic() - self.over_at.get(job_id, math.inf)
        self.woken_s = max(self.woken_s, slept_s)
        if slept_s > WOKEN_S:
            self.accuse(f"slept: who waited for {job_id} was woken {slept_s:.1f} s after its end")

    # -- once, when all is over

    def check_owned(self) -> None:
        """I3: whoever is not over has an owner, or is over for the next reader."""
        for job_id, record in list(self.records.items()):
            if record["status"] not in _OVER and not self._is_held(job_id):
                # Between the two looks its owner may have ended it.
                job = self._settle(job_id)
                if job is not None and not job.status.is_terminal and not self._is_held(job_id):
                    self.accuse(f"I3: {job_id} is {job.status} and nobody owns it")

    def check_acknowledged(self, job_ids: Iterable[str]) -> None:
        """I1: what was told to a client is there."""
        for job_id in set(job_ids) - self.records.keys():
            self.accuse(f"I1: {job_id} was acknowledged, and there is no record of it")

    def check_crowd(self) -> None:
        """I5, as the agents saw it."""
        for job_id in read_ledger(self._scene.directory).crowded:
            self.accuse(f"I5: the agent of {job_id} was one too many")

    def check_answers(self, answers: Iterable[object]) -> None:
        """I6: of the records, and of what the client got."""
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
            self.accuse(f"I6: {job_id} succeeded with {text[:60]!r}, which its agent never said")

    def check_modes(self) -> None:
        """I7, for all that lies below the configuration."""
        for path in self._scene.config.parent.rglob("*"):
            with suppress(FileNotFoundError):
                if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink():
                    self.accuse(f"I7: {path.relative_to(self._scene.directory)} is not private")

    def check_bugs(self) -> None:
        """Nothing of ours has raised what it should not."""
        for path in (self._scene.said, *(self._scene.jobs / "logs").glob("*")):
            with suppress(FileNotFoundError):
                text = path.read_text(errors="replace")
                if "Traceback" in text or "Bug in agent-dispatch" in text:
                    self.accuse(f"bug: {path.name} says {text[-2000:]}")

    def settle_all(self) -> list[Job]:
        """Read all jobs as any reader does, in whatever thread; those that are not over."""
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


def _memory_kib(pid: int) -> tuple[int, int]:
    """Resident memory now and at most; zeros for a process that is gone."""
    found = {"VmRSS": 0, "VmHWM": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0])
    return found["VmRSS"], found["VmHWM"]
