"""The tool calls of a turn that were denied, gathered from three kinds of events."""

import msgspec

from agent_dispatch.core.stream.events import (
    PermissionDenial,
    SystemEvent,
    ToolInput,
    ToolResultMeta,
    UserEvent,
)
from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.core.stream.seen import Denial
from agent_dispatch.model.question import Verdict

_MAX_CALLS = 1000
_MAX_INPUT_CHARS = 300
"""Kept of a call's input."""
_MAX_RULE_CHARS = 1000
"""Kept of a command, a path or an address; longer ones are not proposed as rules."""
_MAX_WORD_CHARS = 200


class DeniedCalls:
    """Collects denied calls by their ids; each event adds a part of what is known.

    `permission_denied` gives the reason while the run goes on, the metadata of a call's result
    says who decided, and only the `result` event has the call's input.
    """

    def __init__(self) -> None:
        self._denials: dict[str, Denial] = {}
        self._rejections: dict[str, ToolResultMeta] = {}
        self._verdicts: dict[str, Verdict] = {}

    def denials(self) -> tuple[Denial, ...]:
        """Return the denied calls, in order."""
        return tuple(self._completed(*denial) for denial in self._denials.items())

    def add_live(self, tool: str, event: SystemEvent) -> None:
        """Take in a `permission_denied` event."""
        call_id = event.tool_use_id or f"unnamed {len(self._denials)}"
        if len(self._denials) < _MAX_CALLS:
            denial = Denial(
                tool=tool,
                reason_type=(event.decision_reason_type or "")[:_MAX_WORD_CHARS],
                message=one_line(event.message or ""),
                explained=True,
            )
            self._denials.setdefault(call_id, denial)

    def add_from_result(self, denied: PermissionDenial) -> None:
        """Take in one of `permission_denials` of a result."""
        call_id = denied.tool_use_id or f"unnamed {len(self._denials)}"
        denial = self._denials.get(call_id) or Denial(tool=denied.tool_name)
        if denial.tool and (call_id in self._denials or len(self._denials) < _MAX_CALLS):
            call_input = _read_input(denied.tool_input)
            path = call_input.file_path or call_input.notebook_path or call_input.path
            self._denials[call_id] = msgspec.structs.replace(
                denial,
                input=_compact(denied.tool_input),
                command=call_input.command[: _MAX_RULE_CHARS + 1],
                path=path[: _MAX_RULE_CHARS + 1],
                url=call_input.url[: _MAX_RULE_CHARS + 1],
            )

    def add_user(self, event: UserEvent) -> None:
        """Take in the metadata of tool results that say how a call was rejected."""
        for meta in event.tool_result_meta:
            decision = meta.permission_decision
            rejected = decision is not None and decision.decision == "reject"
            if rejected and meta.id and len(self._rejections) < _MAX_CALLS:
                self._rejections[meta.id] = meta

    def add_verdict(self, call_id: str, verdict: Verdict) -> None:
        """Note how the question whether a call may be made was settled."""
        if len(self._verdicts) < _MAX_CALLS:
            self._verdicts[call_id] = verdict

    def _completed(self, call_id: str, denial: Denial) -> Denial:
        """Add the verdict and the metadata to a denial."""
        denial = msgspec.structs.replace(denial, verdict=self._verdicts.get(call_id))
        meta = self._rejections.get(call_id)
        if meta is None or meta.permission_decision is None:
            return denial
        return msgspec.structs.replace(
            denial,
            reason_type=denial.reason_type
            or meta.permission_decision.reason_type[:_MAX_WORD_CHARS],
            source=meta.permission_decision.source[:_MAX_WORD_CHARS],
            kind=meta.non_execution_kind[:_MAX_WORD_CHARS],
            explained=True,
        )


def _read_input(text: str) -> ToolInput:
    """Read the input of a call; nothing of it is known if one field has an unexpected type."""
    try:
        return msgspec.json.decode(text, type=ToolInput)
    except (ValueError, RecursionError):
        return ToolInput()


def _compact(text: str) -> str:
    """Return JSON without white space between its parts, cut."""
    try:
        text = msgspec.json.format(text, indent=-1)
    except (ValueError, RecursionError):
        text = " ".join(text[: 4 * _MAX_INPUT_CHARS].split())
    return text[:_MAX_INPUT_CHARS]
