"""What two machines say to each other, as values: no I/O, no clock, no event loop.

A frame is one JSON object on one line; `t` names its kind. Unknown fields are ignored; an unknown
kind is answered with `failed`, so versions may differ as long as they share a protocol number. A
frame whose JSON is longer than `CHUNK_BYTES` travels as `part`s, between which other frames fit.

    caller → host                          host → caller
    hello                                  hello
    submit                                 accepted or failed
    attach                                 event…, end
    cancel                                 cancelled
    ask                                    told
    bye
    ping, pong, part                       ping, pong, part, failed

Every question has a number, `n`, which its answer repeats. `Following` decides
what to send after a cut. It repeats the submission until it knows that the host has accepted it;
the host takes each id only once. From then on it attaches after the last event that it saw.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import msgspec

PROTOCOL = 1
OLDEST_PROTOCOL = 1
GREETING = "ADR1"
"""Begins the greeting: the line that comes from the program itself and not a start-up file."""
MISSING = "ADR-MISSING"
"""What the probe prints where there is no such program."""
MAX_LINE_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
MAX_OPEN_MESSAGES = 64
MAX_NOISE_BYTES = 64 * 1024

FIRST_CONTACT_S = 30.0
"""How long to try a host that was not reached yet."""
_DEAD_S = 20.0


class Frame(msgspec.Struct, frozen=True, tag_field="t", tag=str.lower, omit_defaults=True):
    """What all kinds of frames have in common."""


class Hello(Frame, frozen=True):
    """The first frame of each side."""

    proto: int = PROTOCOL
    oldest: int = OLDEST_PROTOCOL
    """It speaks all protocols from this one to `proto`."""
    version: str = ""
    depth: int = 0
    """Of the caller: how many dispatches enclose it."""
    chain: tuple[str, ...] = ()
    """Of the caller: ids of the hosts that the dispatch came through, its own last."""
    dead_s: float = _DEAD_S
    """Of the caller: how long a silence both sides take for the end of the link."""
    host_id: str = ""
    boot: str = ""
    user: str = ""
    max_lease_s: float = 0


class Submit(Frame, frozen=True):
    """Run a job under the id that the caller made; may be repeated."""

    n: int
    id: str
    request: dict[str, Any]
    kind: str = "call"
    lease_s: float = 0
    """0: none, as for a background job."""
    ref: bool = False
    fresh: bool = False
    tree: str = ""
    """The tree of runs that the caller belongs to, whose costs count against one ceiling."""


class Attach(Frame, frozen=True):
    """Send the events that follow number `after`, and the job when it has ended."""

    n: int
    id: str
    after: int = 0
    lease_s: float = 0
    """Not 0: this is our call, which goes on for as long as the host hears us."""


class Cancel(Frame, frozen=True):
    """End a job."""

    n: int
    id: str
    by: str = ""
    keep: bool = False
    """Interrupt the agent, and keep what it said."""


class Ask(Frame, frozen=True):
    """Any other question: `what` names it, `args` are its arguments."""

    n: int
    what: str
    args: dict[str, Any] = {}


class Bye(Frame, frozen=True):
    """The caller leaves: end its calls, those in `end` or, without a list, all of this link."""

    end: list[str] | None = None


class Ping(Frame, frozen=True):
    """Answered with `pong`."""


class Pong(Frame, frozen=True):
    """Answers `ping`; any other byte is a sign of life too."""


class Part(Frame, frozen=True):
    """A piece of the JSON of a long frame; the pieces of message `m` come in order."""

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
    """The answer was in the host's cache: there is no new job."""


class Event(Frame, frozen=True):
    """A line of progress; the numbers of a job's lines rise."""

    id: str
    seq: int
    line: str


class End(Frame, frozen=True):
    """The job has ended: its whole record."""

    n: int
    id: str
    job: dict[str, Any]


class Cancelled(Frame, frozen=True):
    """What a cancellation came to."""

    n: int
    outcome: str


class Told(Frame, frozen=True):
    """The answer to `ask`."""

    n: int
    value: Any = None


class Failed(Frame, frozen=True):
    """The question is wrong, or cannot be answered."""

    n: int
    error: str
    kind: str = ""
    """Which error, where the caller has to tell it from others."""
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

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(AnyFrame)


class Head(msgspec.Struct, frozen=True):
    """What can be read of a frame whose kind is not known."""

    n: int = 0


class BadFrameError(Exception):
    """A line is not a known frame; `n` is the number of the question, or 0."""

    def __init__(self, reason: str, n: int = 0) -> None:
        super().__init__(reason)
        self.n = n


def common_protocol(hello: Hello) -> int | None:
    """The newest protocol that both sides speak, if there is one."""
    newest = min(PROTOCOL, hello.proto)
    return newest if newest >= max(OLDEST_PROTOCOL, hello.oldest) else None


def encode(frame: Frame) -> bytes:
    """Give the JSON of a frame, without the end of the line."""
    return _ENCODER.encode(frame)


def lines_of(frame: Frame, message: int) -> Iterator[bytes]:
    """Give the lines that carry a frame: one, or its parts under the number `message`."""
    body = encode(frame)
    if len(body) <= CHUNK_BYTES:
        yield body + b"\n"
        return
    start = 0
    while start < len(body):
        end = min(start + CHUNK_BYTES, len(body))
        # Not inside a character: the bytes that continue one are 10xxxxxx.
        while end < len(body) and body[end] & 0xC0 == 0x80:
            end -= 1
        piece = Part(m=message, text=body[start:end].decode(), last=end == len(body))
        yield encode(piece) + b"\n"
        start = end


class Receiver:
    """Turns bytes into frames."""

    def __init__(self) -> None:
        """Have received nothing."""
        self._buffer = bytearray()
        self._is_dropping = False
        self._messages: dict[int, list[str]] = {}
        self._sizes: dict[int, int] = {}

    def feed(self, chunk: bytes) -> Iterator[AnyFrame | BadFrameError]:
        """Give the frames that `chunk` completes, and for each bad line what is wrong with it."""
        self._buffer += chunk
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self._is_dropping:
                self._is_dropping = False
            elif line.strip():
                yield from self._line(line)
        if len(self._buffer) > MAX_LINE_BYTES:
            self._buffer.clear()
            if not self._is_dropping:
                self._is_dropping = True
                yield BadFrameError(f"a line is longer than {MAX_LINE_BYTES} bytes")

    def _line(self, line: bytes) -> Iterator[AnyFrame | BadFrameError]:
        try:
            frame = decode(line)
        except BadFrameError as error:
            yield error
            return
        if not isinstance(frame, Part):
            yield frame
            return
        try:
            whole = self._join(frame)
            if whole is not None:
                yield decode(whole)
        except BadFrameError as error:
            yield error

    def _join(self, part: Part) -> bytes | None:
        if part.m not in self._messages and len(self._messages) >= MAX_OPEN_MESSAGES:
            raise BadFrameError("too many long frames at once")
        pieces = self._messages.setdefault(part.m, [])
        size = self._sizes.get(part.m, 0) + len(part.text)
        if size > MAX_MESSAGE_BYTES:
            # The pieces that follow begin a message that cannot be decoded: refused as well.
            self._messages.pop(part.m)
            self._sizes.pop(part.m, None)
            raise BadFrameError(f"a frame is longer than {MAX_MESSAGE_BYTES} bytes")
        pieces.append(part.text)
        self._sizes[part.m] = size
        if not part.last:
            return None
        del self._messages[part.m], self._sizes[part.m]
        return "".join(pieces).encode()


def decode(line: bytes) -> AnyFrame:
    """Read one frame.

    Raises:
        BadFrameError: It is none, or of a kind that this version does not know.
    """
    try:
        frame: AnyFrame = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        n = 0
        # If it is not even JSON, it answers no question.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            n = msgspec.json.decode(line, type=Head).n
        raise BadFrameError(f"not a frame that this version knows: {error}", n) from error
    return frame


class NoGreetingError(Exception):
    """The other side is not the program; `noise` is what it said."""

    def __init__(self, noise: str) -> None:
        super().__init__(noise)
        self.noise = noise


class Greeting:
    """Finds the greeting of the program after any output of start-up files."""

    def __init__(self, nonce: str) -> None:
        """Look for the greeting that repeats `nonce`."""
        self._wanted = re.compile(
            rb"(?:^|\n)%s %s ([^\n]*)\n" % (GREETING.encode(), nonce.encode())
        )
        self._seen = bytearray()

    @property
    def noise(self) -> str:
        """What came before."""
        return self._seen.decode(errors="replace").strip()

    def feed(self, chunk: bytes) -> tuple[Hello, bytes] | None:
        """Give the greeting and the bytes after it, once it has come.

        Raises:
            NoGreetingError: Too much came before, or the greeting cannot be read.
        """
        self._seen += chunk
        found = self._wanted.search(self._seen)
        if found is None:
            if len(self._seen) > MAX_NOISE_BYTES:
                raise NoGreetingError(self.noise[:2000])
            return None
        try:
            hello = msgspec.json.decode(found[1], type=Hello)
        except msgspec.DecodeError as error:
            raise NoGreetingError(found[0].decode(errors="replace").strip()) from error
        return hello, bytes(self._seen[found.end() :])


def greeting(nonce: str, hello: Hello) -> bytes:
    """The line by which a host greets; it begins with the end of whatever was printed before."""
    return b"\n%s %s %s\n" % (GREETING.encode(), nonce.encode(), encode(hello))


def dead_after_s(lease_s: float) -> float:
    """How long a link may be silent before it counts as dead."""
    return min(_DEAD_S, lease_s / 3)


class Due(Enum):
    """What silence asks for."""

    PING = auto()
    DEAD = auto()


class Silence:
    """When to ping, and when a link is dead; all times are of one monotonic clock."""

    def __init__(self, dead_s: float, now: float) -> None:
        """Begin to watch a link that is alive now."""
        self._dead_s = dead_s
        self._ping_s = dead_s / 4
        self._heard_at = self._said_at = now

    def heard(self, now: float) -> None:
        """Some bytes came: any byte is life."""
        self._heard_at = max(self._heard_at, now)

    def said(self, now: float) -> None:
        """Some bytes were sent."""
        self._said_at = max(self._said_at, now)

    def due(self, now: float) -> Due | None:
        """What is to be done now."""
        if now >= self._heard_at + self._dead_s:
            return Due.DEAD
        return Due.PING if now >= self._said_at + self._ping_s else None

    @property
    def next_at(self) -> float:
        """When to ask `due` again."""
        return min(self._heard_at + self._dead_s, self._said_at + self._ping_s)


class Stage(Enum):
    """What a caller knows of its job."""

    NOTED = auto()
    """Nothing was sent: the host cannot have it."""
    SUBMITTING = auto()
    """It was sent; whether the host has it is not known."""
    ACCEPTED = auto()
    """The host owns it."""
    ENDED = auto()


class Following:
    """One job as its caller follows it, through any number of cuts.

    `next_frame` says what to send on a link that has just come up; everything that arrives goes
    to `accepted`, `event` and `ended`, and may arrive more than once.
    """

    def __init__(self, submit: Submit | None, job_id: str, now: float, patience_s: float) -> None:
        """Follow a job.

        Args:
            submit: What to submit first; None for a job that the host has already.
            job_id: The job.
            now: Of a monotonic clock.
            patience_s: How long to try again once the host was reached.
        """
        self._submit = submit
        self.job_id = job_id
        self.stage = Stage.NOTED if submit is not None else Stage.ACCEPTED
        self.after = 0
        self._patience_s = patience_s
        self._was_reached = False
        self._alone_since: float | None = now
        """Since when there is no link; None while there is one."""

    def next_frame(self, n: int) -> Submit | Attach:
        """Take note that a link is up; give what to send on it."""
        self._was_reached, self._alone_since = True, None
        if self._submit is not None and self.stage in (Stage.NOTED, Stage.SUBMITTING):
            self.stage = Stage.SUBMITTING
            return msgspec.structs.replace(self._submit, n=n)
        return Attach(n=n, id=self.job_id, after=self.after, lease_s=self.lease_s)

    def accepted(self) -> None:
        """The host has it."""
        if self.stage is not Stage.ENDED:
            self.stage = Stage.ACCEPTED

    def event(self, seq: int) -> bool:
        """Whether the event of this number is new."""
        if seq <= self.after:
            return False
        self.after = seq
        return True

    def ended(self) -> None:
        """Its end arrived."""
        self.stage = Stage.ENDED

    def cut(self, now: float) -> None:
        """The link is gone."""
        if self._alone_since is None:
            self._alone_since = now

    @property
    def is_background(self) -> bool:
        """Whether the job is submitted and then not followed."""
        return self._submit is not None and self._submit.kind != "call"

    @property
    def lease_s(self) -> float:
        """How long it goes on without its caller; 0: to its end."""
        return 0 if self._submit is None else self._submit.lease_s

    @property
    def gives_up_at(self) -> float:
        """When to stop trying; infinity while there is a link."""
        if self._alone_since is None:
            return math.inf
        return self._alone_since + (self._patience_s if self._was_reached else FIRST_CONTACT_S)
