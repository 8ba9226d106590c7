"""A scripted stand-in for `claude`, for `agent-dispatch demo`: no model, no network, no cost.

It speaks as much of the stream-json format as one dispatch needs, with short pauses, and looks
up its answers in `tides.csv` of its working directory. It runs as a program of its own and imports
only the standard library.
"""

import csv
import json
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

TABLE = "tides.csv"
MODEL = "stand-in"

_PAUSE_S = 0.7


def main(argv: Sequence[str]) -> None:
    """Answer each line of stdin until stdin ends.

    Args:
        argv: The arguments of `claude`; only the session id is used.
    """
    session_id = _option(argv, "--session-id") or _option(argv, "--resume") or str(uuid.uuid4())
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("type") == "user":
            _answer(str(message["message"]["content"]), session_id)


def find_answer(prompt: str, table: Path) -> str:
    """Look up the day that the prompt names."""
    if not table.exists():
        # This is the other agent of a dialogue, the one that asked.
        return "Then the ferry leaves 20 minutes after high water. [RESOLVED]"
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["day"] in prompt:
                return (
                    f"High water on {row['day']} is at {row['first']} and {row['second']}"
                    f" (from {table.name})."
                )
    return f"{table.name} says nothing about that day."


def _answer(prompt: str, session_id: str) -> None:
    started = time.monotonic()
    _emit("system", session_id, subtype="init", model=MODEL, cwd=str(Path.cwd()), tools=["Read"])
    time.sleep(_PAUSE_S)
    _say(session_id, type="text", text=f"I look it up in {TABLE}.")
    time.sleep(_PAUSE_S)
    _say(session_id, type="tool_use", id="toolu_1", name="Read", input={"file_path": TABLE})
    time.sleep(_PAUSE_S)
    content = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": ""}]
    _emit("user", session_id, message={"role": "user", "content": content})
    answer = find_answer(prompt, Path(TABLE))
    _say(session_id, type="text", text=answer)
    _emit(
        "result",
        session_id,
        subtype="success",
        is_error=False,
        result=answer,
        num_turns=2,
        duration_ms=int((time.monotonic() - started) * 1000),
        total_cost_usd=0.0,
        model_usage_since_last_result={MODEL: {"costUSD": 0.0}},
        permission_denials=[],
        terminal_reason="completed",
    )


def _say(session_id: str, **block: object) -> None:
    message = {"role": "assistant", "model": MODEL, "content": [block]}
    _emit("assistant", session_id, message=message)


def _emit(kind: str, session_id: str, **fields: object) -> None:
    event = {"type": kind, **fields, "session_id": session_id}
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _option(argv: Sequence[str], name: str) -> str | None:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name:
            return following
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
