"""The same child as `standin.c` where there is no C compiler; slower to start, and said so."""

import os
import sys
import time

ID = "00000000-0000-4000-8000-000000000000"
MESSAGE = (
    '{"type":"assistant","session_id":"' + ID + '","message":{"id":"msg_1","type":"message",'
    '"role":"assistant","model":"standin","content":[{"type":"text","text":'
    '"Still looking through the files of this project, one after the other."}],'
    '"usage":{"input_tokens":10,"output_tokens":5}}}\n'
)


def stamp(what: str) -> None:
    """Note the time of CLOCK_MONOTONIC, if asked to."""
    if path := os.environ.get("STANDIN_STAMPS"):
        with open(path, "a") as file:
            file.write(f"{what} {time.clock_gettime(time.CLOCK_MONOTONIC):.9f}\n")


arguments = sys.argv[1:]
if "--version" in arguments:
    print("2.1.330 (Claude Code)")
    sys.exit()
stamp("start")
if any(argument.startswith("--input-format") for argument in arguments):
    sys.stdin.readline()
if "stream-json" in " ".join(arguments).partition("--output-format")[2][1:12]:
    sys.stdout.write(
        '{"type":"system","subtype":"init","session_id":"' + ID + '","model":"standin",'
        '"tools":[],"mcp_servers":[]}\n'
    )
    sys.stdout.write(MESSAGE * int(os.environ.get("STANDIN_LINES", "0")))
if gate := os.environ.get("STANDIN_GATE"):
    sys.stdout.flush()
    with open(gate) as fifo:
        fifo.read()
sys.stdout.write(
    '{"type":"result","subtype":"success","is_error":false,"result":"done",'
    '"session_id":"' + ID + '","num_turns":1,"duration_ms":1,"total_cost_usd":0.001,'
    '"terminal_reason":"completed","permission_denials":[]}\n'
)
sys.stdout.flush()
stamp("end")
