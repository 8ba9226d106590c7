"""What one chaos run does, derived from its seed alone, so that it can be repeated."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto

from bench.chaos.agents import ENDING, HANGING


class Touches(Flag):
    """The jobs whose end a fault may change."""

    NOBODY = 0
    CALLS = auto()
    """Jobs that the server runs."""
    BACKGROUND = auto()
    """Jobs that have a worker."""
    EVERYBODY = CALLS | BACKGROUND


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kind of fault."""

    touches: Touches = Touches.NOBODY
    ends_server: bool = False
    kills_guards: bool = False
    """After it, nothing can find a detached process with a cleared environment."""


_CALLS = Fault(touches=Touches.CALLS)
_SERVER = Fault(touches=Touches.CALLS, ends_server=True)
_BACKGROUND = Fault(touches=Touches.BACKGROUND)
_EVERYBODY = Fault(touches=Touches.EVERYBODY)

FAULTS: Mapping[str, Fault] = {
    "server killed": _SERVER,
    "server's group killed": _SERVER,
    "server SIGTERM": _SERVER,
    "server SIGINT": _SERVER,
    "server SIGHUP": _SERVER,
    "server's stdin ends": _SERVER,
    "client closes its reading end": _SERVER,
    "server stopped for a while": Fault(),
    "worker killed": _BACKGROUND,
    "worker signalled": _BACKGROUND,
    "worker stopped for a while": Fault(),
    "guard killed": Fault(touches=Touches.EVERYBODY, kills_guards=True),
    "guard signalled": _EVERYBODY,
    "guard stopped for a while": Fault(),
    "fork server killed": _CALLS,
    "fork server stopped for a while": Fault(),
    "fork server stopped for good": _EVERYBODY,
    "worker and guard killed": Fault(touches=Touches.EVERYBODY, kills_guards=True),
    "server and guard killed": Fault(
        touches=Touches.EVERYBODY, ends_server=True, kills_guards=True
    ),
    "all of ours killed": Fault(touches=Touches.EVERYBODY, ends_server=True, kills_guards=True),
    "killed while it writes a record": Fault(touches=Touches.EVERYBODY, ends_server=True),
    "cancelled over MCP": _EVERYBODY,
    "cancelled from a shell": _EVERYBODY,
    "call withdrawn": _CALLS,
    "submission withdrawn": Fault(),
    "directory that never answers": Fault(),
    "disk full": _EVERYBODY,
    "files limited in size": Fault(),
    "locks held by a stuck process": Fault(),
    "client does not read": Fault(),
    "clocks a day off": Fault(),
    "old jobs removed, by two at once": Fault(),
    "odd entry among the files of jobs": Fault(),
}
_CALLED = ("dispatch", "dispatch_parallel", "dispatch_dialogue")
ONLOOKERS = ("nobody", "settles", "waits")
_LATEST_S = (0.05, 0.2, 0.6)
"""While a job is created, while it starts, and while its agent works."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A call that gives work to agents."""

    at_s: float
    tool: str
    behaviours: tuple[str, ...]
    """The behaviour of each agent; several for `dispatch_parallel`."""
    twice: bool
    """Two callers make the same call and share one run."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One fault and its time."""

    at_s: float
    from_first_job: bool
    """Count `at_s` from the moment the first job is recorded, not from the first request."""
    fault: str
    lasts_s: float
    """The duration of a fault that ends by itself."""
    chance: float
    """From 0 to 1: chooses among the fault's variants."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run."""

    seed: int
    limit: int
    """`max_concurrency`."""
    onlooker: str
    """A process that runs beside the faults: `nobody`, one that `settles` jobs without an owner,
    or one that `waits` for each job."""
    submissions: tuple[Submission, ...]
    strikes: tuple[Strike, ...]

    @property
    def faults(self) -> list[Fault]:
        """The kinds of faults in this run."""
        return [FAULTS[strike.fault] for strike in self.strikes]

    @property
    def touches(self) -> Touches:
        """The jobs that may end early."""
        touched = Touches.NOBODY
        for fault in self.faults:
            touched |= fault.touches
        return touched

    def has(self, name: str) -> bool:
        """Whether the run has a fault."""
        return any(strike.fault == name for strike in self.strikes)

    def describe(self) -> str:
        """Return the plan in one line."""
        given = [
            f"{s.at_s:.3f} {s.tool}({', '.join(s.behaviours)}){' twice' if s.twice else ''}"
            for s in self.submissions
        ]
        struck = [
            f"{'+' if s.from_first_job else ''}{s.at_s:.3f} {s.fault} [{s.chance:.2f}]"
            for s in self.strikes
        ]
        return (
            f"limit {self.limit}; onlooker {self.onlooker}; {'; '.join(given)} |"
            f" {'; '.join(struck)}"
        )


def make_plan(seed: int) -> Plan:
    """Derive a run; as many successive seeds as there are faults begin with each fault once."""
    chance = random.Random(seed)
    names = list(FAULTS)
    struck = [names[seed % len(names)]]
    if chance.random() < 0.4:
        struck.append(chance.choice(names))
    return Plan(
        seed=seed,
        limit=chance.choice([1, 2, 5]),
        onlooker=chance.choice(ONLOOKERS),
        submissions=tuple(
            _submission(chance, _tools(struck[0])) for _ in range(chance.choice([1, 1, 2, 3]))
        ),
        strikes=tuple(_strike(chance, name) for name in struck),
    )


def _tools(fault: str) -> list[str]:
    """The tools whose jobs the fault can hit."""
    if FAULTS[fault] is _BACKGROUND or fault.startswith("worker"):
        return ["dispatch_async"]
    if FAULTS[fault] is _CALLS:
        return list(_CALLED)
    return ["dispatch_async", "dispatch_async", *_CALLED]


def _submission(chance: random.Random, tools: list[str]) -> Submission:
    tool = chance.choice(tools)
    count = chance.choice([2, 3]) if tool == "dispatch_parallel" else 1
    return Submission(
        at_s=chance.choice([0.0, chance.uniform(0, 0.1)]),
        tool=tool,
        behaviours=tuple(_behaviour(chance, tool) for _ in range(count)),
        twice=tool == "dispatch" and chance.random() < 0.3,
    )


def _behaviour(chance: random.Random, tool: str) -> str:
    if tool == "dispatch_dialogue" and chance.random() < 0.4:
        return "converses"
    return chance.choice(list(HANGING if chance.random() < 0.5 else ENDING))


def _strike(chance: random.Random, name: str) -> Strike:
    return Strike(
        at_s=chance.uniform(0, chance.choice(_LATEST_S)),
        from_first_job=chance.random() < 0.7,
        fault=name,
        lasts_s=chance.uniform(0.1, 0.6),
        chance=chance.random(),
    )
