"""What goes wrong at the API is told as what it is, and soon."""

import time

import pytest
import trio

from tests.e2e.messages_api import ApiError, MessagesApi, bash, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("status", [400, 500, 529])
async def test_an_error_of_the_api_is_told_with_its_status(
    world: World, api: MessagesApi, status: int
) -> None:
    await world.add_agent("infra")
    # The CLI would try for minutes.
    world.environ["CLAUDE_CODE_MAX_RETRIES"] = "1"
    api.decide = script(otherwise=ApiError(status=status))
    with trio.fail_after(40):
        done = await world.product("run", "infra", "list the pods", "--json")
    result = done.json()
    assert done.exit_code == 1
    assert result["error_type"] == "cli_error"
    assert str(status) in result["error"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_login_is_told_in_seconds(
    world: World, api: MessagesApi, status: int
) -> None:
    await world.add_agent("infra")
    api.decide = script(otherwise=ApiError(status=status, message="invalid x-api-key"))
    begun = time.monotonic()
    with trio.fail_after(60):
        done = await world.product("run", "infra", "list the pods", "--json")
    # By itself the CLI tries a 401 for about three minutes.
    assert time.monotonic() - begun < 20
    result = done.json()
    assert done.exit_code == 1
    assert result["error_type"] == "auth"
    assert "bypass" not in result["error"]
    await world.nothing_left(within_s=3)


async def test_a_rate_limit_is_told_as_one(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    world.environ["CLAUDE_CODE_MAX_RETRIES"] = "1"
    api.decide = script(otherwise=ApiError(status=429, headers={"retry-after": "1"}))
    with trio.fail_after(40):
        done = await world.product("run", "infra", "list the pods", "--json")
    assert done.exit_code == 1
    assert done.json()["error_type"] == "usage_limit"


async def test_a_budget_that_is_used_up_is_told_with_its_cap(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--max-budget-usd", "0.0001")
    # A model that always wants one more tool call.
    api.decide = script(otherwise=bash("echo again"))
    with trio.fail_after(40):
        done = await world.product("run", "infra", "list the pods", "--json")
    result = done.json()
    assert done.exit_code == 1
    assert result["error_type"] == "budget"
    assert "0.0001" in result["error"]
    assert result["budget_exceeded"]
