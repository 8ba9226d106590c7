"""The contents of `agents.toml`, and an agent with its inherited settings.

`None` means inherit; an empty list of tools means "grant nothing beyond the project's own
settings". Times are seconds, money is US dollars.
"""

import msgspec

PERMISSION_MODES = (
    "acceptEdits",
    "auto",
    "bypassPermissions",
    "manual",
    "dontAsk",
    "plan",
    "default",
)
"""Values of `claude --permission-mode` in 2.1.330 (measured); `default` means `manual`."""


EFFORTS = ("low", "medium", "high", "xhigh", "max")
"""Values of `claude --effort`; it warns about others on stderr and goes on (measured with
2.1.332)."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[agents.NAME]` table, as written in the file."""

    directory: str
    description: str = ""
    timeout: float | None = None
    """The most seconds of a run, queueing not counted; at least 1."""
    model: str | None = None
    max_budget_usd: float | None = None
    """US dollars per run; 0 overrides the default of the settings with no cap."""
    permission_mode: str | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    effort: str | None = None
    """How much the model thinks: a value of `claude --effort`."""
    fallback_model: str | None = None
    """Used while the model is overloaded."""
    tools: list[str] | None = None
    """The built-in tools that it has; None: all."""
    env_allow: list[str] | None = None
    """The environment variables, with `*`, that it inherits in addition to those that Claude Code
    needs; None: all."""
    env_deny: list[str] | None = None
    """The variables that it does not inherit; overrides `env_allow`."""
    instructions: str | None = None
    """Appended to the system prompt of each run."""
    exclusive: bool = False
    """Only one run at a time on this machine."""
    nested: bool = True
    """False: the agent does not start our server."""
    capabilities: list[str] | None = None
    """Labels for what it can do."""
    host: str | None = None
    """The host in this file that has the agent; only the description is configured here."""
    agent: str | None = None
    """The name of the agent on that host; None: the same name."""
    permission_prompts: str | None = None
    """`deny` or `ask`; None: from the settings."""
    verify: list[str] | None = None
    """A command with its arguments that checks the agent's work if a call asks for it."""
    verify_always: bool = False
    """Run the command after each call."""
    verify_attempts: int = 1
    """The most runs of the command; between two runs the agent repairs its work."""


class GroupMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member of a group; the agent need not be configured."""

    agent: str
    use_for: str = ""
    """When to give this agent a task of the group."""


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[groups.NAME]` table, as written in the file."""

    description: str = ""
    """How to work with the group; agents do not get it."""
    shared_context: str = ""
    """Facts that a member gets with each task of the group."""
    members: list[GroupMember] = []


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[settings.cache]`."""

    enabled: bool = True
    ttl: float = 300
    """Seconds an answer stays valid."""
    max_size: int = 1000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[settings]`: defaults of all agents, and the limits of this machine."""

    default_timeout: float = 300
    default_model: str | None = None
    default_permission_mode: str | None = None
    default_allowed_tools: list[str] | None = None
    default_disallowed_tools: list[str] | None = None
    default_max_budget_usd: float | None = None
    max_dispatch_depth: int = 3
    max_concurrency: int = 5
    """Runs at once per depth, counted over all processes with the same jobs directory."""
    permission_prompts: str = "deny"
    """What to do with a call without permission: `deny`, or `ask` a person."""
    question_seconds: float = 300
    """How long a permission question waits for an answer."""
    patience_seconds: float = 0
    """The latest time to answer a call over MCP; 0: the known limit of its client; negative: no
    limit."""
    task_after_seconds: float = 2
    """A call becomes a task after this time, if its client takes tasks."""
    notify: list[str] | None = None
    """The command, with its arguments, that is run for questions and for ended background jobs."""
    mcp_may_widen_permissions: bool = False
    """A model may widen the rights of agents by `add_agent` and `update_agent`."""
    call_retention_days: float = 7
    background_retention_days: float = 0
    """How long the records of ended background jobs are kept; 0: until `gc`."""
    max_cost_per_day_usd: float | None = None
    """US dollars for all runs of a local day; None: no ceiling."""
    max_cost_per_tree_usd: float | None = None
    """US dollars for one call or command with everything below it; None: no ceiling."""
    max_runs_per_tree: int | None = None
    hold_at_usage_limit: bool = False
    """A background job at a limit of the account waits until the limit resets."""
    max_holds: int = 3
    """The most waits of one job."""
    cache: CacheSettings = CacheSettings()


class UnknownKey(msgspec.Struct, frozen=True):
    """An unknown key; it is kept in the file and reported by `doctor`."""

    where: str
    """The table, as in `agents.infra` or `settings`."""
    key: str
    nearest: str | None
    """The known key that it resembles most, if any."""


class ValueWarning(msgspec.Struct, frozen=True):
    """A value that is used but is probably a mistake, such as an unknown permission mode."""

    where: str
    """The table, as in `agents.infra` or `settings`."""
    key: str
    problem: str

    def __str__(self) -> str:
        """Return the warning as one line."""
        return f"{self.where}.{self.key}: {self.problem}"


class EffectiveAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent with its inherited settings: all the configuration that a run needs."""

    name: str
    directory: str
    """Absolute, `~` expanded."""
    description: str
    timeout_s: float = msgspec.field(name="timeout")
    model: str | None
    max_budget_usd: float | None
    """None: no limit."""
    permission_mode: str | None
    allowed_tools: tuple[str, ...] | None
    disallowed_tools: tuple[str, ...] | None
    effort: str | None = None
    fallback_model: str | None = None
    tools: tuple[str, ...] | None = None
    env_allow: tuple[str, ...] | None = None
    env_deny: tuple[str, ...] | None = None
    instructions: str | None = None
    exclusive: bool = False
    nested: bool = True
    capabilities: tuple[str, ...] | None = None
    host: str | None = None
    """The host, if it is on another machine; then `directory` is empty."""
    agent: str | None = None
    """Its name on that host; None: the same."""
    permission_prompts: str = "deny"
    verify: tuple[str, ...] | None = None
    verify_always: bool = False
    verify_attempts: int = 1

    @property
    def asks(self) -> bool:
        """Whether a person is asked for missing permissions."""
        return self.permission_prompts == "ask"


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One `[hosts.NAME]` table: a machine or container with its own agents."""

    ssh: str | None = None
    """The destination for `ssh`: a name of the ssh configuration, or `user@machine`."""
    exec: list[str] | None = None
    """A command, used instead of ssh, that runs its last arguments on the host."""
    program: str | None = None
    """The path of `agent-dispatch` on the host; None: search the usual places."""
    lease_seconds: float = 120
    """How long a call goes on without hearing from its caller."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of `agents.toml`, with its broken parts by name."""

    agents: dict[str, AgentConfig] = {}
    broken: dict[str, str] = {}
    """What is wrong with a table, by the name of the agent."""
    groups: dict[str, GroupConfig] = {}
    broken_groups: dict[str, str] = {}
    """The same by the name of the group."""
    hosts: dict[str, HostConfig] = {}
    broken_hosts: dict[str, str] = {}
    """The same by the name of the host; the agents of these hosts are not usable."""
    settings: Settings = Settings()
    broken_settings: dict[str, str] = {}
    """What is wrong, by the setting. The default is used instead, and no run may start."""
    unknown_keys: tuple[UnknownKey, ...] = ()
    warnings: tuple[ValueWarning, ...] = ()
