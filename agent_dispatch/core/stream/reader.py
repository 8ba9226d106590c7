"""Reads stdout: bytes in, events out. Any split of the bytes gives the same events.

Memory is bounded, whatever the child prints: it needs about three times the largest line while that
line is decoded.
"""

from agent_dispatch.core.stream.decoding import decode_line, embedded_events
from agent_dispatch.core.stream.events import CutLine, Event, NoiseLine, ResultEvent

MAX_LINE_BYTES = 160 * 1024 * 1024
"""A longer line is cut; no real answer is that large."""

_CUT_HEAD_BYTES = 500
_MAX_UNREAD_BYTES = 16 * 1024 * 1024
"""Kept of JSON that spans several lines; it is read at the end if no result arrived."""


class EventDecoder:
    """Splits a byte stream into lines and decodes each as it ends."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._line = bytearray()
        """The line that has begun and not ended."""
        self._cut_head: bytes | None = None
        """The head of a line that is too long and being skipped."""
        self._unread: bytearray | None = bytearray()
        """Lines without events, from the first that looks like JSON; None: no longer needed."""

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[Event]:
        """Return the events that end in this chunk; `chunk` may be reused afterwards."""
        data = chunk if isinstance(chunk, bytes | bytearray) else bytes(chunk)
        events: list[Event] = []
        begin = 0
        with memoryview(data) as view:
            while (end := data.find(b"\n", begin)) >= 0:
                events += self._end_line(view[begin:end])
                begin = end + 1
            self._keep(view[begin:])
        return events

    def finish(self) -> list[Event]:
        """Return the events that the end of the stream completes.

        If no line had a result, the lines without events are read once more as one text, to find
        a result that was printed over several lines.
        """
        events = self._end_line(memoryview(b""))
        unread, self._unread = self._unread, None
        return events + list(embedded_events(unread or b""))

    def _keep(self, part: memoryview) -> None:
        if self._cut_head is not None:
            return
        if len(self._line) + len(part) > self._max_line_bytes:
            head_bytes = min(_CUT_HEAD_BYTES, self._max_line_bytes)
            self._cut_head = bytes(self._line[:head_bytes] + part[:head_bytes])[:head_bytes]
            self._line = bytearray()
            return
        self._line += part

    def _end_line(self, part: memoryview) -> list[Event]:
        """Decode the line that ends with `part`."""
        if self._cut_head is None and not self._line and len(part) <= self._max_line_bytes:
            return self._decode(part)
        self._keep(part)
        line, self._line = self._line, bytearray()
        head, self._cut_head = self._cut_head, None
        return self._decode(line) if head is None else [CutLine(head)]

    def _decode(self, line: bytearray | memoryview) -> list[Event]:
        events = decode_line(line)
        for event in events:
            if isinstance(event, ResultEvent):
                self._unread = None
            elif isinstance(event, NoiseLine):
                self._collect(line, looks_like_json=event.text.startswith(("{", "[")))
        return events

    def _collect(self, line: bytearray | memoryview, *, looks_like_json: bool) -> None:
        """Keep a line that may be part of JSON over several lines, while there is room."""
        if self._unread is None or not (self._unread or looks_like_json):
            return
        if len(self._unread) + len(line) > _MAX_UNREAD_BYTES:
            self._unread = None
            return
        self._unread += line
        self._unread += b"\n"
