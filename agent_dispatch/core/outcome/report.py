"""The report of a run that has ended, from which `classify` decides."""

from enum import StrEnum

import msgspec

from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent


class Ending(StrEnum):
    """Why the run ended."""

    EXITED = "exited"
    """The process exited, was ended by someone else, or was ended after its answer."""
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Cancelled with its last words kept: we interrupted the turn, and it ended."""
    AUTH = "auth"
    """We ended it when the API refused its credentials twice in a row."""
    GUARD_LOST = "guard_lost"
    """The guard of the process died, so the process was ended with it."""
    START_FAILED = "start_failed"


class StartStage(StrEnum):
    """The step that failed when a run could not be started."""

    DIRECTORY = "directory"
    """The agent's directory is missing or is not a directory."""
    CHDIR = "chdir"
    """The directory cannot be entered."""
    CLI_MISSING = "cli_missing"
    """No `claude` was found."""
    CLI_NOT_EXECUTABLE = "cli_not_executable"
    EXEC = "exec"
    """The kernel refused to execute it."""
    FORK = "fork"
    """No process could be created."""


class StartFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run could not be started."""

    stage: StartStage
    errno: int | None = None
    text: str = ""
    """The system's message, or where we looked."""
    file: str | None = None
    """The file that cannot be executed."""


class TreeChanges(msgspec.Struct, frozen=True):
    """What changed in a Git work tree during a run."""

    files: tuple[str, ...]
    """Relative to the agent's directory; renamed files by their new names, deleted ones too."""
    commits: tuple[str, ...]
    """Full ids, oldest first."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run, from start to end."""

    agent: EffectiveAgent
    ending: Ending
    job_id: str = ""
    """The job that the run belongs to."""
    duration_ms: int
    """Wall time of the run, queueing not counted."""
    timeout_s: float
    seen: Seen = msgspec.field(default_factory=Seen)
    response_format: str = ""
    json_schema: str = ""
    resumed: str | None = None
    """The session to resume; None: a new one."""
    is_first_turn: bool = True
    """Its process had no turn before."""
    exit_code: int | None = None
    """Negative for a signal; None if the process was never started or never reaped."""
    cancelled_by: str = ""
    """Who cancelled it, as in "Cancelled by ..."."""
    stderr_tail: str = ""
    start_failure: StartFailure | None = None
    program: str = "claude"
    """The program that was started, for messages."""
    messages: int = 0
    """The number of messages that the agent got while it worked."""
    left_running: int = 0
    """Processes that the agent left behind; they were ended with the run."""
    changes: TreeChanges | None = None
    """None: no work tree, or it could not be read."""
    inherited: ClaudeSettings = ClaudeSettings()
    """Claude Code's own settings for the agent; read only if a tool was denied."""
