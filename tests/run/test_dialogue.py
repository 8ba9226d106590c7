"""Dialogues of agents that are scripts, with real processes."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import DispatchRequest, ErrorType, Progress
from agent_dispatch.model.job import Job, JobKind, JobStatus
from agent_dispatch.run.open_service import open_service
from agent_dispatch.run.service import Service
from tests.claude.trees import Tree
from tests.run.stage import Stage

REQUEST = DialogueRequest(requester="backend", responder="db", topic="Are we migrated?")
SESSIONS = {
    "db": "11111111-1111-4111-8111-111111111111",
    "backend": "22222222-2222-4222-8222-222222222222",
}
ROOT = Path(__file__).parents[2]
COST = '"model_usage_since_last_result": {"m": {"costUSD": 0.25}}, "total_cost_usd": 7'

AGENT = f"""
me = os.path.basename(os.getcwd())
SESSION = {SESSIONS!r}[me]
told = []
def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    told.append(json.loads(line)["message"]["content"])
    init()
    return len(told)
def answer(text, **more):
    result(text, **{{{COST}}}, **more)
def talk(*answers):
    # One answer for each turn; `PID` becomes the process, and the last one is repeated.
    while True:
        turn = hear()
        answer(answers[min(turn, len(answers)) - 1].replace("PID", str(os.getpid())))
"""


THEN_REQUESTER = "talk('Which?') if me == 'db' else (hear(), %s)"
"""The responder speaks; what the requester does is to be filled in."""
THEN_RESPONDER = """
talk('Staging') if me == 'backend' else (hear(), answer('Which?'), hear(), %s)
"""
"""Both speak; what the responder does in its second turn is to be filled in."""

StartOwner = Callable[[Tree], Awaitable[tuple[trio.Process, str]]]


class Pair(Stage):
    """Two agents, `db` and `backend`, whose claudes are one script that may look at `me`."""

    def set_up(self, settings: str = "", timeouts_s: tuple[float, float] = (60, 60)) -> None:
        tables = ""
        for name, timeout_s in zip(("db", "backend"), timeouts_s, strict=True):
            (self.directory / name).mkdir(exist_ok=True)
            tables += f'[agents.{name}]\ndirectory = "{self.directory / name}"\n'
            tables += f"timeout = {timeout_s}\n"
        (self.directory / "agents.toml").write_text(f"{tables}[settings]\n{settings}\n")

    @staticmethod
    def pair(script: str) -> Tree:
        return Stage.tree(AGENT + script)

    async def have(self, script: str, request: DialogueRequest = REQUEST) -> DialogueResult:
        """Have a dialogue to its end, after which nothing is left."""
        if not (self.directory / "agents.toml").exists():
            self.set_up()
        tree = self.pair(script)
        with trio.fail_after(60):
            async with self.open(tree) as service:
                outcome = await service.dialogue(request)
        assert tree.living() == []
        return outcome

    @asynccontextmanager
    async def having(
        self, script: str, until: str, request: DialogueRequest = REQUEST
    ) -> AsyncIterator["Live"]:
        """A dialogue under way, once a line of progress has ended with `until`."""
        live = Live(self.pair(script), until)
        with trio.fail_after(60):
            async with self.open(live.tree) as service, trio.open_nursery() as nursery:
                nursery.start_soon(live.run, service, request)
                await live.reached.wait()
                yield live
                live.scope.cancel()
        assert live.tree.living() == []

    def slot_is_free(self) -> bool:
        """Whether anybody could lock the only slot there is."""
        with open(self.directory / "jobs" / "slots" / "0" / "0") as slot:
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


class Live:
    """A dialogue under way."""

    def __init__(self, tree: Tree, until: str) -> None:
        self.tree = tree
        self.reached = trio.Event()
        self.over = trio.Event()
        self.scope = trio.CancelScope()
        self.job_id = ""
        self.outcome: DialogueResult | None = None
        self._until = until

    async def run(self, service: Service, request: DialogueRequest) -> None:
        self.service = service
        with self.scope:
            self.outcome = await service.dialogue(request, self._note)
        self.over.set()

    def _note(self, progress: Progress) -> None:
        self.job_id = progress.job_id or self.job_id
        if progress.message.endswith(self._until):
            self.reached.set()


@pytest.fixture
def pair(fork_server: ForkServer, tmp_path: Path) -> Pair:
    pair = Pair(fork_server, tmp_path)
    pair.set_up()
    return pair


@pytest.fixture
async def start_owner(pair: Pair) -> AsyncIterator[StartOwner]:
    """Starts a process that has a dialogue, and kills it should a failed test have left it."""
    owners: list[trio.Process] = []

    async def start(tree: Tree) -> tuple[trio.Process, str]:
        claude = json.dumps(tree.command.argv)
        owner = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.run.submitter", "dialogue", claude],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=pair.environ,
            cwd=ROOT,
            start_new_session=True,
        )
        owners.append(owner)
        assert owner.stdout is not None
        with trio.fail_after(20):
            return owner, (await owner.stdout.receive_some(100)).decode().strip()

    yield start
    for owner in owners:
        if owner.poll() is None:
            owner.kill()


def messages(outcome: DialogueResult) -> list[str]:
    return [turn.message for turn in outcome.conversation]


def recorded(job: Job) -> DialogueResult:
    assert job.result is not None
    return msgspec.convert(job.result.parsed_result, DialogueResult)


async def test_two_agents_talk_in_one_process_each_until_one_resolves(pair: Pair) -> None:
    outcome = await pair.have(
        "talk('Which?', '', 'PID [RESOLVED]') if me == 'db' else talk('Staging', 'PID?')",
    )
    assert (outcome.resolved, outcome.rounds, outcome.error) == (True, 3, None)
    assert messages(outcome)[:3] == ["Which?", "Staging", ""]
    db, backend = messages(outcome)[4].split()[0], messages(outcome)[3].rstrip("?")
    assert outcome.final_answer == db != backend
    assert [turn.cost_usd for turn in outcome.conversation] == [0.25] * 5
    assert outcome.total_cost_usd == 1.25
    assert outcome.sessions == SESSIONS


async def test_a_second_turn_has_the_process_of_the_first(pair: Pair) -> None:
    outcome = await pair.have("talk('PID')")
    db, backend = messages(outcome)[0], messages(outcome)[1]
    assert db != backend
    assert messages(outcome) == [db, backend] * 3
    assert not outcome.resolved


async def test_each_hears_the_topic_and_then_what_the_other_said(pair: Pair) -> None:
    outcome = await pair.have(
        """
while True:
    turn = hear()
    answer(json.dumps(told[-1]) if me == "backend" else "see @secrets of turn %d" % turn)
""",
        msgspec.structs.replace(REQUEST, max_rounds=2),
    )
    first, second = (msgspec.json.decode(messages(outcome)[index], type=str) for index in (1, 3))
    assert "Are we migrated?" in first
    assert "of turn 1" in first
    assert "Are we migrated?" not in second
    assert "of turn 2" in second
    assert "@secrets" not in first + second


async def test_the_requester_is_not_started_before_its_turn(pair: Pair) -> None:
    started = pair.directory / "backend" / "started"
    outcome = await pair.have(
        f"open({str(started)!r}, 'w') if me == 'backend' else 0; talk('[RESOLVED]')"
    )
    assert outcome.resolved
    assert not started.exists()


async def test_a_dialogue_is_a_job_that_gives_the_whole_conversation(pair: Pair) -> None:
    tree = pair.pair("talk('Which?', 'Applied. [RESOLVED]')")
    said: list[Progress] = []
    async with pair.open(tree) as service:
        outcome = await service.dialogue(REQUEST, said.append)
        assert outcome.job_id is not None
        job = await service.jobs.get(outcome.job_id)
        result = await service.jobs.result(outcome.job_id)
    assert (said[0].job_id, said[0].message) == (
        outcome.job_id,
        f"db · started · job {outcome.job_id[-8:]}",
    )
    assert (job.kind, job.status) == (JobKind.CALL, JobStatus.DONE)
    assert (job.agent, job.caller, job.task) == ("db", "backend", "Are we migrated?")
    assert job.session_id == SESSIONS["db"]
    assert (result.success, result.result, result.cost_usd) == (True, "Applied.", 0.75)
    assert recorded(job) == msgspec.structs.replace(outcome, job_id=None)
    assert job.agents == ["backend", "db"]
    lines = [progress.message for progress in said]
    assert "db · round 1, as responder" in lines
    assert f"backend · session {SESSIONS['backend']}" in lines
    assert job.progress == lines[-20:]


async def test_without_retention_a_dialogue_leaves_no_record_and_goes_out_whole(
    pair: Pair,
) -> None:
    pair.set_up("call_retention_days = 0")
    ids: list[str] = []
    async with pair.open(pair.pair("talk('[RESOLVED]')")) as service:
        outcome = await service.dialogue(REQUEST, lambda p: ids.append(p.job_id or ""))
        assert outcome.job_id is None
        with pytest.raises(UnknownJobError):
            await service.jobs.get(ids[0])


async def test_a_pair_takes_one_slot(pair: Pair) -> None:
    pair.set_up("max_concurrency = 1")
    outcome = await pair.have("talk('hm', '[RESOLVED]')")
    assert outcome.resolved


async def test_who_waits_for_a_slot_is_told_the_place_and_starts_nothing(pair: Pair) -> None:
    pair.set_up("max_concurrency = 1")
    async with pair.having("hear(); stay()", until=SESSIONS["db"]) as live:
        said: list[Progress] = []
        with trio.move_on_after(0.3) as patience:
            await live.service.dialogue(REQUEST, said.append)
        assert patience.cancelled_caught
        assert [progress.message for progress in said[1:]] == [
            "db · Waiting for a free slot, place 1 in line"
        ]
        job = await live.service.jobs.get(said[0].job_id or "")
        assert (job.status, job.started_at) == (JobStatus.CANCELLED, None)


STUBBORN = """
[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]
fork_away('setsid', 'twice', 'quiet')
"""
PHASES = {
    "first turn": ("hear(); stay()", SESSIONS["db"], []),
    "turn of the requester": (THEN_REQUESTER % "stay()", SESSIONS["backend"], ["Which?"]),
    "second turn": (THEN_RESPONDER % "stay()", "Next turn", ["Which?", "Staging"]),
    # Not who is at work, not who waits, not what both have left.
    "nobody obeys": (STUBBORN + THEN_REQUESTER % "stay()", SESSIONS["backend"], ["Which?"]),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("way", ["its caller", "another process"])
async def test_a_cancelled_dialogue_leaves_no_process_and_a_free_slot_within_a_second(
    pair: Pair, phase: str, way: str
) -> None:
    pair.set_up("max_concurrency = 1")
    script, until, said = PHASES[phase]
    async with pair.having(script, until) as live:
        assert live.tree.living()
        assert not pair.slot_is_free()
        began = time.monotonic()
        if way == "its caller":
            live.scope.cancel()
        else:
            cancelled = await live.service.jobs.cancel(live.job_id, by=way)
            assert cancelled is CancelOutcome.CANCELLED
        await live.over.wait()
        assert time.monotonic() - began < 1
        assert live.tree.living() == []
        assert pair.slot_is_free()
        job = await live.service.jobs.get(live.job_id)
    assert (job.status, job.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert job.error is not None
    assert f"Cancelled by {way}" in job.error
    assert messages(recorded(job)) == said
    assert (recorded(job).sessions or {})["db"] == SESSIONS["db"]
    assert job.session_id == SESSIONS["db"]
    if live.outcome is not None:
        assert live.outcome.error_type is ErrorType.CANCELLED
        assert messages(live.outcome) == said


async def test_a_cancellation_that_comes_when_all_is_said_changes_nothing(pair: Pair) -> None:
    said = pair.directory / "said"
    os.mkfifo(said)
    # It would stay for ever, so it is given a while to leave by itself: cancelled in this while.
    script = f"hear(); answer('paid for [RESOLVED]'); open({str(said)!r}, 'w'); stay()"
    async with pair.having(script, until=SESSIONS["db"]) as live:
        await trio.to_thread.run_sync(said.read_text, abandon_on_cancel=True)
        cancelled = await live.service.jobs.cancel(live.job_id)
        assert cancelled is CancelOutcome.ALREADY_TERMINAL
        job = await live.service.jobs.get(live.job_id)
    assert job.status is JobStatus.DONE
    assert recorded(job).final_answer == "paid for"


async def test_a_killed_owner_leaves_the_session_to_resume(
    pair: Pair, start_owner: StartOwner
) -> None:
    tree = pair.pair(THEN_REQUESTER % "stay()")
    owner, job_id = await start_owner(tree)
    async with pair.open(tree) as service:
        with trio.fail_after(20):
            while len(tree.living()) < 2 or not (await service.jobs.get(job_id)).session_id:  # noqa: ASYNC110
                await trio.sleep(0.01)
            owner.kill()
            job = await service.jobs.wait(job_id, 20)
    await tree.gone(3)
    assert (job.error_type, job.session_id) == (ErrorType.LOST, SESSIONS["db"])
    await owner.wait()


DENIED = "answer('no', is_error=True, permission_denials=[dict(tool_name='Bash')])"
REFUSED = "[emit(type='system', subtype='api_retry', error_status=401) for _ in '12'], stay()"
OVER_BUDGET = "answer('', is_error=True, subtype='error_max_budget_usd')"
FIRST, SECOND = ["Which?"], ["Which?", "Staging"]
FAILURES = {
    "exits at once": ("sys.exit(3)", ErrorType.CLI_ERROR, [], "db"),
    "requester exits": (THEN_REQUESTER % "sys.exit(3)", ErrorType.CLI_ERROR, FIRST, "backend"),
    "exits in its second turn": (
        THEN_RESPONDER % "sys.exit(3)",
        ErrorType.CLI_ERROR,
        SECOND,
        "db",
    ),
    "killed in its second turn": (
        THEN_RESPONDER % "os.kill(os.getpid(), 9)",
        ErrorType.CLI_ERROR,
        SECOND,
        "db",
    ),
    "over budget": (THEN_REQUESTER % OVER_BUDGET, ErrorType.BUDGET, ["Which?", ""], "backend"),
    "denied": (THEN_REQUESTER % DENIED, ErrorType.PERMISSION, ["Which?", ""], "backend"),
    "credentials refused": (THEN_REQUESTER % REFUSED, ErrorType.AUTH, FIRST, "backend"),
    "guard killed": ("hear(); os.kill(os.getppid(), 9); stay()", ErrorType.LOST, [], "db"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_turn_ends_the_dialogue_and_keeps_what_was_said(
    pair: Pair, failure: str
) -> None:
    script, error_type, said, speaks = FAILURES[failure]
    outcome = await pair.have(script)
    assert not outcome.resolved
    assert outcome.error_type is error_type
    assert outcome.error is not None
    assert f"agent '{speaks}'" in outcome.error
    assert messages(outcome) == said
    assert outcome.job_id is not None
    async with pair.open(pair.pair("")) as service:
        job = await service.jobs.get(outcome.job_id)
    assert (job.status, job.error_type) == (JobStatus.FAILED, error_type)
    assert recorded(job).conversation == outcome.conversation
    if said:
        assert (outcome.sessions or {})["db"] == SESSIONS["db"]


async def test_a_turn_has_its_agents_own_time(pair: Pair) -> None:
    pair.set_up(timeouts_s=(60, 1))
    began = time.monotonic()
    outcome = await pair.have(THEN_REQUESTER % "stay()")
    assert time.monotonic() - began < 8
    assert outcome.error_type is ErrorType.TIMEOUT
    assert outcome.error is not None
    assert "Timed out after 1 s" in outcome.error
    assert messages(outcome) == ["Which?"]
    assert outcome.sessions == SESSIONS


async def test_an_answer_outranks_the_time_that_a_background_task_took(pair: Pair) -> None:
    pair.set_up(timeouts_s=(1, 60))
    outcome = await pair.have(
        """
if me == "backend":
    talk("Is it up?")
hear()
if "--resume=" + SESSION in sys.argv:
    answer("Yes. [RESOLVED]")
    sys.exit(0)
emit(type="system", subtype="background_tasks_changed", tasks=[{"task_id": "1"}])
answer("I started the server")
stay()
"""
    )
    assert outcome.error is None
    assert messages(outcome) == ["I started the server", "Is it up?", "Yes. [RESOLVED]"]
    assert outcome.resolved
    assert outcome.hint is not None
    assert "background task" in outcome.hint
    assert outcome.total_cost_usd == 0.75


async def test_the_last_answer_of_a_turn_is_its_message_and_the_earlier_ones_are_kept(
    pair: Pair,
) -> None:
    outcome = await pair.have(
        """
if me == "backend":
    talk("Then I am done. [RESOLVED]")
hear()
emit(type="system", subtype="background_tasks_changed", tasks=[{"task_id": "1"}])
answer("I started the tests")
emit(type="system", subtype="background_tasks_changed", tasks=[])
time.sleep(0.2)
init()
answer("They pass")
hear()
"""
    )
    assert outcome.resolved
    first = outcome.conversation[0]
    assert (first.message, first.earlier_results) == ("They pass", ["I started the tests"])
    assert first.cost_usd == 0.5


async def test_one_that_ends_after_each_answer_is_resumed(pair: Pair) -> None:
    outcome = await pair.have(
        """
hear()
resumed = "--resume=" + SESSION in sys.argv
answer("again [RESOLVED]" if resumed else "once")
"""
    )
    assert (outcome.resolved, outcome.error) == (True, None)
    assert messages(outcome) == ["once", "once", "again [RESOLVED]"]


async def test_one_that_ended_without_naming_its_session_cannot_be_asked_further(
    pair: Pair,
) -> None:
    outcome = await pair.have(
        """
if me == "backend":
    talk("Staging")
sys.stdin.readline()
emit(type="result", subtype="success", is_error=False, num_turns=1, result="Which?")
"""
    )
    assert messages(outcome) == ["Which?", "Staging"]
    assert outcome.error is not None
    assert "named no session" in outcome.error


async def test_a_denied_tool_of_a_turn_that_succeeds_is_a_hint(pair: Pair) -> None:
    outcome = await pair.have(
        "hear(); answer('as far as I could [RESOLVED]',"
        " permission_denials=[dict(tool_name='Bash', tool_use_id='t')])"
    )
    assert outcome.resolved
    assert outcome.conversation[0].denied_tools == ["Bash"]
    steps = outcome.next_steps or ()
    assert any("agent-dispatch update db" in step.command for step in steps)


async def test_processes_that_were_left_behind_are_ended_and_counted(pair: Pair) -> None:
    outcome = await pair.have(
        "fork_away('setsid', 'twice', 'quiet'); talk('hm') if me == 'db' else talk('[RESOLVED]')"
    )
    assert outcome.resolved
    assert outcome.left_running == 2


async def test_a_message_of_megabytes_is_kept_whole(pair: Pair) -> None:
    outcome = await pair.have(
        "talk('x' * 8_000_000) if me == 'db' else talk(' [RESOLVED]')",
    )
    assert len(outcome.final_answer) == 8_000_000
    async with pair.open(pair.pair("")) as service:
        assert outcome.job_id is not None
        assert recorded(await service.jobs.get(outcome.job_id)).conversation == outcome.conversation


async def test_ten_dialogues_at_once_do_not_mix(pair: Pair) -> None:
    pair.set_up("max_concurrency = 4")
    tree = pair.pair("(hear(), answer(told[0].split('## Topic')[1].split()[0] + ' [RESOLVED]'))")
    outcomes: dict[int, DialogueResult] = {}
    async with pair.open(tree) as service:

        async def one(number: int) -> None:
            request = msgspec.structs.replace(REQUEST, topic=f"topic{number}")
            outcomes[number] = await service.dialogue(request)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(one, number)
    assert {number: outcome.final_answer for number, outcome in outcomes.items()} == {
        number: f"topic{number}" for number in range(10)
    }
    assert tree.living() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requester": "nobody"}, "Unknown agent: 'nobody'. Available: backend, db"),
        ({"responder": "nobody"}, "Unknown agent: 'nobody'. Available: backend, db"),
        ({"requester": "db"}, "takes two agents"),
        ({"topic": " "}, "topic is empty"),
    ],
)
async def test_a_wrong_request_starts_and_records_nothing(
    pair: Pair, changes: dict[str, str], words: str
) -> None:
    async with pair.open(pair.pair("open('started', 'w')")) as service:
        with pytest.raises(DispatchError, match=words):
            await service.dialogue(msgspec.structs.replace(REQUEST, **changes))
        assert (await service.jobs.newest()).jobs == []


@pytest.mark.parametrize("gone", ["db", "backend"])
async def test_a_missing_directory_is_found_before_anybody_speaks(pair: Pair, gone: str) -> None:
    (pair.directory / gone).rmdir()
    outcome = await pair.have("open('started', 'w'); talk('hm')")
    assert outcome.error_type is ErrorType.NOT_FOUND
    assert (outcome.rounds, outcome.conversation, outcome.sessions) == (0, [], None)
    assert list(pair.directory.glob("*/started")) == []


async def test_deeper_than_allowed_is_refused(pair: Pair) -> None:
    pair.environ["AGENT_DISPATCH_DEPTH"] = "3"
    outcome = await pair.have("open('started', 'w')")
    assert outcome.error_type is ErrorType.RECURSION
    assert list(pair.directory.glob("*/started")) == []


async def test_a_program_that_cannot_be_executed_is_found_when_it_is_started(
    pair: Pair, fork_server: ForkServer
) -> None:
    program = pair.directory / "claude"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    async with open_service(
        environ=pair.environ, fork_server=fork_server, claude=[str(program)]
    ) as service:
        with trio.fail_after(20):
            outcome = await service.dialogue(REQUEST)
    assert outcome.error_type is ErrorType.NOT_FOUND
    assert outcome.error is not None
    assert str(program) in outcome.error


@pytest.mark.parametrize(("agent", "owner"), [("db", "backend"), ("backend", "db")])
async def test_neither_agent_goes_on_with_the_session_of_the_other(
    agent: str, owner: str, pair: Pair
) -> None:
    await pair.have("talk('Which?') if me == 'db' else talk('Staging [RESOLVED]')")
    request = DispatchRequest(agent=agent, task="go on", session_id=SESSIONS[owner])
    with trio.fail_after(60):
        async with pair.open(pair.pair("talk('no')")) as service:
            with pytest.raises(InvalidRequestError, match=f"belongs to agent '{owner}'"):
                await service.dispatch(request)
