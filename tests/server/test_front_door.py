"""The front door: what it answers, what it leaves to the library, and how it leaves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from agent_dispatch.server.stdio.front_door import (
    HANDSHAKE_VERSIONS,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LISTS,
    METHOD_NOT_FOUND,
    MODERN_VERSION,
    TABLE,
    UNSUPPORTED_VERSION,
    FrontDoor,
    read_table,
)
from agent_dispatch.server.stdio.front_door_table import make_rows, shipped
from tests.server.processes import (
    INITIALIZE,
    INITIALIZED,
    LEAVE_S,
    MODERN_META,
    REPOSITORY,
    Message,
    Server,
    serving,
)

SERVE = [sys.executable, "-P", "-m", "agent_dispatch", "serve"]

PING: Message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
LIST: Message = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
CALL: Message = {
    "jsonrpc": "2.0",
    "id": 3,
    "method": "tools/call",
    "params": {"name": "list_agents", "arguments": {}},
}


def modern(message: Message, **meta: object) -> Message:
    envelope = {**MODERN_META, **{f"io.modelcontextprotocol/{key}": meta[key] for key in meta}}
    return {**message, "params": {**message.get("params", {}), "_meta": envelope}}


DISCOVER = modern({"jsonrpc": "2.0", "id": 4, "method": "server/discover"})
UNKNOWN = modern(
    {"jsonrpc": "2.0", "id": 5, "method": "server/discover"}, protocolVersion="2099-01-01"
)


def line(message: object) -> bytes:
    return json.dumps(message).encode()


@pytest.fixture
def door() -> FrontDoor:
    return FrontDoor(read_table())


def answer(door: FrontDoor, message: object) -> Message | None:
    frame = door.answer(line(message))
    if frame is None:
        return None
    assert frame == b"" or frame.endswith(b"\n")
    decoded: Message = json.loads(frame) if frame else {}
    return decoded


# -- the table


@pytest.fixture(scope="module")
def rows() -> dict[str, bytes]:
    return make_rows()


def test_the_table_is_what_the_library_answers(rows: dict[str, bytes]) -> None:
    assert Path(TABLE).read_bytes() == shipped(rows), "run: python -m " + make_rows.__module__


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
@pytest.mark.parametrize("method", LISTS)
def test_all_handshake_revisions_have_the_same_lists(
    rows: dict[str, bytes], version: str, method: str
) -> None:
    assert rows[f"{version} {method}"] == rows[f"{HANDSHAKE_VERSIONS[-1]} {method}"]


# -- the era


@pytest.mark.parametrize("before", [[DISCOVER], [UNKNOWN], [LIST], [modern(LIST)], [PING]])
def test_probes_and_lists_do_not_prevent_initialize(door: FrontDoor, before: list[Message]) -> None:
    for message in before:
        assert answer(door, message) is not None
    initialized = answer(door, INITIALIZE)
    assert initialized is not None
    assert initialized["result"]["protocolVersion"] == "2025-11-25"
    assert answer(door, INITIALIZED) == {}
    assert door.handshake == [line(INITIALIZE), line(INITIALIZED)]


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
def test_each_handshake_revision_is_agreed_to(door: FrontDoor, version: str) -> None:
    wanted = {**INITIALIZE, "params": {**INITIALIZE["params"], "protocolVersion": version}}  # type: ignore[dict-item]  # a test's own
    agreed = answer(door, wanted)
    assert agreed is not None
    assert agreed["result"]["protocolVersion"] == version


def test_an_unknown_handshake_revision_gets_the_newest(door: FrontDoor) -> None:
    wanted = {**INITIALIZE, "params": {**INITIALIZE["params"], "protocolVersion": "1999-01-01"}}  # type: ignore[dict-item]  # a test's own
    agreed = answer(door, wanted)
    assert agreed is not None
    assert agreed["result"]["protocolVersion"] == HANDSHAKE_VERSIONS[-1]


def test_an_unknown_modern_revision_is_refused_with_the_known_ones(door: FrontDoor) -> None:
    refused = answer(door, UNKNOWN)
    assert refused is not None
    assert refused["error"]["code"] == UNSUPPORTED_VERSION
    assert refused["error"]["data"] == {"supported": [MODERN_VERSION], "requested": "2099-01-01"}


def test_an_envelope_without_capabilities_is_refused_and_fixes_nothing(door: FrontDoor) -> None:
    half = {"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN_VERSION}}
    refused = answer(door, {**LIST, "params": half})
    assert refused is not None
    assert refused["error"]["code"] == INVALID_PARAMS
    assert answer(door, INITIALIZE) is not None


def test_after_initialize_the_library_refuses_modern_messages(door: FrontDoor) -> None:
    answer(door, INITIALIZE)
    assert answer(door, DISCOVER) is None
    assert answer(door, UNKNOWN) is None
    assert answer(door, INITIALIZE) is None
    assert answer(door, LIST) is not None


def test_after_a_modern_call_the_library_refuses_the_handshake(door: FrontDoor) -> None:
    assert answer(door, modern(CALL)) is None
    assert answer(door, INITIALIZE) is None
    assert answer(door, PING) is None
    assert answer(door, modern(LIST)) is not None


def test_before_initialize_other_requests_are_refused_and_fix_nothing(door: FrontDoor) -> None:
    discover: Message = {"jsonrpc": "2.0", "id": 1, "method": "server/discover"}
    for message, code in ((discover, METHOD_NOT_FOUND), (CALL, INVALID_REQUEST)):
        refused = answer(door, message)
        assert refused is not None
        assert refused["error"]["code"] == code
    assert answer(door, modern(LIST)) is not None
    assert answer(door, INITIALIZE) is not None
    assert answer(door, CALL) is None


# -- what it leaves to the library

NOT_THE_DOORS: dict[str, bytes] = {
    "a modern call": line(modern(CALL)),
    "an unknown modern method": line(modern({**PING, "method": "tools/unlisted"})),
    "no JSON": b"garbage",
    "no UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xff"}}',
    "a batch": line([PING]),
    "a fractional id": line({**PING, "id": 1.5}),
    "a null id": line({**PING, "id": None}),
    "a boolean id": line({**PING, "id": True}),
    "an id that is not ASCII": line({**PING, "id": "ü"}),
    "an id beyond a double": line({**PING, "id": 2**60}),
    "another version of JSON-RPC": line({**PING, "jsonrpc": "1.0"}),
    "an unknown key": line({**PING, "extra": 1}),
    "params that are no object": line({**PING, "params": []}),
    "a modern list with a cursor": line(modern({**LIST, "params": {"cursor": "x"}})),
    "half a surrogate pair": line(PING)[:-1] + b',"params":{"_meta":{"a":"\\ud800"}}}',
    "a constant that is not JSON": line(PING)[:-1] + b',"params":{"_meta":{"a":NaN}}}',
    "a response": line({"jsonrpc": "2.0", "id": 1, "result": {}}),
    "too deep": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"_meta":' * 100_000,
    "too long": line({**PING, "params": {"_meta": {"a": "x" * (1 << 20)}}}),
    "initialize without a client": line(
        {**INITIALIZE, "params": {"protocolVersion": "2025-11-25"}}
    ),
    "an envelope whose version is no text": line(modern(LIST, protocolVersion=1)),
    "a client without a version": line(modern(LIST, clientInfo={"name": "x"})),
}


@pytest.mark.parametrize("message", NOT_THE_DOORS.values(), ids=NOT_THE_DOORS)
def test_uncertain_messages_are_left_to_the_library(door: FrontDoor, message: bytes) -> None:
    assert door.answer(message) is None


def test_notifications_without_a_call_are_ignored(door: FrontDoor) -> None:
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert door.answer(line(cancelled)) == b""
    door.serves_alone = False
    assert door.answer(line(cancelled)) is None


# -- the process


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("is_modern", [False, True], ids=["legacy", "modern"])
async def test_an_idle_session_is_one_process_with_one_thread(is_modern: bool) -> None:
    async with serving(command=SERVE) as server:
        await server.shake_hands(modern=is_modern)
        await server.say(server.request(1, "tools/list"))
        await server.hear_answer(1)
        assert list(descendants(server.process.pid)) == []
        assert threads(server.process.pid) == 1


def test_it_loads_little_of_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules); import agent_dispatch.server.serve;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    heavy = {"trio", "msgspec", "mcp", "pydantic", "typing", "dataclasses", "contextlib", "socket"}
    assert not loaded & (heavy | {"logging", "pathlib", "inspect", "subprocess"})


async def at_the_door(server: Server) -> None:
    await server.shake_hands()


async def while_it_loads(server: Server) -> None:
    await server.shake_hands()
    await server.say(CALL)


async def while_it_serves(server: Server) -> None:
    await server.shake_hands()
    await server.say(CALL)
    await server.hear_answer(CALL["id"])


@pytest.mark.parametrize("state", [at_the_door, while_it_loads, while_it_serves])
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "end of input"])
async def test_each_way_to_leave_ends_it_in_time_in_each_state(
    state: Callable[[Server], object], how: str, tmp_path: Path
) -> None:
    env = {"AGENT_DISPATCH_CONFIG": str(tmp_path / "agents.toml")}
    async with serving(command=SERVE, env=env) as server:
        await state(server)  # type: ignore[misc]  # a test's own
        if how == "end of input":
            assert server.process.stdin is not None
            await server.process.stdin.aclose()
        else:
            server.process.send_signal(getattr(signal, how))
        status, took_s = await server.wait_exit()
        assert (status, server.stderr) == (0, "")
        # Twice what the client leaves: other tests may run beside this one.
        assert took_s < 2 * LEAVE_S


async def test_the_door_answers_messages_behind_a_dropped_call() -> None:
    messages = [INITIALIZE, INITIALIZED, CALL, LIST]
    done = await trio.run_process(
        SERVE, stdin=b"".join(line(m) + b"\n" for m in messages), capture_stdout=True
    )
    ids = [json.loads(answer)["id"] for answer in done.stdout.splitlines()]
    assert {"init", LIST["id"]} <= set(ids)
    assert ids.count("init") == 1


async def test_messages_sent_in_one_piece_are_each_answered_once(tmp_path: Path) -> None:
    env = {"AGENT_DISPATCH_CONFIG": str(tmp_path / "agents.toml")}
    async with serving(command=SERVE, env=env) as server:
        await server.say(DISCOVER, UNKNOWN, INITIALIZE, INITIALIZED, CALL, LIST, PING)
        expected = {4, 5, "init", CALL["id"], LIST["id"], PING["id"]}
        heard = [(await server.hear())["id"] for _ in expected]
        assert set(heard) == expected
        # The id of the handshake may be used again.
        await server.say({**CALL, "id": "init"})
        assert "result" in await server.hear()


async def test_a_client_that_does_not_read_gets_every_frame_whole() -> None:
    many = 40
    async with serving(command=SERVE) as server:
        await server.shake_hands()
        await server.say(*({**LIST, "id": number} for number in range(many)))
        # Not read until then: far more than a pipe holds.
        await server.say({**PING, "id": "last"})
        heard = [await server.hear() for _ in range(many + 1)]
        assert [message["id"] for message in heard] == [*range(many), "last"]


@pytest.mark.parametrize("cut", [1, 7, 40])
async def test_a_message_in_pieces_is_one_message(cut: int) -> None:
    async with serving(command=SERVE) as server:
        data = line(INITIALIZE) + b"\n"
        await server.say_raw(data[:cut])
        await server.say_raw(data[cut:])
        assert "result" in await server.hear_answer("init")


def test_a_last_line_without_its_end_is_answered() -> None:
    done = subprocess.run(
        SERVE, cwd=REPOSITORY, input=line(INITIALIZE), stdout=subprocess.PIPE, check=True
    )
    assert json.loads(done.stdout)["id"] == "init"


async def test_a_cancelled_call_is_not_begun_when_it_was_cancelled_while_loading(
    tmp_path: Path,
) -> None:
    (tmp_path / "agents.toml").write_text(f'[agents.infra]\ndirectory = "{tmp_path}"\n')
    env = {
        "AGENT_DISPATCH_CONFIG": str(tmp_path / "agents.toml"),
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    async with serving(command=SERVE, env=env) as server:
        await server.shake_hands()
        cancelled = {"requestId": 9, "reason": "AbortError: user-cancel"}
        await server.say(
            server.dispatch(9, "go"),
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled},
            CALL,
        )
        assert (await server.hear())["id"] == CALL["id"]
    assert list((tmp_path / "jobs").glob("*.json")) == []
