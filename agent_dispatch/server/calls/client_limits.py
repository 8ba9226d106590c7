"""How long clients wait for the answer to a tool call before they give it up.

A client with a short limit gets an answer before the limit, and the job goes on in the background.
The names are those in `clientInfo.name`. The limits are from the clients' sources and issue
trackers, collected in November 2026, minus some seconds for transport.
"""

from typing import NamedTuple


class _Row(NamedTuple):
    prefix: str
    """Of `clientInfo.name`, in lower case; the longest match counts."""
    patience_s: float
    source: str


_ROWS = (
    # Claude Desktop, also its Code tab: 60 s (or 240 s), not settable.
    _Row("claude-ai", 50, "anthropics/claude-code#22542, #63379, #65643, #58687"),
    _Row("claude desktop", 50, "as claude-ai"),
    _Row("claude-desktop", 50, "as claude-ai"),
    # 60 s; sends no cancel notice at its limit.
    _Row("zed", 50, "zed-industries/zed context_server/src/client.rs"),
    # 60 s, settable.
    _Row("opencode", 50, "sst/opencode#14501, #32477, #8212"),
    # 60-120 s reported.
    _Row("github-copilot-developer", 50, "github/copilot-cli#172, #1535, #2538"),
    _Row("github copilot cli", 50, "as github-copilot-developer"),
    _Row("github-copilot-cli", 50, "as github-copilot-developer"),
    _Row("copilot", 50, "as github-copilot-developer"),
    # Short, not settable.
    _Row("jetbrains", 25, "microsoft/copilot-intellij-feedback#1935"),
    _Row("github copilot for jetbrains", 25, "as jetbrains"),
    _Row("github-copilot-intellij", 25, "as jetbrains"),
    _Row("copilot-intellij", 25, "as jetbrains"),
    # 180 s.
    _Row("antigravity", 150, "google/antigravity-cli#780"),
    # 5 min (2025-08), later none.
    _Row("visual studio code", 240, "microsoft/vscode#261734, #274094"),
    _Row("visual-studio-code", 240, "as visual studio code"),
    _Row("vscode", 240, "as visual studio code"),
    _Row("code - oss", 240, "as visual studio code"),
    # 5 min (2025-08).
    _Row("cursor", 240, "cursor/cursor#3510"),
    # 300 s.
    _Row("codex", 240, "openai/codex codex-rs/rmcp-client/src/rmcp_client.rs"),
    # 10 min.
    _Row("gemini", 540, "google-gemini/gemini-cli packages/core/src/tools/mcp-client.ts"),
)
"""Claude Code has no limit (measured with 2.1.332). Unknown clients count as having none."""


def patience_s(setting: float, client: str) -> float | None:
    """Return within how many seconds of its arrival a call must be answered; None for no limit.

    Args:
        setting: `patience_seconds`; 0 for the client's known limit, negative for no limit.
        client: The name of the client; empty if it gave none.
    """
    if setting:
        return setting if setting > 0 else None
    name = client.strip().lower()
    rows = [row for row in _ROWS if name.startswith(row.prefix)]
    return max(rows, key=lambda row: len(row.prefix)).patience_s if rows else None
