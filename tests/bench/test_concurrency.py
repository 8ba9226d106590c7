import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.crowd import Crowd, rows_of_crowds
from bench.fanout import MANY, Load, Point, rows_of
from bench.harness import Server, running
from bench.products import build_standin
from bench.steering import Stage

ROOT = Path(__file__).parents[2]


def point(product: str = "agent-dispatch", *, load: Load, peak: int, right: int = MANY) -> Point:
    wall_s = 1.1 * load.ideal_s
    return Point(
        product=product, load=load, peak=peak, right=right, wall_s=wall_s, cpu_ms=5, threads=5
    )


def crowd(product: str, running: int, mib: float) -> Crowd:
    return Crowd(
        product=product,
        asked=20,
        running=running,
        idle_mib=50,
        mib=mib,
        server_threads=5,
        threads=30,
        idle_open_files=20,
        open_files=200,
    )


@pytest.mark.parametrize(
    ("limit", "dispatches", "ideal_s", "full"),
    [(20, 200, 10, 20), (50, 200, 4, 50), (100, 30, 1, 30), (3, 10, 4, 3)],
)
def test_the_ideal_is_what_the_agents_alone_would_take(
    limit: int, dispatches: int, ideal_s: float, full: int
) -> None:
    load = Load(limit=limit, dispatches=dispatches, seconds=1)
    assert (load.ideal_s, load.full) == (ideal_s, full)


@pytest.mark.parametrize(("peak", "met"), [(19, False), (20, True), (21, False)])
def test_the_limit_is_to_be_used_and_kept(peak: int, met: bool) -> None:
    load = Load(limit=20, dispatches=MANY, seconds=1)
    rows = {row.name: row for row in rows_of([point(load=load, peak=peak)])}
    assert rows[f"{load}: peak"].met is met
    assert rows[f"{load}: wall of ideal"].met is False


def test_an_answer_to_somebody_else_is_told() -> None:
    load = Load(limit=20, dispatches=MANY, seconds=1)
    rows = {row.name: row for row in rows_of([point(load=load, peak=20, right=MANY - 1)])}
    assert rows["dispatches without their own agent's answer"].met is False


def test_what_a_dispatch_adds_is_counted_for_those_that_run() -> None:
    rows = rows_of_crowds([crowd("agent-dispatch", 20, 76), crowd("predecessor", 6, 53)])
    [each] = [row for row in rows if row.name == "20 dispatches: PSS of each"]
    assert (each.ours, each.predecessor, each.met) == (1.3, 0.5, True)


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if request.param == "interpreted":
        return [sys.executable, "-IS", str(ROOT / "bench" / "standin.py")]
    folder, what = build_standin(tmp_path_factory.mktemp("standin"))
    if not what.startswith("C "):
        pytest.skip("there is no C compiler")
    return [str(folder / "claude")]


def test_standins_count_those_that_live_at_the_same_time(
    standin: list[str], tmp_path: Path
) -> None:
    stage = Stage(tmp_path / "stage", gated=True, counted=True)
    with ExitStack() as stack:
        children = [stack.enter_context(started(standin, stage, n)) for n in range(3)]
        while stage.peak() < 3:
            assert all(child.poll() is None for child in children)
        stage.remove_gate()
        said = [child.communicate(timeout=20)[0] for child in children]
    with started(standin, stage, 3) as last:
        said.append(last.communicate(timeout=20)[0])
    for number, text in enumerate(said):
        assert f'"result":"done {number}"'.encode() in text
    assert stage.peak() == 3


@contextmanager
def started(standin: list[str], stage: Stage, number: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [*standin, "-p", f"task {number}"]
    environ = {**os.environ, **stage.environ}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def echo() -> Iterator[Server]:
    command = [sys.executable, str(ROOT / "bench" / "echo_server.py")]
    with running(Server(command, {"HOME": "/"})) as server:
        server.initialize()
        yield server


def test_an_answer_that_comes_early_is_kept(echo: Server) -> None:
    first, second = (echo.post_call("echo", {}) for _ in range(2))
    before = echo.received_bytes
    assert set(echo.answers([second])) == {second}
    assert set(echo.answers([first])) == {first}
    assert echo.tools == {"echo"}
    assert echo.received_bytes > before
