import shlex
from typing import Any

import pytest

from agent_dispatch.core.agents.rights import command_for, rights_of, widened, widened_by_adding
from agent_dispatch.model.rights import Rights
from tests.core.builders import agent

KEYS = {
    "mode": "permission_mode",
    "allowed": "allowed_tools",
    "disallowed": "disallowed_tools",
    "budget": "max_budget_usd",
}


def rights(**values: Any) -> Rights:
    return Rights(**{KEYS[name]: value for name, value in values.items()})


ORDER = ["plan", "default", "acceptEdits", "auto", "bypassPermissions"]


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({}, {}, []),
        # Rules that are allowed.
        ({}, {"allowed": ("Read",)}, ["allowed"]),
        ({"allowed": ("Read",)}, {"allowed": ("Read",)}, []),
        ({"allowed": ("Read", "Write")}, {"allowed": ("Write",)}, []),
        ({"allowed": ("Read",)}, {"allowed": ("Write",)}, ["allowed"]),
        ({"allowed": ("Read", "Write")}, {"allowed": ("Write", "Read")}, []),
        ({"allowed": ("Bash(git log:*)",)}, {"allowed": ("Bash(git:*)",)}, ["allowed"]),
        ({"allowed": ("Bash(git:*)",)}, {"allowed": ("Bash(git log:*)",)}, ["allowed"]),
        ({"allowed": ("Bash(ls)",)}, {"allowed": ("Bash( ls)",)}, ["allowed"]),
        ({"allowed": ("Bash",)}, {"allowed": ("Bash(git log:*)",)}, []),
        ({"allowed": ("Bash(git log:*)",)}, {"allowed": ("Bash",)}, ["allowed"]),
        ({"allowed": ("Bash",)}, {"allowed": ("Bash", "Bash(rm:*)", "Edit(/x)")}, ["allowed"]),
        ({"allowed": ("bash",)}, {"allowed": ("Bash(ls)",)}, ["allowed"]),
        # Rules that are forbidden.
        ({"disallowed": ("Write",)}, {}, ["disallowed"]),
        ({}, {"disallowed": ("Write",)}, []),
        ({"disallowed": ("Write", "Bash")}, {"disallowed": ("Bash",)}, ["disallowed"]),
        ({"disallowed": ("Bash(rm:*)",)}, {"disallowed": ("Bash",)}, ["disallowed"]),
        ({"disallowed": ("Write",)}, {"disallowed": ("Bash", "Write")}, []),
        # Modes.
        *(
            ({"mode": before}, {"mode": after}, ["mode"] if right > left else [])
            for left, before in enumerate(ORDER)
            for right, after in enumerate(ORDER)
        ),
        ({"mode": "default"}, {"mode": "manual"}, []),
        ({"mode": "manual"}, {"mode": "dontAsk"}, []),
        ({"mode": "dontAsk"}, {"mode": "default"}, []),
        ({"mode": "plan"}, {"mode": "manual"}, ["mode"]),
        ({"mode": "bypassPermissions"}, {"mode": "yolo"}, ["mode"]),
        ({"mode": "yolo"}, {"mode": "yolo"}, []),
        ({"mode": "yolo"}, {"mode": "plan"}, []),
        ({"mode": "yolo"}, {"mode": "default"}, ["mode"]),
        ({"mode": "default"}, {"mode": "PLAN"}, ["mode"]),
        # Budgets.
        ({"budget": 1.0}, {"budget": 2.0}, ["budget"]),
        ({"budget": 2.0}, {"budget": 1.0}, []),
        ({"budget": 1.0}, {"budget": 1.0}, []),
        ({"budget": 1.0}, {}, ["budget"]),
        ({}, {"budget": 1e9}, []),
        # Several at once.
        (
            {"mode": "plan", "budget": 1.0},
            {"mode": "auto", "allowed": ("Read",), "budget": 2.0},
            ["mode", "allowed", "budget"],
        ),
    ],
)
def test_changes_that_give_more_rights(
    before: dict[str, Any], after: dict[str, Any], keys: list[str]
) -> None:
    assert widened(rights(**before), rights(**after)) == [KEYS[key] for key in keys]


@pytest.mark.parametrize(
    ("inherited", "added", "keys"),
    [
        ({}, {}, []),
        ({"allowed": ("Read",)}, {"allowed": ("Read",)}, []),
        ({"mode": "auto"}, {"mode": "auto"}, []),
        ({"mode": "bypassPermissions"}, {"mode": "bypassPermissions"}, ["mode"]),
        ({"mode": "bypassPermissions"}, {"mode": "plan"}, []),
        ({}, {"mode": "bypassPermissions"}, ["mode"]),
        ({}, {"allowed": ("Read",)}, ["allowed"]),
        ({}, {"budget": 5.0, "disallowed": ("Write",), "mode": "plan"}, []),
        ({"budget": 1.0}, {"budget": 5.0}, ["budget"]),
        ({"disallowed": ("Write",)}, {}, ["disallowed"]),
    ],
)
def test_rights_that_a_new_agent_may_have(
    inherited: dict[str, Any], added: dict[str, Any], keys: list[str]
) -> None:
    assert widened_by_adding(rights(**inherited), rights(**added)) == [KEYS[key] for key in keys]


def test_a_missing_setting_is_the_cautious_default() -> None:
    assert rights_of(agent()) == Rights()
    assert Rights().permission_mode == "default"


def test_a_command_can_be_pasted_whatever_it_holds() -> None:
    command = command_for(
        ["update", "infra"],
        {
            "allowed_tools": ["Bash(echo '$HOME' \"x\")", "Read"],
            "max_budget_usd": 2.5,
            "permission_mode": None,
            "disallowed_tools": [],
        },
    )
    assert shlex.split(command) == [
        "agent-dispatch",
        "update",
        "infra",
        "--allowed-tools=Bash(echo '$HOME' \"x\"),Read",
        "--max-budget-usd=2.5",
        "--permission-mode=none",
        "--disallowed-tools=[]",
    ]
