"""What forms say to the user of a client. A form has no field: accept allows, decline denies."""

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.core.questions import shown_input, shown_text
from agent_dispatch.model.question import Question


def question_text(question: Question) -> str:
    """What a form says about a question."""
    return (
        f"Agent {question.agent!r} asks for a permission: {shown_text(question.tool)}"
        f"\n{shown_input(question.input)}\nNone of its rules allows this call. Accept allows it,"
        " once."
    )


def widening_text(error: WideningError) -> str:
    """What a form says about a change that gives an agent more rights."""
    changes = "\n".join(f"{key}: {shown_text(change)}" for key, change in error.changes.items())
    return f"Give agent {error.agent!r} more rights?\n{changes}\nAccept makes the change."
