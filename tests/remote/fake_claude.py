"""A claude for tests of other machines: notes each start, works as its prompt says, answers.

The prompt's task may hold `sleep=SECONDS`, `lines=NUMBER`, `chars=NUMBER` and `ask=1`. Each start
is a line `start PID` in ~/starts; the answer is the same for the same task.
"""

import json
import os
import re
import sys
import time
import uuid

SESSION = next(
    (a.partition("=")[2] for a in sys.argv if a.startswith(("--session-id=", "--resume="))),
    str(uuid.uuid4()),
)


def say(**event: object) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def number(name: str, text: str, default: float = 0) -> float:
    """What the task says of `name`."""
    found = re.search(rf"{name}=([0-9.]+)", text)
    return float(found[1]) if found else default


def main() -> None:
    """Run one turn."""
    if "--version" in sys.argv:
        sys.stdout.write("2.1.330 (Claude Code)\n")
        return
    if sys.argv[1:2] == ["auth"]:
        say(loggedIn=True)
        return
    prompt = sys.stdin.readline()
    with open(os.path.expanduser("~/starts"), "a") as log:
        log.write(f"start {os.getpid()}\n")
    say(type="system", subtype="init", session_id=SESSION)
    lines = int(number("lines", prompt))
    for line in range(lines):
        block = {"type": "text", "text": f"step {line + 1}"}
        message = {"id": f"m{line}", "role": "assistant", "content": [block]}
        say(type="assistant", session_id=SESSION, message=message)
    if "ask=1" in prompt:
        asked = {"subtype": "can_use_tool", "tool_name": "Bash", "tool_use_id": "t1"}
        say(type="control_request", request_id="r1", request={**asked, "input": {"command": "ls"}})
        sys.stdin.readline()
    time.sleep(number("sleep", prompt))
    words = re.findall(r"[a-z]+=[0-9.]+|echo=\w+", prompt)
    answer = f"answer to {' '.join(words)} \u2028é🎉" + "x" * int(number("chars", prompt))
    if "environ=1" in prompt:
        answer = json.dumps(dict(os.environ))
    say(
        type="result",
        subtype="success",
        is_error=False,
        result=answer,
        session_id=SESSION,
        total_cost_usd=0.01,
        num_turns=1,
    )
    sys.stdin.read()


main()
