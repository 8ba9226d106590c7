"""Dispatches to agents on another machine, over a relay that passes nothing of our environment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_dispatch.remote.this_host import host_id
from tests.remote.machine import FAKE_CLAUDE, Machine, wait_for


@pytest.fixture
def linked(laptop: Machine, gpu: Machine) -> Machine:
    laptop.reach(gpu, "gpu")
    laptop.link("train", "gpu")
    return laptop


def test_a_call_runs_there_and_answers_here(linked: Machine, gpu: Machine) -> None:
    answer = linked.answer("run", "train", "echo=hi chars=900000")
    assert answer["success"]
    assert answer["agent"] == "train"
    assert answer["result"].startswith("answer to echo=hi chars=900000 \u2028é🎉xxx")
    assert len(answer["result"]) > 900_000
    job_id, _, host = answer["job_id"].partition("@")
    assert host == "gpu"
    assert gpu.answer("job", job_id)["result"]["result"] == answer["result"]
    assert len(gpu.starts) == 1
    for form in (answer["job_id"], job_id):
        assert linked.answer("job", form)["result"]["result"] == answer["result"]
        assert linked.answer("job", form)["id"] == answer["job_id"]
    listed = linked.answer("jobs")
    assert [(row["id"], row["host"], row["status"]) for row in listed] == [
        (answer["job_id"], "gpu", "done")
    ]


def test_an_agent_may_have_another_name_there(linked: Machine, gpu: Machine) -> None:
    linked.link("learner", "gpu", "train")
    answer = linked.answer("run", "learner", "echo=hi")
    assert answer["agent"] == "learner"
    job = linked.answer("job", answer["job_id"])
    assert (job["agent"], job["result"]["agent"], job["host"]) == ("learner", "learner", "gpu")


def test_a_background_job_goes_on_without_its_caller(linked: Machine, gpu: Machine) -> None:
    submitted = linked.answer("run", "train", "sleep=1 echo=later", "--background")
    assert submitted["job_id"].endswith("@gpu")
    assert submitted["agent"] == "train"
    job = linked.answer("wait", submitted["job_id"])
    assert (job["status"], job["kind"]) == ("done", "background")
    assert "echo=later" in job["result"]["result"]
    assert len(gpu.starts) == 1


def test_progress_arrives_while_the_agent_works(linked: Machine) -> None:
    done = linked.cli("run", "train", "lines=60", "--stream")
    assert "step 60" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_caller_that_ends_ends_its_call_at_once(
    linked: Machine, gpu: Machine, signum: signal.Signals
) -> None:
    caller = linked.start("run", "train", "sleep=60", "--json")
    gpu.wait_until_started()
    os.kill(caller.pid, signum)
    began = time.monotonic()
    gpu.wait_until_quiet()
    assert time.monotonic() - began < 30
    caller.communicate()
    [job] = gpu.answer("jobs")
    wait_for(lambda: gpu.answer("job", job["id"])["status"] == "cancelled")
    assert gpu.answer("job", job["id"])["error_type"] == "cancelled"


def test_a_job_is_cancelled_from_either_side(linked: Machine, gpu: Machine) -> None:
    first = linked.answer("run", "train", "sleep=60", "--background")["job_id"]
    second = linked.answer("run", "train", "sleep=60 echo=2", "--background")["job_id"]
    gpu.wait_until_started(2)
    assert linked.answer("cancel", first)["outcome"] == "cancelled"
    gpu.cli("cancel", second.partition("@")[0])
    assert linked.answer("wait", second, check=False)["status"] == "cancelled"
    assert gpu.running() == []


def test_a_message_to_a_job_that_has_ended_says_how_to_go_on_there(linked: Machine) -> None:
    job_id = linked.answer("run", "train", "echo=1", "--background")["job_id"]
    job = linked.answer("wait", job_id)
    sent = linked.answer("send", job_id, "more", check=False)
    assert (sent["job_id"], sent["outcome"]) == (job_id, "already_terminal")
    assert sent["session_id"] == job["session_id"]
    assert "agent-dispatch run train more" in sent["next"]


def test_a_session_goes_on_and_stays_on_its_host(
    linked: Machine, gpu: Machine, tmp_path: Path
) -> None:
    first = linked.answer("run", "train", "echo=1")
    second = linked.answer("run", "train", "echo=2", "--session", first["session_id"])
    assert second["session_id"] == first["session_id"]
    linked.project("local")
    wrong = linked.cli("run", "local", "x", "--session", first["session_id"], check=False)
    assert wrong.returncode == 1
    assert "on host 'gpu'" in wrong.stderr


def test_parallel_tasks_run_here_and_on_the_host(linked: Machine, gpu: Machine) -> None:
    linked.project("local")
    tasks = [
        {"agent": agent, "task": f"echo={agent}{n}"}
        for n in range(3)
        for agent in ("train", "local")
    ]
    file = linked.home / "tasks.json"
    file.write_text(json.dumps(tasks))
    answers = linked.answer("parallel", str(file))
    assert [answer["success"] for answer in answers] == [True] * 6
    assert [("@gpu" in answer["job_id"]) for answer in answers] == [True, False] * 3
    assert len(gpu.starts) == 3


def test_a_dialogue_between_two_machines(linked: Machine, gpu: Machine) -> None:
    linked.project("local")
    answer = linked.answer("dialogue", "local", "train", "echo=topic", "--max-rounds", "1")
    assert [turn["agent"] for turn in answer["conversation"]] == ["train", "local"]
    assert set(answer["sessions"]) == {"train", "local"}


def test_a_refusal_names_the_host(linked: Machine, gpu: Machine) -> None:
    linked.link("nobody", "gpu")
    done = linked.cli("run", "nobody", "x", check=False)
    assert done.returncode == 1
    assert "on gpu: Unknown agent: 'nobody'" in done.stderr
    assert linked.answer("jobs") == []


def test_ids_of_other_hosts_are_unknown(linked: Machine) -> None:
    answer = linked.answer("run", "train", "echo=hi")
    job_id = answer["job_id"].partition("@")[0]
    linked.cli("hosts", "add", "other")
    for wrong in (f"{job_id}@other", f"{job_id}@nowhere", f"{'0' * 32}@gpu"):
        done = linked.cli("job", wrong, check=False)
        assert done.returncode == 1
        assert "nknown job" in done.stderr


def test_a_missing_program_is_reported_at_once_with_a_fix(laptop: Machine) -> None:
    laptop.cli("hosts", "add", "empty", "--exec", "--", "env", "-i", "HOME=/nonexistent")
    laptop.link("x", "empty")
    answer = laptop.answer("run", "x", "task", check=False)
    assert answer["error_type"] == "unreachable"
    assert "hosts install empty" in answer["error"]
    assert answer["job_id"].endswith("@empty")
    job = laptop.answer("job", answer["job_id"], check=False)
    assert (job["status"], job["error_type"]) == ("cancelled", "unreachable")


def test_the_cost_of_a_remote_run_is_entered_here_with_its_host(linked: Machine) -> None:
    answer = linked.answer("run", "train", "echo=hi")
    linked.answer("wait", answer["job_id"])
    [file] = (linked.jobs / "ledger").glob("*.jsonl")
    [line] = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["host"], line["job_id"], line["cost_usd"]) == ("gpu", answer["job_id"], 0.01)


def test_questions_of_remote_jobs_are_listed_and_answered_here(
    linked: Machine, gpu: Machine
) -> None:
    gpu.cli("update", "train", "--permission-prompts", "ask")
    job_id = linked.answer("run", "train", "ask=1", "--background")["job_id"]
    wait_for(lambda: bool(linked.answer("questions")))
    [row] = linked.answer("questions")
    assert (row["job_id"], row["agent"], row["tool"]) == (job_id, "train", "Bash")
    answered = linked.cli("answer", job_id, "allow", "--json").stdout
    assert json.loads(answered)["job_id"] == job_id
    assert linked.answer("wait", job_id)["status"] == "done"
    assert linked.answer("questions") == []


def test_notify_reports_a_remote_background_job_once(linked: Machine) -> None:
    told = linked.home / "told"
    settings = f"[settings]\nnotify = ['sh', '-c', 'cat >>{told}']\n"
    linked.config.write_text(settings + linked.config.read_text())
    job_id = linked.answer("run", "train", "echo=1", "--background")["job_id"]
    linked.answer("wait", job_id)
    linked.answer("wait", job_id)
    wait_for(lambda: told.exists() and told.read_text().endswith("\n"))
    [event] = [json.loads(line) for line in told.read_text().split("\n") if line]
    assert event["job_id"] == job_id


def test_the_hosts_verify_command_decides_when_the_caller_asks_for_it(
    linked: Machine, gpu: Machine
) -> None:
    refused = linked.answer("run", "train", "echo=1", "--verify", check=False)
    assert "verify" in refused["error"]
    gpu.cli("update", "train", "--verify", "true")
    answer = linked.answer("run", "train", "echo=2", "--verify")
    assert answer["success"]


def test_the_refusal_of_another_model_names_it_and_leaves_no_job(linked: Machine) -> None:
    refused = linked.answer("run", "train", "echo=1", "--model", "opus", check=False)
    assert "model of agent 'train'" in refused["error"]
    assert linked.answer("jobs") == []


def test_a_caller_that_sleeps_for_less_than_its_lease_finds_its_call_again(
    laptop: Machine, gpu: Machine
) -> None:
    laptop.reach(gpu, "gpu", lease_seconds=15)
    laptop.link("train", "gpu")
    caller = laptop.start("run", "train", "sleep=11 echo=slept", "--json")
    gpu.wait_until_started()
    os.kill(caller.pid, signal.SIGSTOP)
    # Longer than the silence after which both sides consider the link dead.
    time.sleep(8)
    os.kill(caller.pid, signal.SIGCONT)
    out, err = caller.communicate(timeout=60)
    assert caller.returncode == 0, err
    assert "echo=slept" in out
    assert len(gpu.starts) == 1


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="needs root")
def test_an_agent_in_a_container_ends_with_its_caller_and_with_the_container(
    laptop: Machine, gpu: Machine
) -> None:
    # A PID namespace, and a relay into it whose command goes on when the relay is killed.
    init = "mount -t proc proc /proc && echo $$ && exec sleep 1000"
    begin = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", init]
    container = subprocess.Popen(begin, stdout=subprocess.PIPE)
    try:
        assert container.stdout is not None
        assert container.stdout.readline()
        [pid] = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        environ = [f"{key}={value}" for key, value in gpu.environ.items()]
        relay = ["nsenter", "-t", pid, "-p", "-m", "env", "-i", *environ]
        laptop.cli("hosts", "add", "dev", "--lease-seconds", "5", "--exec", "--", *relay)
        laptop.link("train", "dev")
        assert laptop.answer("run", "train", "echo=inside")["success"]

        def left() -> list[int]:
            # The log has pids of the namespace, so the processes are found by command line.
            numbers = map(int, filter(str.isdecimal, os.listdir("/proc")))
            return [number for number in numbers if is_agent_of(gpu, number)]

        caller = laptop.start("run", "train", "sleep=300", "--json")
        wait_for(lambda: bool(left()))
        os.kill(caller.pid, signal.SIGKILL)
        wait_for(lambda: not left())
        caller.communicate()
        job_id = laptop.answer("run", "train", "sleep=300 echo=2", "--background")["job_id"]
        wait_for(lambda: bool(left()))
        os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not left())
        waited = laptop.answer("wait", job_id, "--timeout-seconds", "1", check=False)
        assert waited["unreachable_since"]
    finally:
        container.kill()
        container.communicate()


def is_agent_of(machine: Machine, pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return FAKE_CLAUDE.name.encode() in command and str(machine.home).encode() in environ


def test_a_background_group_has_members_here_and_there(linked: Machine, gpu: Machine) -> None:
    linked.project("local")
    script = linked.home / "group.py"
    script.write_text(GROUP)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=linked.environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, *members = done.stdout.split()
    assert status == "done"
    assert [member.endswith("@gpu") for member in members] == [True, False]
    assert len(gpu.starts) == 1


GROUP = """
import os, trio
from agent_dispatch.claude.fork_server import start_fork_server
from agent_dispatch.model.dispatch import DispatchRequest, Member
from agent_dispatch.run.open_service import open_service
from agent_dispatch.worker import ENTRIES

async def main():
    async with open_service(environ=os.environ, fork_server=fork_server) as service:
        agents = ("train", "local")
        requests = [DispatchRequest(agent=agent, task="echo=x") for agent in agents]
        job = await service.parallel_detached([Member(request=request) for request in requests])
        print(job.status, *job.members)

fork_server = start_fork_server(ENTRIES)
trio.run(main)
"""


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ('{"t":"hello","proto":99,"oldest":99,"version":"9.9"}', "protocol 99"),
        ("{broken", "without a greeting"),
    ],
)
def test_a_host_without_a_common_protocol_is_reported_at_once(
    laptop: Machine, hello: str, said: str
) -> None:
    nonce = 'echo "$3" | sed "s/.*_remote \\([0-9a-f]*\\).*/\\1/"'
    script = f"printf '\\nADR1 %s %s\\n' \"$({nonce})\" '{hello}'"
    laptop.cli("hosts", "add", "odd", "--exec", "--", "sh", "-c", script, "odd")
    laptop.link("x", "odd")
    answer = laptop.answer("run", "x", "task", check=False)
    assert answer["error_type"] == "unreachable"
    assert said in answer["error"]


def test_install_runs_only_with_from_and_gives_the_wheel_to_a_tool_there(
    linked: Machine, gpu: Machine
) -> None:
    uv = gpu.program.with_name("uv")
    uv.write_text('#!/bin/sh\necho "$@" >~/uv\ncat "$4" >~/wheel\n')
    uv.chmod(0o755)
    linked.cli("hosts", "install", "gpu")
    assert not (gpu.home / "uv").exists()
    wheel = linked.home / "agent_dispatch-1.2.3-py3-none-any.whl"
    wheel.write_bytes(b"a wheel\0")
    linked.cli("hosts", "install", "gpu", "--from", str(wheel))
    assert (gpu.home / "uv").read_text().startswith("tool install --force /")
    assert (gpu.home / "wheel").read_bytes() == b"a wheel\0"
    linked.cli("hosts", "install", "gpu", "--from", "https://example.org/a.whl", check=False)
    assert (gpu.home / "uv").read_text() == "tool install --force https://example.org/a.whl\n"
    assert linked.cli("hosts", "install", "gpu", "--from", "agent-dispatch", check=False).returncode


def test_a_dispatch_back_to_its_own_host_is_refused_as_recursion_and_depth_counts_on(
    laptop: Machine, gpu: Machine
) -> None:
    laptop.project("back")
    gpu.reach(laptop, "laptop")
    gpu.link("back", "laptop")
    # The environment of an agent that was dispatched from the laptop to the GPU box.
    environ = {"AGENT_DISPATCH_HOSTS": host_id(laptop.environ), "AGENT_DISPATCH_DEPTH": "1"}
    there_and_back = gpu.cli("run", "back", "echo=x", "--json", check=False, **environ)
    assert json.loads(there_and_back.stdout)["error_type"] == "recursion"
    too_deep = gpu.cli("run", "back", "x", "--json", check=False, AGENT_DISPATCH_DEPTH="3")
    assert json.loads(too_deep.stdout)["error_type"] == "recursion"
    assert laptop.starts == []
