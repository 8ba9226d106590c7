"""`run` on a real terminal: the question interrupts the progress, and what is typed answers it."""

import os
import pty

import pytest
import trio

from tests.faults.conftest import MakeHouse, make_house
from tests.faults.house import PRODUCT, House
from tests.run.test_questions import ASKING

__all__ = ["make_house"]

ASK = 'permission_prompts = "ask"\nquestion_seconds = 2\n'
ASKS = ASKING + "read_turn(); init(); ask('r1', {'command': 'touch a'})\n"
ANSWERS = "result(reply()['response']['behavior'])"


async def on_terminal(house: House, command: list[str], typed: bytes) -> str:
    """Run a command on a terminal, type at its question, and give all that was shown."""
    keys, tty = pty.openpty()
    process = await trio.lowlevel.open_process(
        [*PRODUCT, *command],
        stdin=tty,
        stdout=tty,
        stderr=tty,
        env={**house.environ, "TERM": "xterm"},
        cwd=house.config.parent,
        start_new_session=True,
    )
    os.close(tty)
    shown = b""
    try:
        with trio.fail_after(60):
            while True:
                await trio.lowlevel.wait_readable(keys)
                try:
                    shown += os.read(keys, 4096)
                except OSError:  # EIO: nobody has the terminal any more.
                    break
                if typed and b"anything else denies it: " in shown:
                    # Typed by a person who has read the question.
                    await trio.sleep(0.3)
                    os.write(keys, typed)
                    typed = b""
            await process.wait()
    finally:
        os.close(keys)
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    return shown.decode()


@pytest.mark.parametrize("command", ["run", "test"])
@pytest.mark.parametrize(
    ("typed", "said", "answer"),
    [
        (b"y\n", "Allowed this call.", "allow"),
        (b"no\n", "Denied this call.", "deny"),
        (b"\n", "Left open.", "deny"),
    ],
)
async def test_a_person_answers_where_the_run_was_started(
    typed: bytes, said: str, answer: str, command: str, make_house: MakeHouse
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    shown = await on_terminal(house, [command, "infra", "go"], typed)
    assert 'infra asks for permission to use Bash:\r\n  {"command":"touch a"}' in shown
    assert said in shown
    assert f"{answer}\r\n" in shown


async def test_a_pipe_answers_nothing(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    done = await trio.run_process(
        [*PRODUCT, "run", "infra", "go"],
        stdin=b"y\n",
        capture_stdout=True,
        capture_stderr=True,
        env=house.environ,
        check=False,
    )
    assert done.stdout == b"deny\n"
    assert b"Allow this call?" not in done.stderr
