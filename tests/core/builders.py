"""Events as Claude Code 2.1.330 printed them, without unread fields, and reports on runs."""

from typing import Any

import msgspec

from agent_dispatch.core.next_step import worded
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.core.stream.reader import EventDecoder
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.server.next_steps import in_tools

SESSION = "11111111-1111-4111-8111-111111111111"
RESUME = (
    f'dispatch_session(agent="infra", task="Continue where you left off", session_id="{SESSION}")'
)
"""How the MCP surface words the step of resuming that session."""


def shown(report: RunReport) -> DispatchResult:
    """The result of a run, as the MCP surface words it."""
    return worded(classify(report), in_tools)


def agent(**changes: Any) -> EffectiveAgent:
    values: dict[str, Any] = {
        "name": "infra",
        "directory": "/srv/infra",
        "description": "",
        "timeout_s": 300.0,
        "model": None,
        "max_budget_usd": None,
        "permission_mode": None,
        "allowed_tools": None,
        "disallowed_tools": None,
    }
    return EffectiveAgent(**(values | changes))


def init(**changes: Any) -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": "init",
        "session_id": SESSION,
        "mcp_servers": [],
        "model": "claude-opus-5-5",
        "permissionMode": "default",
        "claude_code_version": "2.1.330",
    } | changes


def text(words: str, **changes: Any) -> dict[str, Any]:
    block = {"type": "text", "text": words}
    return {
        "type": "assistant",
        "message": {"role": "assistant", "content": [block]},
        "parent_tool_use_id": None,
        "session_id": SESSION,
    } | changes


def tool_use(name: str, **changes: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": "toolu_2", "name": name, "input": {"command": "touch x"}}
    return text("") | {"message": {"role": "assistant", "content": [block]}} | changes


def tool_result(**changes: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": "toolu_2", "content": "", "is_error": False}
    return {
        "type": "user",
        "message": {"role": "user", "content": [block]},
        "parent_tool_use_id": None,
        "session_id": SESSION,
    } | changes


def denied(tool: str, call_id: str = "toolu_2") -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": "permission_denied",
        "tool_name": tool,
        "tool_use_id": call_id,
        "message": "needs approval",
        "session_id": SESSION,
    }


def denial(tool: str, call_id: str = "toolu_2") -> dict[str, Any]:
    return {"tool_name": tool, "tool_use_id": call_id, "tool_input": {"command": "touch x"}}


def retry(status: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 1,
        "max_retries": 10,
        "retry_delay_ms": 518,
        "error_status": status,
        "error": "overloaded",
        "session_id": SESSION,
    } | changes


def task(subtype: str, **changes: Any) -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": subtype,
        "task_id": "b5fpscfwm",
        "description": "build",
        "session_id": SESSION,
    } | changes


def tasks_now(*ids: str, **flags: Any) -> dict[str, Any]:
    listed = [{"task_id": name, "task_type": "local_bash", "description": name} for name in ids]
    return {
        "type": "system",
        "subtype": "background_tasks_changed",
        "tasks": [entry | flags for entry in listed],
        "session_id": SESSION,
    }


def result(answer: str = "ok", **changes: Any) -> dict[str, Any]:
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": answer,
        "session_id": SESSION,
        "num_turns": 1,
        "duration_ms": 141,
        "total_cost_usd": 0.5,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "permission_denials": [],
        "terminal_reason": "completed",
        "api_error_status": None,
        "model_usage_since_last_result": {"claude-opus-5-5": {"costUSD": 0.125}},
    } | changes


def failed(subtype: str, reason: str | None, *errors: str, **changes: Any) -> dict[str, Any]:
    event = result(subtype=subtype, is_error=True, terminal_reason=reason, errors=list(errors))
    del event["result"]
    return event | changes


def api_error(status: int | None, words: str, **changes: Any) -> dict[str, Any]:
    return (
        result(
            words,
            is_error=True,
            terminal_reason="api_error",
            api_error_status=status,
            model_usage_since_last_result={},
            total_cost_usd=0,
        )
        | changes
    )


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def transcript(*events: dict[str, Any], printed: bytes = b"") -> Transcript:
    """A transcript of a process that printed `events`, then `printed`, and ended."""
    decoder = EventDecoder()
    seen = Transcript()
    for event in [*decoder.feed(lines(*events) + printed), *decoder.finish()]:
        seen.add(event)
    return seen


def read(seen: Transcript, *events: dict[str, Any]) -> None:
    """Let a transcript read what its process prints next."""
    for event in EventDecoder().feed(lines(*events)):
        seen.add(event)


def report(*events: dict[str, Any], printed: bytes = b"", **facts: Any) -> RunReport:
    """A report on a run that printed `events`, then `printed`, and exited."""
    values: dict[str, Any] = {
        "agent": agent(),
        "ending": Ending.EXITED,
        "duration_ms": 5000,
        "timeout_s": 300.0,
        "exit_code": 0,
        "seen": transcript(*events, printed=printed).seen(),
    }
    return RunReport(**(values | facts))


def outcome(*events: dict[str, Any], **facts: Any) -> DispatchResult:
    """The result of a run that printed an `init`, then `events`, as the MCP surface words it."""
    return shown(report(init(), *events, **facts))


def failure(*events: dict[str, Any], **facts: Any) -> tuple[ErrorType | None, str]:
    """The error of such a run, which failed."""
    result = outcome(*events, **facts)
    assert not result.success
    assert result.error is not None
    return result.error_type, result.error
