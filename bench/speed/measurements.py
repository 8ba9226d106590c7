"""The table of all measurements, and their sizes."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.kept import measured_commit
from bench.processes import why_not_counted
from bench.speed import dispatches, histories, jobs, many_at_once, real_cli, server_life
from bench.speed.many_at_once import MANY, OF_IDEAL, TOGETHER, Load
from bench.speed.mcp_client import RefusedError
from bench.speed.predecessor import version_of
from bench.speed.rows import Row
from bench.speed.workshop import Workshop
from tests.npm import CannotInstallError

GROUPS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "d1")
_WRITES = 30


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sizes of the measurements."""

    rounds: int
    """Samples of figures that take milliseconds."""
    loads: tuple[Load, ...]
    histories: tuple[int, ...]
    crowds: tuple[int, ...]
    streams: int
    stream_s: float
    answer_mib: int

    @property
    def few(self) -> int:
        """Samples of figures that take seconds."""
        return max(2, self.rounds // 20)

    @property
    def fewer(self) -> int:
        """Samples of figures that take many seconds."""
        return min(self.few, 3)


def _filling(limit: int) -> Load:
    """Twice the limit, working long enough for the first half to start."""
    return Load(limit=limit, dispatches=2 * limit, seconds=max(0.25, limit / 50))


TIMED = tuple(Load(limit=limit, dispatches=MANY, seconds=1) for limit in OF_IDEAL)
FULL = Plan(
    rounds=100,
    loads=(
        *(_filling(limit) for limit in (1, 2, 5, 10, 20, 50, 100)),
        *TIMED,
        Load(limit=100, dispatches=MANY, seconds=1),
        Load(limit=20, dispatches=MANY, seconds=1, tool=TOGETHER),
    ),
    histories=(1_000, 10_000, 50_000, 100_000),
    crowds=(1, 5, 20, 50, 100),
    streams=1000,
    stream_s=30,
    answer_mib=64,
)
QUICK = Plan(
    rounds=10,
    loads=(_filling(2), _filling(10), Load(limit=20, dispatches=MANY, seconds=0.1)),
    histories=(1_000,),
    crowds=(1, 10),
    streams=40,
    stream_s=1,
    answer_mib=4,
)
Measure = Callable[[Workshop, Plan], Iterable[Row]]


@dataclass(frozen=True)
class Section:
    """A measurement; `--only` selects it by its name or by a group of its rows."""

    name: str
    groups: set[str]
    measure: Measure
    needs_claude: bool = False


def _real(name: str, group: str, measure: Measure) -> Section:
    """A section with the real CLI."""

    def measure_there(shop: Workshop, plan: Plan) -> Iterator[Row]:
        with real_cli.open_real_world(shop) as world:
            yield from measure(world, plan)

    return Section(name, {group}, measure_there, needs_claude=True)


SECTIONS = (
    Section("instant-child", {"m1"}, lambda s, p: dispatches.dispatch_overhead(s, p.rounds)),
    Section("evidence", {"m1"}, lambda s, p: dispatches.evidence(s, p.rounds)),
    Section("watched-dispatch", {"m1"}, lambda s, p: dispatches.watched_dispatch(s, p.few)),
    Section("server-life", {"m1", "m2"}, lambda s, p: server_life.server_life(s, p.few)),
    Section("idle-after-use", {"m2"}, lambda s, _: server_life.idle_after_use(s)),
    Section("list_agents", {"m3"}, lambda s, p: server_life.list_agents(s, p.rounds)),
    Section("busy-server", {"m3"}, lambda s, p: server_life.busy_server(s, p.fewer)),
    Section("limits", {"m4"}, lambda s, p: many_at_once.fan_out(s, p.loads)),
    Section("submissions", {"m5"}, lambda s, p: jobs.submissions(s, p.rounds)),
    Section("wake-ups", {"m5"}, lambda s, p: jobs.wake_ups(s, p.rounds)),
    Section("hundred-jobs", {"m5"}, lambda s, p: jobs.a_hundred(s, p.fewer)),
    Section("histories", {"m6", "m7"}, lambda s, p: histories.listings(s, p.few, p.histories)),
    Section("commands", {"m7"}, lambda s, p: server_life.commands(s, p.few)),
    _real("real-dispatch", "m8", lambda s, p: real_cli.real_dispatches(s, p.few)),
    _real("registered", "m8", lambda s, p: real_cli.registered(s, p.few)),
    _real("real-dialogue", "m8", lambda s, _: real_cli.dialogues(s, 1)),
    Section("crowd", {"m9"}, lambda s, p: many_at_once.crowds(s, p.crowds)),
    Section("streams", {"m9"}, lambda s, p: many_at_once.streams(s, p.streams, p.stream_s)),
    Section("jobs-at-once", {"m9"}, lambda s, _: jobs.at_once(s)),
    Section("answer", {"m9"}, lambda s, p: many_at_once.large_answer(s, p.answer_mib)),
    Section("endings", {"m10"}, lambda s, _: jobs.endings(s)),
    Section("lost", {"d1"}, lambda s, p: server_life.lost_requests(s, p.fewer, "scripted agent")),
    _real("lost-real", "d1", lambda s, _: server_life.lost_requests(s, 1, "real CLI")),
)


NAMES = tuple(section.name for section in SECTIONS)


def select(*names: str, only: Collection[str] = (), with_claude: bool = True) -> list[Section]:
    """The sections with these names that `only` selects; empty: no restriction."""
    return [
        section
        for section in SECTIONS
        if (not names or section.name in names)
        and (not only or section.name in only or section.groups & set(only))
        and (with_claude or not section.needs_claude)
    ]


def measure(
    sections: Iterable[Section],
    shop: Workshop,
    plan: Plan,
    only: Collection[str],
    rows: list[Row],
    failures: list[str],
) -> None:
    """Add the selected rows of each section to `rows`, and failures to `failures`.

    If a section fails, its rows are missing, and the other sections are still measured.
    """
    for section in sections:
        say(f"measuring {section.name} ...")
        try:
            found = list(section.measure(shop, plan))
        except (RuntimeError, RefusedError, TimeoutError, EOFError, CannotInstallError) as error:
            failure = f"{section.name}: {str(error) or type(error).__name__}"
            say(f"FAILED, {failure}")
            failures.append(failure.replace("\n", " ")[:300])
            continue
        whole = not only or section.name in only
        rows += [row for row in found if whole or row.group in only]


def about_run(shop: Workshop, command: str) -> dict[str, str]:
    """The description of a run before it starts: the command, versions and the machine."""
    why_not = why_not_counted()
    ours = Path(shop.products()[0].program)
    folder = shop.folder()
    write_ms = median(jobs.durable_write_s(folder) for _ in range(_WRITES)) * 1000
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "agent-dispatch": f"{version_of(ours)}{measured_commit()}",
        "predecessor": version_of(Path(shop.predecessor)) if shop.predecessor else "not measured",
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "scripted agent": shop.agent_is,
        "durable write": f"{write_ms:.1f} ms",
        "CPU time": f"not counted: {why_not}" if why_not else "of all descendants",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def say(text: str) -> None:
    """Report progress on stderr."""
    print(text, file=sys.stderr)


def positive(text: str) -> int:
    """A number for `argparse`: an integer from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def command_line(program: str, options: argparse.Namespace, *names: str) -> str:
    """The command with these options, without paths of this machine."""
    words = [f"python -m {program}"]
    for name in names:
        value = getattr(options, name, None)
        if value is True:
            words.append(f"--{name}")
        elif value:
            words.append(f"--{name} {' '.join(value) if isinstance(value, list) else value}")
    return " ".join(words)


def add_options(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Add the options that all commands have; `names`: of the sections."""
    used = {group for section in select(*names) for group in section.groups}
    groups = [group for group in GROUPS if group in used]
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[*groups, *names],
        metavar="WHAT",
        help=f"groups of rows ({', '.join(groups)}) or measurements ({', '.join(names)})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to check that the benchmark works"
    )
    parser.add_argument(
        "--against",
        metavar="PROGRAM",
        default="",
        help="the predecessor (agent-dispatch 0.16.0 from the package index, in a separate"
        " environment): its console script or its interpreter",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
