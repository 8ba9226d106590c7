"""The tool that lets two agents talk: `dispatch_dialogue`."""

from typing import Annotated

import msgspec

from agent_dispatch.core.next_step import worded
from agent_dispatch.core.request.timeout import call_timeout_s
from agent_dispatch.model.dialogue import DEFAULT_ROUNDS, DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.dialogue import inline_dialogue
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.tool import Params, Tool


class DialogueParams(Params, frozen=True):
    """Arguments of `dispatch_dialogue`."""

    requester: Annotated[str, msgspec.Meta(description="Agent with the problem and its context")]
    responder: Annotated[
        str, msgspec.Meta(description="Another agent, with the expertise or tools; speaks first")
    ]
    topic: Annotated[str, msgspec.Meta(description="Problem or question to discuss")]
    max_rounds: Annotated[
        int, msgspec.Meta(description="Messages of each agent, at most (1-10)")
    ] = DEFAULT_ROUNDS
    timeout_seconds: Annotated[
        int,
        msgspec.Meta(description="Timeout of the whole (10-7200); 0 = that of each agent per turn"),
    ] = 0


async def dispatch_dialogue(
    service: Service, params: DialogueParams, on_progress: OnProgress
) -> DialogueResult:
    """Let two agents talk; a failed dialogue is a result too."""
    dialogue = await service.dialogue(_request(params), on_progress)
    return inline_dialogue(worded(dialogue, in_tools))


async def dispatch_dialogue_detached(
    service: Service, params: DialogueParams, on_progress: OnProgress
) -> DialogueResult:
    """Do the same as a background job."""
    dialogue = await service.dialogue_detached(_request(params), on_progress)
    return inline_dialogue(worded(dialogue, in_tools))


def _request(params: DialogueParams) -> DialogueRequest:
    return DialogueRequest(
        requester=params.requester,
        responder=params.responder,
        topic=params.topic,
        max_rounds=params.max_rounds,
        timeout_s=call_timeout_s(params.timeout_seconds),
    )


DISPATCH_DIALOGUE = Tool(
    name="dispatch_dialogue",
    title="Let two agents talk",
    description=(
        "Two agents work a topic out in turn, until one of them resolves it or the rounds are"
        " used up; each message costs about one dispatch. `final_answer` is the outcome. If"
        " `resolved` is false and there is no `error`, go on with dispatch_session and `sessions`."
    ),
    params=DialogueParams,
    run=dispatch_dialogue,
    run_detached=dispatch_dialogue_detached,
    agents_of=lambda params: [params.requester, params.responder],
    destructive=True,
    open_world=True,
    reports_progress=True,
    large_answers=True,
)
