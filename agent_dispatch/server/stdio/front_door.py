"""The front door: answers the first requests of a client before anything heavy is loaded.

The first requests ask who we are and which tools there are. The answers are the same for every
client, and lie in a table that ships with the package (`front_door_table` makes it). The door
decides which messages may be answered from it, and leaves all others to the MCP library.

It also keeps the protocol era of the connection. `initialize` fixes the era, and so does any
request that goes to the library. A probe, a refused version or a list does not: clients probe first
and then fall back to `initialize`, which the library alone would refuse.

Standard library only, and little of it: a session that never calls a tool loads nothing else.
"""

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TABLE = os.path.join(os.path.dirname(__file__), "front_door.tsv")

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""The revisions that begin with `initialize`, oldest first; an unknown one gets the newest."""
MODERN_VERSION = "2026-07-28"
"""The revision in which every request names its version, client and capabilities."""
META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
UNSUPPORTED_VERSION = -32022
INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32600, -32601, -32602
INTERNAL_ERROR = -32603
DISCOVER = "server/discover"
LISTS = ("tools/list", "resources/list", "resources/templates/list")

_MAX_OWN_BYTES = 1 << 20
"""The messages that the door answers have a few hundred bytes."""
_MAX_ID = 2**53
_MEANINGLESS_WITHOUT_CALLS = ("notifications/cancelled", "notifications/roots/list_changed")
_LEGACY, _MODERN = "legacy", "modern"


def table_key(version: str, method: str) -> str:
    """Return the key of a row; the rows of the newest handshake revision serve all of them."""
    return f"{version} {method}"


def read_table() -> "dict[str, bytes]":
    """Read the table: each line has a key, a tab, and a result as JSON, which is not parsed."""
    with open(TABLE, "rb") as file:
        rows = (line.split(b"\t", 1) for line in file.read().splitlines())
        return {key.decode(): result for key, result in rows}


class FrontDoor:
    """One client's protocol era, and the answers that need no library."""

    def __init__(self, table: "Mapping[str, bytes]") -> None:
        """Answer from `table`, which `read_table` returns."""
        self._table = table
        self._era = ""
        self.serves_alone = True
        """The library does not serve yet, so no call is under way."""
        self.handshake: list[bytes] = []
        """Lines that were answered here and that the library still needs, in order."""

    def answer(self, line: bytes) -> "bytes | None":
        """Answer one line of the client.

        Returns:
            A frame to write, empty if no answer is due. None if the library must answer.
        """
        message = _decode(line)
        if message is None:
            return None
        method, params = message["method"], message.get("params", {})
        if "id" not in message:
            return self._answer_notification(method, line)
        body = self._body(method, params, line)
        if body is None:
            self._era = self._era or (_MODERN if META_VERSION in _meta_of(params) else _LEGACY)
            return None
        return _frame(message["id"], body)

    def refuse(self, line: bytes, reason: str) -> bytes:
        """Answer a request with an internal error; other messages get no answer."""
        message = _decode(line)
        if message is None or "id" not in message:
            return b""
        return _frame(message["id"], _error(INTERNAL_ERROR, reason))

    def _answer_notification(self, method: str, line: bytes) -> "bytes | None":
        if method == "notifications/initialized" and self._era == _LEGACY and self.serves_alone:
            self.handshake.append(line)
            return b""
        return b"" if self.serves_alone and method in _MEANINGLESS_WITHOUT_CALLS else None

    def _body(self, method: str, params: "dict[str, Any]", line: bytes) -> "bytes | None":
        meta = _meta_of(params)
        if META_VERSION in meta:
            return None if self._era == _LEGACY else self._modern_body(method, params, meta)
        if self._era == _MODERN:
            return None
        if method == "initialize":
            return self._initialize(params, line)
        if method == "ping" and not params.keys() - {"_meta"}:
            return b'"result":{}'
        if method in LISTS and not params.keys() - {"_meta"}:
            return self._row(HANDSHAKE_VERSIONS[-1], method)
        if self._era == _LEGACY:
            return None
        if method == DISCOVER:
            # This code makes clients fall back to `initialize`.
            return _error(METHOD_NOT_FOUND, "Method not found", DISCOVER)
        return _error(INVALID_REQUEST, f"{method} came before initialize")

    def _modern_body(
        self, method: str, params: "dict[str, Any]", meta: "dict[str, Any]"
    ) -> "bytes | None":
        version = meta[META_VERSION]
        if not isinstance(version, str):
            return None
        if version != MODERN_VERSION:
            data = {"supported": [MODERN_VERSION], "requested": version}
            return _error(UNSUPPORTED_VERSION, "Unsupported protocol version", data)
        if META_CAPABILITIES not in meta:
            return _error(
                INVALID_PARAMS,
                f"params._meta is missing the required envelope key(s): {META_CAPABILITIES}",
            )
        if params.keys() - {"_meta"} or method not in (DISCOVER, *LISTS) or not _is_client(meta):
            return None
        return self._row(MODERN_VERSION, method)

    def _initialize(self, params: "dict[str, Any]", line: bytes) -> "bytes | None":
        wanted, client = params.get("protocolVersion"), params.get("clientInfo")
        well_formed = (
            isinstance(wanted, str)
            and _is_named(client)
            and _is_dict_of_dicts(params.get("capabilities"))
            and not params.keys() - {"protocolVersion", "clientInfo", "capabilities", "_meta"}
        )
        if self._era or not well_formed:
            return None
        self._era = _LEGACY
        self.handshake.append(line)
        version = wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
        return self._row(version, "initialize")

    def _row(self, version: str, method: str) -> "bytes | None":
        result = self._table.get(table_key(version, method))
        return None if result is None else b'"result":' + result


def _frame(request_id: object, body: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,%b}\n' % (json.dumps(request_id).encode(), body)


def _error(code: int, message: str, data: object = None) -> bytes:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return b'"error":' + json.dumps(error, separators=(",", ":")).encode()


def _decode(line: bytes) -> "dict[str, Any] | None":
    """Read a message; None if the library might understand it in another way."""
    # Python decodes an escaped half of a surrogate pair; the library refuses it.
    if len(line) > _MAX_OWN_BYTES or b"\\ud" in line or b"\\uD" in line:
        return None
    try:
        message = json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.keys() - {"jsonrpc", "id", "method", "params"}:
        return None
    if message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        return None
    if not isinstance(message.get("params", {}), dict):
        return None
    return message if _is_id(message.get("id", 0)) else None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_ID


def _meta_of(params: "dict[str, Any]") -> "dict[str, Any]":
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else {}


def _is_client(meta: "dict[str, Any]") -> bool:
    named = META_CLIENT not in meta or _is_named(meta[META_CLIENT])
    return named and _is_dict_of_dicts(meta.get(META_CAPABILITIES))


def _is_named(client: object) -> bool:
    """Whether this is a client's name and version, perhaps with other texts."""
    return (
        isinstance(client, dict)
        and {"name", "version"} <= client.keys()
        and all(isinstance(value, str) for value in client.values())
    )


def _is_dict_of_dicts(capabilities: object) -> bool:
    return isinstance(capabilities, dict) and all(
        isinstance(value, dict) for value in capabilities.values()
    )
