import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.cli.output import (
    Colour,
    cell_width,
    fit,
    local_time,
    one_line,
    pad,
    paint,
    printable,
)
from tests.cli.support import World


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a new title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]never ended\nnext line", "\nnext line"),
        ("\x1b(Bafter", "after"),
        ("\x1bcreset", "reset"),
        ("a\x00b\x07c\x08d\x7fe\x9bf", "abcdef"),
        ("over\rwritten", "overwritten"),
        ("windows\r\nlines", "windows\nlines"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("naïve 日本 🙂", "naïve 日本 🙂"),
        ("ends with escape\x1b", "ends with escape"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_text_for_one_line_has_its_white_space_folded() -> None:
    assert one_line(" a\n\n b\tc\rd\x1b[2K ") == "a b c d"


@given(st.text(), st.integers(min_value=0, max_value=200))
def test_a_fitted_text_never_takes_more_columns_than_there_are(text: str, width: int) -> None:
    assert cell_width(fit(one_line(text), width)) <= width


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("somewhat longer", 10, "somewha..."),
        ("日本語の長い文章", 9, "日本語..."),
        ("abc", 2, ".."),
        ("abc", 0, ""),
    ],
)
def test_a_cut_is_shown_by_dots(text: str, width: int, fitted: str) -> None:
    assert fit(text, width) == fitted


def test_padding_counts_columns_not_characters() -> None:
    assert pad("日本", 6) == "日本  "


@pytest.mark.parametrize("seconds", [1e300, -1e300, 1e18, float("inf"), float("nan")])
def test_a_time_that_no_calendar_has_is_shown_as_its_number(seconds: float) -> None:
    assert local_time(seconds) == f"{seconds:g} (no calendar has this time)"


def test_a_time_is_shown_in_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert local_time(1_790_000_000) == "2026-09-21 16:13"
        assert local_time(1_790_000_000, "%H:%M:%S") == "16:13:20"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("terminal", "environ", "painted"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
    ],
)
def test_colour_is_for_terminals_whose_owner_wants_it(
    world: World, terminal: bool, environ: dict[str, str], painted: bool
) -> None:
    world.terminal, world.environ = terminal, environ
    text = paint("ok", Colour.GOOD, world.shell())
    assert text == ("\x1b[32mok\x1b[0m" if painted else "ok")
