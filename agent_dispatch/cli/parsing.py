"""Bind the words of a command line to the parameters of a command's function.

Importing cyclopts takes as long as a whole `list`. A call that gives only words and flags is
therefore bound here, from the function's own signature. cyclopts binds every other call and
reports what is wrong with one.
"""

import re
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING

from agent_dispatch.cli.command_table import COMMANDS
from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.output import one_line
from agent_dispatch.model.names import did_you_mean

if TYPE_CHECKING:
    from cyclopts import App

HELP_FLAGS = frozenset(("-h", "--help"))
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?:=.*)?", re.DOTALL)
"""A token that can only be an option, unlike `- a list` and `--flag: why?`."""

Bound = tuple[Sequence[object], Mapping[str, object]]
"""Arguments by position and by name."""


def bind(name: str, tokens: Sequence[str]) -> Bound | None:
    """Bind what follows the name of a command; None if it asks for the command's help page.

    Raises:
        MisuseError: The command line is wrong.
    """
    command = COMMANDS[name].function()
    options, words = split_tokens(tokens, options_of(command))
    if not HELP_FLAGS.isdisjoint(options):
        return None
    return bind_flags(command, options, words) or _bind_any(name, options, words)


def options_of(command: FunctionType) -> dict[str, bool]:
    """The options of a command, and whether each takes a value: all but flags do."""
    options = {
        _option_of(name): default is not False
        for name, default in (command.__kwdefaults__ or {}).items()
    }
    return options | dict.fromkeys(HELP_FLAGS, False)


def split_tokens(tokens: Sequence[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    r"""Separate options from words, so that a word may begin with a dash.

    A value may begin with a dash, after `=` or a space. A word may, if it cannot be an option
    (a task `- one\n- two`) or stands after `--`.

    Args:
        tokens: What follows the command's name.
        options: The options of the command, and whether each takes a value.

    Returns:
        The options, each with its value as `--name=value`, and the words. An unknown token that
        looks like an option is among the options, where the parser refuses it.
    """
    found: list[str] = []
    words: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return found, words + rest
        if options.get(token) and rest and not _is_known(rest[0], options):
            found.append(f"{token}={rest.pop(0)}")
        elif _is_known(token, options) or _OPTION.fullmatch(token):
            found.append(token)
        else:
            words.append(token)
    return found, words


def _is_known(token: str, options: Mapping[str, bool]) -> bool:
    return token == "--" or token.partition("=")[0] in options


def bind_flags(command: FunctionType, options: Sequence[str], words: Sequence[str]) -> Bound | None:
    """Bind a call that gives only words and flags; None for any other call, right or wrong."""
    most = command.__code__.co_posonlyargcount
    fewest = most - len(command.__defaults__ or ())
    known = options_of(command)
    if len(set(options)) < len(options) or any(known.get(option, True) for option in options):
        return None
    if not fewest <= len(words) <= most:
        return None
    names = {_option_of(name): name for name in command.__kwdefaults__ or {}}
    return words, {names[option]: True for option in options}


def _option_of(name: str) -> str:
    """The option of a keyword: `exec_` is `--exec`, because Python has an `exec`."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def _bind_any(name: str, options: Sequence[str], words: Sequence[str]) -> Bound:
    """Bind a call with cyclopts.

    Raises:
        MisuseError: It is wrong.
    """
    from cyclopts import (
        CycloptsError,
        MissingArgumentError,
        UnknownOptionError,
        UnusedCliTokensError,
    )

    tokens = [name, *options, *(["--", *words] if words else ())]
    try:
        _, bound, _ = build_app(name).parse_args(tokens, exit_on_error=False, print_error=False)
    except UnknownOptionError as error:
        option = (error.token.keyword or error.token.value).partition("=")[0]
        near = did_you_mean(option, options_of(COMMANDS[name].function()))
        message = f"Unknown option: {option}.{near} Put text that begins with a dash after `--`."
    except UnusedCliTokensError as error:
        extra = " ".join(error.unused_tokens or ())
        message = f"Unexpected argument: {extra}. {_quoting_hint(name)}"
    except MissingArgumentError as error:
        what = error.argument.name if error.argument is not None else "An argument"
        message = f"{what} needs a value." if what.startswith("-") else f"{what} is missing."
    except CycloptsError as error:
        message = str(error)
    else:
        return bound.args, bound.kwargs
    raise MisuseError(one_line(message))


def _quoting_hint(name: str) -> str:
    code = COMMANDS[name].function().__code__
    last = code.co_varnames[code.co_posonlyargcount - 1] if code.co_posonlyargcount else ""
    return f"Quote the {last}." if last in ("task", "topic") else "Quote a value that has spaces."


def build_app(name: str) -> "App":
    """The parser of one command, and of its help page."""
    from cyclopts import App, Parameter

    app = App(
        name="agent-dispatch",
        version_flags=(),
        help_epilogue=f"Example: `agent-dispatch {COMMANDS[name].example}`",
        # `shell` is no option. Flags have no `--no-` form.
        default_parameter=Parameter(
            negative=(),
            show_default=_shown_default,
            parse=re.compile(r"^(?!shell$)"),
        ),
    )
    app.command(COMMANDS[name].path, name=name)
    return app


def _shown_default(value: object) -> str | None:
    """A default for the help page; an option that does nothing by default shows none."""
    return str(value) if value else None
