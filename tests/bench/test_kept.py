import json
from pathlib import Path

import pytest

from bench import kept
from bench.chaos.plan import make_plan
from bench.chaos.play import Outcome
from bench.chaos.report import as_markdown, as_result
from bench.kept import NoBlockError, block_of, with_block

JOB = {"kind": "call", "behaviour": "plain", "error_type": ""}


def outcome(seed: int, *violations: str) -> Outcome:
    jobs = [{**JOB, "status": "done"}, {**JOB, "status": "failed", "error_type": "lost"}]
    return Outcome(plan=make_plan(seed), violations=list(violations), jobs=jobs, acknowledged=1)


def test_each_promise_is_told_with_how_often_it_was_kept_and_broken() -> None:
    outcomes = [outcome(1, "I2: changed", "slept: 9 s"), outcome(2, "I2: changed"), outcome(3)]
    told = as_markdown(as_result(outcomes, {"command": "chaos", "seed": 1}))
    assert "| the record of a job that has ended never changes | 6 jobs | 2 |" in told
    assert "answered by its agent, in these words | 3 done | 0 |" in told
    assert "no bug leaves a traceback | 3 runs | 1 |" in told
    assert "job is recorded, whole | 3 acknowledged jobs | 0 |" in told
    assert "command: chaos" in told


def test_each_fault_is_told_with_how_often_it_struck() -> None:
    outcomes = [outcome(seed) for seed in range(1, 30)]
    struck = sum(len(each.plan.strikes) for each in outcomes)
    result = as_result(outcomes, {})
    assert sum(result["faults"].values()) == struck == result["about"]["faults"]


def test_a_result_is_kept_and_shown_as_it_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- speed:begin -->\n<!-- speed:end -->\n")
    kept.keep("speed", {"ms": (1, 2)}, str, folder=tmp_path, page=page)
    told = json.loads((tmp_path / "speed.json").read_text())
    assert told == {"ms": [1, 2]}
    assert block_of(page.read_text(), "speed").strip() == str(told)


def test_nothing_is_kept_that_the_page_has_no_place_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(NoBlockError):
        kept.keep("speed", {}, str, folder=tmp_path, page=page)
    assert not (tmp_path / "speed.json").exists()


TEXT = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n"


def test_a_block_is_replaced_and_nothing_else() -> None:
    changed = with_block(TEXT, "speed", "| new |\n")
    assert changed == "before\n<!-- speed:begin -->\n\n| new |\n\n<!-- speed:end -->\nafter\n"
    assert with_block(changed, "speed", block_of(changed, "speed")) == changed


@pytest.mark.parametrize(
    "text", ["nothing\n", "<!-- speed:end -->\n<!-- speed:begin -->\n", TEXT + TEXT]
)
def test_a_text_without_exactly_one_block_is_refused(text: str) -> None:
    with pytest.raises(NoBlockError, match="speed:begin"):
        with_block(text, "speed", "new")
