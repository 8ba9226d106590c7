"""The text of a line of progress: which agent it is about, and what that agent does."""

import re

from agent_dispatch.core.masking import mask
from agent_dispatch.core.stream.events import ContentBlock, ToolInput
from agent_dispatch.core.text import clip
from agent_dispatch.model.dispatch import Progress

_TARGET_CHARS = 80
_SEPARATOR = " · "

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


def started_line(job_id: str) -> Progress:
    """Return the first line of a job, which names it by the last 8 digits of its id."""
    digits, _, _host = job_id.partition("@")
    return Progress(f"started{_SEPARATOR}job {digits[-8:]}", job_id)


def tool_line(block: ContentBlock) -> Progress:
    """Return the line of a tool call: the tool, and its command, file, pattern or URL."""
    target = one_line(target_of(block.input), _TARGET_CHARS)
    name = one_line(block.name, _TARGET_CHARS)
    return Progress(f"{name}: {target}" if target else name, is_tool=True)


def target_of(tool_input: ToolInput) -> str:
    """Return the command, file, pattern or URL in a tool's input; empty without one."""
    target = (
        tool_input.command or tool_input.file_path or tool_input.notebook_path or tool_input.pattern
    )
    return target or tool_input.url or tool_input.path or tool_input.query


def with_agent(agent: str, progress: Progress, run_s: float) -> Progress:
    """Put the agent's name before a line of progress, and the time after a tool call.

    Args:
        agent: The agent of the job, unless the progress names another agent.
        run_s: Seconds since the run began.
    """
    line = f"{progress.agent or agent}{_SEPARATOR}{progress.message}"
    return Progress(
        with_seconds(line, run_s) if progress.is_tool else line,
        progress.job_id,
        progress.member,
        progress.questions,
        stem=line,
        run_s=run_s,
        is_tool=progress.is_tool,
    )


def with_seconds(line: str, seconds: float) -> str:
    """Append the whole seconds to a line, if there is at least one."""
    return f"{line}{_SEPARATOR}{seconds:.0f} s" if seconds >= 1 else line


def one_line(text: str, max_chars: int = 200) -> str:
    """Return the beginning of `text` on one line, without control characters and keys."""
    # Mask before cutting: a key that is cut is not recognized.
    return clip(mask(_UNPRINTABLE.sub(" ", text[: max_chars * 4]).strip()), max_chars)
