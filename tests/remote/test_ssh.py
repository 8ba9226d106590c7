"""Agents behind a real sshd: login shells, failures of the network and of the machine.

All of it needs root, and is skipped with the reason without.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.machine import wait_for
from tests.remote.network import Network, NetworkedMachine, missing, network, shells

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class World:
    """A laptop and a GPU box."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.laptop = net.machine("lap")
        self.gpu = net.machine("gpu")
        self.gpu.start_sshd()
        self.gpu.admits(self.laptop, "gpu")
        self.gpu.project("train")

    def link(self, lease_seconds: float = 0) -> None:
        """Add the host and its agent to the configuration of the laptop."""
        lease = [f"lease_seconds = {lease_seconds}"] if lease_seconds else []
        self.laptop.configure("hosts.gpu", 'ssh = "gpu"', *lease)
        self.laptop.link("train", "gpu")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with network(tmp_path) as net:
        yield World(net)


NOISE = {
    ".bashrc": "echo bashrc says hello",
    ".profile": "printf 'no newline here'",
    ".zshrc": "echo zshrc",
    ".zshenv": "echo zshenv; printf glued",
    ".cshrc": "echo cshrc; echo more",
    ".tcshrc": "echo tcshrc; echo -n glued",
    ".config/fish/config.fish": "echo fish; printf glued",
}


def _make_noise(gpu: NetworkedMachine) -> None:
    for name, text in NOISE.items():
        file = gpu.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


def test_a_call_goes_through_every_login_shell_with_noisy_start_up_files(world: World) -> None:
    world.link()
    for shell in shells():
        world.gpu.set_shell(shell)
        for noisy in (False, True):
            if noisy:
                _make_noise(world.gpu)
            answer = world.laptop.answer(
                "run", "train", f"echo={Path(shell).name}{noisy}", check=False
            )
            assert answer["success"], (shell, noisy, answer)
            assert answer["job_id"].endswith("@gpu")
        for name in NOISE:
            (world.gpu.home / name).unlink()
    assert len(world.gpu.starts) == 2 * len(shells())


def test_ssh_settings_of_the_user_do_not_break_the_link(world: World) -> None:
    world.link()
    with (world.laptop.home / ".ssh" / "config").open("a") as file:
        file.write(
            "Host *\n RequestTTY force\n RemoteCommand uptime\n ForwardAgent yes\n"
            " LocalForward 7777 localhost:22\n ExitOnForwardFailure yes\n"
        )
    assert world.laptop.answer("run", "train", "echo=hi")["success"]


def test_a_failure_that_will_not_pass_is_reported_at_once_in_the_words_of_ssh(world: World) -> None:
    world.link()
    ssh = world.laptop.home / ".ssh"
    world.laptop.answer("run", "train", "echo=first")

    def refused(said: str, agent: str = "train") -> None:
        began = time.monotonic()
        answer = world.laptop.answer("run", agent, "echo=x", check=False)
        assert answer["error_type"] == "unreachable", answer
        assert said in answer["error"]
        assert "ssh -T " in answer["error"]
        assert answer["job_id"].endswith("@gpu") or agent != "train"
        assert time.monotonic() - began < 25

    keys = world.gpu.home / ".ssh" / "authorized_keys"
    kept = keys.read_text()
    keys.write_text("")
    refused("Permission denied")
    keys.write_text(kept)
    known = (ssh / "known_hosts").read_text()
    other = world.net.machine("other")
    other.start_sshd()
    words = (other.home / ".ssh" / "host_key.pub").read_text().split()
    (ssh / "known_hosts").write_text(f"{world.gpu.address} {words[0]} {words[1]}\n")
    refused("Host key verification failed")
    (ssh / "known_hosts").write_text(known)
    world.laptop.cli("hosts", "add", "nowhere", "no-such-machine.invalid")
    world.laptop.link("lost", "nowhere")
    refused("no-such-machine.invalid", "lost")
    assert len(world.gpu.starts) == 1


def test_a_forced_key_gives_its_agents_and_nothing_else(world: World) -> None:
    world.gpu.project("other")
    options = (
        f'restrict,command="{world.gpu.program} _remote --forced --caller alice --agents train"'
    )
    world.gpu.admits(world.laptop, "gpu2", options)
    world.link()
    world.laptop.link("other", "gpu")
    assert world.laptop.answer("run", "train", "echo=hi")["success"]
    done = world.laptop.cli("run", "other", "x", check=False)
    assert "Unknown agent" in done.stderr
    assert world.laptop.cli("add", "new", "gpu:/tmp", check=False).returncode == 1


def test_killing_the_caller_ends_its_call_at_once(world: World) -> None:
    world.link()
    caller = world.laptop.start("run", "train", "sleep=60")
    world.gpu.wait_until_started()
    os.kill(caller.pid, signal.SIGKILL)
    began = time.monotonic()
    world.gpu.wait_until_quiet()
    assert time.monotonic() - began < 15
    caller.communicate()


def test_a_cut_in_a_call_loses_nothing_and_runs_once(world: World) -> None:
    world.link(lease_seconds=15)
    caller = world.laptop.start("run", "train", "sleep=14 chars=200000", "--json")
    world.gpu.wait_until_started()
    world.net.cut(world.laptop)
    # Longer than the silence after which the link is dead, and shorter than the lease.
    time.sleep(9)
    world.net.join(world.laptop)
    out, err = caller.communicate(timeout=120)
    assert caller.returncode == 0, err
    assert '"success": true' in out
    assert len(world.gpu.starts) == 1


def test_a_link_that_stays_cut_ends_the_call_by_its_lease(world: World) -> None:
    world.link(lease_seconds=5)
    caller = world.laptop.start("run", "train", "sleep=120", "--json")
    world.gpu.wait_until_started()
    world.net.cut(world.laptop)
    began = time.monotonic()
    world.gpu.wait_until_quiet()
    assert time.monotonic() - began < 30
    out, _ = caller.communicate(timeout=120)
    assert '"error_type": "unreachable"' in out
    assert caller.returncode == 1
    world.net.join(world.laptop)
    [row] = world.laptop.answer("jobs")
    job = world.laptop.answer("wait", row["id"], check=False)
    assert (job["status"], job["error_type"]) == ("cancelled", "cancelled")
    assert "lease" in job["error"]


def test_while_the_host_is_away_its_jobs_are_shown_as_last_known(world: World) -> None:
    world.link()
    job_id = world.laptop.answer("run", "train", "sleep=8 echo=bg", "--background")["job_id"]
    world.gpu.wait_until_started()
    world.net.cut(world.laptop)
    began = time.monotonic()
    waited = world.laptop.answer("wait", job_id, "--timeout-seconds", "12", check=False)
    assert time.monotonic() - began >= 12
    assert waited["timed_out_waiting"]
    assert waited["unreachable_since"] > 1_700_000_000
    assert world.laptop.answer("jobs")[0]["status"] in ("pending", "running")
    world.net.join(world.laptop)
    job = world.laptop.answer("wait", job_id)
    assert job["status"] == "done"
    assert "unreachable_since" not in job
    assert len(world.gpu.starts) == 1


def test_a_host_that_crashed_reports_its_job_as_lost(world: World) -> None:
    world.link()
    job_id = world.laptop.answer("run", "train", "sleep=60", "--background")["job_id"]
    world.gpu.wait_until_started()
    world.gpu.crash()
    world.gpu.start_sshd()
    job = world.laptop.answer("wait", job_id, check=False)
    assert job["error_type"] == "lost"


@pytest.mark.parametrize("victim", ["ssh", "_remote"])
def test_a_killed_link_is_made_again(world: World, victim: str) -> None:
    world.link()
    caller = world.laptop.start("run", "train", "sleep=6 echo=again", "--json")
    world.gpu.wait_until_started()
    place = world.laptop if victim == "ssh" else world.gpu

    def victims() -> list[int]:
        return [pid for pid in place.processes() if _names(pid, victim)]

    wait_for(lambda: bool(victims()))
    for pid in victims():
        os.kill(pid, signal.SIGKILL)
    out, err = caller.communicate(timeout=60)
    assert caller.returncode == 0, err
    assert "echo=again" in out
    assert len(world.gpu.starts) == 1


def _names(pid: int, word: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return False
    if word == "ssh":
        return words[0] == b"/usr/bin/ssh"
    return word.encode() in words and not comm.startswith("dispatch-")


def test_a_host_that_refuses_connections_is_tried_until_it_is_up(world: World) -> None:
    world.link()
    assert world.gpu.sshd is not None
    world.gpu.crash()
    caller = world.laptop.start("run", "train", "echo=patient", "--json")
    time.sleep(3)
    world.gpu.start_sshd()
    out, err = caller.communicate(timeout=60)
    assert caller.returncode == 0, err
    assert "echo=patient" in out


def test_while_the_host_is_away_a_status_says_since_when(world: World) -> None:
    world.link()
    job_id = world.laptop.answer("run", "train", "sleep=3", "--background")["job_id"]
    world.gpu.crash()
    job = world.laptop.answer("job", job_id)
    assert job["status"] in ("pending", "running")
    since = job["unreachable_since"]
    time.sleep(1)
    assert world.laptop.answer("job", job_id)["unreachable_since"] == since
    [row] = world.laptop.answer("jobs")
    assert row["unreachable_since"] == since
    assert "cannot be reached since" in world.laptop.cli("job", job_id).stdout
