import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.run.slots import LimitsError, OnPlace, Slots

HOLDER = """
import fcntl, os, sys, time
os.makedirs(sys.argv[1])
fd = os.open(sys.argv[1] + "/0", os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(100)
"""


def ignore_place(place: int) -> None:
    """Nobody watches."""


async def test_never_more_than_the_limit_and_never_fewer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slots = Slots(tmp_path / "slots" / "0")
    now, peak = 0, 0

    async def one() -> None:
        nonlocal now, peak
        async with slots.hold(3, ignore_place):
            now += 1
            peak = max(peak, now)
            await trio.sleep(1)
            now -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(one)
    assert peak == 3
    # Handed on at once: four rounds of a second, not a poll more.
    assert trio.current_time() == pytest.approx(4, abs=0.5)


async def test_first_come_first_served_and_places_are_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slots = Slots(tmp_path / "slots" / "0")
    order: list[int] = []
    places: dict[int, list[int]] = {number: [] for number in range(4)}

    async def one(number: int) -> None:
        async with slots.hold(1, places[number].append):
            order.append(number)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)
            await wait_all_tasks_blocked(0.01)
    assert order == [0, 1, 2, 3]
    assert places[0] == []
    assert places[3] == [3, 2, 1]


@pytest.mark.parametrize(
    ("held_s", "told", "last"),
    [(1.1, [40, 20, 10, 5, 4, 3, 2], {1}), (0.12, [40, 20, 10], {1, 2, 3})],
    ids=["slow", "fast"],
)
async def test_in_a_long_line_not_every_step_is_told(
    tmp_path: Path, autojump_clock: MockClock, held_s: float, told: list[int], last: set[int]
) -> None:
    slots = Slots(tmp_path / "slots" / "0")
    places: list[int] = []
    all_wait = trio.Event()

    async def one(on_place: OnPlace) -> None:
        async with slots.hold(1, on_place):
            await all_wait.wait()
            await trio.sleep(held_s)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(one, ignore_place)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(one, places.append)
        await wait_all_tasks_blocked(0.01)
        all_wait.set()
    assert places[:-1] == told
    assert places[-1] in last


async def test_slots_of_this_process_are_not_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Whose locks it has itself would tell nothing: with a hundred of them, a hundred files a look.
    slots = Slots(tmp_path / "slots" / "0")
    async with slots.hold(3, ignore_place), slots.hold(3, ignore_place):
        for name in "01":
            (tmp_path / "slots" / "0" / name).unlink()
        async with slots.hold(3, ignore_place) as third:
            assert third.number == 2
            assert not (tmp_path / "slots" / "0" / "0").exists()


async def test_who_is_cancelled_in_line_leaves_no_gap(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slots = Slots(tmp_path / "slots" / "0")
    served: list[str] = []

    async def wait_in_line(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with slots.hold(1, ignore_place):
                served.append(name)

    scopes = [trio.CancelScope(), trio.CancelScope()]
    async with trio.open_nursery() as nursery, slots.hold(1, ignore_place):
        nursery.start_soon(wait_in_line, "gives up", scopes[0])
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(wait_in_line, "stays", scopes[1])
        await wait_all_tasks_blocked(0.01)
        scopes[0].cancel()
        await wait_all_tasks_blocked(0.01)
    assert served == ["stays"]


async def test_a_slot_handed_to_one_who_gave_up_is_given_back(tmp_path: Path) -> None:
    slots, stranger = Slots(tmp_path / "slots" / "0"), Slots(tmp_path / "slots" / "0")
    scope = trio.CancelScope()

    async def wait_in_line() -> None:
        with scope:
            async with slots.hold(1, ignore_place):
                pytest.fail("it was cancelled")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, slots.hold(1, ignore_place):
            nursery.start_soon(wait_in_line)
            await wait_all_tasks_blocked(0.005)
            scope.cancel()
        async with stranger.hold(1, ignore_place):
            pass


async def test_processes_share_the_limit_and_take_turns(tmp_path: Path) -> None:
    # Two Slots objects lock through descriptions of their own, as two processes do.
    one, other = Slots(tmp_path / "slots" / "0"), Slots(tmp_path / "slots" / "0")
    served: list[str] = []
    busy = 0

    async def run(slots: Slots, name: str) -> None:
        nonlocal busy
        async with slots.hold(1, ignore_place):
            busy += 1
            assert busy == 1
            served.append(name)
            await trio.sleep(0.005)
            busy -= 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(run, one, "one")
                nursery.start_soon(run, other, "other")
    assert served.count("one") == served.count("other") == 10
    # Neither was starved until the other had finished.
    assert set(served[:15]) == {"one", "other"}


async def test_a_killed_process_gives_its_slot_back(tmp_path: Path) -> None:
    holder = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(tmp_path / "slots" / "0")], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.receive_some(10)
    slots = Slots(tmp_path / "slots" / "0")
    with trio.move_on_after(0.2) as patience:
        async with slots.hold(1, ignore_place):
            pytest.fail("another process holds it")
    assert patience.cancelled_caught
    holder.kill()
    with trio.fail_after(5):
        async with slots.hold(1, ignore_place):
            await holder.wait()


async def test_a_slot_in_use_stays_locked_by_whoever_else_holds_it(tmp_path: Path) -> None:
    slots, stranger = Slots(tmp_path / "slots" / "0"), Slots(tmp_path / "slots" / "0")
    async with slots.hold(1, ignore_place, lambda: True) as slot:
        guards_copy = os.dup(slot.fd)
    with trio.move_on_after(0.2) as patience:
        async with stranger.hold(1, ignore_place):
            pytest.fail("the guard holds it")
    assert patience.cancelled_caught
    os.close(guards_copy)
    with trio.fail_after(5):
        async with stranger.hold(1, ignore_place):
            pass


async def test_each_depth_has_slots_of_its_own(tmp_path: Path) -> None:
    outer, inner = Slots(tmp_path / "slots" / "0"), Slots(tmp_path / "slots" / "1")
    with trio.fail_after(5):
        async with outer.hold(1, ignore_place), inner.hold(1, ignore_place):
            pass


async def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with Slots(tmp_path / "config" / "jobs" / "slots" / "0").hold(2, ignore_place):
            pass
    finally:
        os.umask(before)
    for path in (tmp_path / "config").rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o700


async def test_an_unusable_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(LimitsError, match="AGENT_DISPATCH_JOBS_DIR"):
        async with Slots(tmp_path / "jobs" / "slots" / "0").hold(1, ignore_place):
            pytest.fail("nothing was locked")


async def test_a_slot_is_given_back_although_its_directory_is_gone(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots" / "0")
    async with slots.hold(1, ignore_place):
        (tmp_path / "slots").rename(tmp_path / "moved")
        (tmp_path / "slots").write_text("a file")
    with pytest.raises(LimitsError):
        async with slots.hold(1, ignore_place):
            pytest.fail("its directory is gone")
    (tmp_path / "slots").unlink()
    (tmp_path / "moved").rename(tmp_path / "slots")
    with trio.fail_after(5):
        async with Slots(tmp_path / "slots" / "0").hold(1, ignore_place):
            pass
