"""Runs the bare `claude -p` once for each line on stdin and prints the time as a JSON line.

It is a separate process that starts once inside the network of the CLI, so that no figure includes
its own start.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        begun = time.perf_counter()
        child = subprocess.Popen(
            ["claude", "-p", "--output-format", "json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(line)
        child.stdin.close()
        answer = json.loads(child.stdout.read())
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - begun
        took = {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime}
        print(json.dumps(took | {"result": answer["result"]}), flush=True)


if __name__ == "__main__":
    main()
