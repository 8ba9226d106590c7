"""A ref as a resource: linked to by its answer, readable by the client itself."""

import json
from typing import Any

import mcp_types as types
import msgspec
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.job import JobKind, JobStatus, new_job
from agent_dispatch.server.mcp_server import build_server
from agent_dispatch.server.stdio.front_door import HANDSHAKE_VERSIONS
from tests.server.fake_service import JOB_ID, FakeService
from tests.server.processes import INITIALIZE, INITIALIZED, serving

OTHER_ID = "0190a7b0c1d27abc8def0123456789ff"
URI = f"dispatch://result/{JOB_ID}"
NOT_FOUND = {"auto": types.INVALID_PARAMS, "legacy": -32002}

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


def service_with(result: DispatchResult | None) -> FakeService:
    job = new_job(JOB_ID, DispatchRequest(agent="infra", task="x"), 1.5, kind=JobKind.BACKGROUND)
    status = JobStatus.RUNNING if result is None else JobStatus.DONE
    return FakeService(kept=msgspec.structs.replace(job, status=status, result=result))


@both_eras
async def test_a_ref_answer_links_to_the_result_that_can_be_read(mode: str) -> None:
    whole = DispatchResult(agent="infra", success=True, result="x" * 100_000, parsed_result=None)
    async with Client(build_server(service_with(whole)), mode=mode) as client:
        answer = await client.call_tool(
            "dispatch", {"agent": "infra", "task": "big 9", "return_ref": True}
        )
        text, link = answer.content
        assert isinstance(text, types.TextContent)
        assert isinstance(link, types.ResourceLink)
        assert link.uri == "dispatch://result/" + json.loads(text.text)["ref"] == URI
        [contents] = (await client.read_resource(link.uri)).contents
    assert isinstance(contents, types.TextResourceContents)
    assert (contents.uri, contents.mime_type) == (URI, "application/json")
    assert json.loads(contents.text) == {**msgspec.to_builtins(whole), "job_id": JOB_ID}


@both_eras
async def test_nothing_is_listed_but_one_template(mode: str) -> None:
    async with Client(build_server(FakeService()), mode=mode) as client:
        assert (await client.list_resources()).resources == []
        [template] = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "dispatch://result/{ref}"


@both_eras
@pytest.mark.parametrize(
    "uri",
    [
        f"dispatch://result/{OTHER_ID}",
        "dispatch://result/x",
        "dispatch://result/",
        URI + "/",
        URI + "\n",
        URI.upper(),
        "dispatch://result/../../etc/passwd",
        "file:///etc/passwd",
        "",
    ],
)
async def test_an_unknown_resource_is_a_protocol_error(mode: str, uri: str) -> None:
    done = DispatchResult(agent="infra", success=True, result="x")
    async with Client(build_server(service_with(done)), mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.code == NOT_FOUND[mode]
    assert caught.value.error.data == {"uri": uri}


@both_eras
async def test_the_result_of_a_running_job_cannot_be_read_yet(mode: str) -> None:
    async with Client(build_server(service_with(None)), mode=mode) as client:
        with pytest.raises(MCPError, match="is running") as caught:
            await client.read_resource(URI)
    assert caught.value.code == types.INTERNAL_ERROR


@both_eras
async def test_a_result_with_half_a_character_can_be_read(mode: str) -> None:
    half = DispatchResult(agent="infra", success=True, result="caf\udce9")
    async with Client(build_server(service_with(half)), mode=mode) as client:
        [contents] = (await client.read_resource(URI)).contents
    assert isinstance(contents, types.TextResourceContents)
    assert json.loads(contents.text)["result"] == "caf\ufffd"


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
async def test_only_clients_that_know_links_get_one(version: str) -> None:
    params: dict[str, Any] = {**INITIALIZE["params"], "protocolVersion": version}  # type: ignore[dict-item]  # a test's own
    async with serving() as server:
        await server.say({**INITIALIZE, "params": params}, INITIALIZED)
        call = server.dispatch("ref", "big 9")
        call["params"]["arguments"]["return_ref"] = True
        await server.say(call)
        content = (await server.hear_answer("ref"))["result"]["content"]
    kinds = [item["type"] for item in content]
    assert kinds == ["text", "resource_link"][: 2 if version >= "2025-06-18" else 1]
