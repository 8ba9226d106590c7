"""The host's side, tested by a caller that only exchanges frames."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.remote.machine import NONCE, Machine, calling, wait_for

ID = "0190a7b0c1d27abc8def0123456789ab"


def test_a_job_runs_under_the_id_of_its_caller(gpu: Machine) -> None:
    with calling(gpu) as caller:
        accepted = caller.submit("train", "echo=hi lines=3", ID, lease_s=30)
        assert (accepted["t"], accepted["id"]) == ("accepted", ID)
        job = caller.attach(ID, lease_s=30)
        assert job["result"]["result"].startswith("answer to echo=hi")
        assert [seq for seq, _ in caller.events] == list(range(1, len(caller.events) + 1))
        assert any("step 3" in line for _, line in caller.events)
    assert gpu.answer("job", ID)["status"] == "done"


def test_a_repeated_submission_finds_the_job_of_the_first(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "sleep=1", ID, lease_s=30)
        again = caller.submit("train", "sleep=1", ID, lease_s=30)
        assert again["again"]
    with calling(gpu) as caller:
        assert caller.submit("train", "sleep=1", ID, lease_s=30)["again"]
        caller.attach(ID, lease_s=30)
    with calling(gpu) as caller:
        assert caller.submit("train", "sleep=1", ID, lease_s=30)["status"] == "done"
    assert len(gpu.starts) == 1


def test_the_same_id_with_another_request_is_refused(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "echo=1", ID)
        refused = caller.submit("train", "echo=2", ID)
        assert refused["t"] == "failed"
        assert "another request" in refused["error"]
        caller.attach(ID)
    assert len(gpu.starts) == 1


def test_a_job_that_was_taken_is_not_refused_when_its_submission_is_repeated(
    gpu: Machine,
) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "echo=1", ID, kind="background")
        caller.attach(ID)
    gpu.cli("remove", "train")
    with calling(gpu) as caller:
        assert caller.submit("train", "echo=1", ID, kind="background")["again"]
        assert "another request" in caller.submit("train", "echo=2", ID)["error"]
        assert caller.submit("train", "echo=1", ID[:-1] + "c")["t"] == "failed"
    assert len(gpu.starts) == 1


def test_a_remote_caller_cannot_reach_a_local_job_by_its_id(gpu: Machine) -> None:
    job_id = gpu.answer("run", "train", "echo=1")["job_id"]
    forced = ("_remote", "--forced", "--caller", "alice", "--agents", "train")
    with calling(gpu, forced, SSH_ORIGINAL_COMMAND=f"_remote {NONCE}") as caller:
        assert caller.submit("train", "echo=1", job_id)["t"] == "failed"
        answer = caller.ask(t="ask", what="status", args={"job_id": job_id})
        assert answer["kind"] == "unknown_job"


def test_the_id_of_a_removed_job_is_not_run_again(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "echo=1", ID, kind="background")
        caller.attach(ID)
        gpu.cli("gc", "--max-age-days", "0")
        assert caller.ask(t="ask", what="status", args={"job_id": ID})["kind"] == "unknown_job"
        assert caller.submit("train", "echo=1", ID, kind="background")["t"] == "failed"
        gone = gpu.jobs / "remote" / "jobs" / f"{ID}.gone"
        week = 7 * 86_400
        now = gone.stat().st_mtime
        os.utime(gone, (now - week + 600, now - week + 600))
        gpu.cli("gc")
        assert gone.exists()
        os.utime(gone, (now - week - 600, now - week - 600))
        gpu.cli("gc")
        assert not gone.exists()
    assert len(gpu.starts) == 1


def test_a_job_that_was_cancelled_before_it_arrived_never_begins(gpu: Machine) -> None:
    with calling(gpu) as caller:
        assert caller.ask(t="cancel", id=ID)["outcome"] == "not_found"
        assert caller.submit("train", "echo=1", ID)["t"] == "failed"
    assert gpu.starts == []


def test_bye_ends_the_calls_of_the_caller_at_once_and_no_background_job(gpu: Machine) -> None:
    other = ID[:-1] + "c"
    with calling(gpu) as caller:
        caller.submit("train", "sleep=60", ID, lease_s=3600)
        caller.submit("train", "sleep=60 echo=2", other, kind="background")
        gpu.wait_until_started(2)
        caller.say(t="bye")
        caller.process.wait(30)
        assert len(gpu.running()) == 1
    assert gpu.answer("job", ID)["status"] == "cancelled"
    assert gpu.answer("job", other)["status"] in ("pending", "running")
    gpu.cli("cancel", other)


def test_a_stub_that_is_killed_leaves_the_call_to_its_lease(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "sleep=60", ID, lease_s=2)
        gpu.wait_until_started()
        os.kill(caller.process.pid, signal.SIGKILL)
    gpu.wait_until_quiet()
    job = gpu.answer("wait", ID, check=False)
    assert (job["status"], job["error_type"]) == ("cancelled", "cancelled")
    assert "lease" in job["error"]
    assert job["session_id"]


def test_a_stub_that_is_stopped_does_not_keep_the_call_alive(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "sleep=60", ID, lease_s=2)
        gpu.wait_until_started()
        os.kill(caller.process.pid, signal.SIGSTOP)
        gpu.wait_until_quiet()


def test_a_stub_whose_caller_reads_no_more_leaves_without_an_error(gpu: Machine) -> None:
    with calling(gpu) as caller:
        assert caller.ask(t="ask", what="agents")["t"] == "told"
        assert caller.process.stdout is not None
        caller.process.stdout.close()
        caller.say(t="ask", what="agents")
        assert caller.process.wait(30) == 0


def test_while_the_caller_is_heard_the_lease_goes_on(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "sleep=6", ID, lease_s=2)
        n = caller.say(t="attach", id=ID, lease_s=2)
        # Bytes of any kind, until long after the lease would have expired.
        wait_for(lambda: bool(caller.say(t="ping")) and bool(gpu.starts) and not gpu.running())
        assert caller.hear(n)["job"]["status"] == "done"


def test_a_reattached_caller_gets_the_events_after_the_last_one_it_saw(gpu: Machine) -> None:
    with calling(gpu) as caller:
        caller.submit("train", "lines=5 sleep=3", ID, lease_s=30)
        caller.say(t="attach", id=ID, lease_s=30)
        caller.say(t="attach", id=ID, lease_s=30, after=3)
        job = caller.hear()["job"]
    assert job["status"] == "done"
    seqs = [seq for seq, _ in caller.events]
    assert seqs.count(2) == 1
    assert seqs.count(5) == 2


def test_a_host_in_the_chain_refuses_with_recursion(gpu: Machine) -> None:
    own = json.loads(_greeting(gpu))["host_id"]
    with calling(gpu, hello={"chain": ["a" * 32, own]}) as caller:
        assert caller.submit("train", "x")["result"]["error_type"] == "recursion"
    assert gpu.starts == []


def _greeting(machine: Machine) -> str:
    done = subprocess.run(
        [str(machine.program), "_remote", NONCE],
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.split(" ", 2)[2]


def test_the_depth_of_the_caller_counts_on(gpu: Machine) -> None:
    with calling(gpu, hello={"depth": 3}) as caller:
        caller.submit("train", "x", ID)
        assert caller.attach(ID)["error_type"] == "recursion"
    with calling(gpu, hello={"depth": 2, "chain": ["b" * 32]}) as caller:
        accepted = caller.submit("train", "environ=1")
        environ = json.loads(caller.attach(accepted["id"])["result"]["result"])
    assert environ["AGENT_DISPATCH_DEPTH"] == "3"
    assert environ["AGENT_DISPATCH_HOSTS"].startswith("b" * 32)


def test_the_agent_sees_the_saved_path_and_no_trace_of_ssh(gpu: Machine) -> None:
    (gpu.config.parent / "remote.env").write_text("PATH=/opt/tools:/usr/bin:/bin\n")
    with calling(gpu, SSH_CONNECTION="a", SSH_AUTH_SOCK="b", AGENT_DISPATCH_JOB=ID) as caller:
        accepted = caller.submit("train", "environ=1")
        environ = json.loads(caller.attach(accepted["id"])["result"]["result"])
    assert not [name for name in environ if name.startswith("SSH_")]
    folders = environ["PATH"].split(":")
    assert folders[0] == "/opt/tools"
    assert folders[-1] == str(gpu.program.parent)
    assert environ["AGENT_DISPATCH_JOB"] == accepted["id"]


@pytest.mark.parametrize(("asked", "kept"), [(5000, None), (20, 20)])
def test_a_caller_may_shorten_the_time_of_the_agent_only(
    gpu: Machine, asked: int, kept: int | None
) -> None:
    with calling(gpu) as caller:
        request = {"agent": "train", "task": "x", "timeout_s": asked}
        caller.ask(t="submit", id=ID, request=request, kind="background")
        assert caller.attach(ID).get("timeout_seconds") == kept


def test_a_caller_cannot_choose_another_model(gpu: Machine) -> None:
    gpu.cli("update", "train", "--model", "sonnet")
    with calling(gpu) as caller:
        request = {"agent": "train", "task": "x", "model": "opus"}
        refused = caller.ask(t="submit", id=ID, request=request)
        assert refused["t"] == "failed"
        assert "sonnet" in refused["error"]
        request["model"] = "sonnet"
        assert caller.ask(t="submit", id=ID, request=request)["t"] == "accepted"
        caller.attach(ID)


def test_a_forced_caller_sees_its_agents_and_jobs_only(gpu: Machine) -> None:
    gpu.project("other")
    argv = ("_remote", "--forced", "--caller", "alice", "--agents", "train")
    original = f"exec sh -c 'exec agent-dispatch _remote {NONCE}; rm -rf /'"
    with calling(gpu) as caller:
        foreign = caller.submit("train", "echo=1", kind="background")["id"]
        caller.attach(foreign)
    with calling(gpu, argv, SSH_ORIGINAL_COMMAND=original) as caller:
        rows = caller.ask(t="ask", what="agents")["value"]
        assert [row["name"] for row in rows] == ["train"]
        refused = caller.submit("other", "x")
        assert "Unknown agent: 'other'. Available: train" in refused["error"]
        for frame in (
            {"t": "ask", "what": "status", "args": {"job_id": foreign}},
            {"t": "attach", "id": foreign},
            {"t": "cancel", "id": foreign},
        ):
            assert "Unknown job" in caller.ask(**frame)["error"]
        for what in ("add", "doctor"):
            assert caller.ask(t="ask", what=what)["t"] == "failed"
        caller.submit("train", "echo=2", ID, kind="background")
        assert caller.attach(ID)["status"] == "done"
        assert caller.ask(t="ask", what="status", args={"job_id": ID})["t"] == "told"


def test_an_agent_is_added_once_for_the_same_directory(gpu: Machine, tmp_path: Path) -> None:
    place = gpu.home / "new"
    place.mkdir()
    with calling(gpu) as caller:
        args = {"name": "new", "directory": "~/new"}
        assert caller.ask(t="ask", what="add", args=args)["value"]["directory"] == str(place)
        assert caller.ask(t="ask", what="add", args=args)["t"] == "told"
        other = {"name": "new", "directory": str(tmp_path)}
        assert caller.ask(t="ask", what="add", args=other)["t"] == "failed"
        missing = {"name": "more", "directory": "~/missing"}
        assert caller.ask(t="ask", what="add", args=missing)["t"] == "failed"


@pytest.mark.parametrize(
    ("what", "args", "said"),
    [
        ("answer", {"job_id": ID, "verdict": "perhaps", "by": "person"}, "'perhaps'"),
        ("status", {"id": ID}, "Wrong arguments for 'status'"),
        ("teleport", {}, "does not know the request 'teleport'"),
    ],
)
def test_a_request_that_cannot_be_understood_is_refused(
    gpu: Machine, what: str, args: dict[str, str], said: str
) -> None:
    with calling(gpu) as caller:
        refused = caller.ask(t="ask", what=what, args=args)
        assert (refused["t"], refused.get("kind")) == ("failed", None)
        assert said in refused["error"]


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"t":"teleport","n":7}', '{"t":"submit","n":8}', "\0\0"]
)
def test_a_bad_line_is_reported_and_the_link_goes_on(gpu: Machine, line: str) -> None:
    with calling(gpu) as caller:
        assert caller.process.stdin is not None
        caller.process.stdin.write(line.encode() + b"\n")
        caller.process.stdin.flush()
        assert caller.hear()["t"] == "failed"
        assert caller.ask(t="ask", what="agents")["t"] == "told"


@pytest.mark.parametrize(
    "argv",
    [
        ("_remote",),
        ("_remote", "short"),
        ("_remote", NONCE, "more"),
        ("_remote", "--forced"),
        ("_remote", "--forced", "--caller", "a", "--agents", ""),
    ],
)
def test_a_wrong_command_line_is_refused(gpu: Machine, argv: tuple[str, ...]) -> None:
    done = gpu.cli(*argv, check=False, SSH_ORIGINAL_COMMAND=f"_remote {NONCE}")
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_submission_is_taken_despite_the_files_of_a_killed_stub(
    gpu: Machine,
) -> None:
    # It died between the lock and the record.
    live = gpu.jobs / "live"
    live.mkdir(parents=True)
    (live / f"{ID}.lock").touch()
    for name in ("alive", "bell"):
        os.mkfifo(live / f"{ID}.{name}")
    with calling(gpu) as caller:
        assert caller.submit("train", "echo=1", ID, lease_s=30)["t"] == "accepted"
        assert caller.attach(ID, lease_s=30)["status"] == "done"
    assert len(gpu.starts) == 1
