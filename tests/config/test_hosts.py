from pathlib import Path

import pytest

from agent_dispatch.config.agents import remove_agent, update_agent
from agent_dispatch.config.hosts import (
    UnknownHostError,
    add_host,
    link_agent,
    list_hosts,
    remote_directory,
    remove_host,
)
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.sightings import AgentSeen, Sightings
from agent_dispatch.errors import InvalidRequestError, UnusableAgentError
from agent_dispatch.model.config import HostConfig


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    path = tmp_path / "agents.toml"
    return Registry(path, environ={"HOME": str(tmp_path)})


def _write(registry: Registry, text: str) -> None:
    registry.path.write_text(text)


def test_a_host_is_reached_by_ssh_or_by_a_command(registry: Registry) -> None:
    _write(
        registry,
        '[hosts.gpu]\nssh = "gpu1"\n'
        '[hosts."dev.box"]\nexec = ["docker", "exec", "-i", "dev"]\nlease_seconds = 5\n'
        '[hosts.other]\nssh = "o"\nprogram = "/opt/ad/bin/agent-dispatch"\nlease_seconds = 3600\n',
    )
    assert registry.load().hosts == {
        "gpu": HostConfig(ssh="gpu1", lease_seconds=120),
        "dev.box": HostConfig(exec=["docker", "exec", "-i", "dev"], lease_seconds=5),
        "other": HostConfig(ssh="o", program="/opt/ad/bin/agent-dispatch", lease_seconds=3600),
    }


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "exactly one"),
        ('ssh = "a"\nexec = ["b"]', "exactly one"),
        ('ssh = "-oProxyCommand=evil"', "starts with '-'"),
        ("exec = []", "array"),
        ('exec = [""]', "empty"),
        ('ssh = "a"\nlease_seconds = 4', "5 to 3600"),
        ('ssh = "a"\nlease_seconds = 3601', "5 to 3600"),
        ('ssh = "a"\nprogram = "agent-dispatch"', "absolute path"),
        ('ssh = "a"\nprogram = "/opt/$(x)"', "remote shell"),
    ],
)
def test_a_broken_host_makes_its_agents_unusable_and_no_others(
    registry: Registry, table: str, problem: str
) -> None:
    _write(registry, f"[hosts.x]\n{table}\n[agents.a]\nhost = 'x'\n[agents.b]\ndirectory = '/'\n")
    config = registry.load()
    assert problem in config.broken_hosts["x"]
    assert problem in config.broken["a"]
    assert list(config.agents) == ["b"]


def test_an_agent_on_an_unknown_host_is_refused_even_if_it_names_a_directory(
    registry: Registry, tmp_path: Path
) -> None:
    _write(registry, f"[agents.a]\nhost = 'gpu'\ndirectory = '{tmp_path}'\n")
    with pytest.raises(UnusableAgentError, match=r"no \[hosts.gpu\]"):
        registry.snapshot().effective("a")
    assert not registry.list_agents()[0].healthy


def test_beside_host_only_name_and_description_count_and_the_rest_is_reported(
    registry: Registry, tmp_path: Path
) -> None:
    _write(
        registry,
        "[settings]\ndefault_model = 'opus'\n[hosts.gpu]\nssh = 'gpu'\n"
        "[agents.a]\nhost = 'gpu'\nagent = 'train'\ndescription = 'Trains.'\n"
        f"directory = '{tmp_path}'\nallowed_tools = ['Bash']\nmodel = 3\ncolour = 'red'\n",
    )
    agent = registry.snapshot().effective("a")
    assert (agent.host, agent.agent, agent.description) == ("gpu", "train", "Trains.")
    assert (agent.directory, agent.allowed_tools, agent.model) == ("", None, None)
    config = registry.load()
    assert {warning.key for warning in config.warnings} == {"directory", "allowed_tools", "model"}
    assert [unknown.key for unknown in config.unknown_keys] == ["colour"]


def test_a_remote_agent_is_listed_as_it_was_seen_last(registry: Registry) -> None:
    _write(registry, "[hosts.gpu]\nssh = 'gpu'\n[agents.a]\nhost = 'gpu'\nagent = 'train'\n")
    [never_seen] = registry.list_agents()
    assert (never_seen.host, never_seen.healthy, never_seen.directory) == ("gpu", True, "")
    seen = Sightings.of({"HOME": "/"}, registry.path)
    seen.note("gpu", {"train": AgentSeen(healthy=False, problem="its directory is missing")})
    [row] = registry.list_agents()
    assert (row.healthy, row.problem) == (False, "its directory is missing")
    [file] = registry.path.parent.rglob("gpu.json")
    file.write_bytes(b'{"agents":{"train":{"problem":"\xff"}}}')
    assert registry.list_agents() == [never_seen]


def test_hosts_are_added_listed_and_removed(registry: Registry) -> None:
    add_host(registry.file, "gpu")
    add_host(registry.file, "box", ssh="me@box", lease_seconds=30)
    add_host(registry.file, "dev", argv=["podman", "exec", "-i", "dev"])
    assert registry.load().hosts == {
        "gpu": HostConfig(ssh="gpu"),
        "box": HostConfig(ssh="me@box", lease_seconds=30),
        "dev": HostConfig(exec=["podman", "exec", "-i", "dev"]),
    }
    with pytest.raises(InvalidRequestError, match="exists already"):
        add_host(registry.file, "gpu")
    link_agent(registry.file, "train", "gpu", description="Trains.")
    link_agent(registry.file, "other", "gpu", agent="train")
    assert [row.agents for row in list_hosts(registry.load())] == [["train", "other"], [], []]
    with pytest.raises(InvalidRequestError, match="train, other"):
        remove_host(registry.file, "gpu")
    remove_host(registry.file, "dev")
    with pytest.raises(UnknownHostError):
        remove_host(registry.file, "dev")
    assert list(registry.load().hosts) == ["gpu", "box"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä"])
def test_a_host_has_a_plain_name(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        add_host(registry.file, name)


@pytest.mark.parametrize("lease_seconds", [-1, 4, 3601, float("nan"), float("inf")])
def test_a_lease_out_of_range_is_refused(registry: Registry, lease_seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="lease_seconds: expected a number of seconds"):
        add_host(registry.file, "gpu", lease_seconds=lease_seconds)
    assert not registry.path.exists()


def test_an_agent_can_only_be_linked_to_a_known_host(registry: Registry) -> None:
    with pytest.raises(UnknownHostError):
        link_agent(registry.file, "train", "gpu")
    assert not registry.path.exists()


def test_update_and_remove_of_a_remote_agent_change_this_file(registry: Registry) -> None:
    add_host(registry.file, "gpu")
    link_agent(registry.file, "train", "gpu")
    change = update_agent(registry, "train", description="Trains models.")
    assert (change.host, change.changed, change.directory) == ("gpu", ["description"], None)
    assert remove_agent(registry, "train").action == "removed"
    assert registry.load().agents == {}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gpu:~/proj", ("gpu", "~/proj")),
        ("gpu.example.org:/srv/a:b", ("gpu.example.org", "/srv/a:b")),
        ("./a:b", None),
        ("~/a:b", None),
        ("/srv/a:b", None),
        ("plain", None),
    ],
)
def test_a_remote_directory_begins_with_a_host(text: str, parts: object) -> None:
    assert remote_directory(text) == parts
