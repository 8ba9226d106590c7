"""The command `group`, and what other commands say about groups."""

import tomllib
from typing import Any

import pytest

from tests.cli.support import World


@pytest.fixture
def shop(world: World) -> World:
    for name in ("backend", "infra"):
        world.run("add", name, str(world.project(name)))
    arguments = ("--shared-context", "The stack is shop-prod.", "--member", "backend=code")
    assert world.run("group", "add", "shop", *arguments, "--member", "infra") == 0
    return world


def test_a_group_that_exists_is_refused_with_what_to_do(world: World) -> None:
    assert world.run("group", "add", "shop") == 0
    assert world.run("group", "add", "shop") == 1
    assert world.err == (
        "error: Group 'shop' exists already. Change it, or remove it and add it again.\n"
        "tip: agent-dispatch group update --help\n"
        "tip: agent-dispatch group remove shop\n"
    )


def _file(world: World) -> dict[str, Any]:
    groups: dict[str, Any] = tomllib.loads(world.config.read_text())["groups"]
    return groups


def test_a_group_is_added_with_all_that_is_said_of_it(world: World) -> None:
    world.run("add", "backend", str(world.project("backend")))
    status = world.run(
        *("group", "add", "shop", "--description", "Ask first"),
        *("--shared-context", "Facts", "--member", "backend=the code, and tests", "--member=infra"),
    )
    assert status == 0
    assert world.out == "Added shop: 2 members\n"
    assert world.err == "warning: group shop: member infra is not configured\n"
    assert _file(world)["shop"] == {
        "description": "Ask first",
        "shared_context": "Facts",
        "members": [{"agent": "backend", "use_for": "the code, and tests"}, {"agent": "infra"}],
    }


def test_the_first_group_creates_the_file(world: World) -> None:
    assert world.run("group", "add", "shop") == 0
    assert _file(world) == {"shop": {}}


@pytest.mark.parametrize("name", ["shop", "-x", "a b"])
def test_a_name_that_is_taken_or_not_allowed_changes_nothing(shop: World, name: str) -> None:
    before = shop.config.read_text()
    assert shop.run("group", "add", "--", name) == 1
    assert name in shop.err
    assert shop.config.read_text() == before


def test_groups_are_listed(shop: World) -> None:
    shop.run("group", "add", "ops", "--member", "gone", "--description", "Operations")
    assert shop.run("group", "list") == 0
    assert shop.out == "shop  backend, infra\nops   gone\n      Operations\n"
    assert "group ops: member gone is not configured" in shop.err
    assert shop.run("group", "list", "--json") == 0
    assert [group["name"] for group in shop.answer()] == ["shop", "ops"]


def test_without_groups_the_command_that_adds_one_is_told(world: World) -> None:
    assert world.run("group", "list") == 0
    assert "agent-dispatch group add NAME" in world.out
    assert world.run("group", "list", "--json") == 0
    assert world.answer() == []


def test_one_group_is_shown_with_its_missing_members(shop: World) -> None:
    shop.run("group", "update", "shop", "--member", "gone=logs")
    assert shop.run("group", "inspect", "shop") == 0
    assert shop.out.splitlines() == [
        "shop",
        "  shared context",
        "    The stack is shop-prod.",
        "  members",
        "    backend - code",
        "    infra",
        "    gone (missing) - logs",
    ]
    assert shop.run("group", "inspect", "shop", "--json") == 0
    assert shop.answer() == {
        "name": "shop",
        "shared_context": "The stack is shop-prod.",
        "members": [
            {"agent": "backend", "use_for": "code"},
            {"agent": "infra"},
            {"agent": "gone", "use_for": "logs", "missing": True},
        ],
        "missing": ["gone"],
    }


def test_an_update_changes_what_is_given_and_nothing_else(shop: World) -> None:
    comment = "# kept\n"
    shop.config.write_text(comment + shop.config.read_text())
    arguments = ("--member", "backend=tests", "--member", "db", "--remove-member", "infra")
    assert shop.run("group", "update", "shop", *arguments, "--description", "D") == 0
    assert shop.out == "Updated shop: description, members\n"
    assert _file(shop)["shop"] == {
        "description": "D",
        "shared_context": "The stack is shop-prod.",
        "members": [{"agent": "backend", "use_for": "tests"}, {"agent": "db"}],
    }
    assert shop.config.read_text().startswith(comment)
    shop.run("group", "update", "shop", "--description", "none", "--member", "backend")
    assert "description" not in _file(shop)["shop"]
    assert _file(shop)["shop"]["members"][0] == {"agent": "backend"}
    assert shop.run("group", "update", "shop", "--member", "db") == 0
    assert shop.out.startswith("Unchanged shop")


def test_a_group_is_removed_and_its_agents_stay(shop: World) -> None:
    assert shop.run("group", "remove", "shop") == 0
    assert shop.out == "Removed shop: 2 members\n"
    assert "groups" not in tomllib.loads(shop.config.read_text())
    assert shop.run("describe", "infra") == 0


@pytest.mark.parametrize("action", ["inspect", "update", "remove"])
def test_an_unknown_group_is_an_error_that_names_the_known_ones(shop: World, action: str) -> None:
    assert shop.run("group", action, "shp") == 1
    assert "Unknown group: 'shp'. Did you mean shop? Available: shop" in shop.err


def test_an_agent_that_is_no_member_cannot_leave(shop: World) -> None:
    assert shop.run("group", "update", "shop", "--remove-member", "db") == 1
    assert "Agent 'db' is not a member of group 'shop'. Members: backend, infra" in shop.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("grow", "shop"), "The action cannot be 'grow'"),
        (("add",), "needs the name of a group"),
        (("list", "shop"), "takes no name"),
        (("inspect", "shop", "--member", "x"), "takes no --member"),
        (("add", "new", "--remove-member", "x"), "takes no --remove-member"),
    ],
)
def test_what_cannot_be_meant_is_refused(shop: World, argv: tuple[str, ...], said: str) -> None:
    before = shop.config.read_text()
    assert shop.run("group", *argv) == 2
    assert said in shop.err
    assert shop.config.read_text() == before


def test_a_member_without_a_name_is_refused(shop: World) -> None:
    before = shop.config.read_text()
    assert shop.run("group", "add", "new", "--member", "=x") == 1
    assert "expected each member as a table with an agent" in shop.err
    assert shop.config.read_text() == before


def test_agents_are_shown_with_their_groups(shop: World) -> None:
    shop.run("list", "--long")
    assert shop.out.count("groups: shop") == 2
    shop.run("describe", "infra")
    assert "groups            shop" in shop.out


def test_a_removed_agent_stays_a_member_that_is_missing(shop: World) -> None:
    assert shop.run("remove", "infra") == 0
    assert "Group 'shop' still has it as a member." in shop.err
    shop.run("doctor")
    assert "warn  group shop: its member infra is not configured" in shop.out
    assert "fix: agent-dispatch group update shop --remove-member infra" in shop.out
    assert shop.run("group", "update", "shop", "--remove-member", "infra") == 0
    shop.run("doctor")
    assert "group shop" not in shop.out


def test_a_broken_group_fails_doctor_and_can_be_removed(shop: World) -> None:
    shop.config.write_text(shop.config.read_text() + "\n[groups.bad]\nmembers = 3\n")
    assert shop.run("doctor") == 1
    assert "FAIL  group bad: members: expected an array" in shop.out.replace("fail", "FAIL")
    assert shop.run("group", "update", "bad", "--description", "x") == 1
    assert "Group 'bad' is not usable" in shop.err
    shop.run("group", "list")
    assert "bad " in shop.out
    assert shop.run("group", "remove", "bad") == 0


def test_a_task_names_its_group(shop: World) -> None:
    assert shop.run("run", "infra", "look", "--group", "shop") == 0
    [request] = shop.service.requests
    assert request.group == "shop"
