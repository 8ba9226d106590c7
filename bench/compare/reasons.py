"""Which rows README shows, and why a row is behind where it is."""

import re
from collections.abc import Mapping

from bench.compare.verdict import Compared, Verdict
from bench.report import Row

HEADLINES: Mapping[str, str] = {
    "instant child: what is added, wall": "a dispatch, over its agent alone",
    "first dispatch": "the first dispatch of a server",
    "watched dispatch of 400 messages, wall": "a watched dispatch of 400 messages",
    "start to tools, discover": "start of the server, as Claude Code does it",
    "PSS idle": "memory when idle (PSS, with helpers)",
    "exit after EOF": "end of the server after its client has gone",
    "list_agents, 10 agents": "list_agents",
    "list_agents while 5 dispatches report": "list_agents while 5 dispatches report",
    "200 x 1 s at limit 5: wall of ideal": "200 dispatches of 1 s at limit 5, of the ideal",
    "200 x 1 s at limit 20: wall of ideal": "200 dispatches of 1 s at limit 20, of the ideal",
    "200 x 1 s at limit 50: wall of ideal": "200 dispatches of 1 s at limit 50, of the ideal",
    "200 x 1 s at limit 50: peak": "200 dispatches at limit 50: agents at once",
    "200 x 1 s at limit 50: CPU of each": "200 dispatches at limit 50: CPU of each, with its agent",
    "dispatch_async to its answer": "dispatch_async, to its answer",
    "dispatch_wait after the agent's end": "dispatch_wait, after the agent's end",
    "100 instant jobs, wall": "100 background jobs of instant agents",
    "newest 50 of 1000": "dispatch_jobs beside 1,000 jobs",
    "newest 50 of 50000": "dispatch_jobs beside 50,000 jobs",
    "list_agents right behind it, 50000 beside": "list_agents behind a listing of 50,000 jobs",
    "start of a server, 50000 jobs": "start of a server beside 50,000 jobs",
    "list": "the command agent-dispatch list",
    "dispatch of the real CLI, wall": "a dispatch of the real CLI",
    "registered: dispatch, wall": "a dispatch of the real CLI, product at user scope",
    "dialogue of 3 rounds, wall": "a dialogue of 6 turns of the real CLI",
    "50 dispatches: running": "50 dispatches at limit 50: agents at work",
    "50 dispatches: PSS of each": "50 dispatches: memory of each beside its agent (PSS)",
    "answer of 64 MiB: wall": "an answer of 64 MiB",
    "answer of 64 MiB: on the wire": "an answer of 64 MiB: on the wire",
    "answer of 64 MiB: peak RSS over idle": "an answer of 64 MiB: memory at its peak",
    "call: children alive 3 s after EOF, TERM, INT, KILL": (
        "agents of calls left 3 s after the server's end, of 4"
    ),
    "worst time to the server's exit": "worst time to the server's end",
    "background: done, says a new server": "background jobs that outlive their server, of 4",
    "lost of 40 requests beside a dispatch (scripted agent)": (
        "requests lost of 40 beside a dispatch, scripted agent"
    ),
    "lost of 40 requests beside a dispatch (real CLI)": (
        "requests lost of 40 beside a dispatch, real CLI"
    ),
}
"""What users notice, by the names of the rows, and how it is called for them."""

_DURABLE = (
    "On disk, durably, before the agent starts and before the answer is given; the predecessor"
    " waits for no disk. `durable write` is what one takes on this disk, and a dispatch has two."
)
_GUARDED = (
    "Each agent has a guard, a process of its own that ends it whatever happens to the server, and"
    " each background job a worker, so that it goes on. An agent takes some 100 MiB itself."
)
_LIBRARY = (
    "Most of the start is importing the MCP library, and most of a quick call is spent in it; the"
    " rest of the memory is processes that are kept ready for guards and workers."
)
_REASONS: Mapping[str, str] = {
    r"^start to tools|idle$|^registered:|^list_agents": _LIBRARY,
    r"PSS of (each|server)|growth in PSS|descriptors of each": _GUARDED,
    r"CPU of each": f"{_DURABLE} {_GUARDED}",
    r"instant|^first dispatch|^watched dispatch|^dispatch_async|^dispatch_wait": _DURABLE,
}
"""By a pattern of the row's name; the first that fits."""


def label_of(row: Row) -> str:
    """The name of a row for those who do not know the others."""
    return HEADLINES.get(row.name, row.name)


def reason_of(compared: Compared) -> str:
    """Why this row is not as it should be, if it is not and that is known."""
    if compared.verdict in (Verdict.MET, Verdict.NO_TARGET):
        return ""
    name = compared.row.name
    return next((why for pattern, why in _REASONS.items() if re.search(pattern, name)), "")
