"""What to do about a run, in words: the exact calls and commands that mend or continue it."""

import re
import shlex

from agent_dispatch.core.call_timeout import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from agent_dispatch.model.config import EffectiveAgent

_CONTINUE = "Continue where you left off"
_MAX_COMMAND_RULES = 5
_PLAIN_COMMAND = re.compile(r"[A-Za-z0-9_./:=@%+~-]+( [A-Za-z0-9_./:=@%+~-]+)*")


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
        f" for good: agent-dispatch update {agent.name} --timeout {longer}. For long work use"
        " dispatch_async, which does not keep you waiting."
    )


def raise_budget(agent: EffectiveAgent, cap_usd: float) -> str:
    """Say how to raise the cap."""
    higher = amount(2 * cap_usd)
    return (
        f"Or raise the cap: agent-dispatch update {agent.name} --max-budget-usd {higher}"
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


def grant(agent: EffectiveAgent, denied: tuple[str, ...], commands: tuple[str, ...] = ()) -> str:
    """Say what grants the denied tools and no more, beside what is granted already.

    Args:
        agent: Whose permissions they lacked.
        denied: The tools, one for each call.
        commands: What the denied calls of Bash would have run.

    Where another grant would change nothing, because a rule or the mode denies, that is said.
    """
    names = tuple(dict.fromkeys(denied))
    forbidden = [name for name in names if _rules_for(name, agent.disallowed_tools)]
    granted = [name for name in names if name in (agent.allowed_tools or ())]
    missing = [name for name in names if name not in forbidden and name not in granted]
    advice = []
    if agent.permission_mode == "plan":
        # Measured with Claude Code 2.1.330: a grant changes nothing there.
        advice.append(
            "Its permission mode, plan, denies what changes anything, whatever is granted. To leave"
            f" it: agent-dispatch update {agent.name} --permission-mode manual"
            f' or update_agent(name="{agent.name}", permission_mode="manual").'
        )
    if missing:
        advice.append(_grant_missing(agent, missing, commands))
    for name in forbidden:
        rules = _rules_for(name, agent.disallowed_tools)
        kept = [rule for rule in agent.disallowed_tools or () if rule not in rules]
        advice.append(
            f"{name} is denied by its own disallowed_tools ({', '.join(rules)}). To lift that:"
            f" {_update(agent, 'disallowed_tools', kept)}"
        )
    if already := [name for name in granted if name not in forbidden]:
        mode = agent.permission_mode or "default"
        advice.append(
            f"{', '.join(already)} is granted already: it was denied by the permission mode"
            f" ({mode}), by a rule in the project's .claude/settings.json, or because it reached"
            f" outside {agent.directory}. See: agent-dispatch describe {agent.name}"
        )
    return " ".join(advice)


def _grant_missing(agent: EffectiveAgent, missing: list[str], commands: tuple[str, ...]) -> str:
    narrow = _command_rules(agent, commands) if "Bash" in missing else []
    rules = [rule for name in missing for rule in (narrow if name == "Bash" and narrow else [name])]
    advice = f"To grant: {_update(agent, 'allowed_tools', [*(agent.allowed_tools or ()), *rules])}"
    if narrow:
        advice += " (a rule such as Bash(git log:*) grants a command with any arguments)"
    elif "Bash" in missing:
        advice += " (a rule such as Bash(git log:*) instead of Bash grants less)"
    return advice + "."


def _command_rules(agent: EffectiveAgent, commands: tuple[str, ...]) -> list[str]:
    """Return rules for exactly these commands, or none where such rules would not do.

    Claude Code takes `Bash(COMMAND)` for that command and no other (measured with 2.1.330). Of a
    command with quotes, brackets or operators it makes several, or other ones.
    """
    rules = [f"Bash({command})" for command in commands]
    usable = (
        0 < len(rules) <= _MAX_COMMAND_RULES
        and all(_PLAIN_COMMAND.fullmatch(command) for command in commands)
        # Where such a rule is there already, it was of no help.
        and not set(rules) & set(agent.allowed_tools or ())
    )
    return rules if usable else []


def _update(agent: EffectiveAgent, key: str, rules: list[str]) -> str:
    """Return the update of one list of tools, for a shell and as a tool call."""
    value = ",".join(rules) or "none"
    shell = shlex.quote(value) if any(c in value for c in '"$`\\!') else f'"{value}"'
    call = value.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"agent-dispatch update {agent.name} --{key.replace('_', '-')} {shell}"
        f' or update_agent(name="{agent.name}", {key}="{call}")'
    )


def _rules_for(tool: str, rules: tuple[str, ...] | None) -> list[str]:
    """Return the rules that are about `tool`, with or without a pattern."""
    return [rule for rule in rules or () if rule.partition("(")[0] == tool]
