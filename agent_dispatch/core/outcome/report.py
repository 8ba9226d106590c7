"""All that is known of a run when it has ended: what `classify` decides from."""

from enum import StrEnum

import msgspec

from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent


class Ending(StrEnum):
    """Why the run ended."""

    EXITED = "exited"
    """The process ended by itself, or by somebody outside, or after its answer was complete."""
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Cancelled so that what was said is kept: we interrupted the turn, and it came to its end."""
    AUTH = "auth"
    """We ended it when the API refused its credentials twice in a row."""
    GUARD_LOST = "guard_lost"
    """What supervises the process died, so the process was ended with it."""
    START_FAILED = "start_failed"


class StartStage(StrEnum):
    """What could not be done when a run could not be started."""

    DIRECTORY = "directory"
    """The agent's directory is missing or is no directory."""
    CHDIR = "chdir"
    """It cannot be entered."""
    CLI_MISSING = "cli_missing"
    """No `claude` was found."""
    CLI_NOT_EXECUTABLE = "cli_not_executable"
    EXEC = "exec"
    """The kernel refused to execute it."""
    FORK = "fork"
    """No process could be made."""


class StartFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run could not be started."""

    stage: StartStage
    errno: int | None = None
    text: str = ""
    """What the system said, or where was looked."""
    file: str | None = None
    """The file that cannot be executed."""


class TreeChanges(msgspec.Struct, frozen=True):
    """What changed in a Git work tree during a run."""

    files: tuple[str, ...]
    """From the agent's directory, new names of renamed files; deleted ones too."""
    commits: tuple[str, ...]
    """Full ids, oldest first."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run, from start to end."""

    agent: EffectiveAgent
    ending: Ending
    job_id: str = ""
    """Of the job that it belongs to."""
    duration_ms: int
    """Wall time of the run, queueing not counted."""
    timeout_s: float
    seen: Seen = Seen()
    response_format: str = ""
    json_schema: str = ""
    resumed: str | None = None
    """The session that was to be continued; None: a fresh one."""
    is_first_turn: bool = True
    """Its process was asked nothing before."""
    exit_code: int | None = None
    """Negative for a signal; None if the process was never started or never reaped."""
    cancelled_by: str = ""
    """Who asked for the end, as in "Cancelled by ..."."""
    stderr_tail: str = ""
    start_failure: StartFailure | None = None
    program: str = "claude"
    """What was started, for messages."""
    messages: int = 0
    """What the agent was told more while it worked."""
    left_running: int = 0
    """Processes that the agent left behind and that were ended with it."""
    changes: TreeChanges | None = None
    """None: no work tree, or it could not be looked at."""
    inherited: ClaudeSettings = ClaudeSettings()
    """Claude Code's own settings for the agent; read only if a tool was denied."""
