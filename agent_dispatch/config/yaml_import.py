"""Imports the `agents.yaml` of an older installation into `agents.toml`.

Entries that cannot be used are reported and left out; the rest is written at once. A relative
directory starts at the YAML file and becomes absolute.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.edit.draft import Draft, KeyPath
from agent_dispatch.config.keys import (
    AGENT_KEYS,
    CACHE_KEYS,
    GROUP_KEYS,
    MEMBER_KEYS,
    SETTING_KEYS,
    Key,
)
from agent_dispatch.config.project.documents import description_of
from agent_dispatch.config.project.facts import directory_problem
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.rights import check_import
from agent_dispatch.config.schema import BadTableError, parse_agent, parse_config, parse_group, warn
from agent_dispatch.config.values import BadValueError
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.files import read_regular
from agent_dispatch.model.names import did_you_mean
from agent_dispatch.model.rights import ChangedBy

# PyYAML reads about 100 kB a second; a configuration has a few kB.
_MAX_BYTES = 256 * 1024


class ImportReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an import did; each mapping gives the reason for an agent, a group or a setting."""

    source: str
    config: str
    added: list[str]
    """Agents, in the order of the source."""
    replaced: list[str]
    settings: list[str]
    """Imported settings, such as `settings.default_timeout`."""
    groups: list[str] = []
    """Groups, added or replaced, in the order of the source."""
    skipped: dict[str, str]
    """What `agents.toml` already has."""
    left_out: dict[str, str] = {}
    """Unknown keys, such as `agents.infra.colour`."""
    failed: dict[str, str]
    """What cannot be used."""
    warnings: list[str] = []


class _Import:
    """One import under way: it changes `draft` and fills `report`."""

    def __init__(self, source: Path, registry: Registry, draft: Draft) -> None:
        self._folder = source.parent
        self._draft = draft
        self.report = ImportReport(
            source=str(source),
            config=str(registry.path),
            added=[],
            replaced=[],
            settings=[],
            groups=[],
            skipped={},
            left_out={},
            failed={},
            warnings=[],
        )

    def import_agent(self, key: object, entry: object, *, overwrite: bool) -> None:
        name, report = str(key), self.report
        if isinstance(key, bool) or not isinstance(key, str | int):
            report.failed[name] = "YAML does not read this name as text: quote it"
            return
        exists = name in self._draft.data.get("agents", {})
        if exists and not overwrite:
            report.skipped[name] = "exists already; take it from the YAML file with --overwrite"
            return
        if not isinstance(entry, dict):
            report.failed[name] = "expected a mapping with a directory"
            return
        where = f"agents.{name}"
        table = {key: value for key, value in entry.items() if value is not None}
        if table.get("timeout") == 0:
            # In `agents.yaml`, 0 means to inherit.
            del table["timeout"]
        directory = table.get("directory")
        if isinstance(directory, str) and directory and not directory.startswith("~"):
            table["directory"] = os.path.join(self._folder, directory)
        try:
            agent = parse_agent(name, table)
        except BadTableError as error:
            report.failed[name] = str(error)
            return
        if not agent.description.strip():
            table["description"] = description_of(os.path.expanduser(agent.directory))
        values = self._only_known(where, table, AGENT_KEYS)
        if exists:
            self._draft.remove_table(("agents", name))
        (report.replaced if exists else report.added).append(name)
        self._draft.add_table(("agents", name), values)
        if problem := directory_problem(os.path.expanduser(agent.directory)):
            report.warnings.append(f"{where}: {problem}")
        report.warnings.extend(map(str, warn(where, AGENT_KEYS, msgspec.structs.asdict(agent))))

    def import_group(self, key: object, entry: object, *, overwrite: bool) -> None:
        name, report = str(key), self.report
        where = f"groups.{name}"
        exists = name in self._draft.data.get("groups", {})
        if exists and not overwrite:
            report.skipped[where] = "exists already; take it from the YAML file with --overwrite"
            return
        if not isinstance(entry, dict):
            report.failed[where] = "expected a mapping with members"
            return
        table = self._only_known(where, entry, GROUP_KEYS)
        try:
            parse_group(name, table)
        except BadTableError as error:
            report.failed[where] = str(error)
            return
        members = [
            _filled(self._only_known(f"{where}.members.{place}", member, MEMBER_KEYS))
            for place, member in enumerate(table.get("members", ()))
        ]
        if exists:
            self._draft.remove_table(("groups", name))
        self._draft.add_table(("groups", name), _filled({**table, "members": members}))
        report.groups.append(name)

    def import_settings(self, where: KeyPath, section: object, keys: Mapping[str, Key]) -> None:
        if section is None:
            return
        label, report = ".".join(where), self.report
        if not isinstance(section, dict):
            report.failed[label] = "expected a mapping"
            return
        present: Any = self._draft.data
        for part in where:
            present = present.get(part, {})
            if not isinstance(present, dict):
                report.failed[label] = f"{label} in agents.toml is not a table"
                return
        imported: dict[str, Any] = {}
        for name, value in self._only_known(label, section, keys).items():
            if name in present:
                report.skipped[f"{label}.{name}"] = "is set already"
                continue
            try:
                keys[name].read(value)
            except BadValueError as error:
                report.failed[f"{label}.{name}"] = str(error)
            else:
                imported[name] = value
        if imported:
            self._draft.set_keys(where, imported)
            report.settings.extend(f"{label}.{name}" for name in imported)

    def report_unknown_keys(self, data: Mapping[Any, Any]) -> None:
        """Report the keys at the top level that are not imported."""
        self._only_known("", data, ("agents", "groups", "settings"))

    def _only_known(
        self, where: str, table: Mapping[Any, Any], keys: Collection[str]
    ) -> dict[str, Any]:
        for name in table:
            if name not in keys and (where, name) != ("settings", "cache"):
                path = f"{where}.{name}" if where else str(name)
                self.report.left_out[path] = (
                    f"agent-dispatch has no such key.{did_you_mean(str(name), keys)}"
                )
        return {name: table[name] for name in keys if table.get(name) is not None}


def _filled(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value}


def import_yaml(source: Path, registry: Registry, *, overwrite: bool = False) -> ImportReport:
    """Import agents, groups and settings from an `agents.yaml`.

    Agents and groups that exist already are skipped, settings that are set already are kept.
    Unknown keys are left out and reported.

    Args:
        source: The YAML file; it is only read.
        registry: Where the agents go.
        overwrite: Replace agents and groups that exist already.

    Raises:
        InvalidRequestError: The source cannot be read or parsed.
        ConfigError: `agents.toml` cannot be read, parsed or written; it is unchanged.
    """
    source = source.absolute()
    data = _load(source)
    agents, groups = _mapping(source, data, "agents"), _mapping(source, data, "groups")
    settings = data.get("settings") or {}

    def change(draft: Draft) -> tuple[ImportReport, list[tuple[str, Any, Any]]]:
        before = draft.data
        work = _Import(source, registry, draft)
        work.report_unknown_keys(data)
        for name, entry in agents.items():
            work.import_agent(name, entry, overwrite=overwrite)
        for name, entry in groups.items():
            work.import_group(name, entry, overwrite=overwrite)
        work.import_settings(("settings",), settings, SETTING_KEYS)
        if isinstance(settings, dict):
            work.import_settings(("settings", "cache"), settings.get("cache"), CACHE_KEYS)
        after = draft.data
        check_import(parse_config(before), parse_config(after), is_nested=registry.is_nested)
        old, new = before.get("agents", {}), after.get("agents", {})
        return work.report, [(name, old.get(name, {}), new[name]) for name in new]

    report, tables = registry.file.edit(change)
    for name, old, new in tables:
        report.warnings.extend(registry.rights_log.add(name, old, new, ChangedBy.CLI))
    return report


class Unimported(msgspec.Struct, frozen=True):
    """An `agents.yaml` beside our file, with agents that our file lacks."""

    path: Path
    agents: tuple[str, ...]
    problem: str | None = None
    """Why it cannot be read; then `agents` is empty."""


def find_unimported(registry: Registry) -> Unimported | None:
    """Find the `agents.yaml` of the predecessor beside our file; None once all is imported.

    Raises:
        ConfigError: Our own file cannot be read or parsed.
    """
    path = registry.path.with_name("agents.yaml")
    if not path.exists():
        return None
    try:
        found = _mapping(path, _load(path), "agents")
    except InvalidRequestError as error:
        return Unimported(path, (), str(error))
    config = registry.load()
    names = tuple(str(name) for name in found)
    missing = tuple(n for n in names if n not in config.agents and n not in config.broken)
    return Unimported(path, missing) if missing else None


def _mapping(source: Path, data: Mapping[Any, Any], kind: str) -> Mapping[Any, Any]:
    found = data.get(kind) or {}
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{source}: {kind} is not a mapping of names to {kind}.")
    return found


def _load(source: Path) -> dict[Any, Any]:
    try:
        content, _ = read_regular(str(source), _MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise InvalidRequestError(f"{source} is larger than {_MAX_BYTES // 1024} KiB.")
    try:
        data = _parse(content)
    except ValueError as error:
        raise InvalidRequestError(f"{source} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidRequestError(
            f"{source} is not an agents.yaml: expected a mapping with agents and settings."
        )
    return data


def _parse(content: bytes) -> object:
    # Most calls never read YAML, and this import takes as long as all of `list`.
    import yaml

    try:
        # The C loader does not limit nesting and can crash the process.
        return yaml.load(content, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(reason) from error
