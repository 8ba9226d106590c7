"""What is shown of the runs: each fault and what became of the jobs, and what survived."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median

from bench.chaos.play import Outcome

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
    """One run, and what is wrong with it."""
    plan = outcome.plan
    lines = [f"seed {plan.seed}: {plan.told()}"]
    lines += [f"    VIOLATED {violation}" for violation in outcome.violations]
    lines.append(f"    again: python -m bench.chaos --seed {plan.seed} --runs 1")
    return "\n".join(lines)


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Faults and outcomes, aligned; a run with two faults counts for both."""
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
    """What survived."""
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
        "longest from a job's end to the waking of who waited, ms": round(
            max(outcome.woken_s for outcome in outcomes) * 1000
        ),
        "most memory a server or worker grew by, MiB": round(
            max(outcome.growth_mib for outcome in outcomes)
        ),
        "detached agents beyond reach (README, Limits)": sum(o.escaped for o in outcomes),
        "faults skipped": sum(len(outcome.skipped) for outcome in outcomes),
    }


def as_json(outcomes: Sequence[Outcome], about: dict[str, object]) -> str:
    """All that is known of all runs."""
    runs = []
    for outcome in outcomes:
        told = asdict(outcome)
        told["plan"] = {"seed": outcome.plan.seed, "told": outcome.plan.told()}
        runs.append(told)
    return json.dumps({**about, **summary(outcomes), "outcomes": runs}, indent=2)
