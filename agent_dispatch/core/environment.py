"""Which environment variables an agent inherits.

Variables that bind a process to the caller's session or repository are left out. An agent's
`env_allow` and `env_deny` narrow the rest.
"""

import re
from collections.abc import Callable, Iterable, Mapping

_SESSION_VARIABLES = frozenset(
    {
        "CLAUDECODE",
        "CLAUDE_CODE_CHILD_SESSION",
        "CLAUDE_CODE_ENTRYPOINT",
        "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS",
        "CLAUDE_CODE_MESSAGING_SOCKET",
        "CLAUDE_CODE_MESSAGING_TOKEN",
        "CLAUDE_CODE_SESSION_ATTENDED",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_SSE_PORT",
        "CLAUDE_PID",
        "CLAUDE_PROJECT_DIR",
    }
)
"""They bind a process to a session; a dispatched process belongs to none of the caller's."""

_INSIDE_SESSION = ("CLAUDECODE", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_SESSION_ID")
"""Claude Code sets these for the processes of a session (read in 2.1.330)."""
_RETRY_VARIABLE = re.compile(r"CLAUDE_CODE_\w*RETR(?:Y|IES)")

_GIT_VARIABLES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""The list of `git rev-parse --local-env-vars`, with two changes. Git sets these for its hooks, and
they bind a process to the caller's repository.

GIT_CONFIG_COUNT is inherited although Git lists it: users set it, for example to declare safe
directories. GIT_QUARANTINE_PATH is left out although Git does not list it: a pre-receive hook has
it, and with it Git refuses to update references anywhere. GIT_CONFIG_PARAMETERS holds the `git -c`
options of one command of the caller, and can name a repository (`-c core.worktree=…`)."""

_OURS = "AGENT_DISPATCH_*"
"""Always inherited: they tell a nested dispatch its depth, its job, and the machine's limits."""

_NEEDED = (
    # The login, the API and all switches of Claude Code.
    "ANTHROPIC_*",
    "CLAUDE_*",
    "IS_SANDBOX",
    "DISABLE_*",
    "DO_NOT_TRACK",
    "API_TIMEOUT_MS",
    "BASH_DEFAULT_TIMEOUT_MS",
    "BASH_MAX_OUTPUT_LENGTH",
    "BASH_MAX_TIMEOUT_MS",
    "ENABLE_TOOL_SEARCH",
    "MAX_MCP_OUTPUT_TOKENS",
    "MAX_STRUCTURED_OUTPUT_RETRIES",
    "MAX_THINKING_TOKENS",
    "MCP_PROTOCOL_NEGOTIATION",
    "MCP_TIMEOUT",
    "MCP_TOOL_TIMEOUT",
    "USE_BUILTIN_RIPGREP",
    # The program, its files, its shell, and the network.
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "XDG_*",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    # The names of a trace are no secrets, and a trace with a gap is useless.
    "TRACEPARENT",
    "TRACESTATE",
)
"""Inherited whatever `env_allow` names: Claude Code needs or reads them."""

_NEEDED_WITH: Mapping[str, tuple[str, ...]] = {
    "CLAUDE_CODE_USE_BEDROCK": ("AWS_*",),
    "CLAUDE_CODE_USE_VERTEX": ("CLOUD_ML_REGION", "GCLOUD_PROJECT", "GOOGLE_*", "VERTEX_*"),
    "CLAUDE_CODE_USE_FOUNDRY": ("AZURE_*",),
    "CLAUDE_CODE_ENABLE_TELEMETRY": ("OTEL_*",),
}
"""Also inherited if the switch is set: where its models are, or where it sends its telemetry."""

ESSENTIAL = ("HOME", "PATH")
"""Without them Claude Code finds neither its login nor any program."""


def inherited(
    environ: Mapping[str, str],
    *,
    nested: bool,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
) -> dict[str, str]:
    """Return the variables of `environ` that an agent inherits.

    Args:
        nested: We run inside a dispatch.
        allow: If given, only these names are inherited, and those that Claude Code needs. `*`
            stands for any characters.
        deny: These names are not inherited, except our own variables.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name not in _SESSION_VARIABLES and name not in _GIT_VARIABLES
    }
    if nested or any(name in environ for name in _INSIDE_SESSION):
        # A session passes on the settings of its own project. From a plain shell they are the
        # user's own, and meant for the agents.
        env = {name: value for name, value in env.items() if not _RETRY_VARIABLE.match(name)}
    if allow is not None:
        passed = [_OURS, *_NEEDED, *allow]
        for switch, names in _NEEDED_WITH.items():
            passed += names if environ.get(switch) else ()
        passes = name_pattern(passed)
        env = {name: value for name, value in env.items() if passes(name)}
    if deny is not None:
        is_ours, is_denied = name_pattern([_OURS]), name_pattern(deny)
        env = {name: value for name, value in env.items() if is_ours(name) or not is_denied(name)}
    return env


def name_pattern(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a test for names that match one of `names`, in which `*` stands for anything."""
    alternatives = (re.escape(name).replace(r"\*", ".*") for name in names)
    matches = re.compile("|".join(alternatives) or r"(?!)", re.DOTALL).fullmatch
    return lambda name: matches(name) is not None
