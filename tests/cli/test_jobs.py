import json
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from agent_dispatch.cli.app import run_cli
from agent_dispatch.cli.jobs import follow
from agent_dispatch.cli.jobs.display import age
from agent_dispatch.core import group_job
from agent_dispatch.errors import UnknownAgentError
from agent_dispatch.jobs import record
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.origin import SESSION_VARIABLE, Origin
from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Evidence,
    Member,
)
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs
from tests.cli.support import JOB_ID, FakeService, Stream, World
from tests.jobs.support import CANCELLED, DONE, FAILED, end, ended, running

TIMEOUT = DispatchResult(
    agent="infra", success=False, result="", error="Too slow.", error_type=ErrorType.TIMEOUT
)


@pytest.fixture
def jobs_dir(world: World) -> Path:
    return world.config.parent / "jobs"


@pytest.fixture
def store(jobs_dir: Path) -> JobStore:
    return JobStore(jobs_dir)


def report(store: JobStore, claim: Claim, *lines: str) -> None:
    store.update(claim, record.with_progress(claim.job, lines, time.time()))


class Reader(Stream):
    """A standard stream whose reader acts on what it reads."""

    def __init__(self, act: Callable[[str], None]) -> None:
        super().__init__()
        self._act = act

    def write(self, text: str) -> int:
        written = super().write(text)
        self._act(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def test_jobs_are_listed_newest_first_and_aligned(world: World, store: JobStore) -> None:
    old = ended(store)
    failed = ended(store, TIMEOUT)
    now = running(store)
    assert world.run("jobs") == 0
    heading, *rows = world.out.splitlines()
    assert heading.split() == ["ID", "AGE", "STATUS", "AGENT", "TOOK", "COST", "TASK"]
    ids = [row.split()[0] for row in rows]
    assert ids == [job_id[-8:] for job_id in (now.job.id, failed, old)]
    assert [row[heading.index("STATUS") :].split("  ")[0] for row in rows] == [
        "running",
        "failed: timeout",
        "done",
    ]
    assert all(row[heading.index("TASK") :] == "List the pods" for row in rows)
    assert rows[2][heading.index("COST") :].startswith("$0.25")
    assert world.err == ""
    store.release(now)


def test_without_jobs_that_is_said_and_nothing_is_made(world: World, jobs_dir: Path) -> None:
    assert world.run("jobs") == 0
    assert world.out == "No jobs.\n"
    assert world.run("jobs", "--status", "failed") == 0
    assert world.out == "No jobs that are failed.\n"
    assert world.run("jobs", "--json") == 0
    assert world.answer() == []
    assert not jobs_dir.exists()


def test_a_listing_can_be_narrowed(world: World, store: JobStore) -> None:
    first, second = ended(store), ended(store)
    ended(store, FAILED)
    assert world.run("jobs", "--status=done", "--json") == 0
    assert [row["id"] for row in world.answer()] == [second, first]
    assert world.run("jobs", "--limit", "1", "--json") == 0
    assert len(world.answer()) == 1
    for limit in ("0", "-3", "1001"):
        assert world.run("jobs", "--limit", limit) == 2
        assert "--limit" in world.err
        assert "must be from 1 to 1000" in world.err
    assert world.run("jobs", "--status", "doen") == 2
    assert "Did you mean done? It takes: pending, running, done, failed, cancelled" in world.err


def test_a_listing_is_of_one_agent_and_of_some_time(world: World, jobs_dir: Path) -> None:
    day_s = 86_400
    now_s = time.time()
    created = [now_s - 9 * day_s, now_s - 2 * day_s, now_s - 60]
    ages = iter(created)
    clock = iter([int(second * 10**9) for second in created])
    store = JobStore(jobs_dir, ids=IdSource(lambda: next(clock)), now=lambda: next(ages))
    ids = []
    for agent in ("infra", "db", "infra"):
        claim = store.create(
            store.new_job(DispatchRequest(agent=agent, task="look"), kind=JobKind.CALL)
        )
        ids.append(claim.job.id)
        store.release(claim)
    reader = JobStore(jobs_dir)
    for job_id in ids:
        reader.settle(job_id)
    for options, wanted in (
        (["--agent", "infra"], [2, 0]),
        (["--agent", "nobody"], []),
        (["--since", "3d"], [2, 1]),
        (["--since", "24h"], [2]),
        (["--since", "7d", "--agent", "db"], [1]),
        (["--since", time.strftime("%Y-%m-%d", time.localtime(now_s - 5 * day_s))], [2, 1]),
        (["--since", "30d", "--status", "failed", "--limit", "1", "--agent", "db"], [1]),
    ):
        assert world.run("jobs", "--json", *options) == 0
        assert [row["id"] for row in world.answer()] == [ids[place] for place in wanted]
    assert world.run("jobs", "--since", "yesterday") == 2
    assert "Not a time: 'yesterday'. Give a period such as 7d or 24h, or a date" in world.err
    assert world.run("jobs", "--since", "1h", "--status", "done", "--agent", "db") == 0
    assert world.out == "No jobs that are done of db since 1h.\n"


def test_a_listing_is_of_the_jobs_that_were_started_from_here(
    world: World, jobs_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids = {}
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        origin = Origin({SESSION_VARIABLE: "s"}, str(tmp_path / place))
        request = DispatchRequest(agent="infra", task="look")
        store = JobStore(jobs_dir, origin=origin)
        claim = store.create(store.new_job(request, kind=JobKind.BACKGROUND))
        store.release(claim)
        ids[place] = claim.job.id
        elsewhere = msgspec.structs.replace(claim.job, id=IdSource().next())
        RemoteJobs(str(jobs_dir)).create(
            RemoteJob(id=elsewhere.id, host="gpu", agent="infra", noted_at=0, job=elsewhere)
        )
        ids[f"{place} on gpu"] = f"{elsewhere.id}@gpu"
    monkeypatch.chdir(tmp_path / "here")
    assert world.run("jobs", "--mine", "--json") == 0
    assert {row["id"] for row in world.answer()} == {ids["here"], ids["here on gpu"]}
    assert world.run("jobs", "--mine", "--agent", "db") == 0
    assert world.out == "No jobs of db from here.\n"


def test_the_answers_of_a_group_are_shown_one_by_one(world: World, store: JobStore) -> None:
    members = [Member(request=DispatchRequest(agent=name, task="look")) for name in ("infra", "db")]
    step = NextStep(kind=StepKind.LOOK_AT_JOB, job_id=JOB_ID)
    came = ParallelResult(
        individual_results=[
            DispatchResult(agent="infra", success=True, result="four pods"),
            DispatchResult(
                agent="db", success=False, result="", error="It was down.", next_steps=[step]
            ),
        ]
    )
    claim = store.create(
        store.new_job(
            group_job.as_dispatch(members, ""),
            kind=JobKind.GROUP,
            fields={"agents": ["infra", "db"], "dispatches": members},
        )
    )
    result = group_job.to_record("infra, db", came, 10)
    store.update(claim, record.started(claim.job, 1e9))
    store.finish(claim, record.ended(claim.job, result, 1e9))
    assert world.run("wait", claim.job.id) == 0
    assert "## 1. infra\n\nfour pods" in world.out
    assert "It was down." in world.err
    assert world.run("job", claim.job.id, "--json") == 0
    failed = world.answer()["result"]["parsed_result"][1]
    assert "tip: agent-dispatch job " in failed["error"]
    assert "next_steps" not in failed


def test_what_is_no_job_is_warned_about_beside_the_answer(
    world: World, store: JobStore, jobs_dir: Path
) -> None:
    known = ended(store)
    (jobs_dir / "notes.txt").write_text("mine")
    (jobs_dir / f"{JOB_ID}.json").write_text("{")
    for argv in (["jobs"], ["jobs", "--json"], ["gc"]):
        assert world.run(*argv) == 0
        assert "warning: notes.txt: not a job record; left alone" in world.err
        assert f"warning: {JOB_ID}.json: it is not JSON" in world.err
    world.run("jobs", "--json")
    assert [row["id"] for row in world.answer()] == [known]
    assert world.run("job", JOB_ID) == 1
    assert "cannot be read" in world.err


def test_what_a_task_says_cannot_steer_the_terminal(world: World, store: JobStore) -> None:
    evil = "look\x1b[2J\x1b]0;owned\x07\nsecond line"
    request = DispatchRequest(agent="a\x1b[2J", task=evil)
    claim = store.create(store.new_job(request, kind=JobKind.CALL))
    report(store, claim, "line\x1b[2J")
    end(store, claim, msgspec.structs.replace(FAILED, result=evil, error=evil))
    world.terminal = True
    for argv in (["jobs"], ["job", claim.job.id], ["wait", claim.job.id], ["tail", claim.job.id]):
        world.run(*argv)
        assert "\x1b[2J" not in world.out + world.err
        assert "\x1b]" not in world.out + world.err
    world.run("jobs")
    assert len(world.out.splitlines()) == 2


def test_a_terminal_shows_statuses_in_colour_and_still_aligned(
    world: World, store: JobStore
) -> None:
    ended(store)
    ended(store, TIMEOUT)
    world.terminal = True
    world.run("jobs")
    assert "\x1b[32mdone           \x1b[0m" in world.out
    assert "\x1b[31mfailed: timeout\x1b[0m" in world.out
    world.environ["NO_COLOR"] = "1"
    world.run("jobs")
    assert "\x1b" not in world.out


def test_a_job_is_shown_with_what_was_asked_and_its_answer(world: World, store: JobStore) -> None:
    request = DispatchRequest(agent="infra", task="look\nhere", caller="me", goal="g")
    claim = store.create(store.new_job(request, kind=JobKind.CALL, ref=True))
    store.update(claim, record.started(claim.job, time.time()))
    report(store, claim, "one", "two")
    end(store, claim, msgspec.structs.replace(DONE, session_id="s-1", result="Three\npods"))
    assert world.run("job", claim.job.id) == 0
    facts, _, answer = world.out.partition("\n\n")
    assert facts.startswith(claim.job.id + "\n")
    for line in (
        "  status          done",
        "  kind            call, kept as a ref",
        "  agent           infra",
        "  task            look here",
        "  caller          me",
        "  goal            g",
        "  session         s-1",
        "  cost            $0.25",
        "  progress        two",
    ):
        assert line in facts.splitlines()
    assert "ago)" in facts
    assert answer == "Three\npods\n"


def test_a_job_shows_what_its_run_was_seen_to_do(world: World, store: JobStore) -> None:
    evidence = Evidence(
        tool_calls=3,
        tools={"Bash": 2, "Edit": 1},
        files_changed=[f"src/{number:02}.py" for number in range(22)],
        commits=["a" * 40],
        read_only=False,
    )
    job_id = ended(store, msgspec.structs.replace(DONE, evidence=evidence))
    assert world.run("job", job_id) == 0
    lines = world.out.splitlines()
    assert "  tool calls      3 (Bash 2, Edit 1)" in lines
    assert f"  commits         {'a' * 40}" in lines
    files = next(line for line in lines if line.startswith("  files changed"))
    assert files.endswith("src/18.py, src/19.py and 2 more")
    read = Evidence(tool_calls=1, tools={"Read": 1}, read_only=True)
    job_id = ended(store, msgspec.structs.replace(DONE, evidence=read))
    assert world.run("job", job_id) == 0
    assert "  tool calls      1 (Read 1), nothing but reading" in world.out.splitlines()


def test_a_job_whose_owner_died_is_shown_as_lost(world: World, store: JobStore) -> None:
    claim = running(store)
    store.release(claim)
    assert world.run("job", claim.job.id) == 0
    assert "failed: lost" in world.out
    assert world.run("wait", claim.job.id) == 1


def test_json_is_the_whole_record(world: World, store: JobStore) -> None:
    job_id = ended(store, msgspec.structs.replace(DONE, result="x" * 100_000))
    assert world.run("job", job_id, "--json") == 0
    assert len(world.answer()["result"]["result"]) == 100_000
    assert world.run("wait", job_id, "--json") == 0
    assert len(world.answer()["result"]["result"]) == 100_000
    assert "timed_out_waiting" not in world.answer()


@pytest.mark.parametrize("command", ["job", "wait", "tail", "cancel"])
@pytest.mark.parametrize("text", ["x", "abc", "../../etc/passwd", "", "-", "0" * 33])
def test_what_cannot_be_an_id_is_an_error_and_adds_no_line_to_it(
    world: World, store: JobStore, command: str, text: str
) -> None:
    ended(store)
    assert world.run(command, "--", text) == 1
    assert world.out == ""
    error, next_step = world.err.splitlines()
    assert error.startswith("error: Not a job id: ")
    assert next_step == "tip: agent-dispatch jobs"


@pytest.mark.parametrize("command", ["job", "wait", "tail", "cancel"])
def test_an_unknown_job_is_an_error(world: World, command: str) -> None:
    for text in (JOB_ID, JOB_ID[:12]):
        assert world.run(command, text) == 1
        assert world.err.startswith(f"error: Unknown job: '{text}'")
    assert world.run(command, JOB_ID[:12], "--json") == 1
    assert "Unknown job" in world.answer()["error"]


def test_a_part_of_an_id_will_do_if_only_one_has_it(world: World, jobs_dir: Path) -> None:
    hour_ns = 3_600 * 10**9
    clock = iter([10**18, 10**18 + 1, 10**18 + hour_ns])
    store = JobStore(jobs_dir, ids=IdSource(lambda: next(clock)))
    first, second, later = (ended(store) for _ in range(3))
    parts = (later[:8], later[:31], later[-4:], later[-8:], later[-31:], later[-8:-4])
    for text in (*parts, later.upper(), f" {later[-8:].upper()} "):
        assert world.run("job", text, "--json") == 0
        assert world.answer()["id"] == later
    assert world.run("job", later[-3:]) == 1
    assert "Not a job id" in world.err
    assert world.run("job", first[:8]) == 1
    *candidates, error, tip = world.err.splitlines()
    assert error == f"error: 2 jobs match {first[:8]}. Use more digits."
    assert tip == "tip: agent-dispatch jobs"
    assert [line.split()[:3] for line in candidates] == [
        [second[-8:], "done", "infra"],
        [first[-8:], "done", "infra"],
    ]
    assert world.run("job", first[:8], "--json") == 1
    assert all(job_id[-8:] in world.answer()["error"] for job_id in (first, second))


def test_matches_of_beginnings_and_of_ends_all_count(world: World, jobs_dir: Path) -> None:
    twins = iter([b"\0" * 8, ((0x0190A7B0) << 2).to_bytes(8)])
    clock = iter([0x0190A7B0C1D2 * 10**6, 0x0190A7B0C1D2 * 10**6 + 10**15])
    store = JobStore(jobs_dir, ids=IdSource(lambda: next(clock), lambda _: next(twins)))
    first, second = ended(store), ended(store)
    assert first.startswith("0190a7b0")
    assert second.endswith("0190a7b0")
    assert world.run("job", "0190") == 1
    assert "2 jobs match 0190" in world.err


@pytest.mark.parametrize("command", ["job", "wait", "tail"])
def test_without_a_job_the_newest_is_meant(world: World, store: JobStore, command: str) -> None:
    assert world.run(command) == 1
    assert world.err == "error: There are no jobs yet.\ntip: agent-dispatch list\n"
    ended(store)
    newest = ended(store)
    for argv in ([command, "--json"], [command, "last", "--json"]):
        assert world.run(*argv) == 0
        assert world.answer()["id"] == newest


def test_a_cancellation_must_name_its_job(world: World, store: JobStore) -> None:
    assert world.run("cancel") == 2
    newest = ended(store)
    assert world.run("cancel", "last", "--json") == 0
    assert world.answer()["job_id"] == newest


@pytest.mark.parametrize(
    ("result", "status"), [(DONE, 0), (FAILED, 1), (CANCELLED, 1), (TIMEOUT, 124)]
)
def test_waiting_for_a_job_that_is_over_tells_how_it_ended(
    world: World, store: JobStore, result: DispatchResult, status: int
) -> None:
    job_id = ended(store, result)
    assert world.run("wait", job_id) == status
    assert world.out == (f"{result.result}\n" if result.result else "")
    assert (result.error or "") in world.err
    assert world.run("wait", job_id, "--json") == status
    assert world.answer()["id"] == job_id
    assert world.run("tail", job_id, "--follow") == status


@pytest.mark.parametrize("patience", ["0", "-1", "0.01"])
def test_a_job_that_still_runs_when_the_patience_is_over_is_status_3(
    world: World, store: JobStore, patience: str
) -> None:
    claim = running(store)
    assert world.run("wait", claim.job.id, "--timeout-seconds", patience) == 3
    assert world.out == ""
    assert f"Job {claim.job.id[-8:]} is running; it goes on." in world.err
    assert world.run("wait", claim.job.id, "--timeout-seconds", patience, "--json") == 3
    assert world.answer()["timed_out_waiting"] is True
    assert world.err == ""
    store.release(claim)


def test_on_a_terminal_a_wait_has_no_limit_and_elsewhere_it_has(
    world: World, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_WAIT_S", 0.01)
    claim = running(store)
    assert world.run("wait") == 3
    ending = threading.Timer(0.3, end, [store, claim])
    ending.start()
    world.terminal = True
    assert world.run("wait") == 0
    ending.join()
    assert world.out == "Three pods\n"


def test_a_wait_shows_progress_and_wakes_at_the_end(world: World, store: JobStore) -> None:
    claim = running(store)
    report(store, claim, "one", "two")

    def act(text: str) -> None:
        if "two" in text:
            end(store, claim)

    stdout, stderr = Stream(), Reader(act)
    started = time.monotonic()
    assert run_cli(["wait", claim.job.id], world.shell(stdout, stderr)) == 0
    # Far from the second after which it looks again by itself.
    assert time.monotonic() - started < 0.5
    assert stdout.text == "Three pods\n"
    assert stderr.text.startswith("[  0 s] two\n")


def test_a_tail_is_what_the_record_has(world: World, store: JobStore) -> None:
    claim = running(store)
    assert world.run("tail", claim.job.id) == 0
    assert world.out == ""
    report(store, claim, "one", "two\nlines")
    assert world.run("tail", claim.job.id) == 0
    assert world.out == "one\ntwo lines\n"
    assert world.run("tail", claim.job.id, "--json") == 0
    assert world.answer() == {
        "id": claim.job.id,
        "status": "running",
        "progress": ["one", "two\nlines"],
    }
    store.release(claim)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_tail_that_follows_prints_each_line_once_until_the_end(
    world: World, store: JobStore, as_json: bool
) -> None:
    claim = running(store)
    tail = [f"line {number}" for number in range(20)]
    report(store, claim, *tail)

    def act(text: str) -> None:
        if "line 19" in text:
            report(store, claim, *tail[2:], "line 20", "line 21")
        if "line 21" in text:
            end(store, claim, FAILED)

    stdout, stderr = Reader(act), Stream()
    argv = ["tail", claim.job.id, "--follow", *(["--json"] if as_json else [])]
    assert run_cli(argv, world.shell(stdout, stderr)) == 1
    lines = [f"line {number}" for number in range(22)]
    if as_json:
        *progress, last = map(json.loads, stdout.text.splitlines())
        assert progress == [{"progress": line} for line in lines]
        assert last == {"id": claim.job.id, "status": "failed"}
    else:
        *shown, last_line = stdout.text.splitlines()
        # What comes while it follows is told with the time of day.
        assert shown[:20] == lines[:20]
        assert [line[:8].count(":") for line in shown[20:]] == [2, 2]
        assert [line[10:] for line in shown[20:]] == lines[20:]
        assert re.fullmatch(r"infra · failed · \d+ s", last_line)
        assert stderr.text == ""


def test_a_tail_ends_with_how_it_ended_after_how_long_and_what_it_cost(
    world: World, store: JobStore
) -> None:
    claim = running(store)
    report(store, claim, "infra · Bash: make")
    end(store, claim)
    assert world.run("tail") == 0
    first, last = world.out.splitlines()
    assert first == "infra · Bash: make"
    assert re.fullmatch(r"infra · done · \d+ s · \$0\.25", last)


def test_a_job_without_an_owner_is_cancelled_at_once(world: World, store: JobStore) -> None:
    over = ended(store)
    for argv in ([], ["--json"]):
        assert world.run("cancel", over, *argv) == 0
    assert world.answer() == {"job_id": over, "outcome": "already_terminal"}
    assert world.run("cancel", JOB_ID, "--json") == 1
    assert world.answer() == {"job_id": JOB_ID, "outcome": "not_found"}


def test_a_job_is_cancelled_by_its_owner_who_is_told_by_whom(world: World, store: JobStore) -> None:
    started: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def own() -> None:
        request = DispatchRequest(agent="infra", task="look")
        with trio.fail_after(30):
            async with create_job(store, store.new_job(request, kind=JobKind.BACKGROUND)) as owned:
                owned.note_started()
                started.put(owned.job.id)
                by = await owned.wait_cancelled()
                await owned.finish(msgspec.structs.replace(CANCELLED, error=f"Cancelled by {by}."))

    owner = threading.Thread(target=trio.run, args=[own])
    owner.start()
    job_id = started.get(timeout=30)
    assert world.run("cancel", job_id[:16]) == 0
    owner.join()
    assert world.out == f"Cancelled {job_id[-8:]}.\n"
    assert store.settle(job_id).error == "Cancelled by agent-dispatch cancel."


def test_gc_removes_what_is_over_for_long_enough(world: World, store: JobStore) -> None:
    over = [ended(store), ended(store, FAILED)]
    claim = running(store)
    assert world.run("gc") == 0
    assert world.out == "Removed 0 jobs.\n"
    assert world.run("gc", "--max-age-days", "0", "--dry-run") == 0
    assert world.out == f"Would remove 2 jobs.\n{over[1]}\n{over[0]}\n"
    assert world.run("gc", "--max-age-days", "0", "--json") == 0
    assert world.answer() == {"purged": 2, "ids": over[::-1]}
    assert world.run("jobs", "--json") == 0
    assert [row["id"] for row in world.answer()] == [claim.job.id]
    store.release(claim)


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_an_age_that_is_none_is_refused(world: World, store: JobStore, days: str) -> None:
    ended(store)
    assert world.run("gc", f"--max-age-days={days}") == 2
    assert "must be from 0 to 1000000" in world.err


def test_a_run_in_the_background_prints_the_id_of_its_job(world: World) -> None:
    assert world.run("run", "infra", "look", "--background") == 0
    assert world.out == f"{JOB_ID}\n"
    assert f"agent-dispatch wait {JOB_ID[-8:]}" in world.err
    assert world.run("run", "infra", "look", "--background", "--json", "--context=c") == 0
    assert world.answer() == {"job_id": JOB_ID, "status": "pending", "agent": "infra"}
    assert world.err == ""
    assert world.service.requests == [
        DispatchRequest(agent="infra", task="look"),
        DispatchRequest(agent="infra", task="look", context="c"),
    ]


def test_a_run_that_is_refused_has_no_id(world: World) -> None:
    world.service = FakeService(UnknownAgentError("infra", available=["db"]))
    assert world.run("run", "infra", "look", "--background") == 1
    assert world.out == ""
    assert world.err == "error: Unknown agent: 'infra'. Available: db\ntip: agent-dispatch list\n"
    assert world.run("run", "infra", "look", "--background", "--stream") == 2
    assert "--follow" in world.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (7_199, "1 h"),
        (86_400, "1 d"),
        (86_400 * 400, "400 d"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text
