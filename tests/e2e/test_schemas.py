"""A JSON Schema is one that the real CLI takes, or a wrong call."""

import json
from typing import Any

import pytest
import trio

from tests.core.test_json_schema import LEFT_TO_THE_CLI, REFUSED, TAKEN
from tests.e2e.messages_api import ApiRequest, MessagesApi, Reply, answer, call
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def gives_count(request: ApiRequest) -> Reply:
    return answer("four") if request.tool_results else call("StructuredOutput", count=4)


async def test_a_dialect_that_differs_by_its_name_only_works(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    api.decide = gives_count
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **COUNT}
    with trio.fail_after(40):
        async with world.serving() as client:
            result = await client.call("dispatch", agent="infra", task="go", json_schema=schema)
    assert result["success"], result
    assert result["parsed_result"] == {"count": 4}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft-04"),
        ({"type": "objekt"}, "/type"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}}, "#/$defs/a"),
    ],
)
async def test_any_other_schema_is_a_wrong_call_of_which_no_job_is_made(
    world: World, api: MessagesApi, schema: dict[str, Any], fault: str
) -> None:
    await world.add_agent("infra")
    (world.home / "schema.json").write_text(json.dumps(schema))
    command = ("run", "infra", "go", "--json-schema", "schema.json")
    asked = {"agent": "infra", "task": "go", "json_schema": schema}
    with trio.fail_after(60):
        for more in ((), ("--background",)):
            done = await world.product(*command, *more)
            assert done.exit_code == 2, done
            assert fault in done.stderr
        async with world.serving() as client:
            for tool in ("dispatch", "dispatch_async", "dispatch_session", "dispatch_stream"):
                assert fault in (await client.call(tool, **asked))["error"]
            several = await client.call("dispatch_parallel", dispatches=[asked])
            assert fault in several["error"]
        jobs = await world.product("jobs", "--json")
    assert jobs.json() == []
    assert api.requests == []


async def test_the_cli_agrees_on_each_schema(world: World, api: MessagesApi) -> None:
    # Without a prompt the CLI ends as soon as it has compiled the schema.
    limit = trio.CapacityLimiter(2)
    verdicts: dict[str, bool] = {}

    async def ask(schema: str) -> None:
        async with limit:
            options = (
                "-p",
                "--output-format=stream-json",
                "--verbose",
                "--input-format=stream-json",
            )
            done = await world.claude(*options, f"--json-schema={schema}")
            verdicts[schema] = "is not a valid JSON Schema" not in done.stderr

    # Each resolves its references within itself, so those without an id are taken as one.
    within = {
        str(number): {"$id": f"https://taken.test/{number}", **schema}
        for number, schema in enumerate(TAKEN)
        if "$id" not in schema
    }
    named = [schema for schema in TAKEN if "$id" in schema]
    taken = {json.dumps(schema) for schema in [{"properties": within}, *named]}
    refused = {json.dumps(schema) for schema in [s for s, _ in REFUSED] + LEFT_TO_THE_CLI}
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for schema in taken | refused:
                nursery.start_soon(ask, schema)
    assert {schema for schema, fine in verdicts.items() if not fine} == refused


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": {"a": {"pattern": "(?P<x>a)"}}}, "Invalid regular expression"),
        ({"additionalItems": False}, "additionalItems"),
    ],
)
async def test_a_schema_that_only_the_cli_refuses_is_told_in_its_words(
    world: World, api: MessagesApi, schema: dict[str, Any], fault: str
) -> None:
    await world.add_agent("infra")
    with trio.fail_after(40):
        async with world.serving() as client:
            result = await client.call("dispatch", agent="infra", task="go", json_schema=schema)
    assert result["error_type"] == "schema", result
    assert fault in result["error"]
    assert api.requests == []
