"""Results that README shows: kept as JSON, and shown as they are kept."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.readme import README, write_block

RESULTS = README.parent / "bench" / "results"
Show = Callable[[Mapping[str, Any]], str]
"""Makes Markdown of a result."""


def keep(
    name: str,
    result: Mapping[str, Any],
    show: Show,
    *,
    folder: Path = RESULTS,
    readme: Path = README,
) -> None:
    """Put a result into a file of `folder` and into a block of `readme`, both of this name.

    Raises:
        NoBlockError: There is no such block; nothing is written.
    """
    text = json.dumps(result, indent=1) + "\n"
    # Shown as it is read back, so that a later look at both finds the same.
    write_block(name, show(json.loads(text)), readme)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def measured_commit() -> str:
    """Which commit is measured, for the end of a phrase; empty if that cannot be told."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "agent_dispatch")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {commit}{' and changes' if changed else ''}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(README.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
