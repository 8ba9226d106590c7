"""Makes the description for the package index: README.md with links that work there."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|mailto:|#)([^)]+\))")


def with_absolute_links(text: str, repository: str) -> str:
    """Let relative links lead to the repository, and pictures to their files in it."""

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found[1].startswith("!") else "blob"
        return f"{found[1]}{repository}/{kind}/main/{found[2]}"

    return _RELATIVE_LINK.sub(absolute, text)


class ReadmeHook(MetadataHookInterface):
    """Sets `readme`; `[project.urls] Repository` says where links lead."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field that pyproject.toml declares as dynamic."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_absolute_links(text, metadata["urls"]["Repository"]),
        }
