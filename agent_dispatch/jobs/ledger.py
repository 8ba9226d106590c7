"""The ledger: what each run cost, and what unfinished runs may still cost.

    ledger/YYYY-MM.jsonl    one line per run that was started (see `ledger_lines`)
    ledger/open/ID.N.json   the booking of an unfinished run: its line if its owner dies
    ledger/account.json     what the API last said about the account's limits
    ledger/lock             held while bookings and lines are read or changed

A booking is written before its run starts, and removed when the ledger has the run's line, so a
crash at any moment leaves one of the two. If it leaves both, the line counts. The next reader
turns a booking whose owner has died into a line.

All of it blocks and belongs in a worker thread or on a command line.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from agent_dispatch.core.money.ceilings import (
    Purse,
    Spending,
    has_ceiling,
    midnight,
    nearly_spent,
    refusal,
)
from agent_dispatch.file_locks import LockHeldError, locked
from agent_dispatch.files import (
    DISK,
    NOT_A_FILE,
    READ_ONLY,
    Disk,
    exists,
    make_private_directory,
    names_in,
    opened_regular,
    read_all,
    remove,
    replace_file,
    write_new,
)
from agent_dispatch.jobs.errors import JobStoreError, store_errors
from agent_dispatch.jobs.ids import creation_time_s, is_job_id, is_time_ordered
from agent_dispatch.jobs.ledger_lines import LedgerLines
from agent_dispatch.model.config import Settings
from agent_dispatch.model.ledger import AccountLimits, LedgerLine

_LOCK_S = 10.0
"""How long to wait for the lock: far longer than any process needs it."""
_BOOKING_BYTES = 64 * 1024
_CLOCK_SLACK_S = 2.0

_decoder: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)


class Booking(NamedTuple):
    """A run that was allowed to start."""

    path: str
    line: LedgerLine
    """What the ledger gets if the owner dies."""


class Booked(NamedTuple):
    """Runs that may start together, or why they may not."""

    bookings: list[Booking]
    refusal: str | None
    hints: list[str]
    """Ceilings that are 80 % used now that they start."""


class Ledger:
    """The ledger of one jobs directory. Safe to use from several threads and processes.

    Every call raises `JobStoreError` if the files cannot be used.
    """

    def __init__(
        self,
        jobs: str,
        *,
        is_held: Callable[[str], bool],
        disk: Disk = DISK,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Use `ledger/` in the directory `jobs`; it is made on first use.

        Args:
            jobs: The jobs directory.
            is_held: Says of an id whether the job has an owner.
            disk: The system calls.
            now: The clock, in seconds since the epoch.
        """
        self._directory = os.path.join(jobs, "ledger")
        self._open = os.path.join(self._directory, "open")
        self._account = os.path.join(self._directory, "account.json")
        self._lines = LedgerLines(self._directory, disk)
        self._is_held = is_held
        self._disk = disk
        self._now = now
        self._ours: dict[str, LedgerLine] = {}
        """The bookings of runs that go on here, by path: these need no look at their files."""

    # -- for the owner of a run

    def book(self, lines: Sequence[LedgerLine], settings: Settings) -> Booked:
        """Allow runs to start, all or none.

        Args:
            lines: For each run, the line that the ledger gets if the owner dies. All runs belong to
                one tree.
            settings: The ceilings.
        """
        with self._locked("Nothing was started, because the cost cannot be booked"):
            live = self._recover()
            hints: list[str] = []
            if has_ceiling(settings):
                before = self._spending(lines[0].tree, live)
                booked = [line.booked_usd for line in lines]
                refused = refusal(booked, before, settings, self._now())
                if refused is not None:
                    return Booked([], refused, [])
                started = before.tree_runs + len(lines)
                after = msgspec.structs.replace(before, tree_runs=started)
                hints = nearly_spent(before, after, settings)
            bookings = []
            for number, line in enumerate(lines):
                path = os.path.join(self._open, f"{line.job_id}.{number}.json")
                bookings.append(Booking(path, line))
                content = msgspec.json.encode(line)
                write_new(path, content, self._disk, durable=has_ceiling(settings))
            self._ours |= dict(bookings)
            return Booked(bookings, None, hints)

    def settle(
        self, bookings: Sequence[Booking], lines: Sequence[LedgerLine | None], settings: Settings
    ) -> list[str]:
        """Replace the bookings of runs with their final lines.

        If the ledger cannot be written, the lines replace the bookings where possible, and the next
        reader enters them.

        Args:
            bookings: From `book`; none for runs that another machine booked.
            lines: The final line of each run; None if it was never started.
            settings: The ceilings.

        Returns:
            The ceilings that are 80 % used because of these runs, each with its figures.
        """
        for booking in bookings:
            self._ours.pop(booking.path, None)
        try:
            with self._locked("The cost of the run cannot be entered in the ledger"):
                # If this took long, another process may have taken us for dead.
                gone = {b.line.agent for b in bookings if not exists(b.path, self._disk)}
                entered = [line for line in lines if line is not None and line.agent not in gone]
                hints: list[str] = []
                if entered and has_ceiling(settings):
                    before = self._spending(entered[0].tree, [])
                    usd = sum(line.spent_usd for line in entered)
                    hints = nearly_spent(before, _with_spent(before, usd), settings)
                self._lines.append(entered, durable=has_ceiling(settings))
                for booking in bookings:
                    remove(booking.path, self._disk)
                return hints
        except JobStoreError:
            self._keep_for_later(bookings, lines)
            raise

    def _keep_for_later(
        self, bookings: Sequence[Booking], lines: Sequence[LedgerLine | None]
    ) -> None:
        try:
            for booking, line in zip(bookings, lines, strict=False):
                if line is None:
                    remove(booking.path, self._disk)
                else:
                    temporary = booking.path.removesuffix(".json") + ".tmp"
                    if exists(booking.path, self._disk):
                        content = msgspec.json.encode(line)
                        replace_file(booking.path, content, temporary, self._disk)
        except OSError:
            return  # The booking stays and counts in full. The caller reports the first failure.

    def note_limits(self, limits: AccountLimits) -> None:
        """Store what the API said about the account's limits."""
        with self._locked("The account's limits cannot be kept"):
            temporary = os.path.join(self._directory, ".account.tmp")
            replace_file(self._account, msgspec.json.encode(limits), temporary, self._disk)

    # -- for all other processes

    def recover(self) -> None:
        """Turn the bookings of dead owners into lines."""
        if names_in(self._open, self._disk):
            with self._locked("The costs of runs whose owner died cannot be entered in the ledger"):
                self._recover()

    def lines(self, since: float) -> Iterator[LedgerLine]:
        """All runs that ended since a time (seconds since the epoch), newest first.

        Lines that are torn or not ours are left out.
        """
        with store_errors("The ledger cannot be read", self._directory):
            yield from (line for line in self._lines.newest_first(since) if line.at >= since)

    def limits(self) -> AccountLimits | None:
        """What the API last said about the account's limits; None if nothing is known."""
        try:
            with opened_regular(self._account, self._disk) as (fd, _):
                content = read_all(fd, _BOOKING_BYTES, self._disk)
            return msgspec.json.decode(content, type=AccountLimits)
        except (OSError, ValueError):
            return None

    # -- bookings; the lock is held

    def _recover(self) -> list[LedgerLine]:
        """Enter the bookings of dead owners; return those of living ones."""
        live, dead = [], []
        for name in names_in(self._open, self._disk):
            path = os.path.join(self._open, name)
            if (ours := self._ours.get(path)) is not None:
                live.append(ours)
                continue
            job_id = name.partition(".")[0]
            if not is_job_id(job_id):
                continue
            is_alive = self._is_held(job_id)
            line = self._read_booking(path) if name.endswith(".json") else None
            if is_alive and line is not None:
                live.append(line)
            elif not is_alive:
                dead.append((path, line))
        for path, line in dead:
            # Without a whole booking, no run was started.
            if line is not None and not self._is_entered(line):
                self._lines.append([line], durable=True)
            remove(path, self._disk)
        return live

    def _read_booking(self, path: str) -> LedgerLine | None:
        try:
            with opened_regular(path, self._disk) as (fd, _):
                return _decoder.decode(read_all(fd, _BOOKING_BYTES, self._disk))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            if error.errno in (*NOT_A_FILE, *READ_ONLY):
                return None  # Not ours.
            raise

    def _is_entered(self, booking: LedgerLine) -> bool:
        """Whether the owner died after it entered the line and before it removed the booking."""
        key = booking.job_id, booking.agent
        since = booking.at - _CLOCK_SLACK_S
        return any((line.job_id, line.agent) == key for line in self._lines.newest_first(since))

    def _spending(self, tree: str, live: Sequence[LedgerLine]) -> Spending:
        """Add up today and the tree; `live` are the bookings that count."""
        today = midnight(self._now())
        began = creation_time_s(tree) - _CLOCK_SLACK_S if is_time_ordered(tree) else 0.0
        day_usd = tree_usd = 0.0
        runs = 0
        for line in self._lines.newest_first(min(today, began)):
            if line.at >= today:
                day_usd += line.spent_usd
            if line.tree == tree:
                tree_usd += line.spent_usd
                runs += 1
        ours = [line for line in live if line.tree == tree]
        return Spending(
            day=Purse(spent_usd=day_usd, booked_usd=sum(line.booked_usd for line in live)),
            tree=Purse(spent_usd=tree_usd, booked_usd=sum(line.booked_usd for line in ours)),
            tree_runs=runs + len(ours),
        )

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        with store_errors(what, self._directory):
            make_private_directory(self._open, self._disk)
            try:
                with locked(os.path.join(self._directory, "lock"), _LOCK_S):
                    yield
            except LockHeldError as error:
                who = f" by process {error.holder}" if error.holder else ""
                raise JobStoreError(
                    f"{what}: the lock {error.path} was held{who} for {_LOCK_S:g} s. If that"
                    " process is stopped, continue or end it."
                ) from error


def _with_spent(spending: Spending, usd: float) -> Spending:
    day, tree = spending.day, spending.tree
    return msgspec.structs.replace(
        spending,
        day=msgspec.structs.replace(day, spent_usd=day.spent_usd + usd),
        tree=msgspec.structs.replace(tree, spent_usd=tree.spent_usd + usd),
    )
