"""The agents as both surfaces see them: listed, looked at, added, changed, removed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_dispatch.config.arguments import (
    check_directory,
    check_fields,
    check_name,
    require_not_negative,
)
from agent_dispatch.config.claude_files import file_problems, instruction_files
from agent_dispatch.config.claude_settings import read_claude_settings
from agent_dispatch.config.file import ConfigFile, Snapshot
from agent_dispatch.config.inherit import absolute_directory, resolve_agent
from agent_dispatch.config.scan import Scanner, preview, read_documents
from agent_dispatch.config.schema import BadTableError, parse_agent, read_value
from agent_dispatch.config.toml_edit import Draft
from agent_dispatch.config.values import AGENT_READERS, permission_mode_problem
from agent_dispatch.core.describe import describe
from agent_dispatch.errors import (
    ConfigError,
    InvalidRequestError,
    UnknownAgentError,
    UnusableAgentError,
)
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary, ProjectFacts
from agent_dispatch.model.config import AgentConfig, Config, EffectiveAgent

_MAX_PREVIEW_LINES = 200


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
        self.file = ConfigFile(path, lock_timeout_s=lock_timeout_s)
        self._scanner = Scanner()

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

    def effective(self, name: str) -> EffectiveAgent:
        """Give an agent with its settings inherited; whether its directory exists is not asked.

        Raises:
            UnknownAgentError: No agent has that name.
            UnusableAgentError: Its own table is broken.
            ConfigError: The file cannot be read or parsed, or a setting is broken: no run starts
                under limits that were not understood.
        """
        config = self.load()
        _require_known(config, name)
        if name in config.broken:
            raise UnusableAgentError(name, config.broken[name])
        if problem := _settings_problem(config):
            raise ConfigError(f"{self.path}: {problem}. Correct it: until then no run starts.")
        return resolve_agent(name, config.agents[name], config.settings, self.path.parent)

    def list_agents(self) -> list[AgentSummary]:
        """List all agents in the order of the file, the unusable ones with their problem.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        snapshot = self.file.read()
        return [AgentSummary(**self._row(snapshot, name)[0]) for name in _tables(snapshot.data)]

    def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """Show what takes effect for an agent, and the first lines of its documents.

        Args:
            name: The agent's.
            preview_lines: Of CLAUDE.md and of the README, at most 200; 0 leaves both out.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read or parsed.
        """
        snapshot = self.file.read()
        config = snapshot.config
        _require_known(config, name)
        row, agent = self._row(snapshot, name)
        lines = min(max(preview_lines, 0), _MAX_PREVIEW_LINES)
        warnings = [w for w in config.warnings if w.startswith((f"agents.{name}.", "settings."))]
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
            max_budget_usd=agent.max_budget_usd,
            warnings=warnings or None,
            instruction_files=list(files) or None,
            claude_md_preview=_preview(agent.directory, "CLAUDE.md", lines),
            readme_preview=_preview(agent.directory, "README.md", lines),
        )

    def add_agent(
        self,
        name: str,
        directory: str,
        *,
        description: str = "",
        timeout: float = 0,
        max_budget_usd: float = 0,
        model: str = "",
        permission_mode: str = "",
        allowed_tools: str = "",
        disallowed_tools: str = "",
    ) -> AgentChange:
        """Register an existing directory as an agent; what is left empty is inherited.

        Args:
            name: Letters, digits, hyphens, underscores.
            directory: `~` is expanded, a relative path starts where we run.
            description: Made from the project's documents if empty.
            timeout: Seconds; 0 inherits.
            max_budget_usd: US dollars per run; 0 inherits.
            model: Passed to the CLI.
            permission_mode: Passed to the CLI; an unknown one is warned about.
            allowed_tools: With commas between them, or a JSON array; `[]` grants nothing beyond
                the project's own settings.
            disallowed_tools: Likewise.

        Raises:
            InvalidRequestError: An argument is not allowed, or the name is taken.
            ConfigError: The file cannot be read, parsed or written; it is as it was.
        """
        check_name(name)
        path = check_directory(directory)
        require_not_negative("timeout", timeout)
        require_not_negative("max_budget_usd", max_budget_usd)
        given = check_fields(
            description=description,
            timeout=timeout,
            max_budget_usd=max_budget_usd,
            model=model,
            permission_mode=permission_mode,
            allowed_tools=allowed_tools,
            disallowed_tools=disallowed_tools,
        )
        before = self.file.read()
        _require_free(before.data, name)
        values: dict[str, Any] = {"directory": path, "description": given.get("description")}
        if values["description"] is None:
            values["description"] = describe(read_documents(Path(path)), self._scanner.scan(path))
        values |= {key: given[key] for key in AGENT_READERS if given.get(key) is not None}

        def add(draft: Draft) -> None:
            _require_free(draft.data, name)
            draft.add_table(("agents", name), values)

        self.file.edit(add)
        return AgentChange(
            agent=name,
            action="added",
            directory=path,
            description=values["description"],
            warnings=[
                *(self._warnings(values, before.config) or ()),
                *map(str, file_problems(path)),
            ]
            or None,
            config=str(self.path),
        )

    def update_agent(
        self,
        name: str,
        *,
        description: str = "",
        timeout: float = 0,
        max_budget_usd: float = 0,
        model: str = "",
        permission_mode: str = "",
        allowed_tools: str = "",
        disallowed_tools: str = "",
    ) -> AgentChange:
        """Change the fields that are given; a text `none` or a negative number takes one out.

        A field taken out is inherited again. `[]` for a list of tools is the empty list. An
        unusable agent can be changed if it is usable then.

        Raises:
            UnknownAgentError: No agent has that name.
            UnusableAgentError: It would still be unusable.
            InvalidRequestError: An argument is not allowed.
            ConfigError: The file cannot be read, parsed or written; it is as it was.
        """
        changes = check_fields(
            description=description,
            timeout=timeout,
            max_budget_usd=max_budget_usd,
            model=model,
            permission_mode=permission_mode,
            allowed_tools=allowed_tools,
            disallowed_tools=disallowed_tools,
        )
        before = self.load()
        _require_known(before, name)

        def update(draft: Draft) -> tuple[list[str], AgentConfig]:
            table = _require_table(draft.data, name)
            real = {key: value for key, value in changes.items() if _differs(table, key, value)}
            after = {key: value for key, value in {**table, **real}.items() if value is not None}
            try:
                agent = parse_agent(name, after)
            except BadTableError as error:
                raise UnusableAgentError(name, str(error)) from error
            if real:
                draft.set_keys(("agents", name), real)
            return list(real), agent

        changed, agent = self.file.edit(update)
        return AgentChange(
            agent=name,
            action="updated" if changed else "unchanged",
            directory=absolute_directory(agent.directory, self.path.parent),
            description=agent.description,
            changed=changed or None,
            warnings=self._warnings(changes, before),
            config=str(self.path),
        )

    def remove_agent(self, name: str) -> AgentChange:
        """Take an agent out, usable or not; its project is not touched.

        Raises:
            UnknownAgentError: No agent has that name.
            ConfigError: The file cannot be read, parsed or written; it is as it was.
        """
        _require_known(self.load(), name)

        def remove(draft: Draft) -> object:
            tables = _tables(draft.data)
            if name not in tables:
                raise UnknownAgentError(name, tables)
            table = tables[name]
            draft.remove_table(("agents", name))
            return table

        table = self.file.edit(remove)
        return AgentChange(
            agent=name,
            action="removed",
            directory=absolute_directory(_readable(table, "directory"), self.path.parent) or None,
            description=_readable(table, "description") or None,
            config=str(self.path),
        )

    def _inherited_mode(self, agent: EffectiveAgent) -> tuple[str, str] | tuple[None, None]:
        if agent.permission_mode or not agent.directory or self._environ is None:
            return None, None
        settings = read_claude_settings(agent.directory, self._environ)
        return settings.default_mode() or (None, None)

    def _row(self, snapshot: Snapshot, name: str) -> tuple[dict[str, Any], EffectiveAgent]:
        config = snapshot.config
        problem = _settings_problem(config)
        if name in config.broken:
            problem = config.broken[name]
            # Directory and description may well be readable, and say which agent it is.
            table = _tables(snapshot.data)[name]
            written = AgentConfig(
                directory=_readable(table, "directory"),
                description=_readable(table, "description"),
            )
        else:
            written = config.agents[name]
        agent = resolve_agent(name, written, config.settings, self.path.parent)
        facts = ProjectFacts(healthy=False)
        if agent.directory:
            facts = self._scanner.scan(agent.directory)
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
        }
        return row, agent

    def _warnings(self, values: Mapping[str, Any], config: Config) -> list[str] | None:
        """What to know of a change; `config` is from before it, which cannot fail any more."""
        found: list[str] = []
        mode = values.get("permission_mode")
        if mode is not None and (problem := permission_mode_problem(mode)):
            found.append(problem)
        if problem := _settings_problem(config):
            found.append(f"No run starts before this is corrected in {self.path}: {problem}.")
        return found or None


def _tables(data: Mapping[str, Any]) -> Mapping[str, Any]:
    tables: Mapping[str, Any] = data.get("agents", {})
    return tables


def _require_known(config: Config, name: str) -> None:
    if name not in config.agents and name not in config.broken:
        raise UnknownAgentError(name, available=(*config.agents, *config.broken))


def _require_free(data: Mapping[str, Any], name: str) -> None:
    if name in _tables(data):
        import shlex  # Only a message needs it.

        raise InvalidRequestError(
            f"Agent {name!r} exists already. To change it: agent-dispatch update"
            f" {shlex.quote(name)} (--help lists what); to replace it: agent-dispatch remove"
            f" {shlex.quote(name)}, then add it again."
        )


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
        return value is None or read_value(key, AGENT_READERS[key], table[key]) != value
    except BadTableError:
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
