"""The program as a process: what it imports, how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent_dispatch import __version__
from tests import warm
from tests.cli.support import JOB_ID, World

HEAVY = {"trio", "mcp", "pydantic", "anyio", "asyncio", "cyclopts", "rich", "attrs", "subprocess"}


def call(
    world: World, *argv: str, stdout: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    program = warm.begin("agent_dispatch", *argv, env=world.environ, stdout=stdout)
    out, err = program.communicate(timeout=60)
    return subprocess.CompletedProcess(argv, program.wait(), out, err)


def new_python(
    world: World, *argv: str, options: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *options, "-m", "agent_dispatch", *argv],
        env=world.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def imports(world: World, *argv: str) -> set[str]:
    """The top-level packages that a command line imports."""
    report = new_python(world, *argv, options=["-X", "importtime"]).stderr
    names = {line.rpartition("|")[2].strip() for line in report.splitlines() if "|" in line}
    return {name.partition(".")[0] for name in names}


@pytest.fixture
def infra(world: World) -> World:
    world.run("add", "infra", str(world.project("infra")))
    return world


def test_the_version_is_told_without_importing_anything_of_ours_but_itself(world: World) -> None:
    assert call(world, "--version").stdout == f"agent-dispatch {__version__}\n"
    assert not imports(world, "--version") & (HEAVY | {"msgspec", "json", "pathlib"})


@pytest.mark.parametrize(
    "argv",
    [
        ["list"],
        ["list", "--json"],
        ["describe", "infra"],
        ["describe", "nope"],
        ["jobs"],
        ["jobs", "--json"],
        ["job", "0190a7b0c1d2"],
        ["wait", JOB_ID],
        ["tail", JOB_ID, "--follow"],
        ["gc"],
    ],
)
def test_what_only_reads_imports_neither_the_event_loop_nor_the_parser(
    infra: World, argv: list[str]
) -> None:
    assert not imports(infra, *argv) & HEAVY


@pytest.mark.parametrize("argv", [["--help"], ["help", "exit-codes"]])
def test_the_first_help_page_needs_no_parser(world: World, argv: list[str]) -> None:
    assert not imports(world, *argv) & HEAVY


@pytest.mark.parametrize("argv", [["--version"], ["-V"], ["version"]])
def test_the_version_has_three_names(world: World, argv: list[str]) -> None:
    assert call(world, *argv).stdout == f"agent-dispatch {__version__}\n"


def test_a_change_needs_the_parser_but_no_event_loop(infra: World) -> None:
    assert not imports(infra, "update", "infra", "--timeout=20") & (HEAVY - {"cyclopts", "attrs"})


def test_a_run_of_the_everyday_form_needs_no_parser(infra: World) -> None:
    imported = imports(infra, "run", "nope", "x")
    assert "trio" in imported
    assert not imported & {"cyclopts", "rich", "mcp", "pydantic", "anyio"}


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["list"], 0),
        (["describe", "infra"], 0),
        (["describe", "nope"], 1),
        (["describe"], 2),
        (["run", "nope", "x"], 1),
        (["run", "nope", "x", "--background"], 1),
        (["jobs"], 0),
        (["job", JOB_ID], 1),
        (["wait", "../x"], 1),
        (["cancel", JOB_ID], 1),
        (["gc", "--dry-run"], 0),
        (["run", "infra", ""], 1),
        (["--nonsense"], 2),
        (["serve", "--help"], 0),
        (["--help"], 0),
    ],
)
def test_the_exit_status_tells_how_it_went(infra: World, argv: list[str], status: int) -> None:
    ended = call(infra, *argv)
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


def test_json_is_utf_8_in_any_locale(world: World) -> None:
    directory = world.project("grün")
    world.run("add", "infra", str(directory))
    world.environ |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    program = [sys.executable, "-m", "agent_dispatch"]
    as_json = subprocess.run(
        [*program, "list", "--json"], env=world.environ, capture_output=True, check=True
    )
    assert json.loads(as_json.stdout.decode())[0]["directory"] == str(directory)
    as_text = subprocess.run([*program, "list"], env=world.environ, capture_output=True, check=True)
    assert rb"gr\xfcn" in as_text.stdout


def test_a_reader_that_leaves_is_left_quietly(infra: World) -> None:
    for argv in (["list"], ["list", "--json"], ["--version"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        ended = call(infra, *argv, stdout=writing)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "argv", [["list"], ["list", "--json"], ["--version"], ["doctor"], ["--help"]]
)
def test_an_answer_that_cannot_be_written_is_a_failure(infra: World, argv: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = call(infra, *argv, stdout=full.fileno())
    assert ended.returncode == 1
    assert ended.stderr == "error: The answer could not be written: No space left on device\n"


def test_closed_standard_streams_are_no_trouble(infra: World) -> None:
    script = f'"{sys.executable}" -m agent_dispatch list <&- >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", script], env=infra.environ, timeout=60).returncode == 0


class Hanging:
    """A run whose agent never answers, once it is known to be at work."""

    def __init__(self, kind: str, *argv: str, ignoring: Sequence[signal.Signals] = ()) -> None:
        environ = {"PATH": "/usr/bin:/bin"}
        self.process = warm.begin("tests.cli.hanging", kind, *argv, env=environ, ignoring=ignoring)
        assert self.process.stderr is not None
        assert b"working" in self.process.stderr.readline()

    def end(self) -> tuple[int, str, str]:
        """Status, stdout and stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.wait(), out, err


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_agent_and_then_the_program(signum: signal.Signals, status: int) -> None:
    run = Hanging("obedient", "run", "infra", "x")
    run.process.send_signal(signum)
    returned, out, err = run.end()
    assert (returned, out) == (status, "")
    assert "cleaned up\n" in err
    assert f"Cancelled by {signum.name}" in err
    assert "Traceback" not in err


def test_a_cancelled_run_with_json_answers_a_result(world: World) -> None:
    run = Hanging("obedient", "test", "infra", "--json")
    run.process.send_signal(signal.SIGTERM)
    returned, out, _ = run.end()
    assert returned == 143
    assert json.loads(out)["error_type"] == "cancelled"


def test_a_second_ctrl_c_leaves_at_once() -> None:
    run = Hanging("stubborn", "run", "infra", "x")
    run.process.send_signal(signal.SIGINT)
    assert run.process.stderr is not None
    assert b"second signal" in run.process.stderr.readline()
    run.process.send_signal(signal.SIGINT)
    returned, _, err = run.end()
    assert returned == 130
    assert "cleaned up" not in err


def test_under_nohup_a_hangup_ends_nothing() -> None:
    run = Hanging("obedient", "run", "infra", "x", ignoring=[signal.SIGHUP])
    run.process.send_signal(signal.SIGHUP)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 143


@pytest.mark.parametrize("command", ["init", "run", "wait"])
def test_help_is_whole_without_docstrings(world: World, command: str) -> None:
    usual = call(world, command, "--help")
    stripped = new_python(world, command, "--help", options=["-OO"])
    assert (stripped.returncode, stripped.stdout) == (0, usual.stdout)
    assert new_python(world, "--help", options=["-OO"]).stdout == call(world, "--help").stdout


MISTYPED = [
    ["list"],
    ["describe", "infra"],
    ["run", "infra", "x"],
    ["test", "infra"],
    ["parallel", "x.json"],
    ["dialogue", "infra", "db", "x"],
    ["jobs"],
    ["group", "list"],
    ["update", "infra", "--timeout=5"],
]
MISTYPED_JOBS = [["wait"], ["job"], ["tail"], ["cancel", "last"], ["gc"]]


@pytest.mark.parametrize("argv", MISTYPED + MISTYPED_JOBS)
def test_a_mistyped_config_is_an_error_of_what_reads_it(world: World, argv: list[str]) -> None:
    world.write_config("")
    path = world.config.with_name("agent.toml")
    world.environ["AGENT_DISPATCH_CONFIG"] = str(path)
    assert world.run(*argv) == 1
    assert f"AGENT_DISPATCH_CONFIG names {path}, which does not exist." in world.err
    assert "Did you mean agents.toml?" in world.err
    assert world.err.endswith("\ntip: agent-dispatch init\n")
    world.environ["AGENT_DISPATCH_JOBS_DIR"] = str(world.home / "jobs")
    world.run(*argv)
    assert ("names" in world.err) is (argv in MISTYPED)


def test_a_mistyped_config_is_what_doctor_finds(world: World) -> None:
    world.environ["AGENT_DISPATCH_CONFIG"] = str(world.home / "no.toml")
    assert world.run("doctor") == 1
    assert f"{world.home}/no.toml does not exist" in world.out


@pytest.mark.parametrize(
    "argv", [["init"], ["add", "infra", "."], ["group", "add", "shop", "--member", "infra"]]
)
def test_what_creates_a_config_creates_the_named_one(world: World, argv: list[str]) -> None:
    path = world.home / "new" / "agents.toml"
    world.environ["AGENT_DISPATCH_CONFIG"] = str(path)
    world.run(*argv)
    assert path.exists()
