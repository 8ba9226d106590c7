"""The scripted claude of a chaos run: its task says what to do, a ledger records what it did."""

from pathlib import Path
from typing import NamedTuple

from tests.claude.trees import KINDS

HANGING = KINDS
"""Agents that never answer, with helpers that resist being ended."""

ENDING = {
    "answers": "answer()",
    "answers late": "time.sleep(0.15); answer()",
    "answers and stays": "answer(); stay()",
    "answers at length": "answer(300_000)",
    "answers and leaves a daemon": "fork_away('setsid', 'twice'); answer()",
    "converses": "converse()",
    "quits": "sys.exit(3)",
    "floods": "flood(); answer()",
    "chatters": "chatter(); answer()",
    "nests": "nest('answers late #nested'); answer()",
    "nests in the background": "nest('--background', 'setsid #nested'); answer()",
    "nests what hangs": "nest('daemon #nested'); answer()",
}
"""Agents that end by themselves; the last one only if the process that it waits for ends."""

NEVER_REACHED = "is never reached"
"""The task of an agent whose directory never answers."""
WITHDRAWN = " #w"
"""Part of the task of a job whose submission was withdrawn."""

_SCRIPT = """
import fcntl
job, depth = os.environ["AGENT_DISPATCH_JOB"], os.environ["AGENT_DISPATCH_DEPTH"]
def note(*words):
    fd = os.open({ledger!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (" ".join(words) + "\\n").encode())
    os.close(fd)
def sit_down():
    if " #d" in asked:
        return  # The two agents of a dialogue count as one run.
    # One seat for each run that the limit allows; the kernel frees it when we end.
    for number in range({limit}):
        seat = os.open({seats!r} + "." + depth + "." + str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(seat)
            continue
        mine = [seat]
        # Only agents have a seat, because the limit does not count helpers.
        os.register_at_fork(after_in_child=lambda: [os.close(mine.pop()) for _ in mine[:]])
        return
    note("crowd", job)
def answer(length=0):
    text = job + "." + str(os.getpid()) + "."
    note("answer", job, text)
    result(text + "x" * length)
def converse():
    answer()
    for turn in sys.stdin:
        answer()
def flood():
    line = json.dumps(dict(type="unknown", padding="y" * 100_000)).encode() + b"\\n"
    for _ in range(300):
        os.write(1, line)
        os.write(2, b"e" * 100_000)
def chatter():
    for number in range(300):
        emit(type="assistant", message=dict(content=[dict(type="text", text="z" * 2000)]))
        time.sleep(0.001)
def nest(*words):
    import subprocess
    command = [sys.executable, "-P", "-m", "agent_dispatch", "run", "infra", *words]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
given = [a.partition("=")[2] for a in sys.argv if a.startswith(("--session-id=", "--resume="))]
SESSION = given[0] if given else SESSION
asked = read_turn()
sit_down()
init()
behaviours = {behaviours!r}
# A dialogue adds text around the prompt. "daemon" is also the end of another name.
exec(behaviours[max((name for name in behaviours if name + " #" in asked), key=len)])
"""


class Ledger(NamedTuple):
    """What the agents of a run recorded."""

    answers: dict[str, list[str]]
    """The beginning of each answer, by job."""
    crowded: list[str]
    """Jobs whose agents found all seats taken, so that too many agents ran."""


def script(directory: Path, limit: int) -> str:
    """The program of all agents of one run."""
    return _SCRIPT.format(
        ledger=str(directory / "ledger"),
        seats=str(directory / "seat"),
        limit=limit,
        behaviours={**HANGING, **ENDING},
    )


def read_ledger(directory: Path) -> Ledger:
    """The records so far."""
    answers: dict[str, list[str]] = {}
    crowded: list[str] = []
    try:
        text = (directory / "ledger").read_text()
    except FileNotFoundError:
        text = ""
    for what, job, *more in map(str.split, text.splitlines()):
        if what == "answer":
            answers.setdefault(job, []).extend(more)
        else:
            crowded.append(job)
    return Ledger(answers, crowded)


def behaviour_of(task: str) -> str:
    """What the agent of a job was told to do."""
    return task.partition(" #")[0]


def hangs(task: str) -> bool:
    """Whether a job never ends by itself."""
    # In a dialogue, an agent gets further prompts.
    return behaviour_of(task) in HANGING or (
        behaviour_of(task) == "answers and stays" and _is_of_dialogue(task)
    )


def expected_end(task: str) -> tuple[str, str] | None:
    """Status and error type of a job that no fault touches, and that is cancelled if it hangs.

    None if it depends on when another job is cancelled, or on which of two agents exits first.
    """
    behaviour = behaviour_of(task)
    if hangs(task):
        return "cancelled", "cancelled"
    if behaviour == NEVER_REACHED:
        return "failed", "not_found"
    if behaviour == "nests what hangs" or (_is_of_dialogue(task) and behaviour != "converses"):
        return None
    return ("failed", "cli_error") if behaviour == "quits" else ("done", "")


def _is_of_dialogue(task: str) -> bool:
    return " #d" in task
