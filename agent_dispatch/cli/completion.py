"""Shell completion: the scripts for three shells, and the candidates that they ask for.

The scripts only ask: each key press runs `agent-dispatch completion words`, so they stay valid
when commands or agents change.
"""

from collections.abc import Iterable, Mapping, Sequence

from agent_dispatch.cli.command_table import ALIASES, COMMANDS, Kind
from agent_dispatch.cli.help_pages import TOPICS
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.output import write_lines
from agent_dispatch.cli.parsing import options_of
from agent_dispatch.cli.shell import Shell, open_registry, open_store
from agent_dispatch.cli.validation import check_choice
from agent_dispatch.config.clients.table import CLIENTS
from agent_dispatch.core.money.stats import By
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import EFFORTS, PERMISSION_MODES
from agent_dispatch.model.job import JobStatus

_ASK = "words"
_MAX_JOBS = 50

_BASH = r"""# agent-dispatch completion bash >> ~/.bashrc
_agent_dispatch() {
    local line word
    COMPREPLY=()
    # The words up to the cursor, one a line; the dot keeps an empty last word.
    line="$(printf '%s\n' "${COMP_WORDS[@]:1:COMP_CWORD}"; printf .)"
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(agent-dispatch completion words -- "$line" 2>/dev/null)
    # Without a candidate, files are proposed (`complete -o default`).
}
complete -o default -F _agent_dispatch agent-dispatch
"""

_ZSH = r"""#compdef agent-dispatch
# agent-dispatch completion zsh >> ~/.zshrc, after compinit
_agent_dispatch() {
    local -a found
    local line="${(F)words[2,CURRENT]}"$'\n.'
    found=("${(@f)$(agent-dispatch completion words -- "$line" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
compdef _agent_dispatch agent-dispatch
"""

_FISH = r"""# agent-dispatch completion fish > ~/.config/fish/completions/agent-dispatch.fish
function __agent_dispatch_words
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l line (string join \n -- $before[2..] "$current" . | string collect)
    agent-dispatch completion words -- $line 2>/dev/null
end
complete -c agent-dispatch -f -a '(__agent_dispatch_words)'
complete -c agent-dispatch -n '__fish_seen_subcommand_from add import parallel' -F
"""

SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_WORDS: Mapping[Kind, Sequence[str]] = {
    Kind.TOPIC: [*COMMANDS, *ALIASES, *TOPICS],
    Kind.GROUP_ACTION: ["add", "list", "inspect", "update", "remove"],
    Kind.HOST_ACTION: ["list", "add", "remove", "install"],
    Kind.SHELL: [*SCRIPTS],
}
_CHOICES: Mapping[str, Sequence[str]] = {
    "--status": [*JobStatus],
    "--permission-mode": sorted(PERMISSION_MODES),
    "--response-format": ["json"],
    "--permission-prompts": ["ask", "deny", "none"],
    "--effort": EFFORTS,
    "--client": [*CLIENTS],
    "--by": [*By],
}


def completion(shell_name: str, line: str = "", /, *, shell: Shell) -> int:
    """Print the completion script for bash, zsh or fish.

    For bash: `eval "$(agent-dispatch completion bash)"` in ~/.bashrc. Agent names and job ids are
    completed too.

    Args:
        shell_name: bash, zsh or fish; `words` is how the scripts ask for candidates.
        line: For `words`: the words up to the cursor, one a line, and a dot.
    """
    if shell_name == _ASK:
        write_lines(shell, _candidates(line.removesuffix(".").split("\n")[:-1], shell))
        return 0
    check_choice("SHELL", shell_name, SCRIPTS)
    write_lines(shell, [SCRIPTS[shell_name].rstrip("\n")])
    return 0


def _candidates(words: Sequence[str], shell: Shell) -> list[str]:
    """Return the candidates for the last word."""
    *before, current = words or [""]
    if before and (current == "=" or before[-1] == "="):
        # Bash makes three words of `--status=f`, and completes the last one.
        before, current = (before, "") if current == "=" else (before[:-1], current)
    return sorted({word for word in _all(before, current, shell) if word.startswith(current)})


def _all(before: Sequence[str], current: str, shell: Shell) -> Iterable[str]:
    if not before:
        return [*COMMANDS, *ALIASES]
    name = ALIASES.get(before[0], before[0])
    if name not in COMMANDS:
        return []
    options = options_of(COMMANDS[name].function())
    option, given, _ = current.partition("=")
    if given and option in options:
        return [f"{option}={value}" for value in _values(option, shell)]
    if current.startswith("-"):
        return options
    if options.get(before[-1]):
        return _values(before[-1], shell)
    words = 0
    for previous, word in zip(["", *before[1:]], before[1:], strict=False):
        words += not word.startswith("-") and not options.get(previous)
    positions = COMMANDS[name].completes
    return _named(positions[words], shell) if words < len(positions) else []


def _values(option: str, shell: Shell) -> Iterable[str]:
    if option in ("--agent", "--aggregate", "--member", "--remove-member"):
        return _named(Kind.AGENT, shell)
    if option == "--group":
        return _named(Kind.GROUP, shell)
    return _CHOICES.get(option, ())


def _named(kind: Kind, shell: Shell) -> Iterable[str]:
    try:
        if kind is Kind.AGENT:
            config = open_registry(shell).load()
            return [*config.agents, *config.broken]
        if kind is Kind.GROUP:
            return open_registry(shell).load().groups
        if kind is Kind.JOB:
            newest = open_store(shell).lister.newest(limit=_MAX_JOBS)
            return [short_id(row.id) for row in newest.jobs]
    except DispatchError:
        return []  # The command itself reports it; a key press should not.
    return _WORDS[kind]
