"""The frames that two machines exchange: values and their lines of JSON; no I/O, no event loop.

A frame is one JSON object on one line; `t` names its kind. Unknown fields are ignored, and an
unknown kind is answered with `failed`, so versions may differ as long as they share a protocol
number. A frame whose JSON is longer than `CHUNK_BYTES` travels as `part`s, and other frames may be
sent between them.

    caller → host                          host → caller
    hello                                  hello
    submit                                 accepted or failed
    attach                                 event…, end
    cancel                                 cancelled
    ask                                    told
    bye
    ping, pong, part                       ping, pong, part, failed

Each request has a number, `n`, which its answer repeats.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from agent_dispatch.errors import NOT_JSON

PROTOCOL = 1
OLDEST_PROTOCOL = 1
MAX_LINE_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
MAX_OPEN_MESSAGES = 64
DEAD_S = 20.0
"""The longest silence on a link that is still alive."""


class Frame(msgspec.Struct, frozen=True, tag_field="t", tag=str.lower, omit_defaults=True):
    """The base of all kinds of frames."""


class Hello(Frame, frozen=True):
    """The first frame of each side."""

    proto: int = PROTOCOL
    oldest: int = OLDEST_PROTOCOL
    """The sender speaks all protocols from this one to `proto`."""
    version: str = ""
    depth: int = 0
    """From the caller: how many dispatches enclose it."""
    chain: tuple[str, ...] = ()
    """From the caller: ids of the hosts that the dispatch came through, its own last."""
    dead_s: float = DEAD_S
    """From the caller: after how many silent seconds both sides consider the link dead."""
    host_id: str = ""
    boot: str = ""
    user: str = ""
    max_lease_s: float = 0


class Submit(Frame, frozen=True):
    """Run a job under an id that the caller made. Safe to repeat."""

    n: int
    id: str
    request: dict[str, Any]
    kind: str = "call"
    lease_s: float = 0
    """0 for no lease, as for a background job."""
    ref: bool = False
    fresh: bool = False
    tree: str = ""
    """The tree of runs that the caller belongs to. Their costs count against one ceiling."""


class Attach(Frame, frozen=True):
    """Send the events after number `after`, and the job once it has ended."""

    n: int
    id: str
    after: int = 0
    lease_s: float = 0
    """Not 0 for a call of this caller: the host keeps it running while it hears the caller."""


class Cancel(Frame, frozen=True):
    """Cancel a job."""

    n: int
    id: str
    by: str = ""
    keep: bool = False
    """Interrupt the agent and keep what it has said."""


class Ask(Frame, frozen=True):
    """Call the method `what` of the host with the arguments `args`."""

    n: int
    what: str
    args: dict[str, Any] = {}


class Bye(Frame, frozen=True):
    """The caller leaves. The host ends the calls in `end`; without a list, all of this link."""

    end: list[str] | None = None


class Ping(Frame, frozen=True):
    """Asks for a sign of life. Answered with `pong`."""


class Pong(Frame, frozen=True):
    """Answers `ping`. Any other byte is a sign of life too."""


class Part(Frame, frozen=True):
    """A piece of the JSON of a long frame. The pieces of message `m` arrive in order."""

    m: int
    text: str
    last: bool = False


class Accepted(Frame, frozen=True):
    """The job is recorded on the host, which owns it from now on."""

    n: int
    id: str
    status: str
    again: bool = False
    """It had been accepted before."""
    result: dict[str, Any] | None = None
    """The host answered at once, from its cache or with a refusal. There is no job."""


class Event(Frame, frozen=True):
    """A line of progress. The numbers of a job's lines rise."""

    id: str
    seq: int
    line: str


class End(Frame, frozen=True):
    """The job has ended. This is its whole record."""

    n: int
    id: str
    job: dict[str, Any]


class Cancelled(Frame, frozen=True):
    """The outcome of a cancellation."""

    n: int
    outcome: str


class Told(Frame, frozen=True):
    """The answer to `ask`."""

    n: int
    value: Any = None


class Failed(Frame, frozen=True):
    """The request is wrong or cannot be answered."""

    n: int
    error: str
    kind: str = ""
    """Names the error if the caller must tell it from others."""
    steps: list[dict[str, Any]] = []


AnyFrame = (
    Hello
    | Submit
    | Attach
    | Cancel
    | Ask
    | Bye
    | Ping
    | Pong
    | Part
    | Accepted
    | Event
    | End
    | Cancelled
    | Told
    | Failed
)

_DECODER: msgspec.json.Decoder[AnyFrame] = msgspec.json.Decoder(AnyFrame)


class _Numbered(msgspec.Struct, frozen=True):
    """The part of an unknown frame that can still be read."""

    n: int = 0


class BadFrameError(Exception):
    """A line is not a frame of a known kind. `n` is the number of the request, or 0."""

    def __init__(self, reason: str, n: int = 0) -> None:
        super().__init__(reason)
        self.n = n


def encode(frame: Frame) -> bytes:
    """Return the JSON of a frame, without a line feed."""
    return msgspec.json.encode(frame)


def decode(line: bytes | bytearray) -> AnyFrame:
    """Read one frame.

    Raises:
        BadFrameError: The line is not a frame, or this version does not know its kind.
    """
    try:
        return _DECODER.decode(line)
    except NOT_JSON as error:
        n = 0
        # A line that is not even JSON belongs to no request.
        with contextlib.suppress(*NOT_JSON):
            n = msgspec.json.decode(line, type=_Numbered).n
        raise BadFrameError(f"not a frame that this version knows: {error}", n) from error


def lines_of(frame: Frame, message: int) -> Iterator[bytes]:
    """Yield the lines that carry a frame: one, or its parts under the number `message`."""
    body = encode(frame)
    if len(body) <= CHUNK_BYTES:
        yield body + b"\n"
        return
    start = 0
    while start < len(body):
        end = min(start + CHUNK_BYTES, len(body))
        # Do not cut inside a character: its continuation bytes are 10xxxxxx.
        while end < len(body) and body[end] & 0xC0 == 0x80:
            end -= 1
        piece = Part(m=message, text=body[start:end].decode(), last=end == len(body))
        yield encode(piece) + b"\n"
        start = end


class Receiver:
    """Turns bytes into frames."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()
        self._is_dropping = False
        self._unfinished: dict[int, bytearray] = {}
        """The pieces of long frames so far, by the numbers of their messages."""

    def feed(self, chunk: bytes) -> Iterator[AnyFrame | BadFrameError]:
        """Yield the frames that `chunk` completes, and an error for each bad line."""
        self._buffer += chunk
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self._is_dropping:
                self._is_dropping = False
            elif line.strip():
                try:
                    frame = decode(line)
                    whole = self._join(frame) if isinstance(frame, Part) else frame
                    if whole is not None:
                        yield whole
                except BadFrameError as error:
                    yield error
        if len(self._buffer) > MAX_LINE_BYTES:
            self._buffer.clear()
            if not self._is_dropping:
                self._is_dropping = True
                yield BadFrameError(f"a line is longer than {MAX_LINE_BYTES} bytes")

    def _join(self, part: Part) -> AnyFrame | None:
        """Add a piece of a long frame; return the frame if this was the last piece."""
        if part.m not in self._unfinished and len(self._unfinished) >= MAX_OPEN_MESSAGES:
            raise BadFrameError("too many long frames at once")
        message = self._unfinished.setdefault(part.m, bytearray())
        message += part.text.encode()
        if len(message) > MAX_MESSAGE_BYTES:
            # The pieces that follow start a message that cannot be decoded and is refused too.
            del self._unfinished[part.m]
            raise BadFrameError(f"a frame is longer than {MAX_MESSAGE_BYTES} bytes")
        if not part.last:
            return None
        del self._unfinished[part.m]
        return decode(message)
