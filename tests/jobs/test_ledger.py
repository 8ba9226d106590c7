import contextlib
import errno
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_dispatch.file_locks import locked
from agent_dispatch.files import Disk, names_in
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.ledger import Booked, Ledger
from agent_dispatch.model.config import Settings
from agent_dispatch.model.ledger import AccountLimits, LedgerLine, LimitWindow
from tests.jobs.support import DyingDisk

FREE = Settings()
DOLLAR = Settings(max_cost_per_day_usd=1, max_cost_per_tree_usd=1, max_runs_per_tree=20)
MONTH = time.strftime("%Y-%m", time.localtime())


class House:
    """A ledger, and the jobs that have an owner."""

    def __init__(self, tmp_path: Path, disk: Disk | None = None) -> None:
        self.jobs = tmp_path / "jobs"
        self.alive: set[str] = set()
        self.ids = IdSource()
        self.now = time.time()
        self._disk = disk
        self.ledger = self.of_another_process()

    def of_another_process(self) -> Ledger:
        return Ledger(
            str(self.jobs),
            is_held=self.alive.__contains__,
            now=lambda: self.now,
            **({} if self._disk is None else {"disk": self._disk}),
        )

    def owners_die(self) -> None:
        self.alive.clear()
        self.ledger = self.of_another_process()

    def draft(self, tree: str | None = None, usd: float = 0.1, **more: Any) -> LedgerLine:
        job_id = self.ids.next()
        self.alive.add(job_id)
        fields: dict[str, Any] = {
            "at": self.now,
            "job_id": job_id,
            "agent": "infra",
            "tree": tree or job_id,
            "booked_usd": usd,
            "error_type": "lost",
        }
        return LedgerLine(**fields | more)

    def book(self, settings: Settings, tree: str | None = None, usd: float = 0.1) -> Booked:
        return self.ledger.book([self.draft(tree, usd)], settings)

    def settle(self, booked: Booked, cost: float | None, settings: Settings = FREE) -> list[str]:
        lines = [
            msgspec.structs.replace(
                booking.line, at=self.now, cost_usd=cost, success=True, error_type=None
            )
            for booking in booked.bookings
        ]
        return self.ledger.settle(booked.bookings, lines, settings)

    def month_file(self) -> Path:
        (path,) = (self.jobs / "ledger").glob("*.jsonl")
        return path

    def lines(self) -> list[LedgerLine]:
        return list(self.ledger.lines(0))

    def open(self) -> list[str]:
        return names_in(str(self.jobs / "ledger" / "open"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_run_leaves_one_line_with_the_fields_of_the_contract(house: House) -> None:
    booked = house.book(FREE)
    assert (len(house.open()), house.lines()) == (1, [])
    house.settle(booked, 0.02)
    assert house.open() == []
    assert house.month_file().name == f"{MONTH}.jsonl"
    assert stat.S_IMODE(house.month_file().stat().st_mode) == 0o600
    assert stat.S_IMODE((house.jobs / "ledger").stat().st_mode) == 0o700
    (text,) = house.month_file().read_text().splitlines()
    fields = json.loads(text)
    assert list(fields) == [
        *("at", "job_id", "agent", "caller", "session_id", "parent", "tree", "model_usage"),
        *("cost_usd", "booked_usd", "duration_ms", "success", "error_type", "tool_calls"),
    ]
    assert (fields["cost_usd"], fields["caller"]) == (0.02, None)


def test_a_run_that_never_started_leaves_no_line(house: House) -> None:
    booked = house.book(FREE)
    house.ledger.settle(booked.bookings, [None], FREE)
    assert (house.open(), house.lines()) == ([], [])


def test_bookings_and_costs_together_never_pass_a_ceiling(house: House) -> None:
    running = [house.book(DOLLAR) for _ in range(10)]
    assert [booked.refusal for booked in running] == [None] * 10
    assert "max_cost_per_day_usd" in (house.book(DOLLAR).refusal or "")
    house.settle(running.pop(), 0.04, DOLLAR)
    assert house.book(DOLLAR).refusal is not None
    house.settle(running.pop(), 0.06, DOLLAR)
    assert house.book(DOLLAR).refusal is None
    assert house.book(DOLLAR).refusal is not None


def test_a_run_of_unknown_cost_counts_as_booked(house: House) -> None:
    house.settle(house.book(DOLLAR, usd=0.95), None, DOLLAR)
    assert house.book(DOLLAR, usd=0.05).refusal is None
    assert house.book(DOLLAR, usd=0.05).refusal is not None


def test_overshoot_counts(house: House) -> None:
    house.settle(house.book(DOLLAR), 1.2, DOLLAR)
    assert "$1.2 is spent" in (house.book(DOLLAR).refusal or "")


def test_a_day_begins_anew_and_a_tree_does_not(house: House) -> None:
    tree = house.ids.next()
    house.settle(house.book(DOLLAR, tree, 0.9), 0.9, DOLLAR)
    house.now += 86_400
    assert house.book(DOLLAR, usd=0.5).refusal is None
    refused = house.book(DOLLAR, tree, 0.2).refusal or ""
    assert "max_cost_per_tree_usd" in refused


def test_started_runs_of_a_tree_are_counted_running_or_ended(house: House) -> None:
    settings, tree = Settings(max_runs_per_tree=4), house.ids.next()
    house.settle(house.book(settings, tree), 0.0, settings)
    house.book(settings, tree)
    both = house.ledger.book([house.draft(tree), house.draft(tree, agent="docs")], settings)
    assert both.hints == ["max_runs_per_tree: 100% is spent, 4 of 4."]
    assert "max_runs_per_tree" in (house.book(settings, tree).refusal or "")
    assert house.book(settings).refusal is None


def test_a_run_that_brings_a_ceiling_to_eighty_percent_gets_a_hint(house: House) -> None:
    settings = Settings(max_cost_per_day_usd=1)
    assert house.settle(house.book(settings), 0.75, settings) == []
    hints = house.settle(house.book(settings), 0.05, settings)
    assert hints == ["max_cost_per_day_usd: 80% is spent, $0.8 of $1."]
    assert house.settle(house.book(settings), 0.05, settings) == []


def test_the_booking_of_a_dead_owner_becomes_a_line_of_unknown_cost(house: House) -> None:
    booked = house.book(DOLLAR, usd=0.3)
    house.owners_die()
    house.ledger.recover()
    house.ledger.recover()
    (line,) = house.lines()
    assert (line.job_id, line.cost_usd, line.booked_usd, line.error_type, line.success) == (
        booked.bookings[0].line.job_id,
        None,
        0.3,
        "lost",
        False,
    )
    assert house.open() == []


def test_the_next_run_finds_dead_owners_too(house: House) -> None:
    house.book(FREE)
    house.owners_die()
    house.book(FREE)
    assert [line.error_type for line in house.lines()] == ["lost"]


def test_a_run_whose_owner_died_after_its_line_is_not_counted_twice(house: House) -> None:
    booked = house.book(DOLLAR)
    content = Path(booked.bookings[0].path).read_bytes()
    house.settle(booked, 0.02, DOLLAR)
    Path(booked.bookings[0].path).write_bytes(content)
    house.owners_die()
    house.ledger.recover()
    assert [line.cost_usd for line in house.lines()] == [0.02]
    assert house.open() == []


def test_a_partial_booking_means_that_the_run_never_started(house: House) -> None:
    booked = house.book(FREE)
    Path(booked.bookings[0].path).write_bytes(b'{"at": 17')
    house.ledger.recover()
    assert len(house.open()) == 1
    house.owners_die()
    house.ledger.recover()
    assert (house.open(), house.lines()) == ([], [])


def test_torn_lines_are_skipped_and_never_joined_to_the_next(house: House) -> None:
    house.settle(house.book(FREE), 0.01)
    with house.month_file().open("ab") as file:
        file.write(b'{"at": 12, "job_')
    house.settle(house.book(FREE), 0.02)
    with house.month_file().open("ab") as file:
        file.write(b"\xff\xfe\n\n[]\n{}\n")
        file.write(b'{"at": 1e300, "job_id": "x", "agent": "y"}\n')
    house.settle(house.book(FREE), 0.03)
    assert [line.cost_usd for line in house.lines()] == [0.03, 0.02, 0.01]


def test_a_long_ledger_is_read_from_its_end_or_as_a_whole(house: House) -> None:
    house.settle(house.book(FREE), 0.5)
    old = msgspec.structs.replace(house.lines()[0], at=house.now - 3600, cost_usd=0.001)
    house.month_file().write_bytes((msgspec.json.encode(old) + b"\n") * 5000)
    house.settle(house.book(FREE), 0.5)
    assert len(house.lines()) == 5001
    assert len(list(house.ledger.lines(house.now - 60))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_cost_of_a_run_survives_a_full_disk(tmp_path: Path) -> None:
    class FullDisk(Disk):
        is_full = False

        @staticmethod
        def fsync(fd: int) -> None:
            """Save the time."""

        @staticmethod
        def write(fd: int, data: Any) -> int:
            name = os.readlink(f"/proc/self/fd/{fd}")
            if FullDisk.is_full and name.endswith(".jsonl"):
                if len(data) > 10:
                    return os.write(fd, data[:10])
                raise OSError(errno.ENOSPC, "full")
            return os.write(fd, data)

    house = House(tmp_path, FullDisk())
    booked = house.book(DOLLAR)
    FullDisk.is_full = True
    with pytest.raises(JobStoreError, match="full"):
        house.settle(booked, 0.07, DOLLAR)
    FullDisk.is_full = False
    house.owners_die()
    house.ledger.recover()
    assert [(line.cost_usd, line.success) for line in house.lines()] == [(0.07, True)]
    assert house.open() == []


def test_an_owner_that_was_taken_for_dead_adds_no_second_line(house: House) -> None:
    booked = house.book(FREE)
    house.alive.clear()
    house.of_another_process().recover()
    house.settle(booked, 0.02)
    assert [line.error_type for line in house.lines()] == ["lost"]


def test_a_run_that_another_machine_booked_counts_here(house: House) -> None:
    line = house.draft(host="gpu", cost_usd=0.95)
    house.ledger.settle([], [line], FREE)
    assert house.lines() == [line]
    assert "$0.95 is spent today" in (house.book(DOLLAR).refusal or "")


@pytest.mark.parametrize("settings", [FREE, DOLLAR], ids=["no ceiling", "ceilings"])
def test_a_process_killed_at_any_system_call_loses_and_doubles_no_run(
    tmp_path: Path, settings: Settings
) -> None:
    for die_at in range(1, 200):
        directory = tmp_path / str(die_at)
        house = House(directory, DyingDisk(die_at))
        draft = house.draft()
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                booked = house.ledger.book([draft], settings)
                os.write(write, b"booked ")
                house.settle(booked, 0.02, settings)
                os.write(write, b"settled")
            os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        said = os.read(read, 100)
        os.close(read)
        after = House(directory)
        after.ledger.recover()
        costs = [line.cost_usd for line in after.lines() if line.job_id == draft.job_id]
        if b"settled" in said:
            assert costs == [0.02]
            return
        assert costs in ([[None], [0.02]] if b"booked" in said else [[], [None]]), die_at
        assert after.open() == []
    raise AssertionError("it makes more system calls than were tried")


def test_a_stuck_holder_of_the_lock_keeps_runs_from_starting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_dispatch.jobs.ledger._LOCK_S", 0.05)
    house.book(FREE)
    with (
        locked(str(house.jobs / "ledger" / "lock"), 1),
        pytest.raises(JobStoreError, match="Nothing was started"),
    ):
        house.book(FREE)


def test_the_limits_of_the_account_are_kept(house: House) -> None:
    assert house.ledger.limits() is None
    limits = AccountLimits(at=5, status="allowed", windows=[LimitWindow(name="w", used=0.5)])
    house.ledger.note_limits(limits)
    assert house.ledger.limits() == limits
    assert stat.S_IMODE((house.jobs / "ledger" / "account.json").stat().st_mode) == 0o600
