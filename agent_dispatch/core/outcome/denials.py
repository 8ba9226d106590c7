"""Why tool calls were denied, and what lifts that: the least grant, or something else than a grant.

How the CLI tells one reason from another was measured with Claude Code 2.1.330:

- nothing granted the call: `permission_denied` without a reason; mode `dontAsk` denies the same
  calls with the reason `mode`. A rule for exactly that call lifts it.
- a deny rule: reason `rule` or `subcommandResults`, and the call's result has the kind
  `permission-rule`; for a path there is no event, and the source is `user_reject`.
- an ask rule: reason `rule`, kind `user-rejected`. An allow rule does not outrank it.
- a PreToolUse hook: source or reason `hook`. An allow rule does not outrank it.
- plan mode: reason `mode` for edits, `classifier` for commands.
- a path that Claude Code protects: reason `safetyCheck`, whatever is granted.
"""

import os.path
import re
import shlex
from collections.abc import Iterable, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from agent_dispatch.core.masking import mask
from agent_dispatch.core.stream.seen import Denial, Seen
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.next_step import NextStep, run
from agent_dispatch.model.question import ASK_USER, Verdict

_MAX_RULES = 5
"""Proposed in one grant."""
_MAX_COMMAND_CHARS = 200
_NOT_IN_A_RULE = re.compile(r"[*<>\\\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s|\s$|:$")
"""In a command: `*` is a wildcard in a rule, a redirection is not covered by one (measured)."""
_NOT_IN_A_PATH = re.compile(r"[^\w./ +@=-]")
_EDITS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
_READS = frozenset({"Glob", "Grep", "LS", "Read"})
_SEPARATORS = re.compile(r"&&|\|\||[;|&\n]")


class Cause(Enum):
    """What denied a call."""

    NOT_GRANTED = "not granted"
    DENY_RULE = "deny rule"
    ASK_RULE = "ask rule"
    PERSON = "person"
    NOBODY = "nobody answered"
    OWN_QUESTION = "own question"
    HOOK = "hook"
    PLAN = "plan"
    PROTECTED = "protected"
    OTHER = "other"


Advice = tuple[str, NextStep | None]
"""Why calls were denied, and the change that lifts that."""


def permission_advice(
    agent: EffectiveAgent, seen: Seen, inherited: ClaudeSettings, job_id: str = ""
) -> tuple[str, list[NextStep]]:
    """Return what denied the calls and where that is set, and what lifts it.

    Args:
        agent: Whose calls were denied.
        seen: What the run printed.
        inherited: Claude Code's own settings for the agent's directory, as far as they are known.
        job_id: The job whose questions a person can still answer.
    """
    by_cause: dict[Cause, list[Denial]] = {}
    for denial in seen.denials:
        by_cause.setdefault(_cause(agent, denial, seen, inherited), []).append(denial)
    said: list[Advice] = []
    for cause, denials in by_cause.items():
        match cause:
            case Cause.NOT_GRANTED:
                said += _not_granted(agent, denials, seen, inherited)
            case Cause.DENY_RULE:
                said += [_by_rule(agent, denial, inherited, "deny") for denial in denials]
            case Cause.ASK_RULE:
                said += [_by_rule(agent, denial, inherited, "ask") for denial in denials]
            case Cause.PERSON:
                said += [(f"The user denied this call of {d.tool}.", None) for d in denials]
            case Cause.NOBODY:
                said.append(_nobody_answered(denials, job_id))
            case Cause.OWN_QUESTION:
                said.append(("The agent was told to put its question into its answer.", None))
            case Cause.HOOK:
                said += [(_by_hook(denial, inherited), None) for denial in denials]
            case Cause.PLAN:
                said.append(_by_plan(agent, inherited))
            case Cause.PROTECTED | Cause.OTHER:
                said += [(_as_claude_said(denial), None) for denial in denials]
    distinct = list(dict.fromkeys(said))
    more = f"{len(distinct) - 10} more reasons are left out." if len(distinct) > 10 else ""
    texts = [*(text for text, _ in distinct[:10]), more]
    steps = dict.fromkeys(step for _, step in distinct[:10] if step is not None)
    return " ".join(filter(None, texts)), list(steps)


def _cause(agent: EffectiveAgent, denial: Denial, seen: Seen, inherited: ClaudeSettings) -> Cause:
    if denial.asked is not None:
        return Cause.PERSON if denial.asked is Verdict.DENY else Cause.NOBODY
    if denial.tool == ASK_USER:
        return Cause.OWN_QUESTION
    by_rule = denial.kind == "permission-rule" or denial.source == "user_reject"
    if "hook" in (denial.source, denial.reason_type):
        return Cause.HOOK
    if denial.reason_type == "safetyCheck":
        return Cause.PROTECTED
    plans = "plan" in (seen.permission_mode, agent.permission_mode)
    if plans and denial.reason_type in ("mode", "classifier", ""):
        return Cause.PLAN
    if denial.reason_type in ("rule", "subcommandResults"):
        if by_rule:
            return Cause.DENY_RULE
        asks = _rules_behind(agent, denial, inherited, "ask", matching_only=True)
        denies = _rules_behind(agent, denial, inherited, "deny", matching_only=True)
        if not denial.kind and denies:
            return Cause.DENY_RULE
        if asks or denial.reason_type == "rule":
            return Cause.ASK_RULE
        return Cause.NOT_GRANTED
    if not denial.explained and _about(denial.tool, agent.disallowed_tools or ()):
        # Nothing but the result told of it: the agent's own rule is what can be known.
        return Cause.DENY_RULE
    if denial.reason_type in ("", "mode", "classifier", "workingDir"):
        return Cause.NOT_GRANTED
    return Cause.OTHER


def _not_granted(
    agent: EffectiveAgent, denials: Sequence[Denial], seen: Seen, inherited: ClaudeSettings
) -> list[Advice]:
    granted = agent.allowed_tools or ()
    wanted: dict[str, None] = {}
    said: list[Advice] = []
    for denial in denials:
        rule = _least_rule(agent, denial)
        if rule is None:
            said.append(_no_rule(agent, denial))
        elif rule in granted or denial.tool in granted:
            said.append(_granted_already(agent, denial, rule if rule in granted else denial.tool))
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
        text = f"{more} more calls like these need a rule, too." if more else ""
        advice.append((text, _update(agent, "--allow", rules)))
    return advice + said


def _by_rule(agent: EffectiveAgent, denial: Denial, inherited: ClaudeSettings, kind: str) -> Advice:
    own = _matching(denial, agent.disallowed_tools or (), agent) if kind == "deny" else []
    behind = _rules_behind(agent, denial, inherited, kind)
    if not own and not any(rules for _, rules in behind) and kind == "deny":
        own = _about(denial.tool, agent.disallowed_tools or ())
    said = []
    step = None
    if own:
        kept = [rule for rule in agent.disallowed_tools or () if rule not in own]
        said.append(
            f"{denial.tool} is denied by the agent's own disallowed_tools ({', '.join(own)}). To"
            " lift that, a person has to change it."
        )
        step = _update(agent, "--disallowed-tools", kept)
    what = "was denied by" if kind == "deny" else "needs a person's approval by"
    for path, rules in behind:
        said.append(
            f"{denial.tool} {what} {', '.join(rules)} in permissions.{kind} of {path}. No grant"
            " lifts that; a person can change the rule there."
        )
    if not said:
        said.append(
            f"{denial.tool} {what} a rule in permissions.{kind} of Claude Code's settings. No grant"
            " lifts that; `claude`, then /permissions, shows the rule to a person."
        )
    return " ".join(said), step


def _by_hook(denial: Denial, inherited: ClaudeSettings) -> str:
    found = [
        f"{hook.action} in {file.path}"
        for file in inherited.files
        for hook in file.hooks
        if _hook_matches(hook.matcher, denial.tool)
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


def _as_claude_said(denial: Denial) -> str:
    reason = f" ({denial.reason_type})" if denial.reason_type else ""
    said = f' Claude Code said: "{denial.said}"' if denial.said else ""
    return f"{denial.tool} was denied by a check of Claude Code{reason} that no grant lifts.{said}"


def _no_rule(agent: EffectiveAgent, denial: Denial) -> Advice:
    if not denial.input:
        text = (
            f"It is not known what the call of {denial.tool} was given. A rule has to name the"
            " command that is needed, such as Bash(git log:*): put it in the place of RULE."
        )
        return text, _update(agent, "--allow", ["RULE"])
    said = f' Claude Code said: "{denial.said}"' if denial.said else ""
    text = (
        f"No rule grants just this call of {denial.tool}: its command is too long, or"
        " has a redirection, a wildcard, several lines or a key in it. Have the agent use plain"
        f" commands, and Write for files.{said}"
    )
    return text, None


def _granted_already(agent: EffectiveAgent, denial: Denial, rule: str) -> Advice:
    said = f' Claude Code said: "{denial.said}"' if denial.said else ""
    local = f"{agent.directory}/.claude/settings.local.json"
    text = (
        f"{rule} is granted already, and a wider grant is not what it lacks.{said} For a path"
        f" outside {agent.directory}, a person can add its folder to"
        f" permissions.additionalDirectories of {local}."
    )
    return text, run(f"agent-dispatch describe {shlex.quote(agent.name)}", agent.name)


def _mode_source(agent: EffectiveAgent, inherited: ClaudeSettings) -> str:
    if agent.permission_mode:
        return "permission_mode of the agent"
    found = inherited.default_mode()
    return f"permissions.defaultMode of {found[1]}" if found else "of Claude Code's settings"


def _least_rule(agent: EffectiveAgent, denial: Denial) -> str | None:
    """Return the narrowest rule that grants the call; None if there is none for it alone."""
    tool = denial.tool
    if tool == "Bash":
        command = denial.command
        usable = (
            0 < len(command) <= _MAX_COMMAND_CHARS
            and not _NOT_IN_A_RULE.search(command)
            and _is_balanced(command)
            # A rule would put the key into the text, the shell's history and the configuration.
            and mask(command) == command
        )
        return f"Bash({command})" if usable else None
    if tool in _EDITS and denial.path:
        # A path in a rule for Write is ignored; one for Edit covers all tools that write.
        return f"Edit({_anchored(agent, denial.path)})"
    if tool in _READS and denial.path:
        below = "" if tool == "Read" else "/**"
        return f"Read({_anchored(agent, denial.path)}{below})"
    if tool == "WebFetch" and (host := _host(denial.url)):
        return f"WebFetch(domain:{host})"
    return tool


def _anchored(agent: EffectiveAgent, path: str) -> str:
    """Write a path as rules do: from the agent's directory, or with two slashes from the root."""
    full = os.path.normpath(os.path.join(agent.directory, path))
    root = os.path.normpath(agent.directory)
    inside = full.startswith(root.rstrip("/") + "/")
    anchored = full[len(root.rstrip("/")) :] if inside else f"/{full}"
    # What has a meaning of its own in a rule becomes a wildcard for one character.
    return _NOT_IN_A_PATH.sub("?", anchored)


def _is_balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _rules_behind(
    agent: EffectiveAgent,
    denial: Denial,
    inherited: ClaudeSettings,
    kind: str,
    *,
    matching_only: bool = False,
) -> list[tuple[str, list[str]]]:
    """Return the files with rules that match the call; without one, those about its tool."""
    listed = [(file.path, file.deny if kind == "deny" else file.ask) for file in inherited.files]
    matching = [(path, _matching(denial, rules, agent)) for path, rules in listed]
    found = [(path, rules) for path, rules in matching if rules]
    own = _matching(denial, agent.disallowed_tools or (), agent) if kind == "deny" else []
    if found or own or matching_only:
        return found
    about = [(path, _about(denial.tool, rules)) for path, rules in listed]
    return [(path, rules) for path, rules in about if rules]


def _about(tool: str, rules: Iterable[str]) -> list[str]:
    """Return the rules that are about `tool`, with or without a pattern."""
    same = _EDITS if tool in _EDITS else _READS if tool in _READS else {tool}
    return [
        rule
        for rule in rules
        if (name := rule.partition("(")[0].strip()) in same
        or (name.startswith("mcp__") and tool.startswith(f"{name.removesuffix('__*')}__"))
        or (name.endswith("*") and fnmatchcase(tool, name))
    ]


def _matching(denial: Denial, rules: Iterable[str], agent: EffectiveAgent) -> list[str]:
    """Return the rules that are about this call."""
    return [rule for rule in _about(denial.tool, rules) if _fits(denial, rule, agent)]


def _fits(denial: Denial, rule: str, agent: EffectiveAgent) -> bool:
    pattern = rule.partition("(")[2].removesuffix(")")
    if pattern in ("", "*"):
        return True
    if denial.tool == "Bash":
        parts = [denial.command, *_SEPARATORS.split(denial.command)]
        return any(_command_fits(part.strip(), pattern) for part in parts)
    if denial.url:
        host = _host(denial.url)
        return fnmatchcase(host, pattern.removeprefix("domain:"))
    full = os.path.normpath(os.path.join(agent.directory, denial.path))
    relative = os.path.relpath(full, agent.directory)
    plain = pattern.removeprefix("./").lstrip("/").removeprefix("~/").replace("**/", "*")
    names = (relative, full.lstrip("/"), os.path.basename(full))
    return any(fnmatchcase(name, plain) or name.startswith(f"{plain}/") for name in names) or (
        pattern.startswith("~/") and fnmatchcase(full, f"*/{plain}")
    )


def _command_fits(command: str, pattern: str) -> bool:
    if pattern.endswith((":*", " *")):
        prefix = pattern[:-2]
        return command == prefix or command.startswith(f"{prefix} ")
    return command == pattern or ("*" in pattern and fnmatchcase(command, pattern))


def _hook_matches(matcher: str, tool: str) -> bool:
    if matcher in ("", "*"):
        return True
    try:
        return re.fullmatch(matcher, tool) is not None
    except re.error:
        return False


def _update(agent: EffectiveAgent, option: str, rules: list[str]) -> NextStep:
    """Return the update of one list of tools; it widens a grant, so a person runs it."""
    value = ",".join(rules) or "none"
    shell = shlex.quote(value) if any(c in value for c in '"$`\\!') else f'"{value}"'
    return run(
        f"agent-dispatch update {shlex.quote(agent.name)} {option} {shell}",
        agent.name,
    )
