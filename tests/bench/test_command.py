from pathlib import Path

import pytest

from bench.compare.__main__ import main
from bench.compare.document import as_json
from bench.compare.sections import GROUPS, SECTIONS, sections
from bench.report import of_predecessor
from tests.bench.compared import comparison, figure

SLOW = figure(20, 10, of_predecessor(0.6), name="slow")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "kept.json"
    path.write_text(as_json(comparison(SLOW)))
    return path


def test_kept_figures_are_shown_without_measuring(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", str(kept)]) == 0
    assert "1 rows: 0 targets met, 1 missed, 1 worse" in capsys.readouterr().out


def test_a_strict_run_fails_where_the_predecessor_is_better(kept: Path) -> None:
    assert main(["--from", str(kept), "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--write-readme", "--quick"], "without --only and --quick"),
        (["--write-readme", "--only", "m1"], "without --only and --quick"),
        (["--only", "m1,m11"], "no rows m11"),
        (["--repeat", "0"], "a number from 1 on"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--from", "nowhere.json"], ["--predecessor", "/nowhere/agent-dispatch"]],
)
def test_what_is_not_there_is_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert "nowhere" in capsys.readouterr().err


def test_every_group_of_rows_is_measured_somewhere() -> None:
    assert {group for section in SECTIONS for group in section.groups} == set(GROUPS)


def test_only_sections_with_wanted_rows_are_measured() -> None:
    assert [section.name for section in sections(["m10"], with_claude=True)] == ["ends of servers"]


def test_without_the_real_cli_its_sections_are_left_out() -> None:
    assert sections(["m8"], with_claude=False) == []
