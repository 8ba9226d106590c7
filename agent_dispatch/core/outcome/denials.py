"""Why tool calls were denied, and what would allow them: the narrowest grant, or another change.

The signs of each reason were measured with Claude Code 2.1.330:

- no rule granted the call: `permission_denied` without a reason; mode `dontAsk` denies the same
  calls with the reason `mode`. A rule for exactly that call allows it.
- a deny rule: reason `rule` or `subcommandResults`, and the call's result has the kind
  `permission-rule`; for a path there is no event, and the source is `user_reject`.
- an ask rule: reason `rule`, kind `user-rejected`. An allow rule does not outrank it.
- a PreToolUse hook: source or reason `hook`. An allow rule does not outrank it.
- plan mode: reason `mode` for edits, `classifier` for commands.
- a path that Claude Code protects: reason `safetyCheck`, whatever is granted.
"""

import shlex
from collections.abc import Sequence
from enum import Enum, auto

from agent_dispatch.core.outcome.permission_rules import (
    hook_matches,
    least_rule,
    matching_rules,
    rules_about,
    rules_behind,
)
from agent_dispatch.core.stream.seen import Denial, Seen
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.next_step import NextStep, run
from agent_dispatch.model.question import ASK_USER, Verdict

_MAX_RULES = 5
"""Rules proposed in one grant."""
_MAX_REASONS = 10


class _Cause(Enum):
    """What denied a call."""

    NOT_GRANTED = auto()
    DENY_RULE = auto()
    ASK_RULE = auto()
    PERSON = auto()
    NOBODY = auto()
    OWN_QUESTION = auto()
    HOOK = auto()
    PLAN = auto()
    OTHER = auto()


Advice = tuple[str, NextStep | None]
"""Why calls were denied, and the change that would allow them."""


def permission_advice(
    agent: EffectiveAgent, seen: Seen, inherited: ClaudeSettings, job_id: str
) -> tuple[str, list[NextStep]]:
    """Return what denied the calls, where that is set, and the steps that would allow them.

    Args:
        inherited: Claude Code's own settings for the agent's directory, as far as known.
        job_id: The job whose questions a person can still answer.
    """
    by_cause: dict[_Cause, list[Denial]] = {}
    for denial in seen.denials:
        by_cause.setdefault(_cause(agent, denial, seen, inherited), []).append(denial)
    advice: list[Advice] = []
    for cause, denials in by_cause.items():
        match cause:
            case _Cause.NOT_GRANTED:
                advice += _not_granted(agent, denials, seen, inherited)
            case _Cause.DENY_RULE:
                advice += [_by_rule(agent, denial, inherited, "deny") for denial in denials]
            case _Cause.ASK_RULE:
                advice += [_by_rule(agent, denial, inherited, "ask") for denial in denials]
            case _Cause.PERSON:
                advice += [(f"The user denied this call of {d.tool}.", None) for d in denials]
            case _Cause.NOBODY:
                advice.append(_nobody_answered(denials, job_id))
            case _Cause.OWN_QUESTION:
                advice.append(("The agent was told to put its question into its answer.", None))
            case _Cause.HOOK:
                advice += [(_by_hook(denial, inherited), None) for denial in denials]
            case _Cause.PLAN:
                advice.append(_by_plan(agent, inherited))
            case _Cause.OTHER:
                advice += [(_by_other_check(denial), None) for denial in denials]
    distinct = list(dict.fromkeys(advice))
    texts = [text for text, _ in distinct[:_MAX_REASONS]]
    if len(distinct) > _MAX_REASONS:
        texts.append(f"{len(distinct) - _MAX_REASONS} more reasons are left out.")
    steps = dict.fromkeys(step for _, step in distinct[:_MAX_REASONS] if step is not None)
    return " ".join(filter(None, texts)), list(steps)


def _cause(agent: EffectiveAgent, denial: Denial, seen: Seen, inherited: ClaudeSettings) -> _Cause:
    if denial.verdict is not None:
        return _Cause.PERSON if denial.verdict is Verdict.DENY else _Cause.NOBODY
    if denial.tool == ASK_USER:
        return _Cause.OWN_QUESTION
    by_rule = denial.kind == "permission-rule" or denial.source == "user_reject"
    if "hook" in (denial.source, denial.reason_type):
        return _Cause.HOOK
    if denial.reason_type == "safetyCheck":
        return _Cause.OTHER
    plans = "plan" in (seen.permission_mode, agent.permission_mode)
    if plans and denial.reason_type in ("mode", "classifier", ""):
        return _Cause.PLAN
    if denial.reason_type in ("rule", "subcommandResults"):
        if by_rule:
            return _Cause.DENY_RULE
        asks = rules_behind(agent, denial, inherited, "ask", matching_only=True)
        denies = rules_behind(agent, denial, inherited, "deny", matching_only=True)
        if not denial.kind and denies:
            return _Cause.DENY_RULE
        if asks or denial.reason_type == "rule":
            return _Cause.ASK_RULE
        return _Cause.NOT_GRANTED
    if not denial.explained and rules_about(denial.tool, agent.disallowed_tools or ()):
        # Only the result reported the denial; the agent's own rule is the likely cause.
        return _Cause.DENY_RULE
    if denial.reason_type in ("", "mode", "classifier", "workingDir"):
        return _Cause.NOT_GRANTED
    return _Cause.OTHER


def _not_granted(
    agent: EffectiveAgent, denials: Sequence[Denial], seen: Seen, inherited: ClaudeSettings
) -> list[Advice]:
    granted = agent.allowed_tools or ()
    wanted: dict[str, None] = {}
    others: list[Advice] = []
    for denial in denials:
        rule = least_rule(agent, denial)
        if rule is None:
            others.append(_no_rule(agent, denial))
        elif rule in granted or denial.tool in granted:
            others.append(_granted_already(agent, denial, rule if rule in granted else denial.tool))
        else:
            wanted[rule] = None
    advice: list[Advice] = []
    mode = _mode_source(agent, inherited) if seen.permission_mode == "dontAsk" else None
    if wanted and mode is not None:
        advice.append((f"Its permission mode, dontAsk ({mode}), denies what no rule grants.", None))
    if inherited.untrusted_root is not None:
        root = inherited.untrusted_root
        text = (
            f"{root} is not trusted, so Claude Code ignored permissions.allow"
            f" ({inherited.ignored_rules} rule(s)) of its .claude/settings.json. To trust it, a"
            " person runs `claude` there and accepts the trust dialog."
        )
        advice.append((text, run(f"cd {shlex.quote(root)} && claude", agent.name)))
    if wanted:
        rules = list(wanted)[:_MAX_RULES]
        more = len(wanted) - len(rules)
        text = f"{more} more calls like these need a rule too." if more else ""
        advice.append((text, _update(agent, "--allow", rules)))
    return advice + others


def _by_rule(agent: EffectiveAgent, denial: Denial, inherited: ClaudeSettings, kind: str) -> Advice:
    own = matching_rules(denial, agent.disallowed_tools or (), agent) if kind == "deny" else []
    behind = rules_behind(agent, denial, inherited, kind)
    if kind == "deny" and not own and not behind:
        own = rules_about(denial.tool, agent.disallowed_tools or ())
    texts = []
    step = None
    if own:
        kept = [rule for rule in agent.disallowed_tools or () if rule not in own]
        texts.append(
            f"{denial.tool} is denied by the agent's own disallowed_tools ({', '.join(own)}). To"
            " lift that, a person has to change it."
        )
        step = _update(agent, "--disallowed-tools", kept)
    what = "was denied by" if kind == "deny" else "needs a person's approval by"
    for path, rules in behind:
        texts.append(
            f"{denial.tool} {what} {', '.join(rules)} in permissions.{kind} of {path}. No grant"
            " lifts that; a person can change the rule there."
        )
    if not texts:
        texts.append(
            f"{denial.tool} {what} a rule in permissions.{kind} of Claude Code's settings. No grant"
            " lifts that; `claude`, then /permissions, shows the rule to a person."
        )
    return " ".join(texts), step


def _by_hook(denial: Denial, inherited: ClaudeSettings) -> str:
    found = [
        f"{hook.action} in {file.path}"
        for file in inherited.files
        for hook in file.hooks
        if hook_matches(hook.matcher, denial.tool)
    ]
    which = f" ({'; '.join(found[:_MAX_RULES])})" if found else ""
    return (
        f"{denial.tool} was denied by a PreToolUse hook{which}. No grant lifts that; a person can"
        " change the hook" + (" there." if found else ": `claude`, then /hooks, shows it.")
    )


def _by_plan(agent: EffectiveAgent, inherited: ClaudeSettings) -> Advice:
    text = (
        f"Its permission mode, plan ({_mode_source(agent, inherited)}), denies what changes"
        " anything, whatever is granted."
    )
    return text, run(
        f"agent-dispatch update {shlex.quote(agent.name)} --permission-mode manual", agent.name
    )


def _nobody_answered(denials: Sequence[Denial], job_id: str) -> Advice:
    tools = ", ".join(dict.fromkeys(denial.tool for denial in denials))
    text = (
        f"Nobody answered in time whether {tools} may run. It can still be allowed: then the"
        " session goes on in a new job."
    )
    return text, run(f"agent-dispatch answer {job_id[-8:]} allow")


def _by_other_check(denial: Denial) -> str:
    reason = f" ({denial.reason_type})" if denial.reason_type else ""
    return (
        f"{denial.tool} was denied by a check of Claude Code{reason} that no grant lifts."
        f"{_cli_message(denial)}"
    )


def _cli_message(denial: Denial) -> str:
    return f' Claude Code said: "{denial.message}"' if denial.message else ""


def _no_rule(agent: EffectiveAgent, denial: Denial) -> Advice:
    if not denial.input:
        text = (
            f"The input of the call of {denial.tool} is not known. A rule has to name the command"
            " that is needed, such as Bash(git log:*): put it in place of RULE."
        )
        return text, _update(agent, "--allow", ["RULE"])
    text = (
        f"No rule grants just this call of {denial.tool}: its command is too long, or"
        " has a redirection, a wildcard, several lines or a key in it. Have the agent use plain"
        f" commands, and Write for files.{_cli_message(denial)}"
    )
    return text, None


def _granted_already(agent: EffectiveAgent, denial: Denial, rule: str) -> Advice:
    local = f"{agent.directory}/.claude/settings.local.json"
    text = (
        f"{rule} is granted already, so a wider grant would not help.{_cli_message(denial)} For a"
        f" path outside {agent.directory}, a person can add its folder to"
        f" permissions.additionalDirectories of {local}."
    )
    return text, run(f"agent-dispatch describe {shlex.quote(agent.name)}", agent.name)


def _mode_source(agent: EffectiveAgent, inherited: ClaudeSettings) -> str:
    if agent.permission_mode:
        return "permission_mode of the agent"
    found = inherited.default_mode()
    return f"permissions.defaultMode of {found[1]}" if found else "of Claude Code's settings"


def _update(agent: EffectiveAgent, option: str, rules: list[str]) -> NextStep:
    """Return the command that updates a list of tools; it widens rights, so a person runs it."""
    value = ",".join(rules) or "none"
    shell = shlex.quote(value) if any(c in value for c in '"$`\\!') else f'"{value}"'
    return run(
        f"agent-dispatch update {shlex.quote(agent.name)} {option} {shell}",
        agent.name,
    )
