"""All tools in the order of the list, and what the server says about them."""

from collections.abc import Sequence
from typing import Any

from agent_dispatch.server.tools.agents import (
    ADD_AGENT,
    CACHE_CLEAR,
    CACHE_STATS,
    INSPECT_AGENT,
    LIST_AGENTS,
    REMOVE_AGENT,
    UPDATE_AGENT,
)
from agent_dispatch.server.tools.dialogue import DISPATCH_DIALOGUE
from agent_dispatch.server.tools.dispatch import DISPATCH, DISPATCH_SESSION, DISPATCH_STREAM
from agent_dispatch.server.tools.jobs import (
    DISPATCH_ASYNC,
    DISPATCH_CANCEL,
    DISPATCH_GC,
    DISPATCH_JOBS,
    DISPATCH_SEND,
    DISPATCH_STATUS,
    DISPATCH_WAIT,
    FETCH_RESULT,
)
from agent_dispatch.server.tools.parallel import DISPATCH_PARALLEL
from agent_dispatch.server.tools.tool import Tool

TOOLS: Sequence[Tool[Any]] = (
    LIST_AGENTS,
    INSPECT_AGENT,
    DISPATCH,
    DISPATCH_SESSION,
    DISPATCH_PARALLEL,
    DISPATCH_STREAM,
    DISPATCH_DIALOGUE,
    DISPATCH_ASYNC,
    DISPATCH_STATUS,
    DISPATCH_WAIT,
    DISPATCH_SEND,
    DISPATCH_CANCEL,
    DISPATCH_JOBS,
    DISPATCH_GC,
    FETCH_RESULT,
    ADD_AGENT,
    UPDATE_AGENT,
    REMOVE_AGENT,
    CACHE_STATS,
    CACHE_CLEAR,
)

# Claude Code shows its model the first 2 KiB, so what matters comes first.
INSTRUCTIONS = """\
Delegate tasks to agents: Claude Code sessions in other project directories, each with its own \
CLAUDE.md, MCP servers and tools.

1. list_agents() first: names, what each agent can do, whether it is healthy.
2. dispatch(agent, task, caller=<your project>, goal=<broader objective>). The agent knows nothing \
of your conversation: put what it needs into task and context.
3. Check `success`. If false, branch on `error_type`; `error` says what to do:
   permission - a tool was denied: ask your user to grant what `error` names, then retry; rights \
are not yours to grant
   timeout - dispatch_session(agent, "Continue where you left off", session_id), or a larger \
timeout_seconds, or dispatch_async
   not_found - the directory or the claude command is missing
   recursion - do not dispatch any further
   auth, usage_limit, budget - tell the user; anything else - read `error`
   `denied_tools` with success: the answer may be incomplete.

A follow-up: dispatch_session(agent, task, session_id=<of the answer>); the agent remembers. \
Several tasks at once: dispatch_parallel (several dispatch calls run one after the other), with \
aggregate=<agent> for one answer of all. Two agents that work something out: dispatch_dialogue.

A task of minutes: dispatch_async(...) returns a job_id at once; go on with \
your work, then dispatch_wait(job_id) gives the result (dispatch_status looks without waiting, \
dispatch_send tells the agent more, dispatch_cancel ends it). Such a job outlives this session, \
and any session can fetch it; dispatch_jobs(mine=true) lists yours. Every answer has a job_id, by \
which fetch_result(ref) gives it again; an answer with `truncated` goes on there. return_ref=true \
on dispatch gives a summary only.

Dispatch when a task needs another project's files, tools or knowledge; do it yourself when you \
can: a dispatch is a whole session and costs money. inspect_agent(name) shows an agent's tools and \
documents without starting it. A wrong call returns {"error": ...} with the fix.
"""
