"""The docs show exactly the kept results: no figure is typed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench import soak
from bench.chaos import report as chaos
from bench.compare.comparison import BLOCK, docs_block, from_json, results_page
from bench.kept import RELIABILITY, RESULTS, SPEED, block_of


def test_the_docs_and_the_page_of_results_show_what_was_measured() -> None:
    kept = from_json((RESULTS / "compare.json").read_text(encoding="utf-8"))
    plots = sorted(path.name for path in RESULTS.glob("compare-*.svg"))
    shown = SPEED.read_text(encoding="utf-8")
    expected = docs_block(kept, plots)
    assert block_of(shown, BLOCK).strip() == expected.strip()
    page = (RESULTS / "compare.md").read_text(encoding="utf-8")
    assert page == results_page(kept, plots)


@pytest.mark.parametrize(
    ("name", "show"), [(chaos.BLOCK, chaos.as_markdown), (soak.BLOCK, soak.as_markdown)]
)
def test_the_docs_show_a_result_as_it_is_kept(name: str, show: Callable[[Any], str]) -> None:
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    shown = RELIABILITY.read_text(encoding="utf-8")
    assert block_of(shown, name).strip() == show(kept).strip()


def test_the_kept_chaos_and_soak_are_long_and_clean() -> None:
    kept = json.loads((RESULTS / "chaos.json").read_text(encoding="utf-8"))
    assert kept["about"]["runs"] >= 1000
    assert {each["broken"] for each in kept["promises"]} == {0}
    kept = json.loads((RESULTS / "soak.json").read_text(encoding="utf-8"))
    assert kept["about"]["minutes"] >= 10
    assert all(trend["flat"] for trend in kept["trends"])
