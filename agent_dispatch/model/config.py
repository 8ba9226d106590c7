"""What `agents.toml` holds: agents, settings, and an agent as it takes effect.

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
"""What `claude --permission-mode` accepts in 2.1.330 (measured); `default` means `manual`."""


EFFORTS = ("low", "medium", "high", "xhigh", "max")
"""What `claude --effort` knows; it warns of another value on stderr and goes on (measured with
2.1.332)."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[agents.NAME]` table, as written."""

    directory: str
    description: str = ""
    timeout: float | None = None
    """Seconds a run may take, queueing not counted; at least 1."""
    model: str | None = None
    max_budget_usd: float | None = None
    """US dollars per run; 0 lifts the default of the settings."""
    permission_mode: str | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    effort: str | None = None
    """How much the model thinks, as `claude --effort` takes it."""
    fallback_model: str | None = None
    """Answers while the model is overloaded."""
    tools: list[str] | None = None
    """The built-in tools that exist for it; None: all."""
    env_allow: list[str] | None = None
    """Environment variables that it inherits, with `*`, besides those that Claude Code needs; None:
    all."""
    env_deny: list[str] | None = None
    """Those that it does not inherit, whatever `env_allow` says."""
    instructions: str | None = None
    """Appended to the system prompt of each run."""
    exclusive: bool = False
    """One run of it at a time on this machine."""
    nested: bool = True
    """False: our server is not started in it."""
    capabilities: list[str] | None = None
    """Labels that tell callers what it can do."""
    host: str | None = None
    """A host of this file, which has the agent; all else but the description stands there."""
    agent: str | None = None
    """The name of the agent on that host; None: the same."""
    permission_prompts: str | None = None
    """`deny` or `ask`; None: as the settings say."""
    verify: list[str] | None = None
    """A command and its arguments, which check the agent's work when a call asks for that."""
    verify_always: bool = False
    """They do so after each call."""
    verify_attempts: int = 1
    """How often they run at most; between two times the agent repairs what they found."""


class GroupMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent of a group; it need not be configured."""

    agent: str
    use_for: str = ""
    """When to give this agent a task of the group."""


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[groups.NAME]` table, as written."""

    description: str = ""
    """How to work with the group; no agent reads it."""
    shared_context: str = ""
    """Facts that every member gets with a task given to it as a member."""
    members: list[GroupMember] = []


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[settings.cache]`."""

    enabled: bool = True
    ttl: float = 300
    """Seconds an answer stays valid."""
    max_size: int = 1000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[settings]`: what every agent inherits, and the limits of this machine."""

    default_timeout: float = 300
    default_model: str | None = None
    default_permission_mode: str | None = None
    default_allowed_tools: list[str] | None = None
    default_disallowed_tools: list[str] | None = None
    default_max_budget_usd: float | None = None
    max_dispatch_depth: int = 3
    max_concurrency: int = 5
    """Runs at once, per depth, all processes of this user's jobs directory together."""
    permission_prompts: str = "deny"
    """What becomes of a call without a permission: `deny`, or `ask` a person."""
    question_seconds: float = 300
    """How long such a question waits for an answer."""
    patience_seconds: float = 0
    """A call over MCP is answered after this time at the latest; 0: as its client is known to
    need it; negative: with no limit."""
    task_after_seconds: float = 2
    """A call of a client that takes tasks becomes one after this time."""
    notify: list[str] | None = None
    """The command, with its arguments, that is told of questions and of ended background jobs."""
    mcp_may_widen_permissions: bool = False
    """A model may give agents more rights by `add_agent` and `update_agent`."""
    call_retention_days: float = 7
    background_retention_days: float = 0
    """How long after their end the records of background jobs are kept; 0: until `gc`."""
    max_cost_per_day_usd: float | None = None
    """US dollars that all runs of a local day may cost together; None: no ceiling."""
    max_cost_per_tree_usd: float | None = None
    """The same for one call or command and everything below it."""
    max_runs_per_tree: int | None = None
    hold_at_usage_limit: bool = False
    """A background job that meets a limit of the account waits until it resets."""
    max_holds: int = 3
    """How often one job may wait so."""
    cache: CacheSettings = CacheSettings()


class UnknownKey(msgspec.Struct, frozen=True):
    """A key that nothing reads; kept in the file, reported by `doctor`."""

    where: str
    """The table, as in `agents.infra` or `settings`."""
    key: str
    nearest: str | None
    """The known key it resembles most, if any does."""


class ValueWarning(msgspec.Struct, frozen=True):
    """A value that is passed on but probably not meant, such as an unknown permission mode."""

    where: str
    """The table, as in `agents.infra` or `settings`."""
    key: str
    problem: str

    def __str__(self) -> str:
        """The warning as one line."""
        return f"{self.where}.{self.key}: {self.problem}"


class EffectiveAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent with its settings inherited: all that a run needs to know of the configuration."""

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
    """Where it is, if not on this machine; `directory` is empty then."""
    agent: str | None = None
    """Its name there; None: the same."""
    permission_prompts: str = "deny"
    verify: tuple[str, ...] | None = None
    verify_always: bool = False
    verify_attempts: int = 1

    @property
    def asks(self) -> bool:
        """Whether a person is asked for the permissions that it lacks."""
        return self.permission_prompts == "ask"


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One `[hosts.NAME]` table: a machine or container that has agents of its own."""

    ssh: str | None = None
    """What `ssh` is given: a name of the user's own ssh configuration, or `user@machine`."""
    exec: list[str] | None = None
    """A command that runs its last arguments there, in place of ssh."""
    program: str | None = None
    """The path of `agent-dispatch` there; None: where installers put it."""
    lease_seconds: float = 120
    """How long a call goes on there while its caller is not heard."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of `agents.toml`, the broken parts named."""

    agents: dict[str, AgentConfig] = {}
    broken: dict[str, str] = {}
    """Agent name -> what is wrong with its table."""
    groups: dict[str, GroupConfig] = {}
    broken_groups: dict[str, str] = {}
    """Group name -> what is wrong with its table."""
    hosts: dict[str, HostConfig] = {}
    broken_hosts: dict[str, str] = {}
    """Host name -> what is wrong with its table; its agents are not usable."""
    settings: Settings = Settings()
    broken_settings: dict[str, str] = {}
    """Setting -> what is wrong with it. Its default stands in, and no run may start."""
    unknown_keys: tuple[UnknownKey, ...] = ()
    warnings: tuple[ValueWarning, ...] = ()
