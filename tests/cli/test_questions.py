"""`questions`, `answer`, and the terminal of an run in the foreground."""

import os
import pty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.cli.run.terminal_questions import TerminalAsker, can_ask
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.question import Question, Verdict
from agent_dispatch.run.open_service import open_service
from tests.cli.support import FakeService, World
from tests.jobs.support import running
from tests.run.test_give_answer import asked_in_vain

GIVEN = {"command": "rm -rf a\u202eb  c\x1b"}
SHOWN = '{"command":"rm -rf a\\u202eb  c\\u001b"}'
OPEN = Question(id="b2", tool="Bash", input=GIVEN, asked_at=1, agent="infra")


@pytest.fixture
def store(world: World) -> JobStore:
    return JobStore(world.config.parent / "jobs")


class RealService(FakeService):
    """Opens the real one, which asks the real store."""

    open = staticmethod(open_service)  # type: ignore[assignment]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, RealService())


def test_questions_are_listed_oldest_first_with_the_command_that_answers(
    world: World, store: JobStore
) -> None:
    assert world.run("questions") == 0
    assert world.out == "No questions.\n"
    assert world.run("questions", "--json") == 0
    assert world.answer() == []
    ended = asked_in_vain(store)
    claim = running(store)
    second = msgspec.structs.replace(OPEN, id="c3", asked_at=3)
    first = msgspec.structs.replace(OPEN, asked_at=0.5)
    store.update(
        claim, msgspec.structs.replace(claim.job, question=first, later_questions=[second])
    )
    assert world.run("questions", "--json") == 0
    assert [(row["job_id"], row["id"], row["state"]) for row in world.answer()] == [
        (claim.job.id, "b2", "open"),
        (ended, "a1", "unanswered"),
        (claim.job.id, "c3", "open"),
    ]
    assert {*world.answer()[0]} == {
        "job_id",
        "id",
        "agent",
        "tool",
        "input",
        "asked_at",
        "state",
    }
    assert world.run("questions") == 0
    assert SHOWN in world.out
    assert f"agent-dispatch answer {ended[-8:]} allow --question a1" in world.out
    assert world.run("job", claim.job.id) == 0
    assert "asks for" in world.out
    world.run("doctor")
    assert f"agent-dispatch answer {claim.job.id[-8:]} allow --question b2" in world.out
    store.release(claim)


def test_an_answered_question_is_listed_no_more(world: World, store: JobStore) -> None:
    job_id = asked_in_vain(store)
    assert world.run("answer", job_id[-8:], "deny") == 0
    assert world.out == "Denied this call.\n"
    assert world.run("questions", "--json") == 0
    assert world.answer() == []
    assert world.run("answer", job_id, "deny") == 1
    assert "no question that waits for an answer" in world.err
    assert world.run("answer", job_id, "deny", "--question", "a1", "--json") == 1
    assert "answered already" in world.answer()["error"]


def test_an_answer_says_which_job_it_went_to(world: World, store: JobStore) -> None:
    job_id = asked_in_vain(store)
    assert world.run("answer", job_id, "deny", "--question=a1", "--json") == 0
    assert world.answer() == {"job_id": job_id, "outcome": "answered"}


@pytest.mark.parametrize("argv", [["yes"], [""], ["ALLOW"], []])
def test_an_answer_is_allow_or_deny(argv: list[str], world: World, store: JobStore) -> None:
    assert world.run("answer", asked_in_vain(store), *argv) == 2


def test_a_dispatched_agent_is_refused(world: World, store: JobStore) -> None:
    job_id = asked_in_vain(store)
    world.environ["AGENT_DISPATCH_DEPTH"] = "1"
    assert world.run("answer", job_id, "allow") == 1
    assert "does not allow itself" in world.err
    assert [each.answer for each in store.read(job_id).questions or ()] == [Verdict.UNANSWERED]


def test_an_agent_asks_or_does_not(world: World) -> None:
    project = world.project("infra")
    assert world.run("add", "infra", str(project)) == 0
    before = world.config.read_text()
    assert world.run("update", "infra", "--permission-prompts", "maybe") == 2
    assert "It takes: ask, deny, none" in world.err
    assert world.config.read_text() == before
    for word in ("ask", "deny", "none"):
        assert world.run("update", "infra", "--permission-prompts", word) == 0
    assert world.config.read_text() == before


# -- on the terminal


class Terminal:
    """A terminal with a person who types."""

    def __init__(self, keys: int, tty: int) -> None:
        self._keys = keys
        self.text = ""
        self.silenced = 0
        self.given: list[tuple[str, Verdict, str]] = []
        self.asker = TerminalAsker(lambda: tty, self._say, self._silence)
        self.refuses = False
        self._grew = trio.lowlevel.ParkingLot()
        self._said: Callable[[str], None] = lambda text: None

    def _say(self, text: str) -> None:
        self.text += text
        self._grew.unpark_all()
        self._said(text)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self.silenced += 1
        yield
        self.silenced -= 1

    def types(self, text: str) -> None:
        os.write(self._keys, text.encode())

    def types_when_asked(self, *lines: str) -> None:
        left = list(lines)

        def said(text: str) -> None:
            if "Allow this call?" in text and left:
                # After the flush of what was typed before.
                trio.lowlevel.current_trio_token().run_sync_soon(self._type_soon, left.pop(0))

        self._said = said

    def _type_soon(self, line: str) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(self.types, line)

    async def give(self, job_id: str, verdict: Verdict, question_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise DispatchError("It was answered already.")
        self.given.append((job_id, verdict, question_id))
        self.asker.on_progress(Progress("answered", questions=()))

    def asks(self, *questions: Question, job_id: str = "1" * 32) -> None:
        self.asker.on_progress(Progress("asks", job_id, questions=questions))

    async def until(self, words: str) -> None:
        with trio.fail_after(10):
            while words not in self.text:
                await self._grew.park()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    keys, tty = pty.openpty()
    yield Terminal(keys, tty)
    os.close(keys)
    os.close(tty)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("y\n", Verdict.ALLOW),
        ("Yes\n", Verdict.ALLOW),
        (" allow \n", Verdict.ALLOW),
        ("n\n", Verdict.DENY),
        ("yess\n", Verdict.DENY),
        ("whatever\n", Verdict.DENY),
    ],
)
async def test_what_is_typed_answers(line: str, verdict: Verdict, terminal: Terminal) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.asker.ask, terminal.give)
        terminal.types_when_asked(line)
        terminal.asks(OPEN)
        await terminal.until("this call.\n")
        nursery.cancel_scope.cancel()
    assert terminal.given == [("1" * 32, verdict, "b2")]
    assert "infra asks for permission to use Bash" in terminal.text
    assert SHOWN in terminal.text
    assert terminal.silenced == 0


@pytest.mark.parametrize(
    ("job_id", "shown"),
    [("0" * 24 + "1" * 8, "1" * 8), ("0" * 24 + "1" * 8 + "@gpu", "0" * 24 + "1" * 8 + "@gpu")],
)
async def test_enter_leaves_a_question_open_and_asks_the_next_one(
    job_id: str, shown: str, terminal: Terminal
) -> None:
    second = msgspec.structs.replace(OPEN, id="c3", tool="Write")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.asker.ask, terminal.give)
        terminal.types_when_asked("\n", "y\n")
        terminal.asks(OPEN, second, job_id=job_id)
        await terminal.until("Allowed")
        nursery.cancel_scope.cancel()
    assert terminal.given == [(job_id, Verdict.ALLOW, "c3")]
    assert f"agent-dispatch answer {shown} allow --question b2" in terminal.text


async def test_what_was_typed_before_the_question_is_no_answer(terminal: Terminal) -> None:
    terminal.types("y\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.asker.ask, terminal.give)
        terminal.types_when_asked("n\n")
        terminal.asks(OPEN)
        await terminal.until("this call.\n")
        nursery.cancel_scope.cancel()
    assert [verdict for _, verdict, _ in terminal.given] == [Verdict.DENY]


async def test_a_question_that_is_closed_elsewhere_is_asked_no_more(terminal: Terminal) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.asker.ask, terminal.give)
        terminal.asks(OPEN)
        await terminal.until("Allow this call?")
        terminal.asks()
        await terminal.until("no longer asks")
        nursery.cancel_scope.cancel()
    assert terminal.given == []


async def test_an_answer_that_comes_too_late_says_so(terminal: Terminal) -> None:
    terminal.refuses = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.asker.ask, terminal.give)
        terminal.types_when_asked("y\n")
        terminal.asks(OPEN)
        await terminal.until("It was answered already.")
        nursery.cancel_scope.cancel()


async def test_an_answer_is_confirmed_even_if_the_run_ends_at_once(terminal: Terminal) -> None:
    async with trio.open_nursery() as nursery:

        async def give(job_id: str, verdict: Verdict, question_id: str) -> None:
            nursery.cancel_scope.cancel()
            await terminal.give(job_id, verdict, question_id)

        nursery.start_soon(terminal.asker.ask, give)
        terminal.types_when_asked("y\n")
        terminal.asks(OPEN)
    assert "Allowed this call." in terminal.text


async def test_the_end_of_the_terminal_leaves_all_open(terminal: Terminal) -> None:
    with trio.fail_after(10):
        terminal.types_when_asked("\x04")
        terminal.asks(OPEN)
        await terminal.asker.ask(terminal.give)
    assert terminal.given == []
    assert "Left open" in terminal.text


@pytest.mark.parametrize(("stdin", "stderr"), [(True, False), (False, True), (False, False)])
def test_a_pipe_is_never_asked(stdin: bool, stderr: bool, world: World) -> None:
    shell = world.shell()
    shell.stdin._terminal, shell.stderr._terminal = stdin, stderr  # type: ignore[attr-defined]
    assert not can_ask(shell)
