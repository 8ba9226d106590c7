"""`agents.toml` with anything in it: told, or used, and never overwritten by mistake."""

import contextlib
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import ConfigError, DispatchError
from tests.config.toml_texts import documents
from tests.damage import damaged

TEXT = b"""\
# Ours.
[agents.agent-0]
directory = "/srv/infra" # where it is
allowed_tools = ["Read", "Bash(git log:*)"]
timeout = 90

[settings]
max_concurrency = 3
default_max_budget_usd = 1.5

[settings.cache]
enabled = true
"""
TOKENS = [
    *(b'"', b"'", b'"""', b"\\", b"[", b"]", b"[[", b"]]", b"{", b"}", b"=", b".", b",", b"#"),
    *(b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[" * 3000),
    *(b"[agents]\n", b"[agents.agent-0]\n", b"[settings]\n", b"agents = 5\n", b"settings = []\n"),
    *(b"nan", b"-inf", b"true", b"9" * 5000, b"1979-05-27", b"directory = 5\n", b"a.b.c = 1\n"),
]
DOCUMENTS = documents().map(lambda blocks: "".join(text for _, text in blocks).encode())
CONTENTS = st.binary(max_size=60) | damaged(st.just(TEXT) | DOCUMENTS, TOKENS)

EDITS: list[Callable[[Registry], object]] = [
    lambda registry: update_agent(registry, "agent-0", model="opus", timeout=7),
    lambda registry: update_agent(registry, "agent-0", allowed_tools="none", description="none"),
    lambda registry: remove_agent(registry, "agent-0"),
    lambda registry: add_agent(registry, "new", "/", description="The root"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def written(place: Path, content: bytes) -> Registry:
    shutil.rmtree(place / "config", ignore_errors=True)
    (place / "config").mkdir()
    registry = Registry(place / "config" / "agents.toml")
    registry.path.write_bytes(content)
    return registry


@given(content=CONTENTS)
def test_any_content_is_read_or_reported(place: Path, content: bytes) -> None:
    registry = written(place, content)
    names = ["agent-0"]
    with contextlib.suppress(ConfigError):
        names += [row.name for row in registry.list_agents()]
    for name in names:
        with contextlib.suppress(DispatchError):
            registry.inspect_agent(name)
        with contextlib.suppress(DispatchError):
            registry.snapshot().effective(name)
    assert registry.path.read_bytes() == content


@given(content=CONTENTS, edit=st.sampled_from(EDITS))
def test_an_edit_of_any_content_lands_or_leaves_it_alone(
    place: Path, content: bytes, edit: Callable[[Registry], object]
) -> None:
    registry = written(place, content)
    try:
        edit(registry)
    except DispatchError:
        assert registry.path.read_bytes() == content
    else:
        before, after = parsed(content), parsed(registry.path.read_bytes())
        before_agents, after_agents = before.pop("agents", {}), after.pop("agents", {})
        assert repr(after) == repr(before)
        others = {*before_agents, *after_agents} - {"agent-0", "new"}
        assert all(repr(before_agents[name]) == repr(after_agents[name]) for name in others)
    left = {path.name for path in registry.path.parent.iterdir()}
    assert left <= {"agents.toml", "agents.toml.lock", "agents.rights.jsonl"}


def parsed(content: bytes) -> dict[str, dict[str, object]]:
    return tomllib.loads(content.decode("utf-8-sig"))
