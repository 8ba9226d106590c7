"""`hosts`: the machines and containers that have agents of their own."""

import os
import re
import subprocess
from collections.abc import Sequence

from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.output import listing, one_line, remark, table, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.cli.validation import check_choice
from agent_dispatch.config.hosts import HostRow, add_host, host_named, list_hosts, remove_host
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.model.config import HostConfig

_ACTIONS = ("list", "add", "remove", "install")
_INSTALL_S = 900.0
_WHEEL = re.compile(r"[A-Za-z0-9_.+-]+\.whl")
_URL = re.compile(r"(https?|git\+https|git\+ssh)://\S+")
_WITH_TOOLS = 'PATH="$HOME/.local/bin:$HOME/.cargo/bin:$PATH"; '
_INSTALL = (
    'if command -v uv >/dev/null; then exec uv tool install --force "$w"; fi; '
    'exec python3 -m pip install --user --force-reinstall "$w"'
)


def hosts(
    action: str = "list",
    name: str = "",
    /,
    *words: str,
    exec_: bool = False,
    program: str = "",
    lease_seconds: float = 0,
    from_: str = "",
    json: bool = False,
    shell: Shell,
) -> int:
    """List, add and remove hosts: machines and containers that have agents.

    Only `install` with --from contacts a host.

    - `hosts add gpu` uses the entry `gpu` of your ssh configuration, and `hosts add gpu ALIAS`
      another entry.
    - `hosts add dev --exec -- docker exec -i dev` runs a command in place of ssh.
    - `hosts install gpu` prints how to install this program there; with --from, it does that.

    Args:
        action: list, add, remove or install.
        name: The host: letters, digits, dots, hyphens and underscores.
        words: For add: the name that ssh knows, or with --exec the command and its arguments.
        exec_: The words after `--` are a command that runs its last arguments on the host.
        program: The path of agent-dispatch there; by default it is searched for.
        lease_seconds: How long a call goes on there without its caller, 5 to 3600; by default 120.
        from_: For install: a wheel file, or the URL of one, to install there.
        json: Print JSON.
    """
    check_choice("The action", action, _ACTIONS)
    if action == "list":
        return _list(shell, as_json=json)
    if not name:
        raise MisuseError(f"`hosts {action}` needs the name of a host.")
    if action != "add" and words:
        raise MisuseError(f"Unexpected argument: {words[0]!r}.")
    file = open_registry(shell).file
    if action == "install":
        return _install(shell, name, host_named(file.load(), name), from_)
    if action == "remove":
        remove_host(file, name)
    else:
        ssh, argv = _way(words, is_exec=exec_)
        add_host(file, name, ssh=ssh, argv=argv, program=program, lease_seconds=lease_seconds)
    done = "added" if action == "add" else "removed"
    if json:
        write_json(shell, {"host": name, "action": done, "config": str(file.path)})
    else:
        write_lines(shell, [f"{done.capitalize()} {name}."])
        if action == "add":
            remark(shell, f"Check it with: agent-dispatch doctor --host {name}")
    return 0


def _way(words: Sequence[str], *, is_exec: bool) -> tuple[str, Sequence[str]]:
    if is_exec and not words:
        raise MisuseError(
            "--exec needs a command after `--`, such as: hosts add dev --exec -- docker exec -i dev"
        )
    if is_exec:
        return "", words
    if len(words) > 1:
        raise MisuseError(
            f"Unexpected argument: {words[1]!r}. A command in place of ssh needs --exec."
        )
    return (words[0] if words else ""), ()


def _list(shell: Shell, *, as_json: bool) -> int:
    rows = list_hosts(open_registry(shell).load())
    if as_json:
        write_json(shell, rows)
    elif rows:
        write_lines(shell, table([_cells(row) for row in rows], shell))
    else:
        write_lines(shell, ["No hosts yet. Add one with: agent-dispatch hosts add NAME"])
    return 0


def _cells(row: HostRow) -> tuple[str, str, str]:
    if row.problem is not None:
        return one_line(row.name), "broken", f"problem: {one_line(row.problem)}"
    way = f"ssh {row.ssh}" if row.exec is None else f"exec {' '.join(row.exec)}"
    return one_line(row.name), one_line(way), f"agents: {listing(row.agents) or 'none'}"


def _install(shell: Shell, name: str, host: HostConfig, source: str) -> int:
    from agent_dispatch.remote.caller.ssh import argv_to

    if not source:
        write_lines(shell, _how_to_install(name, host))
        return 0
    if _URL.fullmatch(source):
        given = f"{source}\n".encode()
        script = f"{_WITH_TOOLS}read -r w; {_INSTALL}"
    else:
        wheel = os.path.basename(source)
        if not _WHEEL.fullmatch(wheel):
            raise MisuseError(f"--from takes a wheel file (*.whl) or a URL, not {source!r}.")
        try:
            with open(source, "rb") as file:
                given = file.read()
        except OSError as error:
            raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.") from error
        script = f'{_WITH_TOOLS}t=$(mktemp -d) && w="$t/{wheel}" && cat >"$w" && {_INSTALL}'
    try:
        done = subprocess.run(argv_to(host, script), input=given, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise DispatchError(f"{name} did not finish within {_INSTALL_S:g} s.") from None
    except OSError as error:
        raise DispatchError(f"{name} cannot be reached: {error}.") from error
    if done.returncode == 0:
        remark(shell, f"Installed. On {name}, run once: agent-dispatch init")
    return 1 if done.returncode else 0


def _how_to_install(name: str, host: HostConfig) -> list[str]:
    if host.exec is None:
        ways = [
            f"  scp WHEEL {host.ssh}: && ssh {host.ssh} 'uv tool install ./WHEEL'",
            f"  or: ssh {host.ssh} 'pip install URL'",
        ]
    else:
        ways = ["  inside it: uv tool install ./WHEEL", "  or inside it: pip install URL"]
    return [
        f"Install agent-dispatch on {name} from the wheel that you used here, or from a URL:",
        *ways,
        f"Then, on {name}, run once: agent-dispatch init",
        f"Or let this command do it: agent-dispatch hosts install {name} --from WHEEL|URL",
    ]
