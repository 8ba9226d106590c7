"""The place of measurements: installations of both products, and agents that a stage controls."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.speed.mcp_client import ANSWER_S, HERE, RequestId, Server, answer_of
from bench.speed.rows import OURS, PREDECESSOR
from tests.e2e.network import Place

AGENTS = 10
_STANDIN = Path(__file__).with_name("standin.c")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_NAP_S = 0.0002
_PASSING_S = 0.1
"""The longest time from opening the path of the gate to waiting at the gate."""
_QUIET_S = 10.0
"""If no agent has started for this long, no more will start."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """One installation; all are configured with the same agents."""

    name: str
    program: str
    """Its console script."""
    environ: Mapping[str, str]
    watched_tool: str
    """The tool that dispatches and reports progress."""
    place: Place = HERE
    """The network that its servers must be started in."""

    def command(self, *arguments: str) -> list[str]:
        """The command line of one of its commands."""
        return [self.program, *arguments]

    def start(self, environ: Mapping[str, str] | None = None) -> Server:
        """Start a server, without a handshake."""
        return Server(self.command("serve"), environ or self.environ, self.place)


class Stage:
    """Controls the scripted agents of one server, and reads what they record."""

    def __init__(
        self,
        folder: Path,
        *,
        gated: bool = False,
        counted: bool = False,
        seconds: float = 0,
        lines: int = 0,
        answer_bytes: int = 0,
        listens_s: float = 0,
    ) -> None:
        """Use an empty folder.

        Args:
            folder: A folder for this stage only.
            gated: The agents answer after `open_gate`.
            counted: The agents count themselves, for `peak`.
            seconds: How long they work.
            lines: How many messages they print meanwhile.
            answer_bytes: The minimum length of their answers.
            listens_s: How long they read their stdin.
        """
        self._stamps = folder / "stamps"
        self._gate = folder / "gate"
        self.environ = {"STANDIN_STAMPS": str(self._stamps)}
        if gated:
            os.mkfifo(self._gate)
            self.environ["STANDIN_GATE"] = str(self._gate)
        if counted:
            self.environ["STANDIN_SEATS"] = str(folder / "seats")
        settings = {"SECONDS": seconds, "LINES": lines, "BYTES": answer_bytes, "LISTENS": listens_s}
        for name, value in settings.items():
            if value:
                self.environ[f"STANDIN_{name}"] = str(value)

    def open_gate(self) -> None:
        """Let all agents at the gate answer; waits until there is one."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                os.close(os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise
                time.sleep(_NAP_S)
            else:
                return

    def remove_gate(self) -> None:
        """Let all agents answer, now and later."""
        both_ends = os.open(self._gate, os.O_RDWR)
        nothing = self._gate.with_name("nothing")
        nothing.touch()
        nothing.replace(self._gate)
        time.sleep(_PASSING_S)
        os.close(both_ends)

    def peak(self) -> int:
        """The most agents that ran at once so far, by the seats that they took."""
        lines = self._stamps.read_text().splitlines() if self._stamps.exists() else []
        words = (line.split() for line in lines)
        return max((int(seat) + 1 for what, _, seat in words if what == "start"), default=0)

    def stamp(self, what: str) -> float:
        """The time of the last `start` or `end` of an agent, by `time.monotonic`."""
        lines = self._stamps.read_text().splitlines()
        return next(float(line.split()[1]) for line in reversed(lines) if line.startswith(what))


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A folder that is removed afterwards, and the environment of the products."""

    root: Path
    environ: Mapping[str, str]
    """With `claude` on PATH: the scripted agent, or the real CLI."""
    agent: str
    """The program of the scripted agent."""
    agent_is: str
    predecessor: str
    """Its console script; empty: measure only this product."""
    place: Place = HERE

    def folder(self) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def products(self, *, limit: int | None = None) -> list[Product]:
        """New installations of this product and, if wanted, its predecessor.

        Args:
            limit: How many runs at once; None: the product's default.
        """
        root = self.folder()
        agents = {name: {"directory": path} for name, path in _agents(root).items()}
        settings = {} if limit is None else {"max_concurrency": limit}
        toml, yaml = root / "agents.toml", root / "agents.yaml"
        tables: dict[str, Mapping[str, object]] = {
            **{f"agents.{name}": table for name, table in agents.items()},
            "settings": settings,
        }
        toml.write_text("".join(map(_toml_table, tables, tables.values())))
        # JSON is YAML.
        yaml.write_text(json.dumps({"agents": agents, "settings": settings}))
        ours = str(Path(sys.executable).with_name("agent-dispatch"))
        products = [self._product(OURS, ours, toml, "dispatch")]
        if self.predecessor:
            products.append(self._product(PREDECESSOR, self.predecessor, yaml, "dispatch_stream"))
        return products

    def stage(self, **settings: Any) -> Stage:
        """A new stage with the settings of `Stage`."""
        return Stage(self.folder(), **settings)

    def wait_for_agents(self, server: Server, count: int) -> list[int]:
        """Wait until `count` agents run at once, or no more will start; returns their pids.

        Raises:
            RuntimeError: No agent runs.
        """
        most, deadline = 0, time.monotonic() + _QUIET_S
        while len(pids := server.tree.pids_of(self.agent)) < count and time.monotonic() < deadline:
            if len(pids) > most:
                most, deadline = len(pids), time.monotonic() + _QUIET_S
            time.sleep(0.1)
        if not pids:
            raise RuntimeError(f"no agent has started in {_QUIET_S:.0f} s")
        return pids

    def helpers(self, server: Server) -> list[int]:
        """The server and its helpers: everything except the agents."""
        agents = set(server.tree.pids_of(self.agent))
        return [pid for pid in server.tree.pids() if pid not in agents]

    def _product(self, name: str, program: str, config: Path, watched_tool: str) -> Product:
        jobs = config.with_name(f"jobs-{name}")
        named = {"AGENT_DISPATCH_CONFIG": str(config), "AGENT_DISPATCH_JOBS_DIR": str(jobs)}
        return Product(
            name=name,
            program=program,
            environ={**self.environ, **named},
            watched_tool=watched_tool,
            place=self.place,
        )


@contextmanager
def open_workshop(predecessor: str) -> Iterator[Workshop]:
    """Make a workshop for the duration of the block.

    Raises:
        RuntimeError: There is no C compiler for the scripted agent.
    """
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-bench-") as scratch:
        agent = Path(scratch) / "scripted" / "claude"
        agent.parent.mkdir()
        environ = {
            "PATH": f"{agent.parent}:{_SYSTEM_PATH}",
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "TMPDIR": scratch,
        }
        yield Workshop(
            root=Path(scratch),
            environ=environ,
            agent=str(agent),
            agent_is=build_agent(agent),
            predecessor=predecessor,
        )


def build_agent(program: Path) -> str:
    """Compile the scripted agent; returns its description.

    Raises:
        RuntimeError: There is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("the scripted agent needs a C compiler: install `cc`")
    # A static program starts in half the time, but not every machine has a static C library.
    static = [compiler, "-O2", "-static", "-o", str(program), str(_STANDIN)]
    if subprocess.run(static, capture_output=True, check=False).returncode == 0:
        return "C program (static)"
    subprocess.run([word for word in static if word != "-static"], check=True)
    return "C program"


def _agents(root: Path) -> dict[str, str]:
    agents = {}
    for number in range(AGENTS):
        directory = root / "projects" / f"agent{number}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "CLAUDE.md").write_text(f"# Agent {number}\n\nLooks after service {number}.\n")
        agents[directory.name] = str(directory)
    return agents


def _toml_table(name: str, values: Mapping[str, object]) -> str:
    # A string or an integer of JSON is one of TOML.
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"[{name}]\n{''.join(lines)}"


def serving(
    stack: ExitStack, product: Product, stage: Stage | None = None, *, open_files: int | None = None
) -> Server:
    """A server after its handshake; `stack` closes it and kills what is left of its tree."""
    environ = {**product.environ, **(stage.environ if stage else {})}
    server = Server(product.command("serve"), environ, product.place, open_files=open_files)
    stack.callback(server.tree.kill)
    stack.enter_context(server)
    server.initialize()
    return server


def warm_servers(
    stack: ExitStack, products: Sequence[Product], stage: Stage | None = None
) -> dict[str, Server]:
    """A server of each product that has served one dispatch, by the product's name."""
    servers = {product.name: serving(stack, product, stage) for product in products}
    for server in servers.values():
        dispatch(server, -1)
    return servers


def task(number: int) -> dict[str, str]:
    """The arguments of a dispatch; each task differs, so that no cache answers."""
    return {"agent": "agent0", "task": f"task {number}"}


def dispatch(server: Server, number: int) -> None:
    """Dispatch one task; RuntimeError if the dispatch fails."""
    succeeded(server.call("dispatch", task(number)))


def succeeded(answer: Any) -> Any:
    """The answer of a dispatch; RuntimeError if the dispatch failed."""
    if not answer["success"]:
        raise RuntimeError(f"the dispatch failed: {answer}")
    return answer


def is_right(answer: Mapping[str, Any], number: int) -> bool:
    """Whether the agent of exactly this dispatch has answered."""
    return bool(answer["success"]) and answer["result"] == f"done {number}"


def submit(server: Server, number: int = 0) -> str:
    """Start a background job; returns its id."""
    return submit_many(server, [number])[0]


def submit_many(server: Server, numbers: Sequence[int]) -> list[str]:
    """Start background jobs without waiting for each answer; returns their ids."""
    sent: list[RequestId] = [server.post_call("dispatch_async", task(n)) for n in numbers]
    answers = server.answers(sent)
    return [answer_of(answers[request])["job_id"] for request in sent]


def post_wait(server: Server, job_id: str, patience_s: float = ANSWER_S) -> RequestId:
    """Call `dispatch_wait` without waiting for its answer."""
    arguments = {"job_id": job_id, "timeout_seconds": patience_s}
    return server.post_call("dispatch_wait", arguments)


def wait_for(server: Server, job_id: str, patience_s: float = ANSWER_S) -> dict[str, Any]:
    """Wait for the end of a job, at most `patience_s`; returns the job."""
    sent = post_wait(server, job_id, patience_s)
    job: dict[str, Any] = answer_of(server.answers([sent])[sent])
    return job
