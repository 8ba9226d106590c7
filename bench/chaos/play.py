"""One chaos run: carries out the plan and collects the outcome."""

import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent_dispatch.jobs.waiting import wait_until_over
from agent_dispatch.model.job import Job
from bench.chaos.agents import WITHDRAWN, behaviour_of, expected_end, hangs
from bench.chaos.faults import (
    SkippedError,
    mount_jobs,
    strike_scene,
    unmount_jobs,
)
from bench.chaos.plan import Plan, Strike, Submission, Touches
from bench.chaos.scene import Client, Scene, signal_all
from bench.chaos.witness import GONE_S, Witness

_ASK_AGAIN_S = 2.0
"""A server that is exiting may lose a request to cancel."""
_OVER_S = 20.0
"""The time in which all jobs end, also on a loaded machine."""
_FIRST_JOB_S = 3.0
_ANSWER_S = 10.0
_EXIT_S = 5.0
_MAX_FILE_BLOCKS = 200
"""In blocks of 512 or 1024 bytes, by shell: more than a reserve, less than a long answer."""


@dataclass(kw_only=True)
class Outcome:
    """The outcome of one run."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Faults that are not possible on this machine, each with the reason."""
    jobs: list[dict[str, str]] = field(default_factory=list)
    """The kind, behaviour, status and error_type of each job."""
    acknowledged: int = 0
    escaped: int = 0
    """Processes that nothing could find: see Limits in docs/reliability.md."""
    took_s: float = 0.0
    over_s: float = 0.0
    """The time from the last fault to the end of the last job."""
    processes_gone_s: float = 0.0
    woken_s: float = 0.0
    """The longest time from a job's end to the waking of a waiter."""
    growth_mib: float = 0.0


async def play(plan: Plan, *, may_mount: bool) -> Outcome:
    """Carry out a plan; no process or file of it is left afterwards, whatever happens."""
    outcome = Outcome(plan=plan)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-chaos-") as directory:
        run = _Run(Scene(Path(directory), plan.limit), outcome)
        try:
            await run.go(may_mount=may_mount)
        except Exception as error:
            run.witness.accuse(f"exception: {error!r}")
            if isinstance(error, ExceptionGroup):
                run.witness.accuse(f"within: {error.exceptions!r}")
        finally:
            run.clean_up()
    outcome.took_s = time.monotonic() - begun
    return outcome


class _Run:
    def __init__(self, scene: Scene, outcome: Outcome) -> None:
        self._scene = scene
        self._plan = outcome.plan
        self._outcome = outcome
        self._struck_at = 0.0
        self._is_mounted = False
        self.witness = Witness(scene, settles=outcome.plan.onlooker == "settles")

    async def go(self, *, may_mount: bool) -> None:
        if self._plan.has("disk full") and may_mount:
            why_not = mount_jobs(self._scene)
            self._is_mounted = not why_not
        limited = self._plan.has("files limited in size")
        served = self._scene.served(_MAX_FILE_BLOCKS if limited else None)
        async with served as client, trio.open_nursery() as nursery:
            nursery.start_soon(self.witness.watch)
            if self._plan.onlooker == "waits":
                nursery.start_soon(self._wait_for_all, client)
            async with trio.open_nursery() as acts:
                for number, submission in enumerate(self._plan.submissions):
                    acts.start_soon(self._submit, client, submission, number)
                for strike in self._plan.strikes:
                    acts.start_soon(self._strike, client, strike)
            self._struck_at = time.monotonic()
            await self._all_over(client)
            await self._all_answered(client)
            await self._agents_gone()
            await self._leave(client)
            nursery.cancel_scope.cancel()
        await self._nobody_left()
        self._check(client)

    async def _submit(self, client: Client, submission: Submission, number: int) -> None:
        await trio.sleep(submission.at_s)
        mark = "d" if submission.tool == "dispatch_dialogue" else ""
        tasks = [
            f"{behaviour} #{mark}{number}.{index}"
            for index, behaviour in enumerate(submission.behaviours)
        ]
        match submission.tool:
            case "dispatch_parallel":
                items = [{"agent": "infra", "task": task} for task in tasks]
                await client.post(submission.tool, dispatches=items)
            case "dispatch_dialogue":
                pair = {"requester": "web", "responder": "infra"}
                await client.post(submission.tool, **pair, topic=tasks[0], max_rounds=2)
            case _:
                for _ in range(2 if submission.twice else 1):
                    await client.post(submission.tool, agent="infra", task=tasks[0])

    async def _strike(self, client: Client, strike: Strike) -> None:
        if strike.from_first_job:
            with trio.move_on_after(_FIRST_JOB_S):
                await self.witness.first_record.wait()
        await trio.sleep(strike.at_s)
        try:
            await strike_scene(self._scene, client, strike)
        except SkippedError as reason:
            self._outcome.skipped.append(f"{strike.fault}: {reason}")

    # -- an onlooker

    async def _wait_for_all(self, client: Client) -> None:
        """Wait for each job from outside, and over MCP for the jobs that the server named."""
        awaited: set[str] = set()
        async with trio.open_nursery() as nursery:
            while True:
                for job_id in self.witness.records.keys() - awaited:
                    awaited.add(job_id)
                    nursery.start_soon(self._wait_for, job_id)
                    if job_id in client.acknowledged:
                        await client.post("dispatch_wait", job_id=job_id, timeout_seconds=60)
                await trio.sleep(0.01)

    async def _wait_for(self, job_id: str) -> None:
        await wait_until_over(self._scene.store, job_id)
        self.witness.check_woken(job_id)

    # -- until all is quiet

    async def _all_over(self, client: Client) -> None:
        """Wait for jobs that end by themselves, cancel the rest; each has an owner until then."""
        self.witness.look()
        self.witness.check_owned()
        asked: Counter[str] = Counter()
        next_at = time.monotonic()
        quiet = 0
        with trio.move_on_after(_OVER_S) as patience:
            # Look twice: a request that the server has just read may still become a job.
            while quiet < 2:
                self.witness.look()
                going = await trio.to_thread.run_sync(self.witness.settle_all)
                self.witness.look()
                due = client.is_reading and not client.asked.keys() <= client.answers.keys()
                quiet = 0 if going or due else quiet + 1
                if time.monotonic() >= next_at:
                    for job in (job for job in going if hangs(job.task)):
                        asked[job.id] += 1
                        await self._cancel(client, job, asked[job.id])
                    next_at = time.monotonic() + _ASK_AGAIN_S
                await trio.sleep(0.03)
        if patience.cancelled_caught:
            for job in self.witness.settle_all():
                self.witness.accuse(f"never over: {job.id} is {job.status} ({job.task})")
        ends = self.witness.over_at.values()
        self._outcome.over_s = max(0.0, *(at - self._struck_at for at in ends), 0.0)

    async def _cancel(self, client: Client, job: Job, times: int) -> None:
        """Cancel in turn over MCP, from another process, and from a shell."""
        match (self._plan.seed + times) % 3:
            case 0:
                await client.post("dispatch_cancel", job_id=job.id)
            case 1:
                await trio.to_thread.run_sync(self._scene.store.requests.cancel, job.id, "chaos")
            case _:
                await self._scene.command("cancel", job.id)

    async def _all_answered(self, client: Client) -> None:
        with trio.move_on_after(_ANSWER_S) as patience:
            await client.answered()
        if patience.cancelled_caught:
            due = [client.asked[request] for request in client.asked.keys() - client.answers.keys()]
            self.witness.accuse(f"unanswered: {due}")
        if not any(fault.ends_server for fault in self._plan.faults) and not client.is_up:
            self.witness.accuse("gone: the server ended, although no fault ended it")

    async def _agents_gone(self) -> None:
        if await self._scene.gone(self._scene.agents, GONE_S + 1):
            return
        left = [process for process in self.witness.look_at_processes() if process.is_agent]
        if left and self._may_escape(len(left)):
            self._outcome.escaped = len(left)
            self._scene.sweep_escaped()
        elif left:
            self.witness.accuse(f"I4: processes of agents whose jobs have ended: {left}")

    def _may_escape(self, count: int) -> bool:
        """Whether these processes cleared their environment and lost their guard."""
        behaviours = [b for s in self._plan.submissions for b in s.behaviours]
        kills_guards = any(fault.kills_guards for fault in self._plan.faults)
        return kills_guards and count <= behaviours.count("cleared environment")

    async def _leave(self, client: Client) -> None:
        await client.hang_up()
        with trio.move_on_after(_EXIT_S) as patience:
            await client.process.wait()
        if patience.cancelled_caught:
            self.witness.accuse("stays: the server did not exit at the end of its stdin")

    async def _nobody_left(self) -> None:
        # A fork server that was stopped for good notices its owner's end when it continues.
        signal_all(self._scene.named("dispatch-fork"), signal.SIGCONT)
        if not await self._scene.gone(self._scene.processes, GONE_S):
            self.witness.accuse(f"I4: our own processes are left: {self._scene.processes()}")

    # -- when all is quiet

    def _check(self, client: Client) -> None:
        witness, scene = self.witness, self._scene
        witness.look()
        witness.check_acknowledged(client.acknowledged)
        witness.check_crowd()
        witness.check_answers(client.answers.values())
        witness.check_modes()
        witness.check_bugs()
        self._check_spared(client)
        if scene.jobs.exists():
            scene.store.retention.collect(7)
            if litter := os.listdir(scene.jobs / "live") if (scene.jobs / "live").exists() else []:
                witness.accuse(f"litter: {litter}")
            if warnings := scene.store.lister.newest().warnings:
                witness.accuse(f"listed with warnings: {warnings}")
            witness.look()
        self._outcome.acknowledged = len(client.acknowledged)

    def _check_spared(self, client: Client) -> None:
        """Check that an acknowledged job that no fault touched ends as its agent made it end."""
        for job_id, record in self.witness.records.items():
            # A withdrawn submission gets no answer, but its record must be right.
            if job_id not in client.acknowledged and WITHDRAWN not in record["task"]:
                continue
            touched = Touches.CALLS if record["kind"] == "call" else Touches.BACKGROUND
            expected = expected_end(record["task"])
            if record.get("parent") or touched in self._plan.touches or expected is None:
                continue
            if (record["status"], record.get("error_type", "")) != expected:
                end = f"{record['status']}, {record.get('error')}"
                self.witness.accuse(f"not spared: {job_id} ({record['task']}) is {end}")

    def clean_up(self) -> None:
        """Remove all processes and disks; complete the outcome."""
        self._scene.sweep()
        if self._scene.swept and not self.witness.violations:
            self.witness.accuse(
                f"I4: {self._scene.swept} processes were left that no check had found"
            )
        if self._is_mounted:
            unmount_jobs(self._scene)
        outcome, witness = self._outcome, self.witness
        outcome.violations = witness.violations
        outcome.processes_gone_s = witness.processes_gone_s
        outcome.woken_s = witness.woken_s
        outcome.growth_mib = witness.growth_mib
        outcome.jobs = [
            {
                "kind": record["kind"],
                "behaviour": behaviour_of(record["task"]),
                "status": record["status"],
                "error_type": record.get("error_type", ""),
            }
            for record in witness.records.values()
        ]
