"""The client behind one call: which kinds of answer it takes, and why it left."""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

import trio

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.model.question import Question
from agent_dispatch.server.calls.forms import FormResponse

_TIMEOUT = re.compile(r"timed out|-32001", re.IGNORECASE)
"""Marks the reason of a cancel notice as the client's own time limit, not a person's wish. Claude
Code writes `SdkError: Request timed out`, the TypeScript SDK the error code, and the Python SDK
`timed out after`."""


class TaskMode(Enum):
    """Whether a client takes a task (see `server.tasks`) as an answer."""

    NEVER = auto()
    IF_LONG = auto()
    """If the answer takes long."""
    ALWAYS = auto()
    """The call asks for a task."""


class FormMode(Enum):
    """How a client can show forms to its user."""

    NONE = auto()
    DURING_CALL = auto()
    """On the server's request, while the call goes on."""
    BY_RETRY = auto()
    """On an answer that asks for it; the client then repeats the call with the response."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that can be given to the next identical call."""

    key: bytes
    """The same for identical calls."""
    answer: object
    job_id: str | None
    at: float
    """When the answer was there, on Trio's clock."""


@dataclass(eq=False)
class Caller:
    """The client behind one call; compared by identity."""

    client: str = ""
    """The client's name; empty if it gave none."""
    arrived_at: float = field(default_factory=trio.current_time)
    """When the call came, on Trio's clock."""
    task_mode: TaskMode = TaskMode.NEVER
    form_mode: FormMode = FormMode.NONE
    show_questions: OnProgress | None = None
    """Shows a form for each question in a progress report; only for `DURING_CALL`."""
    confirm_widening: Callable[[WideningError], Awaitable[bool]] | None = None
    """Returns whether the user accepts a change that gives more rights; only for `DURING_CALL`."""
    response: FormResponse | None = None
    """Set if the call repeats an earlier one."""
    seen_questions: frozenset[str] = frozenset()
    """The ids of the questions that earlier answers showed to the user."""
    cancel_reason: str | None = None
    """The reason in the client's cancel notice; None while there was no notice."""
    given: KeptAnswer | None = None
    """The answer that was given to it; it may have timed out before the answer arrived."""

    @property
    def timed_out(self) -> bool:
        """Whether the client cancelled the call because its own time limit passed."""
        return self.cancel_reason is not None and _TIMEOUT.search(self.cancel_reason) is not None

    def must_see(self, questions: Iterable[Question]) -> bool:
        """Whether a background call must be answered now, so that the user sees these questions."""
        if self.task_mode is not TaskMode.NEVER:
            return bool(tuple(questions))
        is_new = any(question.id not in self.seen_questions for question in questions)
        return self.form_mode is FormMode.BY_RETRY and is_new
