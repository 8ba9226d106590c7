"""Permission rules of Claude Code: which rules match a call, and the narrowest one for a call."""

import os.path
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from agent_dispatch.core.masking import mask
from agent_dispatch.core.stream.seen import Denial
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent

_MAX_COMMAND_CHARS = 200
_NOT_IN_A_RULE = re.compile(r"[*<>\\\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s|\s$|:$")
"""Keeps a command out of a rule: `*` is a wildcard there, and no rule covers a redirection
(measured)."""
_NOT_IN_A_PATH = re.compile(r"[^\w./ +@=-]")
_EDITS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
_READS = frozenset({"Glob", "Grep", "LS", "Read"})
_SEPARATORS = re.compile(r"&&|\|\||[;|&\n]")


def least_rule(agent: EffectiveAgent, denial: Denial) -> str | None:
    """Return the narrowest rule that grants the call; None if no rule grants it alone."""
    tool = denial.tool
    if tool == "Bash":
        command = denial.command
        usable = (
            0 < len(command) <= _MAX_COMMAND_CHARS
            and not _NOT_IN_A_RULE.search(command)
            and _is_balanced(command)
            # A rule would copy the key into the text, the shell's history and agents.toml.
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
    """Write a path as in a rule: from the agent's directory, or from the root with two slashes."""
    full = os.path.normpath(os.path.join(agent.directory, path))
    root = os.path.normpath(agent.directory)
    inside = full.startswith(root.rstrip("/") + "/")
    anchored = full[len(root.rstrip("/")) :] if inside else f"/{full}"
    # A character with a special meaning in a rule becomes a wildcard for one character.
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


def rules_behind(
    agent: EffectiveAgent,
    denial: Denial,
    inherited: ClaudeSettings,
    kind: str,
    *,
    matching_only: bool = False,
) -> list[tuple[str, list[str]]]:
    """Return files and their rules that match the call; if none, the rules about its tool."""
    listed = [(file.path, file.deny if kind == "deny" else file.ask) for file in inherited.files]
    matching = [(path, matching_rules(denial, rules, agent)) for path, rules in listed]
    found = [(path, rules) for path, rules in matching if rules]
    own = matching_rules(denial, agent.disallowed_tools or (), agent) if kind == "deny" else []
    if found or own or matching_only:
        return found
    about = [(path, rules_about(denial.tool, rules)) for path, rules in listed]
    return [(path, rules) for path, rules in about if rules]


def rules_about(tool: str, rules: Iterable[str]) -> list[str]:
    """Return the rules that are about `tool`, with or without a pattern."""
    same = _EDITS if tool in _EDITS else _READS if tool in _READS else {tool}
    return [
        rule
        for rule in rules
        if (name := rule.partition("(")[0].strip()) in same
        or (name.startswith("mcp__") and tool.startswith(f"{name.removesuffix('__*')}__"))
        or (name.endswith("*") and fnmatchcase(tool, name))
    ]


def matching_rules(denial: Denial, rules: Iterable[str], agent: EffectiveAgent) -> list[str]:
    """Return the rules that match this call."""
    return [rule for rule in rules_about(denial.tool, rules) if _fits(denial, rule, agent)]


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


def hook_matches(matcher: str, tool: str) -> bool:
    """Tell whether a hook with this matcher is called for a tool."""
    if matcher in ("", "*"):
        return True
    try:
        return re.fullmatch(matcher, tool) is not None
    except re.error:
        return False
