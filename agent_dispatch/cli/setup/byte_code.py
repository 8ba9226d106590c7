"""Write byte code at `init`.

Installers such as uv do not write it, and then the first start is slow.
"""

import compileall
import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import agent_dispatch

_SLOW = "mcp"
"""The library that takes longest to import. If it has byte code, so have the others."""
_IMPORTS = (
    "agent_dispatch.server.stdio_server, agent_dispatch.worker, agent_dispatch.cli.app, cyclopts"
)
_TIMEOUT_S = 120.0


def write_byte_code() -> None:
    """Compile this package and its dependencies; quick if that was done before.

    A directory that cannot be written is skipped, as Python does. Like an installer, this ignores
    PYTHONDONTWRITEBYTECODE.
    """
    compileall.compile_dir(Path(agent_dispatch.__file__).parent, quiet=2)
    if _has_byte_code(_SLOW):
        return
    # A Python that imports them writes their byte code. If it takes too long, the first start of
    # the server writes the rest.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-P", "-c", f"import {_IMPORTS}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            timeout=_TIMEOUT_S,
            check=False,
        )


def _has_byte_code(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return True
    return Path(importlib.util.cache_from_source(spec.origin)).exists()
