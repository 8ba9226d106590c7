"""The agents of one `agents.toml`, as lists and details of them show."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent_dispatch.config.file import ConfigFile, FileContent
from agent_dispatch.config.project.claude_files import file_problems, instruction_files
from agent_dispatch.config.project.claude_settings import read_claude_settings
from agent_dispatch.config.project.documents import preview
from agent_dispatch.config.project.facts import read_facts
from agent_dispatch.config.rights import RightsLog
from agent_dispatch.config.sightings import AgentSeen, Sightings
from agent_dispatch.config.snapshot import ConfigSnapshot, require_known, resolve, settings_problem
from agent_dispatch.core.command import current_depth
from agent_dispatch.model.agent import AgentDetails, AgentSummary, Membership, ProjectFacts
from agent_dispatch.model.config import AgentConfig, Config, EffectiveAgent

_MAX_PREVIEW_LINES = 200


class Registry:
    """The agents of one `agents.toml`; `agents`, `groups` and `hosts` change them.

    Every call reads the file as it is now, and blocks. Safe to use from several threads.

    Args:
        path: The configuration; it need not exist.
        environ: The environment of the runs. It says where the user's settings are, which agents
            inherit, and whether a dispatched agent asks. None: unknown.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ
        self.file = ConfigFile(path)
        self.rights_log = RightsLog(path.absolute())
        self.is_nested = current_depth(environ or {}) > 0

    @property
    def path(self) -> Path:
        """The configuration file, absolute."""
        return self.file.path

    def load(self) -> Config:
        """Read the configuration; a missing file is an empty one.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        return self.file.load()

    def snapshot(self) -> ConfigSnapshot:
        """Read the file once, for a call that needs an agent and the settings.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        return ConfigSnapshot(self.load(), self.path)

    def list_agents(self, *, look: bool = True) -> list[AgentSummary]:
        """List all agents in the order of the file, the unusable ones with their problem.

        Args:
            look: Whether to look at their directories; without it, none of them is healthy.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        return [self._row(content, name, look=look)[0] for name in content.data.get("agents", {})]

    def summary(self, name: str) -> AgentSummary:
        """Return one row of the list.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        require_known(content.config, name)
        return self._row(content, name)[0]

    def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """Show what takes effect for an agent, and the first lines of its documents.

        Args:
            name: The agent's.
            preview_lines: How many lines of CLAUDE.md and of the README to show, at most 200; 0
                leaves both out.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        config = content.config
        require_known(config, name)
        row, agent = self._row(content, name)
        lines = min(max(preview_lines, 0), _MAX_PREVIEW_LINES)
        tables = (f"agents.{name}", "settings")
        warnings = [str(warning) for warning in config.warnings if warning.where in tables]
        files: tuple[str, ...] = ()
        if agent.directory:
            files = instruction_files(agent.directory)
            warnings += map(str, file_problems(agent.directory))
        mode, mode_file = self._inherited_mode(agent)
        return AgentDetails(
            **msgspec.structs.asdict(row),
            inherited_permission_mode=mode,
            inherited_permission_mode_from=mode_file,
            timeout=agent.timeout_s,
            model=agent.model,
            effort=agent.effort,
            fallback_model=agent.fallback_model,
            tools=_listed(agent.tools),
            env_allow=_listed(agent.env_allow),
            env_deny=_listed(agent.env_deny),
            instructions=agent.instructions,
            exclusive=agent.exclusive or None,
            verify=_listed(agent.verify),
            verify_always=agent.verify_always or None,
            verify_attempts=agent.verify_attempts if agent.verify else None,
            nested=None if agent.nested else False,
            max_budget_usd=agent.max_budget_usd,
            memberships=_memberships(config, name) or None,
            warnings=warnings or None,
            instruction_files=list(files) or None,
            permission_prompts=agent.permission_prompts if agent.asks else None,
            rights_changes=self.rights_log.changes_of(name) or None,
            claude_md_preview=_preview(agent.directory, "CLAUDE.md", lines),
            readme_preview=_preview(agent.directory, "README.md", lines),
        )

    def _inherited_mode(self, agent: EffectiveAgent) -> tuple[str, str] | tuple[None, None]:
        if agent.permission_mode or not agent.directory or self._environ is None:
            return None, None
        settings = read_claude_settings(agent.directory, self._environ)
        return settings.default_mode() or (None, None)

    def _row(
        self, content: FileContent, name: str, *, look: bool = True
    ) -> tuple[AgentSummary, EffectiveAgent]:
        config = content.config
        problem = settings_problem(config)
        if name in config.broken:
            problem = config.broken[name]
            # Directory and description may be readable, and show which agent it is.
            table = content.data["agents"][name]
            written = AgentConfig(
                directory=readable_text(table, "directory"),
                description=readable_text(table, "description"),
            )
        else:
            written = config.agents[name]
        agent = resolve(name, written, config.settings, self.path.parent)
        facts = ProjectFacts(healthy=False)
        if agent.host is not None:
            facts = self._last_seen(agent)
        elif agent.directory and look:
            facts = read_facts(agent.directory)
        row = AgentSummary(
            name=name,
            directory=agent.directory,
            description=agent.description,
            healthy=facts.healthy and problem is None,
            problem=problem or facts.problem,
            has_claude_md=facts.has_claude_md,
            has_mcp_config=facts.has_mcp_config,
            mcp_servers=list(facts.mcp_servers) or None,
            stacks=list(facts.stacks) or None,
            dbs=list(facts.dbs) or None,
            permission_mode=agent.permission_mode,
            allowed_tools=_listed(agent.allowed_tools),
            disallowed_tools=_listed(agent.disallowed_tools),
            host=agent.host,
            groups=groups_of(config, name) or None,
            capabilities=_listed(agent.capabilities),
        )
        return row, agent

    def _last_seen(self, agent: EffectiveAgent) -> ProjectFacts:
        """Return what its host last said about an agent; without that, it counts as healthy."""
        if agent.host is None or self._environ is None:
            return ProjectFacts(healthy=True)
        host = Sightings.of(self._environ, self.path).host(agent.host)
        seen = host.agents.get(agent.agent or agent.name, AgentSeen())
        return ProjectFacts(healthy=seen.healthy, problem=seen.problem)


def groups_of(config: Config, agent: str) -> list[str]:
    """List the groups that an agent is a member of."""
    return [
        name
        for name, group in config.groups.items()
        if any(member.agent == agent for member in group.members)
    ]


def _memberships(config: Config, agent: str) -> list[Membership]:
    """List what the groups of an agent say about themselves, and about it."""
    return [
        Membership(group=name, description=group.description, use_for=member.use_for)
        for name, group in config.groups.items()
        for member in group.members
        if member.agent == agent and (group.description or member.use_for)
    ]


def readable_text(table: object, key: str) -> str:
    """Return a text of a table that may be broken; empty if there is none."""
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, str) and "\0" not in value else ""


def _preview(directory: str, filename: str, lines: int) -> str | None:
    return preview(Path(directory), filename, lines) if directory else None


def _listed(tools: tuple[str, ...] | None) -> list[str] | None:
    return None if tools is None else list(tools)
