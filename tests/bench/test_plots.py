from pathlib import Path

import pytest

from bench.report import at_most, of_floor, of_predecessor
from tests.bench.compared import comparison, figure

pytest.importorskip("matplotlib", reason="images need the dependency group bench")

ROWS = (
    figure(2, 10, of_predecessor(0.6), name="first dispatch"),
    figure(1.1, 3.4, at_most(1.06), name="200 x 1 s at limit 20: wall of ideal", unit="x"),
    figure(2, 50, of_predecessor(0.1), name="newest 50 of 1000", floor=1),
    figure(9, 2500, of_floor(3), name="newest 50 of 50000", floor=14),
    figure(0.5, 3.5, of_floor(1.25), name="dispatch of the real CLI, wall", unit="s", floor=0.4),
)


def test_the_same_figures_are_the_same_images(tmp_path: Path) -> None:
    from bench.compare.plots import draw

    folders = [tmp_path / "one", tmp_path / "other"]
    images = []
    for folder in folders:
        folder.mkdir()
        names = draw(comparison(*ROWS), folder)
        images.append({name: (folder / name).read_bytes() for name in names})
    assert images[0] == images[1]
    assert list(images[0]) == [
        "compare-fan-out.svg",
        "compare-gains.svg",
        "compare-listing.svg",
        "compare-real-cli.svg",
    ]
    assert all(b"python -m bench.compare" in image for image in images[0].values())


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    from bench.compare.plots import draw

    assert draw(comparison(), tmp_path) == []
