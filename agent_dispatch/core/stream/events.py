"""The events that Claude Code prints on stdout, as far as a dispatch needs them.

Names, types and meanings were measured with Claude Code 2.1.330. Unknown fields are skipped. Every
field has a default, because other versions leave some out.
"""

from typing import Any

import msgspec


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """One of `mcp_servers` in an `init`."""

    name: str = ""
    status: str = ""
    """`connected`, `failed`, `needs-auth`, `pending` …"""


class BackgroundTask(msgspec.Struct, frozen=True, kw_only=True):
    """One of `tasks` in a `background_tasks_changed`."""

    task_id: str = ""
    ambient: bool = False
    """A watcher that never ends by itself; it does not count as activity."""
    off_host: bool = False
    """Runs elsewhere, so no process here has to wait for it."""


class TaskPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a `task_updated` changes."""

    status: str | None = None
    is_backgrounded: bool | None = None


class TaskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a subagent has used so far."""

    tool_uses: int = 0


class PromptOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Why a hook did not let a prompt through."""

    reason: str = ""


class SystemEvent(msgspec.Struct, frozen=True, kw_only=True, tag="system", tag_field="type"):
    """A fact about the run; `subtype` says which one, and which fields are set."""

    subtype: str = ""
    session_id: str | None = None

    # init, once per turn
    model: str | None = None
    claude_code_version: str | None = None
    mcp_servers: tuple[McpServer, ...] = ()
    cwd: str | None = None
    """The working directory, symbolic links resolved."""
    permission_mode: str | None = msgspec.field(name="permissionMode", default=None)

    # permission_denied
    tool_name: str | None = None
    tool_use_id: str | None = None
    decision_reason_type: str | None = None
    """`rule`, `subcommandResults`, `mode`, `hook`, `safetyCheck` …; None: nothing grants it."""
    message: str | None = None

    # api_retry
    attempt: int | None = None
    max_retries: int | None = None
    retry_delay_ms: float | None = None
    error_status: int | None = None
    """HTTP status; None when there was no answer at all."""
    error: str | None = None

    # background_tasks_changed: all live tasks after the change
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
    """The input of a tool call, as far as a dispatch needs it."""

    task_id: str = ""
    """Of `TaskStop`."""
    shell_id: str = ""
    """Of `TaskStop`, and of the older `KillShell`."""
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
    """A message from or to the model; content that is plain text, not blocks, is not read."""

    content: tuple[ContentBlock, ...] = ()


class RateLimitWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One of the account's limits, such as that of five hours."""

    utilization: float | None = None
    """The share in use: 0.92 is 92 %."""
    resets_at: float | None = msgspec.field(name="resetsAt", default=None)
    """Epoch seconds."""


class RateLimitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API said about the limits of the account."""

    status: str | None = None
    """`allowed`, `allowed_warning` or `rejected`."""
    resets_at: float | None = msgspec.field(name="resetsAt", default=None)
    """Epoch seconds."""
    rate_limit_type: str | None = msgspec.field(name="rateLimitType", default=None)
    """The nearest limit: `five_hour`, `seven_day` …"""
    utilization: float | None = None
    """The share of that limit in use: 0.92 is 92 %."""
    windows: dict[str, RateLimitWindow] | None = msgspec.field(name="unifiedWindows", default=None)
    """Every known limit, by its type."""


class ApiErrorParams(msgspec.Struct, frozen=True, kw_only=True):
    """Details of an API error."""

    rate_limit_info: RateLimitInfo | None = None


class AssistantEvent(msgspec.Struct, frozen=True, kw_only=True, tag="assistant", tag_field="type"):
    """Text or tool calls of the model, or a report of an API error by the CLI."""

    parent_tool_use_id: str | None = None
    """Set for messages of a subagent."""
    message: Message = Message()
    error: str | None = None
    """The kind of API error, such as `authentication_failed`, if this is a report of one."""
    api_error_params: ApiErrorParams | None = None


class PermissionDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a tool call may run, and who decided that."""

    decision: str = ""
    source: str = ""
    """`hook`, `config`, `user_reject` (a deny rule about a path or a domain) …"""
    reason_type: str = ""


class ToolResultMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What the CLI adds to one tool result."""

    id: str = ""
    non_execution_kind: str = ""
    """`permission-rule` if a rule denies the call, `user-rejected` if a person would be asked."""
    permission_decision: PermissionDecision | None = None


class UserEvent(msgspec.Struct, frozen=True, kw_only=True, tag="user", tag_field="type"):
    """The result of a tool, or a message that the CLI put into the conversation."""

    parent_tool_use_id: str | None = None
    message: Message = Message()
    tool_result_meta: tuple[ToolResultMeta, ...] = ()


class ModelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one model."""

    cost_usd: float | None = msgspec.field(name="costUSD", default=None)
    input_tokens: int | None = msgspec.field(name="inputTokens", default=None)
    output_tokens: int | None = msgspec.field(name="outputTokens", default=None)
    cache_read_input_tokens: int | None = msgspec.field(name="cacheReadInputTokens", default=None)
    cache_creation_input_tokens: int | None = msgspec.field(
        name="cacheCreationInputTokens", default=None
    )


class PermissionDenial(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that was denied."""

    tool_name: str = ""
    tool_use_id: str = ""
    tool_input: str = ""
    """The input of the call, a JSON object, as text."""


class ResultEvent(msgspec.Struct, frozen=True, kw_only=True, tag="result", tag_field="type"):
    """The end of a turn: the answer, or why there is none."""

    subtype: str = ""
    """`success` even if the API failed; `error_*` if a limit or an interrupt ended the turn."""
    is_error: bool | None = None
    result: str = ""
    """The answer, or the CLI's description of the error; JSON if it was not text."""
    session_id: str | None = None
    num_turns: int | None = None
    """Requests to the model in this turn; 0: no model was asked."""
    total_cost_usd: float | None = None
    """US dollars of the whole session so far, earlier runs included."""
    model_usage_since_last_result: dict[str, ModelUsage] | None = None
    """By model, since the last result of this process."""
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
    """The limits of the account, whenever they change."""

    rate_limit_info: RateLimitInfo = RateLimitInfo()


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the CLI."""

    subtype: str = ""

    # can_use_tool
    tool_name: str = ""
    input: Any = None
    """The input of the tool call."""
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
    """The state of a user line that had an id."""

    command_uuid: str = ""
    state: str = ""
    """`queued`, `started`, `completed` or `cancelled` (measured with 2.1.330)."""


class OtherEvent(msgspec.Struct, frozen=True):
    """An event of a type that a dispatch does not need."""

    type: str


class NoiseLine(msgspec.Struct, frozen=True):
    """A line that is not an event: a warning, plain text, or broken JSON."""

    text: str
    """Its beginning."""


class CutLine(msgspec.Struct, frozen=True):
    """A line that was too long; only its head was kept."""

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
)
"""The events that have a `type`."""

Event = JsonEvent | OtherEvent | NoiseLine | CutLine
