"""`init` leaves byte code behind, so that the next start is quick."""

import os
import subprocess
import sys
from pathlib import Path

import agent_dispatch


def test_byte_code_of_all_that_the_server_loads_is_written(tmp_path: Path) -> None:
    # A prefix of its own, as an installation without byte code.
    prefix = tmp_path / "pycache"
    code = "from agent_dispatch.cli.setup.byte_code import write_byte_code as write; write()"
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(prefix), "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, check=True
        )
        assert done.stdout == done.stderr == b""
    written = {path.name.partition(".")[0] for path in prefix.rglob("*.pyc")}
    ours = {path.stem for path in Path(agent_dispatch.__file__).parent.rglob("*.py")}
    assert ours <= written
    assert {"cyclopts", "trio", "mcp"} <= {path.name for path in prefix.rglob("*") if path.is_dir()}
