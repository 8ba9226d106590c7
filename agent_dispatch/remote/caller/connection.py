"""A link that is up, as its users see it: requests with their answers, and events of jobs."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator

import trio

from agent_dispatch.remote.frames import AnyFrame, Event, Frame
from agent_dispatch.remote.wire import Wire


class LinkLostError(Exception):
    """The link was cut before the answer arrived."""


class _Request:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.answer: AnyFrame | None = None


class Connection:
    """A link that is up. `Link` makes it."""

    def __init__(self, send: Callable[[bytes], Awaitable[object]], *, dead_s: float) -> None:
        """Talk over `send`; `Wire` describes both arguments."""
        self.wire = Wire(send, self._on_frame, dead_s=dead_s)
        self.is_lost = False
        self._idle_since = trio.current_time()
        self._n = 0
        self._requests: dict[int, _Request] = {}
        self._listeners: dict[str, list[Callable[[Event], object]]] = {}

    async def ask(self, make_frame: Callable[[int], Frame]) -> AnyFrame:
        """Send the frame that `make_frame` makes with a number, and wait for its answer.

        Raises:
            LinkLostError: The link was cut.
        """
        if self.is_lost:
            raise LinkLostError
        self._n += 1
        n = self._n
        self._requests[n] = request = _Request()
        self.wire.post(make_frame(n))
        try:
            await request.is_over.wait()
        finally:
            del self._requests[n]
            self._idle_since = trio.current_time()
        if request.answer is None:
            raise LinkLostError
        return request.answer

    @contextlib.contextmanager
    def events(self, job_id: str, on_event: Callable[[Event], object]) -> Iterator[None]:
        """Call `on_event` with each event of a job for as long as the block runs."""
        listeners = self._listeners.setdefault(job_id, [])
        listeners.append(on_event)
        try:
            yield
        finally:
            listeners.remove(on_event)
            if not listeners:
                self._listeners.pop(job_id, None)

    @property
    def idle_s(self) -> float:
        """For how long no request has waited for an answer."""
        return 0 if self._requests else trio.current_time() - self._idle_since

    def _on_frame(self, frame: AnyFrame) -> None:
        if isinstance(frame, Event):
            for listener in self._listeners.get(frame.id, ()):
                listener(frame)
        elif (request := self._requests.get(getattr(frame, "n", 0))) is not None:
            request.answer = frame
            request.is_over.set()

    def end(self) -> None:
        """Let all requests fail: no more answers will arrive. Safe to call twice."""
        self.is_lost = True
        for request in self._requests.values():
            request.is_over.set()
