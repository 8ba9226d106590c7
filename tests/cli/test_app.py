import shlex

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_dispatch import __version__
from agent_dispatch.cli.command_table import ALIASES, COMMANDS
from agent_dispatch.cli.help_pages import TOPICS
from agent_dispatch.cli.parsing import build_app, options_of, split_tokens
from agent_dispatch.errors import InvalidRequestError, SchemaError
from agent_dispatch.model.dispatch import DispatchRequest
from tests.cli.support import FakeService, World


@pytest.mark.parametrize(
    "argv",
    [
        ["frobnicate"],
        ["--bogus"],
        ["list", "too", "many"],
        ["add", "infra"],
        ["update"],
        ["run", "infra"],
        ["run", "infra", "task", "--bogus"],
        ["run", "infra", "task", "--context"],
        ["run", "infra", "task", "--timeout-seconds", "soon"],
        ["run", "infra", "task", "--stream", "--stream"],
        ["run", "infra", "task", "--shell", "x"],
    ],
)
def test_a_command_line_that_does_not_parse_is_told_on_stderr(
    world: World, argv: list[str]
) -> None:
    assert world.run(*argv) == 2
    assert world.out == ""
    assert world.err.startswith("error: ")
    assert "agent-dispatch" in world.err
    assert "--help" in world.err
    assert "Traceback" not in world.err


def test_a_mistyped_command_names_the_nearest(world: World) -> None:
    world.run("lsit")
    assert world.err == (
        "error: Unknown command: 'lsit'. Did you mean list?\ntip: agent-dispatch --help\n"
    )


def test_a_mistyped_option_names_the_nearest(world: World) -> None:
    assert world.run("run", "infra", "x", "--contxt", "y") == 2
    line, tip = world.err.splitlines()
    assert line.startswith("error: Unknown option: --contxt. Did you mean --context?")
    assert tip == "tip: agent-dispatch run --help"


def test_a_wrong_command_line_with_json_answers_json(world: World) -> None:
    assert world.run("jobs", "--json", "--limt", "3") == 2
    assert world.answer()["error"].startswith("Unknown option: --limt. Did you mean --limit?")
    assert world.answer()["tips"] == ["agent-dispatch jobs --help"]
    assert world.err == ""


@pytest.mark.parametrize("flags", [(), ("--goal=x",)])
def test_a_task_without_quotes_is_told_to_have_them(world: World, flags: tuple[str, ...]) -> None:
    assert world.run("run", "infra", "check", "the", "logs", *flags) == 2
    assert "error: Unexpected argument: the logs. Quote the task.\n" in world.err


def test_a_word_that_looks_like_an_option_is_told_where_to_go(world: World) -> None:
    assert world.run("run", "infra", "--version") == 2
    assert "after `--`" in world.err


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_in_its_group(world: World, argv: list[str]) -> None:
    assert world.run(*argv) == 0
    listed = [line.split()[0] for line in world.out.splitlines() if line.startswith("  ")]
    assert [name for name in listed if name != "$"] == [*COMMANDS]
    assert max(map(len, world.out.splitlines())) <= 80
    assert "\x1b" not in world.out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_every_command_has_a_help_page_with_an_example(world: World, name: str) -> None:
    assert world.run(name, "--help") == 0
    page = " ".join(world.out.split())
    assert f"Usage: agent-dispatch {name}" in page
    assert f"Example: agent-dispatch {COMMANDS[name].example}" in page
    # Every command gets it, but it is no option.
    assert "--shell" not in page
    by_help = world.out
    assert world.run("help", name) == 0
    assert world.out == by_help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line_that_parses(world: World, name: str) -> None:
    command, *tokens = shlex.split(COMMANDS[name].example)
    assert command == name
    options, words = split_tokens(tokens, options_of(COMMANDS[name].function()))
    build_app(name).parse_args(
        [name, *options, "--", *words], exit_on_error=False, print_error=False
    )


def test_a_help_page_shows_defaults_and_choices(world: World) -> None:
    world.run("jobs", "--help")
    page = " ".join(world.out.replace("│", " ").split())
    assert "[default: 50]" in page
    assert "pending, running, done, failed or cancelled" in page
    assert "False" not in page
    for command in ("add", "update"):
        world.run(command, "--help")
        page = " ".join(world.out.replace("│", " ").split())
        assert "acceptEdits, auto, bypassPermissions, default, dontAsk, manual or plan" in page


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_a_page(world: World, topic: str) -> None:
    assert world.run("help", topic) == 0
    assert len(world.out.splitlines()) > 3


def test_help_on_an_unknown_word_is_refused(world: World) -> None:
    assert world.run("help", "exit-code") == 2
    assert world.err.splitlines()[0] == ("error: No help on 'exit-code'. Did you mean exit-codes?")
    assert world.out == ""


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_its_command(world: World, alias: str, name: str) -> None:
    assert (world.run(alias), world.run(name)) == (world.run(name), world.run(alias))
    world.run(alias, "--help")
    page = world.out
    world.run(name, "--help")
    assert world.out == page


def test_the_version_is_a_command_too(world: World) -> None:
    assert world.run("version") == 0
    assert world.out == f"agent-dispatch {__version__}\n"


def test_help_behind_two_dashes_is_a_task(world: World) -> None:
    assert world.run("run", "infra", "--", "--help") == 0
    assert world.service.requests[0].task == "--help"


def test_serve_is_handed_on(world: World) -> None:
    assert world.run("serve") == 0
    assert world.served == [()]


@pytest.mark.parametrize(
    ("argv", "request_"),
    [
        (
            ["run", "infra", "- a\n- b"],
            DispatchRequest(agent="infra", task="- a\n- b"),
        ),
        (
            ["run", "--context=-x", "infra", "task", "--goal", "-5 %", "--caller", "me"],
            DispatchRequest(agent="infra", task="task", context="-x", goal="-5 %", caller="me"),
        ),
        (
            ["run", "infra", "task", "--response-format", "json", "--timeout-seconds", "20"],
            DispatchRequest(agent="infra", task="task", response_format="json", timeout_s=20),
        ),
        (
            ["run", "infra", "task", "--timeout-seconds", "0"],
            DispatchRequest(agent="infra", task="task"),
        ),
        (
            ["run", "infra", "task", "--timeout-seconds=-3"],
            DispatchRequest(agent="infra", task="task", timeout_s=10),
        ),
    ],
)
def test_values_and_tasks_may_begin_with_a_dash(
    world: World, argv: list[str], request_: DispatchRequest
) -> None:
    assert world.run(*argv) == 0
    assert world.service.requests == [request_]


@given(
    words=st.tuples(st.text(), st.text()).filter(
        lambda words: not any(word.startswith("-") for word in words)
    ),
    flags=st.sets(st.sampled_from(["--json", "--stream"])),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_short_way_and_the_parser_make_the_same_call(
    world: World, words: tuple[str, str], flags: set[str]
) -> None:
    world.run("run", *words, *flags)
    short = world.service.requests[-1], world.out, world.err
    # An option with its default keeps the short way from being taken.
    world.run("run", *words, *flags, "--context=")
    assert (world.service.requests[-1], world.out, world.err) == short


@pytest.mark.parametrize("argv", [("run", "infra", "x"), ("run", "infra", "x", "--context=y")])
def test_a_refused_call_is_an_error_of_one_line_and_status_1(
    world: World, argv: tuple[str, ...]
) -> None:
    world.service = FakeService(InvalidRequestError("task is blank; say what to do"))
    assert world.run(*argv) == 1
    assert world.out == ""
    tip = f"tip: agent-dispatch {argv[0]} --help"
    assert world.err == f"error: task is blank; say what to do\n{tip}\n"


def test_a_refused_call_with_json_answers_json(world: World) -> None:
    world.service = FakeService(InvalidRequestError("bad name \udcff \x1b[31m"))
    assert world.run("run", "infra", "x", "--json") == 1
    assert world.answer() == {
        "error": "bad name \\udcff \x1b[31m",
        "tips": ["agent-dispatch run --help"],
    }
    assert world.err == ""


def test_json_is_one_document_of_readable_utf_8(world: World) -> None:
    directory = world.project("grün", {"CLAUDE.md": "# Grün\n\nÄpfel, 日本\n"})
    world.run("add", "gruen", str(directory), "--json")
    assert "grün" in world.out
    assert msgspec.json.decode(world.out)["directory"] == str(directory)


def test_a_schema_that_cannot_be_used_is_a_wrong_command_line(world: World) -> None:
    world.service = FakeService(SchemaError("json_schema is not valid at /type"))
    assert world.run("run", "infra", "x") == 2
    assert "error: json_schema is not valid at /type" in world.err
