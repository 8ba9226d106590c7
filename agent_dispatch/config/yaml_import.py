"""An `agents.yaml`, as older installations have it, taken over into `agents.toml`.

Nothing is guessed: what cannot be used is reported and left out, the rest lands in one write. A
relative directory starts where the YAML file is and becomes absolute.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.registry import Registry
from agent_dispatch.config.scan import directory_problem
from agent_dispatch.config.schema import BadTableError, parse_agent, read_value
from agent_dispatch.config.toml_edit import Draft
from agent_dispatch.config.toml_scan import KeyPath
from agent_dispatch.config.values import (
    AGENT_READERS,
    CACHE_READERS,
    SETTING_READERS,
    Reader,
    nearest,
    permission_mode_problem,
)
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
    warnings: list[str] | None = None


class _Import:
    """One import under way."""

    def __init__(self, source: Path, draft: Draft, *, overwrite: bool) -> None:
        self._source = source
        self._draft = draft
        self._overwrite = overwrite
        self.added: list[str] = []
        self.replaced: list[str] = []
        self.settings: list[str] = []
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.warnings: list[str] = []

    def take_agent(self, key: object, entry: object) -> None:
        name = str(key)
        if isinstance(key, bool) or not isinstance(key, str | int):
            self.failed[name] = "YAML reads this name as something else than text: quote it"
            return
        exists = name in self._draft.data.get("agents", {})
        if exists and not self._overwrite:
            self.skipped[name] = "exists already; take it from the YAML file with --overwrite"
            return
        if not isinstance(entry, dict):
            self.failed[name] = "expected a mapping with a directory"
            return
        table = {key: value for key, value in entry.items() if value is not None}
        self._anchor(table)
        try:
            parse_agent(name, table)
        except BadTableError as error:
            self.failed[name] = str(error)
            return
        values = self._known(f"agents.{name}", table, AGENT_READERS)
        if exists:
            self._draft.remove_table(("agents", name))
            self.replaced.append(name)
        else:
            self.added.append(name)
        self._draft.add_table(("agents", name), values)
        self._doubts(name, values)

    def take_settings(self, where: KeyPath, section: object, readers: Mapping[str, Reader]) -> None:
        if section is None:
            return
        label = ".".join(where)
        if not isinstance(section, dict):
            self.failed[label] = "expected a mapping"
            return
        present: Any = self._draft.data
        for part in where:
            present = present.get(part, {})
            if not isinstance(present, dict):
                self.failed[label] = f"{label} in agents.toml is not a table"
                return
        taken: dict[str, Any] = {}
        for key, value in self._known(label, section, readers, also=("cache",)).items():
            if key in present:
                self.skipped[f"{label}.{key}"] = "is set already"
                continue
            try:
                read_value(key, readers[key], value)
            except BadTableError as error:
                self.failed[f"{label}.{key}"] = str(error)
            else:
                taken[key] = value
        if taken:
            self._draft.set_keys(where, taken)
            self.settings += [f"{label}.{key}" for key in taken]

    def report(self, config: Path) -> ImportReport:
        return ImportReport(
            source=str(self._source),
            config=str(config),
            added=self.added,
            replaced=self.replaced,
            settings=self.settings,
            skipped=self.skipped,
            failed=self.failed,
            warnings=self.warnings or None,
        )

    def _anchor(self, table: dict[str, Any]) -> None:
        directory = table.get("directory")
        if isinstance(directory, str) and directory and not directory.startswith("~"):
            table["directory"] = os.path.join(self._source.parent, directory)

    def _known(
        self,
        where: str,
        table: Mapping[Any, Any],
        readers: Mapping[str, Reader],
        *,
        also: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        for key in table:
            if key not in readers and key not in also:
                meant = nearest(str(key), readers)
                guess = f"; did you mean {meant}?" if meant else ""
                self.warnings.append(
                    f"{where}.{key} is no key that anything reads: left out{guess}"
                )
        return {key: table[key] for key in readers if table.get(key) is not None}

    def _doubts(self, name: str, values: Mapping[str, Any]) -> None:
        if problem := directory_problem(os.path.expanduser(values["directory"])):
            self.warnings.append(f"agents.{name}: {problem}")
        mode = values.get("permission_mode")
        if mode and (problem := permission_mode_problem(mode)):
            self.warnings.append(f"agents.{name}: {problem}")


def import_yaml(source: Path, registry: Registry, *, overwrite: bool = False) -> ImportReport:
    """Take agents and settings over from an `agents.yaml`.

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
        work = _Import(source, draft, overwrite=overwrite)
        for name, entry in agents.items():
            work.take_agent(name, entry)
        work.take_settings(("settings",), settings, SETTING_READERS)
        if isinstance(settings, dict):
            work.take_settings(("settings", "cache"), settings.get("cache"), CACHE_READERS)
        return work.report(registry.path)

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
            f"{source} is no agents.yaml: expected a mapping with agents and settings."
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
