import math
import shutil
import subprocess
import sys
from typing import Any

import pytest

from agent_dispatch.core.command import (
    DEPTH_VARIABLE,
    EXCLUSIVE_VARIABLE,
    MARKER_VARIABLE,
    UNREADABLE_DEPTH,
    Command,
    RefusedValueError,
    build_command,
    current_depth,
    exclusive_above,
)
from tests.core.builders import SESSION, agent

ALWAYS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    "--disallowedTools=ScheduleWakeup",
    "--disallowedTools=CronCreate",
)
WITHOUT_SERVER = (
    '--settings={"deniedMcpServers":[{"serverName":"agent-dispatch"},'
    '{"serverName":"plugin:agent-dispatch:agent-dispatch"}]}'
)


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


AGENT_FIELDS = set(agent().__struct_fields__) - {"timeout_s", "exclusive"}


def flags(**changes: Any) -> tuple[str, ...]:
    command = build(**changes)
    begin = 1 + len(ALWAYS)
    assert command.argv[:begin] == ("claude", *ALWAYS)
    return command.argv[begin:]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"new_session": SESSION}, (f"--session-id={SESSION}",)),
        ({"resume": SESSION}, (f"--resume={SESSION}",)),
        ({"model": "sonnet"}, ("--model=sonnet",)),
        ({"model": ""}, ()),
        ({"effort": "high"}, ("--effort=high",)),
        ({"effort": "huge"}, ("--effort=huge",)),
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
        ({"nested": False}, (WITHOUT_SERVER,)),
        ({"depth": 2, "nested": False}, (WITHOUT_SERVER,)),
        ({"fallback_model": "haiku"}, ("--fallback-model=haiku",)),
        ({"tools": ("Bash", "Read")}, ("--tools=Bash,Read",)),
        ({"tools": ()}, ("--tools=",)),
        (
            {"instructions": "- Be brief.\n"},
            ("--append-system-prompt=- Be brief.\n", "--system-prompt-snapshot=off"),
        ),
        (
            {"instructions": "Be brief.", "resume": SESSION},
            (
                f"--resume={SESSION}",
                "--append-system-prompt=Be brief.",
                "--system-prompt-snapshot=off",
            ),
        ),
        ({"capabilities": ("sql",)}, ()),
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
        {"effort": "--bare"},
        {"fallback_model": "-x"},
        {"tools": ("-x",)},
        {"instructions": "a\0b"},
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
    assert refused.value.next_steps


def test_the_child_belongs_to_none_of_our_sessions() -> None:
    ours = {
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "s",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_SSE_PORT": "1",
        "CLAUDE_CODE_CHILD_SESSION": "1",
        "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS": "s",
        "CLAUDE_CODE_MESSAGING_SOCKET": "/run/s",
        "CLAUDE_CODE_MESSAGING_TOKEN": "t",
        "CLAUDE_CODE_SESSION_ATTENDED": "1",
        "CLAUDE_PID": "7",
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


def test_a_child_knows_which_exclusive_agents_are_held_above_it() -> None:
    assert EXCLUSIVE_VARIABLE not in build().env
    above = {EXCLUSIVE_VARIABLE: "shop"}
    env = build(environ=above, exclusive=["infra", "db"], env_allow=(), env_deny=("*",)).env
    assert exclusive_above(env) == ["shop", "infra", "db"]
    assert exclusive_above(build(environ=env).env) == ["shop", "infra", "db"]


LOCAL_TO_A_REPOSITORY = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
OF_THE_USER = {
    "GIT_AUTHOR_DATE": "2001-02-03",
    "GIT_AUTHOR_EMAIL": "me@example.org",
    "GIT_AUTHOR_NAME": "me",
    "GIT_COMMITTER_EMAIL": "me@example.org",
    "GIT_COMMITTER_NAME": "me",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_GLOBAL": "/home/me/git",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/etc/git",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_EDITOR": "vi",
    "GIT_SSH": "ssh",
    "GIT_SSH_COMMAND": "ssh -i key",
    "GIT_TERMINAL_PROMPT": "0",
}


def test_the_callers_repository_does_not_become_the_agents() -> None:
    theirs = dict.fromkeys(LOCAL_TO_A_REPOSITORY, "/caller")
    env = build(environ=theirs | OF_THE_USER).env
    assert {name: env[name] for name in env if name.startswith("GIT_")} == OF_THE_USER


@pytest.mark.skipif(shutil.which("git") is None, reason="asks the installed git")
def test_every_variable_that_git_calls_local_is_left_out_but_the_users_own_settings() -> None:
    command = ["git", "rev-parse", "--local-env-vars"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    env = build(environ=dict.fromkeys(listed, "/caller")).env
    assert [name for name in listed if name in env] == ["GIT_CONFIG_COUNT"]


RETRIES = {
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "CLAUDE_CODE_NONSTREAMING_TIMEOUT_RETRIES": "0",
    "CLAUDE_CODE_OVERLOADED_RETRY_MAX_WAIT_MS": "1",
    "CLAUDE_CODE_RETRY_WATCHDOG": "1",
    "CLAUDE_CODE_RETRY_WATCHDOG_MAX_WAIT_MS": "1",
}


@pytest.mark.parametrize(
    ("environ", "depth"),
    [
        ({"CLAUDECODE": "1"}, 0),
        ({"CLAUDE_CODE_CHILD_SESSION": "1"}, 0),
        ({"CLAUDE_CODE_SESSION_ID": SESSION}, 0),
        ({}, 1),
    ],
)
def test_a_nested_run_uses_the_retry_settings_of_its_own_project(
    environ: dict[str, str], depth: int
) -> None:
    env = build(environ=RETRIES | environ | {"MAX_STRUCTURED_OUTPUT_RETRIES": "2"}, depth=depth).env
    assert not RETRIES.keys() & env.keys()
    assert env["MAX_STRUCTURED_OUTPUT_RETRIES"] == "2"


def test_from_a_plain_shell_the_users_retry_settings_reach_the_agent() -> None:
    assert RETRIES.items() <= build(environ=RETRIES).env.items()


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
