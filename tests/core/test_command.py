import math
import sys
from typing import Any

import pytest

from agent_dispatch.core.command import (
    DEPTH_VARIABLE,
    MARKER_VARIABLE,
    UNREADABLE_DEPTH,
    Command,
    RefusedValueError,
    build_command,
    current_depth,
)
from tests.core.builders import SESSION, agent

ALWAYS = ("-p", "--input-format=stream-json", "--output-format=stream-json", "--verbose")
WITHOUT_SERVER = '--settings={"deniedMcpServers":[{"serverName":"agent-dispatch"}]}'


def build(**changes: Any) -> Command:
    about_agent = {name: changes.pop(name) for name in list(changes) if name in AGENT_FIELDS}
    values: dict[str, Any] = {
        "new_session": None,
        "resume": None,
        "environ": {"PATH": "/bin"},
        "depth": 0,
        "max_depth": 3,
        "marker": "m1",
        "timeout_s": 300.0,
    }
    return build_command(["claude"], agent(**about_agent), **(values | changes))


AGENT_FIELDS = set(agent().__struct_fields__) - {"timeout_s"}


def flags(**changes: Any) -> tuple[str, ...]:
    command = build(**changes)
    assert command.argv[:5] == ("claude", *ALWAYS)
    return command.argv[5:]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"new_session": SESSION}, (f"--session-id={SESSION}",)),
        ({"resume": SESSION}, (f"--resume={SESSION}",)),
        ({"model": "sonnet"}, ("--model=sonnet",)),
        ({"model": ""}, ()),
        ({"permission_mode": "plan"}, ("--permission-mode=plan",)),
        ({"max_budget_usd": 0.1}, ("--max-budget-usd=0.1",)),
        ({"max_budget_usd": 2}, ("--max-budget-usd=2.0",)),
        ({"max_budget_usd": 0}, ()),
        ({"json_schema": '{"type": "object"}'}, ('--json-schema={"type": "object"}',)),
        ({"allowed_tools": ()}, ()),
        ({"allowed_tools": ("Bash", "Read")}, ("--allowedTools=Bash", "--allowedTools=Read")),
        (
            {"allowed_tools": ("Bash(git log:*,git diff:*)", "")},
            ("--allowedTools=Bash(git log:*,git diff:*)",),
        ),
        ({"disallowed_tools": ("Bash(rm:*)",)}, ("--disallowedTools=Bash(rm:*)",)),
        ({"depth": 1}, ()),
        ({"depth": 2}, (WITHOUT_SERVER,)),
        ({"depth": 0, "max_depth": 1}, (WITHOUT_SERVER,)),
    ],
)
def test_each_setting_has_its_flag(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert flags(**changes) == expected


def test_the_program_may_have_arguments_of_its_own() -> None:
    command = build_command(
        [sys.executable, "-m", "demo"],
        agent(),
        new_session=None,
        resume=None,
        environ={},
        depth=0,
        max_depth=3,
        marker="m1",
        timeout_s=1,
    )
    assert command.argv == (sys.executable, "-m", "demo", *ALWAYS)


def test_a_session_is_new_or_resumed_never_both() -> None:
    with pytest.raises(ValueError, match="session"):
        build(new_session=SESSION, resume=SESSION)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "--dangerously-skip-permissions"},
        {"model": "-p"},
        {"model": " -p"},
        {"model": "a\0b"},
        {"model": "a\ud800b"},
        {"permission_mode": "-x"},
        {"allowed_tools": ("Read", "--add-dir=/")},
        {"disallowed_tools": ("-",)},
        {"new_session": "-x"},
        {"resume": "--model"},
        {"directory": "/srv/\0"},
        {"max_budget_usd": math.nan},
        {"max_budget_usd": math.inf},
        {"max_budget_usd": -1},
    ],
)
def test_a_value_that_could_do_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedValueError) as refused:
        build(**changes)
    message = str(refused.value)
    assert "'infra'" in message
    assert "nothing was started" in message
    assert "agent-dispatch update infra" in message


def test_the_child_belongs_to_no_session_of_ours() -> None:
    ours = {
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "s",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_SSE_PORT": "1",
        "CLAUDE_PROJECT_DIR": "/here",
    }
    kept = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "ANTHROPIC_API_KEY": "k",
        "CLAUDE_CODE_OAUTH_TOKEN": "t",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CONFIG_DIR": "/c",
    }
    command = build(environ=ours | kept | {"PWD": "/elsewhere", DEPTH_VARIABLE: "7"}, depth=1)
    assert command.env == kept | {
        "PWD": "/srv/infra",
        DEPTH_VARIABLE: "2",
        MARKER_VARIABLE: "m1",
        "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS": "300000",
    }
    assert command.cwd == "/srv/infra"


def test_background_tasks_are_never_waited_for_without_end() -> None:
    assert build(timeout_s=0.0001).env["CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS"] == "1"


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("2", 2),
        (" 2\n", 2),
        ("-1", UNREADABLE_DEPTH),
        ("x", UNREADABLE_DEPTH),
        ("1.0", UNREADABLE_DEPTH),
        ("1_0", UNREADABLE_DEPTH),
        ("9" * 5000, UNREADABLE_DEPTH),
        ("٣", UNREADABLE_DEPTH),
    ],
)
def test_a_spoilt_depth_never_opens_the_guard(value: str | None, depth: int) -> None:
    environ = {} if value is None else {DEPTH_VARIABLE: value}
    assert current_depth(environ) == depth
