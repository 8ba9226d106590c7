"""The prompt: the text that an agent's model reads."""

import msgspec

from agent_dispatch.core.text import is_blank, is_command
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.question import PastQuestion

_JSON_INSTRUCTION = (
    "Reply with one JSON value and nothing else: no sentence before or after it, no code fence."
    " If the task cannot be done, reply with a JSON object whose only key is"
    ' "error" and whose value says why.'
)


def build_prompt(request: DispatchRequest, shared_context: str = "") -> str:
    """Return the text that the agent's model reads; it never begins as a slash command."""
    context = "" if is_blank(request.context) else request.context
    caller = "" if is_blank(request.caller) else request.caller
    goal = "" if is_blank(request.goal) else request.goal
    if caller or goal or request.group:
        sections = {
            "Goal": goal,
            "Dispatched by": caller,
            "Shared context": "" if is_blank(shared_context) else shared_context,
            "Context": context,
            "Task": request.task,
        }
        prompt = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
        instruction = f"## Form of the answer\n\n{_JSON_INSTRUCTION}"
    else:
        if context:
            prompt = f"Context:\n{context}\n\nTask:\n{request.task}"
        elif is_command(request.task):
            # Claude Code would execute `/compact` itself, without a model.
            prompt = f"Task:\n{request.task}"
        else:
            prompt = request.task
        instruction = _JSON_INSTRUCTION
    # With a schema the CLI itself tells the model how to answer.
    wants_footer = request.response_format == "json" and not request.json_schema
    return f"{prompt}\n\n{instruction}" if wants_footer else prompt


def allowed_later_task(call: PastQuestion) -> str:
    """Return the task that resumes a session after a denied call was allowed later."""
    call_input = msgspec.json.encode(call.input).decode()
    return (
        f"Your call of {call.tool} was denied, because nobody was there to allow it. The user has"
        " allowed it now, once. Make exactly that call again, with the same input, and then finish"
        f" your task:\n\n{call_input}"
    )
