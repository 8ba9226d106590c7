"""Commands about agents on another machine: add, describe, list, doctor."""

import time

import pytest

from tests.remote.machine import Machine


@pytest.fixture
def linked(laptop: Machine, gpu: Machine) -> Machine:
    laptop.reach(gpu, "gpu")
    return laptop


def test_an_agent_is_added_there_and_linked_here(linked: Machine, gpu: Machine) -> None:
    place = gpu.home / "proj"
    place.mkdir()
    change = linked.answer("add", "new", "gpu:~/proj")
    assert (change["host"], change["directory"]) == ("gpu", str(place))
    assert gpu.answer("describe", "new")["directory"] == str(place)
    assert linked.answer("run", "new", "echo=hi")["success"]
    # It exists there with the same directory, so it is only linked.
    linked.cli("remove", "new")
    assert linked.answer("add", "new", f"gpu:{place}")["action"] == "added"
    assert linked.cli("add", "new", f"gpu:{place}", check=False).returncode == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("train", "gpu:~/missing"), "exists there already"),
        (("new", "gpu:~/missing"), "on gpu:"),
        (("new", "nohost:~/proj"), "Unknown host"),
        (("new", "gpu:~", "--allowed-tools", "Bash"), "--allowed-tools"),
        (("new", "gpu:~", "--permission-mode", "acceptEdits"), "--permission-mode"),
        (("a b", "gpu:~"), "cannot name an agent"),
        (("new", "gpu:"), "directory"),
    ],
)
def test_a_refused_registration_writes_nothing_on_either_side(
    linked: Machine, gpu: Machine, argv: tuple[str, ...], said: str
) -> None:
    before = linked.config.read_text(), gpu.config.read_text()
    done = linked.cli("add", *argv, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert (linked.config.read_text(), gpu.config.read_text()) == before


def test_describe_asks_the_host_and_list_nobody(linked: Machine, gpu: Machine) -> None:
    linked.link("train", "gpu")
    linked.link("gone", "gpu", "train")
    gpu.cli("update", "train", "--timeout", "77", "--description", "Trains.")
    details = linked.answer("describe", "train")
    assert (details["host"], details["timeout"]) == ("gpu", 77)
    assert details["directory"] == str(gpu.home / "projects" / "train")
    assert "77 s" in linked.cli("describe", "train").stdout
    (gpu.home / "projects" / "train").rmdir()
    assert not linked.answer("describe", "train")["healthy"]
    gpu.program.rename(gpu.program.with_name("hidden"))
    rows = {row["name"]: row for row in linked.answer("list")}
    assert not rows["train"]["healthy"]
    assert rows["train"]["host"] == "gpu"
    assert linked.cli("describe", "train", check=False).returncode == 1


def test_doctor_checks_a_host_over_its_link(linked: Machine, gpu: Machine) -> None:
    answer = linked.answer("doctor", "--host", "gpu", check=False)
    checks = {check["name"]: check for check in answer["checks"]}
    assert checks["link"]["status"] == "ok"
    assert "agent-dispatch" in checks["version"]["message"]
    assert checks["login"]["status"] in ("ok", "warn")
    assert checks["path"]["fix"].startswith("agent-dispatch init")
    assert checks["agent train"]["status"] == "ok"
    gpu.cli("init", check=False)
    assert (gpu.config.parent / "remote.env").read_text() == f"PATH={gpu.environ['PATH']}\n"
    answer = linked.answer("doctor", "--host", "gpu", check=False)
    assert {c["name"]: c["status"] for c in answer["checks"]}["path"] == "ok"
    assert answer["ok"]
    assert linked.cli("doctor", "--host", "gpu").returncode == 0


def test_doctor_says_what_is_wrong_with_a_host(linked: Machine) -> None:
    assert linked.cli("doctor", "--host", "nohost", check=False).returncode == 1
    linked.cli("hosts", "add", "empty", "--exec", "--", "env", "-i")
    began = time.monotonic()
    answer = linked.answer("doctor", "--host", "empty", check=False)
    assert time.monotonic() - began < 45
    [check] = answer["checks"]
    assert (answer["ok"], check["status"]) == (False, "fail")
    assert check["fix"] == "agent-dispatch hosts install empty"
