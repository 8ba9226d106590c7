"""The limit of open files: owners of runs raise theirs; agents get the original one.

A run needs about nine descriptors of its owner, so the usual soft limit of 1024 would end a fan-out
at a hundred. It is so low for programs that use select(2), which we do not. Agents get the limit
that the owner was started with, because some programs do work for every possible descriptor.
"""

import resource

_ENOUGH = 65_536
_MOST_ON_MACOS = 10_240  # OPEN_MAX; setrlimit(2) refuses more there, whatever the hard limit.


def soft_limit() -> int:
    """The present limit of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_soft_limit() -> None:
    """Raise the limit as far as it is useful and allowed."""
    for wanted in (_ENOUGH, _MOST_ON_MACOS):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= allowed:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):
            continue
        return


def set_soft_limit(soft: int) -> None:
    """Set the limit of this process and of what it starts; open files stay open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
