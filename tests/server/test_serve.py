"""`agent-dispatch serve` as a process: how it starts, what it survives, and how it leaves."""

import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp_types import INVALID_REQUEST, PARSE_ERROR

from agent_dispatch.server.stdio.byte_streams import MAX_LINE_BYTES
from agent_dispatch.server.tools.catalogue import TOOLS
from tests.server.processes import (
    COMMAND,
    INITIALIZE,
    INITIALIZED,
    LEAVE_S,
    PRODUCT,
    REPOSITORY,
    Server,
    serving,
)

both_eras = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


def resident_kib(pid: int) -> int:
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(listed.stdout)


async def start_run(server: Server, task: str, *, modern: bool = False) -> None:
    """Leave a dispatch in flight: it is, once it reports progress."""
    await server.shake_hands(modern=modern)
    await server.say(server.dispatch(1, task, _meta={"progressToken": "run"}))
    while (await server.hear()).get("method") != "notifications/progress":
        pass


@both_eras
async def test_both_eras_list_and_call_on_raw_lines(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await server.say(server.request(1, "tools/list"))
        listed = (await server.hear_answer(1))["result"]
        assert len(listed["tools"]) == len(TOOLS)
        await server.say(server.dispatch("two", "grüße"))
        called = (await server.hear_answer("two"))["result"]
        assert called["structuredContent"]["result"] == "did: grüße"
        assert called.get("resultType") == ("complete" if modern else None)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_librarys_own_client_works_with_it(mode: str) -> None:
    parameters = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], cwd=REPOSITORY)
    with trio.fail_after(20):
        async with Client(parameters, mode=mode) as client:
            assert client.server_info is not None
            assert client.server_info.name == "agent-dispatch"
            result = await client.call_tool("dispatch", {"agent": "infra", "task": "hello"})
            assert result.structured_content["result"] == "did: hello"


async def test_the_wire_is_private_and_the_fork_server_is_forked_before_heavy_imports() -> None:
    async with serving(command=COMMAND) as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "noise"))
        answer = await server.hear()
        assert answer["id"] == 1
        assert answer["result"]["structuredContent"]["result"] == "stdin: b''"
        await server.wait_stderr("noise on stdout\nmore noise")
        assert server.stderr.startswith("fork_server started with []")


async def test_answers_are_compact_utf_8() -> None:
    async with serving() as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "grüße"))
        assert server.process.stdout is not None
        raw = await server.process.stdout.receive_some()
        assert "grüße".encode() in raw
        assert b'{"jsonrpc":"2.0","id":1,"result":{' in raw


@both_eras
async def test_broken_lines_are_answered_and_the_next_ones_served(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        for line, code, request_id in (
            (b"garbage", PARSE_ERROR, None),
            (b"\xff\xfe", PARSE_ERROR, None),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xff"}}', PARSE_ERROR, 1),
            (b'{"jsonrpc":"2.0","id":2,"method":', PARSE_ERROR, 2),
            (b'[{"jsonrpc":"2.0","id":3,"method":"ping"}]', INVALID_REQUEST, 3),
            (b'{"jsonrpc":"2.0","id":4.5,"method":"ping"}', INVALID_REQUEST, None),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST, None),
            (b'{"jsonrpc":"2.0","id":5,"method":"x\\udfff"}', INVALID_REQUEST, 5),
        ):
            await server.say_raw(b"\n  \n" + line + b"\n")
            answer = await server.hear()
            assert (answer["error"]["code"], answer["id"]) == (code, request_id), line
        await server.say_raw(b'{"jsonrpc":"2.0","id":5,"result":"a response nobody asked for"}\n')
        await server.say(server.request(6, "tools/list"))
        assert "result" in await server.hear_answer(6)


@both_eras
async def test_unpaired_surrogates_in_arguments_are_an_error_envelope(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await server.say(server.dispatch(1, "sur\ud800"))
        result = (await server.hear_answer(1))["result"]
        assert result["isError"] is True
        assert "unpaired surrogate" in json.loads(result["content"][0]["text"])["error"]


async def test_a_line_above_the_limit_is_refused_under_its_id_and_the_next_one_served() -> None:
    async with serving() as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "x" * (MAX_LINE_BYTES + 1)))
        answer = await server.hear_answer(1)
        assert answer["error"]["code"] == INVALID_REQUEST
        await server.say(server.request(2, "ping"))
        assert "result" in await server.hear_answer(2)


async def test_a_large_line_and_a_large_answer_are_whole() -> None:
    async with serving() as server:
        await server.shake_hands()
        task = "x" * 4_000_000
        await server.say(server.dispatch(1, task))
        assert (await server.hear_answer(1))["result"]["structuredContent"]["result"].endswith(task)


async def test_pipelined_calls_are_all_answered() -> None:
    async with serving() as server:
        await server.shake_hands()
        wanted = set(range(200))
        await server.say(*(server.request(i, "tools/call", name="list_agents") for i in wanted))
        assert {(await server.hear())["id"] for _ in wanted} == wanted


async def test_quick_calls_pass_slow_dispatches() -> None:
    async with serving() as server:
        await server.shake_hands()
        await server.say(server.request(0, "tools/call", name="list_agents"))
        await server.hear_answer(0)
        await server.say(*(server.dispatch(f"slow{n}", "sleep 0.5") for n in range(20)))
        started = trio.current_time()
        await server.say(server.request(1, "tools/call", name="list_agents"))
        assert (await server.hear())["id"] == 1
        assert trio.current_time() - started < 0.3
        slow = {(await server.hear())["id"] for _ in range(20)}
        assert len(slow) == 20
        assert trio.current_time() - started < 2


@both_eras
async def test_a_cancelled_call_ends_and_is_not_answered(modern: bool) -> None:
    async with serving() as server:
        await start_run(server, "forever", modern=modern)
        await server.say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"requestId": 1, "reason": "user-cancel"},
            },
            server.dispatch(3, "sleep 0.2"),
        )
        assert (await server.hear())["id"] == 3
        server.process.terminate()
        await server.wait_exit()
        assert "closed after ['cancelled', 'cleaned up']" in server.stderr


@both_eras
async def test_progress_is_sent_under_the_callers_token(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await server.say(server.dispatch(1, "progress 500", _meta={"progressToken": "tok"}))
        seen = await server.hear()
        assert seen["method"] == "notifications/progress"
        assert seen["params"]["progressToken"] == "tok"
        assert seen["params"]["message"].startswith("step ")
        assert "result" in await server.hear_answer(1)


@both_eras
@pytest.mark.parametrize("task", ["forever", "stubborn"])
async def test_claude_codes_signals_end_it_in_time_with_a_call_in_flight(
    modern: bool, task: str
) -> None:
    async with serving() as server:
        await start_run(server, task, modern=modern)
        started = trio.current_time()
        server.process.send_signal(signal.SIGINT)
        with trio.move_on_after(0.1):
            await server.process.wait()
        server.process.send_signal(signal.SIGTERM)
        status, _ = await server.wait_exit()
        assert trio.current_time() - started < LEAVE_S
        assert status == 0
        if task == "forever":
            assert "closed after ['cancelled', 'cleaned up']" in server.stderr
            assert "Traceback" not in server.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_each_signal_ends_an_idle_server_at_once(signum: signal.Signals) -> None:
    async with serving() as server:
        await server.shake_hands()
        server.process.send_signal(signum)
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        assert "Traceback" not in server.stderr


async def test_a_signal_while_it_loads_ends_it_without_noise() -> None:
    async with serving(command=COMMAND) as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "hello"))
        await server.wait_stderr("fork_server started")
        server.process.send_signal(signal.SIGINT)
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        assert "Traceback" not in server.stderr


@both_eras
async def test_the_end_of_stdin_ends_it_with_a_call_in_flight(modern: bool) -> None:
    async with serving() as server:
        await start_run(server, "forever", modern=modern)
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        assert "closed after ['cancelled', 'cleaned up']" in server.stderr


async def test_the_end_of_stdin_before_any_message_ends_it() -> None:
    async with serving(stdin=subprocess.DEVNULL) as server:
        status, _ = await server.wait_exit()
        assert status == 0
        assert "Traceback" not in server.stderr


async def test_requests_right_before_the_end_of_a_file_are_answered(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    lines = [INITIALIZE, INITIALIZED, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]
    requests.write_text("\n".join(map(json.dumps, lines)))
    answers = tmp_path / "answers"
    with requests.open("rb") as stdin, answers.open("wb") as stdout:
        async with serving(stdin=stdin.fileno(), stdout=stdout.fileno()) as server:
            status, _ = await server.wait_exit()
    assert status == 0
    heard = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [message["id"] for message in heard] == ["init", 1]
    assert len(heard[1]["result"]["tools"]) == len(TOOLS)


async def test_a_socket_serves_as_well() -> None:
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    async with serving(stdin=theirs.fileno(), stdout=theirs.fileno()) as server, stream:
        theirs.close()
        await stream.send_all(json.dumps(INITIALIZE).encode() + b"\n")
        assert json.loads(await stream.receive_some())["id"] == "init"
        await stream.send_eof()
        status, _ = await server.wait_exit()
        assert status == 0


async def test_a_client_that_does_not_read_delays_no_run_and_no_exit() -> None:
    async with serving() as server:
        await server.shake_hands()
        await server.say(
            *(server.dispatch(n, "big 400000") for n in range(3)),
            server.dispatch("slow", "sleep 0.2"),
            server.dispatch("run", "forever"),
        )
        assert server.process.stdout is not None
        await server.process.stdout.receive_some(10)
        await trio.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        assert "closed after ['cancelled', 'cleaned up']" in server.stderr


async def test_a_client_that_sends_and_never_reads_fills_no_memory_and_its_end_is_noticed() -> None:
    async with serving() as server:
        await server.shake_hands()
        call = json.dumps(server.dispatch(1, "big 1000000")).encode() + b"\n"
        with trio.move_on_after(2) as scope:
            while True:
                await server.say_raw(call * 100)
        assert scope.cancelled_caught
        assert resident_kib(server.process.pid) < 300_000
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        exit_status, took_s = await server.wait_exit()
        assert exit_status == 0
        assert took_s < 1.5


async def test_a_client_that_closes_its_reading_end_ends_it() -> None:
    async with serving() as server:
        await start_run(server, "forever")
        assert server.process.stdout is not None
        await server.process.stdout.aclose()
        await server.say(server.request(3, "ping"))
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        assert "closed after ['cancelled', 'cleaned up']" in server.stderr
        assert "Traceback" not in server.stderr


async def test_a_bug_in_a_tool_is_an_answer_and_the_server_lives() -> None:
    async with serving() as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "bug"))
        result = (await server.hear_answer(1))["result"]
        assert result["isError"] is True
        assert "ZeroDivisionError" in json.loads(result["content"][0]["text"])["error"]
        await server.wait_stderr("Traceback")
        await server.say(server.request(2, "tools/list"))
        assert "result" in await server.hear_answer(2)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("config-error", "agent-dispatch serve: agents.toml: line 3 is broken\n"),
        ("bug", "ZeroDivisionError: in the service\n"),
    ],
)
async def test_a_service_that_does_not_open_is_reported(fault: str, said: str) -> None:
    async with serving(env={"FAKE_SERVICE": fault}) as server:
        await server.shake_hands()
        await server.say(server.dispatch(1, "hello"))
        status, _ = await server.wait_exit()
        assert status == 1
        assert said in server.stderr
        assert ("Traceback" in server.stderr) is (fault == "bug")


@pytest.mark.parametrize(
    ("argument", "status", "on_stderr"),
    [("--port", 2, "unexpected argument: --port"), ("--help", 0, "")],
)
def test_arguments_are_refused_with_the_usage(argument: str, status: int, on_stderr: str) -> None:
    done = subprocess.run(
        [*COMMAND, argument], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert on_stderr in done.stderr
    assert "usage: agent-dispatch serve" in done.stdout + done.stderr


def test_a_closed_stdin_is_reported() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *COMMAND],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs an open stdin and stdout" in done.stderr


def test_a_closed_stderr_is_no_trouble() -> None:
    line = json.dumps(INITIALIZE) + "\n"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND],
        cwd=REPOSITORY,
        input=line.encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["id"] == "init"


async def test_a_terminal_gets_a_hint_and_its_end_of_file_ends_it() -> None:
    controller, terminal = pty.openpty()
    try:
        async with serving(stdin=terminal, stdout=terminal) as server:
            os.close(terminal)
            await server.wait_stderr("agent-dispatch init")
            os.write(controller, b"\x04")
            status, _ = await server.wait_exit()
            assert status == 0
    finally:
        os.close(controller)


async def test_an_unusable_configuration_is_reported_to_every_caller() -> None:
    env = {"AGENT_DISPATCH_CONFIG": "/nowhere/agents.yaml"}
    async with serving("serve", module=PRODUCT, env=env) as server:
        await server.shake_hands()
        await server.say(server.request(1, "tools/call", name="list_agents"))
        answer = (await server.hear_answer(1))["result"]
    assert answer["isError"]
    assert "agent-dispatch import /nowhere/agents.yaml" in answer["content"][0]["text"]
