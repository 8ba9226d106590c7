"""What hosts last said about their agents, so that a listing can show it without asking them.

It is kept beside the jobs, in one small file per host.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from agent_dispatch.config.paths import jobs_path
from agent_dispatch.errors import NOT_JSON
from agent_dispatch.files import make_private_directory, read_regular, replace_durably

_MAX_BYTES = 4 * 1024 * 1024


class AgentSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host last said about one agent."""

    healthy: bool = True
    problem: str | None = None


class HostSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a host."""

    at: float = 0
    """When it last answered, in seconds since the epoch."""
    agents: dict[str, AgentSeen] = {}
    """By their names on the host."""


class Sightings:
    """What the hosts last said, for people to read; errors of the disk are ignored."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made when the first host answers."""
        self._directory = directory

    @classmethod
    def of(cls, environ: Mapping[str, str], config: Path) -> "Sightings":
        """Return the sightings of one configuration."""
        return cls(jobs_path(environ, config) / "remote" / "seen")

    def host(self, name: str) -> HostSeen:
        """Return what is known about a host; nothing if it has never answered."""
        with suppress(OSError, *NOT_JSON):
            content, _ = read_regular(str(self._directory / f"{name}.json"), _MAX_BYTES)
            return msgspec.json.decode(content, type=HostSeen)
        return HostSeen()

    def note(self, host: str, agents: Mapping[str, AgentSeen]) -> None:
        """Keep what a host says now about some of its agents."""
        known = self.host(host)
        seen = HostSeen(at=time.time(), agents={**known.agents, **agents})
        with suppress(OSError):
            make_private_directory(os.fspath(self._directory))
            replace_durably(str(self._directory / f"{host}.json"), msgspec.json.encode(seen))
