"""`init --client`: our server in the configuration file of another MCP client."""

import shlex
from collections.abc import Callable, Sequence

import msgspec

from agent_dispatch.cli.agents.import_yaml import mention_unimported
from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.output import note, one_line, warn, write_answer, write_json, write_lines
from agent_dispatch.cli.setup.byte_code import write_byte_code
from agent_dispatch.cli.setup.new_config import create_config
from agent_dispatch.cli.setup.project_offers import next_line, offer_projects
from agent_dispatch.cli.setup.registration import command_words, starts_us
from agent_dispatch.cli.setup.temporary_environments import (
    LastingRegistration,
    registration_of_this,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.cli.validation import check_choice
from agent_dispatch.config.clients.file import (
    ClientFile,
    backup_of,
    entry_text,
    put_entry,
    read_client_file,
)
from agent_dispatch.config.clients.record import Written, installing, read_record, record_written
from agent_dispatch.config.clients.table import (
    CLIENTS,
    Client,
    Passing,
    client_file,
    command_of,
    make_entry,
)
from agent_dispatch.config.paths import config_path, home_directory
from agent_dispatch.config.project.known_projects import KnownProject
from agent_dispatch.errors import ConfigError
from agent_dispatch.model.next_step import run


class ClientReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What `init --client` did."""

    config: str
    config_created: bool
    client: str
    file: str
    """The client's file."""
    changed: bool
    """False: our entry was in it already, as it should be."""
    command: list[str]
    """The command that the client starts."""
    warnings: list[str] = []
    """Why the entry will break."""
    notes: list[str] = []
    known_projects: list[KnownProject] = []
    """Projects that Claude Code knows and that are no agents."""
    agents_added: list[str] = []


def is_ours(entry: object) -> bool:
    """Whether an entry of a client's file starts agent-dispatch."""
    words = command_of(entry)
    return bool(words) and starts_us({"command": words[0], "args": words[1:]})


def print_entry(shell: Shell, name: str) -> int:
    """Print the entry for a client's file, whatever is in that file."""
    if not name:
        raise MisuseError("--print needs --client.")
    client = _client(name)
    words = command_words(registration_of_this(shell).registration)
    write_answer(shell, entry_text(client, make_entry(client, words, shell.environ)))
    return 0


def register_client(
    shell: Shell,
    name: str,
    consents: Callable[[Sequence[str]], bool],
    *,
    add_all: bool,
    as_json: bool,
) -> int:
    """Write our entry into the file of a client, and offer what Claude Code knows as agents.

    Args:
        name: The client.
        consents: Asked before an entry of our name that starts something else is replaced.
        add_all: Add all projects that Claude Code knows.
        as_json: Print what was done as JSON.
    """
    client = _client(name)
    write_byte_code()
    config = config_path(shell.environ)
    created = create_config(config)
    registry = open_registry(shell)
    registry.load()
    lasting = registration_of_this(shell)
    words = command_words(lasting.registration)
    path = client_file(client, shell.environ, home_directory(shell.environ))
    try:
        with installing(config):
            read_record(config)  # Raises if it is broken, before anything is written.
            file = read_client_file(client, path)
            keep = is_ours(file.present)
            if not keep:
                _require_consent(file, consents)
            written = Written(client=name, file=path, made=file.missing)
            changed = put_entry(file, make_entry(client, words, shell.environ), keep=keep)
            record_written(config, written)
    except ConfigError as error:
        step = run(f"agent-dispatch init --client {name} --print")
        raise ConfigError(str(error), *error.next_steps, step) from error
    report = ClientReport(
        config=str(config),
        config_created=created,
        client=name,
        file=path,
        changed=changed,
        command=words,
        warnings=lasting.warnings,
        notes=_notes(client, lasting, shell, str(config)),
    )
    if not as_json:
        _show(shell, client, report, backup=file.content is not None)
    mention_unimported(registry, shell)
    offered = offer_projects(registry, shell, add_all=add_all, as_json=as_json)
    report.known_projects, report.agents_added = offered.left, offered.added
    if as_json:
        write_json(shell, report)
    else:
        write_lines(shell, [next_line(registry, offered)])
    return 0


def _client(name: str) -> Client:
    check_choice("--client", name, CLIENTS)
    return CLIENTS[name]


def _require_consent(file: ClientFile, consents: Callable[[Sequence[str]], bool]) -> None:
    if file.present is None:
        return
    runs = shlex.join(command_of(file.present)) or "no program"
    if not consents([f"it runs {runs}"]):
        raise ConfigError(
            f"{file.path} has an entry of this name that runs {runs}. It was not changed;"
            " `--yes` replaces it."
        )


def _notes(client: Client, lasting: LastingRegistration, shell: Shell, config: str) -> list[str]:
    notes = list(lasting.notes)
    if shell.environ.get("AGENT_DISPATCH_CONFIG") and client.passing is Passing.NOT:
        setting = f"AGENT_DISPATCH_CONFIG={shlex.quote(config)}"
        notes.append(f"{client.title} must be started with {setting}")
    return notes


def _show(shell: Shell, client: Client, report: ClientReport, *, backup: bool) -> None:
    created = "created" if report.config_created else "already there, unchanged"
    done = "Registered with" if report.changed else "Already registered with"
    lines = [
        f"Config: {one_line(report.config)} ({created})",
        f"{done} {client.title}: {one_line(report.file)}",
    ]
    if report.changed and backup:
        lines.append(f"Copy of the file as it was: {one_line(backup_of(report.file))}")
    write_lines(shell, lines)
    warn(shell, *report.warnings)
    note(shell, *report.notes)
