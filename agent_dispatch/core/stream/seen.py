"""What a run printed, as far as it matters."""

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
