"""The handshake: the host greets on one line after any noise, and both must share a protocol.

Start-up files of a login shell may print anything before the program starts. The greeting repeats
a nonce of the caller, so that no other output is taken for it.
"""

import re

import msgspec

from agent_dispatch.errors import NOT_JSON
from agent_dispatch.remote.frames import OLDEST_PROTOCOL, PROTOCOL, Hello, encode

_GREETING = b"ADR1"
MISSING = "ADR-MISSING"
"""The probe prints this if the program is not installed."""
MAX_NOISE_BYTES = 64 * 1024


def greeting(nonce: str, hello: Hello) -> bytes:
    """Return the line with which a host greets. Its first line feed ends any noise before it."""
    return b"\n%s %s %s\n" % (_GREETING, nonce.encode(), encode(hello))


def common_protocol(hello: Hello) -> int | None:
    """Return the newest protocol that both sides speak, or None."""
    newest = min(PROTOCOL, hello.proto)
    return newest if newest >= max(OLDEST_PROTOCOL, hello.oldest) else None


class Greeting:
    """Finds the greeting in the first bytes of a host."""

    def __init__(self, nonce: str) -> None:
        """Look for the greeting that repeats `nonce`."""
        self._wanted = re.compile(rb"(?:^|\n)%s %s ([^\n]*)\n" % (_GREETING, nonce.encode()))
        self._seen = bytearray()
        self.hello: Hello | None = None
        """What the host said, once the greeting has arrived."""
        self.rest = b""
        """The bytes after the greeting."""
        self.has_failed = False
        """The greeting cannot be read, or did not come within `MAX_NOISE_BYTES`."""

    @property
    def is_over(self) -> bool:
        """Whether the greeting has arrived or failed."""
        return self.hello is not None or self.has_failed

    @property
    def noise(self) -> str:
        """What the host printed so far, if that is not a greeting."""
        return self._seen.decode(errors="replace").strip()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self.hello is not None:
            self.rest += chunk
            return
        if self.has_failed:
            return
        self._seen += chunk
        found = self._wanted.search(self._seen)
        if found is None:
            self.has_failed = len(self._seen) > MAX_NOISE_BYTES
            return
        try:
            self.hello = msgspec.json.decode(found[1], type=Hello)
        except NOT_JSON:
            self.has_failed = True
        else:
            self.rest = bytes(self._seen[found.end() :])
