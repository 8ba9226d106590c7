"""A process that gives one job to an agent, prints the job's id, and waits to be killed."""

import sys

from agent_dispatch.claude.fork_server import start_fork_server
from agent_dispatch.worker import ENTRIES

fork_server = start_fork_server(ENTRIES)

import json  # noqa: E402
import os  # noqa: E402

import trio  # noqa: E402

from agent_dispatch.model.dialogue import DialogueRequest  # noqa: E402
from agent_dispatch.model.dispatch import DispatchRequest, Progress  # noqa: E402
from agent_dispatch.run.open_service import open_service  # noqa: E402


def say(job_id: str) -> None:
    os.write(1, f"{job_id}\n".encode())


def say_id(progress: Progress) -> None:
    if progress.job_id is not None:
        say(progress.job_id)


async def main() -> None:
    kind, claude = sys.argv[1], json.loads(sys.argv[2])
    async with open_service(environ=os.environ, fork_server=fork_server, claude=claude) as service:
        if kind == "dialogue":
            talk = DialogueRequest(requester="backend", responder="db", topic="go")
            await service.dialogue(talk, say_id)
        request = DispatchRequest(agent="infra", task="go")
        if kind == "background":
            say((await service.submit(request)).id)
            await trio.sleep_forever()
        await service.dispatch(request, say_id)


trio.run(main)
