"""How long clients wait for the answer to a tool call before they give it up.

A client with a short limit gets an answer before the limit, and the job goes on in the background.
The names are those in `clientInfo.name`. The limits are from the clients' sources and issue
trackers, collected in November 2026, minus some seconds for transport.
"""

from collections.abc import Mapping

_PATIENCE_S: Mapping[str, float] = {
    # Claude Desktop, also its Code tab: 60 s (or 240 s), not settable.
    # anthropics/claude-code#22542, #63379, #65643, #58687
    "claude-ai": 50,
    "claude desktop": 50,
    "claude-desktop": 50,
    # 60 s; sends no cancel notice at its limit. zed-industries/zed context_server/src/client.rs
    "zed": 50,
    # 60 s, settable. sst/opencode#14501, #32477, #8212
    "opencode": 50,
    # 60-120 s reported. github/copilot-cli#172, #1535, #2538
    "github-copilot-developer": 50,
    "github copilot cli": 50,
    "github-copilot-cli": 50,
    "copilot": 50,
    # Short, not settable. microsoft/copilot-intellij-feedback#1935
    "jetbrains": 25,
    "github copilot for jetbrains": 25,
    "github-copilot-intellij": 25,
    "copilot-intellij": 25,
    # 180 s. google/antigravity-cli#780
    "antigravity": 150,
    # 5 min (2025-08), later none. microsoft/vscode#261734, #274094
    "visual studio code": 240,
    "visual-studio-code": 240,
    "vscode": 240,
    "code - oss": 240,
    # 5 min (2025-08). cursor/cursor#3510
    "cursor": 240,
    # 300 s. openai/codex codex-rs/rmcp-client/src/rmcp_client.rs
    "codex": 240,
    # 10 min. google-gemini/gemini-cli packages/core/src/tools/mcp-client.ts
    "gemini": 540,
}
"""By the beginning of the name in lower case; the longest that fits counts.

Claude Code has no limit (measured with 2.1.332). Unknown clients count as having none.
"""


def patience_s(setting: float, client: str) -> float | None:
    """Return within how many seconds of its arrival a call must be answered; None for no limit.

    Args:
        setting: `patience_seconds`; 0 for the client's known limit, negative for no limit.
        client: The name of the client; empty if it gave none.
    """
    if setting:
        return setting if setting > 0 else None
    name = client.strip().lower()
    beginnings = filter(name.startswith, _PATIENCE_S)
    longest = max(beginnings, key=len, default=None)
    return None if longest is None else _PATIENCE_S[longest]
