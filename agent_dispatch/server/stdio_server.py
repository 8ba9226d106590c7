"""Serves one client over stdio with the MCP library, in one nursery.

A signal, the end of stdin, and a client that no longer reads all set `leaving`, which cancels the
work. The clean-up after that has a time limit.
"""

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from signal import Signals

import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import DispatchError
from agent_dispatch.run.open_service import open_service
from agent_dispatch.run.service import Service
from agent_dispatch.server.mcp_server import build_server
from agent_dispatch.server.stdio.byte_streams import LineReader, Outbox
from agent_dispatch.server.stdio.front_door import FrontDoor
from agent_dispatch.server.stdio.messages import MessageReader, MessageWriter
from agent_dispatch.server.stdio.unanswered import Unanswered
from agent_dispatch.server.stdio.wire import Wire

logger = logging.getLogger(__name__)

CLEAN_UP_S = 0.2
"""How long cancelled work may take to end; the guards end the agents without us."""
CLEAN_UP_AFTER_GRACE_S = 0.08
"""The same after the grace period of a client that left: both together must stay below 0.4 s."""
FLUSH_S = 0.05
"""How long the last frames may take."""

OpeningService = AbstractAsyncContextManager[Service | DispatchError]
"""Opens what the tools work with, or says why it cannot; closes it at the end."""


@asynccontextmanager
async def open_service_or_refuse(
    fork_server: ForkServer, environ: Mapping[str, str]
) -> AsyncIterator[Service | DispatchError]:
    """Open the service; if that fails, yield the error, which then answers each call.

    A user who sees the error in an answer can fix it. If the server just ended, nobody would see
    the error.
    """
    async with AsyncExitStack() as stack:
        opening = open_service(fork_server=fork_server, environ=environ)
        service: Service | DispatchError
        try:
            service = await stack.enter_async_context(opening)
        except DispatchError as error:
            service = error
        yield service


async def serve_messages(
    service: Service | DispatchError,
    lines: LineReader,
    outbox: Outbox,
    unanswered: Unanswered,
    door: FrontDoor | None = None,
    *,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve one client until its input ends.

    Args:
        service: What the tools work with, or why there is none.
        lines: The client's input.
        outbox: Takes the answers.
        unanswered: The requests that wait for an answer.
        door: Answers the messages that it may answer; None lets the library answer everything.
        on_end: Called when the client has left and the grace period for its answers has passed.
    """
    server = build_server(service, arrived_at=unanswered.arrived_at)
    await server.run(
        MessageReader(lines, outbox, unanswered, door, on_end=on_end),
        MessageWriter(lines, outbox, unanswered),
        server.create_initialization_options(),
    )


async def serve_client(
    wire: Wire, door: FrontDoor, opening: OpeningService, signals: Sequence[Signals]
) -> None:
    """Serve the client on `wire` until it leaves or a signal comes.

    If cancelled work does not end in time, this ends the process.

    Args:
        wire: The connection, with the input and output that the front door left.
        door: Continues to answer the messages that it may answer.
        opening: The service; closed before this returns.
        signals: The signals that end the server.
    """
    leaving = trio.Event()
    door.serves_alone = False
    since = trio.current_time() - (time.monotonic() - wire.handed_over_at)
    lines = LineReader(wire.read_fd, wire.unread, since=since)
    outbox = Outbox(wire.write_fd, on_gone=leaving.set, unwritten=wire.unwritten)
    unanswered = Unanswered()
    work = trio.CancelScope()
    # The receiver stays until the end: the client sends SIGTERM right after SIGINT.
    with closing(lines), closing(outbox), trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            nursery.start_soon(_leave_at_signal, received, leaving)
            nursery.start_soon(_end_work, leaving, unanswered, work, outbox)
            with work:
                try:
                    async with opening as service, trio.open_nursery() as tidying:
                        if isinstance(service, Service):
                            tidying.start_soon(service.tidy)
                        await serve_messages(
                            service, lines, outbox, unanswered, door, on_end=leaving.set
                        )
                        tidying.cancel_scope.cancel()
                finally:
                    leaving.set()
            with trio.move_on_after(FLUSH_S):
                await outbox.flush()
            nursery.cancel_scope.cancel()


async def _leave_at_signal(received: AsyncIterator[int], leaving: trio.Event) -> None:
    async for _ in received:
        leaving.set()


async def _end_work(
    leaving: trio.Event, unanswered: Unanswered, work: trio.CancelScope, outbox: Outbox
) -> None:
    await leaving.wait()
    work.cancel()
    outbox.release_senders()
    clean_up_s = CLEAN_UP_AFTER_GRACE_S if unanswered.input_ended else CLEAN_UP_S
    await trio.sleep(clean_up_s)
    logger.error("clean-up took longer than %s s; leaving without its end", clean_up_s)
    os._exit(0)
