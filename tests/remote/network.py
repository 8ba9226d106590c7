"""Machines with a network and an sshd: namespaces on this machine. Needs root.

Each machine has its own `/etc/passwd`, mounted over the system's in a mount namespace, so that root
has another home directory and login shell there. The configuration of this machine is not touched.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.remote.machine import WarmMachine, wait_for

_ENTER = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'


@cache
def missing() -> str | None:
    """Return what this machine lacks for such a network, or None."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    for program in ("ip", "sshd", "ssh", "ssh-keygen", "mount"):
        if _which(program) is None:
            return f"needs {program}"
    name = f"adtry{os.getpid()}"
    tried = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        return f"cannot make network namespaces: {tried.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return None


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


class NetworkedMachine(WarmMachine):
    """A machine that is reached over the network, by ssh."""

    def __init__(self, home: Path, namespace: str, address: str, shell: str = "/bin/sh") -> None:
        """Make its home and its users."""
        super().__init__(home)
        self.namespace = namespace
        self.address = address
        self.passwd = home.with_name(f"{home.name}.passwd")
        self.set_shell(shell)
        self.sshd: subprocess.Popen[bytes] | None = None
        self._namespaces: list[int] = []

    def set_shell(self, shell: str) -> None:
        """Give root this login shell."""
        lines = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in lines if not line.startswith("root:")]
        users = [f"root:x:0:0:root:{self.home}:{shell}", *others]
        # In place: it may be bound over the system's file already.
        self.passwd.write_text("\n".join(users) + "\n")

    @property
    def entering(self) -> list[str]:
        """The beginning of a command line that runs a command on this machine."""
        enter = ["sh", "-c", _ENTER, "sh", str(self.passwd)]
        return ["ip", "netns", "exec", self.namespace, *enter]

    def namespaces(self) -> Sequence[int]:
        """Return descriptors of its network and of its mounts."""
        if not self._namespaces:
            pipe = subprocess.PIPE
            with subprocess.Popen([*self.entering, "cat"], stdin=pipe, stdout=pipe) as inside:
                assert inside.stdin is not None
                assert inside.stdout is not None
                inside.stdin.write(b"it runs\n")
                inside.stdin.flush()
                inside.stdout.readline()
                place = Path(f"/proc/{inside.pid}/ns")
                self._namespaces = [os.open(place / name, os.O_RDONLY) for name in ("net", "mnt")]
        return self._namespaces

    def leave(self) -> None:
        """Let go of its namespaces."""
        while self._namespaces:
            os.close(self._namespaces.pop())

    def start_sshd(self) -> None:
        """Let others in."""
        ssh = self.home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        key = ssh / "host_key"
        if not key.exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        config = ssh / "sshd_config"
        config.write_text(
            f"HostKey {key}\nAuthorizedKeysFile {ssh}/authorized_keys\nStrictModes no\n"
            "UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n"
            "LogLevel ERROR\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = _which("sshd")
        assert sshd is not None
        self.sshd = subprocess.Popen(
            [*self.entering, sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL
        )
        wait_for(self._listens)

    def _listens(self) -> bool:
        listing = subprocess.run(
            ["ip", "netns", "exec", self.namespace, "cat", "/proc/net/tcp"],
            capture_output=True,
            text=True,
            check=True,
        )
        return ":0016 " in listing.stdout

    def admits(self, other: "NetworkedMachine", alias: str, options: str = "") -> None:
        """Let `other` log in here, under the name `alias` of its ssh configuration."""
        ssh = other.home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        key = ssh / "id_ed25519"
        if not key.exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        line = f"{options} {key.with_suffix('.pub').read_text()}".strip()
        (self.home / ".ssh" / "authorized_keys").write_text(line + "\n")
        with (ssh / "config").open("a") as file:
            file.write(
                f"Host {alias}\n HostName {self.address}\n User root\n IdentityFile {key}\n"
                f" UserKnownHostsFile {ssh}/known_hosts\n StrictHostKeyChecking accept-new\n"
            )

    def processes(self) -> list[int]:
        """Return the pids of all processes on this machine."""
        done = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        return [int(word) for word in done.stdout.split()]

    def crash(self) -> None:
        """Kill all processes, as a power cut does."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.sshd is not None:
            self.sshd.wait()


class Network:
    """A bridge, and machines whose connection to it can be cut."""

    def __init__(self, place: Path) -> None:
        """Make the bridge."""
        self._place = place
        self._name = f"ad{os.getpid():x}"
        self._hub = f"{self._name}hub"
        self._machines: list[NetworkedMachine] = []
        _run("ip", "netns", "add", self._hub)
        _run("ip", "-n", self._hub, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", self._hub, "link", "set", "br0", "up")

    def machine(self, name: str, shell: str = "/bin/sh") -> NetworkedMachine:
        """Add a machine."""
        number = len(self._machines) + 1
        namespace, cable = f"{self._name}{name}", f"v{number}"
        made = NetworkedMachine(self._place / name, namespace, f"10.78.0.{number}", shell)
        self._machines.append(made)
        _run("ip", "netns", "add", namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run(
            *f"ip -n {self._hub} link add {cable} type veth peer name eth0".split(),
            "netns",
            namespace,
        )
        _run(*f"ip -n {self._hub} link set {cable} master br0 up".split())
        _run(*f"ip -n {namespace} addr add {made.address}/24 dev eth0".split())
        _run(*f"ip -n {namespace} link set eth0 up".split())
        return made

    def cut(self, machine: NetworkedMachine) -> None:
        """Cut the connection of a machine."""
        self._set(machine, "down")

    def join(self, machine: NetworkedMachine) -> None:
        """Restore the connection of a machine."""
        self._set(machine, "up")

    def _set(self, machine: NetworkedMachine, state: str) -> None:
        cable = f"v{self._machines.index(machine) + 1}"
        _run("ip", "-n", self._hub, "link", "set", cable, state)

    def close(self) -> None:
        """Kill all processes on the machines, and remove the network."""
        for machine in self._machines:
            machine.crash()
            machine.leave()
            subprocess.run(["ip", "netns", "del", machine.namespace], check=False)
        subprocess.run(["ip", "netns", "del", self._hub], check=False)


@contextmanager
def network(place: Path) -> Iterator[Network]:
    """Open a network for as long as the block runs."""
    made = Network(place)
    try:
        yield made
    finally:
        made.close()


def shells() -> Sequence[str]:
    """Return the login shells that are installed here."""
    names = ("sh", "bash", "zsh", "dash", "tcsh", "fish")
    return [path for name in names if (path := shutil.which(name)) is not None]
