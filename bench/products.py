"""What is compared: this product, and its published predecessor in an environment of its own."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AGENTS = 10
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Product:
    """One installation, configured with the same agents as the other."""

    name: str
    program: str
    """Its console script."""
    python: str
    """The interpreter that it runs on."""
    environ: Mapping[str, str]
    watched_tool: str
    """The tool that dispatches and reports while the agent works."""

    def command(self, *arguments: str) -> list[str]:
        """The command line of one of its commands."""
        return [self.program, *arguments]


def ours(root: Path, base: Mapping[str, str], *, limit: int | None = None) -> Product:
    """This product, from the environment that runs the benchmark.

    Args:
        root: Where its configuration and its jobs are.
        base: The environment besides.
        limit: How many runs at once; None: the default.
    """
    config = root / "agents.toml"
    tables = [f"[agents.{name}]\ndirectory = {json.dumps(path)}\n" for name, path in _agents(root)]
    if limit is not None:
        tables.append(f"[settings]\nmax_concurrency = {limit}\n")
    config.write_text("\n".join(tables))
    return Product(
        name="agent-dispatch",
        program=_script_beside(sys.executable),
        python=sys.executable,
        environ=_environ(base, config, root / "jobs"),
        watched_tool="dispatch",
    )


def predecessor(
    program: str, root: Path, base: Mapping[str, str], *, limit: int | None = None
) -> Product:
    """The predecessor, by its console script or by the interpreter it is installed for."""
    if Path(program).name.startswith("python"):
        program = _script_beside(program)
    config = root / "agents.yaml"
    # JSON is YAML.
    agents = {name: {"directory": path} for name, path in _agents(root)}
    settings = {} if limit is None else {"max_concurrency": limit}
    config.write_text(json.dumps({"agents": agents, "settings": settings}))
    return Product(
        name="predecessor",
        program=program,
        python=str(Path(program).parent / "python"),
        environ=_environ(base, config, root / "jobs-predecessor"),
        watched_tool="dispatch_stream",
    )


def build_standin(root: Path) -> tuple[Path, str]:
    """Make the cheapest possible `claude`; its folder, and what it is."""
    folder = root / "standin"
    folder.mkdir()
    program = folder / "claude"
    compiler = shutil.which("cc")
    if compiler is not None:
        # Static where the machine has a static C library: it starts in half the time.
        for options in (["-static"], []):
            command = [compiler, "-O2", *options, "-o", str(program), str(_HERE / "standin.c")]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return folder, f"C program{' (static)' if options else ''}"
    program.write_text(f"#!{sys.executable} -IS\n" + (_HERE / "standin.py").read_text())
    program.chmod(0o755)
    return folder, "Python program (no C compiler found)"


def _agents(root: Path) -> list[tuple[str, str]]:
    agents = []
    for number in range(AGENTS):
        directory = root / "projects" / f"agent{number}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "CLAUDE.md").write_text(f"# Agent {number}\n\nLooks after service {number}.\n")
        agents.append((directory.name, str(directory)))
    return agents


def _environ(base: Mapping[str, str], config: Path, jobs: Path) -> dict[str, str]:
    return {**base, "AGENT_DISPATCH_CONFIG": str(config), "AGENT_DISPATCH_JOBS_DIR": str(jobs)}


def _script_beside(python: str) -> str:
    return str(Path(python).parent / "agent-dispatch")
