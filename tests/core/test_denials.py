"""A denial is explained by what denied it; a grant is named only where it lifts that.

The events are as Claude Code 2.1.330 printed them, less what no dispatch reads.
"""

from typing import Any

import pytest

from agent_dispatch.model.claude_settings import ClaudeSettings, Hook, SettingsFile
from agent_dispatch.model.dispatch import DispatchResult
from tests.core import builders
from tests.core.builders import agent, shown

USER = "/home/u/.claude/settings.json"


def run(
    tool: str,
    given: dict[str, Any],
    *,
    live: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
    mode: str = "default",
    inherited: ClaudeSettings | None = None,
    servers: list[dict[str, Any]] | None = None,
    **about: Any,
) -> DispatchResult:
    events = [builders.init(permissionMode=mode, mcp_servers=servers or [])]
    if live is not None:
        events.append(builders.denied(tool) | live)
    if meta is not None:
        events.append(builders.tool_result(tool_result_meta=[{"id": "toolu_2"} | meta]))
    denials = [builders.denial(tool) | {"tool_input": given}] if tool else []
    events.append(builders.result("hm", permission_denials=denials))
    report = builders.report(*events, agent=agent(**about), inherited=inherited or ClaudeSettings())
    return shown(report)


def reject(kind: str, source: str = "config", reason: str = "") -> dict[str, Any]:
    decision = {"decision": "reject", "source": source, "reason_type": reason}
    return {"non_execution_kind": kind, "permission_decision": decision}


def user(**changes: Any) -> ClaudeSettings:
    return ClaudeSettings(files=(SettingsFile(path=USER, **changes),))


TOUCH = {"command": "touch zz"}
BY_RULE: dict[str, Any] = {
    "live": {"decision_reason_type": "subcommandResults"},
    "meta": reject("permission-rule", reason="subcommandResults"),
}
TO_ASK: dict[str, Any] = {"live": {"decision_reason_type": "rule"}, "meta": reject("user-rejected")}


@pytest.mark.parametrize(
    ("tool", "given", "facts", "says"),
    [
        (
            "Bash",
            TOUCH,
            BY_RULE | {"inherited": user(deny=("Bash(rm:*)", "Bash(touch:*)"))},
            f"Bash was denied by Bash(touch:*) in permissions.deny of {USER}.",
        ),
        (
            "Bash",
            {"command": "cd a && touch yy"},
            BY_RULE | {"inherited": user(deny=("Bash(touch yy)", "Bash(rm)"))},
            f"Bash was denied by Bash(touch yy) in permissions.deny of {USER}.",
        ),
        ("Bash", TOUCH, BY_RULE, "a rule in permissions.deny of Claude Code's settings"),
        (
            "Write",
            {"file_path": "/srv/infra/written", "content": "x"},
            {"meta": reject("", "user_reject", "rule"), "inherited": user(deny=("Edit(written)",))},
            f"Write was denied by Edit(written) in permissions.deny of {USER}.",
        ),
        (
            "WebFetch",
            {"url": "http://example.com/x"},
            {
                "live": {"decision_reason_type": "rule"},
                "meta": reject("permission-rule", "user_reject", "rule"),
                "inherited": user(deny=("WebFetch(domain:example.com)", "WebFetch(domain:a.b)")),
            },
            f"by WebFetch(domain:example.com) in permissions.deny of {USER}.",
        ),
        (
            "Bash",
            TOUCH,
            TO_ASK | {"inherited": user(ask=("Bash(touch:*)",)), "allowed_tools": ("Bash",)},
            f"needs a person's approval by Bash(touch:*) in permissions.ask of {USER}.",
        ),
        (
            "Bash",
            {"command": "touch zz && touch yy"},
            {
                "live": {"decision_reason_type": "subcommandResults"},
                "meta": reject("user-rejected"),
                "inherited": user(ask=("Bash(touch:*)",)),
            },
            f"by Bash(touch:*) in permissions.ask of {USER}.",
        ),
        (
            "Bash",
            TOUCH,
            {
                "meta": reject("permission-rule", "hook", "hook"),
                "inherited": user(hooks=(Hook("Edit", "no.sh"), Hook("Bash|Read", "guard.sh"))),
            },
            f"denied by a PreToolUse hook (guard.sh in {USER})",
        ),
        ("Bash", TOUCH, {"live": {"decision_reason_type": "hook"}}, "denied by a PreToolUse hook."),
        (
            "Write",
            {"file_path": "/srv/infra/a"},
            {
                "mode": "plan",
                "live": {"decision_reason_type": "mode"},
                "inherited": user(default_mode="plan"),
            },
            f"plan (permissions.defaultMode of {USER})",
        ),
        (
            "Bash",
            TOUCH,
            {"mode": "plan", "live": {"decision_reason_type": "classifier"}},
            "agent-dispatch update infra --permission-mode manual",
        ),
        (
            "Write",
            {"file_path": "/srv/infra/.claude/settings.json"},
            {"live": {"decision_reason_type": "safetyCheck", "message": "protected"}},
            'that no grant lifts. Claude Code said: "protected"',
        ),
        (
            "Bash",
            {"command": "rm *.x"},
            {"live": {"decision_reason_type": "other", "message": "Glob patterns are not allowed"}},
            "Glob patterns are not allowed",
        ),
        (
            "Bash",
            {"command": "touch /etc/zz"},
            {
                "live": {"message": "outside the working directories"},
                "allowed_tools": ("Bash(touch /etc/zz)",),
            },
            "permissions.additionalDirectories of /srv/infra/.claude/settings.local.json",
        ),
    ],
)
def test_a_denial_that_no_grant_lifts_is_named_with_its_place(
    tool: str, given: dict[str, Any], facts: dict[str, Any], says: str
) -> None:
    hint = run(tool, given, **facts).hint or ""
    assert says in hint
    assert "--allow" not in hint


@pytest.mark.parametrize(
    ("tool", "given", "rule"),
    [
        ("Bash", TOUCH, "Bash(touch zz)"),
        ("Write", {"file_path": "/srv/infra/src/a.txt"}, "Edit(/src/a.txt)"),
        ("Edit", {"file_path": "/srv/infra/a(1),b*.txt"}, "Edit(/a?1??b?.txt)"),
        ("NotebookEdit", {"notebook_path": "n.ipynb"}, "Edit(/n.ipynb)"),
        ("Write", {"file_path": "/etc/zz"}, "Edit(//etc/zz)"),
        ("Write", {"file_path": "/srv/infra/../other/a"}, "Edit(//srv/other/a)"),
        ("Read", {"file_path": "/etc/zz"}, "Read(//etc/zz)"),
        ("Grep", {"pattern": "x", "path": "/etc"}, "Read(//etc/**)"),
        ("WebFetch", {"url": "https://example.com/x"}, "WebFetch(domain:example.com)"),
        ("mcp__pg__query", {"sql": "select 1"}, "mcp__pg__query"),
    ],
)
@pytest.mark.parametrize("mode", ["default", "dontAsk"])
def test_the_least_rule_is_proposed(tool: str, given: dict[str, Any], rule: str, mode: str) -> None:
    live = {"decision_reason_type": "mode"} if mode == "dontAsk" else {}
    hint = run(tool, given, live=live, mode=mode, inherited=user(default_mode=mode)).hint or ""
    assert f'Ask your user to run: agent-dispatch update infra --allow "{rule}"' in hint
    assert ("dontAsk (permissions.defaultMode of" in hint) == (mode == "dontAsk")


def test_an_untrusted_directory_is_named_with_the_way_to_trust_it() -> None:
    ignored = ClaudeSettings(untrusted_root="/srv/my infra", ignored_rules=2)
    hint = run("Bash", TOUCH, live={}, inherited=ignored).hint or ""
    assert "/srv/my infra is not trusted, so Claude Code ignored permissions.allow (2 rule" in hint
    assert "cd '/srv/my infra' && claude" in hint
    assert "not trusted" not in (run("Bash", TOUCH, **BY_RULE, inherited=ignored).hint or "")


def test_the_denied_calls_come_with_their_input() -> None:
    result = run("Bash", {"command": "touch é", "n": [1, {"a": None}]}, live={})
    calls = result.denied_calls or []
    assert [(call.tool, call.input) for call in calls] == [
        ("Bash", '{"command":"touch é","n":[1,{"a":null}]}')
    ]
    long = run("Write", {"file_path": "/srv/infra/a", "content": "x" * 2_000_000}).denied_calls
    assert long is not None
    assert len(long[0].input) == 300
    assert run("", {}).denied_calls is None


@pytest.mark.parametrize(
    ("status", "named"),
    [
        ("failed", True),
        ("needs-auth", True),
        ("connected", False),
        ("pending", False),
        ("disabled", False),
    ],
)
def test_an_mcp_server_that_did_not_start_is_named(status: str, named: bool) -> None:
    servers = [{"name": "pg", "status": status, "source": "project"}]
    hint = run("", {}, servers=servers).hint
    assert (f"none of their tools: pg ({status})" in (hint or "")) == named
    assert named or hint is None
