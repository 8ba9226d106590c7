import json
import os
import re
import shlex
from pathlib import Path

import pytest

from agent_dispatch.cli.doctor.check import Status
from agent_dispatch.cli.doctor.config import check_agent
from agent_dispatch.cli.doctor.handshake import shake_hands
from agent_dispatch.model.agent import AgentSummary
from tests.cli.support import World


@pytest.fixture
def healthy(world: World) -> World:
    world.install_claude()
    world.run("init")
    world.run("add", "infra", str(world.project("infra", {"CLAUDE.md": "# I\n\nInfra.\n"})))
    return world


def found(world: World, name: str) -> list[tuple[str, str, str | None]]:
    """Status, message and fix of the checks of that name that are not ok."""
    return [
        (check["status"], check["message"], check.get("fix"))
        for check in world.answer()["checks"]
        if check["name"] == name and check["status"] != "ok"
    ]


def test_a_whole_installation_passes(healthy: World) -> None:
    assert healthy.run("doctor", "--strict") == 0
    lines = healthy.out.splitlines()
    assert lines[-1] == "All checks passed."
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert len(lines) == 8
    assert re.fullmatch(r"ok    server: \d\d tools in \d\.\d\d s", lines[4])
    assert healthy.err == ""
    assert healthy.run("doctor", "--json") == 0
    assert healthy.answer()["ok"] is True


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 3", "it ended without an answer"),
        ("echo Boom >&2; exit 3", "it ended without an answer: Boom"),
        ("echo '{}'; echo; read line; exit 0", "it ended without an answer"),
    ],
)
def test_a_server_that_does_not_answer_is_a_failure(
    healthy: World, script: str, complaint: str
) -> None:
    program = healthy.home / "bin" / "agent-dispatch"
    program.write_text(f"#!/bin/sh\ncat >/dev/null & {script}\n")
    assert healthy.run("doctor", "--json") == 1
    [(status, message, fix)] = found(healthy, "server")
    assert (status, fix) == ("fail", "agent-dispatch init")
    assert message.endswith(f"does not complete a handshake: {complaint}")


def test_a_server_that_hangs_is_given_up_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $$ $! >{note}; while :; do sleep 600; done"
    done = shake_hands(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, within_s=0.5)
    assert (done.tools, done.complaint) == (None, "it did not answer in time")
    for pid in note.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        # A zombie that its new parent has not reaped yet is no process that is left.
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_nothing_is_changed_and_no_model_is_asked(healthy: World) -> None:
    before = healthy.config.read_bytes(), healthy.claude_config.read_bytes()
    calls = len(healthy.claude_calls())
    healthy.run("doctor")
    assert (healthy.config.read_bytes(), healthy.claude_config.read_bytes()) == before
    assert healthy.claude_calls()[calls:] == [["--version"], ["auth", "status", "--json"]]


def test_an_empty_machine_is_told_each_step(world: World) -> None:
    world.environ["PATH"] = str(world.home / "empty")
    assert world.run("doctor") == 1
    for fix in (
        "npm install -g @anthropic-ai/claude-code",
        "agent-dispatch init",
        "agent-dispatch add NAME DIRECTORY",
    ):
        assert f"fix: {fix}\n" in world.out
    assert world.out.splitlines()[-1] == "3 checks failed."


def test_a_claude_that_is_not_executable_is_told_apart(healthy: World) -> None:
    program = healthy.home / "bin" / "claude"
    program.chmod(0o644)
    healthy.run("doctor", "--json")
    assert found(healthy, "claude")[0][2] == f"chmod +x {shlex.quote(str(program))}"


@pytest.mark.parametrize(
    ("version", "status", "text"),
    [
        ("2.1.120 (Claude Code)", "fail", "older than 2.1.121"),
        ("1.0.128", "fail", "older"),
        ("2.1.121 (Claude Code)", "note", "tested with 2.1.330"),
        ("2.2.0", "note", "tested with 2.1.330"),
        ("10.0.0-beta", "note", "tested with"),
        ("garbage", "fail", "does not print a version"),
        ("", "fail", "does not print a version"),
    ],
)
def test_the_version_is_compared_with_what_works(
    healthy: World, version: str, status: str, text: str
) -> None:
    healthy.environ["FAKE_VERSION"] = version
    healthy.run("doctor", "--strict", "--json")
    [(found_status, message, _)] = found(healthy, "version")
    assert found_status == status
    assert text in message
    assert healthy.answer()["ok"] is (status == "note")


@pytest.mark.parametrize(
    ("fault", "status", "fix"),
    [("logged-out", "fail", "claude auth login"), ("old-auth", "warn", "claude auth status")],
)
def test_the_login_is_asked_for(healthy: World, fault: str, status: str, fix: str) -> None:
    healthy.install_claude(fault)
    assert healthy.run("doctor", "--json") == (1 if status == "fail" else 0)
    [(found_status, _, found_fix)] = found(healthy, "login")
    assert (found_status, found_fix) == (status, fix)


def test_strict_fails_on_warnings_which_alone_do_not(healthy: World) -> None:
    healthy.install_claude("old-auth")
    assert healthy.run("doctor") == 0
    assert healthy.out.splitlines()[-2:] == ["1 warning.", "All checks passed."]
    assert healthy.run("doctor", "--strict") == 1
    assert healthy.out.splitlines()[-1] == "1 check failed."


@pytest.mark.parametrize(
    ("registration", "status", "text", "fix"),
    [
        (None, "fail", "not registered", "agent-dispatch init"),
        ({"command": "/opt/x"}, "fail", "another server", "agent-dispatch init --yes"),
        ("nonsense", "fail", "another server", "agent-dispatch init --yes"),
        (
            {"command": "/gone/agent-dispatch", "args": ["serve"], "alwaysLoad": True},
            "fail",
            "/gone/agent-dispatch does not exist",
            "agent-dispatch init",
        ),
        ({"command": "PROGRAM", "args": ["serve"]}, "warn", "alwaysLoad", "agent-dispatch init"),
        (
            {"command": "PROGRAM", "args": ["serve"], "alwaysLoad": True, "timeout": 60000},
            "warn",
            "after 60 s",
            "agent-dispatch init",
        ),
        (
            {"command": "agent-dispatch", "args": ["serve"], "alwaysLoad": True},
            "note",
            "another installation",
            None,
        ),
    ],
)
def test_the_registration_is_looked_at(
    healthy: World, registration: object, status: str, text: str, fix: str | None
) -> None:
    document = json.dumps(registration).replace("PROGRAM", healthy.program)
    healthy.register(json.loads(document))
    healthy.run("doctor", "--json")
    [(found_status, message, found_fix)] = found(healthy, "registration")
    assert (found_status, found_fix) == (status, fix)
    assert text in message


def test_a_broken_configuration_of_claude_is_one_failure_among_the_checks(healthy: World) -> None:
    healthy.claude_config.write_text("{broken")
    assert healthy.run("doctor", "--json") == 1
    [(status, message, _)] = found(healthy, "registration")
    assert status == "fail"
    assert str(healthy.claude_config) in message
    assert found(healthy, "agent infra") == []


def test_a_config_that_does_not_parse_is_told_with_its_line(healthy: World) -> None:
    healthy.write_config("[agents.infra\n")
    assert healthy.run("doctor", "--json") == 1
    assert "line 1" in found(healthy, "config")[0][1]


def test_a_config_path_that_is_yaml_is_told_too(healthy: World) -> None:
    healthy.environ["AGENT_DISPATCH_CONFIG"] = "/x/agents.yaml"
    assert healthy.run("doctor", "--json") == 1
    assert found(healthy, "config")[0][2] == "agent-dispatch import /x/agents.yaml"


def test_unknown_keys_and_doubtful_values_are_warned_about(healthy: World) -> None:
    directory = healthy.home / "projects" / "infra"
    healthy.write_config(
        "[settings]\ndefault_timout = 5\n"
        f'[agents.infra]\ndirectory = "{directory}"\nmodle = "x"\npermission_mode = "yolo"\n'
    )
    assert healthy.run("doctor", "--json") == 1
    failures = [message for status, message, _ in found(healthy, "config") if status == "fail"]
    assert ["yolo" in text for text in failures] == [True]
    warnings = [message for status, message, _ in found(healthy, "config") if status == "warn"]
    assert any("'default_timout'; did you mean 'default_timeout'" in text for text in warnings)
    assert any("'modle'; did you mean 'model'" in text for text in warnings)
    assert healthy.run("doctor", "--strict") == 1


def test_a_broken_agent_fails_and_the_others_pass(healthy: World) -> None:
    directory = healthy.home / "projects" / "infra"
    healthy.write_config(
        "[agents.bad]\ndirectory = 5\n"
        '[agents.gone]\ndirectory = "/nowhere/at/all"\n'
        f'[agents.infra]\ndirectory = "{directory}"\n'
    )
    assert healthy.run("doctor", "--json") == 1
    assert found(healthy, "agent bad")[0][2] == f"correct it in {healthy.config}"
    assert found(healthy, "agent gone")[0][2] == "agent-dispatch remove gone"
    assert found(healthy, "agent infra") == []


def test_a_broken_setting_fails(healthy: World) -> None:
    directory = healthy.home / "projects" / "infra"
    healthy.write_config(
        f'[settings]\nmax_concurrency = "many"\n[agents.infra]\ndirectory = "{directory}"\n'
    )
    assert healthy.run("doctor", "--json") == 1
    assert any("max_concurrency" in message for _, message, _ in found(healthy, "config"))
    assert found(healthy, "agent infra")[0][2] == f"correct it in {healthy.config}"


def test_rules_that_claude_code_ignores_are_told(healthy: World) -> None:
    directory = healthy.home / "projects" / "infra"
    (directory / ".claude").mkdir()
    settings = directory / ".claude" / "settings.json"
    settings.write_text(json.dumps({"permissions": {"allow": ["Read"]}}))
    healthy.run("doctor", "--json")
    [(status, message, fix)] = found(healthy, "agent infra")
    assert status == "warn"
    assert "is not trusted" in message
    assert fix == f"cd {directory} && claude"
    config = json.loads(healthy.claude_config.read_text())
    config["projects"] = {str(directory): {"hasTrustDialogAccepted": True}}
    healthy.claude_config.write_text(json.dumps(config))
    healthy.run("doctor", "--json")
    assert found(healthy, "agent infra") == []


@pytest.mark.parametrize(
    ("euid", "environ", "warned"),
    [(0, {}, True), (0, {"IS_SANDBOX": "1"}, False), (1000, {}, False)],
)
def test_root_is_told_that_claude_code_refuses_bypass(
    tmp_path: Path, euid: int, environ: dict[str, str], warned: bool
) -> None:
    agent = AgentSummary(
        name="infra",
        directory=str(tmp_path),
        description="",
        healthy=True,
        has_claude_md=False,
        has_mcp_config=False,
        permission_mode="bypassPermissions",
    )
    checks = list(check_agent(agent, None, environ, euid))
    assert (Status.WARN in {check.status for check in checks}) is warned


def test_what_cleaning_has_to_pass_over_is_told_and_left(healthy: World) -> None:
    live = healthy.config.parent / "jobs" / "live"
    live.mkdir(parents=True)
    link = live / f"{'0' * 32}.lock"
    link.symlink_to("/nowhere")
    assert healthy.run("doctor", "--json") == 0
    ((status, message, fix),) = found(healthy, "jobs")
    assert status == "warn"
    assert message.startswith(f"live/{link.name}: a symbolic link")
    assert fix is not None
    assert fix.startswith(f"ls -ld {shlex.quote(str(link))}")
    assert link.is_symlink()
    assert healthy.run("doctor", "--strict") == 1


def test_a_configuration_that_is_none_is_told_once(healthy: World) -> None:
    healthy.environ["AGENT_DISPATCH_CONFIG"] = "/nowhere/agents.yaml"
    healthy.run("doctor", "--json")
    assert found(healthy, "jobs") == []
    assert len(found(healthy, "config")) == 1


@pytest.mark.parametrize(
    ("own", "inherited", "status"),
    [(None, "plan", Status.WARN), (None, "acceptEdits", Status.NOTE), ("manual", "plan", None)],
)
def test_an_inherited_permission_mode_is_shown_with_its_file(
    tmp_path: Path, own: str | None, inherited: str, status: Status | None
) -> None:
    agent = AgentSummary(
        name="infra",
        directory=str(tmp_path),
        description="",
        healthy=True,
        has_claude_md=False,
        has_mcp_config=False,
        permission_mode=own,
    )
    checks = list(check_agent(agent, None, {}, 1000, (inherited, "/u/settings.json")))
    said = [check for check in checks if "defaultMode of /u/settings.json" in check.message]
    assert [check.status for check in said] == ([] if status is None else [status])
    assert all(inherited in check.message for check in said)


@pytest.mark.parametrize(
    "printed",
    [
        "v2.1.330 (Claude Code)",
        "2.1.330",
        "Claude Code v2.1.330",
        "claude 2.1.330",
        "A new release is there: 2.2.0\n2.1.330 (Claude Code)",
        "2.1.330 (Claude Code)\nUpdate available: 2.2.0",
        "v2.1.330\nUpdate available: 2.2.0",
        "Welcome to 10.0.0.1, today is 2026.11.28\n\n  \x1b[1m2.1.330\x1b[0m (Claude Code)\n",
    ],
)
def test_the_version_is_found_whatever_is_printed_around_it(healthy: World, printed: str) -> None:
    healthy.environ["FAKE_VERSION"] = printed
    assert healthy.run("doctor", "--strict") == 0
    assert "ok    version: 2.1.330\n" in healthy.out


def test_a_claude_that_path_lacks_is_used_and_told(healthy: World) -> None:
    place = healthy.home / ".claude" / "local folder"
    place.parent.mkdir()
    (healthy.home / "bin").rename(place)
    healthy.environ |= {"PATH": "/usr/bin:/bin", "PNPM_HOME": str(place)}
    healthy.program = str(place / "agent-dispatch")
    assert healthy.run("init") == 0
    assert f"claude was found at {place / 'claude'}, which is not on PATH" in healthy.err
    assert "npm" not in healthy.err
    healthy.environ["FAKE_CLAUDE"] = "logged-out"
    assert healthy.run("doctor", "--json") == 1
    [(status, message, fix)] = found(healthy, "claude")
    assert status == "warn"
    assert f"found at {place / 'claude'}" in message
    assert fix == f"export PATH='{place}':\"$PATH\""
    login = f"'{place / 'claude'}' auth login"
    assert found(healthy, "login")[0][2] == login


FOREIGN = {"command": "/opt/something-else", "args": ["--mcp"]}


@pytest.mark.parametrize("scope", ["local", "project", "project above"])
def test_a_registration_that_outranks_ours_is_told(healthy: World, scope: str) -> None:
    directory = healthy.home / "projects" / "infra"
    servers = {"mcpServers": {"agent-dispatch": FOREIGN}}
    if scope == "local":
        config = json.loads(healthy.claude_config.read_text())
        config["projects"] = {str(directory): servers}
        healthy.claude_config.write_text(json.dumps(config))
    else:
        directory = directory.parent if scope == "project above" else directory
        (directory / ".mcp.json").write_text(json.dumps(servers))
    assert healthy.run("doctor", "--json") == 1
    [(status, message, fix)] = found(healthy, "registration")
    assert status == "fail"
    assert "/opt/something-else --mcp" in message
    remove = f"claude mcp remove agent-dispatch --scope {scope.split()[0]}"
    assert fix == f"cd {shlex.quote(str(directory))} && {remove}"


def test_the_same_registration_in_another_scope_is_none_the_worse(healthy: World) -> None:
    directory = healthy.home / "projects" / "infra"
    servers = {"mcpServers": {"agent-dispatch": healthy.registered(), "x": FOREIGN}}
    (directory / ".mcp.json").write_text(json.dumps(servers))
    assert healthy.run("doctor", "--strict") == 0


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ("mcp__agent-dispatch", "fail"),
        ("mcp__agent-dispatch__*", "fail"),
        ("mcp__*", "fail"),
        ("mcp__agent-dispatch__dispatch", "warn"),
        ("mcp__agent-dispatch-other", None),
        ("Bash(agent-dispatch:*)", None),
    ],
)
def test_a_rule_that_denies_our_tools_is_told(
    healthy: World, rule: str, status: str | None
) -> None:
    settings = healthy.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"permissions": {"deny": ["Read", rule]}}))
    assert healthy.run("doctor", "--json") == (status == "fail")
    expected = [] if status is None else [(status, f"remove {rule} from {settings}")]
    assert [(s, fix) for s, _, fix in found(healthy, "registration")] == expected


def test_a_rule_of_an_agents_own_project_may_be_meant(healthy: World) -> None:
    settings = healthy.home / "projects" / "infra" / ".claude" / "settings.local.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"permissions": {"deny": ["mcp__agent-dispatch"]}}))
    assert healthy.run("doctor", "--json") == 0
    assert [status for status, _, _ in found(healthy, "registration")] == ["warn"]


def test_a_registration_under_another_name_is_told(healthy: World) -> None:
    config = json.loads(healthy.claude_config.read_text())
    config["mcpServers"]["my agents"] = config["mcpServers"]["agent-dispatch"]
    healthy.claude_config.write_text(json.dumps(config))
    healthy.run("doctor", "--json")
    [(status, message, fix)] = found(healthy, "registration")
    assert (status, fix) == ("warn", "claude mcp remove --scope user -- 'my agents'")
    assert "twice" in message
    del config["mcpServers"]["agent-dispatch"]
    healthy.claude_config.write_text(json.dumps(config))
    assert healthy.run("doctor", "--json") == 1
    assert found(healthy, "registration")[1][2] == (
        "claude mcp remove --scope user -- 'my agents' && agent-dispatch init"
    )


@pytest.mark.parametrize("name", [".mcp.json", ".claude/settings.json"])
@pytest.mark.parametrize("content", ["{", None])
def test_a_broken_file_of_claude_code_counts_as_empty(
    healthy: World, name: str, content: str | None
) -> None:
    file = healthy.home / "projects" / name  # Above the agent's own directory.
    file.parent.mkdir(exist_ok=True)
    if content is None:
        os.mkfifo(file)
    else:
        file.write_text(content)
    if name != ".mcp.json":
        (healthy.home / ".claude").symlink_to(file.parent)
    assert healthy.run("doctor") == 0


def test_the_plugin_counts_as_a_registration(healthy: World) -> None:
    settings = healthy.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"enabledPlugins": {"agent-dispatch@market": true, "other@market": true}}')
    healthy.run("doctor", "--json")
    [(status, message, fix)] = found(healthy, "registration")
    assert (status, fix) == ("warn", "claude mcp remove agent-dispatch --scope user")
    assert "so every tool appears twice" in message
    healthy.claude_config.write_text("{}")
    healthy.run("doctor", "--json")
    assert found(healthy, "registration") == []
    (healthy.home / "bin" / "agent-dispatch").unlink()
    healthy.run("doctor", "--json")
    [(status, message, fix)] = found(healthy, "registration")
    assert (status, fix) == ("fail", "agent-dispatch init")
    assert "agent-dispatch@market starts agent-dispatch, which is not on PATH" in message
    settings.write_text('{"enabledPlugins": {"agent-dispatch@market": false}}')
    healthy.run("doctor", "--json")
    assert "not registered" in found(healthy, "registration")[0][1]


def test_a_client_that_init_registered_with_is_checked(world: World) -> None:
    world.install_claude()
    codex = world.home / ".codex"
    codex.mkdir()
    world.run("init", "--client", "codex")
    world.run("add", "infra", str(world.project("infra")))
    assert world.run("doctor") == 0
    assert "note  registration: not registered with Claude Code, but with another client" in (
        world.out
    )
    assert f"ok    client codex: {codex / 'config.toml'}" in world.out
    text = (codex / "config.toml").read_text()
    again = "agent-dispatch init --client codex"
    for broken, status, said, fix in (
        ("", "warn", "no longer has our entry", again),
        ("[x", "fail", "is not valid TOML", f"correct it in {codex / 'config.toml'}"),
        (text.replace(world.program, "/opt/other"), "warn", "runs /opt/other", f"{again} --yes"),
        (text.replace(world.program, "/gone/agent-dispatch"), "fail", "which is missing", again),
    ):
        (codex / "config.toml").write_text(broken)
        world.run("doctor", "--json")
        [(found_status, message, found_fix)] = found(world, "client codex")
        assert (found_status, found_fix) == (status, fix)
        assert said in message
