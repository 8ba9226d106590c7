"""Where the configuration and the jobs are: absolute paths, from the environment."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from agent_dispatch.errors import ConfigError
from agent_dispatch.model.names import did_you_mean
from agent_dispatch.model.next_step import run


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where `agents.toml` is: an absolute path, whether or not the file exists.

    `$AGENT_DISPATCH_CONFIG`, else `$XDG_CONFIG_HOME/agent-dispatch/agents.toml`, else
    `~/.config/agent-dispatch/agents.toml`; `~` is `$HOME`.

    Raises:
        ConfigError: The variable names a YAML file, or there is no home directory.
    """
    if named := environ.get("AGENT_DISPATCH_CONFIG"):
        path = Path(_absolute(named, environ))
        if path.suffix.lower() in (".yaml", ".yml"):
            raise ConfigError(
                f"AGENT_DISPATCH_CONFIG names a YAML file, {path}, and the configuration is TOML."
                " Unset the variable or let it name a .toml file, then import the agents.",
                run(f"agent-dispatch import {shlex.quote(str(path))}"),
            )
        return path
    base = environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification says to ignore relative paths.
    if not os.path.isabs(base):
        base = _with_home("~/.config", environ)
    return Path(base) / "agent-dispatch" / "agents.toml"


def require_named_config(environ: Mapping[str, str]) -> None:
    """Check that the file that `$AGENT_DISPATCH_CONFIG` names exists: the name may be mistyped.

    Raises:
        ConfigError: There is no such file, or the variable cannot be used.
    """
    if not environ.get("AGENT_DISPATCH_CONFIG"):
        return
    path = config_path(environ)
    if not os.path.lexists(path):
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        raise ConfigError(
            f"AGENT_DISPATCH_CONFIG names {path}, which does not exist."
            f"{did_you_mean(path.name, beside)}",
            run("agent-dispatch init"),
        )


def jobs_path(environ: Mapping[str, str], config: Path) -> Path:
    """Return where the jobs are: `$AGENT_DISPATCH_JOBS_DIR`, or `jobs/` beside `config`."""
    if named := environ.get("AGENT_DISPATCH_JOBS_DIR"):
        return Path(_absolute(named, environ))
    return config.absolute().parent / "jobs"


def with_absolute_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for workers and agents, which run in other directories.

    A relative path would name another file there; for an agent, one of its own project.

    Raises:
        ConfigError: A path is relative, and its directory is gone.
    """
    handed_on = dict(environ)
    for name in ("AGENT_DISPATCH_CONFIG", "AGENT_DISPATCH_JOBS_DIR"):
        if named := environ.get(name):
            handed_on[name] = _absolute(named, environ)
    if named := environ.get("CLAUDE_CONFIG_DIR"):
        # Claude Code does not expand `~`.
        handed_on["CLAUDE_CONFIG_DIR"] = _from_here(named)
    return handed_on


def _absolute(path: str, environ: Mapping[str, str]) -> str:
    return _from_here(_with_home(path, environ))


def _from_here(path: str) -> str:
    try:
        return str(Path(path).absolute())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is a relative path, and the working directory has been removed."
            " Change to a directory that exists, or make the path absolute."
        ) from error


def _with_home(path: str, environ: Mapping[str, str]) -> str:
    if path != "~" and not path.startswith("~/"):
        return path
    home = home_directory(environ)
    if not os.path.isabs(home):
        raise ConfigError(
            f"There is no home directory to find {path} in: HOME is {environ.get('HOME')!r}."
            " Set HOME, or AGENT_DISPATCH_CONFIG to the path of agents.toml."
        )
    return home + path[1:]


def home_directory(environ: Mapping[str, str]) -> str:
    """Return the user's home directory; empty if it is unknown."""
    if home := environ.get("HOME"):
        return home
    # expanduser() would expand an empty HOME to the root directory.
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
