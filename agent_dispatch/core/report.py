"""All that is known of a run when it has ended: what `classify` decides from."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agent_dispatch.core.event_types import (
    McpServer,
    PromptOutcome,
    RateLimitInfo,
    ResultEvent,
    SystemEvent,
)
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.ledger import ModelCost
from agent_dispatch.model.question import Verdict


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


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call that was denied, and what the CLI said of the reason."""

    tool: str
    input: str = ""
    """Compact JSON, cut; empty if it is not known."""
    command: str = ""
    """What a shell would have run."""
    path: str = ""
    """The file or directory it was about."""
    url: str = ""
    reason_type: str = ""
    """As in `permission_denied`, or else as in the metadata of the call's result."""
    source: str = ""
    """Who decided, as in the metadata of the call's result."""
    kind: str = ""
    """Why it did not run, as in the metadata of the call's result."""
    said: str = ""
    """The CLI's own words, cut."""
    explained: bool = False
    """An event other than the `result` told of it, so that an empty `reason_type` means that no
    rule, mode or hook denied it."""
    asked: Verdict | None = None
    """What came of it when a person was asked."""


class CallsMade(msgspec.Struct, frozen=True):
    """The tool calls of a run, subagents' included and denied ones not."""

    total: int
    tools: Mapping[str, int]
    """How many of each tool."""
    written: tuple[str, ...]
    """Files that were written or edited, as the calls named them."""
    read_only: bool
    """Each call that was attempted, denied ones included, was one that changes nothing."""


class TreeChanges(msgspec.Struct, frozen=True):
    """What changed in a Git work tree during a run."""

    files: tuple[str, ...]
    """From the agent's directory, new names of renamed files; deleted ones too."""
    commits: tuple[str, ...]
    """Full ids, oldest first."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a run printed, as far as it matters; `Transcript.seen` makes it, `Seen()` is silence."""

    init_seen: bool = False
    session_id: str | None = None
    """Set once a transcript can exist, so that the session can be resumed."""
    results: tuple[ResultEvent, ...] = ()
    """In order; the oldest may have been dropped to bound memory."""
    dropped_results: int = 0
    num_turns: int | None = None
    """Summed over all results."""
    usage_cost_usd: float | None = None
    """US dollars of this run, from the usage that came with its results; None: none came."""
    model_usage: Mapping[str, ModelCost] = {}
    """The same by model, with the tokens."""
    model: str | None = None
    """As the last `init` said."""
    session_cost_usd: float | None = None
    """US dollars of the session so far, as the last result said."""
    cost_before_usd: float | None = None
    """What of that was said before this turn, where the process had earlier ones."""
    denials: tuple[Denial, ...] = ()
    """The calls that were denied, in order."""
    calls: CallsMade | None = None
    """None: no stream was read."""
    cwd: str | None = None
    """As the last `init` said."""
    permission_mode: str | None = None
    """As the last `init` said."""
    failed_servers: tuple[McpServer, ...] = ()
    """MCP servers that did not start, as the last `init` said."""
    turn_open: bool = False
    """The agent was at work when the output ended: a turn had no result yet."""
    unfinished_tasks: int = 0
    """Background tasks that still ran, or that were stopped, but not by the agent."""
    running_hooks: tuple[str, ...] = ()
    """Hooks that had begun and not ended."""
    held_by_stop_hook: bool = False
    """A Stop hook refused the end of the turn until the CLI overrode it."""
    prompt_refused: PromptOutcome | None = None
    """A hook did not let the prompt through."""
    words_recovered: bool = False
    """The last result was empty; what stands in it is what the agent said last."""
    unanswered_text: str = ""
    """The model's last words in a turn that ended without an answer."""
    last_text: str = ""
    """What the model said last, whatever it did then."""
    api_error: str | None = None
    """Kind of the API error that the CLI reported last, such as `authentication_failed`."""
    last_retry: SystemEvent | None = None
    """The API error that the CLI was waiting to try again after."""
    rate_limit: RateLimitInfo | None = None
    cut_lines: int = 0
    noise_tail: str = ""
    """The last lines on stdout that were no events."""

    @property
    def denied_tools(self) -> tuple[str, ...]:
        """One for each call that was denied, in order."""
        return tuple(denial.tool for denial in self.denials)


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
