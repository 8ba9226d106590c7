"""The real CLI as the agent of another machine: another home, behind a relay that keeps nothing."""

import sys

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


async def test_the_real_cli_answers_from_another_machine(world: World, api: MessagesApi) -> None:
    api.decide = script(
        ("Which experiments", answer("number seven")), ("And the last", answer("number six"))
    )
    there = world.root / "there"
    program = there / ".local" / "bin" / "agent-dispatch"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m agent_dispatch "$@"\n')
    program.chmod(0o755)
    (there / "proj").mkdir()
    environ = {**world.environ, "HOME": str(there)}
    relay = ["env", "-i", *(f"{name}={value}" for name, value in environ.items())]
    with trio.fail_after(120):
        added = await world.product("hosts", "add", "gpu", "--exec", "--", *relay)
        assert added.exit_code == 0, added
        added = await world.product("add", "train", "gpu:~/proj", "--json")
        assert added.json()["directory"] == str(there / "proj"), added

        doctor = await world.product("doctor", "--host", "gpu", "--json")
        assert doctor.exit_code == 0, doctor
        checks = {check["name"]: check["status"] for check in doctor.json()["checks"]}
        assert checks["claude"] == checks["login"] == "ok"

        async with world.serving() as client:
            first = await client.call("dispatch", agent="train", task="Which experiments run?")
            assert (first["success"], first["result"]) == (True, "number seven")
            assert first["job_id"].endswith("@gpu")
            again = await client.call("dispatch", agent="train", task="Which experiments run?")
            assert (again["cached"], again["result"]) == (True, "number seven")
            fetched = await client.call("fetch_result", ref=first["job_id"])
            assert fetched["result"] == "number seven"

            submitted = await client.call("dispatch_async", agent="train", task="And the last one?")
            waited = await client.call("dispatch_wait", job_id=submitted["job_id"])
            assert (waited["status"], waited["id"]) == ("done", submitted["job_id"])
            assert waited["result"]["result"] == "number six"
            rows = await client.call("dispatch_jobs")
            assert submitted["job_id"] in {row["id"] for row in rows}
            details = await client.call("inspect_agent", name="train")
            assert (details["host"], details["directory"]) == ("gpu", str(there / "proj"))
    await world.nothing_left(within_s=10)
