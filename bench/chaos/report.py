"""The report on the runs: the outcomes of the jobs by fault, and the invariants that held."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.chaos.play import Outcome

BLOCK = "chaos"
"""The name of the block in docs/reliability.md and of the kept file."""

_PROMISES = {
    "I1": ("every acknowledged job is recorded, whole", "acknowledged jobs"),
    "I2": ("the record of a job that has ended never changes", "jobs"),
    "I3": ("a job that has not ended has an owner, or its next reader records its end", "jobs"),
    "I4": ("no process of a job lives three seconds after its end", "jobs"),
    "I5": ("no more agents run at once than the limit allows", "runs"),
    "I6": ("every reported success was answered by its agent, in these words", "done"),
    "I7": ("files and directories are for their owner only", "runs"),
    "I8": ("no server and no worker grows by more than 64 MiB, whatever its agents print", "runs"),
}
"""By the mark of a violation: the invariant, and what its checks are counted in. `witness` checks
them. Kept results contain these texts."""
_BESIDE = (
    "waiters are woken, a job that no fault touched ends as its agent made it end, every request is"
    " answered while its server lives, nothing is left behind, no bug leaves a traceback"
)

_HEAD: tuple[str, ...] = (
    "fault",
    "runs",
    "jobs",
    "done",
    "failed",
    "lost",
    "cancelled",
    "end ms",
    "violations",
)


def as_line(outcome: Outcome) -> str:
    """One run and its violations."""
    plan = outcome.plan
    lines = [f"seed {plan.seed}: {plan.describe()}"]
    lines += [f"    VIOLATED {violation}" for violation in outcome.violations]
    lines.append(f"    again: python -m bench.chaos --seed {plan.seed} --runs 1")
    return "\n".join(lines)


def as_table(outcomes: Sequence[Outcome]) -> str:
    """An aligned table of faults and outcomes; a run with two faults counts for both."""
    struck = sorted({strike.fault for outcome in outcomes for strike in outcome.plan.strikes})
    rows = [
        _HEAD,
        *(_row(fault, [each for each in outcomes if each.plan.has(fault)]) for fault in struck),
        _row("all", outcomes),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(fault: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    ends = _ends(outcomes)
    times_ms = [outcome.over_s * 1000 for outcome in outcomes]
    lost = sum(count for (_, error_type), count in ends.items() if error_type == "lost")
    by_status = Counter[str]()
    for (status, _), count in ends.items():
        by_status[status] += count
    return (
        fault,
        str(len(outcomes)),
        str(by_status.total()),
        str(by_status["done"]),
        str(by_status["failed"] - lost),
        str(lost),
        str(by_status["cancelled"]),
        f"{median(times_ms):.0f}",
        str(sum(len(outcome.violations) for outcome in outcomes)),
    )


def _ends(outcomes: Iterable[Outcome]) -> Counter[tuple[str, str]]:
    return Counter(
        (job["status"], job["error_type"]) for outcome in outcomes for job in outcome.jobs
    )


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Totals of all runs."""
    background = [
        job
        for outcome in outcomes
        if any(fault.ends_server for fault in outcome.plan.faults)
        for job in outcome.jobs
        if job["kind"] == "background"
    ]
    return {
        "runs": len(outcomes),
        "faults": sum(len(outcome.plan.strikes) for outcome in outcomes),
        "jobs": sum(len(outcome.jobs) for outcome in outcomes),
        "acknowledged jobs": sum(outcome.acknowledged for outcome in outcomes),
        "background jobs whose server ended": len(background),
        "violations": sum(len(outcome.violations) for outcome in outcomes),
        "runs with violations": sum(bool(outcome.violations) for outcome in outcomes),
        "longest from a job's end to its last process's, ms": round(
            max(outcome.processes_gone_s for outcome in outcomes) * 1000
        ),
        "longest from a job's end to the waking of its waiters, ms": round(
            max(outcome.woken_s for outcome in outcomes) * 1000
        ),
        "most memory a server or worker grew by, MiB": round(
            max(outcome.growth_mib for outcome in outcomes)
        ),
        "detached agents beyond reach (see Limits)": sum(o.escaped for o in outcomes),
        "faults skipped": sum(len(outcome.skipped) for outcome in outcomes),
    }


def as_result(outcomes: Sequence[Outcome], about: Mapping[str, object]) -> dict[str, Any]:
    """The result for docs/reliability.md: how often each promise held, and what was run."""
    sums = summary(outcomes)
    done = sum(job["status"] == "done" for outcome in outcomes for job in outcome.jobs)
    broken = Counter(
        violation.partition(":")[0] for outcome in outcomes for violation in outcome.violations
    )
    promises = []
    for mark, (promise, of) in _PROMISES.items():
        checked = done if of == "done" else sums[of]
        promises.append({"promise": promise, "of": of, "checked": checked, "broken": broken[mark]})
    others = sum(count for mark, count in broken.items() if mark not in _PROMISES)
    promises.append({"promise": _BESIDE, "of": "runs", "checked": len(outcomes), "broken": others})
    return {"about": {**about, **sums}, "promises": promises, "faults": _faults(outcomes)}


def _faults(outcomes: Iterable[Outcome]) -> dict[str, int]:
    strikes = (strike.fault for outcome in outcomes for strike in outcome.plan.strikes)
    return dict(sorted(Counter(strikes).items()))


_SHOWN = (
    *("seed", "runs", "faults", "jobs", "acknowledged jobs", "violations", "runs with violations"),
    "longest from a job's end to its last process's, ms",
)
"""Keys that are shown elsewhere, and a figure that depends on when the witness looks."""


def as_markdown(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    about = result["about"]
    lines = ["| what must hold | checked | broken |", "| --- | --- | --- |"]
    lines += [
        f"| {each['promise']} | {each['checked']:,} {each['of']} | {each['broken']} |"
        for each in result["promises"]
    ]
    faults = ", ".join(f"{name} ({count})" for name, count in result["faults"].items())
    others = "; ".join(f"{name}: {value}" for name, value in about.items() if name not in _SHOWN)
    return "\n".join([*lines, "", f"{about['faults']:,} faults: {faults}.", "", f"{others}."])
