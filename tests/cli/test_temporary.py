"""Registrations that would start a program in an environment that goes away."""

import tempfile
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.cli.setup import temporary_environments as temporary
from agent_dispatch.cli.setup.registration import State, compare
from tests.cli.support import World
from tests.cli.test_doctor import found

UVX = "home/.cache/uv/archive-v0/rGryyR0vsKm5IpCe"
UV_RUN = "home/.cache/uv/builds-v0/.tmpqJNhIg"


def environment(world: World, place: str) -> str:
    """Make a virtual environment with our script in it, and call it from there."""
    folder = world.home / place
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    script = folder / "bin" / "agent-dispatch"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("place", "word"),
    [
        (UVX, "cache of uv"),
        (UV_RUN, "cache of uv"),
        ("elsewhere/environments-v2/x", "cache of uv"),
        (".local/pipx/.cache/0123456789abcde", "cache of pipx"),
        (".cache/pipx/0123456789abcde", "cache of pipx"),
        ("own/.cache/0123456789abcde", "cache of pipx"),
        ("some/venv", "below "),
    ],
)
def test_the_environments_of_runners_and_temporary_folders_are_known(
    world: World, place: str, word: str
) -> None:
    why = temporary.why_temporary(environment(world, place))
    assert why is not None
    assert word in why.reason


def test_a_link_into_one_is_known_too(world: World) -> None:
    link = world.home / "agent-dispatch"
    link.symlink_to(environment(world, UVX))
    why = temporary.why_temporary(str(link))
    assert why is not None
    assert why.runner == "uv"


def test_what_stays_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(world.home / "temporary"))
    monkeypatch.setattr(temporary, "_TEMPORARY_FOLDERS", ())
    for place in (".local/share/uv/tools/agent-dispatch", ".local/pipx/venvs/x", "project/.venv"):
        assert temporary.why_temporary(environment(world, place)) is None
    cached = environment(world, "other/cache/venv")
    Path(cached).parents[2].joinpath("CACHEDIR.TAG").write_text("Signature: 8a47")
    why = temporary.why_temporary(cached)
    assert why is not None
    assert "in a cache" in why.reason


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"url": "file:///srv/my%20wheels/x.whl", "archive_info": {}}, "/srv/my wheels/x.whl"),
        ({"url": "https://example.org/x.whl", "archive_info": {}}, "https://example.org/x.whl"),
        ({"url": "file:///srv/clone", "dir_info": {"editable": True}}, "/srv/clone"),
        (
            {"url": "https://example.org/x", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}},
            "git+https://example.org/x@1a2b",
        ),
        (
            {
                "url": "https://example.org/x",
                "subdirectory": "py",
                "vcs_info": {"vcs": "git", "commit_id": "1a2b", "requested_revision": "v1"},
            },
            "git+https://example.org/x@v1#subdirectory=py",
        ),
    ],
)
def test_where_an_installation_came_from(record: dict[str, object], source: str) -> None:
    assert temporary.source_of(msgspec.convert(record, temporary.Origin)) == source


@pytest.mark.parametrize("place", [UVX, UV_RUN])
def test_the_runner_is_registered_with_what_it_was_given(world: World, place: str) -> None:
    script = environment(world, place)
    own = {"type": "stdio", "command": script, "args": ["serve"], "alwaysLoad": True}
    lasting = temporary.lasting_registration(own, {"UV": "/opt/uv"}, "/srv/x.whl")
    assert lasting.registration["command"] == "/opt/uv"
    assert lasting.registration["args"] == [
        *("tool", "run", "--from", "/srv/x.whl"),
        *("agent-dispatch", "serve"),
    ]
    assert lasting.registration["alwaysLoad"] is True
    assert lasting.warnings == []
    assert compare(lasting.registration, lasting.registration).state is State.CURRENT


@pytest.mark.parametrize(
    ("environ", "source"), [({"UV": "/opt/uv"}, None), ({"PATH": "/none"}, "/srv/x.whl")]
)
def test_without_the_runners_own_command_it_is_a_warning(
    world: World, environ: dict[str, str], source: str | None
) -> None:
    own: dict[str, object] = {"command": environment(world, UVX), "args": ["serve"]}
    lasting = temporary.lasting_registration(own, environ, source)
    assert lasting.registration == own
    assert "cache of uv" in lasting.warnings[0]
    assert ("uv tool install /srv/x.whl" in (lasting.advice or "")) is (source is not None)


def test_init_warns_and_doctor_finds_it_later(world: World) -> None:
    world.install_claude()
    lasting = world.program
    world.program = environment(world, "some venv")
    assert world.run("init") == 0
    assert f"warning: {world.home / 'some venv'} is below" in world.err
    assert world.run("doctor", "--strict") == 1
    world.program = lasting
    world.run("doctor", "--json")
    [(status, message, fix), *_] = found(world, "registration")
    assert (status, fix) == ("warn", "agent-dispatch init")
    assert "some venv is below" in message
    world.run("init", "--json")
    assert "warnings" not in world.answer()


def test_a_runner_whose_source_is_gone_fails(world: World) -> None:
    world.install_claude()
    words = ["tool", "run", "--from", str(world.home / "x.whl"), "agent-dispatch", "serve"]
    world.register({"command": _uv(world), "args": words, "alwaysLoad": True})
    assert world.run("doctor", "--json") == 1
    [(status, message, fix)] = found(world, "registration")
    assert (status, fix) == ("fail", "agent-dispatch init")
    assert f"{world.home / 'x.whl'} does not exist" in message


def _uv(world: World) -> str:
    uv = world.home / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    return str(uv)
