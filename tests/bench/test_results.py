"""The kept results and what is made of them agree: no figure is typed."""

from bench.compare.document import BLOCK, from_json, readme_block, results_page
from bench.readme import README, block_of

RESULTS = README.parent / "bench" / "results"


def test_readme_and_the_page_of_results_show_what_was_measured() -> None:
    kept = from_json((RESULTS / "compare.json").read_text(encoding="utf-8"))
    plots = sorted(path.name for path in RESULTS.glob("compare-*.svg"))
    readme = README.read_text(encoding="utf-8")
    expected = readme_block(kept, "bench/results", plots)
    assert block_of(readme, BLOCK).strip() == expected.strip()
    page = (RESULTS / "compare.md").read_text(encoding="utf-8")
    assert page == results_page(kept, plots)
