"""The real Claude Code CLI, installed once into a cache folder outside the repository."""

from collections.abc import Iterable
from pathlib import Path

from tests.npm import CannotInstallError, installed

VERSION = "2.1.330"
"""The version with which the product's behaviour was measured."""


DOWNLOAD_MB, INSTALLED_MB = 180, 380
"""What the download of that version takes, about, and its files."""


def download_notice(
    cache: Path, chosen: Iterable[str], ignored: Iterable[str], markers: str
) -> str | None:
    """Say how much the tests are about to download, and how to leave it out; None if nothing.

    Args:
        cache: Where downloads are kept.
        chosen: The paths and tests that pytest was given.
        ignored: The paths that it was told to ignore.
        markers: The expression that chooses tests by their markers.
    """
    here = Path(__file__).parent
    paths = [Path(argument.partition("::")[0]).absolute() for argument in chosen]
    is_chosen = any(here.is_relative_to(path) or path.is_relative_to(here) for path in paths)
    is_left_out = here in (Path(path).absolute() for path in ignored) or markers == "not e2e"
    home = cache / f"claude-code-{VERSION}"
    if not is_chosen or is_left_out or home.is_dir():
        return None
    return (
        f"e2e: downloads Claude Code {VERSION} into {home} (about {DOWNLOAD_MB} MB, {INSTALLED_MB}"
        " MB on disk). Leave it out with: pytest --ignore tests/e2e"
    )


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
