import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.cli.arguments import arrange, plain_call

OPTIONS = {"--context": True, "--budget": True, "--json": False, "-h": False}

WORDS = st.text(min_size=1).filter(lambda text: not text.startswith("-"))


@pytest.mark.parametrize(
    ("tokens", "arranged"),
    [
        ([], []),
        (["infra", "task"], ["--", "infra", "task"]),
        (["infra", "--json", "task"], ["--json", "--", "infra", "task"]),
        (["infra", "- a\n- b"], ["--", "infra", "- a\n- b"]),
        (["infra", "--dry-run: why?"], ["--", "infra", "--dry-run: why?"]),
        (["infra", "-5 degrees"], ["--", "infra", "-5 degrees"]),
        (["infra", "-"], ["--", "infra", "-"]),
        (["infra", "--", "--json"], ["--", "infra", "--json"]),
        (["--", "infra", "--", "x"], ["--", "infra", "--", "x"]),
        (["--context", "-x", "infra"], ["--context=-x", "--", "infra"]),
        (["--context", "--unknown", "infra"], ["--context=--unknown", "--", "infra"]),
        (["--context=--json", "infra"], ["--context=--json", "--", "infra"]),
        (["--context=", "infra"], ["--context=", "--", "infra"]),
        (["--budget", "-1", "infra"], ["--budget=-1", "--", "infra"]),
        (["infra", "--context", "--json"], ["--context", "--json", "--", "infra"]),
        (["infra", "--context"], ["--context", "--", "infra"]),
        (["infra", "--context", "--", "x"], ["--context", "--", "infra", "x"]),
        (["infra", "--cnotext=1"], ["--cnotext=1", "--", "infra"]),
        (["infra", "--version"], ["--version", "--", "infra"]),
        (["infra", "-x"], ["-x", "--", "infra"]),
        (["infra", ""], ["--", "infra", ""]),
    ],
)
def test_options_come_first_and_words_stand_behind_two_dashes(
    tokens: list[str], arranged: list[str]
) -> None:
    assert arrange(tokens, OPTIONS) == arranged


@given(st.lists(st.text()))
def test_words_behind_two_dashes_arrive_as_they_are(words: list[str]) -> None:
    assert arrange(["--json", "--", *words], OPTIONS) == (
        ["--json", "--", *words] if words else ["--json"]
    )


@given(st.text())
def test_a_value_behind_its_option_may_be_any_text_that_is_no_known_option(value: str) -> None:
    if value == "--" or value.partition("=")[0] in OPTIONS:
        return
    assert arrange(["--context", value], OPTIONS) == [f"--context={value}"]


@pytest.mark.parametrize(
    ("argv", "words", "flags"),
    [
        (["list"], (), set()),
        (["list", "--json"], (), {"json"}),
        (["describe", "infra"], ("infra",), set()),
        (["describe", "--json", "infra"], ("infra",), {"json"}),
        (["test", "infra"], ("infra",), set()),
        (["run", "infra", "do it", "--stream", "--json"], ("infra", "do it"), {"json", "stream"}),
        (["run", "infra", ""], ("infra", ""), set()),
    ],
)
def test_everyday_forms_need_no_parser(
    argv: list[str], words: tuple[str, ...], flags: set[str]
) -> None:
    plain = plain_call(argv)
    assert plain is not None
    assert plain == (argv[0], words, frozenset(flags))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["list", "infra"],
        ["list", "--help"],
        ["list", "--json", "--json"],
        ["list", "--stream"],
        ["describe"],
        ["describe", "--", "infra"],
        ["run", "infra"],
        ["run", "infra", "-"],
        ["run", "infra", "- a"],
        ["run", "infra", "task", "--context=x"],
        ["remove", "infra"],
    ],
)
def test_everything_else_is_left_to_the_parser(argv: list[str]) -> None:
    assert plain_call(argv) is None
