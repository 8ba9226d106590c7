"""The ledger: what each run cost, and what runs under way may still cost.

    ledger/YYYY-MM.jsonl    one line per run that was started, by local month; only appended to
    ledger/open/ID.N.json   the booking of a run under way: the line it gets should its owner die
    ledger/account.json     what the API said last of the account's limits
    ledger/lock             held while bookings and lines are read or changed

A booking is written before its run starts, and removed once the ledger has the run's line, so a
crash at any moment leaves one of the two. If it leaves both, the line counts. The next reader
turns a booking whose owner has died into a line. All of it blocks and belongs in a worker thread
or on a command line.
"""

import os
import re
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
    PRIVATE_FILE,
    READ_ONLY,
    Disk,
    exists,
    make_private_directory,
    names_in,
    open_private,
    opened_regular,
    read_all,
    remove,
    replace_file,
    sync_directory,
    write_all,
    write_new,
)
from agent_dispatch.jobs.errors import JobStoreError, store_errors
from agent_dispatch.jobs.ids import creation_time_s, is_job_id, is_time_ordered
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.ledger import AccountLimits, LedgerLine

_LOCK_S = 10.0
"""How long to wait for the lock: far longer than anyone needs it."""
_MONTH_FILE = re.compile(r"\d{4}-\d{2}\.jsonl")
_CHUNK_BYTES = 256 * 1024
_BOOKING_BYTES = 64 * 1024
_OLD_IN_A_ROW = 100
"""Lines are nearly in order of time; only those of dead owners come late. Reading stops after so
many lines in a row that are too old."""
_CLOCK_SLACK_S = 2.0
_LATEST_AT = 1e11
"""In the year 5138; calendars have no days for much later times."""

_decoder: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)


class Booking(NamedTuple):
    """A run that was allowed to start."""

    path: str
    line: LedgerLine
    """What the ledger gets should the owner die."""


class Booked(NamedTuple):
    """Runs that may start together, or why they may not."""

    bookings: list[Booking]
    refusal: str | None
    hints: list[str]
    """Ceilings of which starting them used up 80 %."""


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
        """Use files below `jobs`, which are made on first use.

        Args:
            jobs: The jobs directory.
            is_held: Whether a job has an owner, by its id.
            disk: The system calls.
            now: Seconds since the epoch.
        """
        self._directory = os.path.join(jobs, "ledger")
        self._open = os.path.join(self._directory, "open")
        self._account = os.path.join(self._directory, "account.json")
        self._is_held = is_held
        self._disk = disk
        self._now = now

    # -- for the owner of a run

    def book(self, lines: Sequence[LedgerLine], settings: Settings) -> Booked:
        """Allow runs to start, all or none.

        Args:
            lines: What the ledger gets of each should the owner die. All are of one tree.
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
            return Booked(bookings, None, hints)

    def settle(
        self, bookings: Sequence[Booking], lines: Sequence[LedgerLine | None], settings: Settings
    ) -> list[str]:
        """Replace the bookings of runs with their final lines.

        If the ledger cannot be written, the lines are kept in place of the bookings where that is
        possible, and entered when somebody looks next.

        Args:
            bookings: As `book` gave them; none for runs that another machine booked.
            lines: What came of each; None: the run was never started.
            settings: The ceilings.

        Returns:
            The ceilings that this brought to 80 %, each with its figures.
        """
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
                self._append(entered, durable=has_ceiling(settings))
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
            return  # The booking stays, and counts in full. The caller tells of the first failure.

    def note_limits(self, limits: AccountLimits) -> None:
        """Keep what the API said of the account's limits."""
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
        """All runs that ended since then (seconds since the epoch), the newest first.

        Lines that are torn, or are none of ours, are left out.
        """
        with store_errors("The ledger cannot be read", self._directory):
            yield from (line for line in self._newest_first(since) if line.at >= since)

    def limits(self) -> AccountLimits | None:
        """What the API said last of the account's limits; None if nothing is known."""
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
            job_id = name.partition(".")[0]
            if not is_job_id(job_id):
                continue
            is_alive = self._is_held(job_id)
            line = self._read_booking(path) if name.endswith(".json") else None
            if is_alive and line is not None:
                live.append(line)
            elif not is_alive:
                dead.append((path, line))
        # Read before the first line is entered: this is seldom, and the check must not see itself.
        for path, line in dead:
            # Without a whole booking nothing was started.
            if line is not None and not self._is_entered(line):
                self._append([line], durable=True)
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
        """Whether the owner died between entering the line and removing the booking."""
        key = booking.job_id, booking.agent
        since = booking.at - _CLOCK_SLACK_S
        return any((line.job_id, line.agent) == key for line in self._newest_first(since))

    # -- lines

    def _spending(self, tree: str, live: Sequence[LedgerLine]) -> Spending:
        """Add up today and the tree; `live` are the bookings that count."""
        today = midnight(self._now())
        began = creation_time_s(tree) - _CLOCK_SLACK_S if is_time_ordered(tree) else 0.0
        day_usd = tree_usd = 0.0
        runs = 0
        for line in self._newest_first(min(today, began)):
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

    def _append(self, lines: Sequence[LedgerLine], *, durable: bool) -> None:
        for line in lines:
            path = os.path.join(self._directory, f"{_month(line.at)}.jsonl")
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            fd = open_private(path, flags, self._disk)
            try:
                size = self._disk.fstat(fd).st_size
                if size == 0:
                    # The umask may have cut the mode.
                    self._disk.fchmod(fd, PRIVATE_FILE)
                # A process that was killed may have left half a line.
                is_torn = size > 0 and self._disk.pread(fd, 1, size - 1) != b"\n"
                start = b"\n" if is_torn else b""
                write_all(fd, start + msgspec.json.encode(line) + b"\n", self._disk)
                if durable:
                    self._disk.fsync(fd)
            finally:
                self._disk.close(fd)
            if durable and size == 0:
                sync_directory(self._directory, self._disk)

    def _newest_first(self, since: float) -> Iterator[LedgerLine]:
        """Lines from the end of the ledger back to about that time, some older ones among them."""
        oldest_month, old_in_a_row = f"{_month(since)}.jsonl", 0
        names = filter(_MONTH_FILE.fullmatch, names_in(self._directory, self._disk))
        for name in sorted(names, reverse=True):
            if name < oldest_month:
                return
            for text in self._backwards(os.path.join(self._directory, name)):
                try:
                    line = _decoder.decode(text)
                except ValueError:
                    continue  # Torn.
                if not 0 <= line.at <= _LATEST_AT:
                    continue  # None of ours.
                if line.error_type != ErrorType.LOST:
                    old_in_a_row = old_in_a_row + 1 if line.at < since else 0
                if old_in_a_row > _OLD_IN_A_ROW:
                    return
                yield line

    def _backwards(self, path: str) -> Iterator[bytes]:
        """Lines of a file from the last to the first, in chunks: it may hold a busy month."""
        with opened_regular(path, self._disk) as (fd, status):
            position, rest = status.st_size, b""
            while position:
                size = min(_CHUNK_BYTES, position)
                position -= size
                begun, *whole = (self._disk.pread(fd, size, position) + rest).split(b"\n")
                yield from filter(None, reversed(whole))
                rest = begun
            if rest:
                yield rest

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


def _month(at: float) -> str:
    return time.strftime("%Y-%m", time.localtime(max(at, 0)))
