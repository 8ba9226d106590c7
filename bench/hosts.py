"""Measure what an agent on another machine costs: over cold ssh, a shared connection, an open link.

    uv run python -m bench.hosts            needs root and sshd: makes namespaces of its own

Two machines are network namespaces, claude is a script, and times are medians of `--rounds`. For a
round trip of 50 ms, a proxy delays all bytes by 25 ms each way.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from agent_dispatch.claude.fork_server import start_fork_server
from agent_dispatch.model.dispatch import CallOptions, DispatchRequest
from agent_dispatch.run.open_service import open_service
from agent_dispatch.worker import ENTRIES
from bench.processes import command_line_of, pss_mib
from tests.remote.network import NetworkedMachine, missing, network

ROOT = Path(__file__).parents[1]
DELAY = Path(__file__).with_name("delay.py")


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1000


async def _measure(rounds: int, fork_server: Any) -> dict[str, Any]:
    """Measure one process with one link, inside the namespace of the laptop."""
    found: dict[str, Any] = {}
    async with open_service(environ=os.environ, fork_server=fork_server) as service:
        number = 0

        def request(task: str = "echo") -> DispatchRequest:
            nonlocal number
            number += 1
            return DispatchRequest(agent="train", task=f"{task} {number}")

        async def submit() -> None:
            jobs.append(await service.submit(request()))

        async def call() -> None:
            result = await service.dispatch(request(), options=CallOptions(fresh=True))
            assert result.success, result

        jobs: list[Any] = []
        found["connect and submit"] = [await _timed(submit)]
        found["submit"] = [await _timed(submit) for _ in range(rounds)]
        for job in jobs:
            await service.jobs.wait(job.id, 60)
        found["instant answer"] = [await _timed(call) for _ in range(rounds)]

        async def fifty() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(submit)

        del jobs[:]
        found["50 submits on one link"] = [await _timed(fifty)]
        for job in jobs:
            await service.jobs.wait(job.id, 120)
    return {name: statistics.median(times) for name, times in found.items()}


def _inside(rounds: int) -> int:
    fork_server = start_fork_server(ENTRIES)
    try:
        print(json.dumps(trio.run(_measure, rounds, fork_server)))
    finally:
        fork_server.close()
    return 0


def _measured_inside(laptop: NetworkedMachine, rounds: int) -> dict[str, float]:
    """Run this command again in the namespace of the laptop."""
    inside = [sys.executable, "-m", "bench.hosts", "--inside", "--rounds", str(rounds)]
    environ = {**laptop.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*laptop.entering, *inside], env=environ, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _plain_ms(laptop: NetworkedMachine, alias: str, rounds: int) -> float:
    """Time `ssh HOST agent-dispatch run`, as a person would type it."""
    times = []
    for number in range(rounds):
        there = f".local/bin/agent-dispatch run train 'echo {number}{alias}' --json"
        began = time.perf_counter()
        subprocess.run([*laptop.entering, "ssh", alias, there], check=True, capture_output=True)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def _pss_of(pids: Sequence[int], program: str) -> float:
    return pss_mib(pid for pid in pids if program in command_line_of(pid))


def _run(rounds: int) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place, network(Path(place)) as net:
        laptop, gpu = net.machine("lap"), net.machine("gpu")
        gpu.start_sshd()
        gpu.admits(laptop, "gpu")
        gpu.project("train")
        config = laptop.home / ".ssh" / "config"
        direct = config.read_text()
        proxy = shlex.join([sys.executable, str(DELAY), gpu.address])
        slow = direct.replace("Host gpu\n", f"Host slow\n ProxyCommand {proxy}\n")
        shared = f"Host *\n ControlPath {laptop.home}/.ssh/cm-%n\n"
        config.write_text(direct + slow + shared)
        laptop.cli("hosts", "add", "gpu")
        laptop.link("train", "gpu")
        for alias, rtt in (("gpu", 0), ("slow", 50)):
            laptop.config.write_text(
                f'[hosts.gpu]\nssh = "{alias}"\n[agents.train]\nhost = "gpu"\n'
            )
            for way in ("cold", "shared"):
                if way == "shared":
                    master = ["ssh", "-M", "-N", "-f", alias]
                    subprocess.run([*laptop.entering, *master], check=True)
                row = _measured_inside(laptop, rounds)
                row["plain ssh … run"] = _plain_ms(laptop, alias, min(rounds, 5))
                table[f"{way} ssh, round trip {rtt} ms"] = row
        caller = laptop.start("run", "train", "sleep=5", "--json")
        gpu.wait_until_started(1 + len(gpu.starts))
        stub = _pss_of(gpu.processes(), "_remote")
        ssh = _pss_of(laptop.processes(), "/usr/bin/ssh")
        caller.communicate()
        table["memory of one link, MiB"] = {"stub and its fork server": stub, "ssh": ssh}
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        return _inside(options.rounds)
    if (reason := missing()) is not None:
        print(f"skipped: {reason}")
        return 0
    table = _run(options.rounds)
    if options.json:
        print(json.dumps(table, indent=2))
        return 0
    for heading, row in table.items():
        print(heading)
        for name, value in row.items():
            print(f"  {name:<28}{value:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
