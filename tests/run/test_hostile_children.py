"""The run loop around real processes that play a claude gone wrong."""

import json
import resource
import time
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.model.dispatch import ErrorType
from tests.claude.trees import KINDS, Tree
from tests.run.stage import CLAUDE, SESSION, Stage, task


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


@pytest.mark.parametrize(
    "text",
    ["- a\n- b", "--version", "/compact now", "é漢\u2028", "x" * 200_000, '"\\'],
    ids=["list", "flag", "slash", "unicode", "200 kB", "quotes"],
)
async def test_any_text_arrives_whole(stage: Stage, text: str) -> None:
    outcome = await stage.play("init(); result(read_turn())", task(text, context="C" * 200_000))
    assert outcome.success
    assert outcome.result == f"Context:\n{'C' * 200_000}\n\nTask:\n{text}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print('Warning: noise', flush=True); init(); result()", "fine"),
        ("os.write(1, b'\\xff\\xfe\\n\\x80'); os.write(1, b'\\n'); init(); result()", "fine"),
        ("init(); os.write(1, b'\\xef\\xbb\\xbf'); result()", "fine"),
        (
            (
                "os.write(1, json.dumps([dict(type='system', subtype='init', session_id=SESSION),"
                " dict(type='result', subtype='success', is_error=False, num_turns=1,"
                " result='from an array')]).encode())"
            ),
            "from an array",
        ),
        (
            (
                "print(json.dumps(dict(type='result', subtype='success', is_error=False,"
                " num_turns=1, result='pretty'), indent=2))"
            ),
            "pretty",
        ),
        ("init(); emit(type='assistant', message=5); emit(type='new', x=[1]); result()", "fine"),
        ("init(); result('x' * (8 << 20)); ", "x" * (8 << 20)),
        ("init(); os.write(2, b'e' * 3_000_000); result()", "fine"),
        ("init(); result(); os._exit(9)", "fine"),
        ("init(); emit(type='x', pad='y' * (8 << 20)); result()", "fine"),
    ],
    ids=[
        "noise",
        "not UTF-8",
        "byte order mark",
        "one array",
        "pretty-printed",
        "unknown events",
        "8 MiB answer",
        "stderr flood",
        "exit code 9",
        "8 MiB of something else",
    ],
)
async def test_an_answer_is_found_in_any_output(stage: Stage, script: str, expected: str) -> None:
    outcome = await stage.play(f"read_turn(); {script}")
    assert outcome.success, outcome
    assert outcome.result == expected


@pytest.mark.parametrize(
    "script",
    ["", "sys.exit(3)", "init()", "print('hello')", "os.write(2, b'error: no'); sys.exit(1)"],
    ids=["nothing", "exit 3", "only an init", "only noise", "only stderr"],
)
async def test_no_result_is_a_failure(stage: Stage, script: str) -> None:
    outcome = await stage.play(f"read_turn(); {script}")
    assert (outcome.success, outcome.error_type) == (False, ErrorType.CLI_ERROR)
    assert outcome.error


async def test_stderr_is_in_the_error(stage: Stage) -> None:
    outcome = await stage.play("os.write(2, b'error: cannot open the lock'); sys.exit(1)")
    assert outcome.error is not None
    assert "cannot open the lock" in outcome.error


async def test_two_results_keep_both_answers(stage: Stage) -> None:
    outcome = await stage.play("init(); result('first'); init(); result('second')")
    assert (outcome.result, outcome.earlier_results) == ("second", ["first"])


async def test_an_empty_last_result_does_not_hide_the_answer(stage: Stage) -> None:
    outcome = await stage.play("init(); result('first'); init(); result('')")
    assert outcome.result == "first"


async def test_one_that_stays_after_its_answer_is_ended_after_a_linger(stage: Stage) -> None:
    began = time.monotonic()
    outcome = await stage.play("init(); result(); stay()")
    assert outcome.success
    assert time.monotonic() - began < 20  # Not the deadline of 60 s.


async def test_one_that_never_answers_is_ended_at_the_deadline(stage: Stage) -> None:
    outcome = await stage.play("init(); fork_away('setsid', 'twice'); stay()", timeout_s=1)
    assert (outcome.error_type, outcome.session_id) == (ErrorType.TIMEOUT, SESSION)


async def test_one_that_does_not_read_its_stdin_is_ended_at_the_deadline(stage: Stage) -> None:
    request = task("x" * 1_000_000)
    outcome = await stage.play("init(); stay()", request, timeout_s=1)
    assert outcome.error_type is ErrorType.TIMEOUT


async def test_a_daemon_that_holds_stdout_delays_nothing_and_is_counted(stage: Stage) -> None:
    began = time.monotonic()
    outcome = await stage.play("init(); fork_away('setsid', 'twice'); result()")
    assert (outcome.success, outcome.left_running) == (True, 1)
    assert outcome.hint is not None
    assert time.monotonic() - began < 20


async def test_questions_of_the_cli_are_refused_not_left_open(stage: Stage) -> None:
    outcome = await stage.play(
        "read_turn(); init();"
        "emit(type='control_request', request_id='r1', request={'subtype': 'elicitation'});"
        "result(sys.stdin.readline())"
    )
    assert json.loads(outcome.result)["response"]["request_id"] == "r1"


async def test_a_gibibyte_without_newline_is_survived_in_bounded_memory(stage: Stage) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await stage.play(
        "read_turn(); init()\n"
        "block = b'x' * (1 << 20)\n"
        "for _ in range(1024): os.write(1, block)\n"
        "os.write(1, b'\\n'); result('after the flood')",
        timeout_s=300,
    )
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert outcome.result == "after the flood"
    assert grown_kib < 3 * 160 * 1024


async def test_cancelling_a_dispatch_ends_the_tree_and_frees_the_slot(stage: Stage) -> None:
    tree = Tree(CLAUDE + "init(); fork_away('setsid', 'twice'); stay()")
    seen = trio.Event()
    with trio.fail_after(30):
        async with stage.open(tree) as service:
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    await service.dispatch(task("go"), lambda progress: seen.set())

                nursery.start_soon(run)
                await seen.wait()
                nursery.cancel_scope.cancel()
            assert tree.living() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_child_is_gone_after_the_deadline(stage: Stage, kind: str) -> None:
    outcome = await stage.play("init()\n" + KINDS[kind], timeout_s=1)
    assert outcome.error_type is ErrorType.TIMEOUT
