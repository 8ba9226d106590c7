"""What Claude Code says on stdout, as far as a dispatch needs it.

Names, types and meanings as measured with Claude Code 2.1.330; the rest is skipped. Every field has
a default, because other versions leave some out, and none may cost the event it came with.
"""

from typing import Any

import msgspec


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """One of `mcp_servers` in an `init`."""

    name: str = ""
    status: str = ""
    """`connected`, `failed`, `needs-auth`, `pending` …"""
    source: str = ""
    """`project` for those of `.mcp.json`."""


class BackgroundTask(msgspec.Struct, frozen=True, kw_only=True):
    """One of `tasks` in a `background_tasks_changed`."""

    task_id: str = ""
    ambient: bool = False
    """Not activity: a watcher that never ends by itself."""
    off_host: bool = False
    """Runs elsewhere; nothing here has to stay up for it."""


class TaskPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a `task_updated` changes."""

    status: str | None = None
    is_backgrounded: bool | None = None


class TaskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a subagent has used so far."""

    tool_uses: int = 0


class PromptOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the hooks made of a prompt that they did not let through."""

    kind: str = ""
    """`blocked_by_hook` or `stopped_by_hook`."""
    reason: str = ""


class SystemEvent(msgspec.Struct, frozen=True, kw_only=True, tag="system", tag_field="type"):
    """A fact about the run rather than its talk; `subtype` says which, and which fields are set."""

    subtype: str = ""
    session_id: str | None = None

    # init, once per turn
    model: str | None = None
    claude_code_version: str | None = None
    mcp_servers: tuple[McpServer, ...] = ()
    cwd: str | None = None
    """Where it works, symbolic links resolved."""
    permission_mode: str | None = msgspec.field(name="permissionMode", default=None)

    # permission_denied
    tool_name: str | None = None
    tool_use_id: str | None = None
    decision_reason_type: str | None = None
    """`rule`, `subcommandResults`, `mode`, `hook`, `safetyCheck` …; None: nothing granted it."""
    message: str | None = None

    # api_retry
    attempt: int | None = None
    max_retries: int | None = None
    retry_delay_ms: float | None = None
    error_status: int | None = None
    """HTTP status; None when there was no answer at all."""
    error: str | None = None

    # background_tasks_changed: all that are alive after the change
    tasks: tuple[BackgroundTask, ...] | None = None

    # task_started, task_updated, task_notification
    task_id: str | None = None
    is_backgrounded: bool | None = None
    ambient: bool = False
    description: str | None = None
    status: str | None = None
    summary: str | None = None
    patch: TaskPatch | None = None

    # task_progress, task_notification
    run_id: str | None = None
    usage: TaskUsage | None = None
    last_tool_name: str | None = None

    # hook_started, hook_response
    hook_id: str | None = None
    hook_name: str | None = None
    """Event and matcher, such as `SessionStart:startup`."""

    # notification
    key: str | None = None

    # informational
    prompt_submit_outcome: PromptOutcome | None = None


class ToolInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool is given, as far as a dispatch needs it."""

    task_id: str = ""
    """Of `TaskStop`."""
    shell_id: str = ""
    """What `TaskStop` takes as well, and what `KillShell` took before it."""
    file_path: str = ""
    """Of `Read`, `Write` and `Edit`."""
    notebook_path: str = ""
    command: str = ""
    """Of `Bash`."""
    pattern: str = ""
    """Of `Grep` and `Glob`."""
    path: str = ""
    url: str = ""
    """Of `WebFetch`."""
    query: str = ""
    """Of `WebSearch`."""


class ContentBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One block of a message; its `type` says which fields are set."""

    type: str = ""
    text: str = ""

    # tool_use
    id: str = ""
    name: str = ""
    input: ToolInput = ToolInput()

    # tool_result
    tool_use_id: str = ""
    is_error: bool | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said, or what it was told; text alone, without blocks, is not read."""

    content: tuple[ContentBlock, ...] = ()


class RateLimitWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One of the account's limits, such as that of five hours."""

    utilization: float | None = None
    """The share in use: 0.92 is 92 %."""
    resets_at: float | None = msgspec.field(name="resetsAt", default=None)
    """Epoch seconds."""


class RateLimitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API said of the account's limit."""

    status: str | None = None
    """`allowed`, `allowed_warning` or `rejected`."""
    resets_at: float | None = msgspec.field(name="resetsAt", default=None)
    """Epoch seconds."""
    rate_limit_type: str | None = msgspec.field(name="rateLimitType", default=None)
    """The limit that is nearest: `five_hour`, `seven_day` …"""
    utilization: float | None = None
    """The share of that limit in use: 0.92 is 92 %."""
    windows: dict[str, RateLimitWindow] | None = msgspec.field(name="unifiedWindows", default=None)
    """Every limit that is known, by its type."""


class ApiErrorParams(msgspec.Struct, frozen=True, kw_only=True):
    """Facts beside the CLI's words for an API error."""

    rate_limit_info: RateLimitInfo | None = None


class AssistantEvent(msgspec.Struct, frozen=True, kw_only=True, tag="assistant", tag_field="type"):
    """Text or a tool call of the model, or the CLI's own report of an API error."""

    session_id: str | None = None
    parent_tool_use_id: str | None = None
    """Set for a subagent's talk."""
    message: Message = Message()
    error: str | None = None
    """Kind of API error when this is a report of one, such as `authentication_failed`."""
    api_error_params: ApiErrorParams | None = None


class PermissionDecision(msgspec.Struct, frozen=True, kw_only=True):
    """How it was decided whether a tool call may run."""

    decision: str = ""
    source: str = ""
    """`hook`, `config`, `user_reject` (a deny rule about a path or a domain) …"""
    reason_type: str = ""


class ToolResultMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What the CLI says of one tool result beside its text."""

    id: str = ""
    non_execution_kind: str = ""
    """`permission-rule` if something denies it, `user-rejected` if a person would be asked."""
    permission_decision: PermissionDecision | None = None


class UserEvent(msgspec.Struct, frozen=True, kw_only=True, tag="user", tag_field="type"):
    """A tool's result, or a message that the CLI put into the conversation."""

    session_id: str | None = None
    parent_tool_use_id: str | None = None
    message: Message = Message()
    tool_result_meta: tuple[ToolResultMeta, ...] = ()


class ModelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one model was used for."""

    cost_usd: float | None = msgspec.field(name="costUSD", default=None)
    input_tokens: int | None = msgspec.field(name="inputTokens", default=None)
    output_tokens: int | None = msgspec.field(name="outputTokens", default=None)
    cache_read_input_tokens: int | None = msgspec.field(name="cacheReadInputTokens", default=None)
    cache_creation_input_tokens: int | None = msgspec.field(
        name="cacheCreationInputTokens", default=None
    )


class PermissionDenial(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that was refused."""

    tool_name: str = ""
    tool_use_id: str = ""
    tool_input: str = ""
    """The JSON that the call was given: an object, which the decoder hands over as its text."""


class ResultEvent(msgspec.Struct, frozen=True, kw_only=True, tag="result", tag_field="type"):
    """The end of a turn: the answer, or what kept it from being given."""

    subtype: str = ""
    """`success` also when the API failed; `error_*` when a limit or an interrupt ended the turn."""
    is_error: bool | None = None
    result: str = ""
    """The answer, or the CLI's words for the error; JSON when it was not text."""
    session_id: str | None = None
    num_turns: int | None = None
    """Requests to the model in this turn; 0: none was asked."""
    total_cost_usd: float | None = None
    """US dollars of the whole session so far, earlier runs included."""
    model_usage_since_last_result: dict[str, ModelUsage] | None = None
    """By model, only what came since the last result of this process."""
    permission_denials: tuple[PermissionDenial, ...] = ()
    errors: tuple[str, ...] = ()
    terminal_reason: str | None = None
    api_error_status: int | None = None
    api_error_type: str | None = None
    api_error: str | None = None
    startup_failure_reason: str | None = None
    structured_output: Any | msgspec.UnsetType = msgspec.UNSET


class RateLimitEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="rate_limit_event", tag_field="type"
):
    """The account's limit, whenever it changes."""

    session_id: str | None = None
    rate_limit_info: RateLimitInfo = RateLimitInfo()


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the CLI asks."""

    subtype: str = ""

    # can_use_tool
    tool_name: str = ""
    input: Any = None
    """What the tool would be given."""
    tool_use_id: str = ""


class ControlRequestEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="control_request", tag_field="type"
):
    """The CLI waits for an answer on stdin."""

    request_id: str = ""
    request: ControlRequest = ControlRequest()


class ControlCancelRequestEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="control_cancel_request", tag_field="type"
):
    """The CLI no longer waits for the answer to one of its requests."""

    request_id: str = ""


class CommandLifecycleEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="command_lifecycle", tag_field="type"
):
    """What became of a user line that had an id."""

    command_uuid: str = ""
    state: str = ""
    """`queued`, `started`, `completed` or `cancelled` (measured with 2.1.330)."""


class ControlResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the CLI answers."""

    subtype: str = ""
    request_id: str = ""
    error: str | None = None


class ControlResponseEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="control_response", tag_field="type"
):
    """The answer to a request of ours, such as an interrupt."""

    response: ControlResponse = ControlResponse()


class OtherEvent(msgspec.Struct, frozen=True):
    """An event of a type that no dispatch needs."""

    type: str


class NoiseLine(msgspec.Struct, frozen=True):
    """A line that is no event: a warning, plain text, a piece of something broken."""

    text: str
    """Its first characters."""


class CutLine(msgspec.Struct, frozen=True):
    """A line longer than any may be; all of it but the head is gone."""

    head: bytes


JsonEvent = (
    SystemEvent
    | AssistantEvent
    | UserEvent
    | ResultEvent
    | RateLimitEvent
    | ControlRequestEvent
    | ControlCancelRequestEvent
    | CommandLifecycleEvent
    | ControlResponseEvent
)
"""The events that are told apart by their `type`."""

Event = JsonEvent | OtherEvent | NoiseLine | CutLine
