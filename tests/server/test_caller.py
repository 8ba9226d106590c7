"""What is known of the client behind a call."""

import pytest

from agent_dispatch.server.calls.caller import Caller
from agent_dispatch.server.calls.client_limits import patience_s


@pytest.mark.parametrize(
    ("client", "seconds"),
    [
        ("claude-code", None),
        ("some-other-client", None),
        ("", None),
        ("claude-ai", 50),
        ("Claude-AI (via mcp-remote 0.1.37)", 50),
        ("Zed", 50),
        ("opencode", 50),
        ("github-copilot-developer", 50),
        ("JetBrains-IU/2026.1", 25),
        ("antigravity-client", 150),
        ("Visual Studio Code - Insiders", 240),
        ("cursor-vscode", 240),
        ("codex-mcp-client", 240),
        ("gemini-cli-mcp-client-agent-dispatch", 540),
    ],
)
def test_how_long_a_client_waits_is_known_by_its_name(client: str, seconds: float | None) -> None:
    assert patience_s(0, client) == seconds
    assert patience_s(-1, client) is None
    assert patience_s(0.5, client) == 0.5


@pytest.mark.parametrize(
    ("reason", "is_timeout"),
    [
        ("SdkError: Request timed out", True),
        ("MCP error -32001: no more time", True),
        ("REQUEST TIMED OUT", True),
        ("AbortError: user-cancel", False),
        ("", False),
        (None, False),
    ],
)
def test_the_cancel_reason_tells_a_timeout_from_a_person(
    reason: str | None, is_timeout: bool
) -> None:
    assert Caller(arrived_at=0, cancel_reason=reason).timed_out is is_timeout
