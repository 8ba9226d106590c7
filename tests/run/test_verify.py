"""The agent's own `verify` command decides about success, through the whole service."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import InvalidRequestError, UnusableAgentError, quoted
from agent_dispatch.model.dialogue import DialogueRequest
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Member
from agent_dispatch.model.job import JobStatus
from agent_dispatch.run.service import Service
from tests.claude.trees import Tree
from tests.run.stage import Stage, task

ANSWERING = "read_turn(); init(); result('I fixed it', total_cost_usd=0.5)"
REPAIRING = """
read_turn(); init()
number = 0
while True:
    number += 1
    open("work", "w").write(str(number))
    result(f"answer {number}", total_cost_usd=0.25 * number, num_turns=number)
    line = sys.stdin.readline()
    if not line:
        break
    open("prompts", "a").write(line)
    init()
"""
GO = msgspec.structs.replace(task("go"), verify=True)


class Verified(Stage):
    """An agent with a `verify` command."""

    def agent(self, verify: Sequence[str], timeout_s: float = 60, **table: Any) -> "Verified":
        table = {"directory": str(self.directory), "timeout": timeout_s, "verify": verify, **table}
        # A number, a text, a flag or a list of texts of JSON is one of TOML.
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        (self.directory / "agents.toml").write_text(f"[agents.infra]\n{''.join(lines)}")
        return self

    def recorded(self, text: str) -> bool:
        records = (self.directory / "jobs").glob("*.json")
        return any(text in record.read_text() for record in records)

    def tree(self, script: str) -> Tree:  # type: ignore[override]
        return Stage.tree(f"os.chdir({str(self.directory)!r})\n{script}")

    async def ask(self, script: str, request: DispatchRequest = GO) -> DispatchResult:
        tree = self.tree(script)
        with trio.fail_after(60):
            async with self.open(tree) as service:
                result = await service.dispatch(request)
        assert tree.living() == []
        return result


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Verified:
    return Verified(fork_server, tmp_path)


async def test_a_command_that_passes_leaves_the_success(stage: Verified) -> None:
    result = await stage.agent(shell("pwd; echo fine >&2; cat")).ask(ANSWERING)
    assert (result.success, result.verified, result.error) == (True, True, None)
    assert set((result.verify_output or "").split()) == {str(stage.directory), "fine"}


async def test_a_command_that_fails_takes_the_success_away(stage: Verified) -> None:
    result = await stage.agent(shell("echo one; echo two; exit 3")).ask(ANSWERING)
    assert (result.success, result.verified) == (False, False)
    assert result.error_type is ErrorType.UNVERIFIED
    assert (result.result, result.cost_usd) == ("I fixed it", 0.5)
    assert result.verify_output == "one\ntwo\n"
    assert "it exited with status 3" in (result.error or "")
    assert (result.error or "").endswith("one\ntwo")
    assert result.next_steps is None


async def test_the_job_of_unverified_work_has_failed(stage: Verified) -> None:
    stage.agent(["false"])
    async with stage.open(stage.tree(ANSWERING)) as service:
        with trio.fail_after(30):
            job = await service.submit(GO)
            job = await service.jobs.wait(job.id, 30)
    assert (job.status, job.error_type) == (JobStatus.FAILED, ErrorType.UNVERIFIED)
    assert job.result is not None
    assert (job.result.result, job.result.verified) == ("I fixed it", False)
    assert "It printed nothing." in (job.error or "")


async def test_without_being_asked_for_it_is_not_run(stage: Verified) -> None:
    result = await stage.agent(shell("touch ran")).ask(ANSWERING, task("go"))
    assert (result.success, result.verified) == (True, None)
    assert not (stage.directory / "ran").exists()


@pytest.mark.parametrize("asked", [True, False])
async def test_an_agent_may_always_be_checked(stage: Verified, asked: bool) -> None:
    request = msgspec.structs.replace(GO, verify=asked)
    result = await stage.agent(["false"], verify_always=True).ask(ANSWERING, request)
    assert result.error_type is ErrorType.UNVERIFIED


async def test_a_failed_run_is_not_checked(stage: Verified) -> None:
    result = await stage.agent(shell("touch ran")).ask("init(); sys.exit(3)")
    assert (result.error_type, result.verified) == (ErrorType.CLI_ERROR, None)
    assert not (stage.directory / "ran").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program-anywhere"], "was not found"),
        (["./missing"], "was not found"),
        (["./plain"], "Permission denied"),
        (shell("kill -9 $$"), "it was ended by signal 9"),
    ],
)
async def test_a_command_that_cannot_do_its_work_verifies_nothing(
    stage: Verified, command: list[str], said: str
) -> None:
    (stage.directory / "plain").write_text("not a program")
    result = await stage.agent(command).ask(ANSWERING)
    assert (result.error_type, result.verified) == (ErrorType.UNVERIFIED, False)
    assert said in (result.error or "")
    assert result.result == "I fixed it"


async def test_a_program_of_the_project_can_be_named(stage: Verified) -> None:
    program = stage.directory / "check.sh"
    program.write_text("#!/bin/sh\necho checked $1\n")
    program.chmod(0o755)
    result = await stage.agent(["./check.sh", "a b; c"]).ask(ANSWERING)
    assert result.verify_output == "checked a b; c\n"


async def test_a_command_has_the_rest_of_the_time_and_leaves_nothing(stage: Verified) -> None:
    script = "echo begun; (setsid sleep 1000 & echo $! > pid); sleep 1000"
    began = trio.current_time()
    result = await stage.agent(shell(script), timeout_s=2).ask(ANSWERING)
    assert trio.current_time() - began < 30
    assert (result.error_type, result.verify_output) == (ErrorType.UNVERIFIED, "begun\n")
    assert "the time of the run was up" in (result.error or "")
    assert not alive((stage.directory / "pid").read_text())


async def test_what_a_command_leaves_behind_is_ended(stage: Verified) -> None:
    script = "setsid sleep 1000 >/dev/null 2>&1 & echo $! > pid"
    result = await stage.agent(shell(script)).ask(ANSWERING)
    assert (result.success, result.left_running) == (True, None)
    assert not alive((stage.directory / "pid").read_text())


async def test_the_end_of_much_output_is_kept_and_keys_are_masked(stage: Verified) -> None:
    key = "sk-ant-api03-" + "a1B2" * 20
    script = f"yes 0123456789 | head -c 3000000; echo; echo {key}; exit 1"
    result = await stage.agent(shell(script)).ask(ANSWERING)
    output = result.verify_output or ""
    assert len(output) == 4000
    assert "0123456789" in output
    assert key not in output
    assert key not in (result.error or "")


async def test_a_failure_goes_back_to_the_agent_in_the_same_process(stage: Verified) -> None:
    check = shell('echo "it is $(cat work)"; test "$(cat work)" = 2')
    result = await stage.agent(check, verify_attempts=2).ask(REPAIRING)
    assert (result.success, result.verified, result.result) == (True, True, "answer 2")
    assert result.earlier_results == ["answer 1"]
    assert result.num_turns == 3
    assert result.cost_usd == 0.5
    assert result.verify_output == "it is 2\n"
    (prompt,) = (stage.directory / "prompts").read_text().splitlines()
    said = json.loads(prompt)["message"]["content"]
    assert "it exited with status 1" in said
    assert "it is 1" in said


async def test_a_check_runs_as_often_as_it_may_and_no_more(stage: Verified) -> None:
    check = shell("echo x >> checks; exit 1")
    result = await stage.agent(check, verify_attempts=3).ask(REPAIRING)
    assert result.error_type is ErrorType.UNVERIFIED
    assert (result.result, result.earlier_results) == ("answer 3", ["answer 1", "answer 2"])
    assert (stage.directory / "checks").read_text() == "x\n" * 3
    assert len((stage.directory / "prompts").read_text().splitlines()) == 2


async def test_work_that_passes_at_once_needs_no_repair(stage: Verified) -> None:
    check = shell("echo x >> checks")
    result = await stage.agent(check, verify_attempts=3).ask(REPAIRING)
    assert (result.success, result.result, result.earlier_results) == (True, "answer 1", None)
    assert (stage.directory / "checks").read_text() == "x\n"


async def test_a_process_that_has_left_is_checked_once(stage: Verified) -> None:
    check = shell("echo x >> checks; exit 1")
    result = await stage.agent(check, verify_attempts=3).ask(ANSWERING)
    assert (result.error_type, result.result) == (ErrorType.UNVERIFIED, "I fixed it")
    assert (stage.directory / "checks").read_text() == "x\n"


async def test_a_repair_that_does_not_end_leaves_the_work_unverified(stage: Verified) -> None:
    script = "read_turn(); init(); result('first'); read_turn(); init(); time.sleep(1000)"
    stage.agent(["false"], timeout_s=3, verify_attempts=2)
    result = await stage.ask(script)
    assert (result.success, result.verified) == (False, False)
    assert result.error_type is ErrorType.UNVERIFIED
    assert result.result == "first"


async def test_a_repair_that_fails_says_why(stage: Verified) -> None:
    failing = "result('', is_error=True, subtype='error_during_execution', errors=['broken'])"
    script = f"read_turn(); init(); result('first'); read_turn(); init(); {failing}"
    result = await stage.agent(shell("echo bad; exit 1"), verify_attempts=2).ask(script)
    assert (result.success, result.verified, result.verify_output) == (False, False, "bad\n")
    assert result.error_type is ErrorType.CLI_ERROR
    assert result.earlier_results == ["first"]


async def test_a_cancellation_during_the_check_keeps_the_answer(stage: Verified) -> None:
    stage.agent(shell("echo $$ > pid; sleep 1000"))
    tree = stage.tree(ANSWERING)
    with trio.fail_after(30):
        async with stage.open(tree) as service, trio.open_nursery() as nursery:
            nursery.start_soon(service.dispatch, GO)
            while not (stage.directory / "pid").exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        async with stage.open(tree) as service:
            (job,) = (await service.jobs.newest()).jobs
            result = await service.jobs.result(job.id)
    assert (job.status, result.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert (result.result, result.verified) == ("I fixed it", None)
    assert not alive((stage.directory / "pid").read_text())


async def test_a_server_killed_during_the_check_leaves_the_answer_and_no_process(
    stage: Verified,
) -> None:
    script = "(setsid sleep 1000 & echo $! > new && mv new pid); sleep 1000"
    stage.agent(shell(script), verify_always=True)
    tree = stage.tree(ANSWERING)
    pid = stage.directory / "pid"
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.run.submitter", "call", json.dumps(tree.command.argv)],
        env=stage.environ,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        with trio.fail_after(60):
            while not (pid.exists() and stage.recorded('"answer":"I fixed it"')):  # noqa: ASYNC110
                await trio.sleep(0.02)
            owner.kill()
            await owner.wait()
            while alive(pid.read_text()):  # noqa: ASYNC110
                await trio.sleep(0.02)
    finally:
        if owner.poll() is None:
            owner.kill()
    async with stage.open(tree) as service:
        with trio.fail_after(30):
            (listed,) = (await service.jobs.newest()).jobs
            job = await service.jobs.wait(listed.id, 20)
    assert (job.status, job.error_type) == (JobStatus.FAILED, ErrorType.LOST)
    assert job.result is not None
    assert (job.result.result, job.answer) == ("I fixed it", "")
    assert "the answer is in `result`" in (job.error or "")


async def test_a_call_that_asks_for_it_shares_no_run(stage: Verified) -> None:
    stage.agent(["true"])
    async with stage.open(stage.tree(ANSWERING.replace("I fixed it", "four"))) as service:
        with trio.fail_after(30):
            kept = await service.dispatch(task("go"))
            first, second = await service.dispatch(GO), await service.dispatch(GO)
            cached = await service.dispatch(task("go"))
    assert len({kept.job_id, first.job_id, second.job_id}) == 3
    assert (cached.job_id, cached.verified) == (kept.job_id, None)


async def test_an_agent_without_a_command_cannot_be_asked_for_it(stage: Verified) -> None:
    stage.configure()
    async with stage.open(stage.tree(ANSWERING)) as service:
        for call in (service.dispatch, service.submit):
            with pytest.raises(InvalidRequestError, match="has no `verify` command") as caught:
                await call(GO)
            assert "--verify" in caught.value.next_steps[0].command
        with pytest.raises(InvalidRequestError, match=r"dispatches\[1\]"):
            await service.parallel([Member(request=task("go")), Member(request=GO)])
        assert (await service.jobs.newest()).jobs == []


@pytest.mark.parametrize("value", ["make test", 7, ["make", 7], [["make"]], {"a": 1}, [""]])
async def test_a_command_that_is_no_list_of_texts_makes_the_agent_unhealthy(
    stage: Verified, value: Any
) -> None:
    written = "{ a = 1 }" if isinstance(value, dict) else json.dumps(value)
    (stage.directory / "agents.toml").write_text(
        f'[agents.infra]\ndirectory = "{stage.directory}"\nverify = {written}\n'
    )
    async with stage.open(stage.tree(ANSWERING)) as service:
        (row,) = await service.agents.summaries()
        assert (row.healthy, "verify" in (row.problem or "")) == (False, True), quoted(written)
        with pytest.raises(UnusableAgentError):
            await service.dispatch(task("go"))


async def test_items_of_a_parallel_call_are_checked_and_the_aggregator_is_not(
    stage: Verified,
) -> None:
    stage.agent(shell("echo x >> checks"), verify_always=True)
    async with stage.open(stage.tree(ANSWERING)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(
                [Member(request=task("one")), Member(request=task("two"))], "infra"
            )
    assert [result.verified for result in outcome.individual_results] == [True, True]
    assert outcome.aggregated is not None
    assert (outcome.aggregated.success, outcome.aggregated.verified) == (True, None)
    assert (stage.directory / "checks").read_text() == "x\nx\n"


async def test_dialogue_turns_are_not_checked(stage: Verified) -> None:
    stage.agent(shell("touch ran"), verify_always=True)
    config = stage.directory / "agents.toml"
    config.write_text(config.read_text() + config.read_text().replace("infra", "db"))
    script = "while read_turn(): init(); result('It is settled. [RESOLVED]')"
    async with stage.open(stage.tree(script)) as service:
        with trio.fail_after(30):
            talk = await dialogue(service)
    assert talk.resolved
    assert not (stage.directory / "ran").exists()


async def dialogue(service: Service) -> Any:
    request = DialogueRequest(requester="db", responder="infra", topic="Which port?")
    return await service.dialogue(request)


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid.strip()}").exists()
