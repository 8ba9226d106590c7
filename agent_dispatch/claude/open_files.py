"""How many files an owner of runs may have open, and how many its agents.

A run takes about nine descriptors of its owner, so the soft limit that systems give, often 1024,
would end a fan-out at a hundred. It is that low for programs that still use select(2), which we
do not; so an owner raises its own. What it starts gets the limit that the owner was started with:
there are programs that do something for every descriptor that they may have.
"""

import resource

_ENOUGH = 65_536
_MOST_ON_MACOS = 10_240  # OPEN_MAX; setrlimit(2) refuses more there, whatever the hard limit.


def soft_limit() -> int:
    """The limit of this process as it is now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_soft_limit() -> None:
    """Raise it as far as it is of use and allowed."""
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
    """Set it, for all that this process starts from now on; what is open stays open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
