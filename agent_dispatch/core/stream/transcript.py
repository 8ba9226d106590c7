"""What has been seen of a run so far: bounded, and enough to decide when it has ended."""

from collections import deque
from collections.abc import Sequence

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.stream.denied_calls import DeniedCalls
from agent_dispatch.core.stream.events import (
    AssistantEvent,
    CutLine,
    Event,
    NoiseLine,
    RateLimitEvent,
    ResultEvent,
    SystemEvent,
    UserEvent,
)
from agent_dispatch.core.stream.progress_text import one_line, tool_line
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.core.stream.tasks import BackgroundTasks
from agent_dispatch.core.stream.tool_calls import ToolCalls
from agent_dispatch.core.stream.usage import add_usage, model_costs
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.question import Verdict

_MAX_RESULTS = 200
_MAX_EARLIER_CHARS = 16 * 1024 * 1024
"""Kept of all answers before the last one."""
_MAX_TEXT_CHARS = 1024 * 1024
"""Kept of text that no result has confirmed yet."""
_MAX_HOOKS = 1000
_MAX_SERVERS = 1000
_SERVER_FAILURES = frozenset({"failed", "needs-auth"})
_MAX_NOISE_LINES = 20
_MAX_NOISE_CHARS = 200
_MAX_CALLS_SHOWN = 20
"""Tool calls of one message that get a line of progress."""
_AUTH_STATUSES = (401, 403)


class Transcript:
    """The facts of one run, gathered while its events arrive.

    After the result of a user line, the CLI starts turns by itself when background tasks end. A
    process that is given several user lines has one transcript, which is asked for the facts after
    each of them: see `next_turn`.
    """

    def __init__(self) -> None:
        self._facts = Seen(turn_open=True)
        self._tasks = BackgroundTasks()
        self._hooks: dict[str, str] = {}
        """Hooks that have begun and not ended: the name by the id."""
        self._time_is_up = False
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._results: list[ResultEvent] = []
        self._result_count = 0
        self._results_before = 0
        """How many results there were when the user line was sent."""
        self._usage_unpriced = False
        """Some usage came without its price, so the sum is not this run's cost."""
        self._calls = ToolCalls()
        self._denied = DeniedCalls()
        self._tasks.begin_turn()
        self._auth_failures = 0
        self._last_words = ""
        """The model's last text since the last result, whether or not a tool call followed."""
        self._noise: deque[str] = deque(maxlen=_MAX_NOISE_LINES)

    @property
    def session_id(self) -> str | None:
        """The session, once a transcript of it can exist."""
        return self._facts.session_id

    @property
    def answered(self) -> bool:
        """At least one result has arrived since the user line was sent."""
        return self._result_count > self._results_before

    @property
    def had_tasks(self) -> bool:
        """A background task was at work in this turn."""
        return self._tasks.had_any

    @property
    def turn_open(self) -> bool:
        """The agent is at work: the last user line, or a turn of the CLI's own, has no result."""
        return self._facts.turn_open

    @property
    def idle(self) -> bool:
        """A result has arrived, and no turn and no background task is open."""
        return self.answered and not self.turn_open and not self._tasks.running

    @property
    def credentials_refused(self) -> bool:
        """The API refused the credentials twice in a row; the CLI would retry for minutes."""
        return self._auth_failures >= 2

    def time_is_up(self) -> None:
        """Note that the process is being ended: a hook that ends from here on was cut off.

        A killed hook has the same response as one that ended (measured with 2.1.330).
        """
        self._time_is_up = True

    def next_turn(self) -> None:
        """Start over, keeping the session and its tasks; `expect_answer` follows.

        Events that arrive from here on count for the next user line, even before it is sent: a
        late background task may bring answers, which are paid for as well.
        """
        was = self._facts
        self._facts = Seen(
            init_seen=was.init_seen,
            session_id=was.session_id,
            model=was.model,
            cwd=was.cwd,
            permission_mode=was.permission_mode,
            failed_servers=was.failed_servers,
            rate_limit=was.rate_limit,
            cost_before_usd=(
                was.cost_before_usd if was.session_cost_usd is None else was.session_cost_usd
            ),
        )
        self._begin_turn()

    def expect_answer(self) -> None:
        """Note that the next user line is being sent: results from here on answer it."""
        self._results_before = self._result_count
        self._facts.turn_open = True

    def note_decision(self, call_id: str, verdict: Verdict) -> None:
        """Note how the question whether a call may be made was settled."""
        self._denied.add_verdict(call_id, verdict)

    def seen(self) -> Seen:
        """Return the facts so far."""
        return msgspec.structs.replace(
            self._facts,
            results=tuple(self._results),
            dropped_results=self._result_count - len(self._results),
            usage_cost_usd=None if self._usage_unpriced else self._facts.usage_cost_usd,
            denials=self._denied.denials(),
            calls=self._calls.made(),
            unfinished_tasks=self._tasks.unfinished,
            running_hooks=tuple(self._hooks.values()),
            noise_tail="\n".join(self._noise),
        )

    def add(self, event: Event) -> Sequence[Progress]:
        """Take in the next event; return its lines of progress."""
        line = ""
        match event:
            case SystemEvent():
                line = self._add_system(event)
            case AssistantEvent():
                return self._add_assistant(event)
            case UserEvent():
                self._open_turn(event.parent_tool_use_id)
                self._denied.add_user(event)
                self._calls.add_user(event)
            case ResultEvent():
                line = self._add_result(event)
            case RateLimitEvent():
                self._facts.rate_limit = event.rate_limit_info
            case NoiseLine():
                self._noise.append(mask(event.text)[:_MAX_NOISE_CHARS])
            case CutLine():
                self._facts.cut_lines += 1
                line = "A line of output was too long and was cut"
            case _:
                pass
        return (Progress(line),) if line else ()

    def _add_system(self, event: SystemEvent) -> str:
        self._calls.add_task(event)
        match event.subtype:
            case "init":
                return self._add_init(event)
            case "api_retry":
                return self._add_retry(event)
            case "permission_denied" if event.tool_name:
                self._calls.deny(event.tool_use_id or "")
                self._denied.add_live(event.tool_name, event)
                return f"Denied tool: {one_line(event.tool_name)}"
            case "background_tasks_changed" if event.tasks is not None:
                self._tasks.add_list(event.tasks)
            case "hook_started" if event.hook_id and len(self._hooks) < _MAX_HOOKS:
                self._hooks[event.hook_id] = one_line(event.hook_name or "hook")
            case "hook_response" if event.hook_id and not self._time_is_up:
                self._hooks.pop(event.hook_id, None)
            case "notification" if event.key == "stop-hook-block-cap":
                self._facts.held_by_stop_hook = True
            case "informational" if event.prompt_submit_outcome is not None:
                self._facts.prompt_refused = event.prompt_submit_outcome
            case "task_started" | "task_updated" | "task_notification" if event.task_id:
                return self._tasks.add_event(event, event.task_id)
        return ""

    def _add_init(self, event: SystemEvent) -> str:
        facts = self._facts
        is_first = not facts.init_seen
        facts.init_seen = True
        facts.session_id = event.session_id or facts.session_id
        facts.turn_open = True
        facts.permission_mode = event.permission_mode or facts.permission_mode
        facts.model = event.model or facts.model
        facts.cwd = event.cwd or facts.cwd
        failures = [server for server in event.mcp_servers if server.status in _SERVER_FAILURES]
        facts.failed_servers = tuple(failures[:_MAX_SERVERS])
        if not is_first:
            return "Next turn"
        version = f" {event.claude_code_version}" if event.claude_code_version else ""
        model = f", model {event.model}" if event.model else ""
        failed = [server.name for server in event.mcp_servers if server.status == "failed"]
        missing = f"; MCP servers that failed: {', '.join(failed)}" if failed else ""
        return one_line(f"Started Claude Code{version}{model}{missing}")

    def _add_retry(self, event: SystemEvent) -> str:
        self._facts.turn_open = True
        refused = event.error_status in _AUTH_STATUSES
        self._auth_failures = self._auth_failures + 1 if refused else 0
        self._facts.last_retry = event
        return describe_retry(event)

    def _add_assistant(self, event: AssistantEvent) -> Sequence[Progress]:
        facts = self._facts
        self._open_turn(event.parent_tool_use_id)
        if event.error is not None:
            facts.api_error = event.error
            if event.api_error_params and event.api_error_params.rate_limit_info:
                facts.rate_limit = event.api_error_params.rate_limit_info
            return ()
        self._auth_failures = 0
        facts.last_retry = None
        self._calls.add_assistant(event)
        blocks = event.message.content
        self._tasks.add_calls(blocks)
        calls = [block for block in blocks if block.type == "tool_use" and block.name]
        text = "\n\n".join(block.text for block in blocks if block.type == "text" and block.text)
        if event.parent_tool_use_id is None:
            kept = text[:_MAX_TEXT_CHARS]
            self._last_words = kept or self._last_words
            facts.last_text = kept or facts.last_text
            facts.unanswered_text = "" if calls else kept or facts.unanswered_text
        sentence = one_line(text.strip().partition("\n")[0])
        spoken = (Progress(sentence),) if sentence else ()
        return (*spoken, *map(tool_line, calls[:_MAX_CALLS_SHOWN]))

    def _add_result(self, event: ResultEvent) -> str:
        facts = self._facts
        # Empty where a hook kept the turn from ending by itself (measured with 2.1.330).
        is_empty = not (event.result or event.is_error) and event.num_turns != 0
        facts.words_recovered = is_empty and bool(self._last_words)
        if facts.words_recovered:
            event = msgspec.structs.replace(event, result=self._last_words)
        self._last_words = ""
        self._result_count += 1
        self._results.append(event)
        self._drop_results()
        facts.turn_open = False
        self._tasks.end_turn()
        if event.num_turns is not None:
            facts.num_turns = (facts.num_turns or 0) + event.num_turns
        if event.num_turns != 0:
            facts.session_id = facts.session_id or event.session_id
        self._add_costs(event)
        for denied in event.permission_denials:
            self._calls.deny(denied.tool_use_id)
            self._denied.add_from_result(denied)
        if not event.is_error:
            facts.api_error = None
            facts.last_retry = None
            self._auth_failures = 0
        if event.result:
            facts.unanswered_text = ""
        if self._tasks.running:
            return f"Answered; waiting for {self._tasks.running} background task(s)"
        return ""

    def _add_costs(self, event: ResultEvent) -> None:
        facts = self._facts
        if event.total_cost_usd is not None:
            facts.session_cost_usd = event.total_cost_usd
        usage = event.model_usage_since_last_result
        if usage is None:
            return
        self._usage_unpriced |= any(model.cost_usd is None for model in usage.values())
        facts.model_usage = add_usage(facts.model_usage, model_costs(usage))
        cost_usd = sum(model.cost_usd or 0.0 for model in usage.values())
        facts.usage_cost_usd = (facts.usage_cost_usd or 0.0) + cost_usd

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

    def _open_turn(self, parent: str | None) -> None:
        """Open a turn for a message of the agent itself; a subagent's belongs to its task."""
        if parent is None:
            self._facts.turn_open = True


def describe_retry(event: SystemEvent) -> str:
    """Return one line about an API error that the CLI retries after."""
    status = event.error_status
    what = "The API did not answer" if status is None else f"API error {status}"
    kind = f" ({one_line(event.error)})" if event.error else ""
    count = f", retry {event.attempt or '?'} of {event.max_retries or '?'}"
    delay_ms = event.retry_delay_ms
    delay = "" if delay_ms is None else f" in {round(delay_ms / 1000, 1):g} s"
    return f"{what}{kind}{count}{delay}"
