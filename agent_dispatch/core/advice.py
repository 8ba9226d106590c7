"""What to do about a run, in words: the exact calls and commands that mend or continue it."""

import shlex

from agent_dispatch.core.call_timeout import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from agent_dispatch.model.config import EffectiveAgent

_CONTINUE = "Continue where you left off"


def resume(agent: EffectiveAgent, session_id: str | None) -> str:
    """Say how to continue the session, or that there is none."""
    if session_id is None:
        return "No session had begun, so there is none to resume."
    return (
        f'Its session is kept. Resume it: dispatch_session(agent="{agent.name}",'
        f' task="{_CONTINUE}", session_id="{session_id}"), or by hand:'
        f" `cd {shlex.quote(agent.directory)} && claude --resume {session_id}`."
    )


def more_time(agent: EffectiveAgent, timeout_s: float) -> str:
    """Say how to give the task more time."""
    longer = min(MAX_TIMEOUT_S, max(MIN_TIMEOUT_S, round(2 * timeout_s)))
    return (
        f"Or give it longer: timeout_seconds={longer} for one call (at most {MAX_TIMEOUT_S}), or"
        f" for good: agent-dispatch update {shlex.quote(agent.name)} --timeout"
        f" {longer}. For long work use"
        " dispatch_async, which does not keep you waiting."
    )


def raise_budget(agent: EffectiveAgent, cap_usd: float) -> str:
    """Say how to raise the cap."""
    higher = amount(2 * cap_usd)
    return (
        f"Or raise the cap: agent-dispatch update {shlex.quote(agent.name)}"
        f" --max-budget-usd {higher}"
        f' or update_agent(name="{agent.name}", max_budget_usd={higher}).'
    )


def amount(usd: float) -> str:
    """Return US dollars as digits, without an exponent."""
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def where_hooks_are(agent: EffectiveAgent) -> str:
    """Say where to look for a hook that got in the way."""
    return (
        f"Look at `hooks` in {agent.directory}/.claude/settings.json, in settings.local.json beside"
        " it, in ~/.claude/settings.json, and in the plugins."
    )


def log_in() -> str:
    """Say how to give Claude Code an account."""
    return (
        "Log in with `claude auth login` (or `claude`, then /login), or set ANTHROPIC_API_KEY or,"
        " from `claude setup-token`, CLAUDE_CODE_OAUTH_TOKEN where agent-dispatch is started."
        " Check with: agent-dispatch doctor"
    )
