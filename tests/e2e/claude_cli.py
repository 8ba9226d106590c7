"""The real Claude Code CLI, installed once into a cache folder outside the repository."""

from pathlib import Path

from tests.npm import CannotInstallError, installed

VERSION = "2.1.330"
"""The version with which the product's behaviour was measured."""


def installed_claude(cache: Path) -> Path:
    """Find the CLI's program in `cache`; install it there if it is missing.

    Raises:
        CannotInstallError: npm or Node is missing, or the installation failed.
    """
    name = f"claude-code-{VERSION}"
    home = installed(cache / name, [f"@anthropic-ai/claude-code@{VERSION}"])
    # The platform's package has the program: claude-code-linux-x64, -darwin-arm64, ...
    found = sorted(home.glob("node_modules/@anthropic-ai/claude-code-*/claude"))
    if not found:
        raise CannotInstallError(f"{home} has no program for this machine; remove it to retry")
    return found[0]
