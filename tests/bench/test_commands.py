"""Each command of `bench` works in small sizes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from bench import cuts, soak
from bench.chaos.__main__ import main as chaos
from bench.chaos.spending import main as spending
from bench.compare import __main__ as compare
from bench.compare.comparison import Verdict, as_json, from_json
from bench.kept import RESULTS
from bench.speed.__main__ import main as speed
from bench.speed.mcp_client import Server
from bench.speed.measurements import GROUPS, SECTIONS, select
from bench.speed.predecessor import named_predecessor
from bench.speed.workshop import Stage, build_agent

ROOT = Path(__file__).parents[2]
HERE = {"HOME": "/"}
needs_a_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="the scripted agent of the benchmarks needs a C compiler"
)


@needs_a_compiler
@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("instant-child", "instant child: what is added, wall"),
        ("wake-ups", "dispatch_wait after the agent's end"),
        ("answer", "answer of 4 MiB: on the wire"),
    ],
)
def test_speed_measures_what_is_wanted(
    only: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed(["--quick", "--rounds", "2", "--only", only, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert expected in {row["name"] for row in told["rows"]}
    assert told["failed"] == []
    assert told["command"] == f"python -m bench.speed --only {only} --quick --rounds 2"


def test_cuts_play_a_run_by_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuts.make_plan(7) == cuts.make_plan(7) != cuts.make_plan(8)
    assert cuts.main(["--runs", "1", "--seed", "7"]) == 0
    assert "1 runs with cuts" in capsys.readouterr().out


@needs_a_compiler
def test_compare_puts_two_products_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Our own product takes the predecessor's place, with the configuration that it can read.
    ours, other = Path(sys.executable).with_name("agent-dispatch"), tmp_path / "agent-dispatch"
    other.write_text(
        "#!/bin/sh\nexport AGENT_DISPATCH_CONFIG=${AGENT_DISPATCH_CONFIG%.yaml}.toml\n"
        f'exec {ours} "$@"\n'
    )
    other.chmod(0o755)
    kept = tmp_path / "kept.json"
    arguments = ["--quick", "--only", "list_agents", "--against", str(other), "--json", str(kept)]
    assert compare.main(arguments) == 0
    found = from_json(kept.read_text())
    names = [each.row.name for each in found.rows]
    assert names == ["list_agents, 10 agents", "list_agents pipelined"]
    assert "python -m bench.compare --only list_agents --quick" in capsys.readouterr().out


def test_compare_shows_kept_figures_without_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    kept = RESULTS / "compare.json"
    assert compare.main(["--from", str(kept)]) == 0
    found = from_json(kept.read_text(encoding="utf-8"))
    assert f"\n{len(found.rows)} rows: " in capsys.readouterr().out
    assert compare.main(["--from", str(kept), "--strict"]) == 1
    assert from_json(as_json(found)) == found
    assert found.with_verdict(Verdict.WORSE)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--write-readme", "--quick"], "without --only and --quick"),
        (["--write-readme", "--only", "m1"], "without --only and --quick"),
        (["--only", "m11"], "invalid choice: 'm11'"),
        (["--repeat", "0"], "must be 1 or more"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main(arguments)
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--from", "--against"])
def test_a_missing_file_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([option, "/nowhere/agent-dispatch"]) == 1
    assert "/nowhere/agent-dispatch" in capsys.readouterr().err


def test_the_predecessor_is_named_by_its_script_its_interpreter_or_a_link(tmp_path: Path) -> None:
    script = tmp_path / "env" / "agent-dispatch"
    script.parent.mkdir()
    script.touch(mode=0o755)
    link = tmp_path / "agent-dispatch"
    link.symlink_to(script)
    for name in (script, script.with_name("python3"), link):
        assert named_predecessor(str(name)) == script


def test_the_images_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="images need the dependency group bench")
    from bench.compare.plots import draw

    found = from_json((RESULTS / "compare.json").read_text(encoding="utf-8"))
    names = draw(found, tmp_path)
    first = [(tmp_path / name).read_bytes() for name in names]
    assert names == sorted(path.name for path in RESULTS.glob("compare-*.svg"))
    assert [(tmp_path / name).read_bytes() for name in draw(found, tmp_path)] == first


def test_every_group_is_measured() -> None:
    assert {group for section in SECTIONS for group in section.groups} == set(GROUPS)


def test_sections_are_selected_by_name_or_group() -> None:
    assert [section.name for section in select(only=["m10"])] == ["endings"]
    assert [section.name for section in select(only=["crowd"])] == ["crowd"]
    assert select(only=["m8"], with_claude=False) == []


@needs_a_compiler
def test_agents_count_those_that_run_at_the_same_time(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    build_agent(program)
    folder = tmp_path / "stage"
    folder.mkdir()
    stage = Stage(folder, gated=True, counted=True)
    with started(program, stage, 0) as one, started(program, stage, 1) as other:
        while stage.peak() < 2:
            assert one.poll() is None
            assert other.poll() is None
        stage.remove_gate()
        said = [child.communicate(timeout=20)[0] for child in (one, other)]
    with started(program, stage, 2) as last:
        said.append(last.communicate(timeout=20)[0])
    for number, text in enumerate(said):
        assert f'"result":"done {number}"'.encode() in text
    assert stage.peak() == 2


@contextmanager
def started(program: Path, stage: Stage, number: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(program), "-p", f"task {number}"]
    environ = {**os.environ, **stage.environ}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


def test_an_answer_that_arrives_early_is_kept() -> None:
    with Server([sys.executable, str(ROOT / "bench" / "speed" / "echo_server.py")], HERE) as echo:
        echo.initialize()
        first, second = (echo.post_call("echo", {}) for _ in range(2))
        assert set(echo.answers([second])) == {second}
        assert set(echo.answers([first])) == {first}
        assert echo.tools == {"echo"}


def test_chaos_plays_one_run(capfd: pytest.CaptureFixture[str]) -> None:
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(signum) for signum in signums]
    assert chaos(["--runs", "1", "--seed", "1"]) == 0
    assert "violations: 0" in capfd.readouterr().out
    assert [signal.getsignal(signum) for signum in signums] == handlers


def test_soak_plays_at_least_one_round_and_takes_a_sample() -> None:
    samples: list[soak.Sample] = []
    load = trio.run(soak.soak, 0.001, 1, samples)
    assert load.wrong == []
    assert len(samples) == load.rounds
    assert samples[-1].rss_mib > 0


def test_servers_that_spend_at_once_and_are_killed_pass_no_ceiling(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert spending(["--seed", "11", "--runs", "1"]) == 0, capfd.readouterr().out
    assert " budget" in capfd.readouterr().out
