"""The answer of a tool as the protocol's result of a call."""

from typing import Any

import mcp_types as types

from agent_dispatch.server.calls.toolbox import Answer
from agent_dispatch.server.resources import link_to
from agent_dispatch.server.stdio.front_door import HANDSHAKE_VERSIONS

WARNINGS = "agent-dispatch/warnings"
"""In `_meta` of a list: what was passed over for it."""


def call_result(answer: Answer, version: str = "") -> types.CallToolResult:
    """Return the result, in the form of a revision of the protocol."""
    content: list[types.ContentBlock] = [types.TextContent(text=answer.text)]
    if answer.ref is not None:
        content += link_to(answer.ref, version)
    return types.CallToolResult(
        _meta={WARNINGS: list(answer.warnings)} if answer.warnings else None,
        content=content,
        structured_content=answer.structured,
        is_error=answer.is_error,
    )


def written(result: types.CallToolResult, version: str) -> dict[str, Any]:
    """Return a result as it is on the wire, for what the library does not write itself."""
    fields: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    if version in HANDSHAKE_VERSIONS:
        fields.pop("resultType", None)
    return fields
