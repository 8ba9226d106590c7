from pathlib import Path

import pytest

from tests.bench.test_concurrency import crowd, point

pytest.importorskip("matplotlib", reason="images need the dependency group bench")

NAMES = ("agent-dispatch", "predecessor")


def test_the_same_figures_are_the_same_image(tmp_path: Path) -> None:
    from bench.concurrency import FULL
    from bench.concurrency_plot import draw

    points = [point(name, load=load, peak=load.limit) for load in FULL.loads for name in NAMES]
    crowds = [crowd(name, running, 50 + running) for name in NAMES for running in (1, 5, 20)]
    images = []
    for name in ("one", "other"):
        draw(tmp_path / name, points, crowds, {"command": "python -m bench.concurrency"})
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
    assert b"python -m bench.concurrency" in images[0]


def test_a_caption_is_broken_between_facts() -> None:
    from bench.drawing import caption_lines

    lines = caption_lines({f"fact {number}": "x" * 40 for number in range(6)})
    assert [line.count("fact") for line in lines] == [2, 2, 2]
