import pytest

from tests.cli.support import World


def test_hosts_without_any_says_how_to_add_one(world: World) -> None:
    assert world.run("hosts") == 0
    assert "hosts add NAME" in world.out
    assert world.run("hosts", "list", "--json") == 0
    assert world.answer() == []


def test_hosts_are_added_listed_and_removed(world: World) -> None:
    assert world.run("hosts", "add", "gpu") == 0
    assert world.run("hosts", "add", "box", "me@box", "--lease-seconds", "30") == 0
    words = ("--exec", "--", "docker", "exec", "-i", "dev")
    assert world.run("hosts", "add", "dev", "--program", "/opt/agent-dispatch", *words) == 0
    assert world.run("hosts", "--json") == 0
    assert world.answer() == [
        {"name": "gpu", "ssh": "gpu", "lease_seconds": 120, "agents": []},
        {"name": "box", "ssh": "me@box", "lease_seconds": 30, "agents": []},
        {
            "name": "dev",
            "exec": ["docker", "exec", "-i", "dev"],
            "program": "/opt/agent-dispatch",
            "lease_seconds": 120,
            "agents": [],
        },
    ]
    assert world.run("hosts", "list") == 0
    assert [line.split("  ")[0] for line in world.out.splitlines()] == ["gpu", "box", "dev"]
    assert "  agents: none" in world.out
    assert world.run("hosts", "remove", "dev") == 0
    assert world.run("hosts", "list") == 0
    assert "dev" not in world.out


def test_a_host_that_agents_use_is_not_removed(world: World) -> None:
    world.run("hosts", "add", "gpu")
    with world.config.open("a") as file:
        file.write("[agents.train]\nhost = 'gpu'\n")
    assert world.run("hosts", "remove", "gpu") == 1
    assert "train" in world.err


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("rename", "a"), 2),
        (("add",), 2),
        (("add", "gpu", "--exec"), 2),
        (("add", "gpu", "a", "b"), 2),
        (("remove", "gpu", "x"), 2),
        (("remove", "gpu"), 1),
        (("install", "gpu"), 1),
        (("add", "a/b"), 1),
    ],
)
def test_a_wrong_call_changes_nothing(world: World, argv: tuple[str, ...], status: int) -> None:
    assert world.run("hosts", *argv) == status
    assert not world.config.exists()


def test_install_prints_how_and_names_no_index(world: World) -> None:
    world.run("hosts", "add", "gpu", "gpu1")
    assert world.run("hosts", "install", "gpu") == 0
    assert "uv tool install ./WHEEL" in world.out
    assert "pip install URL" in world.out
    assert "install agent-dispatch" not in world.out.replace("To install agent-dispatch on", "")


def test_list_shows_where_a_remote_agent_is_and_doctor_how_to_check_it(world: World) -> None:
    world.install_claude()
    world.run("hosts", "add", "gpu")
    with world.config.open("a") as file:
        file.write("[agents.train]\nhost = 'gpu'\ntimeout = 5\n")
    assert world.run("list", "--json") == 0
    [row] = world.answer()
    assert (row["host"], row["healthy"]) == ("gpu", True)
    assert world.run("list") == 0
    assert "on gpu" in world.out
    world.run("doctor")
    assert "doctor --host gpu" in world.out
    assert "agents.train.timeout" in world.out
