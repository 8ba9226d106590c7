"""The same child as `standin.c` where there is no C compiler; slower to start, and said so."""

import fcntl
import os
import re
import select
import sys
import time

ID = "00000000-0000-4000-8000-000000000000"
MESSAGE = (
    '{"type":"assistant","session_id":"' + ID + '","message":{"id":"msg_1","type":"message",'
    '"role":"assistant","model":"standin","content":[{"type":"text","text":'
    '"Still looking through the files of this project, one after the other."}],'
    '"usage":{"input_tokens":10,"output_tokens":5}}}\n'
)
DOOR = 1_000_000


def take_seat() -> int:
    """Lock the lowest free byte of the file of seats, for good; -1 if there is none."""
    path = os.environ.get("STANDIN_SEATS")
    if not path:
        return -1
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, DOOR)
    seat = 0
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seat)
        except OSError:
            seat += 1
        else:
            break
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, DOOR)
    return seat


def stamp(what: str, seat: int) -> None:
    """Note the time of CLOCK_MONOTONIC, if asked to."""
    if path := os.environ.get("STANDIN_STAMPS"):
        with open(path, "a") as file:
            file.write(f"{what} {time.clock_gettime(time.CLOCK_MONOTONIC):.9f} {seat}\n")


def work(lines: int, seconds: float) -> None:
    """Print messages, and take the time that was asked for."""
    pause_s = seconds / (lines + 1)
    for _ in range(lines):
        time.sleep(pause_s)
        sys.stdout.write(MESSAGE)
        if pause_s:
            sys.stdout.flush()
    time.sleep(pause_s)


def listen_to_stdin(seconds: float) -> None:
    """Read whatever is in stdin, for so long."""
    sources = [0]
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select(sources, [], [], left_s)[0] and not os.read(0, 65536):
            sources = []


arguments = sys.argv[1:]
if "--version" in arguments:
    print("2.1.330 (Claude Code)")
    sys.exit()
stamp("start", take_seat())
prompt = " ".join(arguments)
if any(argument.startswith("--input-format") for argument in arguments):
    prompt = sys.stdin.readline()
streams = "stream-json" in " ".join(arguments).partition("--output-format")[2][1:12]
if streams:
    sys.stdout.write(
        '{"type":"system","subtype":"init","session_id":"' + ID + '","model":"standin",'
        '"tools":[],"mcp_servers":[]}\n'
    )
work(
    int(os.environ.get("STANDIN_LINES", "0")) if streams else 0,
    float(os.environ.get("STANDIN_SECONDS", "0")),
)
listen_to_stdin(float(os.environ.get("STANDIN_LISTENS", "0")))
if gate := os.environ.get("STANDIN_GATE"):
    sys.stdout.flush()
    with open(gate) as fifo:
        fifo.read()
named = re.search(r"task ([-0-9]+)", prompt)
answer = f"done {named[1]}" if named else "done"
sys.stdout.write(
    '{"type":"result","subtype":"success","is_error":false,"result":"'
    + answer.ljust(int(os.environ.get("STANDIN_BYTES", "0")), ".")
    + '","session_id":"'
    + ID
    + '","num_turns":1,"duration_ms":1,"total_cost_usd":0.001,'
    '"terminal_reason":"completed","permission_denials":[]}\n'
)
sys.stdout.flush()
stamp("end", -1)
