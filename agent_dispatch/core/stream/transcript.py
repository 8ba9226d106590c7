"""What has been seen of a run so far: bounded, and enough to decide when it has ended."""

import re
from collections import deque
from collections.abc import Sequence

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.stream.events import (
    AssistantEvent,
    CutLine,
    Event,
    McpServer,
    NoiseLine,
    PermissionDenial,
    PromptOutcome,
    RateLimitEvent,
    RateLimitInfo,
    ResultEvent,
    SystemEvent,
    ToolResultMeta,
    UserEvent,
)
from agent_dispatch.core.stream.progress_text import one_line, tool_line
from agent_dispatch.core.stream.seen import Denial, Seen
from agent_dispatch.core.stream.tool_calls import ToolCalls
from agent_dispatch.core.stream.usage import Usage, add_usage, model_costs
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.question import Verdict

_MAX_RESULTS = 200
_MAX_EARLIER_CHARS = 16 * 1024 * 1024
"""Kept of all answers before the last one."""
_MAX_TEXT_CHARS = 1024 * 1024
"""Kept of text that no result has confirmed yet."""
_MAX_NAMES = 1000
"""Denied calls, and background tasks, that are remembered."""
_MAX_INPUT_CHARS = 300
"""Kept of what a denied call was given."""
_MAX_RULE_CHARS = 1000
"""Kept of a command, a path or an address; no rule is made of a longer one."""
_SERVER_FAILURES = frozenset({"failed", "needs-auth"})
_MAX_NOISE_LINES = 20
_LINE_CHARS = 200
_MAX_TOLD_CALLS = 20
"""Of the tool calls of one message."""

_AUTH_STATUSES = (401, 403)
_TASK_OVER = frozenset({"completed", "failed", "killed", "stopped"})
_TASK_CUT_OFF = frozenset({"killed", "stopped"})
_STOPPING_TOOLS = frozenset({"TaskStop", "KillShell", "KillBash"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


class Transcript:
    """The facts of one run, gathered while its events arrive.

    What follows the result of a user line are turns that the CLI starts by itself when background
    tasks end. A process that is given several user lines has one transcript, which is asked for
    the facts after each of them: see `next_turn`.
    """

    def __init__(self) -> None:
        self._init_seen = False
        self._session_id: str | None = None
        self._rate_limit: RateLimitInfo | None = None
        self._tasks: dict[str, bool] = {}
        """Tasks that have started and not ended, and whether each runs in the background."""
        self._live_tasks: tuple[str, ...] | None = None
        """Background tasks that the CLI itself last listed; outranks `_tasks`."""
        self._foreground: set[str] = set()
        """Tasks that started in the foreground and stayed there."""
        self._stopped_by_agent: set[str] = set()
        """Tasks that the model, or a subagent, stopped by a tool."""
        self._hooks: dict[str, str] = {}
        """Hooks that have begun and not ended: the name by the id."""
        self._time_is_up = False
        self._last_total_usd: float | None = None
        self._permission_mode: str | None = None
        self._model: str | None = None
        self._cwd: str | None = None
        self._failed_servers: tuple[McpServer, ...] = ()
        self._begin_turn(is_open=True)

    def _begin_turn(self, *, is_open: bool) -> None:
        self._results: list[ResultEvent] = []
        self._result_count = 0
        self._asked_at = 0
        """How many results there were before the user line was sent."""
        self._num_turns: int | None = None
        self._usage_cost_usd: float | None = None
        self._model_usage: Usage = {}
        self._usage_unpriced = False
        """Some usage came without its price, so the sum is not this run's cost."""
        self._session_cost_usd: float | None = None
        self._cost_before_usd = self._last_total_usd
        self._calls = ToolCalls()
        self._denials: dict[str, Denial] = {}
        """By the id of the call."""
        self._refusals: dict[str, ToolResultMeta] = {}
        """By the id of the call: how calls that did not run were decided."""
        self._decisions: dict[str, Verdict] = {}
        """By the id of the call: what a person, or nobody, said of it."""
        self._turn_open = is_open
        self._text = ""
        """What the model said since its last tool call or result."""
        self._api_error: str | None = None
        self._auth_failures = 0
        self._last_retry: SystemEvent | None = None
        self._had_tasks = False
        self._cut_off: set[str] = set()
        """Background tasks whose end was neither their own nor the agent's wish: Claude Code stops
        them when it is told to end, or has waited for them as long as it may."""
        self._held_by_stop_hook = False
        self._prompt_refused: PromptOutcome | None = None
        self._last_words = ""
        """What the model said last, whatever it did then, since the last result."""
        self._last_text = ""
        """The same, results or not."""
        self._words_recovered = False
        """The last result was empty, and has the model's last words in its place."""
        self._cut_lines = 0
        self._noise: deque[str] = deque(maxlen=_MAX_NOISE_LINES)

    @property
    def init_seen(self) -> bool:
        """A session has begun."""
        return self._init_seen

    @property
    def session_id(self) -> str | None:
        """The session, once a transcript of it can exist."""
        return self._session_id

    @property
    def answered(self) -> bool:
        """At least one result has arrived since the user line was sent."""
        return self._result_count > self._asked_at

    @property
    def unfinished_tasks(self) -> int:
        """Background tasks that still run."""
        if self._live_tasks is not None:
            return len(self._live_tasks)
        return sum(self._tasks.values())

    @property
    def had_tasks(self) -> bool:
        """A background task was at work in this turn."""
        return self._had_tasks or self.unfinished_tasks > 0

    @property
    def turn_open(self) -> bool:
        """The agent is at work: what it was asked last, or began by itself, has no result yet."""
        return self._turn_open

    @property
    def idle(self) -> bool:
        """Nothing more is to come: a result has arrived, no turn and no background task is open."""
        return self.answered and not self._turn_open and not self.unfinished_tasks

    @property
    def fail_fast(self) -> bool:
        """The API refused the credentials twice in a row; the CLI would go on for minutes."""
        return self._auth_failures >= 2

    def time_is_up(self) -> None:
        """Take note that the process is being ended: what ends from here on was cut off.

        A hook that is killed has a response like one that ended (measured with 2.1.330).
        """
        self._time_is_up = True

    def next_turn(self) -> None:
        """Begin anew, but for the session and its tasks; `expect_answer` follows.

        What comes from here on counts to the next user line, even before that is sent: answers
        that a late background task brings are paid for as well.
        """
        self._begin_turn(is_open=False)

    def note_decision(self, call_id: str, verdict: Verdict) -> None:
        """Take note of what came of the question whether a call may be made."""
        if len(self._decisions) < _MAX_NAMES:
            self._decisions[call_id] = verdict

    def expect_answer(self) -> None:
        """Take note that the next user line is being sent: what is to come is the answer to it."""
        self._asked_at = self._result_count
        self._turn_open = True

    def seen(self) -> Seen:
        """Return the facts so far."""
        return Seen(
            init_seen=self._init_seen,
            session_id=self._session_id,
            results=tuple(self._results),
            dropped_results=self._result_count - len(self._results),
            num_turns=self._num_turns,
            usage_cost_usd=None if self._usage_unpriced else self._usage_cost_usd,
            model_usage=self._model_usage,
            model=self._model,
            session_cost_usd=self._session_cost_usd,
            cost_before_usd=self._cost_before_usd,
            denials=tuple(self._explained(*denial) for denial in self._denials.items()),
            calls=self._calls.made(),
            cwd=self._cwd,
            permission_mode=self._permission_mode,
            failed_servers=self._failed_servers,
            turn_open=self._turn_open,
            unfinished_tasks=self.unfinished_tasks
            + len(self._cut_off - set(self._live_tasks or ())),
            running_hooks=tuple(self._hooks.values()),
            held_by_stop_hook=self._held_by_stop_hook,
            prompt_refused=self._prompt_refused,
            words_recovered=self._words_recovered,
            unanswered_text=self._text,
            last_text=self._last_text,
            api_error=self._api_error,
            last_retry=self._last_retry,
            rate_limit=self._rate_limit,
            cut_lines=self._cut_lines,
            noise_tail="\n".join(self._noise),
        )

    def add(self, event: Event) -> Sequence[Progress]:
        """Take in the next event; return the progress lines that it is worth."""
        match event:
            case SystemEvent():
                line = self._add_system(event)
            case AssistantEvent():
                return self._add_assistant(event)
            case UserEvent():
                self._work_goes_on(event.parent_tool_use_id)
                self._add_refusals(event)
                self._calls.add_user(event)
                line = ""
            case ResultEvent():
                line = self._add_result(event)
            case RateLimitEvent():
                self._rate_limit = event.rate_limit_info
                line = ""
            case NoiseLine():
                self._noise.append(mask(event.text)[:_LINE_CHARS])
                line = ""
            case CutLine():
                self._cut_lines += 1
                line = "A line of output was too long and was cut"
            case _:
                line = ""
        return (Progress(line),) if line else ()

    def _add_system(self, event: SystemEvent) -> str:
        self._calls.add_task(event)
        match event.subtype:
            case "init":
                return self._add_init(event)
            case "api_retry":
                return self._add_retry(event)
            case "permission_denied" if event.tool_name:
                self._add_live_denial(event.tool_name, event)
                return f"Denied tool: {one_line(event.tool_name)}"
            case "background_tasks_changed" if event.tasks is not None:
                self._live_tasks = tuple(
                    task.task_id for task in event.tasks if not (task.ambient or task.off_host)
                )
                self._had_tasks |= bool(self._live_tasks)
            case "hook_started" if event.hook_id and len(self._hooks) < _MAX_NAMES:
                self._hooks[event.hook_id] = one_line(event.hook_name or "hook")
            case "hook_response" if event.hook_id and not self._time_is_up:
                self._hooks.pop(event.hook_id, None)
            case "notification" if event.key == "stop-hook-block-cap":
                self._held_by_stop_hook = True
            case "informational" if event.prompt_submit_outcome is not None:
                self._prompt_refused = event.prompt_submit_outcome
            case "task_started" | "task_updated" | "task_notification" if event.task_id:
                return self._add_task(event, event.task_id)
        return ""

    def _add_init(self, event: SystemEvent) -> str:
        again = self._init_seen
        self._init_seen = True
        self._session_id = event.session_id or self._session_id
        self._turn_open = True
        self._permission_mode = event.permission_mode or self._permission_mode
        self._model = event.model or self._model
        self._cwd = event.cwd or self._cwd
        failures = [server for server in event.mcp_servers if server.status in _SERVER_FAILURES]
        self._failed_servers = tuple(failures[:_MAX_NAMES])
        if again:
            return "Next turn"
        version = f" {event.claude_code_version}" if event.claude_code_version else ""
        model = f", model {event.model}" if event.model else ""
        failed = [server.name for server in event.mcp_servers if server.status == "failed"]
        missing = f"; MCP servers that failed: {', '.join(failed)}" if failed else ""
        return one_line(f"Started Claude Code{version}{model}{missing}")

    def _add_retry(self, event: SystemEvent) -> str:
        self._turn_open = True
        refused = event.error_status in _AUTH_STATUSES
        self._auth_failures = self._auth_failures + 1 if refused else 0
        self._last_retry = event
        return describe_retry(event)

    def _add_task(self, event: SystemEvent, task_id: str) -> str:
        about = one_line(event.summary or event.description or task_id)
        status = event.status or (event.patch.status if event.patch else None)
        if event.subtype == "task_started":
            background = event.is_backgrounded is not False and not event.ambient
            if len(self._tasks) < _MAX_NAMES:
                self._tasks[task_id] = background
            if not background and len(self._foreground) < _MAX_NAMES:
                self._foreground.add(task_id)
            self._had_tasks |= background
            return f"Background task started: {about}" if background else ""
        if status in _TASK_OVER:
            background = self._tasks.pop(task_id, False) or task_id in (self._live_tasks or ())
            if background and status in _TASK_CUT_OFF and task_id not in self._stopped_by_agent:
                self._cut_off.add(task_id)
        elif task_id in self._tasks and event.patch and event.patch.is_backgrounded is not None:
            self._tasks[task_id] = event.patch.is_backgrounded
            if event.patch.is_backgrounded:
                self._foreground.discard(task_id)
        if event.subtype == "task_notification" and task_id not in self._foreground:
            return f"Background task {one_line(status or 'ended')}: {about}"
        return ""

    def _add_assistant(self, event: AssistantEvent) -> Sequence[Progress]:
        self._work_goes_on(event.parent_tool_use_id)
        if event.error is not None:
            self._api_error = event.error
            if event.api_error_params and event.api_error_params.rate_limit_info:
                self._rate_limit = event.api_error_params.rate_limit_info
            return ()
        self._auth_failures = 0
        self._last_retry = None
        self._calls.add_assistant(event)
        blocks = event.message.content
        tools = [block.name for block in blocks if block.type == "tool_use" and block.name]
        text = "\n\n".join(block.text for block in blocks if block.type == "text" and block.text)
        for block in blocks:
            if block.name in _STOPPING_TOOLS and len(self._stopped_by_agent) < _MAX_NAMES:
                self._stopped_by_agent.add(block.input.task_id or block.input.shell_id)
        if event.parent_tool_use_id is None:
            self._last_words = text[:_MAX_TEXT_CHARS] or self._last_words
            self._last_text = self._last_words or self._last_text
            self._text = "" if tools else (text[:_MAX_TEXT_CHARS] or self._text)
        sentence = one_line(text.strip().partition("\n")[0])
        said = (Progress(sentence),) if sentence else ()
        called = [block for block in blocks if block.type == "tool_use" and block.name]
        return (*said, *map(tool_line, called[:_MAX_TOLD_CALLS]))

    def _add_result(self, event: ResultEvent) -> str:
        # Empty where a hook kept the turn from ending by itself (measured with 2.1.330).
        is_empty = not (event.result or event.is_error) and event.num_turns != 0
        self._words_recovered = is_empty and bool(self._last_words)
        if self._words_recovered:
            event = msgspec.structs.replace(event, result=self._last_words)
        self._last_words = ""
        self._result_count += 1
        self._results.append(event)
        self._drop_results()
        self._turn_open = False
        # A task in the foreground cannot outlive its turn, whether its end was told or not.
        self._tasks = {task: True for task, background in self._tasks.items() if background}
        if event.num_turns is not None:
            self._num_turns = (self._num_turns or 0) + event.num_turns
        if event.num_turns != 0:
            self._session_id = self._session_id or event.session_id
        self._add_costs(event)
        for denial in event.permission_denials:
            self._add_denial(denial)
        if not event.is_error:
            self._api_error = None
            self._last_retry = None
            self._auth_failures = 0
        if event.result:
            self._text = ""
        if self.unfinished_tasks:
            return f"Answered; waiting for {self.unfinished_tasks} background task(s)"
        return ""

    def _add_costs(self, event: ResultEvent) -> None:
        if event.total_cost_usd is not None:
            self._session_cost_usd = self._last_total_usd = event.total_cost_usd
        usage = event.model_usage_since_last_result
        if usage is None:
            return
        for model in usage.values():
            self._usage_unpriced |= model.cost_usd is None
        self._model_usage = add_usage(self._model_usage, model_costs(usage))
        cost_usd = sum(model.cost_usd or 0.0 for model in usage.values())
        self._usage_cost_usd = (self._usage_cost_usd or 0.0) + cost_usd

    def _drop_results(self) -> None:
        """Forget the oldest results beyond the bounds; never the last one, nor the last answer."""
        results = self._results
        answer = next((i for i in reversed(range(len(results))) if results[i].result), -1)
        earlier_chars = sum(len(result.result) for result in results[: max(answer, 0)])
        while len(results) > 2 and (
            earlier_chars > _MAX_EARLIER_CHARS or len(results) > _MAX_RESULTS
        ):
            dropped = results.pop(1 if answer == 0 else 0)
            earlier_chars -= len(dropped.result)
            answer -= 0 if answer == 0 else 1

    def _add_live_denial(self, tool: str, event: SystemEvent) -> None:
        self._calls.deny(event.tool_use_id or "")
        call_id = event.tool_use_id or f"unnamed {len(self._denials)}"
        if len(self._denials) < _MAX_NAMES:
            denial = Denial(
                tool=tool,
                reason_type=(event.decision_reason_type or "")[:_LINE_CHARS],
                said=one_line(event.message or ""),
                explained=True,
            )
            self._denials.setdefault(call_id, denial)

    def _add_denial(self, event: PermissionDenial) -> None:
        """Take in what a result says of a denied call: alone it tells what the call was given."""
        self._calls.deny(event.tool_use_id)
        call_id = event.tool_use_id or f"unnamed {len(self._denials)}"
        denial = self._denials.get(call_id) or Denial(tool=event.tool_name)
        if denial.tool and (call_id in self._denials or len(self._denials) < _MAX_NAMES):
            given = _given(event.tool_input)
            self._denials[call_id] = msgspec.structs.replace(
                denial,
                input=_compact(event.tool_input),
                command=given.command[: _MAX_RULE_CHARS + 1],
                path=(given.file_path or given.notebook_path or given.path)[: _MAX_RULE_CHARS + 1],
                url=given.url[: _MAX_RULE_CHARS + 1],
            )

    def _add_refusals(self, event: UserEvent) -> None:
        for meta in event.tool_result_meta:
            decision = meta.permission_decision
            refused = decision is not None and decision.decision == "reject"
            if refused and meta.id and len(self._refusals) < _MAX_NAMES:
                self._refusals[meta.id] = meta

    def _explained(self, call_id: str, denial: Denial) -> Denial:
        """Return the denial with what came beside the result of its call."""
        denial = msgspec.structs.replace(denial, asked=self._decisions.get(call_id))
        meta = self._refusals.get(call_id)
        if meta is None or meta.permission_decision is None:
            return denial
        return msgspec.structs.replace(
            denial,
            reason_type=denial.reason_type or meta.permission_decision.reason_type[:_LINE_CHARS],
            source=meta.permission_decision.source[:_LINE_CHARS],
            kind=meta.non_execution_kind[:_LINE_CHARS],
            explained=True,
        )

    def _work_goes_on(self, parent: str | None) -> None:
        """Open a turn for the talk of the agent itself; a subagent's belongs to its task."""
        if parent is None:
            self._turn_open = True


class _Given(msgspec.Struct):
    """Of a denied call's input, what a rule can be about."""

    command: str = ""
    file_path: str = ""
    notebook_path: str = ""
    path: str = ""
    url: str = ""


def _given(text: str) -> _Given:
    """Read the input of a call; a field of another type leaves that and the rest unknown."""
    try:
        return msgspec.json.decode(text, type=_Given)
    except (ValueError, RecursionError):
        return _Given()


def _compact(text: str) -> str:
    """Return JSON without white space between its parts, cut."""
    try:
        text = msgspec.json.format(text, indent=-1)
    except (ValueError, RecursionError):
        text = " ".join(text[: 4 * _MAX_INPUT_CHARS].split())
    return text[:_MAX_INPUT_CHARS]


def describe_retry(event: SystemEvent) -> str:
    """Return one line on an API error that the CLI tries again after."""
    status = event.error_status
    what = "The API did not answer" if status is None else f"API error {status}"
    kind = f" ({one_line(event.error)})" if event.error else ""
    count = f", retry {event.attempt or '?'} of {event.max_retries or '?'}"
    delay_ms = event.retry_delay_ms
    delay = "" if delay_ms is None else f" in {round(delay_ms / 1000, 1):g} s"
    return f"{what}{kind}{count}{delay}"
