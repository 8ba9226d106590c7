"""Start a guard or a worker without a fork server: a new Python that becomes the process.

Standard library only, as all that is forked early.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from agent_dispatch.claude.open_files import set_soft_limit


def start(be: Callable[[Mapping[str, object], Sequence[int]], object], argv: Sequence[str]) -> None:
    """Fork a process that calls `be` with the request and its descriptors; the parent exits.

    So no process of the owner has to reap it.

    Args:
        be: What the fork server would call.
        argv: The numbers of the descriptors. The request is on stdin, as JSON.
    """
    try:
        request = json.load(sys.stdin)
    except json.JSONDecodeError:
        return  # The owner was killed before it had sent all of it.
    if (soft := request.get("open_files")) is not None:
        set_soft_limit(soft)
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    fds = [int(word) for word in argv]
    for fd in fds:
        os.set_inheritable(fd, False)
    be(request, fds)
    os._exit(0)
