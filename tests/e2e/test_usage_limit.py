"""The limit of a subscription, as the API tells it in headers; the token is no credential."""

import time

import pytest
import trio

from tests.e2e.messages_api import ApiError, ApiRequest, MessagesApi, Reply, Text, answer
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


@pytest.fixture
def subscriber(world: World) -> World:
    """A world whose CLI believes that it has a subscription; only the stand-in sees its token."""
    del world.environ["ANTHROPIC_API_KEY"]
    world.environ["CLAUDE_CODE_OAUTH_TOKEN"] = "not-a-token-only-for-the-loopback"
    return world


def limited(resets_at: int) -> ApiError:
    return ApiError(status=429, message="limit", headers=unified("rejected", resets_at, "1.0"))


def unified(status: str, resets_at: int, used: str) -> dict[str, str]:
    prefix = "anthropic-ratelimit-unified"
    return {
        f"{prefix}-status": status,
        f"{prefix}-reset": str(resets_at),
        f"{prefix}-representative-claim": "five_hour",
        f"{prefix}-5h-status": status,
        f"{prefix}-5h-reset": str(resets_at),
        f"{prefix}-5h-utilization": used,
        f"{prefix}-7d-status": "allowed",
        f"{prefix}-7d-reset": str(resets_at + 86_400),
        f"{prefix}-7d-utilization": "0.3",
    }


async def test_a_usage_limit_carries_the_time_of_its_reset(
    subscriber: World, api: MessagesApi
) -> None:
    await subscriber.add_agent("infra")
    resets_at = int(time.time()) + 3600
    api.decide = lambda _request: limited(resets_at)
    with trio.fail_after(60):
        done = await subscriber.product("run", "infra", "list the pods", "--json")
    result = done.json()
    assert (done.exit_code, result["error_type"]) == (1, "usage_limit")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(resets_at))
    assert result["resets_at"] == moment
    # No retry: the limit is the account's.
    assert len(api.requests) == 1


async def test_a_held_job_goes_on_by_itself_when_the_limit_has_reset(
    subscriber: World, api: MessagesApi
) -> None:
    await subscriber.add_agent("infra")
    config = subscriber.home / ".config" / "agent-dispatch" / "agents.toml"
    config.write_text(f"{config.read_text()}\n[settings]\nhold_at_usage_limit = true\n")
    resets_at = int(time.time()) + 20

    def decide(request: ApiRequest) -> Reply:
        return limited(resets_at) if time.time() < resets_at else answer("four pods")

    api.decide = decide
    with trio.fail_after(120):
        submitted = await subscriber.product("run", "infra", "count the pods", "--background")
        job_id = submitted.stdout.split()[-1]
        while True:
            job = (await subscriber.product("job", job_id, "--json")).json()
            assert job["status"] in ("pending", "running"), job
            if "held_until" in job:
                break
        assert job["held_until"] == resets_at
        assert subscriber.alive() != {}
        done = (await subscriber.product("wait", job_id, "--json", "--timeout-seconds=60")).json()
    assert (done["status"], done["result"]["result"]) == ("done", "four pods")
    assert "held_until" not in done
    # The session that goes on knows what it was asked.
    assert "count the pods" in str(api.requests[-1].body["messages"])
    rows = (await subscriber.product("stats", "--json")).json()
    assert [(row["agent"], row["runs"], row["failed"]) for row in rows] == [("infra", 1, 0)]


async def test_the_share_of_the_limit_in_use_is_known_after_any_run(
    subscriber: World, api: MessagesApi
) -> None:
    await subscriber.add_agent("infra")
    resets_at = int(time.time()) + 3600
    headers = unified("allowed_warning", resets_at, "0.92")
    api.decide = lambda _request: Text(text="four pods", headers=headers)
    with trio.fail_after(60):
        done = await subscriber.product("run", "infra", "count the pods")
        shown = await subscriber.product("stats")
    assert done.exit_code == 0
    assert "92% of the limit five_hour in use" in shown.stdout
    assert "30% of the limit seven_day in use" in shown.stdout
