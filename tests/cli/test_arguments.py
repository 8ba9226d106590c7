import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.cli.command_table import COMMANDS
from agent_dispatch.cli.parsing import bind_flags, build_app, options_of, split_tokens

OPTIONS = {"--context": True, "--budget": True, "--json": False, "-h": False}


@pytest.mark.parametrize(
    ("tokens", "found", "words"),
    [
        ([], [], []),
        (["infra", "task"], [], ["infra", "task"]),
        (["infra", "--json", "task"], ["--json"], ["infra", "task"]),
        (["infra", "- a\n- b"], [], ["infra", "- a\n- b"]),
        (["infra", "--dry-run: why?"], [], ["infra", "--dry-run: why?"]),
        (["infra", "-5 degrees"], [], ["infra", "-5 degrees"]),
        (["infra", "-"], [], ["infra", "-"]),
        (["infra", "--", "--json"], [], ["infra", "--json"]),
        (["--", "infra", "--", "x"], [], ["infra", "--", "x"]),
        (["--context", "-x", "infra"], ["--context=-x"], ["infra"]),
        (["--context", "--unknown", "infra"], ["--context=--unknown"], ["infra"]),
        (["--context=--json", "infra"], ["--context=--json"], ["infra"]),
        (["--context=", "infra"], ["--context="], ["infra"]),
        (["--budget", "-1", "infra"], ["--budget=-1"], ["infra"]),
        (["infra", "--context", "--json"], ["--context", "--json"], ["infra"]),
        (["infra", "--context"], ["--context"], ["infra"]),
        (["infra", "--context", "--", "x"], ["--context"], ["infra", "x"]),
        (["infra", "--cnotext=1"], ["--cnotext=1"], ["infra"]),
        (["infra", "--version"], ["--version"], ["infra"]),
        (["infra", "-x"], ["-x"], ["infra"]),
        (["infra", ""], [], ["infra", ""]),
    ],
)
def test_options_are_told_from_words(tokens: list[str], found: list[str], words: list[str]) -> None:
    assert split_tokens(tokens, OPTIONS) == (found, words)


@given(st.lists(st.text()))
def test_words_behind_two_dashes_arrive_as_they_are(words: list[str]) -> None:
    assert split_tokens(["--json", "--", *words], OPTIONS) == (["--json"], words)


@given(st.text())
def test_a_value_behind_its_option_may_be_any_text_that_is_no_known_option(value: str) -> None:
    if value == "--" or value.partition("=")[0] in OPTIONS:
        return
    assert split_tokens(["--context", value], OPTIONS) == ([f"--context={value}"], [])


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_read_from_the_signature_as_the_parser_reads_them(name: str) -> None:
    app = build_app(name)
    parsed = dict.fromkeys(app[name].help_flags, False)
    for argument in app[name].assemble_argument_collection(default_parameter=app.default_parameter):
        takes_value = argument.token_count()[0] > 0
        if argument.parse:
            names = [name for name in argument.names if name.startswith("-")]
            parsed |= dict.fromkeys(names, takes_value)
    assert options_of(COMMANDS[name].function()) == parsed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_without_a_name_is_text(name: str) -> None:
    command = COMMANDS[name].function()
    code = command.__code__
    assert code.co_argcount == code.co_posonlyargcount
    words = code.co_varnames[: code.co_argcount]
    assert {command.__annotations__[word] for word in words} <= {str}


@pytest.mark.parametrize(
    ("argv", "bound"),
    [
        (["list"], ([], {})),
        (["list", "--json"], ([], {"json": True})),
        (["gc", "--dry-run"], ([], {"dry_run": True})),
        (["describe", "--json", "infra"], (["infra"], {"json": True})),
        (["test", "infra"], (["infra"], {})),
        (["run", "infra", "- a"], (["infra", "- a"], {})),
        (["run", "infra", "", "--stream"], (["infra", ""], {"stream": True})),
        (["list", "infra"], None),
        (["list", "--json", "--json"], None),
        (["list", "--json=true"], None),
        (["list", "--stream"], None),
        (["describe"], None),
        (["run", "infra"], None),
        (["run", "infra", "task", "--context=x"], None),
    ],
)
def test_words_and_flags_are_bound_without_the_parser(
    argv: list[str], bound: tuple[list[str], dict[str, bool]] | None
) -> None:
    command = COMMANDS[argv[0]].function()
    assert bind_flags(command, *split_tokens(argv[1:], options_of(command))) == bound
