"""Tokens of the command line, before a parser sees them: values in, values out."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?:=.*)?", re.DOTALL)
"""What can only be meant as an option; `- a list` and `--flag: why?` cannot."""

_PLAIN_FORMS = {
    "list": (0, 0, ("--json",)),
    "describe": (1, 1, ("--json",)),
    "test": (1, 2, ("--json", "--stream")),
    "run": (2, 2, ("--json", "--stream", "--background")),
    "jobs": (0, 0, ("--json",)),
    "job": (1, 1, ("--json",)),
    "wait": (1, 1, ("--json",)),
    "tail": (1, 1, ("--json", "--follow")),
    "cancel": (1, 1, ("--json",)),
    "gc": (0, 0, ("--json",)),
}
"""Command -> fewest and most words, flags; all that the everyday forms of it consist of."""


class PlainCall(NamedTuple):
    """A command line that needs no parser."""

    command: str
    words: tuple[str, ...]
    flags: frozenset[str]
    """Without their dashes."""


def plain_call(argv: Sequence[str]) -> PlainCall | None:
    """Recognise the everyday forms, so that they need not wait for the parser to be imported.

    Returns:
        None for everything else, right or wrong: that is the parser's.
    """
    if not argv or argv[0] not in _PLAIN_FORMS:
        return None
    fewest, most, known = _PLAIN_FORMS[argv[0]]
    flags = [token for token in argv[1:] if token in known]
    words = tuple(token for token in argv[1:] if token not in known)
    if any(word.startswith("-") for word in words) or len(set(flags)) < len(flags):
        return None
    if not fewest <= len(words) <= most:
        return None
    return PlainCall(argv[0], words, frozenset(flag.removeprefix("--") for flag in flags))


def arrange(tokens: Sequence[str], options: Mapping[str, bool]) -> list[str]:
    r"""Put options first, then `--`, then the words, so that a parser cannot mistake them.

    A value may begin with a dash behind its option, with `=` or without; a word may, if it cannot
    be an option (a task `- one\n- two`) or stands behind `--`.

    Args:
        tokens: What follows the command's name.
        options: The options the command knows -> whether they take a value.

    Returns:
        The same call; what is no known option but looks like one stays for the parser to refuse.
    """
    arranged: list[str] = []
    words: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--":
            words += rest
            break
        if options.get(token) and rest and not _is_known(rest[0], options):
            arranged.append(f"{token}={rest.pop(0)}")
        elif _is_known(token, options) or _OPTION.fullmatch(token):
            arranged.append(token)
        else:
            words.append(token)
    return [*arranged, "--", *words] if words else arranged


def _is_known(token: str, options: Mapping[str, bool]) -> bool:
    return token == "--" or token.partition("=")[0] in options
