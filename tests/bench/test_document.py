from bench.compare.document import as_json, as_markdown, as_text, from_json, summary
from bench.report import at_most, of_floor, of_predecessor
from tests.bench.compared import comparison, figure

FAST = figure(5, 10, of_predecessor(0.6), name="fast")
SLOW = figure(20, 10, of_predecessor(0.6), name="slow")
LATE = figure(3, 10, of_floor(1.25), name="late", floor=2)


def test_a_kept_comparison_is_read_back_whole() -> None:
    found = comparison(FAST, LATE)
    assert from_json(as_json(found)) == found


def test_readme_shows_where_the_predecessor_is_better_although_nobody_asked_for_it() -> None:
    found = comparison(FAST, SLOW, LATE, figure(2, 1, at_most(3), name="allowed"))
    assert [each.row.name for each in found.telling] == ["slow", "allowed"]


def test_readme_shows_what_users_notice() -> None:
    headline = figure(5, 10, of_predecessor(0.6), name="first dispatch")
    assert [each.row.name for each in comparison(FAST, headline).telling] == ["first dispatch"]


def test_a_table_says_plainly_where_the_predecessor_is_better() -> None:
    found = comparison(FAST, SLOW)
    expected = "| slow | 20 ms | 10 ms | 2 | <= 0.6 x predecessor | worse than the predecessor |"
    assert expected in as_markdown(found, found.rows)


def test_a_target_of_the_floor_says_how_low_that_is() -> None:
    found = comparison(LATE)
    assert "<= 1.25 x bare child (2 ms)" in as_markdown(found, found.rows)


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    found = comparison(figure(1, 2, name="a|b"))
    assert "| a\\|b | 1 ms |" in as_markdown(found, found.rows)


def test_the_summary_counts_each_way_of_being_behind() -> None:
    found = comparison(FAST, SLOW, LATE, figure(2, 1, at_most(3), name="allowed"))
    assert summary(found) == (
        "4 rows: 2 targets met, 2 missed, 2 worse than the predecessor (by more than 5%)."
    )


def test_a_terminal_gets_the_run_and_a_line_for_each_row() -> None:
    lines = as_text(comparison(FAST, SLOW)).splitlines()
    assert lines[0] == "command: python -m bench.compare"
    assert sum(line.startswith("m1 ") for line in lines) == 2
