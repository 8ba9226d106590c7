"""What is compared: the measurements of the other benchmarks, each with both products in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import background, histories, measures
from bench.busy import busy_tools
from bench.command import Workshop
from bench.crowd import crowds, rows_of_crowds
from bench.endings import endings
from bench.fanout import MANY, OF_IDEAL, Load, fan_out, rows_of
from bench.large_answer import large_answer
from bench.lost_requests import lost_requests
from bench.real import open_real_world
from bench.real_dispatches import dialogues, real_claude, registered
from bench.report import Row


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured in one repetition."""

    rounds: int
    """Samples of what takes milliseconds."""
    few: int
    """Samples of what takes seconds."""
    real_rounds: int
    """Dispatches of the real CLI."""
    loads: tuple[Load, ...]
    histories: tuple[int, ...]
    crowds: tuple[int, ...]
    answer_mib: int


FULL = Plan(
    rounds=100,
    few=5,
    real_rounds=5,
    loads=tuple(Load(limit=limit, dispatches=MANY, seconds=1) for limit in OF_IDEAL),
    histories=(1_000, 10_000, 50_000),
    crowds=(50,),
    answer_mib=64,
)
QUICK = Plan(
    rounds=10,
    few=2,
    real_rounds=1,
    loads=tuple(Load(limit=limit, dispatches=MANY, seconds=0.1) for limit in (20, 50)),
    histories=(1_000,),
    crowds=(10,),
    answer_mib=4,
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where it is measured, and how much."""

    workshop: Workshop
    plan: Plan
    claude: Path | None
    """The real CLI; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Measurements that belong together."""

    name: str
    groups: frozenset[str]
    measure: Callable[[Site], list[Row]]
    needs_claude: bool = False


def sections(wanted: Sequence[str], *, with_claude: bool) -> list[Section]:
    """Those in which a wanted group is measured; of nothing wanted, all."""
    return [
        section
        for section in SECTIONS
        if (not wanted or section.groups & set(wanted))
        and (with_claude or not section.needs_claude)
    ]


def _dispatches(site: Site) -> list[Row]:
    products = site.workshop.products("dispatches")
    rows = measures.dispatch_overhead(products, site.plan.rounds)
    return rows + measures.watched_dispatch(products, site.plan.few)


def _servers(site: Site) -> list[Row]:
    return measures.server_life(site.workshop.products("servers"), site.plan.few)


def _quick_tools(site: Site) -> list[Row]:
    rows = measures.list_agents(site.workshop.products("quick"), site.plan.rounds)
    products = site.workshop.products("busy", limit=5)
    stages = site.workshop.root / "busy" / "stages"
    return rows + busy_tools(products, stages, site.workshop.standin, min(site.plan.few, 3))


def _fan_out(site: Site) -> list[Row]:
    return rows_of(fan_out(site.workshop, site.plan.loads))


def _background(site: Site) -> list[Row]:
    products, root = site.workshop.products("background"), site.workshop.root / "background"
    return [
        *background.submissions(products, root / "submissions", site.plan.rounds),
        *background.wake_ups(products, root / "wake-ups", site.plan.rounds),
        *background.a_hundred(products, root / "hundred", min(site.plan.few, 3)),
    ]


def _histories(site: Site) -> list[Row]:
    products, root = site.workshop.products("histories"), site.workshop.root / "histories"
    long = [histories.History(product, root) for product in products]
    return histories.listings(long, root, site.plan.few, site.plan.histories)


def _commands(site: Site) -> list[Row]:
    return measures.commands(site.workshop.products("commands"), site.plan.few)


def _crowds(site: Site) -> list[Row]:
    most = max(*site.plan.crowds, background.AT_ONCE)
    products = site.workshop.products("crowds", limit=most)
    stages, standin = site.workshop.root / "crowds" / "stages", site.workshop.standin
    return [
        *rows_of_crowds(crowds(products, stages / "calls", standin, site.plan.crowds)),
        *background.at_once(products, stages / "jobs", standin),
    ]


def _answer(site: Site) -> list[Row]:
    products = site.workshop.products("answer")
    return large_answer(products, site.workshop.root / "answer" / "stages", site.plan.answer_mib)


def _endings(site: Site) -> list[Row]:
    products = site.workshop.products("endings")
    return endings(products, site.workshop.root / "endings" / "stages", site.workshop.standin)


def _lost(site: Site) -> list[Row]:
    products = site.workshop.products("lost")
    stages = site.workshop.root / "lost" / "stages"
    return lost_requests(products, stages, min(site.plan.few, 3), "scripted agent")


def _real(site: Site) -> list[Row]:
    root, rounds = site.workshop.root / "real", site.plan.real_rounds
    with open_real_world(root, site.workshop.against, site.claude) as world:
        return [
            *real_claude(world.products, rounds, world.place),
            *registered(world.products, root / "registered", rounds, world.place),
            *dialogues(world.products, 1, world.place),
        ]


def _lost_to_real(site: Site) -> list[Row]:
    root = site.workshop.root / "lost-to-real"
    with open_real_world(root, site.workshop.against, site.claude) as world:
        return lost_requests(world.products, root / "stages", 1, "real CLI", world.place)


SECTIONS = (
    Section(name="dispatches", groups=frozenset({"m1"}), measure=_dispatches),
    Section(name="servers from start to end", groups=frozenset({"m1", "m2"}), measure=_servers),
    Section(name="quick tools", groups=frozenset({"m3"}), measure=_quick_tools),
    Section(name=f"fan-out of {MANY}", groups=frozenset({"m4"}), measure=_fan_out),
    Section(name="background jobs", groups=frozenset({"m5"}), measure=_background),
    Section(name="long histories", groups=frozenset({"m6", "m7"}), measure=_histories),
    Section(name="commands", groups=frozenset({"m7"}), measure=_commands),
    Section(name="the real CLI", groups=frozenset({"m8"}), measure=_real, needs_claude=True),
    Section(name="many at once", groups=frozenset({"m9"}), measure=_crowds),
    Section(name="a large answer", groups=frozenset({"m9"}), measure=_answer),
    Section(name="ends of servers", groups=frozenset({"m10"}), measure=_endings),
    Section(name="requests beside a dispatch", groups=frozenset({"d1"}), measure=_lost),
    Section(
        name="requests beside a dispatch of the real CLI",
        groups=frozenset({"d1"}),
        measure=_lost_to_real,
        needs_claude=True,
    ),
)
GROUPS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "d1")
