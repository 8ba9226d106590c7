"""A dialogue is recorded as a dispatch to the responder."""

import contextlib

import msgspec

from agent_dispatch.core.outcome.evidence import merge_evidence
from agent_dispatch.model.dialogue import MAX_ROUNDS, DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.job import Job


def as_dispatch(request: DialogueRequest) -> DispatchRequest:
    """Return the request that a dialogue is recorded as: a dispatch of the topic."""
    return DispatchRequest(
        agent=request.responder,
        task=request.topic,
        caller=request.requester,
        timeout_s=request.timeout_s,
    )


def dialogue_request(job: Job) -> DialogueRequest:
    """Rebuild the request of a dialogue, for the worker that runs it."""
    requester, responder = job.agents or (job.caller, job.agent)
    return DialogueRequest(
        requester=requester,
        responder=responder,
        topic=job.task,
        max_rounds=job.max_rounds or MAX_ROUNDS,
        timeout_s=job.timeout_seconds,
    )


def dialogue_to_result(request: DialogueRequest, dialogue: DialogueResult) -> DispatchResult:
    """Return a dialogue as the result of a dispatch, with all of it in `parsed_result`."""
    denied = [tool for turn in dialogue.conversation for tool in turn.denied_tools or ()]
    calls = [call for turn in dialogue.conversation for call in turn.denied_calls or ()]
    return DispatchResult(
        agent=request.responder,
        success=dialogue.error is None,
        result=dialogue.final_answer,
        session_id=(dialogue.sessions or {}).get(request.responder),
        cost_usd=dialogue.total_cost_usd,
        duration_ms=dialogue.total_duration_ms,
        error=dialogue.error,
        error_type=dialogue.error_type,
        parsed_result=msgspec.to_builtins(msgspec.structs.replace(dialogue, next_steps=None)),
        denied_tools=list(dict.fromkeys(denied)) or None,
        denied_calls=list(dict.fromkeys(calls)) or None,
        evidence=merge_evidence(turn.evidence for turn in dialogue.conversation),
        hint=dialogue.hint,
        left_running=dialogue.left_running,
        next_steps=dialogue.next_steps,
    )


def dialogue_from_result(result: DispatchResult) -> DialogueResult:
    """Return the dialogue that `dialogue_to_result` recorded; an empty one if it never began."""
    dialogue = DialogueResult(
        resolved=False, rounds=0, total_duration_ms=0, final_answer="", conversation=[]
    )
    if result.parsed_result is not msgspec.UNSET:
        dialogue = msgspec.convert(result.parsed_result, DialogueResult)
    # These may have changed in the record.
    return msgspec.structs.replace(
        dialogue,
        job_id=result.job_id,
        error=result.error,
        error_type=result.error_type,
        hint=result.hint,
        next_steps=result.next_steps,
    )


def agent_of_session(job: Job, session_id: str) -> str | None:
    """Return the agent that had a session in a job; None if the session is not the job's."""
    wanted = session_id.lower()
    return next((name for known, name in _sessions(job).items() if known.lower() == wanted), None)


def session_of_agent(job: Job, agent: str) -> str | None:
    """Return the session of an agent in a job; None if it had none."""
    return next((known for known, name in _sessions(job).items() if name == agent), None)


def _sessions(job: Job) -> dict[str, str]:
    """Return the agent of each session of a job."""
    sessions = {job.session_id: job.agent} if job.session_id else {}
    if job.result is not None and isinstance(job.result.parsed_result, dict):
        # A result of another form is not a dialogue.
        with contextlib.suppress(msgspec.ValidationError):
            dialogue = msgspec.convert(job.result.parsed_result, DialogueResult)
            sessions |= {session_id: name for name, session_id in (dialogue.sessions or {}).items()}
    return sessions
