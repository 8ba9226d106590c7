"""The facts about one turn that were read from the output of claude."""

from collections.abc import Mapping

import msgspec

from agent_dispatch.core.stream.events import (
    McpServer,
    PromptOutcome,
    RateLimitInfo,
    ResultEvent,
    SystemEvent,
)
from agent_dispatch.model.ledger import ModelCost
from agent_dispatch.model.question import Verdict


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call that was denied, and the reason that the CLI gave."""

    tool: str
    input: str = ""
    """Compact JSON, cut; empty if not known."""
    command: str = ""
    """The shell command."""
    path: str = ""
    """The file or directory."""
    url: str = ""
    reason_type: str = ""
    """From `permission_denied`, or else from the metadata of the call's result."""
    source: str = ""
    """Who decided, from the metadata of the call's result."""
    kind: str = ""
    """Why it did not run, from the metadata of the call's result."""
    message: str = ""
    """The message of the CLI, cut."""
    explained: bool = False
    """An event other than the `result` reported it. Then an empty `reason_type` means that no
    rule, mode or hook denied the call."""
    verdict: Verdict | None = None
    """The verdict, if a person was asked."""


class CallsMade(msgspec.Struct, frozen=True):
    """The tool calls of a run, with those of subagents and without denied ones."""

    total: int
    tools: Mapping[str, int]
    """The number of calls by tool."""
    written: tuple[str, ...]
    """Files that were written or edited, named as in the calls."""
    read_only: bool
    """All attempted calls, denied ones included, were of tools that change nothing."""


class Seen(msgspec.Struct, kw_only=True):
    """What `Transcript` has read in one turn; `Seen()` means no output.

    `Transcript` fills one while it reads, and returns copies of it.
    """

    init_seen: bool = False
    session_id: str | None = None
    """Set once a transcript can exist, so that the session can be resumed."""
    results: tuple[ResultEvent, ...] = ()
    """In order; the oldest may have been dropped to bound memory."""
    dropped_results: int = 0
    num_turns: int | None = None
    """Summed over all results."""
    usage_cost_usd: float | None = None
    """US dollars of this run, from the usage in its results; None: no result had usage."""
    model_usage: Mapping[str, ModelCost] = {}
    """Cost and tokens by model."""
    model: str | None = None
    """From the last `init`."""
    session_cost_usd: float | None = None
    """US dollars of the session so far, from the last result."""
    cost_before_usd: float | None = None
    """The same before this turn, if the process had earlier turns."""
    denials: tuple[Denial, ...] = ()
    """In order."""
    calls: CallsMade | None = None
    """None: no output was read."""
    cwd: str | None = None
    """From the last `init`."""
    permission_mode: str | None = None
    """From the last `init`."""
    failed_servers: tuple[McpServer, ...] = ()
    """MCP servers that did not start, from the last `init`."""
    turn_open: bool = False
    """A turn had no result yet when the output ended."""
    unfinished_tasks: int = 0
    """Background tasks that still ran or were cut off."""
    running_hooks: tuple[str, ...] = ()
    """Hooks that had not ended."""
    held_by_stop_hook: bool = False
    """A Stop hook kept the turn from ending until the CLI overrode it."""
    prompt_refused: PromptOutcome | None = None
    """Set if a hook did not let the prompt through."""
    words_recovered: bool = False
    """The last result was empty, and was given the agent's last words."""
    unanswered_text: str = ""
    """The model's last text, if no answer followed it."""
    last_text: str = ""
    """The model's last text, whatever followed it."""
    api_error: str | None = None
    """The kind of the last API error that the CLI reported, such as `authentication_failed`."""
    last_retry: SystemEvent | None = None
    """The API error that the CLI was about to retry after."""
    rate_limit: RateLimitInfo | None = None
    cut_lines: int = 0
    noise_tail: str = ""
    """The last lines on stdout that were not events."""

    @property
    def denied_tools(self) -> tuple[str, ...]:
        """The tool of each denied call, in order."""
        return tuple(denial.tool for denial in self.denials)
