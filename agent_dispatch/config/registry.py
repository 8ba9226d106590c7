"""The agents of `agents.toml`: list, inspect, add, update, remove."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import msgspec

from agent_dispatch.config.agent_fields import (
    check_directory,
    check_fields,
    check_name,
    require_free,
    require_not_negative,
)
from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.file import ConfigFile, FileContent
from agent_dispatch.config.hosts import AgentSeen, Sightings
from agent_dispatch.config.keys import AGENT_KEYS, BadValueError
from agent_dispatch.config.project.claude_files import file_problems, instruction_files
from agent_dispatch.config.project.claude_settings import read_claude_settings
from agent_dispatch.config.project.documents import preview, read_documents
from agent_dispatch.config.project.facts import read_facts
from agent_dispatch.config.rights_log import RightsLog
from agent_dispatch.config.schema import BadTableError, parse_agent, parse_config
from agent_dispatch.core.agents.describe import describe
from agent_dispatch.core.agents.rights import (
    WideningError,
    changes_in,
    command_for,
    rights_of,
    widened,
    widened_by_adding,
)
from agent_dispatch.core.command import current_depth
from agent_dispatch.errors import (
    ConfigError,
    InvalidRequestError,
    UnknownAgentError,
    UnknownGroupError,
    UnusableAgentError,
)
from agent_dispatch.model.agent import (
    AgentChange,
    AgentDetails,
    AgentFields,
    AgentSummary,
    Membership,
    ProjectFacts,
)
from agent_dispatch.model.config import AgentConfig, Config, EffectiveAgent, Settings
from agent_dispatch.model.rights import ChangedBy, Rights

_MAX_PREVIEW_LINES = 200


class ConfigSnapshot(msgspec.Struct, frozen=True):
    """The configuration as one read of the file saw it."""

    config: Config
    path: Path

    @property
    def settings(self) -> Settings:
        """What every agent inherits, and the limits of this machine."""
        return self.config.settings

    def effective(self, name: str) -> EffectiveAgent:
        """Return an agent with its settings inherited; its directory need not exist.

        Raises:
            UnknownAgentError: No agent has that name.
            UnusableAgentError: Its own table is broken.
            ConfigError: A setting is broken: no run starts under limits that were not understood.
        """
        config = self.config
        _require_known(config, name)
        if name in config.broken:
            raise UnusableAgentError(name, config.broken[name])
        if problem := _settings_problem(config):
            raise ConfigError(f"{self.path}: {problem}. Correct it: until then no run starts.")
        return _resolve(name, config.agents[name], config.settings, self.path.parent)

    def shared_context(self, group: str, agent: str) -> str:
        """Return what a member of a group is told with a task; it may be empty.

        Raises:
            UnknownGroupError: No group has that name.
            InvalidRequestError: The agent is not a member, or the group's own table is broken.
        """
        config = self.config
        if group in config.broken_groups:
            raise InvalidRequestError(
                f"Group {group!r} is not usable: {config.broken_groups[group]}. Correct its table"
                f" in {self.path}."
            )
        if group not in config.groups:
            raise UnknownGroupError(group, (*config.groups, *config.broken_groups))
        members = [member.agent for member in config.groups[group].members]
        if agent not in members:
            raise InvalidRequestError(
                f"Agent {agent!r} is not a member of group {group!r}. Members:"
                f" {', '.join(members) or 'none yet'}"
            )
        return config.groups[group].shared_context


class Registry:
    """The agents of one `agents.toml`.

    Every call reads the file as it is now. All of it blocks for file access; the three calls
    that change the file may wait for `lock_timeout_s`, so they belong in a worker thread or a
    command line. Safe to use from several threads.

    Args:
        path: The configuration; it need not exist.
        lock_timeout_s: How long a change waits for the changes of other processes.
        environ: Of the runs: names the user's home, whose settings agents inherit; None: unknown.
    """

    def __init__(
        self, path: Path, *, lock_timeout_s: float = 10.0, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = environ
        self._is_nested = current_depth(environ or {}) > 0
        self._rights_log = RightsLog(path.absolute())
        self.file = ConfigFile(path, lock_timeout_s=lock_timeout_s)

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

        Args:
            name: The agent's.
            config: From an earlier `load`, which saves reading the file again.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        return ConfigSnapshot(self.load(), self.path)

    def effective(self, name: str) -> EffectiveAgent:
        """Return one agent of a new snapshot; raises what `snapshot` and its `effective` raise."""
        return self.snapshot().effective(name)

    def list_agents(self, *, look: bool = True) -> list[AgentSummary]:
        """List all agents in the order of the file, the unusable ones with their problem.

        Args:
            look: At their directories; without it only the configuration speaks, and none of them
                is healthy.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        names = _tables(content.data)
        return [AgentSummary(**self._row(content, name, look=look)[0]) for name in names]

    def summary(self, name: str) -> AgentSummary:
        """Give one row of the list.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        _require_known(content.config, name)
        return AgentSummary(**self._row(content, name)[0])

    def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """Show what takes effect for an agent, and the first lines of its documents.

        Args:
            name: The agent's.
            preview_lines: Of CLAUDE.md and of the README, at most 200; 0 leaves both out.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read or parsed.
        """
        content = self.file.read()
        config = content.config
        _require_known(config, name)
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
            **row,
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
            rights_changes=self._rights_log.of(name) or None,
            claude_md_preview=_preview(agent.directory, "CLAUDE.md", lines),
            readme_preview=_preview(agent.directory, "README.md", lines),
        )

    def add_agent(
        self,
        name: str,
        directory: str,
        *,
        by: ChangedBy = ChangedBy.CLI,
        **fields: Unpack[AgentFields],
    ) -> AgentChange:
        """Register an existing directory as an agent; empty fields are inherited.

        Args:
            name: Letters, digits, hyphens, underscores.
            directory: `~` is expanded, a relative path starts where we run.
            by: Who asks.
            fields: The description is made from the project's documents if it is empty.

        Raises:
            InvalidRequestError: An argument is not allowed, or the name is taken.
            WideningError: It would have more rights than it inherits, which is for a person.
            ConfigError: The file cannot be read, parsed or written; it is unchanged.
        """
        check_name(name)
        path = check_directory(directory)
        require_not_negative(fields)
        given = check_fields(fields)
        before = self.file.read()
        require_free(before.data, name)
        values = {key: value for key, value in given.items() if value is not None}
        if "description" not in values:
            values["description"] = self.description_of(path)
        values["directory"] = path
        values = {key: values[key] for key in AGENT_KEYS if key in values}

        def add(draft: Draft) -> None:
            require_free(draft.data, name)
            settings = parse_config(draft.data).settings
            inherited = self._rights(AgentConfig(directory=path), settings)
            rights = self._rights(parse_agent(name, values), settings)
            keys = widened_by_adding(inherited, rights)
            said = {key: value for key, value in values.items() if key in given}
            command = command_for(["add", name, path], said)
            self._require_right(name, changes_in(inherited, rights, keys), by, settings, command)
            draft.add_table(("agents", name), values)

        self.file.edit(add)
        unlogged = self._log_change(name, {}, values, by)
        return AgentChange(
            agent=name,
            action="added",
            directory=path,
            description=values["description"],
            warnings=[
                *self._warnings(values, before.config),
                *map(str, file_problems(path)),
                *unlogged,
            ]
            or None,
            config=str(self.path),
        )

    def description_of(self, directory: str) -> str:
        """Make a description from the files of a project; without any, from its name."""
        return describe(read_documents(Path(directory)), read_facts(directory))

    def update_agent(
        self,
        name: str,
        *,
        by: ChangedBy = ChangedBy.CLI,
        allow: str = "",
        **fields: Unpack[AgentFields],
    ) -> AgentChange:
        """Change the given fields; the text `none` or a negative number removes one.

        A removed field is inherited again. `[]` for a list of tools is the empty list. A broken
        agent can be updated if that makes it usable.

        Args:
            name: The agent.
            by: Who asks.
            allow: Rules to add to those that are allowed, separated as in `allowed_tools`.
            fields: What to change.

        Raises:
            WideningError: It would give the agent more rights, which is for a person.
            UnknownAgentError: No agent has that name.
            UnusableAgentError: It would still be unusable.
            InvalidRequestError: An argument is not allowed.
            ConfigError: The file cannot be read, parsed or written; it is unchanged.
        """
        changes = check_fields(fields)
        added_rules = check_fields({"allowed_tools": allow}).get("allowed_tools") or []
        before = self.load()
        _require_known(before, name)

        def update(draft: Draft) -> tuple[dict[str, Any], dict[str, Any], AgentConfig]:
            table = _require_table(draft.data, name)
            settings = parse_config(draft.data).settings
            old_rights = self._rights_before(name, table, settings)
            if not set(added_rules) <= set(old_rights.allowed_tools):
                listed = changes.get("allowed_tools", list(old_rights.allowed_tools)) or []
                changes["allowed_tools"] = list(dict.fromkeys([*listed, *added_rules]))
            real = {key: value for key, value in changes.items() if _differs(table, key, value)}
            after = {key: value for key, value in {**table, **real}.items() if value is not None}
            try:
                agent = parse_agent(name, after)
            except BadTableError as error:
                raise UnusableAgentError(name, str(error)) from error
            rights = self._rights(agent, settings)
            wider = changes_in(old_rights, rights, widened(old_rights, rights))
            if real.get("verify"):
                # We run it, and nobody is asked for a permission.
                wider["verify"] = f"{table.get('verify') or 'none'} -> {real['verify']}"
            self._require_right(name, wider, by, settings, command_for(["update", name], real))
            if real:
                draft.set_keys(("agents", name), real)
            return dict(table), real, agent

        old, changed, agent = self.file.edit(update)
        unlogged = self._log_change(name, old, old | changed, by)
        return AgentChange(
            agent=name,
            action="updated" if changed else "unchanged",
            directory=_absolute(agent.directory, self.path.parent) or None,
            host=agent.host,
            description=agent.description,
            changed=list(changed) or None,
            warnings=[*self._warnings(changes, before), *unlogged] or None,
            config=str(self.path),
        )

    def check_import(self, before: Config, after: Config) -> None:
        """Refuse an import by a dispatched agent that would give any agent more rights.

        Raises:
            WideningError: It would.
        """
        if not self._is_nested:
            return
        inherited = self._rights(AgentConfig(directory=""), before.settings)
        for name, agent in after.agents.items():
            rights = self._rights(agent, after.settings)
            if (known := before.agents.get(name)) is not None:
                keys = widened(self._rights(known, before.settings), rights)
            else:
                keys = widened_by_adding(inherited, rights)
            if agent.verify and (known is None or known.verify != agent.verify):
                keys.append("verify")
            wider = dict.fromkeys(keys, "")
            self._require_right(name, wider, ChangedBy.CLI, before.settings, "")
        keys = widened(inherited, self._rights(AgentConfig(directory=""), after.settings))
        if after.settings.mcp_may_widen_permissions > before.settings.mcp_may_widen_permissions:
            keys.append("mcp_may_widen_permissions")
        wider = dict.fromkeys(keys, "")
        self._require_right("[settings]", wider, ChangedBy.CLI, before.settings, "")

    def log_import(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Log the rights that an import gave to agents; return what went wrong with that."""
        old, new = _tables(before), _tables(after)
        return [
            said
            for name in new
            for said in self._log_change(name, old.get(name, {}), new[name], ChangedBy.CLI)
        ]

    def _rights(self, agent: AgentConfig, settings: Settings) -> Rights:
        return rights_of(_resolve("", agent, settings, self.path.parent))

    def _rights_before(self, name: str, table: Mapping[str, Any], settings: Settings) -> Rights:
        """The rights of an agent as its table is; of a broken one, which cannot run, the least."""
        try:
            return self._rights(parse_agent(name, table), settings)
        except BadTableError:
            return self._rights(AgentConfig(directory=""), settings)

    def _require_right(
        self,
        name: str,
        wider: Mapping[str, str],
        by: ChangedBy,
        settings: Settings,
        command: str,
    ) -> None:
        """Refuse a change that gives more rights by the keys of `wider`, unless a person asks."""
        may_widen = by is not ChangedBy.MCP or settings.mcp_may_widen_permissions
        if wider and (self._is_nested or not may_widen):
            raise WideningError(name, wider, command, is_nested=self._is_nested)

    def _log_change(
        self, name: str, old: Mapping[str, Any], new: Mapping[str, Any], by: ChangedBy
    ) -> list[str]:
        """Log a change of rights; return what to say if that cannot be."""
        try:
            self._rights_log.add(name, old, new, by, time.time())
        except OSError as error:
            return [f"The change of rights could not be logged: {error}"]
        return []

    def remove_agent(self, name: str) -> AgentChange:
        """Remove an agent, usable or not; its project is not touched.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read, parsed or written; it is unchanged.
        """
        _require_known(self.load(), name)

        def remove(draft: Draft) -> object:
            tables = _tables(draft.data)
            if name not in tables:
                raise UnknownAgentError(name, tables)
            table = tables[name]
            draft.remove_table(("agents", name))
            return table

        still_in = groups_of(self.load(), name)
        table = self.file.edit(remove)
        return AgentChange(
            agent=name,
            action="removed",
            directory=_absolute(_readable(table, "directory"), self.path.parent) or None,
            description=_readable(table, "description") or None,
            warnings=[f"Group {group!r} still has it as a member." for group in still_in] or None,
            config=str(self.path),
        )

    def _inherited_mode(self, agent: EffectiveAgent) -> tuple[str, str] | tuple[None, None]:
        if agent.permission_mode or not agent.directory or self._environ is None:
            return None, None
        settings = read_claude_settings(agent.directory, self._environ)
        return settings.default_mode() or (None, None)

    def _row(
        self, content: FileContent, name: str, *, look: bool = True
    ) -> tuple[dict[str, Any], EffectiveAgent]:
        config = content.config
        problem = _settings_problem(config)
        if name in config.broken:
            problem = config.broken[name]
            # Directory and description may well be readable, and say which agent it is.
            table = _tables(content.data)[name]
            written = AgentConfig(
                directory=_readable(table, "directory"),
                description=_readable(table, "description"),
            )
        else:
            written = config.agents[name]
        agent = _resolve(name, written, config.settings, self.path.parent)
        facts = ProjectFacts(healthy=False)
        if agent.host is not None:
            facts = self._last_seen(agent)
        elif agent.directory and look:
            facts = read_facts(agent.directory)
        row = {
            "name": name,
            "directory": agent.directory,
            "description": agent.description,
            "healthy": facts.healthy and problem is None,
            "problem": problem or facts.problem,
            "has_claude_md": facts.has_claude_md,
            "has_mcp_config": facts.has_mcp_config,
            "mcp_servers": list(facts.mcp_servers) or None,
            "stacks": list(facts.stacks) or None,
            "dbs": list(facts.dbs) or None,
            "permission_mode": agent.permission_mode,
            "allowed_tools": _listed(agent.allowed_tools),
            "disallowed_tools": _listed(agent.disallowed_tools),
            "host": agent.host,
            "groups": groups_of(config, name) or None,
            "capabilities": _listed(agent.capabilities),
        }
        return row, agent

    def _last_seen(self, agent: EffectiveAgent) -> ProjectFacts:
        """What its host said last of an agent; one that was never seen counts as healthy."""
        if agent.host is None or self._environ is None:
            return ProjectFacts(healthy=True)
        host = Sightings.of(self._environ, self.path).host(agent.host)
        seen = host.agents.get(agent.agent or agent.name, AgentSeen())
        return ProjectFacts(healthy=seen.healthy, problem=seen.problem)

    def _warnings(self, values: Mapping[str, Any], config: Config) -> list[str]:
        """What to tell about a change; `config` is from before it."""
        found = [said for key in values for said in AGENT_KEYS[key].warnings(values[key])]
        if problem := _settings_problem(config):
            found.append(f"No run starts before this is corrected in {self.path}: {problem}.")
        return found


def groups_of(config: Config, agent: str) -> list[str]:
    """List the groups that an agent is a member of."""
    return [
        name
        for name, group in config.groups.items()
        if any(member.agent == agent for member in group.members)
    ]


def _memberships(config: Config, agent: str) -> list[Membership]:
    """Say what the groups of an agent say of themselves, and of it."""
    return [
        Membership(group=name, description=group.description, use_for=member.use_for)
        for name, group in config.groups.items()
        for member in group.members
        if member.agent == agent and (group.description or member.use_for)
    ]


def _resolve(name: str, agent: AgentConfig, settings: Settings, base: Path) -> EffectiveAgent:
    """Let an agent inherit what its own table leaves out; `base` is where directories start."""
    if agent.host is not None:
        # All else stands in the file of that host.
        agent = AgentConfig(
            directory="", description=agent.description, host=agent.host, agent=agent.agent
        )
        settings = Settings()
    values: dict[str, Any] = {"name": name}
    for key, rule in AGENT_KEYS.items():
        value = getattr(agent, key)
        if value is None and rule.has_default:
            value = getattr(settings, f"default_{key}")
        values[key] = value
    values["directory"] = _absolute(agent.directory, base)
    values["host"], values["agent"] = agent.host, agent.agent
    values["permission_prompts"] = agent.permission_prompts or settings.permission_prompts
    # 0 lifts the limit.
    values["max_budget_usd"] = values["max_budget_usd"] or None
    return msgspec.convert(values, EffectiveAgent)


def _absolute(directory: str, base: Path) -> str:
    """Expand `~` and let a relative path start at `base`; an empty one stays empty."""
    return os.path.join(base, os.path.expanduser(directory)) if directory else ""


def _tables(data: Mapping[str, Any]) -> Mapping[str, Any]:
    tables: Mapping[str, Any] = data.get("agents", {})
    return tables


def _require_known(config: Config, name: str) -> None:
    if name not in config.agents and name not in config.broken:
        raise UnknownAgentError(name, available=(*config.agents, *config.broken))


def _require_table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    tables = _tables(data)
    if name not in tables:
        raise UnknownAgentError(name, available=tables)
    table = tables[name]
    if not isinstance(table, dict):
        raise UnusableAgentError(name, "expected a table with a directory")
    return table


def _differs(table: Mapping[str, Any], key: str, value: object) -> bool:
    if key not in table:
        return value is not None
    try:
        return value is None or AGENT_KEYS[key].read(table[key]) != value
    except BadValueError:
        return True


def _settings_problem(config: Config) -> str | None:
    problems = [f"{key}: {problem}" for key, problem in config.broken_settings.items()]
    return "; ".join(problems) or None


def _readable(table: object, key: str) -> str:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, str) and "\0" not in value else ""


def _preview(directory: str, filename: str, lines: int) -> str | None:
    return preview(Path(directory), filename, lines) if directory else None


def _listed(tools: tuple[str, ...] | None) -> list[str] | None:
    return None if tools is None else list(tools)
