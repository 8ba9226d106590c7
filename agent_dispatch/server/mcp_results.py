"""Answers in the form of the MCP library: results of calls, and results as resources."""

import re
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.envelope import Envelope, encode
from agent_dispatch.server.stdio.front_door import HANDSHAKE_VERSIONS
from agent_dispatch.server.tools.jobs import whole_result

WARNINGS = "agent-dispatch/warnings"
"""The key of the warnings in `_meta` of a result."""

_URI = "dispatch://result/"
_RESULT_URI = re.compile(re.escape(_URI) + r"([0-9a-f]{32}(?:@[A-Za-z0-9_.-]+)?)")
_JSON = "application/json"
_RETIRED_NOT_FOUND = -32002
"""An unknown resource in the revisions that begin with `initialize`; later ones say -32602."""
_FIRST_WITH_LINKS = "2025-06-18"
"""Clients of older revisions refuse content of a type that they do not know."""

TEMPLATE = types.ResourceTemplate(
    uri_template=_URI + "{ref}",
    name="result",
    title="Result of a dispatch",
    description="The whole DispatchResult of a ref or job_id",
    mime_type=_JSON,
)


def call_result(envelope: Envelope, version: str) -> types.CallToolResult:
    """Return the result of a call, for a revision of the protocol."""
    content: list[types.ContentBlock] = [types.TextContent(text=envelope.text)]
    if (ref := envelope.ref) is not None and version >= _FIRST_WITH_LINKS:
        link = types.ResourceLink(uri=_URI + ref, name=f"result {ref}", mime_type=_JSON)
        content.append(link)
    return types.CallToolResult(
        _meta={WARNINGS: list(envelope.warnings)} if envelope.warnings else None,
        content=content,
        structured_content=envelope.structured,
        is_error=envelope.is_error,
    )


def as_wire(result: types.CallToolResult, version: str) -> dict[str, Any]:
    """Return a result as it is on the wire, where the library does not encode it."""
    fields: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    if version in HANDSHAKE_VERSIONS:
        fields.pop("resultType", None)
    return fields


async def read_result(
    service: Service | DispatchError, uri: str, *, modern: bool
) -> types.ReadResourceResult:
    """Read the whole result of a job as a resource.

    Raises:
        MCPError: There is no such resource, or it cannot be read.
    """
    if isinstance(service, DispatchError):
        raise MCPError(types.INTERNAL_ERROR, str(service), {"uri": uri})
    not_found = types.INVALID_PARAMS if modern else _RETIRED_NOT_FOUND
    match = _RESULT_URI.fullmatch(uri)
    if match is None:
        message = f"Unknown resource. The resources are {TEMPLATE.uri_template}"
        raise MCPError(not_found, message, {"uri": uri})
    try:
        result = await whole_result(service, match[1])
    except DispatchError as error:
        code = not_found if isinstance(error, UnknownJobError) else types.INTERNAL_ERROR
        raise MCPError(code, str(error), {"uri": uri}) from error
    _, text = encode(result)
    contents = types.TextResourceContents(uri=uri, text=text, mime_type=_JSON)
    return types.ReadResourceResult(contents=[contents])
