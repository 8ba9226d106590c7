"""Imports the `agents.yaml` of an older installation into `agents.toml`.

Entries that cannot be used are reported and left out; the rest lands in one write. A relative
directory starts at the YAML file and becomes absolute.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.keys import (
    AGENT_KEYS,
    CACHE_KEYS,
    SETTING_KEYS,
    BadValueError,
    Key,
    nearest,
)
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.scan import directory_problem
from agent_dispatch.config.schema import BadTableError, parse_agent, warn
from agent_dispatch.config.toml_edit import Draft
from agent_dispatch.config.toml_scan import KeyPath
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.files import read_regular

# PyYAML reads some 100 kB a second, and a configuration has a few.
_MAX_BYTES = 256 * 1024


class ImportReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an import did; each mapping goes from an agent or a setting to the reason."""

    source: str
    config: str
    added: list[str]
    """Agents, in the order of the source."""
    replaced: list[str]
    settings: list[str]
    """Settings taken over, as in `settings.default_timeout`."""
    skipped: dict[str, str]
    """What `agents.toml` has already."""
    failed: dict[str, str]
    """What cannot be used."""
    warnings: list[str] = []


class _Import:
    """One import under way: it changes `draft` and fills `report`."""

    def __init__(self, source: Path, config: Path, draft: Draft) -> None:
        self._folder = source.parent
        self._draft = draft
        self.report = ImportReport(
            source=str(source),
            config=str(config),
            added=[],
            replaced=[],
            settings=[],
            skipped={},
            failed={},
            warnings=[],
        )

    def take_agent(self, key: object, entry: object, *, overwrite: bool) -> None:
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
        directory = table.get("directory")
        if isinstance(directory, str) and directory and not directory.startswith("~"):
            table["directory"] = os.path.join(self._folder, directory)
        try:
            agent = parse_agent(name, table)
        except BadTableError as error:
            report.failed[name] = str(error)
            return
        values = self._known(where, table, AGENT_KEYS)
        if exists:
            self._draft.remove_table(("agents", name))
        (report.replaced if exists else report.added).append(name)
        self._draft.add_table(("agents", name), values)
        if problem := directory_problem(os.path.expanduser(agent.directory)):
            report.warnings.append(f"{where}: {problem}")
        report.warnings.extend(map(str, warn(where, AGENT_KEYS, msgspec.structs.asdict(agent))))

    def take_settings(self, where: KeyPath, section: object, keys: Mapping[str, Key]) -> None:
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
        taken: dict[str, Any] = {}
        for name, value in self._known(label, section, keys).items():
            if name in present:
                report.skipped[f"{label}.{name}"] = "is set already"
                continue
            try:
                keys[name].read(value)
            except BadValueError as error:
                report.failed[f"{label}.{name}"] = str(error)
            else:
                taken[name] = value
        if taken:
            self._draft.set_keys(where, taken)
            report.settings.extend(f"{label}.{name}" for name in taken)

    def _known(
        self, where: str, table: Mapping[Any, Any], keys: Mapping[str, Key]
    ) -> dict[str, Any]:
        for name in table:
            if name not in keys and (where, name) != ("settings", "cache"):
                meant = nearest(str(name), keys)
                guess = f"; did you mean {meant}?" if meant else ""
                self.report.warnings.append(f"{where}.{name}: unknown key, ignored{guess}")
        return {name: table[name] for name in keys if table.get(name) is not None}


def import_yaml(source: Path, registry: Registry, *, overwrite: bool = False) -> ImportReport:
    """Import agents and settings from an `agents.yaml`.

    Agents that exist already are skipped, settings that are set already are kept.

    Args:
        source: The YAML file; it is only read.
        registry: Where the agents go.
        overwrite: Replace agents that exist already.

    Raises:
        InvalidRequestError: The source cannot be read or parsed, or PyYAML is not installed.
        ConfigError: `agents.toml` cannot be read, parsed or written; it is as it was.
    """
    source = source.absolute()
    data = _load(source)
    agents, settings = data.get("agents") or {}, data.get("settings") or {}
    if not isinstance(agents, dict):
        raise InvalidRequestError(f"{source}: agents is not a mapping of names to agents.")

    def take(draft: Draft) -> ImportReport:
        work = _Import(source, registry.path, draft)
        for name, entry in agents.items():
            work.take_agent(name, entry, overwrite=overwrite)
        work.take_settings(("settings",), settings, SETTING_KEYS)
        if isinstance(settings, dict):
            work.take_settings(("settings", "cache"), settings.get("cache"), CACHE_KEYS)
        return work.report

    return registry.file.edit(take)


def _load(source: Path) -> dict[Any, Any]:
    parse = _yaml_parser()
    try:
        content, _ = read_regular(str(source), _MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise InvalidRequestError(f"{source} is larger than {_MAX_BYTES // 1024} KiB.")
    try:
        data = parse(content)
    except ValueError as error:
        raise InvalidRequestError(f"{source} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidRequestError(
            f"{source} is not an agents.yaml: expected a mapping with agents and settings."
        )
    return data


def _yaml_parser() -> Callable[[bytes], object]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise InvalidRequestError(
            "Reading YAML needs PyYAML. Install it with: pip install 'agent-dispatch[yaml]'"
        ) from error

    def parse(content: bytes) -> object:
        try:
            # The C loader has no bound on nesting and can take the process down.
            return yaml.load(content, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(reason) from error

    return parse
